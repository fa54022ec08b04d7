//! Values in the same position: those that are made alike from alike values, and used alike.
//!
//! A layer on many ciphertexts does the same with each of them, and the best placement treats them alike; searching one of
//! them instead of all keeps the search small. Positions are compared by hashes, of how a value is made (forwards) and of
//! what it goes into (backwards). The order of the terms of a sum does not matter, nor do the numbers in weights, amounts of
//! rotations and constants.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::super::{Function, Op, Type};
use super::super::needs::Shape;
use super::facts::Facts;
use crate::ir::{Operation, ValueId};

/// Who stands for whom.
pub(super) struct Classes {
    /// Of each value, the first one in the same position.
    pub(super) values: Vec<ValueId>,
    /// Of each node, the first one whose results are in the same positions.
    pub(super) nodes: Vec<usize>,
}

fn mix(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn is_sum(op: &Op) -> bool {
    matches!(op, Op::Add { .. } | Op::Sub { .. })
}

/// The classes of a function whose results are needed at these levels.
pub(super) fn classes(function: &Function, shape: &Shape, facts: &Facts, results: &[u8]) -> Classes {
    let count = function.types.len();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, node) in function.nodes.iter().enumerate() {
        node.op.operands().iter().for_each(|v| users[v.index()].push(index));
    }
    function.results.iter().for_each(|v| users[v.index()].push(usize::MAX));
    // Terms of a larger sum: their only use is a sum.
    let is_term = |v: ValueId| match users[v.index()].as_slice() {
        &[only] => function.nodes.get(only).is_some_and(|node| is_sum(&node.op)),
        _ => false,
    };

    // Forwards; a sum within a larger one also as the sum of its terms.
    let (mut made, mut terms) = (vec![0u64; count], vec![0u64; count]);
    for v in function.params() {
        let fact = facts.of(&function.name, v);
        made[v.index()] = mix((function.type_of(v).to_string(), fact.real, fact.log_period));
        terms[v.index()] = made[v.index()];
    }
    for node in &function.nodes {
        let operands = node.op.operands();
        let each: Vec<u64> = operands.iter().map(|v| made[v.index()]).collect();
        let sum = |parts: &[u64]| parts.iter().fold(0u64, |sum, &part| sum.wrapping_add(part));
        let kind = (node.op.mnemonic(), shape.depth(&node.op), attributes(&node.op));
        for (i, result) in node.results.clone().enumerate() {
            let result = result as usize;
            if is_sum(&node.op) {
                let parts: Vec<u64> = operands.iter().map(|v| terms[v.index()]).collect();
                made[result] = mix(("sum", sum(&parts)));
                terms[result] = if is_term(ValueId(result as u32)) { sum(&parts) } else { made[result] };
                continue;
            }
            made[result] = match &node.op {
                Op::Mul { .. } => mix((kind.clone(), sum(&each.iter().map(mix).collect::<Vec<_>>()))),
                Op::Weight { .. } | Op::RotatePlain { .. } => mix(function.types[result].to_string()),
                _ => mix((kind.clone(), i, &each)),
            };
            terms[result] = made[result];
        }
    }

    // Backwards.
    let mut used = vec![0u64; count];
    for (value, level) in function.results.iter().zip(results) {
        used[value.index()] = used[value.index()].wrapping_add(mix(("return", level)));
    }
    for node in function.nodes.iter().rev() {
        let results: Vec<(u64, u64)> =
            node.results.clone().map(|r| (made[r as usize], used[r as usize])).collect();
        for (i, v) in node.op.operands().into_iter().enumerate() {
            let role = if matches!(node.op, Op::Mul { .. }) || is_sum(&node.op) { 0 } else { i };
            let use_hash = match is_sum(&node.op) && is_term(node.result()) {
                true => used[node.result().index()],
                false => mix((node.op.mnemonic(), role, &results)),
            };
            used[v.index()] = used[v.index()].wrapping_add(use_hash);
        }
    }

    let mut first = HashMap::new();
    let values = (0..count as u32).map(ValueId).map(|v| {
        let key = match function.type_of(v) {
            Type::Cipher(_) => (made[v.index()], used[v.index()]),
            _ => (u64::from(v.0), u64::MAX), // plaintexts are not searched
        };
        *first.entry(key).or_insert(v)
    });
    let values: Vec<ValueId> = values.collect();
    let mut first = HashMap::new();
    let nodes = function.nodes.iter().enumerate().map(|(index, node)| {
        let key: Vec<ValueId> = node.results.clone().map(|r| values[r as usize]).collect();
        *first.entry(key).or_insert(index)
    });
    Classes { nodes: nodes.collect(), values }
}

/// The attributes of an operation that matter to placement.
fn attributes(op: &Op) -> String {
    match op {
        Op::Call { .. } | Op::Lower { .. } | Op::Bootstrap { .. } => {
            let mut out = String::new();
            op.write_attributes(&mut out);
            out
        }
        Op::LinearTransform { diagonals, .. } => diagonals.len().to_string(),
        Op::PolyEval { coefficients, .. } => coefficients.len().to_string(),
        _ => String::new(),
    }
}
