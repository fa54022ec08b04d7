//! Recomputation: limbs that are needed everywhere are made everywhere, if that is cheaper than to send them.
//!
//! After a key switch whose input is everywhere, every device can make the limbs of P for itself, and the division by P then needs
//! no communication. What to make everywhere is a [minimum cut](crate::ir::min_cut): a value that is needed everywhere is either
//! sent, which costs a limb on each link, or made from operands that are then needed everywhere in turn, which costs the operation
//! on every device.

use super::placement::{Choices, Placement, is_limb, limb_prime};
use crate::ir::min_cut::{Network, Vertex};
use crate::ir::{Operation, ValueId};
use crate::limb::Op;

/// How much dearer a limb is taken to be than its transfer: a limb that is not sent may also save a collective.
const PRICES: [f64; 4] = [1.0, 2.0, 4.0, 8.0];

/// The cheapest choice by the cut for each price of a limb that is sent; none that makes nothing everywhere.
pub(super) fn candidates(placement: &Placement<'_>) -> Vec<Choices> {
    PRICES.iter().filter_map(|price| cheapest(placement, price * placement.space.costs.limb)).collect()
}

fn cheapest(placement: &Placement<'_>, limb: f64) -> Option<Choices> {
    let space = placement.space;
    let function = space.function;
    let mut network = Network::new();
    let everywhere: Vec<Option<Vertex>> = (0..function.types.len() as u32)
        .map(ValueId)
        .map(|value| is_limb(function, value).then(|| network.vertex()))
        .collect();
    let mut repeated: Vec<Option<Vertex>> = vec![None; function.nodes.len()];
    for (index, node) in function.nodes.iter().enumerate() {
        if may_repeat(placement, index) {
            let vertex = network.vertex();
            repeated[index] = Some(vertex);
            network.edge(vertex, Network::SINK, units(space.costs.operation(&node.op)));
            for operand in node.op.operands().into_iter().filter(|&v| same_group(placement, index, v)) {
                if let Some(operand) = everywhere[operand.index()] {
                    network.edge(vertex, operand, Network::NEVER);
                }
            }
            // What another group holds can only be sent.
            if node
                .op
                .operands()
                .into_iter()
                .any(|v| is_limb(function, v) && !same_group(placement, index, v))
            {
                network.edge(vertex, Network::SINK, Network::NEVER);
            }
        }
    }
    for value in (0..function.types.len() as u32).map(ValueId) {
        let Some(vertex) = everywhere[value.index()] else { continue };
        let made = placement.maker[value.index()].and_then(|node| repeated[node]);
        let size = placement.maker[value.index()].map_or(space.devices, |n| placement.choices.groups[n].size);
        let (needs, whole) = (placement.needs[value.index()], placement.whole(value));
        // Sent to some, it costs a share of what it costs to be sent to all.
        let sent = needs.minus(whole).len().min(size - 1);
        if size > 1 && sent > 0 {
            network.edge(Network::SOURCE, vertex, units(limb * sent as f64 / (size - 1) as f64));
        }
        network.edge(vertex, made.unwrap_or(Network::SINK), units(limb));
    }
    let cut = network.cut();
    let mut choices = placement.choices.clone();
    let mut any = false;
    for (own, vertex) in choices.repeated.iter_mut().zip(&repeated) {
        let chosen = vertex.is_some_and(|vertex| cut.is_source(vertex));
        any |= chosen && !*own;
        *own |= chosen;
    }
    any.then_some(choices)
}

/// A capacity.
fn units(cost: f64) -> u64 {
    (cost * 1e6) as u64 + 1
}

/// Whether a node may be done by every device of its group.
fn may_repeat(placement: &Placement<'_>, index: usize) -> bool {
    let node = &placement.space.function.nodes[index];
    let is_operation =
        !matches!(node.op, Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. } | Op::Call { .. });
    is_operation
        && placement.choices.groups[index].size > 1
        && placement.choices.alone[index].is_none()
        && !placement.parts[node.results.start as usize]
}

/// Whether a limb has its home in the group of a node.
fn same_group(placement: &Placement<'_>, index: usize, value: ValueId) -> bool {
    if limb_prime(placement.space.function, value).is_none() {
        return true;
    }
    let group = placement.choices.groups[index];
    match placement.maker[value.index()] {
        Some(maker) => placement.choices.groups[maker] == group,
        None => group.size == placement.space.devices,
    }
}
