//! `cerium demo`: the whole path in one process, with both parties and what passes between them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::Params;
use cerium_ckks::wire;
use cerium_client::{SecretKey, encrypt_with_secret_key, pack, unpack};
use cerium_compiler::ciphertext::Interpreter;
use cerium_models::approximation::ApproximationOptions;
use cerium_models::budget::Samples;
use cerium_models::data::Dataset;
use cerium_models::packing::Batch;
use cerium_models::simulate::largest;
use cerium_models::{picture, reference};
use cerium_runtime::{CpuDevice, KeyStore, Session};
use serde_json::{Value, json};

use super::Threads;
use super::decrypt::{Answer, decrypt_outputs, predicted_error};
use super::keygen::evaluation_keys;
use super::run::{stage_times, stages_json};
use crate::figures::{self, row, small};
use crate::network::{Activations, Choice, Compiled, Network, Polynomials, Server, compile_network};
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

/// What there is to show in the end.
struct Outcome {
    pixels: Vec<f32>,
    label: Option<u32>,
    params: Params,
    device: String,
    steps: Vec<Step>,
    /// Stages of the server's run.
    stages: Vec<(String, Duration)>,
    keys: usize,
    key_bytes: u64,
    request_bytes: usize,
    answer_bytes: usize,
    /// Decrypted scores.
    encrypted: Vec<f64>,
    /// Scores of the network itself.
    clear: Vec<f64>,
    /// Scores of the program on clear slots: what encryption would give without noise.
    approximated: Vec<f64>,
    /// Predicted standard deviation of the noise of a score.
    predicted_error: f64,
    time: Duration,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        let outcome = self.play()?;
        if self.json { figures::print_json(&outcome.to_json()) } else { figures::print(&outcome.to_text()) }
    }

    /// Plays both parties.
    fn play(&self) -> Result<Outcome> {
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
        let activations = Activations::Degree(ApproximationOptions::default());
        let samples = calibration.inputs();
        let unlabelled = Samples { inputs: &samples, labels: None };
        let Polynomials { substitution, .. } =
            Polynomials::choose(&network, &unlabelled, &activations, &progress)?;
        let Compiled { plan, artifact, params, .. } = compile_network(
            &network,
            &substitution,
            &samples,
            &Choice::Auto,
            Batch::ONE,
            &Server::default(),
            &[],
        )?;
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
        let key_bytes = program.key_bytes();
        let what = format!("{} evaluation keys, {} to the server", keys.len(), figures::bytes(key_bytes));
        note("client", "keys, once", start, what);

        let start = Instant::now();
        let keys = KeyStore::from_keys(&params, &program.artifact.keys, keys, threads, &step)?;
        let device = Box::new(CpuDevice::new(threads)?);
        let mut session = Session::new(&program.artifact, keys, device, threads, &step)?;
        let memory = session.memory();
        let memory = figures::bytes(memory.keys + memory.plaintexts + memory.pool);
        note("server", "load, once", start, format!("{memory} of keys, weights and working memory"));

        let start = Instant::now();
        let request = encrypt(&program, &secret, &pixels)?;
        let what = format!("{} pixels, {} to the server", pixels.len(), figures::bytes(request.len() as u64));
        note("client", "encrypt", start, what);

        let start = Instant::now();
        let (outputs, profile) = session.run(&program.decode_ciphertexts(&request)?)?;
        let answer = wire::encode_ciphertexts(&params, program.digest, &outputs);
        note("server", "run", start, format!("{} to the client", figures::bytes(answer.len() as u64)));

        let start = Instant::now();
        let mut decrypted = decrypt_outputs(&program, &secret, &program.decode_ciphertexts(&answer)?, None)?;
        let Answer { port, mut tensors } = decrypted.pop().context("the program has no output")?;
        let encrypted = tensors.swap_remove(0);
        note("client", "decrypt", start, format!("{} scores", encrypted.len()));

        let source = plan.program(&network.name, &params);
        let slots = source.inputs[0].packings[0].slots(&[&pixels], params.slots());
        let slots = Interpreter::new(&source.module).run(&[slots]);
        Ok(Outcome {
            clear: reference::run(&network.graph, &pixels)?,
            approximated: unpack(&program.artifact, port, &slots, 1.0)?.swap_remove(0),
            pixels,
            label,
            device: session.device(),
            steps,
            stages: stage_times(&profile),
            keys: program.artifact.keys.len(),
            key_bytes,
            request_bytes: request.len(),
            answer_bytes: answer.len(),
            encrypted,
            predicted_error: predicted_error(port),
            params,
            time: begun.elapsed(),
        })
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
    let slots = pack(&program.artifact, port, &[pixels])?;
    let encrypted = slots
        .iter()
        .zip(&port.ciphertexts)
        .map(|(slots, at)| encrypt_with_secret_key(params, &encoder, secret, slots, at.level, at.scale));
    let encrypted: Vec<_> = encrypted.collect::<Result<_, _>>()?;
    Ok(wire::encode_seeded_ciphertexts(params, program.digest, &encrypted))
}

