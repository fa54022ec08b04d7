//! The executor: walks the functions of a program, places their frames and hands runs of kernels to a device, each after the
//! plaintexts that it needs and that are not resident. Between runs, where several devices share the work, it starts and
//! finishes collectives.
//!
//! The pool is `[argument limbs of the entry][result limbs of the entry][frames]`, where frames form a stack: a
//! callee's frame begins where its caller's ends. Everything is known before the first launch; execution only
//! adds offsets.

use std::time::{Duration, Instant};

use cerium_artifact::cost::{collective_traffic, pool_limbs};
use cerium_artifact::{
    Artifact, Collective, Function, FunctionId, Movement, Operand, StageId, Step, WeightId, WeightRef,
};
use cerium_ckks::params::Params;

use crate::collectives::{CollectiveError, Collectives, Exchange, Started, Sum};
use crate::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use crate::memory::{PlaintextId, PlaintextPlan, Residency, RunSpan};
use crate::profile::{Communication, CommunicationTables};

/// The control structure of a program: what remains when the contents of kernels are left to a device.
#[derive(Clone, Debug)]
pub struct Schedule {
    functions: Vec<ScheduledFunction>,
    plaintexts: PlaintextPlan,
    /// Holds the runs.
    residency: Residency,
    args: u32,
    results: u32,
    limbs: u64,
    stages: usize,
}

#[derive(Clone, Debug)]
struct ScheduledFunction {
    frame: u32,
    items: Vec<Item>,
    plaintexts: Vec<WeightRef>,
}

#[derive(Clone, Debug)]
enum Item {
    Run(RunId),
    Call {
        stage: StageId,
        function: FunctionId,
        args: Vec<Operand>,
        results: Vec<Operand>,
        weights: Vec<WeightRef>,
    },
    Start(Box<ScheduledCollective>),
    /// Of the function's collectives, counted from 0.
    Finish {
        number: u32,
        stage: StageId,
    },
}

#[derive(Clone, Debug)]
struct ScheduledCollective {
    stage: StageId,
    cost: Communication,
    movement: ScheduledMovement,
}

/// A movement with peers as ranks and primes as numbers.
#[derive(Clone, Debug)]
enum ScheduledMovement {
    Exchange { sends: Vec<(usize, Operand)>, receives: Vec<(usize, Operand)> },
    Sums(Vec<(Operand, u32)>),
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Another rank failed, or the way to it.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

impl Schedule {
    /// The schedule of an artifact that is valid for `params`, on the device of `plaintexts`.
    ///
    /// # Panics
    /// May panic if [`Artifact::validate`] does not accept it.
    pub fn new(
        artifact: &Artifact,
        params: &Params,
        plaintexts: &PlaintextPlan,
        residency: &Residency,
    ) -> Schedule {
        let functions = artifact.functions(plaintexts.device());
        let entry = functions.last().expect("a validated artifact has an entry");
        let (args, results) = (entry.args.len() as u32, entry.results.len() as u32);
        let limbs = pool_limbs(functions);
        let (devices, stages) = (artifact.programs.len(), artifact.stages.len());
        let functions = functions.iter().enumerate().map(|(index, function)| ScheduledFunction {
            frame: function.frame,
            items: items(function, FunctionId(index as u32), residency, params, devices),
            plaintexts: function.plaintexts.iter().map(|plaintext| plaintext.weight).collect(),
        });
        let functions = functions.collect();
        let (plaintexts, residency) = (plaintexts.clone(), residency.clone());
        Schedule { functions, plaintexts, residency, args, results, limbs, stages }
    }

