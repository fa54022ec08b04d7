//! How long a program takes on the processor of this machine.
//!
//! What a kernel asks for is counted from its blocks ([`Demand`]); how long each of it takes is measured ([`Speed`]). Programs
//! before and after transforms and conversions are counted like elementwise kernels, so that words which never leave a cache
//! cost what they cost there, and keys what memory takes to deliver them. Threads are taken to share all work evenly. The ranks of
//! a program for several devices share the threads, and hand limbs to each other between kernels.

use std::ops::AddAssign;

use cerium_artifact::cost::calls;
use cerium_artifact::kernel::{Block, Body, Kernel};
use cerium_artifact::{Artifact, Function, Operand, StageId, Step};
use cerium_ckks::params::Params;
use cerium_emit::cost::{DeviceTimeline, Group, Spent, Timeline};
use cerium_runtime::KernelClass;

use crate::speed::Speed;

/// Seconds of a run by stage: of one that was predicted, or of one that was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageSeconds {
    /// Kernels of the entry, by their stage.
    entry: Vec<f64>,
    /// Kernels of functions, by their stage.
    functions: Vec<f64>,
    /// Kernels of functions, by the stage of the entry that called the function.
    called: Vec<f64>,
}

impl StageSeconds {
    /// What a device spends, with kernels and without.
    pub(crate) fn of_device(timeline: &DeviceTimeline) -> StageSeconds {
        let seconds = |table: &[Spent]| table.iter().map(Spent::seconds).collect();
        StageSeconds {
            entry: seconds(&timeline.entry),
            functions: seconds(&timeline.functions),
            called: seconds(&timeline.called),
        }
    }

    /// As measured: kernels of the entry, kernels of functions, and what each stage of the entry called, by stage.
    pub(crate) fn measured(entry: Vec<f64>, functions: Vec<f64>, called: Vec<f64>) -> StageSeconds {
        StageSeconds { entry, functions, called }
    }

    /// Kernels of a stage of the entry and of the functions that it calls.
    pub(crate) fn layer(&self, stage: StageId) -> f64 {
        self.entry[usize::from(stage.0)] + self.called(stage)
    }

    /// Kernels of the functions that a stage of the entry calls.
    pub(crate) fn called(&self, stage: StageId) -> f64 {
        self.called[usize::from(stage.0)]
    }

    /// Kernels of a stage that are in functions.
    pub(crate) fn function(&self, stage: StageId) -> f64 {
        self.functions[usize::from(stage.0)]
    }

    /// All kernels.
    pub(crate) fn total(&self) -> f64 {
        self.entry.iter().chain(&self.functions).fold(0.0, |sum, seconds| sum + seconds)
    }
}

/// The predicted time of a run on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Prediction {
    /// By stage, of the rank that ends last.
    pub(crate) stages: StageSeconds,
    /// By class, in the order of [`KernelClass::ALL`], of the rank that ends last.
    classes: [f64; KernelClass::ALL.len()],
    /// The ranks, one if the program is for one device.
    pub(crate) group: Group,
    /// When they do what.
    pub(crate) timeline: Timeline,
}

