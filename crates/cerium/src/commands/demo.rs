//! `cerium demo`: the whole path in one process, with both parties and what passes between them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::wire;
use cerium_client::{SecretKey, encrypt_with_secret_key};
use cerium_compiler::ciphertext::Interpreter;
use cerium_models::approximation::ApproximationOptions;
use cerium_models::data::Dataset;
use cerium_models::{picture, reference};
use cerium_runtime::{CpuDevice, KeyStore, Session};
use serde_json::json;

use super::Threads;
use super::decrypt::decrypt_outputs;
use super::keygen::evaluation_keys;
use super::run::{stage_times, stages_json};
use crate::figures::{self, row};
use crate::network::{self, Choice, Compiled, Network, compile_network};
use crate::packing::{self, largest};
use crate::program::Program;
use crate::progress::Progress;

const MODEL: &[u8] = include_bytes!("../../../../models/mnist/mnist.onnx");
const CALIBRATION: &[u8] = include_bytes!("../../../../models/mnist/calibration-images-idx3-ubyte");
const SAMPLES: &[u8] = include_bytes!("../../../../models/mnist/sample-images-idx3-ubyte");
const LABELS: &[u8] = include_bytes!("../../../../models/mnist/sample-labels-idx1-ubyte");
const SIDE: usize = 28;

/// Classify a handwritten digit that the computing side never sees.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cerium demo\n  cerium demo --digit 7\n  cerium demo --image my.png")]
pub(crate) struct Demo {
    /// A picture of a digit, PNG, any size, dark on light or light on dark.
    #[arg(long, value_name = "FILE", conflicts_with = "digit")]
    image: Option<PathBuf>,
    /// A digit from the MNIST test set with this label; without it, any of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=9))]
    digit: Option<u32>,
    #[command(flatten)]
    threads: Threads,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A step of the demonstration as it is reported.
struct Step {
    party: &'static str,
    name: &'static str,
    time: Duration,
    what: String,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        let threads = self.threads.apply()?;
        let begun = Instant::now();
        let (pixels, label) = self.digit()?;
        let progress = Progress::new();
        let step = |what: &'static str, done: usize, total: usize| progress.step(what, done, total);
        let mut steps = Vec::new();
        let mut note = |party, name, start: Instant, what| {
            steps.push(Step { party, name, time: start.elapsed(), what });
        };

        let start = Instant::now();
        let network = Network::parse("mnist".into(), MODEL.to_vec())?;
        let calibration = digits(CALIBRATION, &[]);
        let options = ApproximationOptions::default();
        let compiled = compile_network(&network, &calibration.inputs(), &Choice::Auto, &options, &[])?;
        let Compiled { plan, artifact, params, .. } = compiled;
        let program = Program::new(artifact)?;
        let what = format!(
            "network -> program under {} (128-bit secure, N = 2^{}, log PQ = {:.0})",
            params.name(),
            params.log_n(),
            params.log_pq()
        );
        note("server", "compile, once", start, what);

        let start = Instant::now();
        let secret = SecretKey::generate(&params)?;
        let keys = evaluation_keys(&program, &secret, &progress)?;
        let what =
            format!("{} evaluation keys, {} to the server", keys.len(), figures::bytes(program.key_bytes()));
        note("client", "keys, once", start, what);

        let start = Instant::now();
        let keys = KeyStore::from_keys(&params, &program.artifact.keys, keys, threads, &step)?;
        let mut session =
            Session::new(&program.artifact, keys, Box::new(CpuDevice::new(threads)?), threads, &step)?;
        let memory = session.memory();
        let what = format!(
            "{} of keys, weights and working memory",
            figures::bytes(memory.keys + memory.plaintexts + memory.pool)
        );
        note("server", "load, once", start, what);

        let start = Instant::now();
        let request = encrypt(&program, &secret, &pixels)?;
        let what = format!("{} pixels, {} to the server", pixels.len(), figures::bytes(request.len() as u64));
        note("client", "encrypt", start, what);

        let start = Instant::now();
        let (outputs, profile) = session.run(&program.decode_ciphertexts(&request)?)?;
        let answer = wire::encode_ciphertexts(&params, program.digest, &outputs);
        note("server", "run", start, format!("{} to the client", figures::bytes(answer.len() as u64)));

        let start = Instant::now();
        let answer_ciphertexts: Vec<Ciphertext> = program.decode_ciphertexts(&answer)?;
        let mut decrypted = decrypt_outputs(&program, &secret, &answer_ciphertexts, None)?;
        let (port, encrypted) = decrypted.pop().context("the program has no output")?;
        note("client", "decrypt", start, format!("{} scores", encrypted.len()));
        progress.clear();

