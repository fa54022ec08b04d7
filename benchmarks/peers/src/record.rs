//! What a run leaves behind.

use crate::measure::Times;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One piece of work done by several contestants, Cerium first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was measured.
    pub work: String,
    /// Its parameters.
    pub parameters: serde_json::Value,
    /// Unmeasured repetitions.
    pub warm_up: usize,
    /// Measured repetitions.
    pub repetitions: usize,
    /// The times of those who ran.
    pub times: Vec<Times>,
    /// Those who did not run, and why.
    pub skipped: Vec<String>,
}

impl Comparison {
    /// How many times the first contestant's time the other one takes, by medians.
    fn ratio(&self, other: &Times) -> f64 {
        other.median_us / self.times[0].median_us
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.work, self.parameters)?;
        for (i, times) in self.times.iter().enumerate() {
            let [low, high] = times.deciles_us;
            write!(f, "  {:<28} {:>12.1} us  ({low:.1} to {high:.1})", times.name, times.median_us)?;
            match i {
                0 => writeln!(f)?,
                _ => writeln!(f, "  {:.2}x", self.ratio(times))?,
            }
        }
        self.skipped.iter().try_for_each(|reason| writeln!(f, "  skipped: {reason}"))
    }
}

/// The record's entry of each comparison.
pub fn entries(comparisons: &[Comparison]) -> Vec<serde_json::Value> {
    let entry = |comparison: &Comparison| {
        let mut value = serde_json::json!(comparison);
        let ratios = comparison.times.iter().skip(1);
        value["times_of_the_first"] = ratios
            .map(|times| (times.name.clone(), comparison.ratio(times).into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        value
    };
    comparisons.iter().map(entry).collect()
}

/// A run, as written.
#[derive(Serialize)]
pub struct Record {
    commit: String,
    date: String,
    machine: String,
    /// Of the last one, five and fifteen minutes, at the end.
    load_average: String,
    threads: usize,
    comparisons: Vec<serde_json::Value>,
}

impl Record {
    /// A record of this commit, day and machine.
    pub fn new(threads: usize, comparisons: Vec<serde_json::Value>) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            commit: output("git", &["describe", "--always", "--dirty"]),
            date: output("date", &["-u", "+%Y-%m-%d"]),
            machine: machine(),
            load_average: load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            threads,
            comparisons,
        }
    }

    /// Writes `benchmarks/runs/<date>-<machine>/<name>.json`.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        let slug: String = self
            .machine
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runs");
        let folder = runs.join(format!("{}-{slug}", self.date));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// What a command prints, or "unknown".
fn output(command: &str, arguments: &[&str]) -> String {
    let printed = Command::new(command).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match printed {
        Ok(printed) if printed.status.success() => String::from_utf8_lossy(&printed.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Model and core count of the processor.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} {cores} cores", model.unwrap_or("unknown"))
}