impl Prediction {
    /// Predicts a run of a validated artifact on as many threads as the speed was measured with, which its devices share.
    pub(crate) fn new(artifact: &Artifact, params: &Params, speed: &Speed) -> Prediction {
        let ranks = artifact.programs.len();
        let threads = speed.threads as f64 / ranks as f64;
        let once = |function: &Function, step: &Step| match step {
            Step::Launch(kernel) => {
                let class = KernelClass::of(&kernel.body);
                let demand = Demand::of(kernel, function, params.log_n());
                (class, demand.seconds(class, speed) / threads)
            }
            Step::Call { .. } | Step::Start(_) | Step::Finish(_) => (KernelClass::Elementwise, 0.0),
        };
        let launches: Vec<Vec<Vec<(KernelClass, f64)>>> = artifact
            .programs
            .iter()
            .map(|program| {
                let of = |function: &Function| -> Vec<_> {
                    function.steps.iter().map(|step| once(function, step)).collect()
                };
                program.iter().map(of).collect()
            })
            .collect();
        let group = Group::threads(ranks, 1.0 / speed.hand_byte, speed.wake);
        let timeline = Timeline::new(artifact, &group, params.log_n(), |device, function, step| {
            launches[device.index()][function][step].1
        });
        let last = timeline.last();
        let mut classes = [0.0; KernelClass::ALL.len()];
        for (function, calls) in launches[last].iter().zip(calls(&artifact.programs[last])) {
            for &(class, seconds) in function {
                classes[class as usize] += calls as f64 * seconds;
            }
        }
        let stages = StageSeconds::of_device(&timeline.devices[last]);
        Prediction { stages, classes, group, timeline }
    }

    /// Seconds of a run.
    pub(crate) fn total(&self) -> f64 {
        self.stages.total()
    }

    /// Seconds of the kernels of a class.
    pub(crate) fn class(&self, class: KernelClass) -> f64 {
        self.classes[class as usize]
    }
}

/// What kernels ask of a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Demand {
    /// Butterflies of transforms.
    butterflies: f64,
    /// Multiplications of base conversions.
    conversions: f64,
    /// Bytes of limbs that programs load and store.
    limb_bytes: f64,
    /// Bytes of keys and plaintexts that they load.
    memory_bytes: f64,
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Demand) {
        self.butterflies += other.butterflies;
        self.conversions += other.conversions;
        self.limb_bytes += other.limb_bytes;
        self.memory_bytes += other.memory_bytes;
    }
}

impl Demand {
    /// What one launch of a kernel of `function` asks for, in a ring of degree `2^log_n`.
    fn of(kernel: &Kernel, function: &Function, log_n: u32) -> Demand {
        let n = f64::from(1u32 << log_n);
        let mut demand = Demand::default();
        match &kernel.body {
            Body::Elementwise { .. } => {}
            Body::Ntt(transform) => {
                demand.butterflies = transform.blocks.len() as f64 * n / 2.0 * f64::from(log_n);
            }
            Body::Intt(transform) => {
                // Every word is multiplied once more.
                demand.butterflies = transform.blocks.len() as f64 * (n / 2.0 * f64::from(log_n) + n);
            }
            Body::BaseConvert { blocks, .. } => {
                let products = |sources: usize, targets: usize| (sources + (sources + 1) * targets) as f64;
                let all = blocks.iter().map(|block| products(block.sources.len(), block.targets.len()));
                demand.conversions = n * all.sum::<f64>();
            }
        }
        // The limb itself, in place, is part of a transform or a conversion.
        let own = match &kernel.body {
            Body::Elementwise { .. } => 0.0,
            Body::Ntt(_) | Body::Intt(_) => 2.0,
            Body::BaseConvert { .. } => 1.0,
        };
        for block in kernel.body.blocks() {
            demand += Demand::of_program(block, function, n);
            demand.limb_bytes -= 4.0 * n * own;
        }
        demand.limb_bytes = demand.limb_bytes.max(0.0);
        demand
    }

    /// The loads and stores of a block.
    fn of_program(block: &Block, function: &Function, n: f64) -> Demand {
        let mut demand = Demand { limb_bytes: 4.0 * n * block.stores.len() as f64, ..Demand::default() };
        for load in &block.loads {
            match load {
                Operand::Key { .. } => demand.memory_bytes += 4.0 * n,
                Operand::Plain { plaintext, .. } => {
                    let log_period = function.plaintexts[*plaintext as usize].log_period;
                    demand.memory_bytes += f64::from(8u32 << log_period);
                }
                Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => demand.limb_bytes += 4.0 * n,
            }
        }
        demand
    }

