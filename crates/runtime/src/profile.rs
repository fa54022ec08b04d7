//! What a run cost: counted exactly by every device, timed by those that compute.

mod communication;

use std::ops::AddAssign;
use std::time::Duration;

use cerium_artifact::StageId;
use cerium_artifact::cost::Cost;
use cerium_artifact::kernel::Body;
use serde::Serialize;

pub use communication::{Communication, CommunicationTables};

/// The classes of kernels ([`Body`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelClass {
    /// [`Body::Elementwise`]
    Elementwise,
    /// [`Body::Ntt`]
    Ntt,
    /// [`Body::Intt`]
    Intt,
    /// [`Body::BaseConvert`]
    BaseConvert,
}

impl KernelClass {
    /// All classes.
    pub const ALL: [KernelClass; 4] =
        [KernelClass::Elementwise, KernelClass::Ntt, KernelClass::Intt, KernelClass::BaseConvert];

    /// The class of a kernel.
    pub fn of(body: &Body) -> KernelClass {
        match body {
            Body::Elementwise { .. } => KernelClass::Elementwise,
            Body::Ntt(_) => KernelClass::Ntt,
            Body::Intt(_) => KernelClass::Intt,
            Body::BaseConvert { .. } => KernelClass::BaseConvert,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            KernelClass::Elementwise => "elementwise",
            KernelClass::Ntt => "ntt",
            KernelClass::Intt => "intt",
            KernelClass::BaseConvert => "base_convert",
        }
    }
}

/// What kernels of one class cost: [`Cost`], and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Kernels launched.
    pub launches: u64,
    /// Their blocks.
    pub blocks: u64,
    /// Bytes of limbs and constants that the blocks load, as if nothing were cached.
    pub bytes_read: u64,
    /// Bytes of limbs that they store.
    pub bytes_written: u64,
    /// Modular multiplications, those inside transforms included.
    pub multiplications: u64,
    /// Time in which a thread of the device computed them, summed over threads; zero if nothing was computed.
    pub busy: Duration,
}

impl From<Cost> for Usage {
    fn from(cost: Cost) -> Usage {
        let Cost { launches, blocks, bytes_read, bytes_written, multiplications } = cost;
        Usage { launches, blocks, bytes_read, bytes_written, multiplications, busy: Duration::ZERO }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.launches = self.launches.saturating_add(other.launches);
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.multiplications = self.multiplications.saturating_add(other.multiplications);
        self.busy += other.busy;
    }
}

/// Usage by stage and class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageTable(Vec<[Usage; KernelClass::ALL.len()]>);

impl UsageTable {
    /// An empty table for this many stages.
    pub fn new(stages: usize) -> UsageTable {
        UsageTable(vec![Default::default(); stages])
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.0.len()
    }

    /// The cell of a stage and a class. Panics if there is no such stage.
    pub fn get(&self, stage: StageId, class: KernelClass) -> Usage {
        self.0[usize::from(stage.0)][class as usize]
    }

    /// The cell of a stage and a class, to be changed. Panics if there is no such stage.
    pub fn get_mut(&mut self, stage: StageId, class: KernelClass) -> &mut Usage {
        &mut self.0[usize::from(stage.0)][class as usize]
    }

    /// Sum over the classes of one stage.
    pub fn stage(&self, stage: StageId) -> Usage {
        sum(self.0[usize::from(stage.0)].iter())
    }

    /// Sum over the stages for one class.
    pub fn class(&self, class: KernelClass) -> Usage {
        sum(self.0.iter().map(|stage| &stage[class as usize]))
    }

    /// Sum over everything.
    pub fn total(&self) -> Usage {
        sum(self.0.iter().flatten())
    }
}

/// Usage of a run, by stage and class. What functions use is counted twice: for the stages that their kernels belong to, and for
/// the stages of the entry that called them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageTables {
    /// Kernels of the entry, by their stage.
    pub entry: UsageTable,
    /// Kernels of functions, by their stage.
    pub functions: UsageTable,
    /// Kernels of functions, by the stage of the entry that called the function, itself or through others.
    pub called: UsageTable,
}

