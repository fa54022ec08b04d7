//! Rounds of communication: what can be sent at the same time is sent in one collective.
//!
//! The round of a value on a device is the number of collectives before it at least. What is made in a round and needed elsewhere
//! is sent in the next one, together with everything else of its round, so that a function has as few collectives as its longest
//! chain of conversions.

use cerium_artifact::DeviceId;

use super::placement::{Placement, is_limb};
use super::set::Devices;
use crate::ir::{Operation, ValueId};
use crate::limb::Op;

/// The round of what a device never has.
const NEVER: u32 = u32::MAX;

/// A limb that goes from device to device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The collective that takes it, from 1.
    pub(super) round: u32,
    pub(super) value: ValueId,
    pub(super) from: DeviceId,
    pub(super) to: DeviceId,
    /// Whether it is a part of a sum, which is added up where it goes.
    pub(super) is_part: bool,
}

/// The rounds of a placed function.
pub(super) struct Rounds {
    devices: usize,
    /// The round of each whole value on each device, value by value.
    whole: Vec<u32>,
    /// The round of each part on each device.
    part: Vec<u32>,
    /// The round in which each device does each node, or all devices a call.
    nodes: Vec<u32>,
    /// All that moves, in order of values.
    pub(super) moves: Vec<Move>,
    /// The sums that are all-reduced, and in which round.
    pub(super) all_reduces: Vec<(u32, ValueId)>,
}

impl Rounds {
    pub(super) fn new(placement: &Placement<'_>) -> Rounds {
        let function = placement.space.function;
        let devices = placement.space.devices;
        let table = |rows: usize| vec![NEVER; rows * devices];
        let mut rounds = Rounds {
            devices,
            whole: table(function.types.len()),
            part: table(function.types.len()),
            nodes: table(function.nodes.len()),
            moves: Vec::new(),
            all_reduces: Vec::new(),
        };
        for param in function.params().filter(|&v| is_limb(function, v)) {
            for device in placement.held[param.index()].iter() {
                *rounds.whole_mut(param, device) = 0;
            }
            rounds.send(placement, param);
        }
        for index in 0..function.nodes.len() {
            rounds.add(placement, index);
        }
        rounds
    }

    /// The round of a node on a device that does it.
    pub(super) fn node(&self, node: usize, device: DeviceId) -> u32 {
        self.nodes[node * self.devices + device.index()]
    }

    /// The round from which a device has an operand of a node, as the node takes it.
    pub(super) fn operand(
        &self,
        placement: &Placement<'_>,
        node: usize,
        operand: ValueId,
        device: DeviceId,
    ) -> u32 {
        let table = if placement.takes_parts(node, operand) { &self.part } else { &self.whole };
        table[operand.index() * self.devices + device.index()]
    }

    /// The last round of all.
    pub(super) fn last(&self) -> u32 {
        let nodes = self.nodes.iter().chain(&self.whole).filter(|&&round| round != NEVER);
        nodes.copied().max().unwrap_or(0)
    }

    fn whole_mut(&mut self, value: ValueId, device: DeviceId) -> &mut u32 {
        &mut self.whole[value.index() * self.devices + device.index()]
    }

