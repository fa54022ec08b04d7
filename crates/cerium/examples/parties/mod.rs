//! What the examples share: both parties in one process, and how a run is asked for.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cerium::artifact::Artifact;
use cerium::ckks::encoding::Encoder;
use cerium::ckks::evaluation_key::EvaluationKey;
use cerium::ckks::params::Params;
use cerium::client::{SecretKey, decrypt, encrypt_with_public_key, evaluation_key, public_key};
use cerium::compiler::ciphertext::{Interpreter, Slots, noise};
use cerium::compiler::dsl::SourceProgram;
use cerium::compiler::ir::Trace;
use cerium::compiler::{CompileOptions, compile};
use cerium::runtime::memory::PlaintextPlan;
use cerium::runtime::{CpuDevice, KeyStore, MemoryFigures, Session, SessionOptions, progress};
use clap::Args;
use serde_json::{Value, json};

/// How to run an example.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Parameter set (`cerium params` lists them).
    #[arg(long, default_value = "boot-40")]
    pub(crate) params: String,
    /// Allow parameter sets without security, for tests.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Run in the clear only.
    #[arg(long)]
    pub(crate) clear: bool,
    /// Threads of the server; 0 takes one for each core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Megabytes that encoded weights may take; those beyond are encoded whenever they are needed.
    #[arg(long)]
    pub(crate) plaintext_megabytes: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// How the server prepares.
    pub(crate) fn session(&self) -> SessionOptions {
        let plaintext_memory = self.plaintext_megabytes.map(|megabytes| megabytes * 1_000_000);
        SessionOptions { threads: self.threads, plaintext_memory }
    }

    /// The parameter set.
    pub(crate) fn params(&self) -> Result<Params> {
        let named = if self.insecure { Params::named_insecure } else { Params::named };
        Ok(named(&self.params)?)
    }
}

/// The slots of every output of a program on clear slots: what an encrypted run computes up to noise.
pub(crate) fn run_clear(source: &SourceProgram, inputs: &[Slots]) -> Vec<Slots> {
    Interpreter::new(&source.module).run(inputs)
}

/// Bytes of the weights of a program.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct WeightBytes {
    /// Of the tensors.
    pub(crate) raw: u64,
    /// Of the plaintexts, compact by their periods.
    pub(crate) sparse: u64,
    /// Of the plaintexts if each limb were a whole polynomial.
    pub(crate) dense: u64,
}

impl WeightBytes {
    fn of(artifact: &Artifact, params: &Params) -> Result<Self> {
        let plan = PlaintextPlan::new(artifact, cerium::artifact::DeviceId::default())?;
        let raw = artifact.tensors.iter().map(|tensor| tensor.values.bytes()).sum();
        Ok(Self { raw, sparse: plan.bytes(), dense: plan.dense_bytes(params) })
    }
}

/// An encrypted run.
#[derive(Debug)]
pub(crate) struct Encrypted {
    /// Decrypted slots of every output.
    pub(crate) outputs: Vec<Slots>,
    /// What the compiler promises of every output: the largest error of a slot that holds an element.
    pub(crate) promises: Vec<f64>,
    /// Bootstraps, those of two values once.
    pub(crate) bootstraps: u64,
    /// Evaluation keys.
    pub(crate) keys: usize,
    /// Times of compilation, of making keys, of the server's preparation, and of its work.
    pub(crate) compilation: Duration,
    pub(crate) key_generation: Duration,
    pub(crate) preparation: Duration,
    pub(crate) work: Duration,
    /// Bytes of the artifact's file.
    pub(crate) artifact_bytes: usize,
    /// Bytes of its weights.
    #[allow(dead_code, reason = "the deep examples have few weights and do not report them")]
    pub(crate) weights: WeightBytes,
    /// The server's memory.
    pub(crate) memory: MemoryFigures,
    /// The server's device.
    pub(crate) device: String,
}

