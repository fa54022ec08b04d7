//! Estimated time of operations on ciphertexts: what passes of this level decide by.
//!
//! An operation is counted in limbs, as its lowering makes it: transforms, multiplications of base conversions, words that
//! meet a key, words that are combined pointwise. Rates turn counts into seconds of one core. They are those of a CPU with
//! AVX-512, measured at N = 2^16 on operations as a whole, caches and all; a decision needs ratios only, which differ
//! less between machines than the rates do.

use std::collections::HashSet;

use cerium_ckks::basis::{Basis, Level};
use cerium_ckks::params::Params;

use super::{BootstrapKind, Module, Op, Type};
use crate::ir::ValueId;
use crate::polynomial::digits_in;

/// Seconds a word and a stage of a transform to evaluations.
const NTT: f64 = 86e-12;
/// Seconds a word and a stage of a transform to coefficients.
const INTT: f64 = 90e-12;
/// Seconds a word of a source limb, for each limb that it is converted to.
const CONVERT: f64 = 57e-12;
/// Seconds a word of a digit that meets one half of a key; keys come from memory.
const KEY: f64 = 180e-12;
/// Seconds a word of the result of a pointwise operation.
const POINTWISE: f64 = 200e-12;
/// Seconds a word of a product that is added to others in registers.
const ACCUMULATE: f64 = 130e-12;
/// Seconds a word that is permuted.
const PERMUTE: f64 = 170e-12;

/// Estimated seconds of operations under a parameter set, on one core. Levels are those of the operands; all are at most
/// the top level, or the functions panic.
#[derive(Clone, Debug)]
pub struct CostModel {
    params: Params,
}

impl CostModel {
    /// The model for a parameter set.
    pub fn new(params: &Params) -> CostModel {
        CostModel { params: params.clone() }
    }

    fn limbs(&self, level: Level) -> f64 {
        self.params.basis(level).len() as f64
    }

    fn p_limbs(&self) -> f64 {
        self.params.p_basis().len() as f64
    }

    fn words(&self, limbs: f64, seconds: f64) -> f64 {
        limbs * self.params.n() as f64 * seconds
    }

    /// Transforms of so many limbs to evaluations.
    pub fn ntt(&self, limbs: f64) -> f64 {
        self.words(limbs, NTT * f64::from(self.params.log_n()))
    }

    /// Transforms of so many limbs to coefficients.
    pub fn intt(&self, limbs: f64) -> f64 {
        self.words(limbs, INTT * f64::from(self.params.log_n()))
    }

    /// A pointwise operation with a result of so many limbs.
    pub fn pointwise(&self, limbs: f64) -> f64 {
        self.words(limbs, POINTWISE)
    }

    /// From `source` limbs in evaluation domain, whose coefficients go on to `target` others in evaluation domain.
    pub(crate) fn convert(&self, source: f64, target: f64) -> f64 {
        // One more row for the quotient.
        self.intt(source) + self.words((source + 1.0) * target, CONVERT) + self.ntt(target)
    }

    /// Splitting a polynomial into digits and raising each to Q and P: what hoisted rotations share.
    pub fn mod_up(&self, level: Level) -> f64 {
        let basis = self.params.basis(level);
        let all = self.limbs(level) + self.p_limbs();
        digits_in(&self.params, basis)
            .map(|(_, digit)| self.convert(digit.len() as f64, all - digit.len() as f64))
            .sum()
    }

    /// The inner product of all digits with both halves of a key.
    pub fn key_product(&self, level: Level) -> f64 {
        let digits = digits_in(&self.params, self.params.basis(level)).count() as f64;
        self.words(2.0 * digits * (self.limbs(level) + self.p_limbs()), KEY)
    }

    /// Dividing one polynomial by P.
    pub fn mod_down(&self, level: Level) -> f64 {
        self.convert(self.p_limbs(), self.limbs(level)) + self.pointwise(self.limbs(level))
    }

    /// A whole key switch of one polynomial.
    pub fn key_switch(&self, level: Level) -> f64 {
        self.mod_up(level) + self.key_product(level) + 2.0 * self.mod_down(level)
    }

