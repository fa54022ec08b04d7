//! Folds adjustments of level into products with constants.
//!
//! ```text
//! %1 = adjust(%x) {to=L3}                                  %1 = drop_level(%x) {to=L3}
//! %2 = mul_const(%1) {value=0.3, scale=2^40}      ->       %2 = mul_const(%1) {value=0.3, scale=2^40 * scale of L3 / scale of %x}
//! ```
//!
//! An adjustment divides by primes to reach the scale of the level exactly. A constant that is multiplied next may be encoded at any
//! scale, so it can make up for the difference, and primes are only dropped: no transform, no rounding. The terms of a
//! polynomial are such products.
//!
//! The constant need not be next. A product of ciphertexts with an adjusted factor keeps its scale if the other factor is a
//! combination with constants, all of which are encoded at another scale; or it takes another scale, with all that is added to
//! it, and the constants by which it is multiplied later make up for that.

use std::collections::HashMap;
use std::convert::Infallible;

use cerium_ckks::basis::Level;

use super::super::{Builder, Function, Module, Op};
use crate::ir::rewrite::rewrite;
use crate::ir::simplify::remove_unused;
use crate::ir::{Number, Operation, ValueId};

/// Least scale of a constant: its rounding must stay far below the noise of ciphertexts.
const LEAST_SCALE: f64 = (1u64 << 30) as f64;

/// Most by which the scale of a ciphertext may differ from that of its level: there must be room for it below the modulus.
const MOST_EXCESS: f64 = 16.0;

/// Runs the pass.
pub fn fold_adjustments(module: &mut Module) -> Result<(), Infallible> {
    rewrite(module, |builder, module, op| {
        let Op::MulConst { a, value, scale: Some(scale) } = *op else { return None };
        let (x, to) = adjusted(builder, a)?;
        let params = &module.context.params;
        let from = builder.type_of(x).placement()?;
        let scale = Number(scale.0 * (params.scale(to).0 / from.scale.0));
        if scale.0 < LEAST_SCALE || !params.basis(to).is_subset(params.basis(from.level)) {
            return None;
        }
        let a = builder.push(module, Op::DropLevel { a: x, to });
        Some(vec![builder.push(module, Op::MulConst { a, value, scale: Some(scale) })])
    });
    remove_unused(module);
    for index in 0..module.functions.len() {
        fold_into_products(module, index);
    }
    // The types follow.
    rewrite(module, |_, _, _| None);
    remove_unused(module);
    Ok(())
}

/// What an adjustment takes, and where it brings it, if `value` is one.
fn adjusted(builder: &Builder, value: ValueId) -> Option<(ValueId, Level)> {
    let nodes = builder.nodes();
    let after = nodes.partition_point(|node| node.results.start <= value.0);
    match nodes.get(after.checked_sub(1)?)? {
        node if !node.results.contains(&value.0) => None,
        node => match node.op {
            Op::Adjust { a, to } => Some((a, to)),
            _ => None,
        },
    }
}

/// Folds the adjustments of one function whose values are factors of products of ciphertexts.
fn fold_into_products(module: &mut Module, index: usize) {
    let params = module.context.params.clone();
    let mut function = module.functions[index].clone();
    let mut scales = Scales::new(&function);
    let mut folded = Vec::new();
    for (at, node) in function.nodes.iter().enumerate() {
        let Op::Adjust { a: x, to } = node.op else { continue };
        let Some(from) = function.type_of(x).placement() else { continue };
        let excess = from.scale.0 / params.scale(to).0;
        let fits = (MOST_EXCESS.recip()..=MOST_EXCESS).contains(&excess);
        if fits && params.basis(to).is_subset(params.basis(from.level)) && scales.fold(node.result(), excess)
        {
            folded.push(at);
        }
    }
    let factors = scales.factors;
    for (at, node) in function.nodes.iter_mut().enumerate() {
        match &mut node.op {
            &mut Op::Adjust { a, to } if folded.contains(&at) => node.op = Op::DropLevel { a, to },
            Op::MulConst { scale: Some(scale), .. } => scale.0 *= factors.get(&at).unwrap_or(&1.0),
            _ => {}
        }
    }
    module.functions[index] = function;
}

/// By what the scales of constants change.
struct Scales<'a> {
    function: &'a Function,
    /// The nodes that use each value, as often as they do.
    uses: Vec<Vec<usize>>,
    is_result: Vec<bool>,
    /// By node.
    factors: HashMap<usize, f64>,
}