    /// The runs of the artifact that this schedule was made of, by [`RunId`].
    pub fn runs<'a>(&self, artifact: &'a Artifact) -> Vec<Run<'a>> {
        let run = |span: &RunSpan| {
            let function = &artifact.functions(self.plaintexts.device())[span.function.0 as usize];
            let kernels = function.steps[span.steps.clone()].iter().filter_map(|step| match step {
                Step::Launch(kernel) => Some(kernel),
                Step::Call { .. } | Step::Start(_) | Step::Finish(_) => None,
            });
            Run { function, kernels: kernels.collect() }
        };
        self.residency.spans().iter().map(run).collect()
    }

    /// Slots of the pool.
    pub fn pool_limbs(&self) -> u64 {
        self.limbs
    }

    /// Slots of the entry's arguments, where inputs are uploaded.
    pub fn inputs(&self) -> impl Iterator<Item = Address> + use<> {
        (0..self.args).map(Address)
    }

    /// Slots of the entry's results, where outputs are downloaded.
    pub fn outputs(&self) -> impl Iterator<Item = Address> + use<> {
        (self.args..self.args + self.results).map(Address)
    }

    /// Launches the whole program and waits for it. The device was prepared with [`Schedule::runs`] and
    /// [`Schedule::pool_limbs`], and its inputs are uploaded. Without `collectives` they are only counted, which suits a program
    /// that has none and a device that computes nothing.
    pub fn execute<'a>(
        &'a self,
        device: &'a mut dyn Device,
        collectives: Option<&'a mut dyn Collectives>,
    ) -> Result<CommunicationTables, ExecutionError> {
        let entry = self.functions.len() - 1;
        let bindings = Bindings {
            caller: None,
            frame: Address(self.args + self.results),
            args: self.inputs().collect(),
            results: self.outputs().collect(),
            encodings: self.encodings(entry, &[]),
            plaintexts: self.encodings(entry, &[]),
        };
        let communication = CommunicationTables::new(self.stages);
        let mut execution = Execution { schedule: self, device, collectives, communication };
        execution.activate(entry, bindings, &[])?;
        execution.device.synchronise()?;
        Ok(execution.communication)
    }

    /// The encodings of the plaintexts of an activation.
    fn encodings(&self, function: usize, weights: &[WeightId]) -> Vec<PlaintextId> {
        let plaintexts = self.functions[function].plaintexts.iter().enumerate();
        plaintexts.map(|(i, weight)| self.plaintexts.id(function, i, weight.resolve(weights))).collect()
    }
}

/// A run of a program under way.
struct Execution<'a> {
    schedule: &'a Schedule,
    device: &'a mut dyn Device,
    collectives: Option<&'a mut dyn Collectives>,
    communication: CommunicationTables,
}

