//! Lowers the polynomial level to the limb level: one operation for each limb.
//!
//! ```text
//! %2 = base_convert(%1) {to={2-3}} : poly<coeff {2-3}>       # %1 on {0-1}
//! ->
//! %4 = mul_scalar(%0) {scalar=(Q/q0)^-1}
//! %5 = mul_scalar(%1) {scalar=(Q/q1)^-1}
//! %6 = base_convert(%4, %5) {to=p2}
//! %7 = base_convert(%4, %5) {to=p3}
//! ```
//!
//! `restrict` and `join` choose limbs and leave no operation behind.

use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::params::Params;

use super::types::key_digits;
use super::{Function, Module, Op as Poly, Type};
use crate::ir::{Number, Symbol, ValueId};
use crate::limb::{Builder, Module as LimbModule, Op, Type as LimbType};

/// Runs the lowering.
pub fn lower_to_limb(module: &Module) -> LimbModule {
    let mut lowered = LimbModule::new(module.context.clone(), module.stages.clone());
    for function in &module.functions {
        let function = lower_function(module, &lowered, function);
        lowered.functions.push(function);
    }
    lowered
}

/// What a value of the polynomial level became.
#[derive(Clone)]
enum Lowered {
    /// One limb for each prime of the basis, in order.
    Limbs(Basis, Vec<ValueId>),
    Weight(ValueId),
    /// An encoding of a weight; its limbs are made where they are used.
    Plain {
        weight: ValueId,
        scale: Number,
        rotation: u32,
    },
}

fn lower_function(source: &Module, module: &LimbModule, function: &Function) -> crate::limb::Function {
    let params = &source.context.params;
    let mut types = Vec::new();
    let mut values = Vec::new();
    for ty in function.param_types() {
        let first = types.len() as u32;
        match *ty {
            Type::Poly { basis, domain } => {
                types.extend(basis.iter().map(|prime| LimbType::Limb { prime, domain }));
                values.push(Lowered::Limbs(basis, (first..types.len() as u32).map(ValueId).collect()));
            }
            Type::Weight { log_period } => {
                types.push(LimbType::Weight { log_period });
                values.push(Lowered::Weight(ValueId(first)));
            }
            Type::Plain { .. } => unreachable!("functions take weights, not encodings"),
        }
    }
    let builder = Builder::new(function.name.clone(), types);
    let mut lowering = Lowering { params, module, builder, values };
    for node in &function.nodes {
        lowering.builder.stage = node.stage;
        match &node.op {
            Poly::Call { args, function: callee } => {
                let types = node.results.clone().map(|r| function.types[r as usize]).collect();
                lowering.call(args, callee, types);
            }
            op => {
                let value = lowering.operation(op);
                lowering.values.push(value);
            }
        }
    }
    let results = function.results.iter().flat_map(|v| lowering.limbs(*v).1).collect();
    lowering.builder.finish(results)
}

struct Lowering<'a> {
    params: &'a Params,
    module: &'a LimbModule,
    builder: Builder,
    values: Vec<Lowered>,
}

