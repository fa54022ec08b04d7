//! Plans the memory of a function: a slot of the frame for every limb that lives across launches.
//!
//! A slot is free again after the launch that reads its limb last; a transform or an elementwise block may write where it
//! read, if no other block reads there. Slots freed last are used first, while they are in cache.

use std::collections::HashMap;

use cerium_artifact::Operand;

use super::fuse::{Group, Launch};
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op, Type};

/// Where every limb of a function lives.
#[derive(Debug)]
pub(super) struct Plan {
    /// Place of each argument and of each limb that reaches memory.
    pub(super) places: HashMap<ValueId, Operand>,
    /// Results that are not made in place: copy the value there at the end.
    pub(super) copies: Vec<(ValueId, Operand)>,
    /// Number of slots.
    pub(super) frame: u32,
}

/// The values that a launch makes and that somebody outside its block needs.
pub(super) fn outputs(function: &Function, launch: &Launch, escapes: &[bool]) -> Vec<ValueId> {
    let results = |node: &usize| function.nodes[*node].results.clone().map(ValueId).collect::<Vec<_>>();
    launch.group.nodes().iter().flat_map(results).filter(|v| escapes[v.index()]).collect()
}

/// Which values are read outside the block that makes them, or returned.
pub(super) fn escapes(function: &Function, launches: &[Launch]) -> Vec<bool> {
    let mut block_of = vec![(usize::MAX, 0); function.nodes.len()];
    for (i, launch) in launches.iter().enumerate() {
        match &launch.group {
            Group::Elementwise(blocks) => {
                for (j, block) in blocks.iter().enumerate() {
                    block.iter().for_each(|&node| block_of[node] = (i, j));
                }
            }
            group => group.nodes().iter().for_each(|&node| block_of[node] = (i, node)),
        }
    }
    let mut maker = vec![None; function.types.len()];
    let mut escapes = vec![false; function.types.len()];
    for (i, node) in function.nodes.iter().enumerate() {
        for operand in node.op.operands() {
            // A call returns limbs to its caller whether or not anybody reads them.
            escapes[operand.index()] |= maker[operand.index()] != Some(block_of[i]);
        }
        for result in node.results.clone() {
            maker[result as usize] = Some(block_of[i]);
            escapes[result as usize] |= matches!(node.op, Op::Call { .. });
        }
    }
    for result in &function.results {
        escapes[result.index()] = true;
    }
    escapes
}

/// Runs the allocation.
pub(super) fn allocate(function: &Function, launches: &[Launch], escapes: &[bool]) -> Plan {
    let mut plan = Plan { places: HashMap::new(), copies: Vec::new(), frame: 0 };
    let limbs = function.params().filter(|&v| matches!(function.type_of(v), Type::Limb { .. }));
    for (i, value) in limbs.enumerate() {
        plan.places.insert(value, Operand::Arg(i as u32));
    }
    let mut result_of: HashMap<ValueId, Operand> = HashMap::new();
    for (i, &value) in function.results.iter().enumerate() {
        let place = Operand::Result(i as u32);
        if plan.places.contains_key(&value) || result_of.contains_key(&value) {
            plan.copies.push((value, place));
        } else {
            result_of.insert(value, place);
        }
    }
    let mut last_use: HashMap<ValueId, usize> = HashMap::new();
    for (i, launch) in launches.iter().enumerate() {
        for value in reads(function, launch) {
            last_use.insert(value, i);
        }
    }
    let mut free: Vec<u32> = Vec::new();
    for (i, launch) in launches.iter().enumerate() {
        let read = reads(function, launch);
        let dying: Vec<ValueId> = read.iter().copied().filter(|v| last_use[v] == i).collect();
        let mut reused: Vec<ValueId> = Vec::new();
        for (value, candidates) in in_place(function, launch, escapes) {
            if result_of.contains_key(&value) {
                continue;
            }
            let candidate = candidates.into_iter().find(|c| {
                dying.contains(c)
                    && !reused.contains(c)
                    && matches!(plan.places.get(c), Some(Operand::Local(_)))
                    && read.iter().filter(|&r| r == c).count() == 1
            });
            if let Some(candidate) = candidate {
                reused.push(candidate);
                plan.places.insert(value, plan.places[&candidate]);
            }
        }
        for value in outputs(function, launch, escapes) {
            if plan.places.contains_key(&value) {
                continue;
            }
            let place = result_of.get(&value).copied().unwrap_or_else(|| {
                Operand::Local(free.pop().unwrap_or_else(|| {
                    plan.frame += 1;
                    plan.frame - 1
                }))
            });
            plan.places.insert(value, place);
        }
        let mut dead: Vec<ValueId> = dying.into_iter().filter(|v| !reused.contains(v)).collect();
        // A result of a call that nobody reads dies at once.
        let unread = outputs(function, launch, escapes).into_iter();
        dead.extend(unread.filter(|v| !last_use.contains_key(v)));
        dead.sort();
        dead.dedup();
        for value in dead {
            if let Some(Operand::Local(slot)) = plan.places.get(&value) {
                free.push(*slot);
            }
        }
    }
    plan
}

/// The limbs in memory that a launch reads, once for each block that reads them.
fn reads(function: &Function, launch: &Launch) -> Vec<ValueId> {
    let mut reads = Vec::new();
    let mut block_reads = |nodes: &[usize]| {
        let mut block: Vec<ValueId> = nodes.iter().flat_map(|&n| function.nodes[n].op.operands()).collect();
        block.retain(|v| matches!(function.type_of(*v), Type::Limb { .. }));
        // What the block makes itself it does not read from memory.
        let made = |v: &ValueId| nodes.iter().any(|&n| function.nodes[n].results.contains(&v.0));
        block.retain(|v| !made(v));
        block.sort();
        block.dedup();
        reads.extend(block);
    };
    match &launch.group {
        Group::Elementwise(blocks) | Group::BaseConvert(blocks) => blocks.iter().for_each(|b| block_reads(b)),
        Group::Ntt(nodes) | Group::Intt(nodes) | Group::Permute(nodes) => {
            nodes.iter().for_each(|&node| block_reads(&[node]));
        }
        Group::Call(node) => block_reads(&[*node]),
    }
    reads
}

/// For each value that may be written where its block read: the values it may replace.
fn in_place(function: &Function, launch: &Launch, escapes: &[bool]) -> Vec<(ValueId, Vec<ValueId>)> {
    match &launch.group {
        Group::Ntt(nodes) | Group::Intt(nodes) => {
            nodes.iter().map(|&n| (function.nodes[n].result(), function.nodes[n].op.operands())).collect()
        }
        Group::Elementwise(blocks) => {
            let mut pairs = Vec::new();
            for block in blocks {
                let operands: Vec<ValueId> =
                    block.iter().flat_map(|&n| function.nodes[n].op.operands()).collect();
                let results = block.iter().map(|&n| function.nodes[n].result());
                pairs.extend(results.filter(|v| escapes[v.index()]).map(|v| (v, operands.clone())));
            }
            pairs
        }
        Group::Permute(_) | Group::BaseConvert(_) | Group::Call(_) => Vec::new(),
    }
}
