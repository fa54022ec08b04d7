//! The noise estimate: for every output of a placed program, the standard deviation of a slot's error.
//!
//! Errors that the scheme adds are those of the canonical embedding (Cheon, Kim, Kim and Song, Asiacrypt 2017; Costache,
//! Curtis, Hales, Murphy, Ogilvie and Player, "On the precision loss in approximate homomorphic encryption", 2022): a
//! polynomial whose coefficients have variance v has slots of variance `N v`. How a program carries errors on depends on its
//! messages and on how the errors of its values hang together, which bounds value by value get wrong by orders of magnitude.
//! So the program is run on clear slots, as it is and with errors drawn from the model at every operation, and the results
//! are compared. The draws are fixed: compilation is reproducible.

use std::f64::consts::TAU;
use std::sync::Arc;

use cerium_ckks::basis::Level;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::{Params, SPARSE_WEIGHT};
use num_complex::Complex64;

use super::interpret::Perturb;
use super::{Function, Interpreter, Module, Op, Placement, Slots, Type};
use crate::ir::Node;
use crate::polynomial::digits_in;

/// A promise is this many standard deviations. The slots of rounding errors are complex Gaussian to good approximation, those
/// of the secret too, and most errors are products of the two: such a product exceeds t standard deviations with probability
/// `2t K_1(2t)` (the product of two Rayleigh variables), 2.3e-10 for t = 12 and one slot, below 2^-16 for 2^16 slots.
pub const PROMISE: f64 = 12.0;

/// The largest of a few thousand Gaussian draws is about this many standard deviations: an output whose largest error
/// exceeds that has slots of very different errors, and the largest one counts.
const LARGEST: f64 = 4.0;

/// Noisy runs of each sample.
const DRAWS: u64 = 2;

/// Standard deviation of the error distribution of keys and encryptions.
const SIGMA: f64 = 3.19;

/// Estimated errors of a program, in units of slots.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseReport {
    /// Standard deviation of a slot's error, for each output: over the slots that hold an element.
    pub outputs: Vec<f64>,
    /// The same for the last ciphertext of each stage, over all slots; 0 for a stage without one.
    pub stages: Vec<f64>,
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
    for (index, inputs) in samples.iter().enumerate() {
        let expected = ideal.run(inputs);
        for draw in 0..DRAWS {
            let seed = index as u64 * DRAWS + draw;
            let clean = run(&interpreter, module, inputs, &mut Raises::new(&module.context.params, seed));
            let mut errors = Errors::new(&module.context.params, seed);
            let entry = module.entry();
            let mut fresh = inputs.clone();
            for (value, slots) in entry.params().zip(&mut fresh) {
                let at = entry.type_of(value).placement().expect("the entry takes placed ciphertexts");
                errors.add(slots, errors.fresh(at));
            }
            let noisy = run(&interpreter, module, &fresh, &mut errors);
            for (i, deviation) in outputs.iter_mut().enumerate() {
                let pairs = expected[i].iter().zip(&noisy.outputs[i]).enumerate();
                pairs.filter(|(slot, _)| counts(i, *slot)).for_each(|(_, (a, b))| deviation.observe(a - b));
            }
            for (deviation, (a, b)) in stages.iter_mut().zip(clean.stages.iter().zip(&noisy.stages)) {
                a.iter().zip(b).for_each(|(a, b)| deviation.observe(a - b));
            }
        }
    }
    let estimates = |deviations: Vec<Deviation>| deviations.iter().map(Deviation::estimate).collect();
    NoiseReport { outputs: estimates(outputs), stages: estimates(stages) }
}

/// What a run made: outputs, and the last ciphertext of each stage.
struct Run {
    outputs: Vec<Slots>,
    stages: Vec<Slots>,
}

fn run(interpreter: &Interpreter<'_>, module: &Module, inputs: &[Slots], errors: &mut dyn Perturb) -> Run {
    let mut stages = vec![Slots::new(); module.stages.len()];
    let outputs = interpreter.run_perturbed(inputs, errors, &mut |node, _, slots| {
        let last = &mut stages[node.stage.0 as usize];
        last.clear();
        last.extend_from_slice(slots);
    });
    Run { outputs, stages }
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

/// Draws the integers that raising the modulus uncovers.
struct Raises {
    encoder: Encoder,
    random: SplitMix,
}

impl Raises {
    fn new(params: &Params, seed: u64) -> Self {
        Raises { encoder: Encoder::new(params), random: SplitMix(!seed) }
    }
}

impl Perturb for Raises {
    /// A coefficient is the nearest integer to `(c0 + c1 s) / Q_0`, a sum of as many uniform numbers as the sparse secret
    /// has coefficients, and one.
    fn raise(&mut self, slots: &mut Slots) {
        let mut integer = || {
            let sum: f64 = (0..=SPARSE_WEIGHT).map(|_| self.random.uniform() - 0.5).sum();
            sum.round()
        };
        let coefficients: Vec<f64> = (0..2 * slots.len()).map(|_| integer()).collect();
        let raised = self.encoder.evaluate(&coefficients);
        slots.iter_mut().zip(raised).for_each(|(slot, integer)| *slot += integer);
    }
}

/// The generator SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Draws the errors that the scheme adds to slots.
struct Errors<'a> {
    params: &'a Params,
    n: f64,
    /// Expected squared norm of the secret: its Hamming weight.
    weight: f64,
    /// Complex Gaussian numbers of unit variance, read from a random start for each error.
    table: Vec<Complex64>,
    random: SplitMix,
    raises: Raises,
}

