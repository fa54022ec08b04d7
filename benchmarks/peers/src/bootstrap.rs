//! Bootstrapping of all slots at N = 2^16.
//!
//! Each contestant is a process of its own, one after the other, because a bootstrap's keys fill most of a machine's
//! memory: Cerium through its command `cerium bench bootstrap`, `poulpy-ckks` through the program in `poulpy/`, OpenFHE's
//! Python wheel through the program in `openfhe/`. Each prints one JSON object with the same fields.
//!
//! What a bootstrap is worth is the modulus between the level at which it takes its input and that of its result: the
//! *usable bits*. They are not bought at equal security: a sparse secret makes bootstrapping cheaper, and the record says
//! which one each contestant has.

use crate::programs::{self, here, output};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::process::Command;

/// What one contestant measured about itself, and what follows from it.
pub struct Bootstrap {
    name: &'static str,
    result: Result<Value>,
}

/// A contestant's name, the memory it needs in GB (measured), and the command that measures it.
type Contestant = (&'static str, f64, fn(threads: usize, runs: usize) -> Result<Command>);

const CONTESTANTS: [Contestant; 4] = [
    ("cerium", 7.0, cerium),
    ("poulpy-ckks 0.10, fast preset", 21.5, |threads, runs| {
        poulpy("n16_d35_k685_p19_s2c_ffr_ci", threads, runs)
    }),
    ("poulpy-ckks 0.10, deep preset", 19.5, |threads, runs| poulpy("n16_d35_k733_p20_s2c", threads, runs)),
    ("OpenFHE 1.6", 13.0, openfhe),
];

/// Measures all contestants that can be built and have the memory they need.
pub fn compare(threads: usize, runs: usize) -> Vec<Bootstrap> {
    let measure = |(name, needs, command): &Contestant| {
        let result = enough_memory(*needs).and_then(|()| command(threads, runs)).and_then(|mut command| {
            println!("measuring {name} ...");
            let printed = output(&mut command)?.into_iter().next_back().context("it printed no result")?;
            complete(printed, threads)
        });
        Bootstrap { name, result }
    };
    CONTESTANTS.iter().map(measure).collect()
}

fn cerium(threads: usize, runs: usize) -> Result<Command> {
    let mut command = Command::new(programs::cerium()?);
    command.args(["bench", "bootstrap", "--params", "boot-40", "--json"]);
    command.args(["--threads", &threads.to_string(), "--runs", &runs.to_string()]);
    Ok(command)
}

fn poulpy(preset: &str, threads: usize, runs: usize) -> Result<Command> {
    let mut command = Command::new(programs::poulpy("poulpy-bootstrap")?);
    command.args([preset, &threads.to_string(), &runs.to_string()]);
    Ok(command)
}

fn openfhe(threads: usize, runs: usize) -> Result<Command> {
    let mut command = Command::new(programs::openfhe()?);
    command.env("OMP_NUM_THREADS", threads.to_string());
    command.arg(here().join("openfhe/bootstrap.py")).arg(runs.to_string());
    Ok(command)
}

fn enough_memory(needs: f64) -> Result<()> {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    match free.map(|kilobytes| kilobytes * 1024.0 / 1e9) {
        Some(free) if free < needs => bail!("it needs {needs} GB of memory, {free:.1} GB are free"),
        _ => Ok(()),
    }
}

/// Adds medians, and what follows from them, to what a contestant printed.
fn complete(mut printed: Value, threads: usize) -> Result<Value> {
    ensure!(printed["threads"] == threads, "it ran on {} threads", printed["threads"]);
    let median = |field: &str| {
        let samples = printed[field].as_array().with_context(|| format!("it printed no {field}"))?;
        let mut samples: Vec<f64> = samples.iter().filter_map(Value::as_f64).collect();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied().with_context(|| format!("{field} is empty"))
    };
    let (wall, cpu) = (median("samples_s")?, median("samples_cpu_s")?);
    let bits = printed["log_q_left"].as_f64().context("it printed no log_q_left")?;
    printed["median_s"] = json!(wall);
    printed["cpu_s"] = json!(cpu);
    printed["usable_bits_per_s"] = json!(bits / wall);
    printed["usable_bits_per_cpu_s"] = json!(bits / cpu);
    printed["cpu_s_per_usable_bit"] = json!(cpu / bits);
    Ok(printed)
}

/// The record's entry of each contestant; times of the first are by processor time a usable bit.
pub fn record(bootstraps: &[Bootstrap]) -> Vec<Value> {
    let cost = |result: &Result<Value>| result.as_ref().ok()?["cpu_s_per_usable_bit"].as_f64();
    let ours = bootstraps.first().and_then(|first| cost(&first.result));
    let entry = |bootstrap: &Bootstrap| match &bootstrap.result {
        Err(reason) => json!({ "name": bootstrap.name, "skipped": format!("{reason:#}") }),
        Ok(printed) => {
            let mut entry = printed.clone();
            entry["name"] = bootstrap.name.into();
            let times = cost(&bootstrap.result).zip(ours).map(|(theirs, ours)| theirs / ours);
            entry["times_of_the_first_by_usable_bit"] = times.into();
            entry
        }
    };
    bootstraps.iter().map(entry).collect()
}

/// A line or two on each contestant.
pub fn show(entries: &[Value]) {
    let number = |entry: &Value, field: &str| entry[field].as_f64().unwrap_or(f64::NAN);
    for entry in entries {
        let name = entry["name"].as_str().unwrap_or_default();
        if let Some(reason) = entry["skipped"].as_str() {
            println!("{name}: skipped: {reason}");
            continue;
        }
        let at = |field| number(entry, field);
        println!(
            "{name} ({}): {:.2} s of processor time, {:.2} s; {} levels of {:.0} bits; {:.1} usable bits a second; \
             precision {:.1} bits mean, {:.1} least\n    secret: {}; log PQ {:.0}, N {}, {} slots, {:.1} GB; {:.2}x by usable bit",
            entry["params"].as_str().unwrap_or_default(),
            at("cpu_s"),
            at("median_s"),
            entry["levels_left"],
            at("log_q_left") / at("levels_left"),
            at("usable_bits_per_cpu_s"),
            at("mean_precision_bits_of_parts"),
            at("min_precision_bits_of_parts"),
            entry["secret"].as_str().unwrap_or_default(),
            at("log_pq"),
            entry["n"],
            entry["slots"],
            at("peak_rss_bytes") / 1e9,
            at("times_of_the_first_by_usable_bit"),
        );
    }
}
