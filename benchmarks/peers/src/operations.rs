//! Multiplication with relinearization and rescaling, and rotation, at N = 2^16 and log PQ about 1740, one thread.
//!
//! Cerium is measured through its own command, `cerium bench ops --json`; `poulpy-ckks` through the program in
//! `poulpy/`. Both are built here and run in turn. Poulpy has no separate rescaling: a product of two ciphertexts
//! comes out rescaled.

use crate::measure::Times;
use crate::programs::{self, output};
use crate::record::Comparison;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const WARM_UP: usize = 2;
const REPETITIONS: usize = 7;
/// Turns that each contestant gets.
const TURNS: usize = 3;
/// Sizes of Poulpy's gadget block, in digits of 52 bits: the faster one of each operation counts.
const GADGET_BLOCKS: [usize; 2] = [4, 12];

/// What is compared, by Cerium's name and Poulpy's.
const OPERATIONS: [(&str, &str, &str); 2] = [
    ("multiply, relinearize, rescale", "multiply_relinearize_rescale", "multiply"),
    ("rotate", "rotate", "rotate"),
];

/// The samples of each operation, in seconds, with its parameters.
type Samples = BTreeMap<String, (Value, Vec<f64>)>;

/// Measures all that can be built.
pub fn compare() -> Vec<Comparison> {
    let cerium = programs::cerium();
    let poulpy = programs::poulpy("poulpy-peer");
    let mut cerium_samples = cerium.map(|program| (program, Samples::new()));
    let mut poulpy_samples = poulpy.map(|program| (program, GADGET_BLOCKS.map(|_| Samples::new())));
    for _ in 0..TURNS {
        take_turn(&mut cerium_samples, run_cerium);
        take_turn(&mut poulpy_samples, |program, all| {
            GADGET_BLOCKS
                .iter()
                .zip(all)
                .try_for_each(|(&block, samples)| run_poulpy(program, block, samples))
        });
    }
    OPERATIONS
        .iter()
        .map(|(work, ours, theirs)| {
            let (mut parameters, mut times, mut skipped) = (json!({}), vec![], vec![]);
            match &cerium_samples {
                Ok((_, samples)) => add(samples, ours, "cerium", &mut parameters, &mut times, &mut skipped),
                Err(reason) => skipped.push(format!("cerium: {reason:#}")),
            }
            match &poulpy_samples {
                Ok((_, all)) => {
                    let fastest = all.iter().min_by(|a, b| median(a, theirs).total_cmp(&median(b, theirs)));
                    if let Some(samples) = fastest {
                        let name = "poulpy-ckks 0.10 (IFMA)";
                        add(samples, theirs, name, &mut parameters, &mut times, &mut skipped);
                    }
                }
                Err(reason) => skipped.push(format!("poulpy-ckks 0.10: {reason:#}")),
            }
            let (warm_up, repetitions) = (WARM_UP * TURNS, REPETITIONS * TURNS);
            Comparison { work: (*work).into(), parameters, warm_up, repetitions, times, skipped }
        })
        .collect()
}

/// Runs a contestant that is still in; one that fails is out.
fn take_turn<S>(contestant: &mut Result<(PathBuf, S)>, run: impl Fn(&Path, &mut S) -> Result<()>) {
    if let Ok((program, samples)) = contestant
        && let Err(reason) = run(program, samples)
    {
        *contestant = Err(reason);
    }
}

fn median(samples: &Samples, op: &str) -> f64 {
    samples.get(op).map_or(f64::INFINITY, |(_, samples)| Times::new(op, samples.clone()).median_us)
}

fn add(
    samples: &Samples,
    op: &str,
    name: &str,
    parameters: &mut Value,
    times: &mut Vec<Times>,
    skipped: &mut Vec<String>,
) {
    match samples.get(op) {
        Some((its, samples)) => {
            parameters[name] = its.clone();
            times.push(Times::new(name, samples.clone()));
        }
        None => skipped.push(format!("{name}: it printed no operation {op}")),
    }
}

fn run_cerium(program: &Path, samples: &mut Samples) -> Result<()> {
    let runs = REPETITIONS.to_string();
    let mut command = Command::new(program);
    command.args(["bench", "ops", "--params", "leveled-16", "--threads", "1", "--runs", &runs, "--json"]);
    for report in output(&mut command)? {
        for row in report["operations"].as_array().context("it printed no operations")? {
            let op = row["op"].as_str().context("an operation without a name")?;
            let seconds = row["samples_s"].as_array().with_context(|| format!("no times of {op}"))?;
            let entry = samples.entry(op.into()).or_default();
            entry.1.extend(seconds.iter().filter_map(Value::as_f64));
            entry.0 = json!({
                "n": report["n"], "log_pq": report["log_pq"], "log_q": row["log_q"], "limbs": row["limbs"]
            });
        }
    }
    Ok(())
}

fn run_poulpy(program: &Path, block: usize, samples: &mut Samples) -> Result<()> {
    let arguments = [WARM_UP, REPETITIONS, block].map(|number| number.to_string());
    for row in output(Command::new(program).args(arguments))? {
        let op = row["op"].as_str().context("an operation without a name")?;
        let microseconds = row["samples_us"].as_array().with_context(|| format!("no times of {op}"))?;
        let entry = samples.entry(op.into()).or_default();
        entry.1.extend(microseconds.iter().filter_map(Value::as_f64).map(|us| us / 1e6));
        entry.0 = row["parameters"].clone();
    }
    Ok(())
}
