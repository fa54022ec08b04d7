//! What a run took, as a file: `cerium run --profile` writes it, `cerium explain --measured` reads it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cerium_artifact::StageId;
use cerium_runtime::Profile;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::prediction::StageSeconds;
use crate::program::Program;

/// A measured run. Seconds of stages are busy times of threads, divided by the number of threads: their sum is the time of the run
/// but for copying, for encoding weights that are not resident, and for threads that wait for each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Name of the program.
    program: String,
    /// Its identity, as hexadecimal digits.
    digest: String,
    /// What computed.
    pub(crate) device: String,
    /// Threads that computed.
    pub(crate) threads: usize,
    /// From the first input's upload to the last output's download.
    pub(crate) seconds: f64,
    /// The stages of the program, in its order.
    stages: Vec<MeasuredStage>,
}

/// What a stage took.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct MeasuredStage {
    name: String,
    /// Its kernels in the entry.
    entry_seconds: f64,
    /// Its kernels in functions.
    functions_seconds: f64,
    /// Kernels, of any stage, of the functions that it calls.
    called_seconds: f64,
}

impl Measured {
    /// A run of a program on a device.
    pub(crate) fn new(program: &Program, device: String, profile: &Profile) -> Measured {
        let usage = &profile.usage;
        let stage = |(index, name): (usize, &String)| {
            let id = StageId(index as u16);
            let seconds = |table: &cerium_runtime::profile::UsageTable| {
                table.stage(id).busy.as_secs_f64() / profile.threads.max(1) as f64
            };
            MeasuredStage {
                name: name.clone(),
                entry_seconds: seconds(&usage.entry),
                functions_seconds: seconds(&usage.functions),
                called_seconds: seconds(&usage.called),
            }
        };
        Measured {
            program: program.artifact.name.clone(),
            digest: format!("{:?}", program.digest),
            device,
            threads: profile.threads,
            seconds: profile.wall.as_secs_f64(),
            stages: profile.stages.iter().enumerate().map(stage).collect(),
        }
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        files::write(path, format!("{:#}\n", serde_json::to_value(self)?).as_bytes())
    }

    /// Reads a file and checks that it is of a run of this program.
    pub(crate) fn read(path: &Path, program: &Program) -> Result<Measured> {
        let bytes = files::read(path, "measured run", "`cerium run --profile` writes one")?;
        let parse = || -> Result<Measured> {
            let measured: Measured = serde_json::from_slice(&bytes)
                .context("it is not what `cerium run --profile` writes; run the program again")?;
            measured.check(program)?;
            Ok(measured)
        };
        parse().with_context(|| format!("cannot use the measured run {}", path.display()))
    }

    fn check(&self, program: &Program) -> Result<()> {
        let digest = format!("{:?}", program.digest);
        if self.digest != digest {
            bail!(
                "it is of another program, `{}` ({}), than `{}` ({digest}); run this one with `cerium run --profile`",
                self.program.escape_debug(),
                self.digest.escape_debug(),
                program.artifact.name.escape_debug(),
            );
        }
        let names = self.stages.iter().map(|stage| &stage.name);
        let seconds =
            |stage: &MeasuredStage| [stage.entry_seconds, stage.functions_seconds, stage.called_seconds];
        let mut all = self.stages.iter().flat_map(seconds).chain([self.seconds]);
        let is_whole = names.eq(program.artifact.stages.iter().map(|stage| &stage.name))
            && all.all(|seconds| seconds.is_finite() && seconds >= 0.0)
            && self.threads > 0;
        if !is_whole {
            bail!(
                "its stages, times or threads were changed; run the program again with `cerium run --profile`"
            );
        }
        Ok(())
    }

    /// Seconds by stage.
    pub(crate) fn stages(&self) -> StageSeconds {
        let of = |seconds: fn(&MeasuredStage) -> f64| self.stages.iter().map(seconds).collect();
        StageSeconds::measured(
            of(|stage| stage.entry_seconds),
            of(|stage| stage.functions_seconds),
            of(|stage| stage.called_seconds),
        )
    }
}
