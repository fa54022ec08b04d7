//! `cerium bench`: how fast this machine is.
//!
//! An operation is measured as what it is in a program: compiled by the same passes, with real keys and ciphertexts,
//! executed by a session. Copying ciphertexts in and out of the session is not counted.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::Params;
use cerium_client::{SecretKey, encrypt_with_secret_key, evaluation_key};
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Measure this machine.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Single operations at the top level of a parameter set.
    #[command(after_help = "Example:\n  cerium bench ops --params leveled-16 --threads 1 --json")]
    Ops(Ops),
}

#[derive(Args, Debug)]
struct Ops {
    /// Parameter set (`cerium params` lists them).
    #[arg(long, default_value = "leveled-16")]
    params: String,
    /// Threads; 0 stands for one on each core.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measured runs of each operation, after two that are not counted.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Print one JSON object a line and operation.
    #[arg(long)]
    json: bool,
}

/// One measured operation.
#[derive(Serialize)]
struct Row {
    op: &'static str,
    params: String,
    n: usize,
    log_pq: f64,
    /// Of the ciphertexts alone.
    log_q: f64,
    /// Limbs of one polynomial of an input.
    limbs: usize,
    threads: usize,
    runs: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    device: String,
}

/// The operations in the text form of the ciphertext level; `CT` stands for the type of a ciphertext at the top level, `PENDING`
/// for that of a product.
const OPERATIONS: &[(&str, &str)] = &[
    ("add", "func @main(%a: CT, %b: CT) {\n %c = add(%a, %b)\n return %c\n}"),
    (
        "multiply_relinearize",
        "func @main(%a: CT, %b: CT) {\n %c = mul(%a, %b)\n %d = relinearize(%c)\n return %d\n}",
    ),
    (
        "multiply_relinearize_rescale",
        "func @main(%a: CT, %b: CT) {\n %c = mul(%a, %b)\n %d = relinearize(%c)\n %e = rescale(%d)\n return %e\n}",
    ),
    ("rotate", "func @main(%a: CT) {\n %b = rotate(%a) {by=1}\n return %b\n}"),
    ("conjugate", "func @main(%a: CT) {\n %b = conjugate(%a)\n return %b\n}"),
    ("rescale", "func @main(%a: PENDING) {\n %b = rescale(%a)\n return %b\n}"),
];

impl Bench {
    /// Measures what was asked for.
    pub(crate) fn run(self) -> Result<()> {
        let What::Ops(args) = &self.what;
        bench_ops(args)
    }
}

fn bench_ops(args: &Ops) -> Result<()> {
    if args.runs == 0 {
        bail!("--runs must be at least 1");
    }
    let params = Params::named(&args.params).or_else(|_| Params::named_insecure(&args.params))?;
    let secret = SecretKey::generate_insecure(&params)?;
    if !args.json {
        println!(
            "{}: N = {}, log PQ = {:.0}, {} + {} limbs; medians of {} runs",
            params.name(),
            params.n(),
            params.log_pq(),
            params.q_basis().len(),
            params.p_basis().len(),
            args.runs
        );
    }
    for (op, text) in OPERATIONS {
        let row = measure(&params, &secret, op, text, args).with_context(|| format!("operation {op}"))?;
        if args.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            println!("{op:>30}  {:9.3} ms  (min {:.3}, max {:.3})", row.median_ms, row.min_ms, row.max_ms);
        }
    }
    Ok(())
}

fn measure(params: &Params, secret: &SecretKey, op: &'static str, text: &str, args: &Ops) -> Result<Row> {
    let level = params.max_level();
    let scale = params.scale(level).0;
    let text = text
        .replace("CT", &format!("ct<{level} {scale:?} 2>"))
        .replace("PENDING", &format!("ct<{level} {:?} 2>", scale * scale));
    let source = SourceProgram::from_text(op, params, &text)?;
    let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default())?;
    let keys = artifact.keys.iter().map(|&request| evaluation_key(params, secret, request));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let keys = KeyStore::from_keys(params, &artifact.keys, keys, 0, &progress::silent)?;
    let device = Box::new(CpuDevice::new(args.threads)?);
    let mut session = Session::new(&artifact, keys, device, 0, &progress::silent)?;
    let encoder = Encoder::new(params);
    let slots: Vec<f64> = (0..params.slots()).map(|i| (i as f64 * 0.37).sin()).collect();
    let ports = artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
    let inputs = ports
        .map(|at| {
            Ok(encrypt_with_secret_key(params, &encoder, secret, &slots, at.level, at.scale)?.expand(params))
        })
        .collect::<Result<Vec<Ciphertext>>>()?;
    let mut times: Vec<Duration> = Vec::with_capacity(args.runs);
    for run in 0..args.runs + 2 {
        let (_, profile) = session.run(&inputs)?;
        if run >= 2 {
            times.push(profile.execution);
        }
    }
    times.sort();
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    Ok(Row {
        op,
        params: params.name().into(),
        n: params.n(),
        log_pq: params.log_pq(),
        log_q: params.log_q(level),
        limbs: params.basis(level).len(),
        threads: args.threads,
        runs: args.runs,
        median_ms: ms(times[times.len() / 2]),
        min_ms: ms(times[0]),
        max_ms: ms(times[times.len() - 1]),
        device: session.device(),
    })
}