impl UsageTables {
    /// Empty tables for this many stages.
    pub fn new(stages: usize) -> UsageTables {
        let table = || UsageTable::new(stages);
        UsageTables { entry: table(), functions: table(), called: table() }
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.entry.stages()
    }

    /// Adds what kernels of a stage and a class used in a function that `caller` called (`None`: in the entry).
    pub fn add(&mut self, stage: StageId, class: KernelClass, caller: Option<StageId>, usage: Usage) {
        match caller {
            None => *self.entry.get_mut(stage, class) += usage,
            Some(caller) => {
                *self.functions.get_mut(stage, class) += usage;
                *self.called.get_mut(caller, class) += usage;
            }
        }
    }

    /// Adds what the kernels of a run used in a function that `caller` called (`None`: in the entry).
    pub fn add_run(&mut self, run: &UsageTable, caller: Option<StageId>) {
        for stage in (0..run.stages()).map(|index| StageId(index as u16)) {
            for class in KernelClass::ALL {
                self.add(stage, class, caller, run.get(stage, class));
            }
        }
    }

    /// Kernels of a class that belong to a stage. Panics if there is no such stage.
    pub fn get(&self, stage: StageId, class: KernelClass) -> Usage {
        sum([self.entry.get(stage, class), self.functions.get(stage, class)].iter())
    }

    /// Kernels that belong to a stage.
    pub fn stage(&self, stage: StageId) -> Usage {
        sum([self.entry.stage(stage), self.functions.stage(stage)].iter())
    }

    /// Kernels of a stage of the entry and of the functions that it calls.
    pub fn layer(&self, stage: StageId) -> Usage {
        sum([self.entry.stage(stage), self.called.stage(stage)].iter())
    }

    /// Kernels of a class.
    pub fn class(&self, class: KernelClass) -> Usage {
        sum([self.entry.class(class), self.functions.class(class)].iter())
    }

    /// All kernels.
    pub fn total(&self) -> Usage {
        sum([self.entry.total(), self.functions.total()].iter())
    }
}

impl AddAssign<&UsageTables> for UsageTables {
    fn add_assign(&mut self, other: &UsageTables) {
        self.entry += &other.entry;
        self.functions += &other.functions;
        self.called += &other.called;
    }
}

impl AddAssign<&UsageTable> for UsageTable {
    fn add_assign(&mut self, other: &UsageTable) {
        for (stage, added) in self.0.iter_mut().zip(&other.0) {
            for (usage, &added) in stage.iter_mut().zip(added) {
                *usage += added;
            }
        }
    }
}

fn sum<'a>(usages: impl Iterator<Item = &'a Usage>) -> Usage {
    let mut total = Usage::default();
    usages.for_each(|&usage| total += usage);
    total
}

/// The profile of one run of a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Time from the first input's upload to the last output's download.
    pub wall: Duration,
    /// Time of launches and collectives alone, without copying inputs and outputs.
    pub execution: Duration,
    /// Threads that computed.
    pub threads: usize,
    /// Names of the stages; [`StageId`] indexes them.
    pub stages: Vec<String>,
    /// Usage by stage and class.
    pub usage: UsageTables,
    /// Communication by stage.
    pub communication: CommunicationTables,
}

impl Profile {
    /// Stage names with the share of the wall time that went into each. Blocks of different stages may be
    /// computed side by side, so it is the busy time of the stage divided by the number of threads.
    pub fn stage_times(&self) -> impl Iterator<Item = (&str, Duration)> {
        let threads = self.threads.max(1) as u32;
        self.stages
            .iter()
            .enumerate()
            .map(move |(index, name)| (name.as_str(), self.usage.stage(StageId(index as u16)).busy / threads))
    }

    /// Like [`Profile::stage_times`], by kernel class.
    pub fn class_times(&self) -> impl Iterator<Item = (KernelClass, Duration)> {
        let threads = self.threads.max(1) as u32;
        KernelClass::ALL.into_iter().map(move |class| (class, self.usage.class(class).busy / threads))
    }
}