impl<'a> Scales<'a> {
    fn new(function: &'a Function) -> Scales<'a> {
        let mut uses = vec![Vec::new(); function.types.len()];
        for (at, node) in function.nodes.iter().enumerate() {
            node.op.operands().iter().for_each(|value| uses[value.index()].push(at));
        }
        let mut is_result = vec![false; function.types.len()];
        function.results.iter().for_each(|value| is_result[value.index()] = true);
        Scales { function, uses, is_result, factors: HashMap::new() }
    }

    /// Lets a value of which all uses are products of ciphertexts have a scale larger by a factor, if constants can make up for
    /// it; otherwise nothing changes.
    fn fold(&mut self, value: ValueId, excess: f64) -> bool {
        let before = self.factors.clone();
        let folds = !self.is_result[value.index()]
            && self.uses[value.index()].clone().into_iter().all(|at| {
                let node = &self.function.nodes[at];
                let other = match node.op {
                    Op::Mul { a, b } if a == value && b != value => b,
                    Op::Mul { a, b } if b == value && a != value => a,
                    _ => return false,
                };
                self.attempt(|scales| scales.combination(other, excess.recip()))
                    || self.attempt(|scales| scales.product(node.result(), excess))
            });
        if !folds {
            self.factors = before;
        }
        folds
    }

    /// Keeps what changed if this succeeds and all constants keep enough places.
    fn attempt(&mut self, change: impl FnOnce(&mut Self) -> bool) -> bool {
        let before = self.factors.clone();
        let enough = |(&at, factor): (&usize, &f64)| match self.function.nodes[at].op {
            Op::MulConst { scale: Some(scale), .. } => scale.0 * factor >= LEAST_SCALE,
            _ => true,
        };
        if change(self) && self.factors.iter().all(enough) {
            return true;
        }
        self.factors = before;
        false
    }

    fn used_once(&self, value: ValueId) -> bool {
        self.uses[value.index()].len() == 1 && !self.is_result[value.index()]
    }

    /// The node that makes a value.
    fn definition(&self, value: ValueId) -> Option<usize> {
        let nodes = &self.function.nodes;
        let at = nodes.partition_point(|node| node.results.end <= value.0);
        nodes.get(at).filter(|node| node.results.contains(&value.0)).map(|_| at)
    }

    /// Multiplies the scale of a value that is used once and combines others with constants, each used once.
    fn combination(&mut self, value: ValueId, factor: f64) -> bool {
        let Some(at) = self.definition(value).filter(|_| self.used_once(value)) else { return false };
        match self.function.nodes[at].op {
            Op::MulConst { scale: Some(scale), .. } if scale.0 > 1.0 => {
                *self.factors.entry(at).or_insert(1.0) *= factor;
                true
            }
            Op::MulConst { a, .. }
            | Op::AddConst { a, .. }
            | Op::Neg { a }
            | Op::Relinearize { a }
            | Op::Rescale { a } => self.combination(a, factor),
            Op::Add { a, b } | Op::Sub { a, b } => self.combination(a, factor) && self.combination(b, factor),
            _ => false,
        }
    }

    /// Lets a product have its scale times a factor, and all that is added to it, as far as the next products with constants.
    fn product(&mut self, value: ValueId, factor: f64) -> bool {
        if self.absorbed(value, factor.recip()) {
            return true;
        }
        let [at] = self.uses[value.index()][..] else { return false };
        if self.is_result[value.index()] {
            return false;
        }
        let node = &self.function.nodes[at];
        let added = match node.op {
            Op::MulConst { scale: Some(scale), .. } if scale.0 == 1.0 => None,
            Op::AddConst { .. } | Op::Neg { .. } | Op::Relinearize { .. } | Op::Rescale { .. } => None,
            Op::Add { a, b } | Op::Sub { a, b } => Some(if a == value { b } else { a }),
            _ => return false,
        };
        added.is_none_or(|added| self.combination(added, factor)) && self.product(node.result(), factor)
    }

    /// Multiplies the scales of the constants by which a value is multiplied, if that is all it is used for.
    fn absorbed(&mut self, value: ValueId, factor: f64) -> bool {
        let uses = self.uses[value.index()].clone();
        if uses.is_empty() || self.is_result[value.index()] {
            return false;
        }
        self.attempt(|scales| {
            uses.into_iter().all(|at| match scales.function.nodes[at].op {
                Op::MulConst { scale: Some(scale), .. } if scale.0 > 1.0 => {
                    *scales.factors.entry(at).or_insert(1.0) *= factor;
                    true
                }
                Op::DropLevel { .. } => {
                    let dropped = scales.function.nodes[at].result();
                    scales.absorbed(dropped, factor)
                }
                _ => false,
            })
        })
    }
}