        // Beside it, in the clear: the network itself, and the program on clear slots.
        let clear = reference::run(&network.graph, &pixels)?;
        let source = plan.program(&network.name, &params);
        let slots = network::pack(&source.inputs[0].packing, &pixels, &params);
        let slots = Interpreter::new(&source.module).run(&[slots]);
        let approximated = packing::unpack(&program.artifact, port, &slots, 1.0)?;
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let errors = (distance(&encrypted, &clear), distance(&encrypted, &approximated));
        let stages = stage_times(&profile);
        if self.json {
            return figures::print_json(&json!({
                "answer": largest(&encrypted),
                "clear_answer": largest(&clear),
                "label": label,
                "scores": encrypted,
                "clear_scores": clear,
                "max_error": errors.0,
                "encryption_error": errors.1,
                "params": params.name(),
                "security_bits": params.security_bits(),
                "device": session.device(),
                "keys": program.artifact.keys.len(),
                "key_bytes": program.key_bytes(),
                "request_bytes": request.len(),
                "answer_bytes": answer.len(),
                "steps": steps.iter().map(|step| json!({
                    "party": step.party, "name": step.name, "seconds": step.time.as_secs_f64(),
                })).collect::<Vec<_>>(),
                "stages": stages_json(&stages),
                "seconds": begun.elapsed().as_secs_f64(),
            }));
        }
        let mut text = String::from(
            "A network reads a handwritten digit that it never sees.\n\n  \
             client: has the picture and the secret key; sends ciphertexts and evaluation keys\n  \
             server: has the network; computes on ciphertexts, and can decrypt nothing\n\nThe picture, at the client:\n\n",
        );
        text += figures::picture(&pixels, SIDE).trim_matches('\n');
        text += "\n\n";
        text += &show_steps(&steps, &stages);
        text += "\n";
        text += &show_scores(&encrypted, &clear);
        text += &show_verdict(largest(&encrypted), largest(&clear), label);
        text += &format!(
            "largest error of a score: {:.3}; of that, encryption: {:.0e} (the rest: polynomials in the place of ReLU)\n\
             all of it took {}, on {}\n\n\
             Your own: draw a digit, save it as PNG, and run `cargo run --release -- demo --image my.png`.\n\
             As separate processes: compile, keygen, encrypt, run, decrypt; see `cargo run --release -- --help`.\n",
            errors.0,
            errors.1,
            figures::duration(begun.elapsed()),
            session.device(),
        );
        figures::print(&text)
    }

    /// The picture to classify, with its label if it is known.
    fn digit(&self) -> Result<(Vec<f32>, Option<u32>)> {
        if let Some(path) = &self.image {
            return Ok((read_image(path)?, None));
        }
        let samples = digits(SAMPLES, LABELS);
        let wanted = |index: &usize| self.digit.is_none() || samples.label(*index) == self.digit;
        let found: Vec<usize> = (0..samples.len()).filter(wanted).collect();
        if found.is_empty() {
            bail!(
                "there is no picture of this digit among the samples; take another, or your own with --image"
            );
        }
        // The hasher's keys are fresh in each process: randomness enough to choose a picture.
        let index = found[RandomState::new().hash_one(()) as usize % found.len()];
        Ok((samples.input(index).to_vec(), samples.label(index)))
    }
}

fn read_image(path: &Path) -> Result<Vec<f32>> {
    picture::read_digit(path).with_context(|| format!("cannot use {}", path.display()))
}

/// The digits of embedded IDX files.
fn digits(images: &[u8], labels: &[u8]) -> Dataset {
    let pixels = images[16..].iter().map(|&pixel| f32::from(pixel) / 255.0);
    let labels = labels.iter().skip(8).map(|&label| label.into());
    Dataset::new(vec![1, SIDE, SIDE], pixels.collect(), labels.collect())
}

/// The client's request as it goes over the wire.
fn encrypt(program: &Program, secret: &SecretKey, pixels: &[f32]) -> Result<Vec<u8>> {
    let (params, port) = (&program.params, program.input()?);
    let encoder = Encoder::new(params);
    let slots = packing::pack(&program.artifact, port, pixels)?;
    let encrypted = slots
        .iter()
        .zip(&port.ciphertexts)
        .map(|(slots, at)| encrypt_with_secret_key(params, &encoder, secret, slots, at.level, at.scale));
    let encrypted: Vec<_> = encrypted.collect::<Result<_, _>>()?;
    Ok(wire::encode_seeded_ciphertexts(params, program.digest, &encrypted))
}

fn show_steps(steps: &[Step], stages: &[(String, Duration)]) -> String {
    let mut text = String::new();
    for step in steps {
        let time = figures::duration(step.time);
        text += &format!("  {:<7} {:<14} {time:>8}   {}\n", step.party, step.name, step.what);
        if step.name == "run" {
            for (name, time) in stages {
                text += &format!("  {:<7}   {name:<12} {:>8}\n", "", figures::duration(*time));
            }
        }
    }
    text
}

fn show_scores(encrypted: &[f64], clear: &[f64]) -> String {
    let mut rows = vec![row(["digit", "encrypted", "in the clear", ""])];
    for (digit, (a, b)) in encrypted.iter().zip(clear).enumerate() {
        let mark = if digit == largest(encrypted) { "<-" } else { "" };
        rows.push(row([&digit.to_string(), &format!("{a:.3}"), &format!("{b:.3}"), mark]));
    }
    figures::table(&rows) + "\n"
}

fn show_verdict(encrypted: usize, clear: usize, label: Option<u32>) -> String {
    let label = label.map_or(String::new(), |label| format!(", its label {label}"));
    format!("encrypted answer {encrypted}, in the clear {clear}{label}\n")
}
