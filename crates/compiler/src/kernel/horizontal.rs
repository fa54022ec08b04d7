//! Horizontal fusion and order: steps of one shape share launches, and launches stand in an order in which what is made is soon used.
//!
//! ```text
//! step ntt %2 : p0                           launch ntt          %2, %3
//! step elementwise %2 -> %4 : p0      ->     launch elementwise  %4, %5
//! step ntt %3 : p1
//! step elementwise %3 -> %5 : p1
//! ```
//!
//! Steps are visited in the order of the program, each preceded by those that it needs. A step goes into the first launch of its shape
//! that stands behind everything it reads and has room; otherwise it opens a new one at the end. So the limbs of a polynomial, both
//! halves of a key switch, its digits, and equal work on independent ciphertexts meet in one launch, while work that comes later
//! than `width` limbs gets launches of its own, so that what they hand on is still in cache, and is not kept in memory longer than
//! needed.

use std::collections::{HashMap, HashSet, VecDeque};

use cerium_artifact::StageId;
use cerium_ckks::params::Params;

use super::program::{Limb, Shape, program};
use super::vertical::{Class, Step, Steps};
use super::{Fusion, KernelOptions};
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op, Type};

/// Launches' worth of steps within which steps are ordered by depth.
const WINDOW: usize = 4;

/// One launch of a function's schedule, or a call.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// Stage of its operations.
    pub(super) stage: StageId,
    pub(super) content: Content,
}

/// What a launch does.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// The call that is this node.
    Call(usize),
    /// The collective that is this node begins.
    Start(usize),
    /// The collective with this number ends, which is this node.
    Finish(u32, usize),
    /// Blocks of one shape.
    Blocks(Shape, Vec<PlannedBlock>),
}

/// A block: one limb, or a base conversion with the limbs of all its targets.
#[derive(Clone, Debug)]
pub(super) struct PlannedBlock {
    /// What is converted; empty for other classes.
    pub(super) sources: Vec<ValueId>,
    pub(super) limbs: Vec<Limb>,
}

/// The launches of a function, in order.
pub(super) fn horizontal(
    function: &Function,
    params: &Params,
    steps: &Steps,
    options: &KernelOptions,
) -> Vec<Launch> {
    let mut escapes = vec![false; function.types.len()];
    function.results.iter().for_each(|result| escapes[result.index()] = true);
    let reads: Vec<Vec<usize>> =
        (0..steps.steps.len()).map(|step| reads(function, steps, step, &mut escapes)).collect();
    let mut launches = Launches {
        function,
        params,
        steps,
        escapes,
        options,
        launches: Vec::new(),
        waited: Vec::new(),
        numbers: HashMap::new(),
        open: HashMap::new(),
    };
    let mut place: Vec<Option<usize>> = vec![None; steps.steps.len()];
    let wanted = in_windows(&steps.steps, WINDOW * options.width);
    for step in depth_first(&reads, &wanted) {
        let after = reads[step].iter().filter_map(|&before| place[before]).max();
        place[step] = Some(launches.add(step, &reads[step], after));
    }
    finished(function, launches.launches)
}

/// The steps that a step reads from. The values that it reads are marked in `escapes`.
fn reads(function: &Function, steps: &Steps, step: usize, escapes: &mut [bool]) -> Vec<usize> {
    let mut made: HashSet<ValueId> = HashSet::new();
    let mut reads: Vec<usize> = steps.steps[step].after.into_iter().collect();
    for node in steps.steps[step].nodes() {
        let node = &function.nodes[node];
        for operand in node.op.operands() {
            if !made.contains(&operand) {
                escapes[operand.index()] = true;
                reads.extend(steps.step_of[operand.index()]);
            }
        }
        made.extend(node.results.clone().map(ValueId));
    }
    reads.sort_unstable();
    reads.dedup();
    debug_assert!(!reads.contains(&step), "what a step makes it does not read");
    reads
}

/// The steps in windows of `window` steps, each sorted by depth, so that the digits of a polynomial are all converted before the
/// first is transformed, and then transformed together. A collective ends a window: what stands behind it is done while limbs are
/// on their way.
fn in_windows(steps: &[Step], window: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..steps.len()).collect();
    let is_collective = |step: &usize| steps[*step].class == Class::Collective;
    for stretch in order.split_inclusive_mut(is_collective) {
        stretch.chunks_mut(window).for_each(|window| window.sort_by_key(|&step| steps[step].depth));
    }
    order
}

/// Ends every collective where something that it brings is needed, before any call, and at the end; in the order in which they
/// begin.
fn finished(function: &Function, launches: Vec<Launch>) -> Vec<Launch> {
    let mut all = Vec::with_capacity(launches.len());
    // Number, node and stage of the collectives under way.
    let mut under_way: VecDeque<(u32, usize, StageId)> = VecDeque::new();
    let mut number_of: HashMap<ValueId, u32> = HashMap::new();
    let finish = |(number, node, stage)| Launch { stage, content: Content::Finish(number, node) };
    let mut started = 0;
    for launch in launches {
        let needed = match &launch.content {
            Content::Call(_) => under_way.back().map(|(number, ..)| *number),
            _ => reads_of(function, &launch).iter().filter_map(|value| number_of.get(value)).max().copied(),
        };
        while under_way.front().is_some_and(|(number, ..)| needed >= Some(*number)) {
            all.extend(under_way.pop_front().map(finish));
        }
        if let Content::Start(node) = launch.content {
            under_way.push_back((started, node, launch.stage));
            number_of.extend(function.nodes[node].results.clone().map(|value| (ValueId(value), started)));
            started += 1;
        }
        all.push(launch);
    }
    all.extend(under_way.into_iter().map(finish));
    all
}

