//! The executor: walks the functions of a program, places their frames and hands runs of kernels to a device.
//!
//! The pool is `[argument limbs of the entry][result limbs of the entry][frames]`, where frames form a stack: a
//! callee's frame begins where its caller's ends. Everything is known before the first launch; execution only
//! adds offsets.

use std::ops::Range;

use cerium_artifact::{Artifact, Function, FunctionId, Operand, Step, WeightId, WeightRef};

use crate::device::{Address, Bindings, Device, DeviceError, Run, RunId};
use crate::memory::PlaintextPlan;

/// The control structure of a program: what remains when the contents of kernels are left to a device.
#[derive(Clone, Debug)]
pub struct Schedule {
    functions: Vec<ScheduledFunction>,
    /// Function and steps of each run.
    runs: Vec<(FunctionId, Range<usize>)>,
    plaintexts: PlaintextPlan,
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
    Call { function: FunctionId, args: Vec<Operand>, results: Vec<Operand>, weights: Vec<WeightRef> },
}

impl Schedule {
    /// The schedule of a validated artifact.
    ///
    /// # Panics
    /// May panic if [`Artifact::validate`] does not accept it.
    pub fn new(artifact: &Artifact, plaintexts: &PlaintextPlan) -> Schedule {
        let mut runs = Vec::new();
        let mut functions = Vec::with_capacity(artifact.functions.len());
        for (index, function) in artifact.functions.iter().enumerate() {
            functions.push(ScheduledFunction {
                frame: function.frame,
                items: items(function, FunctionId(index as u32), &mut runs),
                plaintexts: function.plaintexts.iter().map(|plaintext| plaintext.weight).collect(),
            });
        }
        let entry = artifact.entry().expect("a validated artifact has an entry");
        let (args, results) = (entry.args.len() as u32, entry.results.len() as u32);
        let frames = artifact.peak_frames().last().copied().unwrap_or(0);
        let limbs = frames + u64::from(args) + u64::from(results);
        Schedule { functions, runs, plaintexts: plaintexts.clone(), args, results, limbs }
    }

    /// The runs of the artifact that this schedule was made of, by [`RunId`].
    pub fn runs<'a>(&self, artifact: &'a Artifact) -> Vec<Run<'a>> {
        let run = |(function, steps): &(FunctionId, Range<usize>)| {
            let function = &artifact.functions[function.0 as usize];
            let kernels = function.steps[steps.clone()].iter().filter_map(|step| match step {
                Step::Launch(kernel) => Some(kernel),
                Step::Call { .. } => None,
            });
            Run { function, kernels: kernels.collect() }
        };
        self.runs.iter().map(run).collect()
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
            frame: Address(self.args + self.results),
            args: self.inputs().collect(),
            results: self.outputs().collect(),
            plaintexts: self.plaintexts(entry, &[]),
        };
        self.activate(entry, bindings, &[], device)?;
        device.synchronise()
    }

    fn activate(
        &self,
        index: usize,
        bindings: Bindings,
        weights: &[WeightId],
        device: &mut dyn Device,
    ) -> Result<(), DeviceError> {
        let function = &self.functions[index];
        for item in &function.items {
            match item {
                Item::Run(run) => device.launch(*run, &bindings)?,
                Item::Call { function: callee, args, results, weights: bound } => {
                    let callee = callee.0 as usize;
                    let bound: Vec<WeightId> = bound.iter().map(|&weight| resolve(weight, weights)).collect();
                    let inner = Bindings {
                        frame: Address(bindings.frame.0 + function.frame),
                        args: args.iter().map(|&operand| bindings.slot(operand)).collect(),
                        results: results.iter().map(|&operand| bindings.slot(operand)).collect(),
                        plaintexts: self.plaintexts(callee, &bound),
                    };
                    self.activate(callee, inner, &bound, device)?;
                }
            }
        }
        Ok(())
    }

    /// The encoded plaintexts of an activation.
    fn plaintexts(&self, function: usize, weights: &[WeightId]) -> Vec<crate::memory::PlaintextId> {
        let plaintexts = self.functions[function].plaintexts.iter().enumerate();
        plaintexts.map(|(i, &weight)| self.plaintexts.id(function, i, resolve(weight, weights))).collect()
    }
}

/// Splits the steps of a function at its calls.
fn items(function: &Function, id: FunctionId, runs: &mut Vec<(FunctionId, Range<usize>)>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut start = 0;
    let mut close = |range: Range<usize>, items: &mut Vec<Item>| {
        if !range.is_empty() {
            items.push(Item::Run(RunId(runs.len() as u32)));
            runs.push((id, range));
        }
    };
    for (index, step) in function.steps.iter().enumerate() {
        if let Step::Call { function, args, results, weights } = step {
            close(start..index, &mut items);
            start = index + 1;
            let (args, results, weights) = (args.clone(), results.clone(), weights.clone());
            items.push(Item::Call { function: *function, args, results, weights });
        }
    }
    close(start..function.steps.len(), &mut items);
    items
}

fn resolve(weight: WeightRef, bound: &[WeightId]) -> WeightId {
    match weight {
        WeightRef::Weight(id) => id,
        WeightRef::Param(index) => bound[index as usize],
    }
}
