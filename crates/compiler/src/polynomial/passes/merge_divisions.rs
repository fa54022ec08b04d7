//! Merges a rounded division of a rounded quotient into one division.
//!
//! ```text
//! %1 = divide_round(%0) {by={6-9}, times={}}      # mod_down
//! %2 = divide_round(%1) {by={4-5}, times={0}}     # rescale
//! ->
//! %2 = divide_round(%0) {by={4-9}, times={0}}
//! ```
//!
//! One centered rounding takes the place of two, so that the error gets smaller, and the primes that leave last need no
//! limbs in between. A quotient with other uses stays, and so does one whose divisor would have more primes together than
//! a base conversion takes.

use std::convert::Infallible;

use cerium_ckks::rns::MOST_SOURCES;

use super::super::{Module, Op};
use crate::ir::simplify::remove_unused;

/// Runs the pass.
pub fn merge_divisions(module: &mut Module) -> Result<(), Infallible> {
    for function in &mut module.functions {
        let uses = function.use_counts();
        let mut quotient = vec![None; function.types.len()];
        for node in &mut function.nodes {
            let Op::DivideRound { a, by, times } = node.op else { continue };
            if let Some((inner, first_by, first_times)) = quotient[a.index()].filter(|_| uses[a.index()] == 1)
            {
                let (by, times) = (by.union(first_by), times.union(first_times));
                // A prime that enters and leaves again would have to cancel.
                if by.len() <= MOST_SOURCES && by.intersection(times).is_empty() {
                    node.op = Op::DivideRound { a: inner, by, times };
                }
            }
            let Op::DivideRound { a, by, times } = node.op else { unreachable!("replaced by its like") };
            quotient[node.result().index()] = Some((a, by, times));
        }
    }
    remove_unused(module);
    Ok(())
}
