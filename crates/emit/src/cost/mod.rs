//! How long kernels take on devices that are not at hand.
//!
//! A launch takes the time of being launched and that of the slowest of what the device does at once ([`Bound`]): moving bytes
//! from memory and from the L2 cache, multiplying, issuing instructions, exchanging words through shared memory. What is asked
//! of the device is counted from the kernels and from the launches that [`crate::cuda`] makes of them (`demand`); what it can
//! do are the rates of [`Gpu`], each with its origin.
//!
//! The program is walked in the order of its schedule with a model of the L2 cache, so that a limb that was just written is
//! read from there, and the halves of a transform exchange it there as long as their launch fits. A function is walked at its
//! first call, with nothing in the cache; all other calls are taken to cost the same.
//!
//! Programs of several devices are predicted for each of them, and then put together ([`timeline`]) with what their collectives
//! take ([`interconnect`]).

mod cache;
mod demand;
mod device;
mod group;
pub mod interconnect;
mod roofline;
#[cfg(test)]
mod tests;
pub mod timeline;

use std::collections::HashMap;

use cerium_artifact::cost::calls;
use cerium_artifact::kernel::Body;
use cerium_artifact::{
    Artifact, DeviceId, Function, FunctionId, Kernel, Movement, Operand, StageId, Step, WeightId, WeightRef,
};
use cerium_ckks::params::Params;

use crate::cuda::Emitter;
use cache::{Cache, Object};
use demand::{Item, demands};

pub use device::{Figure, GPUS, Gpu};
pub use group::{GroupPrediction, predict_group};
pub use interconnect::{Group, Link};
pub use roofline::{Bound, Time};
pub use timeline::{DeviceTimeline, Spent, Timeline};

/// The predicted time of the kernels of a device.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Every launch of every function.
    pub launches: Vec<PredictedLaunch>,
}

/// A launch of a function.
#[derive(Clone, Debug)]
pub struct PredictedLaunch {
    /// The function, an index into those of the artifact.
    pub function: FunctionId,
    /// Its step.
    pub step: usize,
    /// Which of the launches that the step's kernel becomes.
    pub part: usize,
    /// The function that is launched, its class before the underscore.
    pub entry: String,
    /// The stage.
    pub stage: StageId,
    /// How often a run of the program calls the function.
    pub calls: u64,
    /// Limbs that it makes or transforms.
    pub limbs: u64,
    /// The time of one.
    pub time: Time,
}

impl PredictedLaunch {
    /// The class of its kernel: `ntt`, for example.
    pub fn class(&self) -> &str {
        self.entry.rsplit_once('_').map_or(&self.entry, |(class, _)| class)
    }

    /// Seconds of all calls.
    pub fn seconds(&self) -> f64 {
        self.calls as f64 * self.time.seconds
    }
}

impl Prediction {
    /// Seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.sum(|_| true, PredictedLaunch::seconds)
    }

    /// Seconds of a run if moving data and computing never overlapped within a launch: the other end of what can be.
    pub fn seconds_apart(&self) -> f64 {
        self.sum(|_| true, |launch| launch.calls as f64 * launch.time.apart)
    }

    /// Launches of a run.
    pub fn count(&self) -> u64 {
        self.launches.iter().map(|launch| launch.calls).sum()
    }

    /// Bytes that memory moves in a run.
    pub fn dram_bytes(&self) -> u64 {
        self.launches.iter().map(|launch| launch.calls * launch.time.dram_bytes).sum()
    }

    /// Bytes that multiprocessors load and store in a run.
    pub fn l2_bytes(&self) -> u64 {
        self.launches.iter().map(|launch| launch.calls * launch.time.l2_bytes).sum()
    }

    /// Seconds of a stage over all calls.
    pub fn stage(&self, stage: StageId) -> f64 {
        self.sum(|launch| launch.stage == stage, PredictedLaunch::seconds)
    }

    /// Seconds of launches with this bound over all calls.
    pub fn bound(&self, bound: Bound) -> f64 {
        self.sum(|launch| launch.time.bound == bound, PredictedLaunch::seconds)
    }

    fn sum(&self, of: impl Fn(&PredictedLaunch) -> bool, value: fn(&PredictedLaunch) -> f64) -> f64 {
        self.launches.iter().filter(|launch| of(launch)).map(value).fold(0.0, |sum, seconds| sum + seconds)
    }
}

