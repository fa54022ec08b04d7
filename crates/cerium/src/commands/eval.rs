//! `cerium eval`: accuracy and latency of a program on encrypted data, beside the network in the clear.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_client::{KeyFolder, SecretKey, encrypt_with_secret_key, pack};
use cerium_models::reference;
use cerium_models::simulate::largest;
use cerium_runtime::{Profile, Ranks};
use serde_json::json;

use super::decrypt::{Answer, decrypt_outputs};
use super::device::DeviceArgs;
use super::keygen::{evaluation_keys, generate};
use super::ranks::{Keys, RankArgs, ranks_json, show_devices, show_ranks, total_memory};
use super::run::{show_stages, stage_times, stages_json};
use super::{ReportArgs, Threads};
use crate::figures::{self, row};
use crate::network::Network;
use crate::program::Program;
use crate::progress::Progress;

/// Classify a data set under encryption: accuracy beside that of the network in the clear, and latency by stage.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cerium eval mnist.cerium --data models/mnist/sample --count 20")]
pub(crate) struct Eval {
    /// The program, made by `cerium compile`.
    program: PathBuf,
    /// Inputs, with labels if there are any.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Classify at most this many inputs.
    #[arg(long, default_value_t = 100, value_name = "N")]
    count: usize,
    /// The client's folder of keys; without it, keys are made for the occasion.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The network in the clear; without it, the model in the program.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The weights of a network description, if they are not where it says.
    #[arg(long, value_name = "FILE", requires = "model")]
    weights: Option<PathBuf>,
    /// Allow parameter sets without security, for tests.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// What is counted over the inputs.
#[derive(Default)]
struct Tally {
    /// Runs of the program: one for each batch.
    runs: u32,
    encrypt: Duration,
    run: Duration,
    decrypt: Duration,
    stages: Vec<(String, Duration)>,
    /// Of the last run, by rank.
    profiles: Vec<Profile>,
    clear_right: usize,
    encrypted_right: usize,
    max_error: f64,
    disagreements: Vec<usize>,
    /// What was decrypted.
    outputs: Vec<Vec<f64>>,
}

impl Eval {
    pub(crate) fn run(self) -> Result<()> {
        let threads = self.threads.apply()?;
        let program = Program::read(&self.program)?;
        let mut network = match &self.model {
            Some(path) => Network::read(path, self.weights.as_deref())?,
            None if program.artifact.model.is_empty() => {
                bail!("{} holds no model to compare with; name one with --model", self.program.display())
            }
            None => Network::parse(program.artifact.name.clone(), program.artifact.model.clone())
                .with_context(|| format!("cannot use the model in {}", self.program.display()))?,
        };
        // Both sides see what `cerium encrypt` would take.
        network.normalization.clone_from(&program.artifact.normalization);
        let data = network.data(&self.data)?;
        let inputs = network.inputs(&data, self.count)?;
        if inputs.is_empty() {
            bail!("there is nothing to classify; --count is at least 1");
        }
        let places = self.ranks.places_here(&program, &self.device, threads)?;
        let progress = Progress::new();
        let step = |what: &'static str, done: usize, total: usize| progress.step(what, done, total);
        let start = Instant::now();
        let (params, requests) = (&program.params, &program.artifact.keys[..]);
        let (secret, keys) = match &self.keys {
            Some(folder) => {
                let secret = KeyFolder::new(folder).secret_key(params)?;
                (secret, Keys::Folder(folder))
            }
            None => {
                let secret = generate(params, self.insecure)?;
                let keys = evaluation_keys(&program, &secret, &progress)?;
                (secret, Keys::Made(keys))
            }
        };
        let ranks = places.open(&program, keys, &progress)?;
        let preparation = start.elapsed();

        let mut tally = Tally::default();
        let batch = program.input()?.batch as usize;
        let mut parties = Parties { program: &program, network: &network, ranks, secret };
        for (run, inputs_of_run) in inputs.chunks(batch).enumerate() {
            let first = run * batch;
            step("classifying", first, inputs.len());
            let label = |index| data.label(index).map(|label| label as usize);
            tally.classify(&mut parties, inputs_of_run, first, label).with_context(|| {
                let last = first + inputs_of_run.len() - 1;
                let which = if first == last {
                    format!("input {first}")
                } else {
                    format!("inputs {first} to {last}")
                };
                format!("{which} of {}", self.data.display())
            })?;
        }
        progress.clear();
        let ranks = parties.ranks.figures(&tally.profiles)?;
        let (device, memory) = (show_devices(&ranks), total_memory(&ranks));
        let count = inputs.len();
        let labelled = (0..count).all(|index| data.label(index).is_some());
        let accuracy = |right: usize| labelled.then(|| right as f64 / count as f64);
        let mean = |time: Duration| time.as_secs_f64() / f64::from(tally.runs);
        let stages: Vec<(String, Duration)> =
            tally.stages.iter().map(|(name, time)| (name.clone(), *time / tally.runs)).collect();
        let total = tally.encrypt + tally.run + tally.decrypt;
        let report = json!({
            "program": program.artifact.name,
            "params": params.name(),
            "security_bits": params.security_bits().filter(|_| !params.is_insecure()),
            "device": device,
            "count": count,
            "batch": batch,
            "runs": tally.runs,
            "clear_accuracy": accuracy(tally.clear_right),
            "encrypted_accuracy": accuracy(tally.encrypted_right),
            "agreements": count - tally.disagreements.len(),
            "disagreements": tally.disagreements,
            "max_error": tally.max_error,
            "outputs": tally.outputs,
            "seconds_per_input": total.as_secs_f64() / count as f64,
            "seconds_per_run": mean(total),
            "encrypt_seconds": mean(tally.encrypt),
            "run_seconds": mean(tally.run),
            "decrypt_seconds": mean(tally.decrypt),
            "stages": stages_json(&stages),
            "preparation_seconds": preparation.as_secs_f64(),
            "keys": requests.len(),
            "key_bytes": program.key_bytes(),
            "memory": memory,
            "ranks": ranks_json(&ranks),
        });
        let percent =
            |right| accuracy(right).map_or("no labels".into(), |share| format!("{:.2}%", 100.0 * share));
        let seconds = |time: Duration| figures::duration(time / tally.runs);
        let mut rows = vec![
            row(["accuracy, encrypted", &percent(tally.encrypted_right)]),
            row(["accuracy, in the clear", &percent(tally.clear_right)]),
            row(["equal answers", &format!("{} of {count}", count - tally.disagreements.len())]),
            row(["largest error of an output", &format!("{:.4}", tally.max_error)]),
            row(["time of an input", &figures::duration(total / count as u32)]),
        ];
        if batch > 1 {
            rows.push(row([&format!("time of {batch} at once"), &seconds(total)]));
        }
        rows.extend([
            row(["  encrypt (client)", &seconds(tally.encrypt)]),
            row(["  run (server)", &seconds(tally.run)]),
            row(["  decrypt (client)", &seconds(tally.decrypt)]),
            row(["preparation, once", &figures::duration(preparation)]),
            row(["evaluation keys", &format!("{}, {}", requests.len(), figures::bytes(program.key_bytes()))]),
        ]);
        let mut text = figures::table(&rows);
        text += &format!("\n{}", show_stages(&stages));
        text += &format!(
            "{}  {} under {}, on {device}\n",
            show_ranks(&ranks),
            program.artifact.name,
            params.name()
        );
        self.report.give(&report, || text)
    }
}

/// Who takes part.
struct Parties<'a> {
    program: &'a Program,
    network: &'a Network,
    ranks: Ranks,
    secret: SecretKey,
}

