//! Vertical fusion: operations on one limb that run in one pass, their values kept in registers.
//!
//! ```text
//! %1 = base_convert(..)                      step  base_convert %1
//! %2 = ntt(%1)                               step  ntt %2 -> %3 -> %4
//! %3 = sub(%0, %2)                   ->      step  elementwise  load %4 permuted -> %6
//! %4 = mul_scalar(%3)
//! %5 = permute(%4)
//! %6 = mul_montgomery(%5, %key)
//! ```
//!
//! A *step* is one transform or one target of a base conversion with what is done to its words before and after, or a run of
//! elementwise operations. Steps are numbered by *depth*, the length of the longest chain of steps before them. An operation may join a
//! step if everything else it reads is made at smaller depths: then no path leads from the step through the operation back into the
//! step, and the depth of no step changes. So legality costs one comparison, and the fused steps are never later than they were.
//!
//! What joins what follows from the bytes that it saves:
//! - an operation joins the step that makes its operand (which then need not be read, and often not be written), or an elementwise
//!   step of the right depth that loads one of its operands anyway: both halves of a key product read the digits once, the real and
//!   imaginary parts of a bootstrap read the relinearization key once;
//! - a transform takes over the step that makes nothing but its operand;
//! - automorphisms and products with constants are done again by whoever loads their operand, rather than stored, unless the operand is
//!   needed nowhere else;
//! - epilogues stay short, and a transformed limb that many operations need is stored and left to an elementwise step, where they
//!   meet.

use std::collections::{HashMap, HashSet};

use super::{Fusion, KernelOptions, is_elementwise, is_reference};
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op};

/// Most operations of an elementwise program, its loads counted.
const MAX_PROGRAM: usize = 512;
/// Most operations of an epilogue: it shares the registers with the transform.
const MAX_EPILOGUE: usize = 16;
/// Most loads of an epilogue.
const MAX_EPILOGUE_LOADS: usize = 8;
/// Most loads of a prologue.
const MAX_PROLOGUE_LOADS: usize = 16;
/// Most uses of a transformed or converted limb of which one joins its step.
const MAX_EPILOGUE_USES: u32 = 2;

/// The classes of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    Elementwise,
    Ntt,
    Intt,
    /// One target of a conversion.
    BaseConvert,
    Call,
    /// Limbs that move between devices.
    Collective,
}

/// Operations that run in one pass; numbers are indices of nodes of the limb function. Operations that are done again by several steps
/// stand in each.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) class: Class,
    /// Before a transform.
    pub(super) prologue: Vec<usize>,
    /// The transform, conversion or call.
    pub(super) anchor: Option<usize>,
    /// The operations of an elementwise step; the epilogue of others.
    pub(super) body: Vec<usize>,
    /// Length of the longest chain of steps that ends with it.
    pub(super) depth: u32,
    /// The call or collective that must stand before it, whatever it reads.
    pub(super) after: Option<usize>,
    /// What the body loads.
    loads: HashSet<ValueId>,
}

impl Step {
    /// All its nodes in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.prologue.iter().chain(&self.anchor).chain(&self.body).copied()
    }
}

/// The steps of a function.
#[derive(Debug)]
pub(super) struct Steps {
    /// In an order of their first operations.
    pub(super) steps: Vec<Step>,
    /// The step that makes each value, if it is made for others and not again by whoever needs it.
    pub(super) step_of: Vec<Option<usize>>,
}

/// Runs vertical fusion.
pub(super) fn vertical(function: &Function, options: &KernelOptions) -> Steps {
    let mut maker = vec![None; function.types.len()];
    for (index, node) in function.nodes.iter().enumerate() {
        node.results.clone().for_each(|result| maker[result as usize] = Some(index));
    }
    let mut vertical = Vertical {
        function,
        fuses: options.fusion == Fusion::Full,
        ordered: options.ordered,
        last_event: None,
        uses: function.use_counts(),
        maker,
        step_of: vec![None; function.types.len()],
        again: vec![false; function.types.len()],
        steps: Vec::new(),
        loaders: HashMap::new(),
    };
    for (index, node) in function.nodes.iter().enumerate() {
        if !is_reference(&node.op) {
            vertical.add(index);
        }
    }
    for &result in &function.results {
        vertical.make(result);
    }
    Steps { steps: vertical.steps, step_of: vertical.step_of }
}

struct Vertical<'a> {
    function: &'a Function,
    fuses: bool,
    ordered: bool,
    /// The last call or collective.
    last_event: Option<usize>,
    /// How often each value is used.
    uses: Vec<u32>,
    /// The node that makes each value.
    maker: Vec<Option<usize>>,
    /// The step that makes each value.
    step_of: Vec<Option<usize>>,
    /// Values that whoever needs them makes again.
    again: Vec<bool>,
    steps: Vec<Step>,
    /// The elementwise step of a depth that loads a value.
    loaders: HashMap<(ValueId, u32), usize>,
}

