//! Folds products with constants into each other and into the inverse transform before them.
//!
//! ```text
//! %1 = intt(%0) {factor=1}
//! %2 = mul_scalar(%1) {scalar=5}     ->    %1 = intt(%0) {factor=35}
//! %3 = mul_scalar(%2) {scalar=7}           return %1
//! return %3
//! ```
//!
//! The inverse transform multiplies by 1/N in any case, so that the constant of a base conversion costs nothing. A
//! transform whose result has other uses is left alone.

use std::convert::Infallible;

use super::super::{Function, Module, Op, Type};
use crate::ir::simplify::remove_unused;
use crate::ir::{Operation, ValueId};

/// Runs the pass.
pub fn fold_scalars(module: &mut Module) -> Result<(), Infallible> {
    let params = module.context.params.clone();
    for function in &mut module.functions {
        let uses = function.use_counts();
        let Function { nodes, types, results, .. } = function;
        let mut alias: Vec<ValueId> = (0..types.len() as u32).map(ValueId).collect();
        let mut producer: Vec<Option<usize>> = vec![None; types.len()];
        for i in 0..nodes.len() {
            nodes[i].op.map_operands(|v| alias[v.index()]);
            for result in nodes[i].results.clone() {
                producer[result as usize] = Some(i);
            }
            let Op::MulScalar { a, scalar } = nodes[i].op else { continue };
            let Type::Limb { prime, .. } = types[a.index()] else { continue };
            let q = params.modulus(prime);
            let result = nodes[i].result();
            if scalar == 1 {
                alias[result.index()] = a;
                continue;
            }
            let Some(before) = producer[a.index()] else { continue };
            match nodes[before].op {
                Op::MulScalar { a: inner, scalar: first } => {
                    nodes[i].op = Op::MulScalar { a: inner, scalar: q.mul(first, scalar) };
                }
                Op::Intt { a: inner, factor } if uses[a.index()] == 1 => {
                    nodes[before].op = Op::Intt { a: inner, factor: q.mul(factor, scalar) };
                    alias[result.index()] = a;
                }
                _ => {}
            }
        }
        for result in results {
            *result = alias[result.index()];
        }
    }
    remove_unused(module);
    Ok(())
}
