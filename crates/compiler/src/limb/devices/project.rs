//! Writes the function of each device: what it makes, and the collectives that all take part in.
//!
//! Operations stand in the order of their rounds. Before a collective stands what it sends; what it does not need comes after it,
//! to be done while limbs are on their way.

use std::collections::{BTreeMap, HashMap};

use cerium_artifact::{DeviceId, StageId};

use super::exchanges::Exchanges;
use super::placement::{Placement, is_limb, limb_prime};
use super::rounds::Rounds;
use crate::ir::{Operation, ValueId};
use crate::limb::{Arrival, Builder, Function, Module, Op, Type};

/// The function of each device. `modules` hold the functions before it.
pub(super) fn project(
    placement: &Placement<'_>,
    rounds: &Rounds,
    exchanges: &Exchanges,
    modules: &[Module],
) -> Vec<Function> {
    let devices = (0..placement.space.devices).map(|index| DeviceId(index as u16));
    let project = |(device, module): (DeviceId, &Module)| {
        Projection::new(placement, rounds, exchanges, module, device).write()
    };
    devices.zip(modules).map(project).collect()
}

/// The function of one device under construction.
struct Projection<'a> {
    placement: &'a Placement<'a>,
    rounds: &'a Rounds,
    exchanges: &'a Exchanges,
    module: &'a Module,
    device: DeviceId,
    builder: Builder,
    /// What stands for each whole value, each part, and each weight, plaintext and key.
    whole: HashMap<ValueId, ValueId>,
    part: HashMap<ValueId, ValueId>,
    references: HashMap<ValueId, ValueId>,
    /// Parts of sums that came from other devices and are not added yet.
    arrived: BTreeMap<ValueId, Vec<ValueId>>,
}

