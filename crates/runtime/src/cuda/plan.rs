//! What a program becomes for a GPU, before there is one: sources, launches, and what they read besides limbs.
//!
//! All limbs of a run are named by *codes* (`cerium_emit::cuda::abi`): a base and an offset. The bases of an activation, its
//! *table*, are all that changes from one activation to the next.

use std::collections::{HashMap, HashSet};

use cerium_artifact::cost::kernel_cost;
use cerium_artifact::kernel::Half;
use cerium_artifact::{Artifact, DeviceId, Function, Operand, StageId};
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;
use cerium_emit::cuda::abi::{Pointer, bind_source, code};
use cerium_emit::cuda::{Emitter, Source, encode, sum_source};

use super::encode::ON_THE_WAY;
use super::gpu::GpuAddress;
use crate::SessionError;
use crate::device::{Bindings, Run};
use crate::executor::Schedule;
use crate::memory::{PlaintextId, PlaintextPlan, Residency, movable_periods};
use crate::profile::{KernelClass, UsageTable};

/// The texts of all kernels of a program that [`Artifact::validate`] accepts, on all its devices, and of what binds their
/// operands and adds what devices give to each other: what a GPU has to have compiled before it runs the program.
pub fn sources(artifact: &Artifact) -> Result<Vec<Source>, SessionError> {
    let params = artifact.validate()?;
    let mut sources = Vec::new();
    for device in (0..artifact.programs.len()).map(|device| DeviceId(device as u16)) {
        let plaintexts = PlaintextPlan::new(artifact, device)?;
        let schedule = Schedule::new(artifact, &params, &plaintexts, &Residency::all(artifact, &plaintexts));
        let plan = Plan::new(&params, &schedule.runs(artifact), artifact.stages.len());
        let periods = movable_periods(artifact, &plaintexts, ON_THE_WAY);
        let encoding = periods.into_iter().map(|period| encode::source(&params, period));
        sources.extend(plan.sources.into_iter().map(|(source, _)| source).chain(encoding));
    }
    if artifact.programs.len() > 1 {
        sources.push(sum_source());
    }
    let mut known = HashSet::new();
    sources.retain(|source| known.insert(source.entry.clone()));
    Ok(sources)
}

/// Bytes to which the pointers and the constants of a launch are aligned.
const ALIGNMENT: usize = 16;

/// A program for a GPU.
pub(super) struct Plan {
    /// Every source with the most dynamic shared memory that a launch of it asks for, in bytes; the first is `bind`.
    pub(super) sources: Vec<(Source, u32)>,
    /// The runs, by `RunId`.
    pub(super) runs: Vec<RunPlan>,
    /// Limbs of keys that some kernel reads, in the order in which they lie in memory.
    pub(super) keys: Vec<KeyLimb>,
    /// Limbs that a launch may need for itself.
    pub(super) scratch_limbs: u32,
    /// The most bases of any table.
    pub(super) bases: usize,
}

/// A limb of an evaluation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyLimb {
    pub(super) key: u32,
    pub(super) digit: u8,
    pub(super) half: Half,
    pub(super) prime: PrimeIndex,
}

/// A run for a GPU.
#[derive(Debug)]
pub(super) struct RunPlan {
    /// Its launches, in order.
    pub(super) launches: Vec<PlannedLaunch>,
    /// What all their pointers stand for.
    pub(super) codes: Vec<u64>,
    /// All their constants.
    pub(super) constants: Vec<u32>,
    /// What it costs, without times.
    pub(super) usage: UsageTable,
}

/// A launch and what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedLaunch {
    /// Index into [`Plan::sources`].
    pub(super) source: usize,
    pub(super) grid: [u32; 2],
    pub(super) block: u32,
    pub(super) shared_bytes: u32,
    /// Position of its pointers among those of the run.
    pub(super) pointers: usize,
    /// Position of its constants among those of the run.
    pub(super) constants: usize,
    /// What its time is counted for.
    pub(super) stage: StageId,
    pub(super) class: KernelClass,
}

/// The bases of a function: what its codes and its tables agree on.
#[derive(Clone, Copy, Debug)]
struct Bases {
    args: usize,
    results: usize,
    plaintexts: usize,
}

impl Bases {
    const FRAME: usize = 0;
    const SCRATCH: usize = 1;
    const KEYS: usize = 2;
    const FIRST: usize = 3;

    fn of(args: usize, results: usize) -> Bases {
        Bases { args: Self::FIRST, results: Self::FIRST + args, plaintexts: Self::FIRST + args + results }
    }
}

/// Where a device has put what tables refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) pool: GpuAddress,
    pub(super) scratch: GpuAddress,
    pub(super) keys: GpuAddress,
    /// Each encoded plaintext.
    pub(super) plaintexts: Vec<GpuAddress>,
}

