//! `cerium run`: the server's work.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use cerium_ckks::wire;
use cerium_runtime::Profile;
use serde_json::{Value, json};

use super::Threads;
use super::device::DeviceArgs;
use super::ranks::{Keys, RankArgs, ranks_json, show_devices, show_ranks, total_memory};
use crate::figures::{self, row};
use crate::files;
use crate::measurement::Measured;
use crate::program::Program;
use crate::progress::Progress;

/// Run a program on encrypted input. Needs no secret: of the keys it reads only DIR/evaluation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cerium run mnist.cerium --keys keys --input image.ct -o answer.ct\n  \
    cerium run mnist.cerium --keys keys --input image.ct -o answer.ct --profile run.json\n  \
    mpirun -n 4 cerium run mnist4.cerium --keys keys --input image.ct -o answer.ct")]
pub(crate) struct Run {
    /// The program, made by `cerium compile`.
    program: PathBuf,
    /// Folder of keys; only the folder `evaluation` in it is read.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The encrypted input, made by `cerium encrypt`.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the encrypted answer goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// Write the time of each layer to a file that `cerium explain --measured` reads; of several devices that of the first. Of a
    /// GPU it is taken as with --stage-times.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(mut self) -> Result<()> {
        self.device.stage_times |= self.profile.is_some();
        let threads = self.threads.apply()?;
        let program = Program::read(&self.program)?;
        let places = self.ranks.places(&program, &self.device, threads)?;
        let (inputs, progress) = match places.has_first() {
            true => (program.read_ciphertexts(&self.input, "`cerium encrypt` makes one")?, Progress::new()),
            false => (Vec::new(), Progress::silent()),
        };
        let start = Instant::now();
        let mut ranks = places.open(&program, Keys::Folder(&self.keys), &progress)?;
        let preparation = start.elapsed();
        let (outputs, profiles) = progress.work("running", || ranks.run(&inputs))?;
        let (has_first, ranks) = (ranks.has_first(), ranks.figures(&profiles)?);
        if !has_first {
            return Ok(());
        }
        let (profile, device) = (&profiles[0], show_devices(&ranks));
        let bytes = wire::encode_ciphertexts(&program.params, program.digest, &outputs);
        files::write(&self.output, &bytes)?;
        if let Some(path) = &self.profile {
            Measured::new(&program, device.clone(), profile).write(path)?;
        }
        let memory = total_memory(&ranks);
        if self.json {
            return figures::print_json(&json!({
                "output": self.output,
                "bytes": bytes.len(),
                "device": device,
                "preparation_seconds": preparation.as_secs_f64(),
                "seconds": profile.wall.as_secs_f64(),
                "stages": stages_json(&stage_times(profile)),
                "memory": memory,
                "ranks": ranks_json(&ranks),
            }));
        }
        figures::print(&format!(
            "{}\n{}{}: {}, computed in {} after {} of preparation, on {device}\n  memory: keys {}, encoded weights {}, working memory {}\n",
            show_stages(&stage_times(profile)),
            show_ranks(&ranks),
            self.output.display(),
            figures::bytes(bytes.len() as u64),
            figures::duration(profile.wall),
            figures::duration(preparation),
            figures::bytes(memory.keys),
            figures::bytes(memory.plaintexts),
            figures::bytes(memory.pool),
        ))
    }
}

/// Names of the stages that computed something, with their time: busy time over threads.
pub(super) fn stage_times(profile: &Profile) -> Vec<(String, Duration)> {
    let times = profile.stage_times().map(|(name, time)| (name.to_owned(), time));
    times.filter(|(_, time)| !time.is_zero()).collect()
}

pub(super) fn stages_json(stages: &[(String, Duration)]) -> Value {
    stages.iter().map(|(name, time)| json!({ "name": name, "seconds": time.as_secs_f64() })).collect()
}

pub(super) fn show_stages(stages: &[(String, Duration)]) -> String {
    if stages.is_empty() {
        return String::new(); // a GPU does not take them unless it is told to
    }
    let total: Duration = stages.iter().map(|(_, time)| *time).sum();
    let share =
        |time: &Duration| format!("{:.0}%", 100.0 * time.as_secs_f64() / total.as_secs_f64().max(1e-9));
    let mut rows = vec![row(["stage", "time", "share"])];
    rows.extend(stages.iter().map(|(name, time)| row([name, &figures::duration(*time), &share(time)])));
    figures::table(&rows)
}