impl<'a> Errors<'a> {
    fn new(params: &'a Params, seed: u64) -> Self {
        let n = params.n() as f64;
        let (random, raises) = (SplitMix(seed), Raises::new(params, seed));
        let mut errors = Errors { params, n, weight: n / 2.0, table: Vec::new(), random, raises };
        // Box and Muller's transform; E|z|^2 = 1.
        let gaussian = |errors: &mut Self| {
            let radius = (-(1.0 - errors.random.uniform()).ln()).sqrt();
            Complex64::from_polar(radius, TAU * errors.random.uniform())
        };
        let table = (0..(1 << 14) + 3).map(|_| gaussian(&mut errors)).collect();
        Errors { table, ..errors }
    }

    /// Adds an error of this standard deviation to every slot.
    fn add(&mut self, slots: &mut [Complex64], deviation: f64) {
        let start = (self.random.uniform() * self.table.len() as f64) as usize;
        let draws = self.table.iter().cycle().skip(start);
        slots.iter_mut().zip(draws).for_each(|(slot, draw)| *slot += deviation * draw);
    }

    /// A public-key encryption, `v * e + e0 + e1 * s` with v as heavy as the secret, and the rounding of its message.
    fn fresh(&self, at: Placement) -> f64 {
        let variance = SIGMA * SIGMA * (2.0 * self.weight + 1.0) + 1.0 / 12.0;
        (self.n * variance).sqrt() / at.scale.0
    }

    /// Rounding the polynomials of a ciphertext, one of which meets the secret, and a third one its square.
    fn rescale(&self, at: Placement) -> f64 {
        let secret = if at.size == 3 { self.weight + self.weight * self.weight } else { self.weight };
        (self.n * (1.0 + secret) / 12.0).sqrt() / at.scale.0
    }

    /// Rounding after the switch to the sparse secret and after that back; the products with the errors of both keys vanish
    /// beside their moduli.
    fn mod_raise(&self, scale: f64) -> f64 {
        let weights = SPARSE_WEIGHT as f64 + self.weight;
        (self.n * (2.0 + weights) / 12.0).sqrt() / scale
    }

    /// A key switch: each digit times an error, divided by P, and the rounding of `mod_down`.
    fn key_switch(&self, level: Level, scale: f64) -> f64 {
        let digits = digits_in(self.params, self.params.basis(level));
        let log_p = self.params.log_p();
        let inner: f64 = digits
            .map(|(_, part)| {
                let ratio = (self.params.log_product(part) - log_p).exp2();
                self.n * SIGMA * SIGMA * ratio * ratio / 12.0
            })
            .sum();
        (self.n * (inner + (1.0 + self.weight) / 12.0)).sqrt() / scale
    }
}

/// Rounding the coefficients of a plaintext of this period: of its 2p coefficients, the others being zero.
fn rounding(period: usize, scale: f64) -> f64 {
    (2.0 * period as f64 / 12.0).sqrt() / scale
}

impl Perturb for Errors<'_> {
    fn raise(&mut self, slots: &mut Slots) {
        self.raises.raise(slots);
    }

    fn cipher(&mut self, function: &Function, node: &Node<Op>, slots: &mut Arc<Slots>) {
        let at =
            function.type_of(node.result()).placement().expect("placed functions have placed ciphertexts");
        let deviation = match &node.op {
            Op::Rotate { .. } | Op::Conjugate { .. } | Op::Relinearize { .. } => {
                self.key_switch(at.level, at.scale.0)
            }
            Op::Rescale { .. } => self.rescale(at),
            Op::ModRaise { .. } => self.mod_raise(at.scale.0),
            Op::Adjust { .. } => {
                // The constant that makes the scale exact is rounded as well.
                let largest = slots.iter().fold(0.0f64, |m, x| m.max(x.norm()));
                let constant = largest * 16.0 / self.params.scale(at.level).0;
                self.rescale(at).hypot(constant)
            }
            Op::MulConst { value, scale, .. } if value.0.fract() != 0.0 => {
                let scale = scale.map_or(1.0, |s| s.0);
                let largest = slots.iter().fold(0.0f64, |m, x| m.max(x.norm()));
                0.5 / scale * largest / value.0.abs()
            }
            _ => return,
        };
        let slots: &mut Slots = Arc::make_mut(slots);
        self.add(slots, deviation);
    }

    fn plain(&mut self, function: &Function, node: &Node<Op>, slots: &mut Arc<Slots>) {
        let Type::Encoded { scale, .. } = function.type_of(node.result()) else { return };
        let slots: &mut Slots = Arc::make_mut(slots);
        match slots.as_mut_slice() {
            // The two coefficients of a constant are its parts: many are exact.
            [z] => {
                let rounded = |part: f64| (part * scale.0).round_ties_even() / scale.0;
                *z = Complex64::new(rounded(z.re), rounded(z.im));
            }
            slots => {
                let deviation = rounding(slots.len(), scale.0);
                self.add(slots, deviation);
            }
        }
    }
}