impl Places {
    /// The table of an activation, for slots of `limb_bytes`.
    pub(super) fn table(&self, bindings: &Bindings, limb_bytes: u64) -> Vec<u64> {
        let slot = |address: u32| self.pool.offset(u64::from(address) * limb_bytes).0;
        let plaintext = |id: &PlaintextId| self.plaintexts[id.index()].0;
        let mut table = vec![slot(bindings.frame.0), self.scratch.0, self.keys.0];
        table.extend(bindings.args.iter().chain(&bindings.results).map(|address| slot(address.0)));
        table.extend(bindings.plaintexts.iter().map(plaintext));
        table
    }
}

impl Plan {
    /// The plan of runs of a validated program; `stages` is the number of stages that its kernels name.
    pub(super) fn new(params: &Params, runs: &[Run<'_>], stages: usize) -> Plan {
        let mut planner = Planner {
            params,
            emitter: Emitter::new(params),
            shared_bytes: Vec::new(),
            keys: Vec::new(),
            key_positions: HashMap::new(),
            scratch_limbs: 0,
            bases: 0,
        };
        let runs = runs.iter().map(|run| planner.run(run, stages)).collect();
        let Planner { emitter, shared_bytes, keys, scratch_limbs, bases, .. } = planner;
        let emitted = emitter.sources().iter().cloned().zip(shared_bytes);
        let sources = std::iter::once((bind_source(), 0)).chain(emitted).collect();
        Plan { sources, runs, keys, scratch_limbs, bases }
    }

    /// The most pointers of any run.
    pub(super) fn pointers(&self) -> usize {
        self.runs.iter().map(|run| run.codes.len()).max().unwrap_or(0)
    }
}

struct Planner<'a> {
    params: &'a Params,
    emitter: Emitter<'a>,
    /// For each source so far.
    shared_bytes: Vec<u32>,
    keys: Vec<KeyLimb>,
    key_positions: HashMap<KeyLimb, usize>,
    scratch_limbs: u32,
    bases: usize,
}

impl Planner<'_> {
    fn run(&mut self, run: &Run<'_>, stages: usize) -> RunPlan {
        let mut plan = RunPlan {
            launches: Vec::new(),
            codes: Vec::new(),
            constants: Vec::new(),
            usage: UsageTable::new(stages),
        };
        let bases = Bases::of(run.function.args.len(), run.function.results.len());
        self.bases = self.bases.max(bases.plaintexts + run.function.plaintexts.len());
        for kernel in &run.kernels {
            let class = KernelClass::of(&kernel.body);
            let cost = kernel_cost(kernel, run.function, self.params.log_n());
            *plan.usage.get_mut(kernel.stage, class) += cost.into();
            for launch in self.emitter.emit(run.function, kernel) {
                plan.codes.resize(plan.codes.len().next_multiple_of(ALIGNMENT / 8), 0);
                plan.constants.resize(plan.constants.len().next_multiple_of(ALIGNMENT / 4), 0);
                let source = launch.source.0 as usize;
                self.shared_bytes.resize(self.emitter.sources().len(), 0);
                self.shared_bytes[source] = self.shared_bytes[source].max(launch.shared_bytes);
                self.scratch_limbs = self.scratch_limbs.max(launch.scratch_limbs);
                plan.launches.push(PlannedLaunch {
                    source: source + 1, // behind `bind`
                    grid: launch.grid,
                    block: launch.block,
                    shared_bytes: launch.shared_bytes,
                    pointers: plan.codes.len(),
                    constants: plan.constants.len(),
                    stage: kernel.stage,
                    class,
                });
                for &pointer in &launch.pointers {
                    plan.codes.push(self.code(run.function, bases, pointer));
                }
                plan.constants.extend(launch.constants);
            }
        }
        plan
    }

    fn code(&mut self, function: &Function, bases: Bases, pointer: Pointer) -> u64 {
        let limb_bytes = 4 * self.params.n() as u64;
        match pointer {
            Pointer::Scratch(index) => code(Bases::SCRATCH, u64::from(index) * limb_bytes),
            Pointer::Limb(Operand::Local(slot)) => code(Bases::FRAME, u64::from(slot) * limb_bytes),
            Pointer::Limb(Operand::Arg(index)) => code(bases.args + index as usize, 0),
            Pointer::Limb(Operand::Result(index)) => code(bases.results + index as usize, 0),
            Pointer::Limb(Operand::Plain { plaintext, limb }) => {
                let words = 2u64 << function.plaintexts[plaintext as usize].log_period;
                code(bases.plaintexts + plaintext as usize, 4 * u64::from(limb) * words)
            }
            Pointer::Limb(Operand::Key { key, digit, half, prime }) => {
                let limb = KeyLimb { key, digit, half, prime };
                let position = *self.key_positions.entry(limb).or_insert_with(|| {
                    self.keys.push(limb);
                    self.keys.len() - 1
                });
                code(Bases::KEYS, position as u64 * limb_bytes)
            }
        }
    }
}
