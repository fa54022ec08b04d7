//! Cerium beside other libraries, measured in one run on the same number of threads.
//!
//! ```text
//! cargo run --release                               # from benchmarks/peers: the NTT, multiplication, rotation
//! cargo run --release -- bootstrap [THREADS [RUNS]] # bootstrapping, on one thread unless told otherwise
//! ```
//!
//! The result is printed, and written as JSON into `benchmarks/runs/<date>-<machine>/`, as `peers.json` or as
//! `bootstrap.json` (`bootstrap-THREADS.json` for more threads than one). A peer that cannot be built or run here is
//! skipped with a word why; the rest still counts.

mod bootstrap;
mod measure;
mod ntt;
mod operations;
mod programs;
mod record;

use anyhow::{Context, Result, bail, ensure};
use record::{Comparison, Record};

/// Measured bootstraps of each contestant, unless told otherwise.
const RUNS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare_operations(),
        ["bootstrap"] => compare_bootstraps(1, RUNS),
        ["bootstrap", threads] => compare_bootstraps(count(threads)?, RUNS),
        ["bootstrap", threads, runs] => compare_bootstraps(count(threads)?, count(runs)?),
        _ => bail!("arguments: nothing, or `bootstrap [THREADS [RUNS]]`"),
    }
}

fn count(word: &str) -> Result<usize> {
    let count = word.parse().with_context(|| format!("{word} is not a number"))?;
    ensure!(count > 0, "there must be at least one thread and one run");
    Ok(count)
}

fn compare_operations() -> Result<()> {
    let mut comparisons: Vec<Comparison> = vec![ntt::compare()?];
    comparisons.extend(operations::compare());
    for comparison in &comparisons {
        println!("{comparison}");
    }
    keep(&Record::new(1, record::entries(&comparisons)), "peers")
}

fn compare_bootstraps(threads: usize, runs: usize) -> Result<()> {
    let entries = bootstrap::record(&bootstrap::compare(threads, runs));
    bootstrap::show(&entries);
    let name = if threads == 1 { "bootstrap".into() } else { format!("bootstrap-{threads}") };
    keep(&Record::new(threads, entries), &name)
}

fn keep(record: &Record, name: &str) -> Result<()> {
    println!("written to {}", record.write(name)?.display());
    Ok(())
}
