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

use std::collections::{HashMap, HashSet};

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
    let mut launches =
        Launches { function, params, steps, escapes, options, launches: Vec::new(), open: HashMap::new() };
    let mut place: Vec<Option<usize>> = vec![None; steps.steps.len()];
    for step in depth_first(&reads, &in_windows(&steps.steps, WINDOW * options.width)) {
        let after = reads[step].iter().filter_map(|&before| place[before]).max();
        place[step] = Some(launches.add(step, after));
    }
    launches.launches
}

/// The steps that a step reads from. The values that it reads are marked in `escapes`.
fn reads(function: &Function, steps: &Steps, step: usize, escapes: &mut [bool]) -> Vec<usize> {
    let mut made: HashSet<ValueId> = HashSet::new();
    let mut reads = Vec::new();
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
/// first is transformed, and then transformed together.
fn in_windows(steps: &[Step], window: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.chunks_mut(window).for_each(|window| window.sort_by_key(|&step| steps[step].depth));
    order
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
    /// Launches by stage, shape and number of sources, in order.
    open: HashMap<(StageId, Shape, usize), Vec<usize>>,
}

impl Launches<'_> {
    /// Adds a step that must stand behind the launch `after`; returns its launch.
    fn add(&mut self, index: usize, after: Option<usize>) -> usize {
        let function = self.function;
        let step = &self.steps.steps[index];
        let first = step.nodes().next().expect("a step has operations");
        let stage = function.nodes[first].stage;
        if let (Class::Call, Some(call)) = (step.class, step.anchor) {
            self.launches.push(Launch { stage, content: Content::Call(call) });
            return self.launches.len() - 1;
        }
        let is_stored = |v: ValueId| self.escapes[v.index()] && self.steps.step_of[v.index()] == Some(index);
        let (shape, limb) = program(function, self.params, step, is_stored);
        let sources = match step.anchor.map(|anchor| &function.nodes[anchor].op) {
            Some(Op::BaseConvert { sources, .. }) => sources.clone(),
            _ => Vec::new(),
        };
        let candidates = self.open.entry((stage, shape.clone(), sources.len())).or_default();
        if self.options.fusion != Fusion::None {
            for &candidate in candidates.iter().filter(|&&c| after.is_none_or(|after| c > after)) {
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
        self.launches.push(Launch {
            stage,
            content: Content::Blocks(shape, vec![PlannedBlock { sources, limbs: vec![limb] }]),
        });
        candidates.push(self.launches.len() - 1);
        self.launches.len() - 1
    }
}

/// Whether a value is a limb of the pool.
pub(super) fn is_limb(function: &Function, value: ValueId) -> bool {
    matches!(function.type_of(value), Type::Limb { .. })
}
