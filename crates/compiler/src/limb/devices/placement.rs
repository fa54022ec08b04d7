//! Which device makes which value of a function, and which devices need it besides.
//!
//! A value is *whole* on the devices that make it, or a *sum of parts*: every device of a set has a part, and the value is their
//! sum. Linear operations on parts are done on each part; whatever else needs the value needs it whole, and then the parts are
//! added at its home, or everywhere.

use std::collections::HashMap;

use cerium_artifact::DeviceId;
use cerium_ckks::basis::PrimeIndex;

use super::Space;
use super::set::Devices;
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op, Type};

/// The devices among which the limbs of a part of a function are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) size: usize,
}

impl Group {
    /// Its devices.
    pub(super) fn devices(self) -> Devices {
        Devices::range(self.first, self.size)
    }

    /// Where limbs of a prime are at home in the group.
    pub(super) fn home(self, among_all: DeviceId) -> DeviceId {
        DeviceId((self.first + among_all.index() % self.size) as u16)
    }
}

/// What the passes choose.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    /// The group of each node.
    pub(super) groups: Vec<Group>,
    /// Nodes that a single device makes, whatever their homes.
    pub(super) alone: Vec<Option<DeviceId>>,
    /// Nodes that every device of their group makes.
    pub(super) repeated: Vec<bool>,
    /// Sums of parts that every device gets at once.
    pub(super) all_reduced: Vec<bool>,
}

impl Choices {
    /// Every limb at home.
    pub(super) fn new(space: &Space<'_>) -> Choices {
        let (nodes, values) = (space.function.nodes.len(), space.function.types.len());
        Choices {
            groups: vec![Group { first: 0, size: space.devices }; nodes],
            alone: vec![None; nodes],
            repeated: vec![false; nodes],
            all_reduced: vec![false; values],
        }
    }
}

/// A function with a place for every value.
pub(super) struct Placement<'a> {
    pub(super) space: &'a Space<'a>,
    pub(super) choices: Choices,
    /// The node that makes each value; `None` for parameters.
    pub(super) maker: Vec<Option<usize>>,
    /// Who makes each value, whole or a part of it; nobody for what is no limb.
    pub(super) held: Vec<Devices>,
    /// Whether what they make are parts.
    pub(super) parts: Vec<bool>,
    /// Who needs each value whole, its makers included if they do.
    pub(super) needs: Vec<Devices>,
    /// For nodes that make parts: the devices that use each operand, in order of operands.
    pub(super) terms: HashMap<usize, Vec<Devices>>,
}