    /// Automorphisms of so many limbs.
    pub fn permute(&self, limbs: f64) -> f64 {
        self.words(limbs, PERMUTE)
    }

    /// A baby step of a `linear_transform`: a hoisted rotation that stays on Q and P.
    pub fn baby_step(&self, level: Level) -> f64 {
        self.key_product(level) + self.permute(2.0 * (self.limbs(level) + self.p_limbs()))
    }

    /// A giant step of a `linear_transform`: the half that meets the key is divided by P and raised again.
    pub fn giant_step(&self, level: Level) -> f64 {
        self.mod_down(level) + self.mod_up(level) + self.baby_step(level)
    }

    /// A rotation or conjugation.
    pub fn rotate(&self, level: Level) -> f64 {
        self.mod_up(level) + self.rotate_hoisted(level)
    }

    /// A rotation that shares its `mod_up` with another of the same ciphertext.
    pub fn rotate_hoisted(&self, level: Level) -> f64 {
        let limbs = self.limbs(level);
        self.key_product(level)
            + 2.0 * self.mod_down(level)
            + self.pointwise(limbs)
            + self.permute(2.0 * limbs)
    }

    /// From three polynomials to two.
    pub fn relinearize(&self, level: Level) -> f64 {
        self.key_switch(level) + self.pointwise(2.0 * self.limbs(level))
    }

    /// The product of two ciphertexts, not relinearized.
    pub fn mul(&self, level: Level) -> f64 {
        self.pointwise(5.0 * self.limbs(level))
    }

    /// An operation on each of `size` polynomials: a sum, a product with a plaintext or a constant.
    pub fn each(&self, level: Level, size: u8) -> f64 {
        self.pointwise(f64::from(size) * self.limbs(level))
    }

    /// Rescaling `size` polynomials from `level`, which is not 0, by one level.
    pub fn rescale(&self, level: Level, size: u8) -> f64 {
        let below = Level(level.0 - 1);
        self.divide(self.params.basis(level), self.params.basis(below), size)
    }

    /// Going from a level to a lower one. Primes that are not needed are dropped first, so that this is one division by about
    /// a scale, wherever it starts.
    pub fn adjust(&self, to: Level, size: u8) -> f64 {
        self.rescale(Level(to.0 + 1), size) + self.each(Level(to.0 + 1), size)
    }

    fn divide(&self, from: Basis, to: Basis, size: u8) -> f64 {
        let (leaving, target) = (from.minus(to).len() as f64, to.len() as f64);
        f64::from(size) * (self.convert(leaving, target) + self.pointwise(target))
    }

    /// A `linear_transform` of `diagonals` evenly spaced diagonals with as many baby steps as are best, not rescaled: hoisted
    /// baby steps that stay on Q and P, one division by P for each giant step and two at the end.
    pub fn linear_transform(&self, level: Level, diagonals: usize) -> f64 {
        let raised = self.limbs(level) + self.p_limbs();
        let terms = diagonals as f64 * self.words(2.0 * raised, ACCUMULATE);
        let steps = |babies: usize| {
            let giants = diagonals.div_ceil(babies) as f64;
            let rotated = (babies - 1) as f64 * self.baby_step(level);
            let hoisted = if babies > 1 { self.mod_up(level) + rotated } else { 0.0 };
            hoisted + (giants - 1.0) * self.giant_step(level)
        };
        let best = (0..=diagonals.max(1).ilog2()).map(|log| steps(1 << log)).fold(f64::INFINITY, f64::min);
        best + terms + 2.0 * self.mod_down(level)
    }

    /// A polynomial of this degree (in Chebyshev form, Paterson and Stockmeyer's products) at the level of its argument.
    pub fn poly_eval(&self, level: Level, degree: usize) -> f64 {
        let depth = degree.max(1).ilog2() + 1;
        // Powers up to the leaf, doublings from there, and one product for each inner node of the splitting.
        let leaf = 1usize << (depth / 2).max(1);
        let products =
            (leaf - 2) + (depth as usize - leaf.ilog2() as usize) + degree.div_ceil(leaf).saturating_sub(1);
        let middle = Level(level.0.saturating_sub(depth as u8 / 2).max(1));
        products as f64 * self.product(middle)
    }

