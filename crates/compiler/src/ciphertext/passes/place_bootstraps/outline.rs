//! What the search knows of a function before it knows a level.

use std::rc::Rc;

use super::super::super::{Context, Function, Op, Type};
use super::super::needs::Shape;
use super::facts::{Fact, Facts};
use super::symmetry;
use crate::ir::{Operation, ValueId};

/// A value of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    /// The value that stands for it and all values in the same position; only leaders are searched.
    pub(super) leader: ValueId,
    /// How many values it stands for, if it is a leader.
    pub(super) count: u32,
    /// Where states hold its needs; plaintexts have none.
    pub(super) slot: Option<usize>,
    /// Whether bootstrapping it can be best.
    pub(super) candidate: bool,
    /// It is made at the square of a scale, and rescaled if a use asks for it settled.
    pub(super) pending: bool,
    /// Polynomials it has when it is made.
    pub(super) size: u8,
    /// A use asks for it settled.
    pub(super) settles: bool,
    /// How many rotations share its `mod_up`.
    pub(super) rotations: u32,
    /// What holds for its slots.
    pub(super) fact: Fact,
}

/// A function, seen by the search.
#[derive(Debug)]
pub(super) struct Outline {
    /// Levels between operands and results.
    pub(super) shape: Rc<Shape>,
    /// Leading nodes by multiplicative depth, so that independent branches advance together.
    pub(super) order: Vec<usize>,
    /// Of each node, the one that leads those in the same position.
    pub(super) leaders: Vec<usize>,
    /// All values.
    pub(super) values: Vec<Value>,
    /// Slots of a state.
    pub(super) width: usize,
}

/// Operations on one ciphertext that take no level.
pub(super) fn is_level_free(shape: &Shape, op: &Op) -> bool {
    match op {
        Op::Neg { .. }
        | Op::Rotate { .. }
        | Op::Conjugate { .. }
        | Op::AddConst { .. }
        | Op::AddPlain { .. } => true,
        Op::MulConst { .. } | Op::MulPlain { .. } => shape.depth(op) == 0,
        _ => false,
    }
}

/// The ciphertexts among the operands of a node, each once.
pub(super) fn ciphertexts(function: &Function, op: &Op) -> Vec<ValueId> {
    let mut all = op.operands();
    all.retain(|&v| matches!(function.type_of(v), Type::Cipher(_)));
    all.sort_unstable();
    all.dedup();
    all
}

impl Outline {
    /// The outline of a function whose results are needed at these levels. `depth_of` tells the depth of the functions that
    /// it calls.
    pub(super) fn new(
        context: &Context,
        function: &Function,
        facts: &Facts,
        results: &[u8],
        is_entry: bool,
        depth_of: impl Fn(&Op) -> u32,
    ) -> Outline {
        let shape = Rc::new(Shape::new(context, function));
        let classes = symmetry::classes(function, &shape, facts, results);
        let mut values: Vec<Value> = (0..function.types.len() as u32)
            .map(ValueId)
            .map(|v| Value {
                leader: classes.values[v.index()],
                count: 0,
                slot: None,
                candidate: false,
                pending: false,
                size: 2,
                settles: false,
                rotations: 0,
                fact: facts.of(&function.name, v),
            })
            .collect();
        for v in 0..values.len() {
            let leader = values[v].leader.index();
            values[leader].count += 1;
        }
        let mut outline = Outline { shape, order: Vec::new(), leaders: classes.nodes, values, width: 0 };
        outline.order_by_depth(function, depth_of);
        outline.find_forms(function);
        outline.find_candidates(function, is_entry);
        outline.assign_slots(function);
        outline
    }

    fn order_by_depth(&mut self, function: &Function, depth_of: impl Fn(&Op) -> u32) {
        let mut depths = vec![0u32; function.types.len()];
        let mut keyed = Vec::new();
        for (index, node) in function.nodes.iter().enumerate() {
            let before = node.op.operands().iter().map(|v| depths[v.index()]).max().unwrap_or(0);
            let inside = match &node.op {
                Op::Call { .. } => depth_of(&node.op),
                op => u32::from(self.shape.depth(op)),
            };
            depths[node.results.start as usize..node.results.end as usize].fill(before + inside);
            if self.leaders[index] == index {
                keyed.push((before + inside, index));
            }
        }
        keyed.sort_unstable();
        self.order = keyed.into_iter().map(|(_, index)| index).collect();
    }