/// Predicts the time of a run of a validated artifact for one device under its parameters.
pub fn predict(artifact: &Artifact, params: &Params, gpu: &Gpu) -> Prediction {
    predict_device(artifact, params, gpu, DeviceId::default())
}

/// As [`predict`], for the kernels of any device of an artifact.
pub fn predict_device(artifact: &Artifact, params: &Params, gpu: &Gpu, device: DeviceId) -> Prediction {
    let functions = artifact.functions(device);
    let mut walk = Walk {
        functions,
        params,
        gpu,
        emitter: Emitter::new(params),
        cache: Cache::new((gpu.l2.value * gpu.l2_share.value) as u64),
        calls: calls(functions),
        walked: vec![false; functions.len()],
        launches: Vec::new(),
    };
    if let Some(entry) = functions.last() {
        let (args, results) = (entry.args.len() as u64, entry.results.len() as u64);
        let places = Places {
            frame: args + results,
            args: (0..args).collect(),
            results: (args..args + results).collect(),
            weights: Vec::new(),
        };
        walk.function(functions.len() - 1, &places);
    }
    Prediction { launches: walk.launches }
}

struct Walk<'a> {
    functions: &'a [Function],
    params: &'a Params,
    gpu: &'a Gpu,
    emitter: Emitter<'a>,
    cache: Cache,
    calls: Vec<u64>,
    walked: Vec<bool>,
    launches: Vec<PredictedLaunch>,
}

/// Where the limbs of an activation are, as slots of the pool, and its weights.
struct Places {
    frame: u64,
    args: Vec<u64>,
    results: Vec<u64>,
    weights: Vec<WeightId>,
}

impl Places {
    /// The slot of an operand that has one.
    fn slot(&self, operand: Operand) -> Option<u64> {
        match operand {
            Operand::Local(slot) => Some(self.frame + u64::from(slot)),
            Operand::Arg(index) => Some(self.args[index as usize]),
            Operand::Result(index) => Some(self.results[index as usize]),
            Operand::Plain { .. } | Operand::Key { .. } => None,
        }
    }

    fn weight(&self, weight: WeightRef) -> WeightId {
        match weight {
            WeightRef::Weight(id) => id,
            WeightRef::Param(index) => self.weights[index as usize],
        }
    }
}

