//! A session: a program with its keys and weights, ready to run on a device. Of a program for several devices each has a
//! session, which is a [rank](crate::ranks).

mod error;

use std::error::Error;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cerium_artifact::cost::pool_limbs;
use cerium_artifact::{Artifact, DeviceId, PackedCiphertext, Port};
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::params::Params;
use serde::{Deserialize, Serialize};

pub use error::{Mismatch, SessionError};

use crate::collectives::{CollectiveError, Collectives};
use crate::device::Device;
use crate::executor::Schedule;
use crate::key_store::KeyStore;
use crate::memory::{PlaintextEncoder, PlaintextError, PlaintextPlan, Residency};
use crate::profile::{CommunicationTables, Profile};
use crate::progress::Progress;
use crate::ranks::{Member, RankFigures, agree};

/// Bytes that a session occupies, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl AddAssign for MemoryFigures {
    fn add_assign(&mut self, other: MemoryFigures) {
        self.pool += other.pool;
        self.plaintexts += other.plaintexts;
        self.raw_weights += other.raw_weights;
        self.keys += other.keys;
    }
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

/// Where a session is among others.
#[derive(Clone, Copy)]
struct Place {
    rank: DeviceId,
    /// Ranks on the same host.
    neighbours: u64,
}

/// A program on a device with everything it needs but inputs.
pub struct Session {
    params: Params,
    schedule: Schedule,
    device: Box<dyn Device>,
    /// Which of the program's devices it is.
    rank: DeviceId,
    homes: Vec<DeviceId>,
    /// The way to the other ranks, where there are others.
    collectives: Option<Box<dyn Collectives>>,
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
        let options = SessionOptions { threads, ..SessionOptions::default() };
        Session::with_options(artifact, keys, device, &options, progress)
    }

    /// As [`Session::new`], with choices.
    ///
    /// # Errors
    /// [`SessionError::Devices`] for a program of several devices; their sessions [`join`](Session::join).
    pub fn with_options(
        artifact: &Artifact,
        keys: KeyStore,
        device: Box<dyn Device>,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let params = artifact.validate()?;
        if artifact.programs.len() != 1 {
            return Err(SessionError::Devices { devices: artifact.programs.len(), ranks: 1 });
        }
        let alone = Place { rank: DeviceId::default(), neighbours: 0 };
        Session::prepare(artifact, params, alone, keys, device, options, progress)
    }

    /// The session of one of several ranks, whose number its collectives tell. Returns when all ranks are ready.
    ///
    /// # Errors
    /// Besides those of [`Session::new`]: [`SessionError::Odd`] if a rank has another program, other keys or another version,
    /// [`SessionError::Devices`] if there are not as many ranks as devices of the program, and [`SessionError::Collective`]
    /// if another rank fails. Others are told of an error of this rank.
    pub fn join(
        artifact: &Artifact,
        member: Member,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let Member { keys, device, mut collectives } = member;
        let opened = telling(collectives.as_mut(), |collectives| {
            let params = artifact.validate()?;
            let neighbours = agree(artifact, &keys, collectives)?;
            let place = Place { rank: DeviceId(collectives.rank() as u16), neighbours };
            let session = Session::prepare(artifact, params, place, keys, device, options, progress)?;
            collectives.gather(&[])?;
            Ok(session)
        });
        Ok(Session { collectives: Some(collectives), ..opened? })
    }

    /// A session without a way to others, of an artifact that is valid for `params`.
    fn prepare(
        artifact: &Artifact,
        params: Params,
        place: Place,
        keys: KeyStore,
        mut device: Box<dyn Device>,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let Place { rank, neighbours } = place;
        keys.check(&params, &artifact.keys)?;
        let plan = PlaintextPlan::new(artifact, rank)?;
        let residency = match options.plaintext_memory {
            Some(budget) => Residency::within(artifact, &plan, device.on_the_way(), budget)?,
            None => {
                let (pool, keys) = (
                    pool_limbs(artifact.functions(rank)).saturating_mul(4 * params.n() as u64),
                    keys.bytes(),
                );
                let room = device.room(pool, keys, neighbours).unwrap_or(u64::MAX);
                let fitting = Residency::in_room(artifact, &plan, device.on_the_way(), room);
                fitting.map_err(|error| match error {
                    PlaintextError::Budget { needed, .. } => {
                        PlaintextError::Room { needed, room, pool, keys }
                    }
                    other => other,
                })?
            }
        };
        let schedule = Schedule::new(artifact, &params, &plan, &residency);
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
            rank,
            homes: artifact.homes.clone(),
            collectives: None,
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
    /// ports in order. Of several ranks, which all do this, only rank 0 has inputs, and gets outputs.
    ///
    /// # Errors
    /// Of several ranks, the others are told of an error, and none can run again.
    ///
    /// # Panics
    /// If it is one of several ranks and its last run panicked.
    pub fn run(&mut self, inputs: &[Ciphertext]) -> Result<(Vec<Ciphertext>, Profile), SessionError> {
        if self.homes.is_empty() {
            return self.run_alone(inputs);
        }
        self.with_others(|session, collectives| session.run_with(inputs, collectives))
    }

    fn run_alone(&mut self, inputs: &[Ciphertext]) -> Result<(Vec<Ciphertext>, Profile), SessionError> {
        self.check(inputs)?;
        let start = Instant::now();
        let limbs = inputs.iter().flat_map(|input| input.words().chunks_exact(self.params.n()));
        for (address, limb) in self.schedule.inputs().zip(limbs) {
            self.device.upload(address, limb)?;
        }
        let (execution, communication) = self.execute(None)?;
        let mut addresses = self.schedule.outputs();
        let download = |_: PrimeIndex, limb: &mut [u32]| {
            let address = addresses.next().expect("an entry has the results of the ports");
            self.device.download(address, limb)
        };
        let outputs = outputs(&self.params, &self.outputs, download)?;
        Ok((outputs, self.profile(start.elapsed(), execution, communication)))
    }

    fn run_with(
        &mut self,
        inputs: &[Ciphertext],
        collectives: &mut dyn Collectives,
    ) -> Result<(Vec<Ciphertext>, Profile), SessionError> {
        let is_first = self.is_first();
        if is_first {
            self.check(inputs)?;
        }
        let start = Instant::now();
        let n = self.params.n();
        let home = |homes: &[DeviceId], prime: PrimeIndex| homes[prime.index()];
        let given: Vec<&[u8]> = match is_first {
            true => inputs.iter().map(|input| bytemuck::cast_slice(input.words())).collect(),
            false => Vec::new(),
        };
        let words = collectives.gather(&given.concat())?.swap_remove(0);
        let expected = primes(&self.params, &self.inputs).count() * 4 * n;
        if words.len() != expected {
            return Err(out_of_step(0, expected, words.len()).into());
        }
        let limbs = primes(&self.params, &self.inputs).zip(words.chunks_exact(4 * n));
        let own = limbs.filter(|(prime, _)| home(&self.homes, *prime) == self.rank);
        let mut limb = vec![0u32; n];
        for (address, (_, words)) in self.schedule.inputs().zip(own) {
            bytemuck::cast_slice_mut(&mut limb).copy_from_slice(words);
            self.device.upload(address, &limb)?;
        }
        let (execution, communication) = self.execute(Some(&mut *collectives))?;
        let mut words = vec![0u32; self.schedule.outputs().count() * n];
        for (address, limb) in self.schedule.outputs().zip(words.chunks_exact_mut(n)) {
            self.device.download(address, limb)?;
        }
        let gathered = collectives.gather(bytemuck::cast_slice(&words))?;
        let mut parts: Vec<_> = gathered.iter().map(|bytes| bytes.chunks_exact(4 * n)).collect();
        let take = |prime: PrimeIndex, limb: &mut [u32]| {
            let rank = home(&self.homes, prime).index();
            let part =
                parts[rank].next().ok_or_else(|| out_of_step(rank, 4 * n, gathered[rank].len() % (4 * n)))?;
            bytemuck::cast_slice_mut(limb).copy_from_slice(part);
            Ok::<_, SessionError>(())
        };
        let outputs = if is_first { outputs(&self.params, &self.outputs, take)? } else { Vec::new() };
        Ok((outputs, self.profile(start.elapsed(), execution, communication)))
    }

    /// Runs the schedule on uploaded inputs.
    fn execute<'a>(
        &'a mut self,
        collectives: Option<&'a mut dyn Collectives>,
    ) -> Result<(Duration, CommunicationTables), SessionError> {
        self.device.take_usage(); // forget a run that failed
        let launched = Instant::now();
        let communication = self.schedule.execute(self.device.as_mut(), collectives)?;
        Ok((launched.elapsed(), communication))
    }

    fn profile(
        &mut self,
        wall: Duration,
        execution: Duration,
        communication: CommunicationTables,
    ) -> Profile {
        Profile {
            wall,
            execution,
            threads: self.device.threads(),
            stages: self.stages.clone(),
            usage: self.device.take_usage(),
            communication,
        }
    }

    /// Whether it is rank 0, which takes inputs and gives outputs.
    pub fn is_first(&self) -> bool {
        self.rank == DeviceId::default()
    }

    /// Figures of all ranks, which ask for them together, each with the profile of its run.
    ///
    /// # Errors
    /// [`SessionError::Collective`].
    ///
    /// # Panics
    /// As [`run`](Session::run).
    pub fn figures(&mut self, profile: &Profile) -> Result<Vec<RankFigures>, SessionError> {
        let communication = profile.communication.total();
        let own = RankFigures { device: self.device(), memory: self.memory, communication };
        if self.homes.is_empty() {
            return Ok(vec![own]);
        }
        let bytes = postcard::to_allocvec(&own).expect("plain data");
        let own_bytes = bytes.len();
        let gathered = self.with_others(|_, collectives| Ok(collectives.gather(&bytes)?))?;
        let figures = gathered.iter().enumerate().map(|(rank, bytes)| {
            postcard::from_bytes(bytes).map_err(|_| out_of_step(rank, own_bytes, bytes.len()).into())
        });
        figures.collect()
    }

    /// Does something together with the other ranks; they are told of an error.
    fn with_others<T>(
        &mut self,
        work: impl FnOnce(&mut Session, &mut dyn Collectives) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        // A panic drops the way to the others, and so tells them.
        let mut collectives = self.collectives.take().expect("the last run of this rank did not panic");
        let result = telling(collectives.as_mut(), |collectives| work(self, collectives));
        self.collectives = Some(collectives);
        result
    }

    /// Checks that ciphertexts are inputs of the program.
    pub(crate) fn check(&self, inputs: &[Ciphertext]) -> Result<(), SessionError> {
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

/// Does the work of a rank; others are told of an error.
fn telling<T>(
    collectives: &mut dyn Collectives,
    work: impl FnOnce(&mut dyn Collectives) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    let result = work(collectives);
    if let Err(error) = &result {
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let reason = causes.fold(error.to_string(), |reason, cause| format!("{reason}: {cause}"));
        collectives.abort(&reason);
    }
    result
}

/// The primes of all limbs of ports, in order.
fn primes<'a>(params: &'a Params, ports: &'a [Port]) -> impl Iterator<Item = PrimeIndex> + 'a {
    ports.iter().flat_map(|port| &port.ciphertexts).flat_map(|packed| {
        let basis = params.basis(packed.level);
        basis.iter().chain(basis.iter())
    })
}

/// The ciphertexts of ports, limb by limb.
fn outputs<E>(
    params: &Params,
    ports: &[Port],
    mut limb: impl FnMut(PrimeIndex, &mut [u32]) -> Result<(), E>,
) -> Result<Vec<Ciphertext>, E> {
    let ciphertext = |packed: &PackedCiphertext| {
        let basis = params.basis(packed.level);
        let mut words = vec![0; 2 * basis.len() * params.n()];
        for (prime, words) in basis.iter().chain(basis.iter()).zip(words.chunks_exact_mut(params.n())) {
            limb(prime, words)?;
        }
        let ciphertext = Ciphertext::new(params, packed.level, packed.scale, 2, words);
        Ok(ciphertext.expect("level and scale of a validated port"))
    };
    ports.iter().flat_map(|port| &port.ciphertexts).map(ciphertext).collect()
}

/// A rank gave another number of bytes than one of this program gives.
fn out_of_step(rank: usize, expected: usize, found: usize) -> CollectiveError {
    CollectiveError::OutOfStep {
        rank,
        expected: format!("{expected} bytes"),
        found: format!("{found} bytes"),
    }
}