    /// Which values are pending, of how many polynomials, and whether they are settled: as `place_levels` makes them where
    /// levels meet as they should.
    fn find_forms(&mut self, function: &Function) {
        for node in &function.nodes {
            let of = |v: &ValueId| self.values[v.index()];
            let (pending, size) = match &node.op {
                Op::Mul { .. } => (true, 3),
                Op::LinearTransform { .. } | Op::PolyEval { .. } => (true, 2),
                Op::MulPlain { a, .. } | Op::MulConst { a, .. } if self.shape.depth(&node.op) == 0 => {
                    (of(a).pending, of(a).size)
                }
                Op::MulPlain { .. } | Op::MulConst { .. } => (true, 2),
                Op::Add { a, b } | Op::Sub { a, b } => {
                    (of(a).pending && of(b).pending, of(a).size.max(of(b).size))
                }
                Op::Rotate { a, .. } | Op::Conjugate { a } => {
                    (of(a).pending && !self.shape.settle_first[a.index()], 2)
                }
                Op::Neg { a } | Op::AddConst { a, .. } | Op::AddPlain { a, .. } => {
                    (of(a).pending, of(a).size)
                }
                _ => (false, 2),
            };
            for result in node.results.clone() {
                let value = &mut self.values[result as usize];
                (value.pending, value.size) = (pending, if pending { size } else { 2 });
            }
            let settles = match &node.op {
                Op::Add { .. } | Op::Sub { .. } => !pending,
                Op::Rotate { a, .. } | Op::Conjugate { a } => self.shape.settle_first[a.index()],
                op => !is_level_free(&self.shape, op),
            };
            for v in node.op.operands() {
                self.values[v.index()].settles |= settles;
            }
            if let Op::Rotate { a, .. } | Op::Conjugate { a } = &node.op {
                self.values[a.index()].rotations += 1;
            }
        }
        for result in &function.results {
            self.values[result.index()].settles = true;
        }
    }

    /// Leaves out values of which another one is at least as good to bootstrap: the last of a chain of operations that take
    /// no level, a sum instead of one of its terms, a value instead of one of its rotations.
    fn find_candidates(&mut self, function: &Function, is_entry: bool) {
        let mut uses: Vec<Vec<usize>> = vec![Vec::new(); function.types.len()];
        let mut returns = vec![0usize; function.types.len()];
        for (index, node) in function.nodes.iter().enumerate() {
            ciphertexts(function, &node.op).iter().for_each(|v| uses[v.index()].push(index));
        }
        function.results.iter().for_each(|v| returns[v.index()] += 1);
        let no_worse =
            |instead: Fact, fact: Fact| instead.log_period <= fact.log_period && (instead.real || !fact.real);
        let count = |v: ValueId| uses[v.index()].len() + returns[v.index()];
        let is_candidate = |v: ValueId, maker: Option<usize>| {
            let fact = self.values[v.index()].fact;
            if let (&[only], 0) = (uses[v.index()].as_slice(), returns[v.index()]) {
                let node = &function.nodes[only];
                let moves = is_level_free(&self.shape, &node.op)
                    || matches!(node.op, Op::Add { .. } | Op::Sub { .. });
                if moves && no_worse(self.values[node.result().index()].fact, fact) {
                    return false;
                }
            }
            if uses[v.index()].is_empty() && !is_entry {
                return false; // the caller can bootstrap it, and share the function
            }
            match maker.map(|index| &function.nodes[index].op) {
                Some(op) if is_level_free(&self.shape, op) => {
                    let source = op.operands()[0];
                    count(source) < 2 || !no_worse(self.values[source.index()].fact, fact)
                }
                _ => true,
            }
        };
        let mut candidates = vec![false; function.types.len()];
        for v in function.params() {
            candidates[v.index()] = is_candidate(v, None);
        }
        for (index, node) in function.nodes.iter().enumerate() {
            for result in node.results.clone() {
                candidates[result as usize] = is_candidate(ValueId(result), Some(index));
            }
        }
        for (value, candidate) in self.values.iter_mut().zip(candidates) {
            value.candidate = candidate;
        }
    }

    /// Gives leaders slots, each from the last use to the definition.
    fn assign_slots(&mut self, function: &Function) {
        let mut free: Vec<usize> = Vec::new();
        let (values, width) = (&mut self.values, &mut self.width);
        let mut take = |values: &mut Vec<Value>, v: ValueId, free: &mut Vec<usize>| {
            let leader = values[v.index()].leader.index();
            values[leader].slot.get_or_insert_with(|| {
                free.pop().unwrap_or_else(|| {
                    *width += 1;
                    *width - 1
                })
            });
        };
        for &v in &function.results {
            take(values, v, &mut free);
        }
        for &index in self.order.iter().rev() {
            let node = &function.nodes[index];
            for result in node.results.clone() {
                if matches!(function.types[result as usize], Type::Cipher(_)) {
                    take(values, ValueId(result), &mut free);
                }
            }
            for result in node.results.clone() {
                let leader = values[result as usize].leader.index();
                free.extend(values[leader].slot);
            }
            for v in ciphertexts(function, &node.op) {
                take(values, v, &mut free);
            }
        }
        for v in function.params() {
            if matches!(function.type_of(v), Type::Cipher(_)) {
                take(values, v, &mut free);
            }
        }
    }
}
