//! A session: a program with its keys and weights, ready to run on a device.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use cerium_artifact::cost::pool_limbs;
use cerium_artifact::{Artifact, ArtifactError, DeviceId, PackedCiphertext, Port};
use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::params::{Params, ParamsDigest};

use crate::device::{Address, Device, DeviceError};
use crate::executor::Schedule;
use crate::key_store::{KeyStore, KeyStoreError};
use crate::memory::{PlaintextEncoder, PlaintextError, PlaintextPlan, Residency};
use crate::profile::Profile;
use crate::progress::Progress;

/// Why a session could not be made or a run was refused.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The artifact is not valid.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The keys do not fit the artifact.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A weight cannot be encoded.
    #[error(transparent)]
    Plaintext(#[from] PlaintextError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The number of inputs is wrong.
    #[error(
        "{given} ciphertexts were given, the program takes {expected} ({ports}); encrypt the input for it"
    )]
    Count {
        /// Ciphertexts given.
        given: usize,
        /// Ciphertexts expected.
        expected: usize,
        /// What they are.
        ports: String,
    },
    /// An input does not fit.
    #[error("input {index} (of `{port}`) {mismatch}; encrypt it again with the program that shall run")]
    Input {
        /// Position among the inputs.
        index: usize,
        /// Its port.
        port: String,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
}

/// How a ciphertext differs from what a port takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mismatch {
    /// It was made under other parameters.
    Params {
        /// Those of the ciphertext.
        given: ParamsDigest,
        /// Those of the program.
        expected: ParamsDigest,
    },
    /// It has another level.
    Level {
        /// That of the ciphertext.
        given: Level,
        /// That of the port.
        expected: Level,
    },
    /// It has another scale.
    Scale {
        /// That of the ciphertext.
        given: Scale,
        /// That of the port.
        expected: Scale,
    },
    /// It has another number of polynomials.
    Polynomials {
        /// Those of the ciphertext; two are expected.
        given: usize,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Params { given, expected } => {
                write!(f, "was encrypted under parameters {given}, the program works under {expected}")
            }
            Mismatch::Level { given, expected } => {
                write!(f, "has level {given}, the program takes {expected}")
            }
            Mismatch::Scale { given, expected } => {
                write!(f, "has scale 2^{:.6}, the program takes 2^{:.6}", given.log2(), expected.log2())
            }
            Mismatch::Polynomials { given } => write!(f, "has {given} polynomials, the program takes 2"),
        }
    }
}

/// Bytes that a session occupies, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryFigures {
    /// The pool: inputs, outputs and frames.
    pub pool: u64,
    /// Plaintexts, encoded or as integers, the buffer for those that are not resident included.
    pub plaintexts: u64,
    /// Raw weights of plaintexts that are not resident; 0 if all are.
    pub raw_weights: u64,
    /// Evaluation keys, expanded.
    pub keys: u64,
}

/// How a session is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionOptions {
    /// Threads that prepare it; 0 takes one for each core.
    pub threads: usize,
    /// Bytes that plaintexts may take; those that do not fit encoded are kept as integers if the device works with such, or
    /// made from the raw weights whenever they are needed. `None` takes what the device has.
    pub plaintext_memory: Option<u64>,
}

/// A program on a device with everything it needs but inputs.
pub struct Session {
    params: Params,
    schedule: Schedule,
    device: Box<dyn Device>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    stages: Vec<String>,
    memory: MemoryFigures,
}

impl Session {
    /// Validates the artifact, checks that `keys` are those of its manifest, encodes its weights with `threads`
    /// threads (0: one for each core) as far as the device has memory for them, and prepares `device`.
    pub fn new(
        artifact: &Artifact,
        keys: KeyStore,
        device: Box<dyn Device>,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let options = SessionOptions { threads, plaintext_memory: None };
        Session::with_options(artifact, keys, device, &options, progress)
    }