impl<'a> Projection<'a> {
    fn new(
        placement: &'a Placement<'a>,
        rounds: &'a Rounds,
        exchanges: &'a Exchanges,
        module: &'a Module,
        device: DeviceId,
    ) -> Projection<'a> {
        let function = placement.space.function;
        let is_own = |value: &ValueId| is_own(placement, *value, device);
        let params: Vec<ValueId> = function.params().filter(is_own).collect();
        let types = params.iter().map(|&v| *function.type_of(v)).collect();
        let mut projection = Projection {
            placement,
            rounds,
            exchanges,
            module,
            device,
            builder: Builder::new(function.name.clone(), types),
            whole: HashMap::new(),
            part: HashMap::new(),
            references: HashMap::new(),
            arrived: BTreeMap::new(),
        };
        for (index, &param) in params.iter().enumerate() {
            let own = ValueId(index as u32);
            let table = match is_limb(function, param) {
                true => &mut projection.whole,
                false => &mut projection.references,
            };
            table.insert(param, own);
        }
        projection
    }

    fn write(mut self) -> Function {
        let function = self.placement.space.function;
        let order = Order::new(&self);
        for round in 0..=self.rounds.last() {
            self.start(round);
            if let Some(before) = round.checked_sub(1) {
                order.others(before).iter().for_each(|&node| self.node(node));
            }
            order.calls(round).iter().for_each(|&node| self.call(node));
            self.add_up();
            order.awaited(round).iter().for_each(|&node| self.node(node));
        }
        order.others(self.rounds.last()).iter().for_each(|&node| self.node(node));
        let own = function.results.iter().filter(|&&v| is_own(self.placement, v, self.device));
        let results = own.map(|v| self.whole[v]).collect();
        self.builder.finish(results)
    }

    /// The collectives of a round.
    fn start(&mut self, round: u32) {
        let function = self.placement.space.function;
        let sums: Vec<ValueId> =
            self.rounds.all_reduces.iter().filter(|(at, _)| *at == round).map(|(_, value)| *value).collect();
        if let Some(&first) = sums.first() {
            self.builder.stage = self.stage_of(first);
            let parts = sums.iter().map(|value| self.part[value]).collect();
            let results = self.push_all(Op::AllReduce { parts });
            self.whole.extend(sums.into_iter().zip(results));
        }
        for moves in self.exchanges.of_round(round) {
            self.builder.stage = self.stage_of(moves[0].value);
            let (mut sent, mut to, mut from, mut arriving) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for step in moves {
                if step.from == self.device {
                    let table = if step.is_part { &self.part } else { &self.whole };
                    sent.push(table[&step.value]);
                    to.push(step.to);
                }
                if step.to == self.device {
                    let &Type::Limb { prime, domain } = function.type_of(step.value) else {
                        unreachable!("only limbs move")
                    };
                    from.push(Arrival { from: step.from, domain, prime });
                    arriving.push(step);
                }
            }
            let received = self.push_all(Op::Exchange { sent, to, from });
            for (step, value) in arriving.into_iter().zip(received) {
                match step.is_part {
                    false => drop(self.whole.insert(step.value, value)),
                    true => self.arrived.entry(step.value).or_default().push(value),
                }
            }
        }
    }

    /// Adds the parts that came.
    fn add_up(&mut self) {
        for (sum, parts) in std::mem::take(&mut self.arrived) {
            self.builder.stage = self.stage_of(sum);
            let own = self.part.get(&sum).copied();
            let mut all = own.into_iter().chain(parts);
            let first = all.next().expect("a part arrived");
            let whole = all.fold(first, |a, b| self.builder.push(self.module, Op::Add { a, b }));
            self.whole.insert(sum, whole);
        }
    }

    fn node(&mut self, index: usize) {
        let node = &self.placement.space.function.nodes[index];
        self.builder.stage = node.stage;
        let operands = node.op.operands();
        let is_used = |position: usize| self.placement.users(index, position).contains(self.device);
        let used: Vec<bool> = (0..operands.len()).map(is_used).collect();
        let result = node.result();
        let made = match (&node.op, used.as_slice()) {
            (Op::Add { a, .. }, [true, false]) | (Op::Sub { a, .. }, [true, false]) => self.local(index, *a),
            (Op::Add { b, .. }, [false, true]) => self.local(index, *b),
            (Op::Sub { b, .. }, [false, true]) => {
                let a = self.local(index, *b);
                self.builder.push(self.module, Op::Neg { a })
            }
            (Op::Dot { terms }, _) => {
                let pairs = terms.chunks(2).zip(used.chunks(2)).filter(|(_, used)| used[0]);
                let terms = pairs.flat_map(|(pair, _)| pair.to_vec()).map(|v| self.local(index, v)).collect();
                self.builder.push(self.module, Op::Dot { terms })
            }
            (op, _) => {
                let mut op = op.clone();
                op.map_operands(|v| self.local(index, v));
                self.builder.push(self.module, op)
            }
        };
        let table = if self.placement.parts[result.index()] { &mut self.part } else { &mut self.whole };
        table.insert(result, made);
    }

    fn call(&mut self, index: usize) {
        let function = self.placement.space.function;
        let node = &function.nodes[index];
        self.builder.stage = node.stage;
        let Op::Call { args, function: callee } = &node.op else { unreachable!("only calls are calls") };
        let mut own = args.clone();
        own.retain(|&arg| is_own(self.placement, arg, self.device));
        let args = own.into_iter().map(|arg| self.local(index, arg)).collect();
        let results = self.push_all(Op::Call { args, function: callee.clone() });
        let own = node.results.clone().map(ValueId).filter(|&v| is_own(self.placement, v, self.device));
        self.whole.extend(own.zip(results));
    }

    /// What stands here for an operand of a node.
    fn local(&mut self, node: usize, value: ValueId) -> ValueId {
        let function = self.placement.space.function;
        if is_limb(function, value) {
            let table = if self.placement.takes_parts(node, value) { &self.part } else { &self.whole };
            return table[&value];
        }
        if let Some(&known) = self.references.get(&value) {
            return known;
        }
        let maker = self.placement.maker[value.index()].expect("parameters are known");
        let mut op = function.nodes[maker].op.clone();
        op.map_operands(|v| self.local(maker, v));
        let own = self.builder.push(self.module, op);
        self.references.insert(value, own);
        own
    }

    fn push_all(&mut self, op: Op) -> Vec<ValueId> {
        let results = self.builder.try_push(self.module, op);
        let results = results.unwrap_or_else(|message| panic!("placed on {}: {message}", self.device));
        results.map(ValueId).collect()
    }

    /// The stage of what makes a value.
    fn stage_of(&self, value: ValueId) -> StageId {
        let maker = self.placement.maker[value.index()];
        maker.map_or(StageId(0), |node| self.placement.space.function.nodes[node].stage)
    }
}