    /// Seconds on one thread.
    fn seconds(&self, class: KernelClass, speed: &Speed) -> f64 {
        let butterfly = if class == KernelClass::Intt { speed.intt } else { speed.ntt };
        butterfly * self.butterflies
            + speed.base_convert * self.conversions
            + speed.limb_byte * self.limb_bytes
            + speed.memory_byte * self.memory_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cerium_compiler::ciphertext::BootstrapKind;
    use cerium_compiler::ir::Trace;
    use cerium_compiler::{CompileOptions, bootstrap, compile};

    /// Stages, layers and classes are three ways to look at the same kernels.
    #[test]
    fn the_parts_of_a_prediction_are_the_whole() {
        let params = Params::named_insecure("insecure-boot-40").expect("a set");
        let source = bootstrap::program(&params, BootstrapKind::Complex, params.log_n() - 1);
        let artifact =
            compile(&source, &CompileOptions::default(), &mut Trace::default()).expect("it compiles");
        let unit = Speed {
            ntt: 1.0,
            intt: 1.0,
            base_convert: 1.0,
            limb_byte: 1.0,
            memory_byte: 1.0,
            hand_byte: 1.0,
            wake: 1.0,
            threads: 1,
        };
        let prediction = Prediction::new(&artifact, &params, &unit);
        let ids = || (0..artifact.stages.len()).map(|index| StageId(index as u16));
        let is_all = |sum: f64| (sum / prediction.total() - 1.0).abs() < 1e-9;
        assert!(prediction.total() > 0.0);
        assert!(is_all(ids().map(|id| prediction.stages.layer(id)).sum()));
        assert!(is_all(KernelClass::ALL.map(|class| prediction.class(class)).iter().sum()));
        let called: f64 = ids().map(|id| prediction.stages.called(id)).sum();
        let functions: f64 = ids().map(|id| prediction.stages.function(id)).sum();
        assert!(called > 0.0 && (called / functions - 1.0).abs() < 1e-9);
        // Twice as many threads take half the time; what is free costs nothing.
        let half = Prediction::new(&artifact, &params, &Speed { threads: 2, ..unit });
        assert!((2.0 * half.total() / prediction.total() - 1.0).abs() < 1e-9);
        let transforms = Speed { base_convert: 0.0, limb_byte: 0.0, memory_byte: 0.0, ..unit };
        let transforms = Prediction::new(&artifact, &params, &transforms);
        assert_eq!(transforms.class(KernelClass::Elementwise), 0.0);
        assert!(transforms.class(KernelClass::Ntt) > transforms.class(KernelClass::Intt));
    }

    #[test]
    fn programs_ask_for_limbs_and_for_memory() {
        use cerium_artifact::kernel::{Half, Instruction, Program};
        use cerium_ckks::basis::PrimeIndex;
        let key = Operand::Key { key: 0, digit: 0, half: Half::A, prime: PrimeIndex(0) };
        let block = Block {
            prime: PrimeIndex(0),
            loads: vec![Operand::Arg(0), key],
            stores: vec![Operand::Result(0)],
            scalars: vec![],
            galois: vec![],
        };
        let instructions = vec![Instruction::Load(0), Instruction::Load(1), Instruction::MontMul(0, 1)];
        let program = Program { instructions, results: vec![2] };
        let body = Body::Elementwise { program, blocks: vec![block.clone(), block] };
        let function = Function {
            name: "main".into(),
            args: vec![PrimeIndex(0)],
            results: vec![PrimeIndex(0)],
            weight_params: 0,
            plaintexts: vec![],
            frame: 0,
            steps: vec![],
        };
        let demand = Demand::of(&Kernel { stage: StageId(0), body }, &function, 10);
        let expected = Demand { limb_bytes: 2.0 * 8192.0, memory_bytes: 2.0 * 4096.0, ..Demand::default() };
        assert_eq!(demand, expected);
    }
}
