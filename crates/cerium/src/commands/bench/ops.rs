//! `cerium bench ops`: single operations. Copying ciphertexts in and out of the session is not counted.

use std::fmt;

use anyhow::{Context, Result, bail};
use cerium_ckks::basis::Level;
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::Slots;
use cerium_compiler::dsl::SourceProgram;
use cerium_runtime::Usage;
use serde::Serialize;
use serde_json::json;

use super::super::ReportArgs;
use super::super::device::DeviceArgs;
use super::measure::{Setup, Times, check_runs, peak_rss_bytes};
use super::transform::transform;
use crate::figures::{self, row};
use crate::program::Program;

/// Runs of each operation that are not counted.
const WARM_UP: usize = 2;

/// Measure single operations.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  cerium bench ops --params leveled-16 --threads 1 --levels 4,12,20")]
pub(super) struct Ops {
    /// Parameter set (`cerium params` lists them).
    #[arg(long, default_value = "leveled-16")]
    params: String,
    /// Levels of the operands, `all` for each; without, the top level.
    #[arg(long, value_name = "LEVELS")]
    levels: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Threads; 0 stands for one on each core.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measured runs of each operation, after two that are not counted.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    #[command(flatten)]
    report: ReportArgs,
}

/// One measured operation.
#[derive(Serialize)]
struct Row {
    op: &'static str,
    /// Of its operands.
    level: u8,
    /// Of the ciphertexts alone.
    log_q: f64,
    /// Limbs of one polynomial of an operand.
    limbs: usize,
    #[serde(flatten)]
    times: Times,
    /// Of the evaluation keys it uses, expanded.
    key_bytes: u64,
    launches: u64,
    /// What its kernels read and write, as if nothing were cached.
    bytes: u64,
    /// In the median.
    bytes_per_s: f64,
}

/// An operation at one level.
pub(super) struct Operation {
    op: &'static str,
    level: Level,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// In the text form of the ciphertext level; `CT` stands for the type of an operand, `PENDING` for that of a product.
    Text(&'static str),
    /// A transform of all limbs of a ciphertext, forward or back.
    Transform { forward: bool },
}

const OPERATIONS: &[(&str, What)] = &[
    ("ntt", What::Transform { forward: true }),
    ("intt", What::Transform { forward: false }),
    ("add", What::Text("func @main(%a: CT, %b: CT) {\n %c = add(%a, %b)\n return %c\n}")),
    (
        "multiply_relinearize",
        What::Text("func @main(%a: CT, %b: CT) {\n %c = mul(%a, %b)\n %d = relinearize(%c)\n return %d\n}"),
    ),
    (
        "multiply_relinearize_rescale",
        What::Text(
            "func @main(%a: CT, %b: CT) {\n %c = mul(%a, %b)\n %d = relinearize(%c)\n %e = rescale(%d)\n \
             return %e\n}",
        ),
    ),
    ("rotate", What::Text("func @main(%a: CT) {\n %b = rotate(%a) {by=1}\n return %b\n}")),
    ("conjugate", What::Text("func @main(%a: CT) {\n %b = conjugate(%a)\n return %b\n}")),
    ("rescale", What::Text("func @main(%a: PENDING) {\n %b = rescale(%a)\n return %b\n}")),
];

/// The levels that a list of them, or `all`, asks for, ascending; without a list the top level.
pub(super) fn levels(params: &Params, text: Option<&str>) -> Result<Vec<Level>> {
    let Some(text) = text else { return Ok(vec![params.max_level()]) };
    if text == "all" {
        return Ok(params.levels().collect());
    }
    let mut levels = Vec::new();
    for word in text.split(',') {
        let level = word.trim().parse().map(Level);
        let Some(level) = level.ok().filter(|&level| level <= params.max_level()) else {
            let top = params.max_level().0;
            bail!("`{word}` is no level of {}: levels are 0 to {top}, or `all`", params.name());
        };
        levels.push(level);
    }
    levels.sort();
    levels.dedup();
    Ok(levels)
}

/// All operations at these levels, at each in the order of the report. At level 0 nothing can be rescaled.
pub(super) fn operations(levels: impl Iterator<Item = Level>) -> Vec<Operation> {
    let at = |level: Level| {
        let possible = OPERATIONS.iter().filter(move |(op, _)| level.0 > 0 || !op.ends_with("rescale"));
        possible.map(move |&(op, what)| Operation { op, level, what })
    };
    levels.flat_map(at).collect()
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operation {} at level {}", self.op, self.level)
    }
}