impl Vertical<'_> {
    fn op(&self, index: usize) -> &Op {
        &self.function.nodes[index].op
    }

    /// Assigns a node to a step.
    fn add(&mut self, index: usize) {
        let op = self.op(index);
        let class = match op {
            Op::Ntt { .. } => Class::Ntt,
            Op::Intt { .. } => Class::Intt,
            Op::BaseConvert { .. } => Class::BaseConvert,
            Op::Call { .. } => Class::Call,
            Op::Exchange { .. } | Op::AllReduce { .. } => Class::Collective,
            op => {
                debug_assert!(is_elementwise(op), "references are not added");
                return self.add_elementwise(index);
            }
        };
        let operands = op.operands();
        if let (Class::Ntt | Class::Intt, &[operand]) = (class, operands.as_slice()) {
            return self.add_transform(index, class, operand);
        }
        for &operand in &operands {
            self.make(operand);
        }
        let mut depth = 1 + self.depth_of(&operands);
        let is_event = matches!(class, Class::Call | Class::Collective);
        let after = self.last_event.filter(|_| is_event && self.ordered);
        if let Some(after) = after {
            depth = depth.max(1 + self.steps[after].depth);
        }
        let step = self.open(class, Some(index), depth);
        if is_event {
            self.steps[step].after = after;
            self.last_event = Some(step);
        }
    }

    fn add_elementwise(&mut self, index: usize) {
        let operands = self.op(index).operands();
        let result = self.function.nodes[index].result();
        let depth = self.depth_of(&operands);
        let step = if !self.fuses {
            None
        } else if let Some(step) = self.makers_at(&operands, depth).filter(|&s| self.may_join(s, index)) {
            Some(step)
        } else if is_done_again(self.op(index)) {
            self.again[result.index()] = true;
            return;
        } else {
            let loader = |v: &ValueId| self.loaders.get(&(self.base(*v), depth + 1)).copied();
            let mut loaders = operands.iter().filter_map(loader);
            loaders.find(|&s| self.steps[s].class == Class::Elementwise && self.may_join(s, index))
        };
        let step = step.unwrap_or_else(|| self.open(Class::Elementwise, None, depth + 1));
        self.join(step, index);
    }

    fn add_transform(&mut self, index: usize, class: Class, operand: ValueId) {
        let before = self.step_of[operand.index()].filter(|&s| self.makes_only(s, operand));
        let step = match before {
            Some(step) => {
                let before = &mut self.steps[step];
                before.class = class;
                before.prologue = std::mem::take(&mut before.body);
                before.loads.clear();
                before.anchor = Some(index);
                step
            }
            None => {
                let depth = 1 + self.depth_of(&[operand]);
                let step = self.open(class, Some(index), depth);
                self.steps[step].prologue = self.chain(operand);
                step
            }
        };
        self.step_of[self.function.nodes[index].result().index()] = Some(step);
    }

    fn open(&mut self, class: Class, anchor: Option<usize>, depth: u32) -> usize {
        let step = self.steps.len();
        self.steps.push(Step {
            class,
            prologue: Vec::new(),
            anchor,
            body: Vec::new(),
            depth,
            after: None,
            loads: HashSet::new(),
        });
        for result in anchor.map_or(0..0, |index| self.function.nodes[index].results.clone()) {
            self.step_of[result as usize] = Some(step);
        }
        step
    }

    /// The value that must be in a register or in memory for `value` to be made: itself, or the operand of a chain of operations
    /// that are done again.
    fn base(&self, value: ValueId) -> ValueId {
        let mut base = value;
        while let Some(index) = self.maker[base.index()].filter(|_| self.again[base.index()]) {
            base = self.op(index).operands()[0];
        }
        base
    }

    /// The operations that are done again to make `value` from its base, in order.
    fn chain(&self, value: ValueId) -> Vec<usize> {
        let (mut chain, mut at) = (Vec::new(), value);
        while let Some(index) = self.maker[at.index()].filter(|_| self.again[at.index()]) {
            chain.push(index);
            at = self.op(index).operands()[0];
        }
        chain.reverse();
        chain
    }

    /// Largest depth at which a base of these values is made; parameters and references are there from the beginning.
    fn depth_of(&self, values: &[ValueId]) -> u32 {
        let depth = |v: &ValueId| self.step_of[self.base(*v).index()].map_or(0, |s| self.steps[s].depth);
        values.iter().map(depth).max().unwrap_or(0)
    }

    /// The step that makes all those among the values that are made at this depth, if it is one.
    fn makers_at(&self, values: &[ValueId], depth: u32) -> Option<usize> {
        let steps = values.iter().filter_map(|&v| self.step_of[self.base(v).index()]);
        let mut steps = steps.filter(|&s| self.steps[s].depth == depth);
        let first = steps.next()?;
        steps.all(|other| other == first).then_some(first)
    }

    /// Whether a step has room for an elementwise operation and can make its operands.
    fn may_join(&self, step: usize, index: usize) -> bool {
        let target = &self.steps[step];
        let operands = self.op(index).operands();
        let made_here = |v: ValueId| self.step_of[v.index()] == Some(step);
        let mut new_loads = 0;
        for &operand in &operands {
            let (base, chain) = (self.base(operand), self.chain(operand));
            if !made_here(base) {
                new_loads += usize::from(!target.loads.contains(&base));
                continue;
            }
            // What the prologue makes is gone after the transform, and an automorphism moves what is loaded rather than computed.
            let maker = self.maker[base.index()];
            let in_prologue = maker.is_some_and(|maker| target.prologue.contains(&maker));
            if in_prologue || chain.iter().any(|&again| matches!(self.op(again), Op::Permute { .. })) {
                return false;
            }
        }
        let loads = target.loads.len() + new_loads;
        match target.class {
            Class::Elementwise => {
                let single = |v: &ValueId| self.uses[v.index()] == 1;
                let fits = target.body.len() + loads + operands.len() < MAX_PROGRAM;
                fits && match self.op(index) {
                    Op::Permute { a, .. } => single(a) && self.is_private(step, *a),
                    op if is_done_again(op) => single(&operands[0]),
                    _ => true,
                }
            }
            Class::Ntt | Class::Intt | Class::BaseConvert => {
                let anchor = target.anchor.map(|anchor| self.function.nodes[anchor].result());
                anchor.is_some_and(|anchor| self.uses[anchor.index()] <= MAX_EPILOGUE_USES)
                    && target.body.len() < MAX_EPILOGUE
                    && loads <= MAX_EPILOGUE_LOADS
                    && match self.op(index) {
                        Op::Permute { .. } => false,
                        op if is_done_again(op) => self.uses[operands[0].index()] == 1,
                        _ => true,
                    }
            }
            Class::Call | Class::Collective => false,
        }
    }

    /// Whether what a step computes on the way to `value` is used for nothing else, so that it may be computed at other positions.
    fn is_private(&self, step: usize, value: ValueId) -> bool {
        let mut inside: HashMap<ValueId, u32> = HashMap::from([(value, self.uses[value.index()])]);
        // Users stand behind makers, so that all inner uses of a value are counted when its turn comes.
        for &index in self.steps[step].body.iter().rev() {
            let result = self.function.nodes[index].result();
            let Some(&count) = inside.get(&result) else { continue };
            if !self.again[result.index()] && count != self.uses[result.index()] {
                return false;
            }
            for operand in self.op(index).operands() {
                *inside.entry(operand).or_default() += 1;
            }
        }
        true
    }

    /// Whether an elementwise step makes `value` for one user and nothing else for anybody.
    fn makes_only(&self, step: usize, value: ValueId) -> bool {
        let Step { class: Class::Elementwise, body, loads, .. } = &self.steps[step] else { return false };
        let mut inside: HashMap<ValueId, u32> = HashMap::new();
        for &index in body {
            self.op(index).operands().into_iter().for_each(|v| *inside.entry(v).or_default() += 1);
        }
        let used_inside = |&index: &usize| {
            let result = self.function.nodes[index].result();
            let inside = inside.get(&result).copied().unwrap_or(0);
            self.again[result.index()] || result == value || inside == self.uses[result.index()]
        };
        self.uses[value.index()] == 1 && loads.len() <= MAX_PROLOGUE_LOADS && body.iter().all(used_inside)
    }

    /// Appends an elementwise operation to a step, with what must be done again before it.
    fn join(&mut self, step: usize, index: usize) {
        for operand in self.op(index).operands() {
            let (base, chain) = (self.base(operand), self.chain(operand));
            if self.step_of[base.index()] != Some(step) {
                let depth = self.steps[step].depth;
                self.steps[step].loads.insert(base);
                self.loaders.insert((base, depth), step);
            }
            for again in chain {
                if !self.steps[step].body.contains(&again) {
                    self.steps[step].body.push(again);
                }
            }
        }
        self.steps[step].body.push(index);
        self.step_of[self.function.nodes[index].result().index()] = Some(step);
    }

    /// Makes sure that a value is made by a step: it must be in memory.
    fn make(&mut self, value: ValueId) {
        let Some(index) = self.maker[value.index()].filter(|_| self.again[value.index()]) else { return };
        let base = self.base(value);
        let moves = |&again: &usize| matches!(self.op(again), Op::Permute { .. });
        let beside = self.step_of[base.index()]
            .filter(|&s| self.steps[s].class == Class::Elementwise && !self.chain(value).iter().any(moves));
        let depth = 1 + self.depth_of(&[value]);
        self.again[value.index()] = false;
        let step = beside.unwrap_or_else(|| self.open(Class::Elementwise, None, depth));
        self.join(step, index);
    }
}

/// Whether whoever needs the result had better make it again from the operand: it costs little or no arithmetic, and the operand
/// is no larger than the result.
fn is_done_again(op: &Op) -> bool {
    matches!(
        op,
        Op::Permute { .. }
            | Op::MulScalar { .. }
            | Op::AddScalar { .. }
            | Op::Neg { .. }
            | Op::FromMontgomery { .. }
    )
}