impl Execution<'_> {
    fn activate(
        &mut self,
        index: usize,
        mut bindings: Bindings,
        weights: &[WeightId],
    ) -> Result<(), ExecutionError> {
        let function = &self.schedule.functions[index];
        let mut started: Vec<Option<Started>> = Vec::new();
        for item in &function.items {
            match item {
                Item::Run(run) => {
                    self.encode(*run, &mut bindings)?;
                    self.device.launch(*run, &bindings)?;
                }
                Item::Start(collective) => started.push(self.start(collective, &bindings)?),
                Item::Finish { number, stage } => {
                    self.finish(started[*number as usize].take(), *stage, bindings.caller)?;
                }
                Item::Call { stage, function: callee, args, results, weights: bound } => {
                    let callee = callee.0 as usize;
                    let bound: Vec<WeightId> = bound.iter().map(|weight| weight.resolve(weights)).collect();
                    let encodings = self.schedule.encodings(callee, &bound);
                    let inner = Bindings {
                        caller: bindings.caller.or(Some(*stage)),
                        frame: Address(bindings.frame.0 + function.frame),
                        args: args.iter().map(|&operand| bindings.slot(operand)).collect(),
                        results: results.iter().map(|&operand| bindings.slot(operand)).collect(),
                        plaintexts: encodings.clone(),
                        encodings,
                    };
                    self.activate(callee, inner, &bound)?;
                }
            }
        }
        Ok(())
    }

    /// Encodes the plaintexts of a run that are not resident and binds them to where they are then.
    fn encode(&mut self, run: RunId, bindings: &mut Bindings) -> Result<(), DeviceError> {
        let residency = &self.schedule.residency;
        let span = &residency.spans()[run.0 as usize];
        let mut jobs = Vec::with_capacity(span.encoded.len());
        for &(plaintext, place) in &span.encoded {
            let encoding = bindings.encodings[plaintext];
            let is_resident = residency.is_resident(encoding);
            bindings.plaintexts[plaintext] = if is_resident { encoding } else { place };
            if !is_resident {
                jobs.push(EncodeJob { encoding, place });
            }
        }
        if jobs.is_empty() { Ok(()) } else { self.device.encode(&jobs) }
    }

    /// Starts a collective; `None` if there is nobody to start it with.
    fn start(
        &mut self,
        collective: &ScheduledCollective,
        bindings: &Bindings,
    ) -> Result<Option<Started>, CollectiveError> {
        let begin = Instant::now();
        let started = match (&mut self.collectives, &collective.movement) {
            (None, _) => None,
            (Some(collectives), ScheduledMovement::Exchange { sends, receives }) => {
                let bind = |limbs: &[(usize, Operand)]| {
                    limbs.iter().map(|&(peer, limb)| (peer, bindings.slot(limb))).collect()
                };
                let exchange = Exchange { sends: bind(sends), receives: bind(receives) };
                Some(collectives.start(&exchange, self.device)?)
            }
            (Some(collectives), ScheduledMovement::Sums(limbs)) => {
                let bind = |&(limb, q): &(Operand, u32)| Sum { slot: bindings.slot(limb), q };
                let sums: Vec<Sum> = limbs.iter().map(bind).collect();
                Some(collectives.start_sums(&sums, self.device)?)
            }
        };
        let waiting = started.as_ref().map_or(Duration::ZERO, |_| begin.elapsed());
        self.communication.add(
            collective.stage,
            bindings.caller,
            Communication { waiting, ..collective.cost },
        );
        Ok(started)
    }

    /// Waits for a collective.
    fn finish(
        &mut self,
        started: Option<Started>,
        stage: StageId,
        caller: Option<StageId>,
    ) -> Result<(), CollectiveError> {
        let (Some(started), Some(collectives)) = (started, &mut self.collectives) else { return Ok(()) };
        let begin = Instant::now();
        collectives.finish(started, self.device)?;
        let waiting = begin.elapsed();
        self.communication.add(stage, caller, Communication { waiting, ..Communication::default() });
        Ok(())
    }
}

/// Splits the steps of a function at its calls and collectives, and into the runs of a memory plan.
fn items(
    function: &Function,
    id: FunctionId,
    residency: &Residency,
    params: &Params,
    devices: usize,
) -> Vec<Item> {
    let spans = residency.spans().iter().enumerate().filter(|(_, span)| span.function == id);
    let mut runs = spans.map(|(run, span)| (span.steps.start, RunId(run as u32))).peekable();
    let (mut items, mut stages) = (Vec::new(), Vec::new());
    for (index, step) in function.steps.iter().enumerate() {
        match step {
            Step::Call { stage, function, args, results, weights } => {
                let (args, results, weights) = (args.clone(), results.clone(), weights.clone());
                items.push(Item::Call { stage: *stage, function: *function, args, results, weights });
            }
            Step::Start(collective) => {
                stages.push(collective.stage);
                items.push(Item::Start(Box::new(scheduled(collective, params, devices))));
            }
            &Step::Finish(number) => items.push(Item::Finish { number, stage: stages[number as usize] }),
            Step::Launch(_) => {
                items.extend(runs.next_if(|(start, _)| *start == index).map(|(_, run)| Item::Run(run)));
            }
        }
    }
    items
}

fn scheduled(collective: &Collective, params: &Params, devices: usize) -> ScheduledCollective {
    let cost = collective_traffic(&collective.movement, devices, params.log_n()).into();
    let movement = match &collective.movement {
        Movement::Exchange { sends, receives } => ScheduledMovement::Exchange {
            sends: sends.iter().map(|limb| (limb.to.index(), limb.limb)).collect(),
            receives: receives.iter().map(|limb| (limb.from.index(), limb.limb)).collect(),
        },
        Movement::AllReduce { limbs } => {
            let sum = |&(prime, limb)| (limb, params.modulus(prime).value());
            ScheduledMovement::Sums(limbs.iter().map(sum).collect())
        }
    };
    ScheduledCollective { stage: collective.stage, cost, movement }
}