impl Operation {
    /// The program that does it.
    pub(super) fn compile(&self, setup: &Setup) -> Result<Program> {
        let (params, level) = (&setup.params, self.level);
        let text = match self.what {
            What::Text(text) => text,
            What::Transform { forward } => return Program::new(transform(params, level, forward)),
        };
        let scale = params.scale(level).0;
        let text = text
            .replace("CT", &format!("ct<{level} {scale:?} 2>"))
            .replace("PENDING", &format!("ct<{level} {:?} 2>", scale * scale));
        let source = SourceProgram::from_text(self.op, params, &text)?;
        let slots = vec![slots(params); source.inputs.len()];
        setup.compile(&source, vec![slots])
    }
}

/// What is computed on.
fn slots(params: &Params) -> Slots {
    (0..params.slots()).map(|i| (i as f64 * 0.37).sin().into()).collect()
}

impl Ops {
    pub(super) fn run(self) -> Result<()> {
        check_runs(self.runs)?;
        let setup = Setup::new(&self.params, &self.device, self.threads)?;
        let params = &setup.params;
        let levels = levels(params, self.levels.as_deref())?;
        let device = self.device.open(self.threads)?.name();
        let copy_rate = self.device.copy_rate(self.threads)?;
        let mut rows = Vec::new();
        for operation in operations(levels.iter().rev().copied()) {
            rows.push(self.measure(&setup, &operation).with_context(|| operation.to_string())?);
        }
        // Relinearization, one rotation and conjugation, at the highest level.
        let of = |op: &str| rows.iter().filter(|row| row.op == op).map(|row| row.key_bytes).max();
        let key_bytes: u64 =
            ["multiply_relinearize", "rotate", "conjugate"].iter().filter_map(|op| of(op)).sum();
        let peak = peak_rss_bytes();
        let report = json!({
            "params": params.name(),
            "n": params.n(),
            "slots": params.slots(),
            "log_pq": params.log_pq(),
            "threads": self.threads,
            "runs": self.runs,
            "warm_up": WARM_UP,
            "device": device,
            "copy_bytes_per_s": copy_rate,
            "key_bytes": key_bytes,
            "peak_rss_bytes": peak,
            "operations": rows,
        });
        self.report.give(&report, || self.show(params, &rows, (key_bytes, peak), &device, copy_rate))
    }
}

impl Ops {
    fn measure(&self, setup: &Setup, operation: &Operation) -> Result<Row> {
        let (params, level) = (&setup.params, operation.level);
        let program = operation.compile(setup)?;
        let keys = setup.keys(&program)?;
        let inputs = setup.encrypt(&program, &vec![slots(params); program.artifact.inputs.len()])?;
        let mut session = setup.session(&program, keys, self.device.open(self.threads)?)?;
        let mut samples = Vec::with_capacity(self.runs);
        let mut usage = Usage::default();
        for run in 0..self.runs + WARM_UP {
            let (_, profile) = session.run(&inputs)?;
            if run >= WARM_UP {
                samples.push(profile.execution);
                usage = profile.usage.total();
            }
        }
        let times = Times::new(&samples);
        let bytes = usage.bytes_read + usage.bytes_written;
        Ok(Row {
            op: operation.op,
            level: level.0,
            log_q: params.log_q(level),
            limbs: params.basis(level).len(),
            key_bytes: session.memory().keys,
            launches: usage.launches,
            bytes,
            bytes_per_s: bytes as f64 / times.median_s,
            times,
        })
    }

    fn show(
        &self,
        params: &Params,
        rows: &[Row],
        (keys, peak): (u64, Option<u64>),
        device: &str,
        copy_rate: f64,
    ) -> String {
        let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
        let mut table = vec![row([
            "operation",
            "level",
            "limbs",
            "log Q",
            "median",
            "first decile",
            "last decile",
            "bytes",
            "a second",
            "of copies",
        ])];
        table.extend(rows.iter().map(|operation| {
            let [low, high] = operation.times.spread_s;
            row([
                operation.op,
                &operation.level.to_string(),
                &operation.limbs.to_string(),
                &format!("{:.0}", operation.log_q),
                &ms(operation.times.median_s),
                &ms(low),
                &ms(high),
                &figures::bytes(operation.bytes),
                &figures::bytes(operation.bytes_per_s as u64),
                &format!("{:.0}%", 100.0 * operation.bytes_per_s / copy_rate),
            ])
        }));
        let peak = peak.map(|bytes| format!(", at most {} of memory", figures::bytes(bytes)));
        format!(
            "{}: N = {}, log PQ = {:.0}, {} + {} primes; {} runs each on {device}\n{}\n  copies {} a second\n  keys {}{}\n",
            params.name(),
            params.n(),
            params.log_pq(),
            params.q_basis().len(),
            params.p_basis().len(),
            self.runs,
            figures::table(&table),
            figures::bytes(copy_rate as u64),
            figures::bytes(keys),
            peak.unwrap_or_default(),
        )
    }
}
