//! The static noise estimate: for every value of a placed program, the standard deviation of a slot's error.
//!
//! Errors of encryption, key switching, rescaling and encoding are those of the canonical embedding (Cheon, Kim, Kim and
//! Song, Asiacrypt 2017; Costache, Curtis, Hales, Murphy, Ogilvie and Player, "On the precision loss in approximate
//! homomorphic encryption", 2022): a polynomial whose coefficients have variance v has slots of variance `N v`. How
//! errors grow in products depends on the messages; their magnitudes are taken from a run of the clear interpreter on
//! sample inputs.

use cerium_ckks::basis::Level;
use cerium_ckks::params::Params;

use super::{Function, Interpreter, Module, Op, Placement, Slots, Type};
use crate::ir::{Node, ValueId};
use crate::polynomial::digits_in;

/// A promise is this many standard deviations. The slots of rounding errors are complex Gaussian to good approximation, those
/// of the secret too, and most errors are products of the two: such a product exceeds t standard deviations with probability
/// `2t K_1(2t)` (the product of two Rayleigh variables), 2.3e-10 for t = 12 and one slot, below 2^-16 for 2^16 slots.
pub const PROMISE: f64 = 12.0;

/// Standard deviation of the error distribution of keys and encryptions.
const SIGMA: f64 = 3.19;

/// Estimated errors of a program, in units of slots.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseReport {
    /// Standard deviation of a slot's error, for each output.
    pub outputs: Vec<f64>,
    /// The same for the last ciphertext of each stage; 0 for a stage without one.
    pub stages: Vec<f64>,
}

/// Estimates the errors of a placed program whose inputs are fresh public-key encryptions; `samples` holds input slots of
/// typical runs, at least one.
pub fn estimate(module: &Module, samples: &[Vec<Slots>]) -> NoiseReport {
    assert!(!samples.is_empty(), "magnitudes need at least one sample");
    let magnitudes = magnitudes(module, samples);
    let mut walk = Walk {
        module,
        model: Model::new(&module.context.params),
        magnitudes,
        next: 0,
        stages: vec![0.0; module.stages.len()],
    };
    let entry = module.entry();
    let args = entry.params().enumerate().map(|(i, v)| {
        let at = entry.type_of(v).placement().expect("the entry takes placed ciphertexts");
        let largest = samples.iter().flat_map(|s| &s[i]).fold(0.0f64, |m, x| m.max(x.norm()));
        let error = walk.model.fresh(at) + walk.model.rounding(at.scale.0);
        Error { error, magnitude: largest, independent: false }
    });
    let args = args.collect();
    let outputs = walk.call(entry, args).iter().map(|e| e.error).collect();
    NoiseReport { outputs, stages: walk.stages }
}

/// The largest magnitude of a slot, for every ciphertext operation in order of execution.
fn magnitudes(module: &Module, samples: &[Vec<Slots>]) -> Vec<f64> {
    let interpreter = Interpreter::new(module);
    let mut largest: Vec<f64> = Vec::new();
    for inputs in samples {
        let mut next = 0;
        interpreter.run_observed(inputs, &mut |_, _, slots| {
            let magnitude = slots.iter().fold(0.0f64, |m, x| m.max(x.norm_sqr())).sqrt();
            match largest.get_mut(next) {
                Some(known) => *known = known.max(magnitude),
                None => largest.push(magnitude),
            }
            next += 1;
        });
    }
    largest
}

/// Standard deviations that the scheme itself adds, in slots.
struct Model<'a> {
    params: &'a Params,
    n: f64,
    /// Expected squared norm of the secret: its Hamming weight.
    weight: f64,
}

impl<'a> Model<'a> {
    fn new(params: &'a Params) -> Self {
        let n = params.n() as f64;
        Model { params, n, weight: n / 2.0 }
    }

    /// A public-key encryption: `v * e + e0 + e1 * s` with ternary v.
    fn fresh(&self, at: Placement) -> f64 {
        let variance = SIGMA * SIGMA * (self.n * 2.0 / 3.0 + 1.0 + self.weight);
        (self.n * variance).sqrt() / at.scale.0
    }

    /// Rounding the coefficients of a plaintext.
    fn rounding(&self, scale: f64) -> f64 {
        (self.n / 12.0).sqrt() / scale
    }

