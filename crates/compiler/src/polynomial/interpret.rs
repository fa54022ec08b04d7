//! The interpreter of the polynomial level: exact arithmetic by `ckks::rns`, the oracle of everything below.

use std::sync::Arc;

use cerium_artifact::kernel::Half;
use cerium_ckks::basis::{Basis, PrimeIndex, Scale};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::KeyKind;
use cerium_ckks::params::Params;
use cerium_ckks::rns::{self, Poly};
use num_complex::Complex64;

use super::types::key_digits;
use super::{Function, Module, Op};

/// Where an interpreter finds evaluation keys.
pub trait KeySource {
    /// One limb of a key in Montgomery form: `digit` counts the digits of the parameter set.
    fn limb(&self, kind: KeyKind, half: Half, digit: usize, prime: PrimeIndex) -> Vec<u32>;
}

#[derive(Clone)]
enum Value {
    Poly(Arc<Poly>),
    /// Slots of a weight over one period.
    Weight(Arc<Vec<Complex64>>),
}

/// Interprets a module of the polynomial level.
#[expect(missing_debug_implementations, reason = "borrows a key source that has none")]
pub struct Interpreter<'a> {
    module: &'a Module,
    keys: &'a dyn KeySource,
    encoder: Encoder,
}

impl<'a> Interpreter<'a> {
    /// An interpreter that finds keys in `keys`.
    pub fn new(module: &'a Module, keys: &'a dyn KeySource) -> Self {
        Interpreter { module, keys, encoder: Encoder::new(&module.context.params) }
    }

    /// Runs the entry on polynomials of its parameter types.
    ///
    /// # Panics
    /// If an argument has another basis or domain, or a weight does not encode.
    pub fn run(&self, args: Vec<Poly>) -> Vec<Poly> {
        let args = args.into_iter().map(|p| Value::Poly(Arc::new(p))).collect();
        self.call(self.module.entry(), args).iter().map(|v| poly(v).clone()).collect()
    }

    fn call(&self, function: &Function, args: Vec<Value>) -> Vec<Value> {
        assert_eq!(args.len(), function.params as usize, "one argument for each parameter");
        let mut values = args;
        for node in &function.nodes {
            match &node.op {
                Op::Call { args, function } => {
                    let (_, callee) =
                        self.module.find(function).expect("verified modules call defined functions");
                    let args = args.iter().map(|v| values[v.index()].clone()).collect();
                    values.extend(self.call(callee, args));
                }
                Op::Weight { index } => {
                    values.push(Value::Weight(Arc::new(self.module.context.data.slots(*index))));
                }
                op => {
                    let result = self.step(op, &values);
                    values.push(Value::Poly(Arc::new(result)));
                }
            }
        }
        function.results.iter().map(|v| values[v.index()].clone()).collect()
    }