impl Tally {
    /// A batch of inputs, the first with index `first`, from encryption to decryption, beside the network in the clear.
    fn classify(
        &mut self,
        parties: &mut Parties<'_>,
        inputs: &[&[f32]],
        first: usize,
        label: impl Fn(usize) -> Option<usize>,
    ) -> Result<()> {
        let Parties { program, network, ranks, secret } = parties;
        let start = Instant::now();
        let ciphertexts = encrypt(program, secret, inputs)?;
        self.encrypt += start.elapsed();
        let (outputs, profiles) = ranks.run(&ciphertexts)?;
        self.run += profiles[0].wall;
        self.runs += 1;
        let start = Instant::now();
        let outputs = decrypt_outputs(program, secret, &outputs, None)?;
        self.decrypt += start.elapsed();
        let [Answer { tensors, .. }] = &outputs[..] else {
            bail!("the program has {} outputs, not one", outputs.len())
        };
        for (index, (input, encrypted)) in (first..).zip(inputs.iter().zip(tensors)) {
            let clear = reference::run(&network.graph, input)?;
            if encrypted.len() != clear.len() {
                bail!(
                    "the program has {} outputs, the network in the clear {}",
                    encrypted.len(),
                    clear.len()
                );
            }
            self.outputs.push(encrypted.clone());
            let error = encrypted.iter().zip(&clear).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            self.max_error = self.max_error.max(error);
            let answers = (largest(&clear), largest(encrypted));
            self.clear_right += usize::from(Some(answers.0) == label(index));
            self.encrypted_right += usize::from(Some(answers.1) == label(index));
            if answers.0 != answers.1 {
                self.disagreements.push(index);
            }
        }
        let times = stage_times(&profiles[0]);
        self.profiles = profiles;
        if self.stages.is_empty() {
            self.stages = times;
        } else {
            self.stages.iter_mut().zip(times).for_each(|((_, sum), (_, time))| *sum += time);
        }
        Ok(())
    }
}

/// Encrypts a batch of inputs under the secret key.
pub(super) fn encrypt(program: &Program, secret: &SecretKey, inputs: &[&[f32]]) -> Result<Vec<Ciphertext>> {
    let port = program.input()?;
    let encoder = Encoder::new(&program.params);
    let slots = pack(&program.artifact, port, inputs)?;
    let encrypted = slots.iter().zip(&port.ciphertexts).map(|(slots, at)| {
        let fresh = encrypt_with_secret_key(&program.params, &encoder, secret, slots, at.level, at.scale)?;
        Ok(fresh.expand(&program.params))
    });
    encrypted.collect()
}