    /// Rounding the polynomials of a ciphertext, one of which meets the secret, and a third one its square.
    fn rescale(&self, scale: f64, size: u8) -> f64 {
        let secret = if size == 3 { self.weight + self.weight * self.weight } else { self.weight };
        (self.n * (1.0 + secret) / 12.0).sqrt() / scale
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

/// What is known of a value.
#[derive(Clone, Copy)]
struct Error {
    /// Standard deviation of a slot's error.
    error: f64,
    /// Largest magnitude of a slot's message.
    magnitude: f64,
    /// Whether the errors of different such values are independent: products with plaintexts, and what is made of them
    /// by sums and rotations. Errors of other values may have one origin, and add up in the worst way.
    independent: bool,
}

struct Walk<'a> {
    module: &'a Module,
    model: Model<'a>,
    magnitudes: Vec<f64>,
    next: usize,
    stages: Vec<f64>,
}

impl Walk<'_> {
    fn call(&mut self, function: &Function, args: Vec<Error>) -> Vec<Error> {
        let mut errors: Vec<Error> = args;
        for node in &function.nodes {
            match &node.op {
                Op::Call { args, function: callee } => {
                    let module = self.module;
                    let (_, callee) = module.find(callee).expect("verified modules call defined functions");
                    let args = args.iter().map(|v| errors[v.index()]).collect();
                    errors.extend(self.call(callee, args));
                }
                _ => {
                    let error = self.step(function, node, &errors);
                    if matches!(function.type_of(node.result()), Type::Cipher(_)) {
                        self.stages[node.stage.0 as usize] = error.error;
                    }
                    errors.push(error);
                }
            }
        }
        function.results.iter().map(|v| errors[v.index()]).collect()
    }

    fn step(&mut self, function: &Function, node: &Node<Op>, errors: &[Error]) -> Error {
        let at =
            |v: ValueId| function.type_of(v).placement().expect("placed functions have placed ciphertexts");
        let of = |v: &ValueId| errors[v.index()];
        let result = function.type_of(node.result());
        let magnitude = match result {
            Type::Cipher(_) => {
                self.next += 1;
                self.magnitudes[self.next - 1]
            }
            _ => 0.0,
        };
        let (error, independent) = match &node.op {
            Op::Add { a, b } | Op::Sub { a, b } => {
                let (ea, eb) = (of(a), of(b));
                match ea.independent && eb.independent && a != b {
                    true => (ea.error.hypot(eb.error), true),
                    false => (ea.error + eb.error, false),
                }
            }
            Op::Neg { a } => (of(a).error, of(a).independent),
            Op::Mul { a, b } => {
                let (ea, eb) = (of(a), of(b));
                (ea.error * eb.magnitude + eb.error * ea.magnitude + ea.error * eb.error, false)
            }
            Op::AddPlain { a, p } => (of(a).error.hypot(of(p).error), of(a).independent),
            Op::MulPlain { a, p } => {
                let (ea, ep) = (of(a), of(p));
                ((ea.error * ep.magnitude).hypot(ep.error * ea.magnitude), true)
            }
            Op::AddConst { a, .. } => (of(a).error, of(a).independent),
            Op::MulConst { a, value, scale } => {
                // The constant is rounded to a multiple of 1/scale.
                let rounding = match scale {
                    Some(scale) if value.0.fract() != 0.0 => 0.5 / scale.0 * of(a).magnitude,
                    _ => 0.0,
                };
                (of(a).error * value.0.abs() + rounding, of(a).independent)
            }
            Op::Rotate { a, .. } | Op::Conjugate { a } => {
                let at = at(*a);
                (of(a).error.hypot(self.model.key_switch(at.level, at.scale.0)), of(a).independent)
            }
            Op::Relinearize { a } => {
                let at = at(*a);
                (of(a).error.hypot(self.model.key_switch(at.level, at.scale.0)), of(a).independent)
            }
            Op::Rescale { a } | Op::Adjust { a, .. } => {
                let to = at(node.result());
                (of(a).error.hypot(self.model.rescale(to.scale.0, to.size)), of(a).independent)
            }
            Op::Weight { index } => {
                let data = &self.module.context.data;
                let slots = data.slots(&data.weights[*index as usize]);
                let magnitude = slots.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                return Error { error: 0.0, magnitude, independent: true };
            }
            Op::RotatePlain { p, .. } => return of(p),
            Op::Encode { p, scale, .. } => {
                return Error { error: self.model.rounding(scale.0), ..of(p) };
            }
            Op::LinearTransform { .. } | Op::PolyEval { .. } | Op::Call { .. } => {
                unreachable!("expanded before placement")
            }
        };
        Error { error, magnitude, independent }
    }
}