    fn step(&self, op: &Op, values: &[Value]) -> Poly {
        let params = &self.module.context.params;
        let of = |v: &crate::ir::ValueId| poly(&values[v.index()]);
        let scalar = |basis: Basis, s: i128| -> Vec<u32> {
            basis.iter().map(|p| params.modulus(p).reduce_i128(s)).collect()
        };
        match op {
            Op::Add { a, b } => of(a).add(params, of(b)),
            Op::Sub { a, b } => of(a).sub(params, of(b)),
            Op::Neg { a } => of(a).neg(params),
            Op::Mul { a, b } => of(a).mul(params, of(b)),
            Op::MulPlain { a, p } => of(a).mont_mul(params, &of(p).restrict(of(a).basis())),
            Op::AddPlain { a, p, times } => {
                let plain = of(p).restrict(of(a).basis().minus(*times));
                let ones = vec![vec![1; params.n()]; plain.basis().len()];
                let one = Poly::from_limbs(plain.basis(), plain.domain(), ones);
                add_extended(params, of(a), &plain.mont_mul(params, &one), *times)
            }
            Op::MulScalar { a, scalar: s } => of(a).mul_scalar(params, &scalar(of(a).basis(), *s)),
            Op::MulPrimes { a, primes } => {
                let residues: Vec<u32> =
                    of(a).basis().iter().map(|p| rns::product_mod(params, *primes, p)).collect();
                of(a).mul_scalar(params, &residues)
            }
            Op::AddScalar { a, scalar: s, times } => {
                let residue = |(p, s)| params.modulus(p).mul(rns::product_mod(params, *times, p), s);
                let basis = of(a).basis();
                let residues: Vec<u32> = basis.iter().zip(scalar(basis, *s)).map(residue).collect();
                of(a).add_scalar(params, &residues)
            }
            Op::AddExtended { a, c, times } => add_extended(params, of(a), of(c), *times),
            Op::Ntt { a } => of(a).clone().ntt(params),
            Op::Intt { a } => of(a).clone().intt(params),
            Op::Automorphism { a, galois } => of(a).automorphism(params, *galois),
            Op::Restrict { a, basis } => of(a).restrict(*basis),
            Op::Join { a, b } => {
                let (a, b) = (of(a), of(b));
                let basis = a.basis().union(b.basis());
                let pick = |p| if a.basis().contains(p) { a.limb(p) } else { b.limb(p) };
                Poly::from_limbs(basis, a.domain(), basis.iter().map(|p| pick(p).to_vec()).collect())
            }
            Op::BaseConvert { a, to } => of(a).base_convert(params, *to),
            Op::DivideRound { a, by, times } => {
                let target = of(a).basis().minus(*by).union(*times);
                let rest = of(a).restrict(*by);
                let factors: Vec<u32> = by.iter().map(|p| rns::product_mod(params, *times, p)).collect();
                let rest = rest.mul_scalar(params, &factors).intt(params).base_convert(params, target);
                Poly::divide(params, of(a), &rest.ntt(params), *by, *times)
            }
            Op::Divide { a, c, by, times } => Poly::divide(params, of(a), of(c), *by, *times),
            Op::KeyProduct { digits, key, half } => {
                let basis = of(&digits[0]).basis();
                let numbers = key_digits(params, key.0, basis).into_iter();
                let terms = digits.iter().zip(numbers).map(|(digit, number)| {
                    let limbs = basis.iter().map(|p| self.keys.limb(key.0, half.0, number, p)).collect();
                    of(digit).mont_mul(params, &Poly::from_limbs(basis, rns::Domain::Evaluation, limbs))
                });
                terms.reduce(|sum, term| sum.add(params, &term)).expect("a verified key_product has digits")
            }
            Op::Encode { p, basis, scale, rotation } => {
                let Value::Weight(slots) = &values[p.index()] else { unreachable!("encode is typed") };
                let limbs = basis
                    .iter()
                    .map(|prime| encode_limb(params, &self.encoder, slots, prime, Scale(scale.0), *rotation));
                Poly::from_limbs(*basis, rns::Domain::Evaluation, limbs.collect())
            }
            Op::Weight { .. } | Op::Call { .. } => unreachable!("handled by the caller"),
        }
    }
}

/// `a + c * product(times)`, zero modulo `times`, which `c` lacks.
fn add_extended(params: &Params, a: &Poly, c: &Poly, times: Basis) -> Poly {
    let limb = |prime| match c.basis().contains(prime) {
        true => {
            let (q, factor) = (params.modulus(prime), rns::product_mod(params, times, prime));
            c.limb(prime).iter().map(|&word| q.mul(word, factor)).collect()
        }
        false => vec![0; params.n()],
    };
    a.add(params, &Poly::from_limbs(a.basis(), a.domain(), a.basis().iter().map(limb).collect()))
}

/// One whole limb of a weight's encoding: slots rotated to the left, evaluation domain, Montgomery form.
///
/// # Panics
/// If the weight does not encode: recipes and placed scales are finite and small enough.
pub(crate) fn encode_limb(
    params: &Params,
    encoder: &Encoder,
    slots: &[Complex64],
    prime: PrimeIndex,
    scale: Scale,
    rotation: u32,
) -> Vec<u32> {
    let mut slots = slots.to_vec();
    slots.rotate_left(rotation as usize);
    let coefficients =
        encoder.coefficients(&slots, scale).unwrap_or_else(|e| panic!("a weight does not encode: {e}"));
    let stride = params.n() / coefficients.len();
    let q = params.modulus(prime);
    let mut limb = vec![0; params.n()];
    for (word, c) in limb.iter_mut().step_by(stride).zip(coefficients) {
        *word = q.to_mont(q.reduce_i128(c));
    }
    params.ntt(prime).forward(cerium_ckks::isa::Isa::Portable, &mut limb);
    limb
}

fn poly(value: &Value) -> &Poly {
    match value {
        Value::Poly(poly) => poly,
        Value::Weight(_) => unreachable!("typed operations get polynomials where they take them"),
    }
}