/// Whether a parameter, argument or result stands in the signature on a device: limbs of its own, and all weights.
fn is_own(placement: &Placement<'_>, value: ValueId, device: DeviceId) -> bool {
    limb_prime(placement.space.function, value).is_none_or(|prime| placement.space.home(prime) == device)
}

/// The nodes of a device, by round.
struct Order {
    awaited: Vec<Vec<usize>>,
    others: Vec<Vec<usize>>,
    calls: Vec<Vec<usize>>,
}

impl Order {
    fn new(projection: &Projection<'_>) -> Order {
        let Projection { placement, rounds, device, .. } = *projection;
        let function = placement.space.function;
        // What others or calls wait for, with the round that makes it.
        let mut awaited = vec![false; function.types.len()];
        for step in rounds.moves.iter().filter(|step| step.from == device) {
            awaited[step.value.index()] = true;
        }
        rounds.all_reduces.iter().for_each(|(_, value)| awaited[value.index()] = true);
        // What is made everywhere need not be used everywhere.
        let mut used = awaited.clone();
        let leaves = |value: &&ValueId| is_own(placement, **value, device);
        function.results.iter().filter(leaves).for_each(|result| used[result.index()] = true);
        let count = rounds.last() as usize + 1;
        let mut order = Order {
            awaited: vec![Vec::new(); count],
            others: vec![Vec::new(); count],
            calls: vec![Vec::new(); count],
        };
        for (index, node) in function.nodes.iter().enumerate().rev() {
            match &node.op {
                Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. } => continue,
                Op::Call { args, .. } => {
                    for arg in args.iter().filter(leaves) {
                        (awaited[arg.index()], used[arg.index()]) = (true, true);
                    }
                    order.calls[rounds.node(index, device) as usize].push(index);
                    continue;
                }
                _ => {}
            }
            let result = node.result();
            if !placement.held[result.index()].contains(device) || !used[result.index()] {
                continue;
            }
            let operands = node.op.operands().into_iter().enumerate();
            let taken = operands.filter(|&(position, operand)| {
                is_limb(function, operand) && placement.users(index, position).contains(device)
            });
            let taken: Vec<ValueId> = taken.map(|(_, operand)| operand).collect();
            taken.iter().for_each(|operand| used[operand.index()] = true);
            let round = rounds.node(index, device);
            if !awaited[result.index()] {
                order.others[round as usize].push(index);
                continue;
            }
            order.awaited[round as usize].push(index);
            for operand in taken {
                awaited[operand.index()] |= rounds.operand(placement, index, operand, device) == round;
            }
        }
        for nodes in order.awaited.iter_mut().chain(&mut order.others).chain(&mut order.calls) {
            nodes.reverse();
        }
        order
    }

    fn awaited(&self, round: u32) -> &[usize] {
        &self.awaited[round as usize]
    }

    fn others(&self, round: u32) -> &[usize] {
        &self.others[round as usize]
    }

    fn calls(&self, round: u32) -> &[usize] {
        &self.calls[round as usize]
    }
}