/// The values that a launch reads.
pub(super) fn reads_of(function: &Function, launch: &Launch) -> Vec<ValueId> {
    match &launch.content {
        Content::Call(node) | Content::Start(node) => function.nodes[*node].op.operands(),
        // Until then, what is sent is not touched, and what is received is taken.
        Content::Finish(_, node) => {
            let node = &function.nodes[*node];
            node.op.operands().into_iter().chain(node.results.clone().map(ValueId)).collect()
        }
        Content::Blocks(_, blocks) => {
            let mut reads = Vec::new();
            for block in blocks {
                reads.extend(&block.sources);
                for limb in &block.limbs {
                    // Prologue and epilogue may both load a limb.
                    let mut loads = limb.loads.clone();
                    loads.sort_unstable();
                    loads.dedup();
                    reads.extend(loads);
                }
            }
            reads
        }
    }
}

/// Every step behind those it reads from, otherwise in the order of `wanted`.
fn depth_first(reads: &[Vec<usize>], wanted: &[usize]) -> Vec<usize> {
    let mut order = Vec::with_capacity(reads.len());
    let mut visited = vec![false; reads.len()];
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for &first in wanted {
        if std::mem::replace(&mut visited[first], true) {
            continue;
        }
        stack.push((first, 0));
        while let Some((step, next)) = stack.last_mut() {
            match reads[*step].get(*next) {
                Some(&before) => {
                    *next += 1;
                    if !std::mem::replace(&mut visited[before], true) {
                        stack.push((before, 0));
                    }
                }
                None => {
                    order.push(*step);
                    stack.pop();
                }
            }
        }
    }
    order
}

/// Launches under construction.
struct Launches<'a> {
    function: &'a Function,
    params: &'a Params,
    steps: &'a Steps,
    /// Which values are read by steps that do not make them, or returned.
    escapes: Vec<bool>,
    options: &'a KernelOptions,
    launches: Vec<Launch>,
    /// For each launch the number of collectives that are waited for by then.
    waited: Vec<u32>,
    /// Of collectives that have begun, by their step, how many have then.
    numbers: HashMap<usize, u32>,
    /// Launches by stage, shape and number of sources, in order.
    open: HashMap<(StageId, Shape, usize), Vec<usize>>,
}

impl Launches<'_> {
    /// Adds a step, which reads from the steps `reads` and must stand behind the launch `after`; returns its launch.
    fn add(&mut self, index: usize, reads: &[usize], after: Option<usize>) -> usize {
        let function = self.function;
        let step = &self.steps.steps[index];
        let first = step.nodes().next().expect("a step has operations");
        let stage = function.nodes[first].stage;
        let event = match (step.class, step.anchor) {
            (Class::Call, Some(call)) => Some(Content::Call(call)),
            (Class::Collective, Some(collective)) => Some(Content::Start(collective)),
            _ => None,
        };
        let waits = match step.class {
            Class::Call => self.numbers.len() as u32,
            // To begin a collective is not to wait for the one before.
            _ => {
                let read = reads.iter().filter(|&&read| step.after != Some(read));
                read.filter_map(|step| self.numbers.get(step)).max().copied().unwrap_or(0)
            }
        };
        if let Some(content) = event {
            if matches!(content, Content::Start(_)) {
                self.numbers.insert(index, self.numbers.len() as u32 + 1);
            }
            return self.push(Launch { stage, content }, waits);
        }
        let is_stored = |v: ValueId| self.escapes[v.index()] && self.steps.step_of[v.index()] == Some(index);
        let (shape, limb) = program(function, self.params, step, is_stored);
        let sources = match step.anchor.map(|anchor| &function.nodes[anchor].op) {
            Some(Op::BaseConvert { sources, .. }) => sources.clone(),
            _ => Vec::new(),
        };
        let candidates = self.open.entry((stage, shape.clone(), sources.len())).or_default();
        if self.options.fusion != Fusion::None {
            // A launch that need not wait for limbs from other devices is not made to.
            let waited = &self.waited;
            let may_join = |&&c: &&usize| after.is_none_or(|after| c > after) && waits <= waited[c];
            for &candidate in candidates.iter().filter(may_join) {
                let Content::Blocks(_, blocks) = &mut self.launches[candidate].content else { continue };
                let converting = !sources.is_empty();
                if let Some(same) = blocks.iter_mut().find(|block| converting && block.sources == sources) {
                    same.limbs.push(limb);
                    return candidate;
                }
                if blocks.iter().map(|block| block.limbs.len()).sum::<usize>() < self.options.width {
                    blocks.push(PlannedBlock { sources, limbs: vec![limb] });
                    return candidate;
                }
            }
        }
        candidates.push(self.launches.len());
        let content = Content::Blocks(shape, vec![PlannedBlock { sources, limbs: vec![limb] }]);
        self.push(Launch { stage, content }, waits)
    }

    fn push(&mut self, launch: Launch, waits: u32) -> usize {
        self.waited.push(self.waited.last().copied().unwrap_or(0).max(waits));
        self.launches.push(launch);
        self.launches.len() - 1
    }
}

/// Whether a value is a limb of the pool.
pub(super) fn is_limb(function: &Function, value: ValueId) -> bool {
    matches!(function.type_of(value), Type::Limb { .. })
}
