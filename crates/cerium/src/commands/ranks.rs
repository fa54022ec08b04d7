//! Sessions of a program for one device or several, for verbs that run programs.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_runtime::collectives::threads::threads as in_one_process;
use cerium_runtime::collectives::{Collectives, HostCollectives, Launch, Patience, Transport, connect};
use cerium_runtime::device::Device;
use cerium_runtime::key_store::KeyPart;
use cerium_runtime::{
    KeyStore, Member, MemoryFigures, RankFigures, Ranks, Session, SessionError, SessionOptions,
};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::device::{DeviceArgs, share};
use crate::figures::{self, row};
use crate::program::Program;
use crate::progress::Progress;

/// Seconds that a device waits for another unless it is told otherwise.
const PATIENCE: u64 = 600;

/// How many devices, and how long they wait for each other.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct RankArgs {
    /// Devices that share the work: as many as the program was compiled for. A CPU becomes several by its threads. Processes
    /// that `mpirun`, `torchrun` or `srun` has started are one device each; others than the first print and write nothing.
    #[arg(long, value_name = "N")]
    pub(super) devices: Option<usize>,
    /// How long a device waits for another before all give up: longer than any computes between two exchanges.
    #[arg(long, default_value_t = PATIENCE, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How devices give limbs to each other.
    #[arg(long, value_enum, default_value_t, value_name = "WAY")]
    transport: Way,
}

/// The ways of limbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Way {
    /// By NCCL where each has a GPU of its own and NCCL is found, else as `host`
    #[default]
    Auto,
    /// Through the memory of hosts
    Host,
    /// From GPU to GPU, by NCCL
    Nccl,
}

impl Way {
    fn transport(self) -> Transport {
        match self {
            Way::Auto => Transport::Auto,
            Way::Host => Transport::Host,
            Way::Nccl => Transport::Nccl,
        }
    }
}

/// Where evaluation keys come from.
pub(super) enum Keys<'a> {
    /// A folder of keys.
    Folder(&'a Path),
    /// They were just made.
    Made(Vec<EvaluationKey>),
}

impl Keys<'_> {
    /// A store for each part of the program's keys.
    fn stores(
        self,
        program: &Program,
        parts: &[KeyPart],
        threads: usize,
        progress: &Progress,
    ) -> Result<Vec<KeyStore>> {
        let step = |what: &'static str, done: usize, total: usize| progress.step(what, done, total);
        let (params, manifest) = (&program.params, &program.artifact.keys[..]);
        let stores = match self {
            Keys::Folder(folder) => KeyStore::open_parts(folder, params, manifest, parts, threads, &step),
            Keys::Made(keys) => KeyStore::parts_of_keys(params, manifest, keys, parts, threads, &step),
        };
        Ok(stores?)
    }
}

impl Default for RankArgs {
    /// One device.
    fn default() -> RankArgs {
        RankArgs { devices: None, timeout: PATIENCE, transport: Way::default() }
    }
}

impl RankArgs {
    fn patience(self) -> Patience {
        let wait = Duration::from_secs(self.timeout);
        Patience { wait, silence: Patience::default().silence.min(wait) }
    }

    /// Opens the devices for a program. `mpirun`, `torchrun` and `srun` start a process for each; otherwise all are in this one,
    /// where the CPU's threads (0: one for each core) are divided among them.
    pub(super) fn places(self, program: &Program, args: &DeviceArgs, threads: usize) -> Result<Places> {
        let Some(launch) = Launch::from_environment()?.filter(|launch| launch.size > 1) else {
            return self.places_here(program, args, threads);
        };
        self.check(program, launch.size)?;
        let device = args.open_for(launch.local_rank, threads)?;
        let seats = vec![self.connect(launch.join(self.patience())?, device, args)?];
        Ok(Places { first: launch.rank, seats, threads, options: args.session(threads) })
    }

