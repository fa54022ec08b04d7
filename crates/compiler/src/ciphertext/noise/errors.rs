//! The errors of the scheme, drawn for every operation of a placed program.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2, TAU};
use std::sync::Arc;

use cerium_ckks::basis::Level;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::{Params, SPARSE_WEIGHT};
use num_complex::Complex64;

use super::super::interpret::Perturb;
use super::super::{Function, Op, Placement, Slots, Type};
use crate::ir::Node;
use crate::polynomial::digits_in;

/// Standard deviation of the error distribution of keys and encryptions.
const SIGMA: f64 = 3.19;

/// Draws the integers that raising the modulus uncovers.
pub(super) struct Raises {
    encoder: Encoder,
    random: SplitMix,
}

impl Raises {
    pub(super) fn new(params: &Params, seed: u64) -> Self {
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
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    /// Uniform over all words.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Complex Gaussian numbers of unit variance (`E|z|^2 = 1`), read from a random start for each error.
pub(super) struct Gaussian(Vec<Complex64>);

impl Gaussian {
    pub(super) fn new(seed: u64) -> Gaussian {
        let mut random = SplitMix(seed);
        // Box and Muller's transform.
        let draw = |_| {
            let radius = (-(1.0 - random.uniform()).ln()).sqrt();
            Complex64::from_polar(radius, TAU * random.uniform())
        };
        Gaussian((0..(1 << 14) + 3).map(draw).collect())
    }

    /// Adds errors whose real and imaginary parts have these standard deviations.
    pub(super) fn add(&self, slots: &mut [Complex64], [re, im]: [f64; 2], random: &mut SplitMix) {
        let start = (random.uniform() * self.0.len() as f64) as usize;
        let draws = self.0.iter().cycle().skip(start);
        let (re, im) = (re * SQRT_2, im * SQRT_2);
        slots.iter_mut().zip(draws).for_each(|(slot, z)| *slot += Complex64::new(re * z.re, im * z.im));
    }
}

/// Draws the errors that the scheme adds to slots.
pub(super) struct Errors<'a> {
    params: &'a Params,
    n: f64,
    /// Expected squared norm of the secret: its Hamming weight.
    weight: f64,
    normal: Gaussian,
    random: SplitMix,
    raises: Raises,
}

impl<'a> Errors<'a> {
    pub(super) fn new(params: &'a Params, seed: u64) -> Self {
        let n = params.n() as f64;
        let (normal, random, raises) = (Gaussian::new(seed), SplitMix(!seed), Raises::new(params, seed));
        Errors { params, n, weight: n / 2.0, normal, random, raises }
    }

    /// Adds an error of this standard deviation to every slot.
    pub(super) fn add(&mut self, slots: &mut [Complex64], deviation: f64) {
        self.add_parts(slots, [deviation * FRAC_1_SQRT_2; 2]);
    }

    /// Adds errors whose real and imaginary parts have these standard deviations.
    pub(super) fn add_parts(&mut self, slots: &mut [Complex64], deviations: [f64; 2]) {
        self.normal.add(slots, deviations, &mut self.random);
    }

    /// A public-key encryption, `v * e + e0 + e1 * s` with v as heavy as the secret, and the rounding of its message.
    pub(super) fn fresh(&self, at: Placement) -> f64 {
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
                let largest = slots.iter().fold(0.0f64, |m, x| m.max(x.norm_sqr())).sqrt();
                let constant = largest * 16.0 / self.params.scale(at.level).0;
                (self.rescale(at).powi(2) + constant.powi(2)).sqrt()
            }
            Op::MulConst { value, scale, .. } if value.0.fract() != 0.0 => {
                let scale = scale.map_or(1.0, |s| s.0);
                let largest = slots.iter().fold(0.0f64, |m, x| m.max(x.norm_sqr())).sqrt();
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