impl<'a> Placement<'a> {
    /// Places a function as it was chosen.
    pub(super) fn new(space: &'a Space<'a>, choices: Choices) -> Placement<'a> {
        let function = space.function;
        let values = function.types.len();
        let mut maker = vec![None; values];
        for (index, node) in function.nodes.iter().enumerate() {
            node.results.clone().for_each(|result| maker[result as usize] = Some(index));
        }
        let mut placement = Placement {
            space,
            choices,
            maker,
            held: vec![Devices::NONE; values],
            parts: vec![false; values],
            needs: vec![Devices::NONE; values],
            terms: HashMap::new(),
        };
        for param in function.params() {
            if let Some(prime) = limb_prime(function, param) {
                placement.held[param.index()] = Devices::one(space.home(prime));
            }
        }
        (0..function.nodes.len()).for_each(|index| placement.place(index));
        for &result in &function.results {
            placement.need_at_home(result);
        }
        placement
    }

    /// The home of a value, in the group of the node that makes it.
    pub(super) fn home(&self, value: ValueId) -> DeviceId {
        let function = self.space.function;
        let prime = limb_prime(function, value).expect("only limbs have homes");
        let home = self.space.home(prime);
        match self.maker[value.index()] {
            Some(node) if !matches!(function.nodes[node].op, Op::Call { .. }) => {
                self.choices.groups[node].home(home)
            }
            _ => home,
        }
    }

    /// Who has a value whole when it is made or added up.
    pub(super) fn whole(&self, value: ValueId) -> Devices {
        match (self.parts[value.index()], self.choices.all_reduced[value.index()]) {
            (false, _) => self.held[value.index()],
            (true, false) => Devices::one(self.home(value)),
            (true, true) => Devices::range(0, self.space.devices),
        }
    }

    /// The devices that use an operand of a node: those that make the node, or fewer if it makes parts.
    pub(super) fn users(&self, node: usize, operand: usize) -> Devices {
        match self.terms.get(&node) {
            Some(terms) => terms[operand],
            None => self.held[self.space.function.nodes[node].results.start as usize],
        }
    }

    /// Whether a node takes an operand in parts.
    pub(super) fn takes_parts(&self, node: usize, operand: ValueId) -> bool {
        self.terms.contains_key(&node) && self.is_part(operand)
    }

    /// Whether a value is a sum of parts for linear operations.
    fn is_part(&self, value: ValueId) -> bool {
        self.parts[value.index()] && !self.choices.all_reduced[value.index()]
    }

    fn place(&mut self, index: usize) {
        let function = self.space.function;
        let node = &function.nodes[index];
        match &node.op {
            Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. } => return,
            Op::Call { args, .. } => {
                args.iter().for_each(|&arg| self.need_at_home(arg));
                for result in node.results.clone().map(ValueId) {
                    self.held[result.index()] = Devices::one(self.home(result));
                }
                return;
            }
            Op::Exchange { .. } | Op::AllReduce { .. } => unreachable!("the module is not placed yet"),
            _ => {}
        }
        let result = node.result();
        let group = self.choices.groups[index];
        let makers = if let Some(device) = self.choices.alone[index] {
            Devices::one(device)
        } else if self.choices.repeated[index] {
            group.devices()
        } else if is_linear(&node.op) && self.is_away(&node.op, self.home(result)) {
            return self.place_sum(index);
        } else {
            Devices::one(self.home(result))
        };
        self.held[result.index()] = makers;
        for operand in node.op.operands() {
            self.need(operand, makers);
        }
    }

    /// Whether an operand of a linear operation is a sum of parts, or whole somewhere else than at home.
    fn is_away(&self, op: &Op, home: DeviceId) -> bool {
        let limbs = op.operands().into_iter().filter(|&v| is_limb(self.space.function, v));
        limbs.into_iter().any(|v| self.is_part(v) || !self.whole(v).contains(home))
    }

    /// Places a linear operation where its operands are.
    fn place_sum(&mut self, index: usize) {
        let function = self.space.function;
        let node = &function.nodes[index];
        let operands = node.op.operands();
        let home = self.home(node.result());
        // Parts stay where they are, and what is made away from home stays there.
        let mut terms: Vec<Option<Devices>> = vec![None; operands.len()];
        let mut all = Devices::NONE;
        for (term, &operand) in terms.iter_mut().zip(&operands) {
            if !is_limb(function, operand) {
                continue;
            }
            let held = self.held[operand.index()];
            if self.is_part(operand) {
                *term = Some(held);
            } else if !self.whole(operand).contains(home) {
                *term = self.whole(operand).first().map(Devices::one);
            }
            all = all.union(term.unwrap_or_default());
        }
        // The others join one of these devices that has them anyway, or are added at home.
        for (term, &operand) in terms.iter_mut().zip(&operands) {
            if term.is_some() || !is_limb(function, operand) {
                continue;
            }
            let there = self.whole(operand).union(self.needs[operand.index()]);
            let device = all.intersection(there).first().unwrap_or(home);
            *term = Some(Devices::one(device));
            all = all.union(Devices::one(device));
        }
        for (term, &operand) in terms.iter().zip(&operands) {
            if let (Some(term), false) = (term, self.is_part(operand)) {
                self.need(operand, *term);
            }
        }
        let result = node.result().index();
        self.held[result] = all;
        let any_part = operands.iter().any(|&operand| self.is_part(operand));
        self.parts[result] = all.len() > 1 || any_part;
        if self.parts[result] {
            // Weights and keys stand beside the limbs that they are multiplied with.
            let beside = |term: &Option<Devices>| term.unwrap_or(all);
            self.terms.insert(index, terms.iter().map(beside).collect());
        }
    }

    fn need(&mut self, value: ValueId, devices: Devices) {
        if is_limb(self.space.function, value) {
            self.needs[value.index()] = self.needs[value.index()].union(devices);
        }
    }

    /// What leaves the function leaves it on its home among all devices.
    fn need_at_home(&mut self, value: ValueId) {
        if let Some(prime) = limb_prime(self.space.function, value) {
            self.need(value, Devices::one(self.space.home(prime)));
        }
    }
}

/// Whether a value is a limb.
pub(super) fn is_limb(function: &Function, value: ValueId) -> bool {
    matches!(function.type_of(value), Type::Limb { .. })
}

/// The prime of a limb; `None` for other values.
pub(super) fn limb_prime(function: &Function, value: ValueId) -> Option<PrimeIndex> {
    match function.type_of(value) {
        Type::Limb { prime, .. } => Some(*prime),
        Type::Weight { .. } | Type::Plain { .. } | Type::Key { .. } => None,
    }
}

/// Whether a sum of parts goes through the operation part by part. Transforms are linear as well, but cost too much to be done
/// for each part.
pub(super) fn is_linear(op: &Op) -> bool {
    match op {
        Op::Add { .. }
        | Op::Sub { .. }
        | Op::Neg { .. }
        | Op::MulMontgomery { .. }
        | Op::MulScalar { .. }
        | Op::Dot { .. }
        | Op::Permute { .. } => true,
        Op::Mul { .. }
        | Op::FromMontgomery { .. }
        | Op::AddScalar { .. }
        | Op::Ntt { .. }
        | Op::Intt { .. }
        | Op::BaseConvert { .. }
        | Op::Weight { .. }
        | Op::Plain { .. }
        | Op::Key { .. }
        | Op::Call { .. }
        | Op::Exchange { .. }
        | Op::AllReduce { .. } => false,
    }
}