    /// A product of two ciphertexts, relinearized and rescaled.
    pub fn product(&self, level: Level) -> f64 {
        self.mul(level) + self.relinearize(level) + self.rescale(level, 2)
    }

    /// From level 0 to the top: two key switches of one digit, and both polynomials transformed at the top.
    pub fn mod_raise(&self) -> f64 {
        let (base, top) = (self.limbs(Level(0)), self.params.max_level());
        let raised =
            self.convert(base, self.limbs(top)) + self.convert(base, self.limbs(top) + self.p_limbs());
        let product = self.words(2.0 * (self.limbs(top) + self.p_limbs()), KEY);
        raised + product + 2.0 * self.mod_down(top)
    }

    /// A bootstrap as a whole: of one value, or of two real ones together, with slots that repeat with period
    /// `2^log_slots`. `None` if the parameter set has no levels for it.
    pub fn bootstrap(&self, kind: BootstrapKind, values: usize, log_slots: u32) -> Option<f64> {
        let (levels, parts) = (self.params.bootstrap()?, self.params.spec().bootstrap?);
        let top = self.params.max_level();
        let transform = |first: Level, factors: u8| -> f64 {
            let factor = |i: u8| {
                let stages = (log_slots + u32::from(i)) / u32::from(factors);
                let level = Level(first.0 - i);
                match stages {
                    0 => 0.0,
                    _ => self.linear_transform(level, (2 << stages) - 1) + self.rescale(level, 2),
                }
            };
            (0..factors).map(factor).sum()
        };
        let to_coeffs = transform(levels.input, parts.slots_to_coeffs);
        let to_slots = transform(top, parts.coeffs_to_slots);
        let below = Level(top.0 - parts.coeffs_to_slots);
        let trace = f64::from(self.params.log_n() - 1 - log_slots) * (self.rotate(top) + self.each(top, 2));
        // The argument is squared, three double angles end it, and the polynomial has the levels between.
        let doublings = 3.min(parts.eval_mod);
        let degree = (1usize << parts.eval_mod.saturating_sub(doublings + 1)) - 1;
        let squares: f64 = (1..=doublings).map(|i| self.product(Level(levels.output.0 + i))).sum();
        let eval_mod = self.product(below) + self.poly_eval(Level(below.0 - 1), degree) + squares;
        let evaluations = if kind == BootstrapKind::Real && values == 1 { 1.0 } else { 2.0 };
        Some(to_coeffs + self.mod_raise() + trace + to_slots + self.rotate(below) + evaluations * eval_mod)
    }

    /// An operation of a placed program but a call, given the types of its operands and its result.
    ///
    /// `hoisted` says that a rotation of the same ciphertext came before.
    pub fn operation(&self, op: &Op, operands: &[&Type], result: &Type, hoisted: bool) -> f64 {
        let Some(from) = operands.first().and_then(|ty| ty.placement()) else { return 0.0 };
        let Some(to) = result.placement() else { return 0.0 };
        match op {
            Op::Add { .. } | Op::Sub { .. } | Op::Neg { .. } | Op::MulPlain { .. } | Op::MulConst { .. } => {
                self.each(to.level, to.size)
            }
            Op::AddPlain { .. } | Op::AddConst { .. } => self.each(to.level, 1),
            Op::Mul { .. } => self.mul(from.level),
            Op::Rotate { .. } | Op::Conjugate { .. } if hoisted => self.rotate_hoisted(from.level),
            Op::Rotate { .. } | Op::Conjugate { .. } => self.rotate(from.level),
            Op::Relinearize { .. } => self.relinearize(from.level),
            Op::Rescale { .. } => self.rescale(from.level, from.size),
            Op::Adjust { to, .. } => self.adjust(*to, from.size),
            Op::ModRaise { .. } => self.mod_raise(),
            Op::Bootstrap { xs, kind, log_slots, .. } => {
                self.bootstrap(*kind, xs.len(), *log_slots).unwrap_or(f64::INFINITY)
            }
            Op::Weight { .. }
            | Op::RotatePlain { .. }
            | Op::Encode { .. }
            | Op::Reinterpret { .. }
            | Op::DropLevel { .. }
            | Op::Lower { .. }
            | Op::LinearTransform { .. }
            | Op::PolyEval { .. }
            | Op::Call { .. } => 0.0,
        }
    }