impl Walk<'_> {
    fn function(&mut self, index: usize, places: &Places) {
        self.walked[index] = true;
        let function = &self.functions[index];
        for (number, step) in function.steps.iter().enumerate() {
            match step {
                Step::Launch(kernel) => self.kernel(index, number, kernel, places),
                Step::Start(collective) => self.receive(&collective.movement, places),
                Step::Finish(_) => {}
                Step::Call { function: callee, args, results, weights, .. } => {
                    let slots = |operands: &[Operand]| -> Vec<u64> {
                        operands.iter().filter_map(|&operand| places.slot(operand)).collect()
                    };
                    let inner = Places {
                        frame: places.frame + u64::from(function.frame),
                        args: slots(args),
                        results: slots(results),
                        weights: weights.iter().map(|&weight| places.weight(weight)).collect(),
                    };
                    self.cache.clear();
                    let callee = callee.0 as usize;
                    if !self.walked[callee] {
                        self.function(callee, &inner);
                    }
                }
            }
        }
    }

    /// What other devices write is in memory.
    fn receive(&mut self, movement: &Movement, places: &Places) {
        let slots: Vec<Operand> = match movement {
            Movement::Exchange { receives, .. } => receives.iter().map(|limb| limb.limb).collect(),
            Movement::AllReduce { limbs } => limbs.iter().map(|limb| limb.1).collect(),
        };
        let slots = slots.into_iter().filter_map(|operand| places.slot(operand));
        slots.for_each(|slot| self.cache.forget(Object::Slot(slot)));
    }

    fn kernel(&mut self, index: usize, step: usize, kernel: &Kernel, places: &Places) {
        let (function, log_n) = (&self.functions[index], self.params.log_n());
        let launches = self.emitter.emit(function, kernel);
        let inverse = matches!(kernel.body, Body::Intt(_));
        for (part, demand) in demands(function, &kernel.body, &launches, log_n).iter().enumerate() {
            let (mut dram, mut l2) = (0, 0.0);
            for access in &demand.accesses {
                let object = match access.item {
                    Item::Factors(prime) => Object::Factors(prime, inverse),
                    Item::Operand(Operand::Plain { plaintext, limb }) => {
                        let weight = places.weight(function.plaintexts[plaintext as usize].weight);
                        Object::Plain(index as u32, plaintext, limb, weight)
                    }
                    Item::Operand(Operand::Key { key, digit, half, prime }) => {
                        Object::Key(key, digit, half, prime)
                    }
                    Item::Operand(operand) => {
                        Object::Slot(places.slot(operand).expect("all other operands are slots"))
                    }
                };
                dram += match access.write {
                    true => self.cache.write(object, access.bytes),
                    false => self.cache.read(object, access.bytes),
                };
                l2 += access.times * access.bytes as f64;
            }
            let source = &self.emitter.sources()[launches[part].source.0 as usize];
            self.launches.push(PredictedLaunch {
                function: FunctionId(index as u32),
                step,
                part,
                entry: source.entry.clone(),
                stage: kernel.stage,
                calls: self.calls[index],
                limbs: kernel.body.blocks().count() as u64,
                time: roofline::time(self.gpu, demand, dram, l2 as u64),
            });
        }
    }
}

/// Launches of one function on the device, added up over the steps of a program: what a table of the largest kernels shows.
#[derive(Clone, Debug)]
pub struct KernelTotal<'a> {
    /// The function that is launched.
    pub entry: &'a str,
    /// The stage.
    pub stage: StageId,
    /// Launches of a run.
    pub launches: u64,
    /// Limbs of a run.
    pub limbs: u64,
    /// Seconds of a run.
    pub seconds: f64,
    /// Bytes that memory moves in a run.
    pub dram_bytes: u64,
    /// Bytes that multiprocessors load and store in a run.
    pub l2_bytes: u64,
    /// What bounds most of it.
    pub bound: Bound,
}

impl Prediction {
    /// The kernels of each stage, those that take most time first.
    pub fn kernels(&self) -> Vec<KernelTotal<'_>> {
        let mut groups: HashMap<(&str, StageId), Vec<&PredictedLaunch>> = HashMap::new();
        for launch in &self.launches {
            groups.entry((&launch.entry, launch.stage)).or_default().push(launch);
        }
        let mut totals: Vec<KernelTotal<'_>> = groups
            .into_iter()
            .map(|((entry, stage), launches)| {
                let sum = |value: &dyn Fn(&PredictedLaunch) -> u64| {
                    launches.iter().map(|launch| launch.calls * value(launch)).sum()
                };
                let seconds_of = |bound: Bound| -> f64 {
                    let bounded = launches.iter().filter(|launch| launch.time.bound == bound);
                    bounded.map(|launch| launch.seconds()).sum()
                };
                let bound = Bound::ALL.into_iter().max_by(|&a, &b| seconds_of(a).total_cmp(&seconds_of(b)));
                KernelTotal {
                    entry,
                    stage,
                    launches: sum(&|_| 1),
                    limbs: sum(&|launch| launch.limbs),
                    seconds: launches.iter().map(|launch| launch.seconds()).sum(),
                    dram_bytes: sum(&|launch| launch.time.dram_bytes),
                    l2_bytes: sum(&|launch| launch.time.l2_bytes),
                    bound: bound.expect("there are bounds"),
                }
            })
            .collect();
        totals.sort_by(|a, b| {
            b.seconds.total_cmp(&a.seconds).then(a.entry.cmp(b.entry)).then(a.stage.cmp(&b.stage))
        });
        totals
    }
}
