//! Plans the memory of a function: a slot of the frame for every limb that lives across launches.
//!
//! A slot is free again after the launch that reads its limb last; a block may also store where it alone loads for the last time
//! (see the rules of [`cerium_artifact::kernel`]). Slots freed last are used first, while they are in cache.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use cerium_artifact::Operand;

use super::horizontal::{Content, Launch, is_limb, reads_of};
use super::program::{Limb, Shape};
use super::vertical::Class;
use crate::ir::ValueId;
use crate::limb::{Function, Op};

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

/// Runs the allocation.
pub(super) fn allocate(function: &Function, launches: &[Launch]) -> Plan {
    let replaced = Replaced::new(function);
    let mut plan = slots(function, launches, &replaced);
    for (&sum, part) in &replaced.0 {
        if let Some(&place) = plan.places.get(part) {
            plan.places.insert(sum, place);
        }
    }
    plan
}

/// The part that each sum over devices takes the place of.
struct Replaced(HashMap<ValueId, ValueId>);

impl Replaced {
    fn new(function: &Function) -> Replaced {
        let mut replaced = HashMap::new();
        for node in &function.nodes {
            if let Op::AllReduce { parts } = &node.op {
                replaced.extend(node.results.clone().map(ValueId).zip(parts.iter().copied()));
            }
        }
        Replaced(replaced)
    }

    /// What stands for a value in the memory plan.
    fn of(&self, value: ValueId) -> ValueId {
        self.0.get(&value).copied().unwrap_or(value)
    }
}

/// Slots for all values but sums over devices.
fn slots(function: &Function, launches: &[Launch], replaced: &Replaced) -> Plan {
    let reads = |launch: &Launch| -> Vec<ValueId> {
        reads(function, launch).into_iter().map(|value| replaced.of(value)).collect()
    };
    let mut plan = Plan { places: HashMap::new(), copies: Vec::new(), frame: 0 };
    for (i, value) in function.params().filter(|&v| is_limb(function, v)).enumerate() {
        plan.places.insert(value, Operand::Arg(i as u32));
    }
    for (i, &value) in function.results.iter().enumerate() {
        let place = Operand::Result(i as u32);
        match plan.places.entry(replaced.of(value)) {
            Entry::Occupied(_) => plan.copies.push((value, place)),
            Entry::Vacant(free) => {
                free.insert(place);
            }
        }
    }
    let mut last_use: HashMap<ValueId, usize> = HashMap::new();
    for (i, launch) in launches.iter().enumerate() {
        for value in reads(launch) {
            last_use.insert(value, i);
        }
    }
    let mut free: Vec<u32> = Vec::new();
    for (i, launch) in launches.iter().enumerate() {
        let read = reads(launch);
        let mut readers: HashMap<ValueId, u32> = HashMap::new();
        read.iter().for_each(|&v| *readers.entry(v).or_default() += 1);
        let dies = |v: &ValueId| last_use[v] == i;
        let mut reused: HashSet<ValueId> = HashSet::new();
        for (value, candidates) in in_place(function, launch) {
            if plan.places.contains_key(&value) {
                continue;
            }
            let candidate = candidates.into_iter().map(|c| replaced.of(c)).find(|c| {
                readers[c] == 1
                    && dies(c)
                    && !reused.contains(c)
                    && matches!(plan.places.get(c), Some(Operand::Local(_)))
            });
            if let Some(candidate) = candidate {
                reused.insert(candidate);
                plan.places.insert(value, plan.places[&candidate]);
            }
        }
        let made = outputs(function, launch);
        for value in &made {
            if !plan.places.contains_key(value) {
                let slot = free.pop().unwrap_or_else(|| {
                    plan.frame += 1;
                    plan.frame - 1
                });
                plan.places.insert(*value, Operand::Local(slot));
            }
        }
        let mut dead: Vec<ValueId> =
            readers.keys().copied().filter(|v| dies(v) && !reused.contains(v)).collect();
        // A result of a call that nobody reads dies at once.
        dead.extend(made.into_iter().filter(|v| !last_use.contains_key(v)));
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

/// The limbs in memory that a launch reads, once for each block (target of a conversion) that reads them.
fn reads(function: &Function, launch: &Launch) -> Vec<ValueId> {
    reads_of(function, launch).into_iter().filter(|&v| is_limb(function, v)).collect()
}

/// The values that a launch stores.
fn outputs(function: &Function, launch: &Launch) -> Vec<ValueId> {
    match &launch.content {
        Content::Call(node) | Content::Start(node) => match &function.nodes[*node].op {
            Op::AllReduce { .. } => Vec::new(),
            _ => function.nodes[*node].results.clone().map(ValueId).collect(),
        },
        Content::Finish(..) => Vec::new(),
        Content::Blocks(_, blocks) => {
            blocks.iter().flat_map(|block| &block.limbs).flat_map(|limb| limb.stores.clone()).collect()
        }
    }
}

/// For each value that may be stored where its block loads: the values it may replace.
fn in_place(function: &Function, launch: &Launch) -> Vec<(ValueId, Vec<ValueId>)> {
    let Content::Blocks(shape, blocks) = &launch.content else { return Vec::new() };
    let rule = Replaceable::new(shape);
    let limbs = blocks.iter().flat_map(|block| &block.limbs);
    limbs.flat_map(|limb| rule.candidates(function, limb)).collect()
}

/// Which loads of a shape may be replaced by which stores.
struct Replaceable {
    /// Loads through automorphisms: never.
    moved: HashSet<u16>,
    /// Loads of the epilogue: by stores of the epilogue but the first, the home of a transform.
    late: HashSet<u16>,
    early_stores: usize,
}

impl Replaceable {
    fn new(shape: &Shape) -> Replaceable {
        let moved = shape.prologue.moved().chain(shape.program.moved()).collect();
        match shape.class {
            Class::Ntt | Class::Intt => Replaceable {
                moved,
                late: shape.program.loads().collect(),
                early_stores: shape.prologue.results.len() + 1,
            },
            Class::Elementwise | Class::BaseConvert | Class::Call | Class::Collective => {
                Replaceable { moved, late: HashSet::new(), early_stores: 0 }
            }
        }
    }

    fn candidates(&self, function: &Function, limb: &Limb) -> Vec<(ValueId, Vec<ValueId>)> {
        // A value may stand in several loads: one that forbids is enough.
        let forbidden = |early: bool| {
            let loads = limb.loads.iter().enumerate();
            let forbids = |load: u16| self.moved.contains(&load) || early && self.late.contains(&load);
            let loads = loads.filter(|&(load, _)| u16::try_from(load).map_or(true, forbids));
            loads.map(|(_, &value)| value).collect::<HashSet<ValueId>>()
        };
        let forbidden = [forbidden(false), forbidden(true)];
        let candidates = |(store, &value): (usize, &ValueId)| {
            let forbidden = &forbidden[usize::from(store < self.early_stores)];
            let loads = limb.loads.iter().copied();
            (value, loads.filter(|v| is_limb(function, *v) && !forbidden.contains(v)).collect())
        };
        limb.stores.iter().enumerate().map(candidates).collect()
    }
}
