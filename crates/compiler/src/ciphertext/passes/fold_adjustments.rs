//! Folds adjustments of level into the products with constants behind them.
//!
//! ```text
//! %1 = adjust(%x) {to=L3}                                  %1 = drop_level(%x) {to=L3}
//! %2 = mul_const(%1) {value=0.3, scale=2^40}      ->       %2 = mul_const(%1) {value=0.3, scale=2^40 * scale of L3 / scale of %x}
//! ```
//!
//! An adjustment divides by primes to reach the scale of the level exactly. A constant that is multiplied next may be encoded at any
//! scale, so it can make up for the difference, and primes are only dropped: no transform, no rounding. The terms of a
//! polynomial are such products.

use std::convert::Infallible;

use super::super::{Builder, Module, Op};
use crate::ir::rewrite::rewrite;
use crate::ir::simplify::remove_unused;
use crate::ir::{Number, ValueId};

/// Least scale of a constant: its rounding must stay far below the noise of ciphertexts.
const LEAST_SCALE: f64 = (1u64 << 30) as f64;

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
    Ok(())
}

/// What an adjustment takes, and where it brings it, if `value` is one.
fn adjusted(builder: &Builder, value: ValueId) -> Option<(ValueId, cerium_ckks::basis::Level)> {
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
