//! Output aggregation: key switches that are added up are each done as a whole on one device.
//!
//! ```text
//! switch(x0) + switch(x1) + .. + switch(x7), on devices 0 to 7:
//! input broadcast      every limb of every x to 7 devices, conversions and products by prime
//! output aggregation   every limb of x_i to device i; products, automorphisms and sums there;
//!                      of each limb of the sum, 7 parts to its home
//! ```
//!
//! For r inputs of L limbs and sums of S limbs on D devices, broadcasts move r L (D - 1) limbs and aggregation r L (D - 1) / D +
//! S (D - 1): it pays for sums of many switches, such as the giant steps of a linear transform.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cerium_artifact::DeviceId;

use super::placement::{Choices, Placement, is_limb, is_linear};
use super::switches::Switches;
use crate::ir::{Operation, ValueId};
use crate::limb::Op;

/// One choice for each batch of key switches that is not aggregated yet.
pub(super) fn candidates(placement: &Placement<'_>) -> Vec<Choices> {
    let switches = Switches::new(placement);
    let batches = batches(placement, &switches);
    batches.iter().filter_map(|batch| aggregated(placement, &switches, batch)).collect()
}

/// The inputs of key switches whose products are added up, by the first set of each; batches of one are left out.
fn batches(placement: &Placement<'_>, switches: &Switches) -> Vec<BTreeSet<usize>> {
    let function = placement.space.function;
    let mut batch: Vec<usize> = (0..switches.sets.len()).collect();
    let find = |batch: &[usize], mut at: usize| {
        while batch[at] != at {
            at = batch[at];
        }
        at
    };
    // The input that each value is a linear function of.
    let mut flows: HashMap<ValueId, usize> = HashMap::new();
    for (index, set) in switches.sets.iter().enumerate() {
        if set.only_switched && !set.keys.is_empty() {
            let of_set = set.transforms.iter().map(|&node| function.nodes[node].result());
            flows.extend(of_set.map(|value| (value, switches.input(index))));
        }
    }
    for node in function.nodes.iter().filter(|node| is_linear(&node.op)) {
        let mut met = None;
        for operand in node.op.operands() {
            let Some(&input) = flows.get(&operand) else { continue };
            let (a, b) = (find(&batch, input), find(&batch, *met.get_or_insert(input)));
            batch[a.max(b)] = a.min(b);
        }
        if let Some(input) = met {
            flows.insert(node.result(), input);
        }
    }
    let mut batches: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (index, set) in switches.sets.iter().enumerate() {
        if set.only_switched && !set.keys.is_empty() {
            let input = switches.input(index);
            batches.entry(find(&batch, input)).or_default().insert(input);
        }
    }
    batches.into_values().filter(|batch| batch.len() > 1).collect()
}

/// The choice with the inputs of a batch on one device each, in turn; `None` if they are already.
fn aggregated(placement: &Placement<'_>, switches: &Switches, batch: &BTreeSet<usize>) -> Option<Choices> {
    let function = placement.space.function;
    let mut choices = placement.choices.clone();
    let uses = function.use_counts();
    for (turn, &input) in batch.iter().enumerate() {
        for set in switches.sets.iter().enumerate().filter(|(index, _)| switches.input(*index) == input) {
            let set = set.1;
            let group = placement.choices.groups[*set.conversions.first()?];
            let device = DeviceId((group.first + turn % group.size) as u16);
            let mut alone = |node: usize| {
                choices.alone[node] = Some(device);
                choices.repeated[node] = false;
            };
            set.conversions.iter().chain(&set.transforms).for_each(|&node| alone(node));
            // What makes the sources, as far as it makes nothing else.
            let own = |value: ValueId| uses[value.index()] as usize == set.conversions.len();
            for &source in set.sources.iter().filter(|&&source| own(source)) {
                let mut at = source;
                while let Some(node) = placement.maker[at.index()] {
                    let op = &function.nodes[node].op;
                    if !matches!(op, Op::Intt { .. } | Op::MulScalar { .. }) {
                        break;
                    }
                    alone(node);
                    at = op.operands()[0];
                    if !is_limb(function, at) || uses[at.index()] != 1 {
                        break;
                    }
                }
            }
        }
    }
    (choices.alone != placement.choices.alone).then_some(choices)
}