    fn add(&mut self, placement: &Placement<'_>, index: usize) {
        let function = placement.space.function;
        let node = &function.nodes[index];
        if matches!(node.op, Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. }) {
            return;
        }
        let operands = node.op.operands();
        if let Op::Call { .. } = node.op {
            let args = operands.iter().filter(|&&v| is_limb(function, v));
            let ready = args.map(|&arg| self.operand(placement, index, arg, function_home(placement, arg)));
            let round = ready.max().unwrap_or(0) + 1;
            self.nodes[index * self.devices..][..self.devices].fill(round);
            for result in node.results.clone().map(ValueId) {
                *self.whole_mut(result, placement.home(result)) = round;
                self.send(placement, result);
            }
            return;
        }
        let result = node.result();
        for device in placement.held[result.index()].iter() {
            let used = operands.iter().enumerate().filter(|&(position, &operand)| {
                is_limb(function, operand) && placement.users(index, position).contains(device)
            });
            let ready = used.map(|(_, &operand)| self.operand(placement, index, operand, device));
            let round = ready.max().unwrap_or(0);
            debug_assert!(round != NEVER, "{} needs what {device} never has", node.op.mnemonic());
            self.nodes[index * self.devices + device.index()] = round;
            let table = if placement.parts[result.index()] { &mut self.part } else { &mut self.whole };
            table[result.index() * self.devices + device.index()] = round;
        }
        self.send(placement, result);
    }

    /// Sends a value that was made to who needs it.
    fn send(&mut self, placement: &Placement<'_>, value: ValueId) {
        let needs = placement.needs[value.index()];
        if needs.is_empty() {
            return;
        }
        let held = placement.held[value.index()];
        if placement.parts[value.index()] {
            let parts = &self.part[value.index() * self.devices..][..self.devices];
            let made = held.iter().map(|device| parts[device.index()]).max().unwrap_or(0);
            if placement.choices.all_reduced[value.index()] {
                self.all_reduces.push((made + 1, value));
            } else {
                let to = placement.home(value);
                for from in held.minus(Devices::one(to)).iter() {
                    self.moves.push(Move { round: made + 1, value, from, to, is_part: true });
                }
            }
            for device in placement.whole(value).iter() {
                *self.whole_mut(value, device) = made + 1;
            }
        }
        let whole = placement.whole(value);
        let round =
            |this: &Rounds, device: DeviceId| this.whole[value.index() * this.devices + device.index()];
        let Some(from) = whole.iter().min_by_key(|&device| round(self, device)) else { return };
        let sent = round(self, from) + 1;
        for to in needs.minus(whole).iter() {
            self.moves.push(Move { round: sent, value, from, to, is_part: false });
            *self.whole_mut(value, to) = sent;
        }
    }

    /// Estimated time of the function: of the device that computes most, and of all collectives.
    pub(super) fn time(&self, placement: &Placement<'_>) -> f64 {
        let space = placement.space;
        let mut computing = vec![0.0; self.devices];
        for node in &space.function.nodes {
            let cost = space.costs.operation(&node.op);
            if cost > 0.0 {
                let makers = placement.held[node.results.start as usize];
                makers.iter().for_each(|device| computing[device.index()] += cost);
            }
        }
        let rounds = self.last() as usize + 2;
        let mut traffic = vec![[0u32; 2]; rounds * self.devices];
        let mut collectives = vec![0u32; rounds];
        for step in &self.moves {
            let row = step.round as usize * self.devices;
            traffic[row + step.from.index()][0] += 1;
            traffic[row + step.to.index()][1] += 1;
            collectives[step.round as usize] = 1;
        }
        let mut summed = vec![0u32; rounds];
        for &(round, _) in &self.all_reduces {
            summed[round as usize] += 1;
        }
        let share = 2.0 * (self.devices - 1) as f64 / self.devices as f64;
        let moved =
            traffic.chunks(self.devices).zip(collectives).zip(summed).map(|((devices, exchanges), sums)| {
                let most = devices.iter().flatten().copied().max().unwrap_or(0);
                let limbs = f64::from(most) + share * f64::from(sums);
                limbs * space.costs.limb + f64::from(exchanges + u32::from(sums > 0)) * space.costs.latency
            });
        let slowest = computing.into_iter().fold(0.0, f64::max);
        slowest + moved.sum::<f64>()
    }
}

/// The home of a limb among all devices.
fn function_home(placement: &Placement<'_>, value: ValueId) -> DeviceId {
    let prime = super::placement::limb_prime(placement.space.function, value);
    placement.space.home(prime.expect("arguments are limbs"))
}
