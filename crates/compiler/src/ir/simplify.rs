//! Simplifications that hold on every level: every operation is pure.

use std::collections::HashMap;

use super::{Dialect, Function, Module, Node, Operation, ValueId};

/// Shares equal operations on equal operands.
///
/// ```text
/// %1 = mod_up(%0) ..        %1 = mod_up(%0) ..
/// %2 = mod_up(%0) ..   ->   %3 = add(%1, %1)
/// %3 = add(%1, %2)
/// ```
///
/// On the polynomial level this is what hoists: rotations of one input permute last, so that their `mod_up`s are
/// equal operations. An operation belongs to the stage that needed it first.
pub fn share<D: Dialect>(module: &mut Module<D>) {
    for function in &mut module.functions {
        let mut canonical: Vec<ValueId> = (0..function.types.len() as u32).map(ValueId).collect();
        let mut seen: HashMap<D::Op, ValueId> = HashMap::new();
        for node in &mut function.nodes {
            node.op.map_operands(|v| canonical[v.index()]);
            let first = *seen.entry(node.op.clone()).or_insert(ValueId(node.results.start));
            for (i, result) in node.results.clone().enumerate() {
                canonical[result as usize] = ValueId(first.0 + i as u32);
            }
        }
        for result in &mut function.results {
            *result = canonical[result.index()];
        }
    }
    remove_unused(module);
}

/// Removes operations whose results nobody uses, and renumbers the values.
///
/// ```text
/// %1 = neg(%0)              %1 = add(%0, %0)
/// %2 = add(%0, %0)    ->    return %1
/// return %2
/// ```
pub fn remove_unused<D: Dialect>(module: &mut Module<D>) {
    for function in &mut module.functions {
        let mut live = vec![false; function.types.len()];
        for result in &function.results {
            live[result.index()] = true;
        }
        for node in function.nodes.iter().rev() {
            if node.results.clone().any(|r| live[r as usize]) {
                for operand in node.op.operands() {
                    live[operand.index()] = true;
                }
            }
        }
        function.nodes.retain(|node| node.results.clone().any(|r| live[r as usize]));
        renumber(function);
    }
}

/// Gives the values of a function consecutive numbers in order of definition.
fn renumber<D: Dialect>(function: &mut Function<D>) {
    let mut new: Vec<ValueId> = vec![ValueId(u32::MAX); function.types.len()];
    let mut types = function.types[..function.params as usize].to_vec();
    for param in 0..function.params {
        new[param as usize] = ValueId(param);
    }
    for Node { op, results, .. } in &mut function.nodes {
        op.map_operands(|v| new[v.index()]);
        let start = types.len() as u32;
        for old in results.clone() {
            new[old as usize] = ValueId(types.len() as u32);
            types.push(function.types[old as usize].clone());
        }
        *results = start..types.len() as u32;
    }
    for result in &mut function.results {
        *result = new[result.index()];
    }
    function.types = types;
}
