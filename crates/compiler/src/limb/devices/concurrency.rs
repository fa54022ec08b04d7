//! Independent calls of one function become one call of as many copies of it, which then run side by side on groups of devices.
//!
//! ```text
//! %1 = call(%x) {function=@f}               %1, %2 = call(%x, %y) {function=@f.x2}
//! %2 = call(%y) {function=@f}        ->
//! ```
//!
//! A program on several ciphertexts, such as the bootstraps of a layer, so communicates less or not at all: on as many devices as
//! there are calls, each ciphertext is on one. What the copies call is called together in turn. Calls are independent if
//! the chains of calls before them are equally long.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use cerium_artifact::DeviceId;

use super::costs::Costs;
use super::placement::{Choices, Placement};
use super::rounds::Rounds;
use super::{Space, groups, improve};
use crate::ir::{Node, Operation, Symbol, ValueId};
use crate::limb::{Builder, Function, Module, Op};

/// Joins calls where that is expected to be faster on devices with these homes.
pub(super) fn join_calls(module: &Module, homes: &[DeviceId], devices: usize, costs: &Costs) -> Module {
    let mut joined = Module::new(module.context.clone(), module.stages.clone());
    let mut joining =
        Joining { source: module, homes, devices, costs, times: HashMap::new(), done: HashMap::new() };
    let entry = module.functions.len() - 1;
    joining.add(&mut joined, entry, 1);
    joined
}

struct Joining<'a> {
    source: &'a Module,
    homes: &'a [DeviceId],
    devices: usize,
    costs: &'a Costs,
    /// Estimated time of copies of a function, by its index and their number.
    times: HashMap<(usize, usize), f64>,
    /// What copies of a function are called, once they are added.
    done: HashMap<(usize, usize), Symbol>,
}

impl Joining<'_> {
    /// Adds so many copies of a function as one, after what it calls; returns its name.
    fn add(&mut self, joined: &mut Module, index: usize, count: usize) -> Symbol {
        if let Some(name) = self.done.get(&(index, count)) {
            return name.clone();
        }
        let function = copies(self.source, &self.source.functions[index], count);
        let batches = self.batches(&function);
        let names: Vec<Symbol> =
            batches.iter().map(|batch| self.add(joined, batch.callee, batch.calls.len())).collect();
        let function = rewrite(joined, &function, &batches, &names);
        let name = function.name.clone();
        joined.functions.push(function);
        self.done.insert((index, count), name.clone());
        name
    }

    /// All calls of a function, in batches that are made together.
    fn batches(&mut self, function: &Function) -> Vec<Batch> {
        let mut depth = vec![0u32; function.types.len()];
        let mut levels: BTreeMap<(u32, usize), Vec<usize>> = BTreeMap::new();
        for (index, node) in function.nodes.iter().enumerate() {
            let before = node.op.operands().iter().map(|v| depth[v.index()]).max().unwrap_or(0);
            let mut own = before;
            if let Op::Call { function: callee, .. } = &node.op {
                let (callee, _) = self.source.find(callee).expect("verified modules call defined functions");
                own += 1;
                levels.entry((own, callee)).or_default().push(index);
            }
            node.results.clone().for_each(|result| depth[result as usize] = own);
        }
        let mut batches = Vec::new();
        for ((_, callee), mut calls) in levels {
            while !calls.is_empty() {
                let count = self.count(callee, calls.len());
                let rest = calls.split_off(count);
                batches.push(Batch { callee, calls });
                calls = rest;
            }
        }
        batches
    }

    /// How many of so many independent calls are best made together.
    fn count(&mut self, callee: usize, calls: usize) -> usize {
        let counts = (2..=calls.min(self.devices)).filter(|&count| self.devices.is_multiple_of(count));
        let counts: Vec<usize> = std::iter::once(1).chain(counts).collect();
        let each = |this: &mut Self, count: usize| this.time(callee, count) / count as f64;
        let times: Vec<(f64, usize)> = counts.into_iter().map(|count| (each(self, count), count)).collect();
        let best = times.into_iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.map_or(1, |(_, count)| count)
    }

    /// Estimated time of so many copies of a function, with what they call.
    fn time(&mut self, index: usize, count: usize) -> f64 {
        if let Some(&time) = self.times.get(&(index, count)) {
            return time;
        }
        let function = copies(self.source, &self.source.functions[index], count);
        let space =
            Space { function: &function, homes: self.homes, devices: self.devices, costs: self.costs };
        let placement = improve(Placement::new(&space, Choices::new(&space)), groups::candidates, false);
        let mut time = Rounds::new(&placement).time(&placement);
        for batch in self.batches(&function) {
            time += self.time(batch.callee, batch.calls.len());
        }
        self.times.insert((index, count), time);
        time
    }
}

