//! The executor: walks the functions of a program, places their frames and hands runs of kernels to a device, each after the
//! plaintexts that it needs and that are not resident.
//!
//! The pool is `[argument limbs of the entry][result limbs of the entry][frames]`, where frames form a stack: a
//! callee's frame begins where its caller's ends. Everything is known before the first launch; execution only
//! adds offsets.

use cerium_artifact::cost::pool_limbs;
use cerium_artifact::{Artifact, Function, FunctionId, Operand, StageId, Step, WeightId, WeightRef};

use crate::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use crate::memory::{PlaintextId, PlaintextPlan, Residency, RunSpan};

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
}

impl Schedule {
    /// The schedule of a validated artifact on the device of `plaintexts`.
    ///
    /// # Panics
    /// May panic if [`Artifact::validate`] does not accept it.
    pub fn new(artifact: &Artifact, plaintexts: &PlaintextPlan, residency: &Residency) -> Schedule {
        let functions = artifact.functions(plaintexts.device());
        let entry = functions.last().expect("a validated artifact has an entry");
        let (args, results) = (entry.args.len() as u32, entry.results.len() as u32);
        let limbs = pool_limbs(functions);
        let functions = functions.iter().enumerate().map(|(index, function)| ScheduledFunction {
            frame: function.frame,
            items: items(function, FunctionId(index as u32), residency),
            plaintexts: function.plaintexts.iter().map(|plaintext| plaintext.weight).collect(),
        });
        let functions = functions.collect();
        let (plaintexts, residency) = (plaintexts.clone(), residency.clone());
        Schedule { functions, plaintexts, residency, args, results, limbs }
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
    /// [`Schedule::pool_limbs`], and its inputs are uploaded.
    pub fn execute(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        let entry = self.functions.len() - 1;
        let bindings = Bindings {
            caller: None,
            frame: Address(self.args + self.results),
            args: self.inputs().collect(),
            results: self.outputs().collect(),
            encodings: self.encodings(entry, &[]),
            plaintexts: self.encodings(entry, &[]),
        };
        self.activate(entry, bindings, &[], device)?;
        device.synchronise()
    }

    fn activate(
        &self,
        index: usize,
        mut bindings: Bindings,
        weights: &[WeightId],
        device: &mut dyn Device,
    ) -> Result<(), DeviceError> {
        let function = &self.functions[index];
        for item in &function.items {
            match item {
                Item::Run(run) => {
                    self.encode(*run, &mut bindings, device)?;
                    device.launch(*run, &bindings)?;
                }
                Item::Call { stage, function: callee, args, results, weights: bound } => {
                    let callee = callee.0 as usize;
                    let bound: Vec<WeightId> = bound.iter().map(|weight| weight.resolve(weights)).collect();
                    let encodings = self.encodings(callee, &bound);
                    let inner = Bindings {
                        caller: bindings.caller.or(Some(*stage)),
                        frame: Address(bindings.frame.0 + function.frame),
                        args: args.iter().map(|&operand| bindings.slot(operand)).collect(),
                        results: results.iter().map(|&operand| bindings.slot(operand)).collect(),
                        plaintexts: encodings.clone(),
                        encodings,
                    };
                    self.activate(callee, inner, &bound, device)?;
                }
            }
        }
        Ok(())
    }

    /// Encodes the plaintexts of a run that are not resident and binds them to where they are then.
    fn encode(
        &self,
        run: RunId,
        bindings: &mut Bindings,
        device: &mut dyn Device,
    ) -> Result<(), DeviceError> {
        let span = &self.residency.spans()[run.0 as usize];
        let mut jobs = Vec::with_capacity(span.encoded.len());
        for &(plaintext, place) in &span.encoded {
            let encoding = bindings.encodings[plaintext];
            let is_resident = self.residency.is_resident(encoding);
            bindings.plaintexts[plaintext] = if is_resident { encoding } else { place };
            if !is_resident {
                jobs.push(EncodeJob { encoding, place });
            }
        }
        if jobs.is_empty() { Ok(()) } else { device.encode(&jobs) }
    }

    /// The encodings of the plaintexts of an activation.
    fn encodings(&self, function: usize, weights: &[WeightId]) -> Vec<PlaintextId> {
        let plaintexts = self.functions[function].plaintexts.iter().enumerate();
        plaintexts.map(|(i, weight)| self.plaintexts.id(function, i, weight.resolve(weights))).collect()
    }
}

/// Splits the steps of a function at its calls, and into the runs of a memory plan.
fn items(function: &Function, id: FunctionId, residency: &Residency) -> Vec<Item> {
    let spans = residency.spans().iter().enumerate().filter(|(_, span)| span.function == id);
    let mut runs = spans.map(|(run, span)| (span.steps.start, RunId(run as u32))).peekable();
    let mut items = Vec::new();
    for (index, step) in function.steps.iter().enumerate() {
        match step {
            Step::Call { stage, function, args, results, weights } => {
                let (args, results, weights) = (args.clone(), results.clone(), weights.clone());
                items.push(Item::Call { stage: *stage, function: *function, args, results, weights });
            }
            Step::Start(_) | Step::Finish(_) => {}
            Step::Launch(_) => {
                items.extend(runs.next_if(|(start, _)| *start == index).map(|(_, run)| Item::Run(run)));
            }
        }
    }
    items
}
