//! The noise estimate: for every output of a placed program, the standard deviation of a slot's error.
//!
//! Errors that the scheme adds are those of the canonical embedding (Cheon, Kim, Kim and Song, Asiacrypt 2017; Costache,
//! Curtis, Hales, Murphy, Ogilvie and Player, "On the precision loss in approximate homomorphic encryption", 2022): a
//! polynomial whose coefficients have variance v has slots of variance `N v`. How a program carries errors on depends on its
//! messages and on how the errors of its values hang together, which bounds value by value get wrong by orders of magnitude.
//! So the program is run on clear slots, as it is and with errors drawn from the model at every operation, and the results
//! are compared. The draws are fixed: compilation is reproducible.
//!
//! Layers are run at every call, for what they do to errors depends on their weights and messages. A bootstrap, which would take
//! most of the time, does the same at every call: it is run until its response is known ([`bootstraps`]).

mod bootstraps;
mod errors;

use std::sync::Arc;

use num_complex::Complex64;

use super::interpret::Perturb;
use super::{Interpreter, Module, Slots};
use bootstraps::{Bootstraps, Clean, Noisy};
use errors::{Errors, Raises};

/// A promise is this many standard deviations. The slots of rounding errors are complex Gaussian to good approximation, those
/// of the secret too, and most errors are products of the two: such a product exceeds t standard deviations with probability
/// `2t K_1(2t)` (the product of two Rayleigh variables), 2.3e-10 for t = 12 and one slot, below 2^-16 for 2^16 slots.
pub const PROMISE: f64 = 12.0;

/// The largest of a few thousand Gaussian draws is about this many standard deviations: an output whose largest error
/// exceeds that has slots of very different errors, and the largest one counts.
const LARGEST: f64 = 4.0;

/// Noisy runs of each sample.
const DRAWS: u64 = 2;

/// After so many operations the slots that were seen are enough.
const MANY: usize = 30_000;

/// Estimated errors of a program, in units of slots.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseReport {
    /// Standard deviation of a slot's error, for each output: over the slots that hold an element.
    pub outputs: Vec<f64>,
    /// The same for the last ciphertext of each stage, over all slots; 0 for a stage without one.
    pub stages: Vec<f64>,
    /// Operations on ciphertexts that were run, over all runs: the work done.
    pub operations: usize,
}

/// Estimates the errors of a placed program whose inputs are fresh public-key encryptions, against those of `source`, the
/// program as it was written. `samples` holds input slots of typical runs, at least one; `counts(output, slot)` says whether a
/// slot of an output has a meaning.
pub fn estimate(
    source: &Module,
    module: &Module,
    samples: &[Vec<Slots>],
    counts: impl Fn(usize, usize) -> bool,
) -> NoiseReport {
    assert!(!samples.is_empty(), "an estimate needs at least one sample");
    let (ideal, interpreter) = (Interpreter::new(source), Interpreter::new(module));
    let mut outputs = vec![Deviation::default(); module.entry().results.len()];
    let mut stages = vec![Deviation::default(); module.stages.len()];
    let mut operations = 0;
    let params = &module.context.params;
    let mut bootstraps = Bootstraps::new(params);
    'runs: for (index, inputs) in samples.iter().enumerate() {
        let expected = ideal.run(inputs);
        for draw in 0..DRAWS {
            if operations > MANY {
                break 'runs;
            }
            let seed = index as u64 * DRAWS + draw;
            let mut raises = Clean { bootstraps: &mut bootstraps, raises: Raises::new(params, seed) };
            let clean = run(&interpreter, module, inputs, &mut raises);
            let mut errors = Errors::new(params, seed);
            let entry = module.entry();
            let mut fresh = inputs.clone();
            for (value, slots) in entry.params().zip(&mut fresh) {
                let at = entry.type_of(value).placement().expect("the entry takes placed ciphertexts");
                errors.add(slots, errors.fresh(at));
            }
            let mut errors = Noisy { bootstraps: &mut bootstraps, errors };
            let noisy = run(&interpreter, module, &fresh, &mut errors);
            operations += clean.operations + noisy.operations;
            for (i, deviation) in outputs.iter_mut().enumerate() {
                let pairs = expected[i].iter().zip(&noisy.outputs[i]).enumerate();
                pairs.filter(|(slot, _)| counts(i, *slot)).for_each(|(_, (a, b))| deviation.observe(a - b));
            }
            for (deviation, (a, b)) in stages.iter_mut().zip(clean.stages.iter().zip(&noisy.stages)) {
                a.iter().zip(b.iter()).for_each(|(a, b)| deviation.observe(a - b));
            }
        }
    }
    let estimates = |deviations: Vec<Deviation>| deviations.iter().map(Deviation::estimate).collect();
    NoiseReport { outputs: estimates(outputs), stages: estimates(stages), operations }
}

/// What a run made: outputs, and the last ciphertext of each stage.
struct Run {
    outputs: Vec<Slots>,
    stages: Vec<Arc<Slots>>,
    operations: usize,
}

fn run(interpreter: &Interpreter<'_>, module: &Module, inputs: &[Slots], errors: &mut dyn Perturb) -> Run {
    let mut stages = vec![Arc::default(); module.stages.len()];
    let mut operations = 0;
    let outputs = interpreter.run_perturbed(inputs, errors, &mut |node, _, slots| {
        stages[node.stage.0 as usize] = Arc::clone(slots);
        operations += 1;
    });
    Run { outputs, stages, operations }
}

/// Statistics of differences.
#[derive(Clone, Copy, Default)]
struct Deviation {
    squares: f64,
    count: f64,
    largest: f64,
}

impl Deviation {
    fn observe(&mut self, difference: Complex64) {
        let square = difference.norm_sqr();
        self.squares += square;
        self.count += 1.0;
        self.largest = self.largest.max(square);
    }

    fn estimate(&self) -> f64 {
        (self.squares / self.count.max(1.0)).sqrt().max(self.largest.sqrt() / LARGEST)
    }
}