/// Calls of one function that are made together: nodes of their function.
struct Batch {
    callee: usize,
    calls: Vec<usize>,
}

/// A function that does what `count` calls of another do: its parameters and results are those of the calls, one behind the other.
fn copies(module: &Module, function: &Function, count: usize) -> Function {
    if count == 1 {
        return function.clone();
    }
    let name = Symbol(format!("{}.x{count}", function.name.0).into());
    let params = (0..count).flat_map(|_| function.param_types().to_vec()).collect();
    let mut builder = Builder::new(name, params);
    let mut results = Vec::new();
    for copy in 0..count as u32 {
        let mut map: Vec<ValueId> =
            function.params().map(|v| ValueId(v.0 + copy * function.params)).collect();
        for node in &function.nodes {
            push(module, &mut builder, node, &mut map);
        }
        results.extend(function.results.iter().map(|v| map[v.index()]));
    }
    builder.finish(results)
}

/// Adds a node whose operands have other numbers; the numbers of its results go to `map`.
fn push(module: &Module, builder: &mut Builder, node: &Node<Op>, map: &mut Vec<ValueId>) {
    let mut op = node.op.clone();
    op.map_operands(|v| map[v.index()]);
    builder.stage = node.stage;
    let results = builder.try_push(module, op);
    let results = results.unwrap_or_else(|message| panic!("calls joined: {message}"));
    map.resize(node.results.start as usize, ValueId(u32::MAX));
    map.extend(results.map(ValueId));
}

/// The function with each batch of calls as one call of the function of that name.
fn rewrite(module: &Module, function: &Function, batches: &[Batch], names: &[Symbol]) -> Function {
    let calls =
        batches.iter().enumerate().flat_map(|(index, batch)| batch.calls.iter().map(move |&c| (c, index)));
    let batch_of: HashMap<usize, usize> = calls.collect();
    let mut builder = Builder::new(function.name.clone(), function.param_types().to_vec());
    let mut map: Vec<ValueId> = vec![ValueId(u32::MAX); function.types.len()];
    function.params().for_each(|v| map[v.index()] = v);
    for index in order(function, batches, &batch_of) {
        let node = &function.nodes[index];
        builder.stage = node.stage;
        let (op, results) = match batch_of.get(&index) {
            None => {
                let mut op = node.op.clone();
                op.map_operands(|v| map[v.index()]);
                (op, node.results.clone().collect::<Vec<u32>>())
            }
            Some(&batch) => {
                let calls = batches[batch].calls.iter().map(|&call| &function.nodes[call]);
                let args =
                    calls.clone().flat_map(|call| call.op.operands()).map(|v| map[v.index()]).collect();
                let op = Op::Call { args, function: names[batch].clone() };
                (op, calls.flat_map(|call| call.results.clone()).collect())
            }
        };
        let made = builder.try_push(module, op);
        let made = made.unwrap_or_else(|message| panic!("calls joined: {message}"));
        for (old, new) in results.into_iter().zip(made) {
            map[old as usize] = ValueId(new);
        }
    }
    builder.finish(function.results.iter().map(|v| map[v.index()]).collect())
}

/// The nodes in an order in which operands stand before their users, as close to the old one as may be; of each batch only the
/// first call, where all its operands are there.
fn order(function: &Function, batches: &[Batch], batch_of: &HashMap<usize, usize>) -> Vec<usize> {
    let first = |index: usize| batch_of.get(&index).map_or(index, |&batch| batches[batch].calls[0]);
    let mut maker: Vec<Option<usize>> = vec![None; function.types.len()];
    for (index, node) in function.nodes.iter().enumerate() {
        node.results.clone().for_each(|result| maker[result as usize] = Some(first(index)));
    }
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); function.nodes.len()];
    for (index, node) in function.nodes.iter().enumerate() {
        let makers = node.op.operands().into_iter().filter_map(|v| maker[v.index()]);
        before[first(index)].extend(makers);
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); function.nodes.len()];
    for (index, makers) in before.iter().enumerate() {
        makers.iter().for_each(|&maker| users[maker].push(index));
    }
    let mut waiting: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    let represented = (0..function.nodes.len()).filter(|&index| first(index) == index);
    let mut ready: BinaryHeap<Reverse<usize>> =
        represented.filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(function.nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    order
}