impl Outcome {
    fn to_text(&self) -> String {
        let (answer, clear) = (largest(&self.encrypted), largest(&self.clear));
        let label = self.label.map_or(String::new(), |label| format!(", its label {label}"));
        format!(
            "A network reads a handwritten digit that it never sees.\n\n  \
             client: has the picture and the secret key; sends ciphertexts and evaluation keys\n  \
             server: has the network; computes on ciphertexts, and can decrypt nothing\n\n\
             The picture, at the client:\n\n{}\n\n{}\n{}\n\
             encrypted answer {answer}, in the clear {clear}{label}\n\
             largest error of a score: {:.3}, from polynomials in the place of ReLU; of encryption: {} (predicted deviation \
             {})\n\
             all of it took {}, on {}\n\n\
             Your own: draw a digit, save it as PNG, and run `cargo run --release -- demo --image my.png`.\n\
             As separate processes: compile, keygen, encrypt, run, decrypt; see `cargo run --release -- --help`.\n",
            figures::picture(&self.pixels, SIDE).trim_matches('\n'),
            self.show_steps(),
            self.show_scores(),
            distance(&self.encrypted, &self.clear),
            small(distance(&self.encrypted, &self.approximated)),
            small(self.predicted_error),
            figures::duration(self.time),
            self.device,
        )
    }

    fn show_steps(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let time = figures::duration(step.time);
            text += &format!("  {:<7} {:<14} {time:>8}   {}\n", step.party, step.name, step.what);
            if step.name == "run" {
                for (name, time) in &self.stages {
                    text += &format!("  {:<7}   {name:<12} {:>8}\n", "", figures::duration(*time));
                }
            }
        }
        text
    }

    fn show_scores(&self) -> String {
        let mut rows = vec![row(["digit", "encrypted", "in the clear", ""])];
        for (digit, (a, b)) in self.encrypted.iter().zip(&self.clear).enumerate() {
            let mark = if digit == largest(&self.encrypted) { "<-" } else { "" };
            rows.push(row([&digit.to_string(), &format!("{a:.3}"), &format!("{b:.3}"), mark]));
        }
        figures::table(&rows)
    }

    fn to_json(&self) -> Value {
        let step = |step: &Step| json!({ "party": step.party, "name": step.name, "seconds": step.time.as_secs_f64() });
        json!({
            "answer": largest(&self.encrypted),
            "clear_answer": largest(&self.clear),
            "label": self.label,
            "scores": self.encrypted,
            "clear_scores": self.clear,
            "max_error": distance(&self.encrypted, &self.clear),
            "encryption_error": distance(&self.encrypted, &self.approximated),
            "predicted_error": self.predicted_error,
            "params": self.params.name(),
            "security_bits": self.params.security_bits(),
            "device": self.device,
            "keys": self.keys,
            "key_bytes": self.key_bytes,
            "request_bytes": self.request_bytes,
            "answer_bytes": self.answer_bytes,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "stages": stages_json(&self.stages),
            "seconds": self.time.as_secs_f64(),
        })
    }
}

/// The largest difference.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