/// The whole path: the server compiles, the client makes keys and encrypts, the server computes, the client decrypts.
pub(crate) fn run_encrypted(
    source: &SourceProgram,
    params: &Params,
    inputs: &[Slots],
    options: &SessionOptions,
) -> Result<Encrypted> {
    let start = Instant::now();
    let samples = CompileOptions { samples: vec![inputs.to_vec()], ..CompileOptions::default() };
    let artifact = compile(source, &samples, &mut Trace::default())?;
    let compilation = start.elapsed();

    let start = Instant::now();
    let secret = if params.is_insecure() {
        SecretKey::generate_insecure(params)?
    } else {
        SecretKey::generate(params)?
    };
    let public = public_key(params, &secret)?;
    let keys = artifact.keys.iter().map(|&request| evaluation_key(params, &secret, request));
    let keys: Vec<EvaluationKey> = keys.collect::<Result<_, _>>()?;
    let key_generation = start.elapsed();

    let encoder = Encoder::new(params);
    let ports: Vec<_> = artifact.inputs.iter().flat_map(|port| &port.ciphertexts).collect();
    ensure!(ports.len() == inputs.len(), "the program takes {} inputs, not {}", ports.len(), inputs.len());
    let encrypted = ports
        .iter()
        .zip(inputs)
        .map(|(at, slots)| encrypt_with_public_key(params, &encoder, &public, slots, at.level, at.scale));
    let encrypted = encrypted.collect::<Result<Vec<_>, _>>()?;

    let start = Instant::now();
    let count = keys.len();
    let keys = KeyStore::from_keys(params, &artifact.keys, keys, options.threads, &progress::silent)?;
    let device = Box::new(CpuDevice::new(options.threads)?);
    let mut session = Session::with_options(&artifact, keys, device, options, &progress::silent)?;
    let preparation = start.elapsed();
    let (answers, profile) = session.run(&encrypted)?;

    let outputs = answers.iter().map(|answer| decrypt(params, &encoder, &secret, answer));
    let ports =
        artifact.outputs.iter().flat_map(|port| port.ciphertexts.iter().map(|at| (at.error, at.factor)));
    let operations = artifact.stages.iter().flat_map(|stage| &stage.operations);
    Ok(Encrypted {
        artifact_bytes: artifact.to_bytes()?.len(),
        weights: WeightBytes::of(&artifact, params)?,
        bootstraps: operations.filter(|(name, _)| name == "bootstrap").map(|(_, count)| count).sum(),
        outputs: outputs.collect::<Result<_, _>>()?,
        // The artifact states errors of elements.
        promises: ports.map(|(error, factor)| noise::PROMISE * error / factor.abs()).collect(),
        keys: count,
        compilation,
        key_generation,
        preparation,
        work: profile.wall,
        memory: session.memory(),
        device: session.device(),
    })
}

impl Encrypted {
    /// The largest distance of a slot among the first `count` of an output from where it should be.
    pub(crate) fn error(&self, output: usize, expected: &Slots, count: usize) -> f64 {
        let pairs = self.outputs[output].iter().zip(expected).take(count);
        pairs.map(|(got, expected)| (got - expected).norm()).fold(0.0, f64::max)
    }

    /// Times and memory, in seconds and bytes.
    pub(crate) fn figures(&self) -> Value {
        json!({
            "device": self.device,
            "compile_s": self.compilation.as_secs_f64(),
            "key_generation_s": self.key_generation.as_secs_f64(),
            "preparation_s": self.preparation.as_secs_f64(),
            "run_s": self.work.as_secs_f64(),
            "bootstraps": self.bootstraps,
            "keys": self.keys,
            "artifact_bytes": self.artifact_bytes,
            "memory": self.memory,
        })
    }

    /// One line of times and memory.
    pub(crate) fn summary(&self) -> String {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        format!(
            "{} bootstraps, {:.1} s on {}, after {:.1} s of compilation, {:.1} s for {} keys and {:.1} s of preparation; memory: keys {:.2} GB, \
             encoded weights {:.2} GB, working memory {:.2} GB",
            self.bootstraps,
            self.work.as_secs_f64(),
            self.device,
            self.compilation.as_secs_f64(),
            self.key_generation.as_secs_f64(),
            self.keys,
            self.preparation.as_secs_f64(),
            gb(self.memory.keys),
            gb(self.memory.plaintexts),
            gb(self.memory.pool),
        )
    }
}