    /// As [`places`](RankArgs::places), all in this process.
    pub(super) fn places_here(self, program: &Program, args: &DeviceArgs, threads: usize) -> Result<Places> {
        let ranks = program.artifact.programs.len();
        self.check(program, ranks)?;
        if ranks == 1 {
            let seats = vec![(args.open(threads)?, None)];
            return Ok(Places { first: 0, seats, threads, options: args.session(threads) });
        }
        let devices = (0..ranks).map(|rank| args.open_for(rank, share(threads, rank, ranks)));
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let ways = in_one_process(ranks, self.patience());
        // Side by side: they connect together.
        let seats: Result<Vec<Seat>> = thread::scope(|scope| {
            let connect = |(way, device)| scope.spawn(move || self.connect(way, device, args));
            let threads: Vec<_> = ways.into_iter().zip(devices).map(connect).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        Ok(Places { first: 0, seats: seats?, threads, options: args.session(share(threads, 0, ranks)) })
    }

    /// Decides on the way of limbs from a device to the others, together with those.
    fn connect(self, side: HostCollectives, mut device: Box<dyn Device>, args: &DeviceArgs) -> Result<Seat> {
        let way = connect(side, device.as_mut(), self.transport.transport(), args.nccl())?;
        Ok((device, Some(way)))
    }

    /// Checks that the program is for this number of devices, and for as many as were asked for.
    fn check(self, program: &Program, ranks: usize) -> Result<()> {
        let devices = program.artifact.programs.len();
        let ranks = self.devices.filter(|&wanted| wanted != devices).unwrap_or(ranks);
        if ranks == devices { Ok(()) } else { Err(SessionError::Devices { devices, ranks }.into()) }
    }
}

/// A device and, if it has others beside it, the way to them.
type Seat = (Box<dyn Device>, Option<Box<dyn Collectives>>);

/// Devices for the ranks of a program that are in this process.
pub(super) struct Places {
    /// The first of the ranks.
    first: usize,
    seats: Vec<Seat>,
    /// Threads that prepare keys.
    threads: usize,
    options: SessionOptions,
}

impl Places {
    /// Whether rank 0 is here, which reads inputs, writes outputs and reports.
    pub(super) fn has_first(&self) -> bool {
        self.first == 0
    }

    /// Opens the sessions.
    pub(super) fn open(self, program: &Program, keys: Keys<'_>, progress: &Progress) -> Result<Ranks> {
        let parts = KeyPart::all(&program.artifact, &program.params);
        let parts = &parts[self.first..][..self.seats.len()];
        let step = |what: &'static str, done: usize, total: usize| progress.step(what, done, total);
        let stores = keys.stores(program, parts, self.threads, progress)?;
        let mut members = Vec::with_capacity(stores.len());
        for ((device, way), keys) in self.seats.into_iter().zip(stores) {
            let Some(collectives) = way else {
                let session = Session::with_options(&program.artifact, keys, device, &self.options, &step)?;
                return Ok(Ranks::alone(session));
            };
            members.push(Member { keys, device, collectives });
        }
        Ok(Ranks::open(&program.artifact, members, &self.options, &step)?)
    }
}

/// Figures of several ranks as a list of objects.
pub(super) fn ranks_json(ranks: &[RankFigures]) -> Value {
    let rank = |figures: &RankFigures| {
        json!({
            "device": figures.device,
            "memory": figures.memory,
            "collectives": figures.communication.collectives,
            "bytes_sent": figures.communication.bytes_sent,
            "waiting_seconds": figures.communication.waiting.as_secs_f64(),
        })
    };
    ranks.iter().map(rank).collect()
}

/// Memory of all ranks together.
pub(super) fn total_memory(ranks: &[RankFigures]) -> MemoryFigures {
    let mut total = MemoryFigures::default();
    ranks.iter().for_each(|rank| total += rank.memory);
    total
}

/// What ranks have and did, a line for each; nothing for a single one.
pub(super) fn show_ranks(ranks: &[RankFigures]) -> String {
    if ranks.len() == 1 {
        return String::new();
    }
    let mut rows =
        vec![row(["rank", "keys", "encoded weights", "working memory", "sent", "waited", "device"])];
    for (rank, RankFigures { device, memory, communication }) in ranks.iter().enumerate() {
        rows.push(row([
            &rank.to_string(),
            &figures::bytes(memory.keys),
            &figures::bytes(memory.plaintexts),
            &figures::bytes(memory.pool),
            &figures::bytes(communication.bytes_sent),
            &figures::duration(communication.waiting),
            device,
        ]));
    }
    format!("{}\n", figures::table(&rows))
}

/// The devices of all ranks: `4 times cpu (1 thread, avx512)`.
pub(super) fn show_devices(ranks: &[RankFigures]) -> String {
    let groups = ranks.chunk_by(|a, b| a.device == b.device).map(|group| match group.len() {
        1 => group[0].device.clone(),
        count => format!("{count} times {}", group[0].device),
    });
    groups.collect::<Vec<_>>().join(", ")
}