impl Lowering<'_> {
    fn operation(&mut self, op: &Poly) -> Lowered {
        match op {
            Poly::Add { a, b } => self.zip(*a, *b, |a, b| Op::Add { a, b }),
            Poly::Sub { a, b } => self.zip(*a, *b, |a, b| Op::Sub { a, b }),
            Poly::Mul { a, b } => self.zip(*a, *b, |a, b| Op::Mul { a, b }),
            Poly::Neg { a } => self.map(*a, |_, a| Op::Neg { a }),
            Poly::Ntt { a } => self.map(*a, |_, a| Op::Ntt { a }),
            Poly::Intt { a } => self.map(*a, |_, a| Op::Intt { a, factor: 1 }),
            Poly::Automorphism { a, galois } => self.map(*a, |_, a| Op::Permute { a, galois: *galois }),
            Poly::MulScalar { a, scalar } => {
                let params = self.params;
                self.map(*a, |p, a| Op::MulScalar { a, scalar: params.modulus(p).reduce_i128(*scalar) })
            }
            Poly::AddScalar { a, scalar, times } => {
                let params = self.params;
                let residue = |p| {
                    params.modulus(p).mul(params.modulus(p).reduce_i128(*scalar), product(params, *times, p))
                };
                self.map(*a, |p, a| Op::AddScalar { a, scalar: residue(p) })
            }
            Poly::AddExtended { a, c, times } => {
                let ((basis, a), (part, c)) = (self.limbs(*a), self.limbs(*c));
                let limbs = basis.iter().zip(a).map(|(p, a)| match part.position(p) {
                    Some(i) => {
                        let scalar = product(self.params, *times, p);
                        let b = self.push(Op::MulScalar { a: c[i], scalar });
                        self.push(Op::Add { a, b })
                    }
                    None => a,
                });
                let limbs = limbs.collect();
                Lowered::Limbs(basis, limbs)
            }
            Poly::MulPrimes { a, primes } => {
                let params = self.params;
                self.map(*a, |p, a| Op::MulScalar { a, scalar: product(params, *primes, p) })
            }
            Poly::MulPlain { a, p } => {
                self.with_plain(*a, *p, Basis::EMPTY, |_, _, a, k| Op::MulMontgomery { a, k })
            }
            Poly::AddPlain { a, p, times } => {
                let (params, times) = (self.params, *times);
                self.with_plain(*a, *p, times, |this, prime, a, p| {
                    let plain = this.push(Op::FromMontgomery { p });
                    let b = match product(params, times, prime) {
                        1 => plain,
                        scalar => this.push(Op::MulScalar { a: plain, scalar }),
                    };
                    Op::Add { a, b }
                })
            }
            Poly::Restrict { a, basis } => {
                let (from, limbs) = self.limbs(*a);
                Lowered::Limbs(*basis, basis.iter().map(|p| limbs[position(from, p)]).collect())
            }
            Poly::Join { a, b } => {
                let ((basis_a, a), (basis_b, b)) = (self.limbs(*a), self.limbs(*b));
                let whole = basis_a.union(basis_b);
                let pick = |p| match basis_a.position(p) {
                    Some(i) => a[i],
                    None => b[position(basis_b, p)],
                };
                Lowered::Limbs(whole, whole.iter().map(pick).collect())
            }
            Poly::BaseConvert { a, to } => {
                let (from, limbs) = self.limbs(*a);
                let sources: Vec<ValueId> = from
                    .iter()
                    .zip(limbs)
                    .map(|(p, a)| {
                        let others = product(self.params, from.minus(std::iter::once(p).collect()), p);
                        let scalar = invert(self.params, others, p);
                        self.push(Op::MulScalar { a, scalar })
                    })
                    .collect();
                let targets = to.iter().map(|to| self.push(Op::BaseConvert { sources: sources.clone(), to }));
                Lowered::Limbs(*to, targets.collect())
            }
            Poly::Divide { a, c, by, times } => {
                let ((basis_a, a), (basis, c)) = (self.limbs(*a), self.limbs(*c));
                let mut limbs = Vec::with_capacity(c.len());
                for (p, c) in basis.iter().zip(c) {
                    let inverse = invert(self.params, product(self.params, *by, p), p);
                    limbs.push(match basis_a.position(p) {
                        Some(i) => {
                            let a = match product(self.params, *times, p) {
                                1 => a[i],
                                scalar => self.push(Op::MulScalar { a: a[i], scalar }),
                            };
                            let difference = self.push(Op::Sub { a, b: c });
                            self.push(Op::MulScalar { a: difference, scalar: inverse })
                        }
                        None => {
                            let scalar = self.params.modulus(p).neg(inverse);
                            self.push(Op::MulScalar { a: c, scalar })
                        }
                    });
                }
                Lowered::Limbs(basis, limbs)
            }
            Poly::KeyProduct { digits, key, half } => {
                let digits: Vec<(Basis, Vec<ValueId>)> = digits.iter().map(|d| self.limbs(*d)).collect();
                let basis = digits[0].0;
                let numbers: Vec<usize> = key_digits(self.params, key.0, basis);
                let mut limbs = Vec::with_capacity(basis.len());
                for (position, prime) in basis.iter().enumerate() {
                    let mut terms = Vec::with_capacity(2 * digits.len());
                    // The digit that the prime belongs to comes first: its limb is the polynomial's own, which may be used
                    // beside the product, so that all primes have programs of one shape.
                    let mut order: Vec<_> = digits.iter().zip(&numbers).collect();
                    order.sort_by_key(|(_, number)| !self.params.digits()[**number].contains(prime));
                    for ((_, digit), &number) in order {
                        terms.push(digit[position]);
                        terms.push(self.push(Op::Key {
                            key: *key,
                            half: *half,
                            digit: number as u32,
                            prime,
                        }));
                    }
                    limbs.push(self.push(Op::Dot { terms }));
                }
                Lowered::Limbs(basis, limbs)
            }
            Poly::Weight { index } => Lowered::Weight(self.push(Op::Weight { index: *index })),
            Poly::Encode { p, scale, rotation, .. } => match self.values[p.index()] {
                Lowered::Weight(weight) => Lowered::Plain { weight, scale: *scale, rotation: *rotation },
                _ => unreachable!("encode is typed"),
            },
            Poly::DivideRound { .. } => unreachable!("expanded before lowering"),
            Poly::Call { .. } => unreachable!("calls have any number of results"),
        }
    }

    fn call(&mut self, args: &[ValueId], function: &Symbol, results: Vec<Type>) {
        let mut flat = Vec::new();
        for arg in args {
            match &self.values[arg.index()] {
                Lowered::Limbs(_, limbs) => flat.extend_from_slice(limbs),
                Lowered::Weight(weight) => flat.push(*weight),
                Lowered::Plain { .. } => unreachable!("functions take weights, not encodings"),
            }
        }
        let values = self.builder.try_push(self.module, Op::Call { args: flat, function: function.clone() });
        let mut values = values.unwrap_or_else(|message| panic!("lowered call: {message}")).map(ValueId);
        for ty in results {
            let Type::Poly { basis, .. } = ty else { unreachable!("functions return polynomials") };
            let limbs = values.by_ref().take(basis.len()).collect();
            self.values.push(Lowered::Limbs(basis, limbs));
        }
    }

    fn map(&mut self, a: ValueId, op: impl Fn(PrimeIndex, ValueId) -> Op) -> Lowered {
        let (basis, limbs) = self.limbs(a);
        let limbs = basis.iter().zip(limbs).map(|(p, a)| self.push(op(p, a))).collect();
        Lowered::Limbs(basis, limbs)
    }

    fn zip(&mut self, a: ValueId, b: ValueId, op: impl Fn(ValueId, ValueId) -> Op) -> Lowered {
        let ((basis, a), (_, b)) = (self.limbs(a), self.limbs(b));
        let limbs = a.into_iter().zip(b).map(|(a, b)| self.push(op(a, b))).collect();
        Lowered::Limbs(basis, limbs)
    }

    /// An operation with the limbs of an encoded plaintext, made for the primes that are needed; limbs of the primes
    /// `but` stay as they are.
    fn with_plain(
        &mut self,
        a: ValueId,
        p: ValueId,
        but: Basis,
        op: impl Fn(&mut Self, PrimeIndex, ValueId, ValueId) -> Op,
    ) -> Lowered {
        let (basis, limbs) = self.limbs(a);
        let Lowered::Plain { weight, scale, rotation } = self.values[p.index()] else {
            unreachable!("plaintext operands are typed")
        };
        let limbs = basis
            .iter()
            .zip(limbs)
            .map(|(prime, a)| {
                if but.contains(prime) {
                    return a;
                }
                let plain = self.push(Op::Plain { w: weight, prime, scale, rotation });
                let op = op(self, prime, a, plain);
                self.push(op)
            })
            .collect();
        Lowered::Limbs(basis, limbs)
    }

    fn limbs(&self, value: ValueId) -> (Basis, Vec<ValueId>) {
        match &self.values[value.index()] {
            Lowered::Limbs(basis, limbs) => (*basis, limbs.clone()),
            _ => unreachable!("typed operations get polynomials where they take them"),
        }
    }

    fn push(&mut self, op: Op) -> ValueId {
        self.builder.push(self.module, op)
    }
}

fn position(basis: Basis, prime: PrimeIndex) -> usize {
    basis.position(prime).expect("typed operations stay within the basis")
}

/// The product of `primes` modulo `prime`.
fn product(params: &Params, primes: Basis, prime: PrimeIndex) -> u32 {
    let q = params.modulus(prime);
    primes.iter().fold(1, |product, p| q.mul(product, params.modulus(p).value() % q.value()))
}

fn invert(params: &Params, value: u32, prime: PrimeIndex) -> u32 {
    params.modulus(prime).inv(value).expect("the primes of a pool are distinct")
}