    /// Seconds of each stage of a placed program over all calls.
    pub fn stages(&self, module: &Module) -> Vec<f64> {
        let mut done: Vec<Vec<f64>> = Vec::with_capacity(module.functions.len());
        for function in &module.functions {
            let mut stages = vec![0.0; module.stages.len().max(1)];
            let mut raised: HashSet<ValueId> = HashSet::new();
            for node in &function.nodes {
                if let Op::Call { function: callee, .. } = &node.op {
                    let (index, _) = module.find(callee).expect("verified modules call defined functions");
                    stages.iter_mut().zip(&done[index]).for_each(|(sum, seconds)| *sum += seconds);
                    continue;
                }
                let operands: Vec<&Type> =
                    crate::ir::Operation::operands(&node.op).iter().map(|&v| function.type_of(v)).collect();
                let hoisted = match &node.op {
                    Op::Rotate { a, .. } | Op::Conjugate { a } => !raised.insert(*a),
                    _ => false,
                };
                let result = function.type_of(ValueId(node.results.start));
                stages[node.stage.0 as usize] += self.operation(&node.op, &operands, result, hoisted);
            }
            done.push(stages);
        }
        done.pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within this factor of what was measured.
    fn near(seconds: f64, measured: f64) {
        assert!((0.85..1.18).contains(&(seconds / measured)), "{seconds:.4} s, measured {measured:.4} s");
    }

    #[test]
    fn measured_operations() {
        // leveled-16: 43 primes of Q and 16 of P, three digits, one thread.
        let params = Params::named("leveled-16").unwrap();
        let (cost, top) = (CostModel::new(&params), params.max_level());
        assert_eq!((params.basis(top).len(), params.p_basis().len()), (43, 16));
        near(cost.mul(top) + cost.relinearize(top), 51.1e-3);
        near(cost.rotate(top), 44.4e-3);
        near(cost.rescale(top, 2), 11.2e-3);
    }

    #[test]
    fn bootstraps() {
        let params = Params::named("boot-40").unwrap();
        let cost = CostModel::new(&params);
        let price = |kind, values, log_slots| cost.bootstrap(kind, values, log_slots).unwrap();
        let complex = price(BootstrapKind::Complex, 1, 15);
        let (real, pair) = (price(BootstrapKind::Real, 1, 15), price(BootstrapKind::Real, 2, 15));
        println!("complex {complex:.2} s, real {real:.2} s, pair {pair:.2} s");
        assert!((1.0..4.0).contains(&complex) && pair == complex);
        assert!((0.6..0.9).contains(&(real / complex)));
        assert!(price(BootstrapKind::Real, 1, 8) < real, "few slots are cheaper");
        assert!(
            CostModel::new(&Params::named("leveled-16").unwrap())
                .bootstrap(BootstrapKind::Real, 1, 15)
                .is_none()
        );
    }

    #[test]
    fn lower_levels_are_cheaper() {
        let params = Params::named("leveled-16").unwrap();
        let cost = CostModel::new(&params);
        // Neighbours may have equally many limbs: a level is a set of primes.
        for level in params.levels().skip(4) {
            let below = Level(level.0 - 3);
            assert!(cost.rotate(below) < cost.rotate(level));
            assert!(cost.rotate_hoisted(level) < cost.rotate(level));
            assert!(cost.linear_transform(level, 31) < 31.0 * cost.rotate(level));
            assert!(cost.relinearize(below) < cost.relinearize(level));
        }
    }
}