    /// As [`Session::new`], with choices.
    pub fn with_options(
        artifact: &Artifact,
        keys: KeyStore,
        mut device: Box<dyn Device>,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let params = artifact.validate()?;
        keys.check(&params, &artifact.keys)?;
        let plan = PlaintextPlan::new(artifact, DeviceId::default())?;
        let residency = match options.plaintext_memory {
            Some(budget) => Residency::within(artifact, &plan, device.on_the_way(), budget)?,
            None => {
                let (pool, keys) = (
                    pool_limbs(artifact.functions(plan.device())).saturating_mul(4 * params.n() as u64),
                    keys.bytes(),
                );
                let room = device.room(pool, keys).unwrap_or(u64::MAX);
                let fitting = Residency::in_room(artifact, &plan, device.on_the_way(), room);
                fitting.map_err(|error| match error {
                    PlaintextError::Budget { needed, .. } => {
                        PlaintextError::Room { needed, room, pool, keys }
                    }
                    other => other,
                })?
            }
        };
        let schedule = Schedule::new(artifact, &plan, &residency);
        device.prepare(&params, &schedule.runs(artifact), schedule.pool_limbs(), artifact.stages.len())?;
        let encoder = PlaintextEncoder::new(artifact, &plan, &params);
        let plaintexts = encoder.encode_resident(&plan, &residency, options.threads, progress)?;
        let memory = MemoryFigures {
            pool: device.pool_bytes(),
            plaintexts: plaintexts.bytes(),
            raw_weights: residency.raw_bytes(artifact, &plan),
            keys: keys.bytes(),
        };
        device.load_plaintexts(plaintexts)?;
        if !residency.is_complete() {
            device.load_weights(Arc::new(encoder), &residency)?;
        }
        device.load_keys(Arc::new(keys))?;
        Ok(Session {
            params,
            schedule,
            device,
            inputs: artifact.inputs.clone(),
            outputs: artifact.outputs.clone(),
            stages: artifact.stages.iter().map(|stage| stage.name.clone()).collect(),
            memory,
        })
    }

    /// The program's parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Name of the device.
    pub fn device(&self) -> String {
        self.device.name()
    }

    /// Memory that it occupies.
    pub fn memory(&self) -> MemoryFigures {
        self.memory
    }

    /// Runs the program: `inputs` are the ciphertexts of all input ports in order, the answer those of all output
    /// ports in order.
    pub fn run(&mut self, inputs: &[Ciphertext]) -> Result<(Vec<Ciphertext>, Profile), SessionError> {
        self.check(inputs)?;
        self.device.take_usage(); // forget a run that failed
        let start = Instant::now();
        let n = self.params.n();
        let limbs = inputs.iter().flat_map(|input| input.words().chunks_exact(n));
        for (address, limb) in self.schedule.inputs().zip(limbs) {
            self.device.upload(address, limb)?;
        }
        let launched = Instant::now();
        self.schedule.execute(self.device.as_mut())?;
        let execution = launched.elapsed();
        let mut addresses = self.schedule.outputs();
        let ports = self.outputs.iter().flat_map(|port| &port.ciphertexts);
        let mut outputs = Vec::new();
        for packed in ports {
            outputs.push(download(&self.params, self.device.as_mut(), packed, &mut addresses)?);
        }
        let profile = Profile {
            wall: start.elapsed(),
            execution,
            threads: self.device.threads(),
            stages: self.stages.clone(),
            usage: self.device.take_usage(),
        };
        Ok((outputs, profile))
    }

    fn check(&self, inputs: &[Ciphertext]) -> Result<(), SessionError> {
        let expected: Vec<(&Port, &PackedCiphertext)> = self
            .inputs
            .iter()
            .flat_map(|port| port.ciphertexts.iter().map(move |packed| (port, packed)))
            .collect();
        if inputs.len() != expected.len() {
            let ports =
                self.inputs.iter().map(|port| format!("{} of `{}`", port.ciphertexts.len(), port.name));
            let ports = ports.collect::<Vec<_>>().join(", ");
            return Err(SessionError::Count { given: inputs.len(), expected: expected.len(), ports });
        }
        for (index, (input, (port, packed))) in inputs.iter().zip(expected).enumerate() {
            if let Some(mismatch) = mismatch(&self.params, input, packed) {
                return Err(SessionError::Input { index, port: port.name.clone(), mismatch });
            }
        }
        Ok(())
    }
}

fn mismatch(params: &Params, input: &Ciphertext, packed: &PackedCiphertext) -> Option<Mismatch> {
    if input.digest() != params.digest() {
        return Some(Mismatch::Params { given: input.digest(), expected: params.digest() });
    }
    if input.level() != packed.level {
        return Some(Mismatch::Level { given: input.level(), expected: packed.level });
    }
    if !input.scale().matches(packed.scale) {
        return Some(Mismatch::Scale { given: input.scale(), expected: packed.scale });
    }
    (input.polynomials() != 2).then(|| Mismatch::Polynomials { given: input.polynomials() })
}

fn download(
    params: &Params,
    device: &mut dyn Device,
    packed: &PackedCiphertext,
    addresses: &mut impl Iterator<Item = Address>,
) -> Result<Ciphertext, DeviceError> {
    let limbs = 2 * params.basis(packed.level).len();
    let mut words = vec![0; limbs * params.n()];
    for (limb, address) in words.chunks_exact_mut(params.n()).zip(addresses) {
        device.download(address, limb)?;
    }
    let ciphertext = Ciphertext::new(params, packed.level, packed.scale, 2, words);
    Ok(ciphertext.expect("level and scale of a validated port"))
}
