//! Orders operations prime by prime as far as dependencies allow, so that limbs are used again while they are in cache.
//!
//! ```text
//! %3 = ntt(%0) : p0                  %3 = ntt(%0) : p0
//! %4 = ntt(%1) : p1                  %4 = add(%3, %2) : p0
//! %5 = add(%3, %2) : p0       ->     %5 = ntt(%1) : p1
//! %6 = add(%4, %2') : p1             %6 = add(%5, %2') : p1
//! ```
//!
//! Only `base_convert` mixes primes. A *region* is a run of operations none of which converts a limb made in the same
//! run; within it operations of different primes are independent, and it is sorted by prime. Launches are later made of whole
//! chunks of primes, as small as the target asks: small ones keep a chunk's limbs in cache, large ones make wide launches.

use std::convert::Infallible;

use super::super::{Function, Module, Op, Type};
use crate::ir::{Node, Operation, ValueId};

/// Runs the pass with chunks of `chunk` primes.
pub fn order_by_prime(module: &mut Module, chunk: usize) -> Result<(), Infallible> {
    for function in &mut module.functions {
        order(function, chunk.max(1));
    }
    Ok(())
}

fn order(function: &mut Function, chunk: usize) {
    let mut region_of = vec![0usize; function.types.len()];
    let mut region = 1;
    let mut keyed: Vec<((usize, usize, usize), Node<Op>)> = Vec::with_capacity(function.nodes.len());
    for node in function.nodes.drain(..) {
        let operands = node.op.operands();
        let made_here = |v: &ValueId| region_of[v.index()] == region;
        let starts = match node.op {
            Op::BaseConvert { .. } => operands.iter().any(made_here),
            Op::Call { .. } => true,
            _ => false,
        };
        if starts {
            region += 1;
        }
        for result in node.results.clone() {
            region_of[result as usize] = region;
        }
        let (chunk, prime) = match node.op {
            // A weight has no prime, and everything of its region may need it.
            Op::Weight { .. } | Op::Call { .. } => (0, 0),
            _ => match function.types[node.results.start as usize] {
                Type::Limb { prime, .. } | Type::Plain { prime, .. } | Type::Key { prime } => {
                    (1 + prime.index() / chunk, prime.index())
                }
                Type::Weight { .. } => (0, 0),
            },
        };
        let is_call = matches!(node.op, Op::Call { .. });
        keyed.push(((region, chunk, prime), node));
        if is_call {
            region += 1;
        }
    }
    keyed.sort_by_key(|(key, _)| *key);
    function.nodes = keyed.into_iter().map(|(_, node)| node).collect();
    renumber(function);
}

/// Gives the values consecutive numbers again, in the new order of definition.
fn renumber(function: &mut Function) {
    let mut new: Vec<ValueId> = (0..function.types.len() as u32).map(ValueId).collect();
    let mut types = function.types[..function.params as usize].to_vec();
    for node in &function.nodes {
        for result in node.results.clone() {
            new[result as usize] = ValueId(types.len() as u32);
            types.push(function.types[result as usize]);
        }
    }
    for node in &mut function.nodes {
        node.op.map_operands(|v| new[v.index()]);
        let start = new[node.results.start as usize].0;
        node.results = start..start + node.results.len() as u32;
    }
    for result in &mut function.results {
        *result = new[result.index()];
    }
    function.types = types;
}
