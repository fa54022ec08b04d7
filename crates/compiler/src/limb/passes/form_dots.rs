//! Gathers sums of products with plaintexts into dot products, which accumulate in 64 bits and reduce once.
//!
//! ```text
//! %3 = mul_montgomery(%0, %p)
//! %4 = mul_montgomery(%1, %q)     ->    %5 = dot(%0, %p, %1, %q)
//! %5 = add(%3, %4)
//! ```
//!
//! Only products and partial sums with a single use are gathered, up to a length that keeps programs within bounds.

use std::convert::Infallible;

use super::super::{Module, Op};
use crate::ir::Operation;
use crate::ir::simplify::remove_unused;

/// Operands of the longest dot product that is formed: longer sums are sums of dot products.
const MAX_OPERANDS: usize = 1024;

/// Runs the pass.
pub fn form_dots(module: &mut Module) -> Result<(), Infallible> {
    for function in &mut module.functions {
        let uses = function.use_counts();
        let mut producer: Vec<Option<usize>> = vec![None; function.types.len()];
        for i in 0..function.nodes.len() {
            for result in function.nodes[i].results.clone() {
                producer[result as usize] = Some(i);
            }
            let Op::Add { a, b } = function.nodes[i].op else { continue };
            // A sum is a dot product if both its terms are, and nobody else needs them.
            let terms = |value: crate::ir::ValueId| {
                let node = &function.nodes[producer[value.index()]?];
                match (&node.op, uses[value.index()]) {
                    (Op::MulMontgomery { .. } | Op::Dot { .. }, 1) => Some(node.op.operands()),
                    _ => None,
                }
            };
            if let (Some(mut left), Some(right)) = (terms(a), terms(b))
                && left.len() + right.len() <= MAX_OPERANDS
            {
                left.extend(right);
                function.nodes[i].op = Op::Dot { terms: left };
            }
        }
    }
    remove_unused(module);
    Ok(())
}
