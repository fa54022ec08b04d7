//! Lowers the ciphertext level to the polynomial level: the one definition of every homomorphic operation.
//!
//! ```text
//! %1 = rotate(%0) {by=1}
//! ->
//! %2 = restrict(%b) {basis=digit}                    # for each digit: mod_up
//! %3 = intt(%2)
//! %4 = base_convert(%3) {to=rest of Q and P}
//! %5 = ntt(%4)
//! %6 = join(%2, %5)
//! %7 = key_product(%6, ..) {key=rotation:5, half=b}  # and half=a
//! %8 = divide_round(%7) {by=P, times={}}             # mod_down
//! %9 = add(%a, %8)
//! %10 = automorphism(%9) {galois=5}                  # the permutation comes last
//! ```
//!
//! Rotations permute last (their keys are made for it), so that rotations of one ciphertext begin with equal operations,
//! which [`share`](crate::ir::simplify::share) then makes once: that is hoisting.

use std::collections::HashMap;

use cerium_artifact::kernel::Half;
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::{Basis, Level};
use cerium_ckks::evaluation_key::KeyKind;
use cerium_ckks::params::Params;

use super::{Function, Module, Op, Placement, Type};
use crate::ir::ValueId;
use crate::polynomial::{
    Builder, Domain, HalfName, KeyName, Module as PolyModule, Op as Poly, Type as PolyType, digits_in,
};

/// Runs the lowering on a placed module.
pub fn lower_to_polynomial(module: &Module) -> PolyModule {
    let mut lowered = PolyModule::new(module.context.clone(), module.stages.clone());
    for function in &module.functions {
        let function = lower_function(module, &lowered, function);
        lowered.functions.push(function);
    }
    lowered
}

/// What a value of the ciphertext level became.
#[derive(Clone)]
enum Lowered {
    /// The polynomials of a ciphertext, or an encoded plaintext.
    Polys(Vec<ValueId>),
    /// A plaintext weight and by how much its slots are rotated to the left.
    Weight(ValueId, i64),
}

fn lower_function(source: &Module, module: &PolyModule, function: &Function) -> crate::polynomial::Function {
    let params = &source.context.params;
    let mut types = Vec::new();
    let mut values: Vec<Lowered> = Vec::new();
    for ty in function.param_types() {
        let first = types.len() as u32;
        match ty {
            Type::Cipher(Some(at)) => {
                let poly = PolyType::Poly { basis: params.basis(at.level), domain: Domain::Evaluation };
                types.extend(std::iter::repeat_n(poly, at.size.into()));
                values.push(Lowered::Polys((first..types.len() as u32).map(ValueId).collect()));
            }
            Type::Plain { log_period } => {
                types.push(PolyType::Weight { log_period: *log_period });
                values.push(Lowered::Weight(ValueId(first), 0));
            }
            Type::Cipher(None) | Type::Encoded { .. } => {
                unreachable!("parameters of placed functions are placed")
            }
        }
    }
    let builder = Builder::new(function.name.clone(), types);
    let mut lowering = Lowering { params, module, builder, values, weights: HashMap::new() };
    for node in &function.nodes {
        lowering.builder.stage = node.stage;
        let results: Vec<&Type> = node.results.clone().map(|r| &function.types[r as usize]).collect();
        lowering.operation(function, &node.op, &results);
    }
    let results = function.results.iter().flat_map(|v| lowering.polys(*v)).collect();
    lowering.builder.finish(results)
}

struct Lowering<'a> {
    params: &'a Params,
    module: &'a PolyModule,
    builder: Builder,
    values: Vec<Lowered>,
    weights: HashMap<u32, ValueId>,
}

