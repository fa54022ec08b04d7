//! Multiplication with relinearization and rescaling, and rotation, at N = 2^16 and log PQ about 1740, one thread.
//!
//! Cerium is measured through its own command, `cerium bench ops --json`; `poulpy-ckks` through the program in
//! `poulpy/`. Both are built here and run in turn. Poulpy has no separate rescaling: a product of two ciphertexts
//! comes out rescaled.

use crate::measure::Times;
use crate::record::Comparison;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
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
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cerium = build(&here.join("../.."), "cerium", &["build", "--release"], &[]);
    let poulpy = build(
        &here.join("poulpy"),
        "poulpy-peer",
        &["+nightly", "build", "--release"],
        &[("RUSTFLAGS", "-C target-cpu=native")],
    );
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

/// Builds a program and says where it is.
fn build(folder: &Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<PathBuf> {
    println!("building {program} ...");
    let mut cargo = Command::new("cargo");
    // The toolchain of this run must not decide that of others.
    cargo.args(arguments).arg("--message-format=json-render-diagnostics").current_dir(folder);
    cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").envs(environment.iter().copied());
    if !environment.is_empty() {
        // Other flags make other files: keep them apart where a target folder is shared.
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            cargo.env("CARGO_TARGET_DIR", Path::new(&target).join(program));
        }
    }
    let built = cargo.stderr(std::process::Stdio::piped()).output().context("cannot run cargo")?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr);
        let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or("no reason given");
        bail!("it does not build here: {first}");
    }
    json_lines(&built.stdout)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.file_stem() == Some(OsStr::new(program)))
        .with_context(|| format!("cargo built no program {program}"))
}

fn run_cerium(program: &Path, samples: &mut Samples) -> Result<()> {
    let runs = REPETITIONS.to_string();
    for row in output(program, &["bench", "ops", "--threads", "1", "--runs", &runs, "--json"])? {
        let op = row["op"].as_str().context("an operation without a name")?;
        let milliseconds = row["samples_ms"]
            .as_array()
            .map(|samples| samples.iter().filter_map(Value::as_f64).collect())
            .or_else(|| row["median_ms"].as_f64().map(|median| vec![median]))
            .with_context(|| format!("no times of {op}"))?;
        let entry = samples.entry(op.into()).or_default();
        entry.1.extend(milliseconds.iter().map(|ms| ms / 1e3));
        entry.0 = json!({ "n": row["n"], "log_pq": row["log_pq"], "log_q": row["log_q"], "limbs": row["limbs"] });
    }
    Ok(())
}

fn run_poulpy(program: &Path, block: usize, samples: &mut Samples) -> Result<()> {
    let arguments = [WARM_UP, REPETITIONS, block].map(|number| number.to_string());
    for row in output(program, &arguments.each_ref().map(String::as_str))? {
        let op = row["op"].as_str().context("an operation without a name")?;
        let microseconds = row["samples_us"].as_array().with_context(|| format!("no times of {op}"))?;
        let entry = samples.entry(op.into()).or_default();
        entry.1.extend(microseconds.iter().filter_map(Value::as_f64).map(|us| us / 1e6));
        entry.0 = row["parameters"].clone();
    }
    Ok(())
}

/// The JSON objects that a program prints.
fn output(program: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
    let printed = Command::new(program).args(arguments).output().context("cannot run it")?;
    if !printed.status.success() {
        let errors = String::from_utf8_lossy(&printed.stderr);
        bail!("it fails here ({}): {}", printed.status, errors.lines().next().unwrap_or("no reason given"));
    }
    Ok(json_lines(&printed.stdout).collect())
}

fn json_lines(bytes: &[u8]) -> impl Iterator<Item = Value> {
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}
