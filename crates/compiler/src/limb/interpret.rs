//! The interpreter of the limb level: word by word with `ckks::modulus`, by definition and without a fast path.

use std::sync::Arc;

use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::{PrimeIndex, Scale};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Modulus;
use cerium_ckks::rns::{Domain, Poly};
use num_complex::Complex64;

use super::{Function, Module, Op, Type};
use crate::ir::ValueId;
use crate::polynomial::{KeySource, encode_limb};

#[derive(Clone)]
enum Value {
    Limb(Arc<Vec<u32>>),
    Weight(Arc<Vec<Complex64>>),
}

/// Interprets a module of the limb level.
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

    /// Runs the entry on its argument limbs, of N words each.
    pub fn run(&self, args: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
        let args = args.into_iter().map(|words| Value::Limb(Arc::new(words))).collect();
        self.call(self.module.entry(), args).iter().map(|v| limb(v).to_vec()).collect()
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
                    let prime = match *function.type_of(node.result()) {
                        Type::Limb { prime, .. } | Type::Plain { prime, .. } | Type::Key { prime } => prime,
                        Type::Weight { .. } => unreachable!("handled above"),
                    };
                    let result = self.step(function, op, prime, &values);
                    values.push(Value::Limb(Arc::new(result)));
                }
            }
        }
        function.results.iter().map(|v| values[v.index()].clone()).collect()
    }

    fn step(&self, function: &Function, op: &Op, prime: PrimeIndex, values: &[Value]) -> Vec<u32> {
        let params = &self.module.context.params;
        let q = params.modulus(prime);
        let of = |v: &ValueId| limb(&values[v.index()]);
        let map = |a: &ValueId, f: &dyn Fn(&Modulus, u32) -> u32| of(a).iter().map(|&x| f(q, x)).collect();
        let zip = |a: &ValueId, b: &ValueId, f: &dyn Fn(&Modulus, u32, u32) -> u32| -> Vec<u32> {
            of(a).iter().zip(of(b)).map(|(&x, &y)| f(q, x, y)).collect()
        };
        match op {
            Op::Add { a, b } => zip(a, b, &|q, x, y| q.add(x, y)),
            Op::Sub { a, b } => zip(a, b, &|q, x, y| q.sub(x, y)),
            Op::Neg { a } => map(a, &|q, x| q.neg(x)),
            Op::Mul { a, b } => zip(a, b, &|q, x, y| q.mul(x, y)),
            Op::MulMontgomery { a, k } => zip(a, k, &|q, x, y| q.mont_mul(x, y)),
            Op::FromMontgomery { p } => map(p, &|q, x| q.from_mont(x)),
            Op::MulScalar { a, scalar } => map(a, &|q, x| q.mul(x, *scalar)),
            Op::AddScalar { a, scalar } => map(a, &|q, x| q.add(x, *scalar)),
            Op::Dot { terms } => {
                let mut sum = vec![0; params.n()];
                for pair in terms.chunks(2) {
                    let product = zip(&pair[0], &pair[1], &|q, x, y| q.mont_mul(x, y));
                    sum.iter_mut().zip(product).for_each(|(s, p)| *s = q.add(*s, p));
                }
                sum
            }
            Op::Ntt { a } => {
                let mut words = of(a).to_vec();
                params.ntt(prime).forward(Isa::Portable, &mut words);
                words
            }
            Op::Intt { a, factor } => {
                let mut words = of(a).to_vec();
                params.ntt(prime).inverse(Isa::Portable, &mut words);
                words.iter().map(|&x| q.mul(x, *factor)).collect()
            }
            Op::Permute { a, galois } => {
                let mut out = vec![0; params.n()];
                Automorphism::new(params.log_n(), *galois).permute(Isa::Portable, &mut out, 0, of(a));
                out
            }
            Op::BaseConvert { sources, to } => {
                let limbs = sources.iter().map(|v| (prime_of(function, *v), of(v)));
                self.base_convert(limbs.collect(), *to)
            }
            Op::Plain { w, prime, scale, rotation } => {
                let Value::Weight(slots) = &values[w.index()] else { unreachable!("plain is typed") };
                encode_limb(params, &self.encoder, slots, *prime, Scale(scale.0), *rotation)
            }
            Op::Key { key, half, digit, prime } => self.keys.limb(key.0, half.0, *digit as usize, *prime),
            Op::Weight { .. } | Op::Call { .. } => unreachable!("handled by the caller"),
            Op::Exchange { .. } | Op::AllReduce { .. } => {
                unreachable!("modules are interpreted before they are placed on devices")
            }
        }
    }

    /// `ckks::rns` converts from plain residues, so the factor `(Q/q_i)^-1` that the sources carry is taken off again.
    fn base_convert(&self, mut sources: Vec<(PrimeIndex, &[u32])>, to: PrimeIndex) -> Vec<u32> {
        let params = &self.module.context.params;
        sources.sort_by_key(|(prime, _)| *prime);
        let basis = sources.iter().map(|(prime, _)| *prime).collect();
        let plain = sources.iter().map(|&(prime, words)| {
            let others: cerium_ckks::basis::Basis =
                sources.iter().map(|s| s.0).filter(|&p| p != prime).collect();
            let factor = cerium_ckks::rns::product_mod(params, others, prime);
            words.iter().map(|&x| params.modulus(prime).mul(x, factor)).collect()
        });
        let poly = Poly::from_limbs(basis, Domain::Coefficient, plain.collect());
        poly.base_convert(params, std::iter::once(to).collect()).into_limbs().remove(0)
    }
}

fn prime_of(function: &Function, value: ValueId) -> PrimeIndex {
    match *function.type_of(value) {
        Type::Limb { prime, .. } => prime,
        _ => unreachable!("base_convert is typed"),
    }
}

fn limb(value: &Value) -> &[u32] {
    match value {
        Value::Limb(words) => words,
        Value::Weight(_) => unreachable!("typed operations get limbs where they take them"),
    }
}
