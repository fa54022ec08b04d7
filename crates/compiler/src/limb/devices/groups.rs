//! Independent parts of a function run on groups of devices.
//!
//! Parts are independent if nothing that one computes is read by another; they may read the same parameters, weights and keys. A
//! part on a group sends its limbs to fewer devices, and groups do not wait for each other. What they cost is that limbs change
//! their homes at the borders of the function, and that keys which several parts use are on more devices.

use std::collections::HashMap;

use super::placement::{Choices, Group, Placement, is_limb};
use crate::ir::Operation;
use crate::limb::Op;

/// One choice for each number of groups that divides the devices.
pub(super) fn candidates(placement: &Placement<'_>) -> Vec<Choices> {
    let space = placement.space;
    if space.function.nodes.iter().any(|node| matches!(node.op, Op::Call { .. })) {
        return Vec::new();
    }
    let parts = Parts::new(placement);
    let counts =
        (2..=space.devices.min(parts.costs.len())).filter(|&count| space.devices.is_multiple_of(count));
    let chosen = counts.map(|count| {
        let size = space.devices / count;
        let group = parts.share(count);
        let mut choices = placement.choices.clone();
        for (own, part) in choices.groups.iter_mut().zip(&parts.of_node) {
            if let Some(part) = part {
                *own = Group { first: group[*part] * size, size };
            }
        }
        choices
    });
    chosen.filter(|choices| choices.groups != placement.choices.groups).collect()
}

/// The independent parts of a function.
struct Parts {
    /// The part of each node; none for what names an operand only.
    of_node: Vec<Option<usize>>,
    /// What each costs.
    costs: Vec<f64>,
}

impl Parts {
    fn new(placement: &Placement<'_>) -> Parts {
        let function = placement.space.function;
        let mut leader: Vec<usize> = (0..function.nodes.len()).collect();
        for (index, node) in function.nodes.iter().enumerate() {
            for operand in node.op.operands().into_iter().filter(|&v| is_limb(function, v)) {
                if let Some(maker) = placement.maker[operand.index()] {
                    let (a, b) = (find(&mut leader, maker), find(&mut leader, index));
                    leader[a.max(b)] = a.min(b);
                }
            }
        }
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut parts = Parts { of_node: Vec::with_capacity(function.nodes.len()), costs: Vec::new() };
        for (index, node) in function.nodes.iter().enumerate() {
            let is_operation = !matches!(node.op, Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. });
            let part = is_operation.then(|| {
                let next = numbers.len();
                *numbers.entry(find(&mut leader, index)).or_insert(next)
            });
            if let Some(part) = part {
                parts.costs.resize(numbers.len(), 0.0);
                parts.costs[part] += placement.space.costs.operation(&node.op);
            }
            parts.of_node.push(part);
        }
        parts
    }

    /// A group for each part: the dearest first, each to the group that has least.
    fn share(&self, groups: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.costs.len()).collect();
        order.sort_by(|&a, &b| self.costs[b].total_cmp(&self.costs[a]));
        let (mut load, mut group) = (vec![0.0_f64; groups], vec![0; self.costs.len()]);
        for part in order {
            let least = (0..groups).min_by(|&a, &b| load[a].total_cmp(&load[b])).unwrap_or(0);
            load[least] += self.costs[part];
            group[part] = least;
        }
        group
    }
}

/// The first node of the part of a node.
fn find(leader: &mut [usize], node: usize) -> usize {
    let mut at = node;
    while leader[at] != at {
        leader[at] = leader[leader[at]];
        at = leader[at];
    }
    at
}