impl Lowering<'_> {
    fn operation(&mut self, function: &Function, op: &Op, results: &[&Type]) {
        let at =
            |v: &ValueId| function.type_of(*v).placement().expect("placed functions have placed ciphertexts");
        let polys = match op {
            Op::Add { a, b } => self.pairwise(*a, *b, |a, b| Poly::Add { a, b }, |_, b| b),
            Op::Sub { a, b } => {
                let zero_minus = |this: &mut Self, b| this.push(Poly::Neg { a: b });
                self.pairwise(*a, *b, |a, b| Poly::Sub { a, b }, zero_minus)
            }
            Op::Neg { a } => self.each(*a, |a| Poly::Neg { a }),
            Op::Mul { a, b } => self.tensor(*a, *b),
            Op::MulPlain { a, p } => {
                let p = self.polys(*p)[0];
                self.each(*a, |a| Poly::MulPlain { a, p })
            }
            Op::AddPlain { a, p } => {
                let p = self.polys(*p)[0];
                self.first(*a, |a| Poly::AddPlain { a, p, times: Basis::EMPTY })
            }
            Op::MulConst { a, value, scale } => {
                let scale = scale.expect("placed constants have a scale").0;
                let scalar = round(value.0 * scale);
                self.each(*a, |a| Poly::MulScalar { a, scalar })
            }
            Op::AddConst { a, value } => {
                let scalar = round(value.0 * at(a).scale.0);
                self.first(*a, |a| Poly::AddScalar { a, scalar, times: Basis::EMPTY })
            }
            Op::Rotate { a, by } => {
                let by = by.rem_euclid(self.params.slots() as i64);
                match by {
                    0 => self.polys(*a),
                    _ => {
                        let galois = galois_element(self.params.log_n(), by);
                        self.rotate(*a, at(a), KeyKind::Rotation(galois), galois)
                    }
                }
            }
            Op::Conjugate { a } => {
                self.rotate(*a, at(a), KeyKind::Conjugation, 2 * self.params.n() as u32 - 1)
            }
            Op::Relinearize { a } => {
                let polys = self.polys(*a);
                let (k0, k1) = self.key_switch(polys[2], at(a).level, KeyKind::Relinearization);
                let c0 = self.push(Poly::Add { a: polys[0], b: k0 });
                vec![c0, self.push(Poly::Add { a: polys[1], b: k1 })]
            }
            Op::Rescale { a } => {
                let level = at(a).level;
                let (from, to) = (self.params.basis(level), self.params.basis(Level(level.0 - 1)));
                self.polys(*a).into_iter().map(|c| self.rescale(c, from, to)).collect()
            }
            Op::Adjust { a, to } => self.adjust(*a, at(a), *to),
            Op::DropLevel { a, to } => {
                let basis = self.params.basis(*to);
                self.polys(*a).into_iter().map(|c| self.restrict(c, basis)).collect()
            }
            Op::Weight { index } => {
                let op = Poly::Weight { index: *index };
                let (builder, module) = (&mut self.builder, self.module);
                let value = *self.weights.entry(*index).or_insert_with(|| builder.push(module, op));
                self.values.push(Lowered::Weight(value, 0));
                return;
            }
            Op::RotatePlain { p, by } => {
                let Lowered::Weight(value, rotation) = self.values[p.index()] else {
                    unreachable!("rotate_plain is typed")
                };
                self.values.push(Lowered::Weight(value, rotation + by));
                return;
            }
            Op::Encode { p, level, scale } => {
                let Lowered::Weight(value, rotation) = self.values[p.index()] else {
                    unreachable!("encode is typed")
                };
                let PolyType::Weight { log_period } = *self.builder.type_of(value) else {
                    unreachable!("weights are lowered to weights")
                };
                let rotation = rotation.rem_euclid(1 << log_period) as u32;
                let op = Poly::Encode { p: value, basis: self.params.basis(*level), scale: *scale, rotation };
                vec![self.push(op)]
            }
            Op::Call { args, function } => return self.call(args, function.clone(), results),
            Op::Reinterpret { a, .. } => self.polys(*a),
            Op::ModRaise { a } => self.mod_raise(*a),
            Op::LinearTransform { .. } | Op::PolyEval { .. } | Op::Lower { .. } | Op::Bootstrap { .. } => {
                unreachable!("expanded before lowering")
            }
        };
        self.values.push(Lowered::Polys(polys));
    }

    fn call(&mut self, args: &[ValueId], function: crate::ir::Symbol, results: &[&Type]) {
        let mut flat = Vec::new();
        for arg in args {
            match self.values[arg.index()].clone() {
                Lowered::Polys(polys) => flat.extend(polys),
                Lowered::Weight(value, 0) => flat.push(value),
                Lowered::Weight(..) => unreachable!("arguments are weights as declared"),
            }
        }
        let values = self.builder.try_push(self.module, Poly::Call { args: flat, function });
        let mut values = values.unwrap_or_else(|message| panic!("lowered call: {message}")).map(ValueId);
        for ty in results {
            let size = ty.placement().map_or(1, |p| p.size);
            let polys = values.by_ref().take(size.into()).collect();
            self.values.push(Lowered::Polys(polys));
        }
    }

    /// `(a0 b0, a0 b1 + a1 b0, a1 b1)`; of a square `(a0 a0, 2 a0 a1, a1 a1)`.
    fn tensor(&mut self, a: ValueId, b: ValueId) -> Vec<ValueId> {
        let (a, b) = (self.polys(a), self.polys(b));
        let d0 = self.push(Poly::Mul { a: a[0], b: b[0] });
        let low = self.push(Poly::Mul { a: a[0], b: b[1] });
        let d1 = if a == b {
            self.push(Poly::MulScalar { a: low, scalar: 2 })
        } else {
            let high = self.push(Poly::Mul { a: a[1], b: b[0] });
            self.push(Poly::Add { a: low, b: high })
        };
        vec![d0, d1, self.push(Poly::Mul { a: a[1], b: b[1] })]
    }

    /// Switches to the rotated secret, then permutes.
    fn rotate(&mut self, a: ValueId, at: Placement, key: KeyKind, galois: u32) -> Vec<ValueId> {
        let polys = self.polys(a);
        let (k0, k1) = self.key_switch(polys[1], at.level, key);
        let c0 = self.push(Poly::Add { a: polys[0], b: k0 });
        vec![self.push(Poly::Automorphism { a: c0, galois }), self.push(Poly::Automorphism { a: k1, galois })]
    }

    /// Hybrid key switching (Han and Ki, CT-RSA 2020): `mod_up` by digits, inner product with the key, `mod_down`.
    fn key_switch(&mut self, c: ValueId, level: Level, key: KeyKind) -> (ValueId, ValueId) {
        let q = self.params.basis(level);
        let qp = q.union(self.params.p_basis());
        let parts: Vec<Basis> = digits_in(self.params, q).map(|(_, part)| part).collect();
        let digits = parts
            .into_iter()
            .map(|part| {
                let own = self.restrict(c, part);
                self.mod_up(own, part, qp)
            })
            .collect();
        self.switch(digits, key, qp, q)
    }

    /// The centered integer polynomial that `c` stands for on `from`, on the larger basis `to`.
    fn mod_up(&mut self, c: ValueId, from: Basis, to: Basis) -> ValueId {
        let coefficients = self.push(Poly::Intt { a: c });
        let others = self.push(Poly::BaseConvert { a: coefficients, to: to.minus(from) });
        let others = self.push(Poly::Ntt { a: others });
        self.push(Poly::Join { a: c, b: others })
    }

    /// The inner product of digits on `qp` with a key, divided down to `q`.
    fn switch(&mut self, digits: Vec<ValueId>, key: KeyKind, qp: Basis, q: Basis) -> (ValueId, ValueId) {
        // Both products before both divisions: a digit's limb meets both halves of the key while it is at hand.
        let mut product = |half| {
            let op = Poly::KeyProduct { digits: digits.clone(), key: KeyName(key), half: HalfName(half) };
            self.push(op)
        };
        let (b, a) = (product(Half::B), product(Half::A));
        (self.divide(b, qp, q), self.divide(a, qp, q))
    }

    /// Switches to the sparse secret, reads both polynomials as integers below Q_0, and switches back at the top. One
    /// digit is enough both times: it is below Q_0, so that its product with the error of the key vanishes beside P.
    fn mod_raise(&mut self, a: ValueId) -> Vec<ValueId> {
        let params = self.params;
        let (base, sparse_p) = (params.basis(Level(0)), params.sparse_p_basis());
        let (q, qp) = (params.q_basis(), params.q_basis().union(params.p_basis()));
        let polys = self.polys(a);
        let digit = self.mod_up(polys[1], base, base.union(sparse_p));
        let (b, sparse) = self.switch(vec![digit], KeyKind::ToSparse, base.union(sparse_p), base);
        let c0 = self.push(Poly::Add { a: polys[0], b });
        let c0 = self.mod_up(c0, base, q);
        let digit = self.mod_up(sparse, base, qp);
        let (b, a) = self.switch(vec![digit], KeyKind::FromSparse, qp, q);
        vec![self.push(Poly::Add { a: c0, b }), a]
    }

    /// `round(c * prod(E) / prod(L))`, where L leaves the basis and E enters it.
    fn rescale(&mut self, c: ValueId, from: Basis, to: Basis) -> ValueId {
        self.divide(c, from, to)
    }

    /// The rounded quotient that `mod_down` and rescaling share: from basis `from` to basis `to`, dividing by the primes
    /// that leave and multiplying by those that enter.
    fn divide(&mut self, c: ValueId, from: Basis, to: Basis) -> ValueId {
        self.push(Poly::DivideRound { a: c, by: from.minus(to), times: to.minus(from) })
    }

    /// From any scale at a level to the canonical scale of a lower level: drops primes that are not needed, multiplies by
    /// a constant that makes the scale exact, and rescales once.
    fn adjust(&mut self, a: ValueId, at: Placement, to: Level) -> Vec<ValueId> {
        let params = self.params;
        let target = params.basis(to);
        let through = self.stopover(params.basis(at.level), to);
        let log_ratio = params.log_product(through) - params.log_product(target);
        let scalar = round(params.scale(to).0 / at.scale.0 * log_ratio.exp2());
        let polys = self.polys(a);
        polys
            .into_iter()
            .map(|c| {
                let c = self.restrict(c, through);
                let c = self.push(Poly::MulScalar { a: c, scalar });
                self.rescale(c, through, target)
            })
            .collect()
    }

    /// The smallest part of `from`, dropping the last primes first, that is larger than `to` by almost a scale: by so much
    /// the constant of an adjustment is rounded to.
    fn stopover(&self, from: Basis, level: Level) -> Basis {
        let to = self.params.basis(level);
        let room = |basis: Basis| self.params.log_product(basis) - self.params.log_product(to);
        let enough = self.params.scale(level).log2() - 4.0;
        let mut through = from;
        while let Some(last) = through.last() {
            let fewer = through.minus(std::iter::once(last).collect());
            if room(fewer) < enough {
                break;
            }
            through = fewer;
        }
        through
    }

    fn restrict(&mut self, a: ValueId, basis: Basis) -> ValueId {
        match self.builder.type_of(a) {
            PolyType::Poly { basis: whole, .. } if *whole == basis => a,
            _ => self.push(Poly::Restrict { a, basis }),
        }
    }

    /// Polynomial by polynomial; where `a` has fewer than `b`, `missing` makes the result from `b` alone.
    fn pairwise(
        &mut self,
        a: ValueId,
        b: ValueId,
        op: impl Fn(ValueId, ValueId) -> Poly,
        missing: impl Fn(&mut Self, ValueId) -> ValueId,
    ) -> Vec<ValueId> {
        let (a, b) = (self.polys(a), self.polys(b));
        (0..a.len().max(b.len()))
            .map(|i| match (a.get(i), b.get(i)) {
                (Some(&a), Some(&b)) => self.push(op(a, b)),
                (Some(&a), None) => a,
                (None, Some(&b)) => missing(self, b),
                (None, None) => unreachable!("the index is below the larger size"),
            })
            .collect()
    }

    fn each(&mut self, a: ValueId, op: impl Fn(ValueId) -> Poly) -> Vec<ValueId> {
        self.polys(a).into_iter().map(|a| self.push(op(a))).collect()
    }

    fn first(&mut self, a: ValueId, op: impl FnOnce(ValueId) -> Poly) -> Vec<ValueId> {
        let mut polys = self.polys(a);
        polys[0] = self.push(op(polys[0]));
        polys
    }

    fn polys(&self, value: ValueId) -> Vec<ValueId> {
        match &self.values[value.index()] {
            Lowered::Polys(polys) => polys.clone(),
            Lowered::Weight(..) => unreachable!("typed operations get ciphertexts where they take them"),
        }
    }

    fn push(&mut self, op: Poly) -> ValueId {
        self.builder.push(self.module, op)
    }
}

/// Rounds a scaled constant to an integer.
///
/// # Panics
/// If it has more than 126 bits: scales and constants of a placed program are far smaller.
fn round(value: f64) -> i128 {
    assert!(value.abs() < 2f64.powi(126), "the scaled constant {value} has too many bits");
    value.round() as i128
}
