//! Rotates a sum instead of its terms: key switches by one key share one.
//!
//! ```text
//! %1 = rotate(%a) {by=8}
//! %2 = rotate(%b) {by=8}
//! %3 = add(%1, %c)                 %1 = add(%a, %b)
//! %4 = add(%3, %2)          ->     %2 = rotate(%1) {by=8}
//!                                  %4 = add(%2, %c)
//! ```
//!
//! Giant steps of linear transforms of several ciphertexts are such sums. A rotation saved is a key product, and a `mod_up`
//! unless other rotations share it; the sum needs a `mod_up` of its own. So it pays as soon as one of the inputs is rotated
//! only here, and otherwise from four rotations on: a `mod_up` takes about as long as two key products.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::super::{Builder, Function, Module, Op};
use crate::ir::simplify::remove_unused;
use crate::ir::{Operation, ValueId};

/// So many rotations of inputs whose `mod_up` is shared anyway are merged.
const MANY: usize = 4;

/// Runs the pass.
pub fn merge_rotations(module: &mut Module) -> Result<(), Infallible> {
    for function in std::mem::take(&mut module.functions) {
        let function = rebuild(module, &function);
        module.functions.push(function);
    }
    remove_unused(module);
    Ok(())
}

/// A term of a sum and whether it is subtracted.
type Term = (bool, ValueId);

/// By how much a rotation rotates; conjugation stands apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Rotation(i64),
    Conjugation,
}

struct Sums<'a> {
    function: &'a Function,
    slots: i64,
    uses: Vec<u32>,
    /// The node that makes each value.
    producer: Vec<Option<usize>>,
    /// How many rotations each value is the input of.
    rotations: Vec<usize>,
}

fn rebuild(module: &Module, function: &Function) -> Function {
    let slots = module.context.params.slots() as i64;
    let sums = Sums::new(function, slots);
    let inner = sums.inner();
    let mut builder = Builder::new(function.name.clone(), function.param_types().to_vec());
    let mut new: Vec<ValueId> = function.params().collect();
    for node in &function.nodes {
        builder.stage = node.stage;
        let is_root = is_sum(&node.op) && !inner[node.results.start as usize];
        if let Some(merged) = is_root.then(|| sums.merge(node.result())).flatten() {
            let mut total = None;
            for (minus, part) in merged {
                let value = part.emit(&mut builder, module, &new);
                total = Some(accumulate(&mut builder, module, total, (minus, value)));
            }
            new.push(total.expect("a sum has terms"));
            continue;
        }
        let mut op = node.op.clone();
        op.map_operands(|v| new[v.index()]);
        let results = builder.try_push(module, op);
        new.extend(results.unwrap_or_else(|message| panic!("rotations merged: {message}")).map(ValueId));
    }
    builder.finish(function.results.iter().map(|v| new[v.index()]).collect())
}

fn is_sum(op: &Op) -> bool {
    matches!(op, Op::Add { .. } | Op::Sub { .. } | Op::Neg { .. })
}

fn accumulate(builder: &mut Builder, module: &Module, total: Option<ValueId>, (minus, b): Term) -> ValueId {
    let op = match (total, minus) {
        (Some(a), true) => Op::Sub { a, b },
        (Some(a), false) => Op::Add { a, b },
        (None, true) => Op::Neg { a: b },
        (None, false) => return b,
    };
    builder.push(module, op)
}

/// What is added up in place of the terms.
enum Part {
    Value(ValueId),
    /// A rotation of a sum.
    Rotated(Kind, Vec<Term>),
}

impl Part {
    /// `new` maps values of the old function to the new one.
    fn emit(self, builder: &mut Builder, module: &Module, new: &[ValueId]) -> ValueId {
        let (kind, terms) = match self {
            Part::Value(value) => return new[value.index()],
            Part::Rotated(kind, terms) => (kind, terms),
        };
        let mut sum = None;
        for (minus, value) in terms {
            sum = Some(accumulate(builder, module, sum, (minus, new[value.index()])));
        }
        let a = sum.expect("rotations are merged in twos and more");
        builder.push(
            module,
            match kind {
                Kind::Rotation(by) => Op::Rotate { a, by },
                Kind::Conjugation => Op::Conjugate { a },
            },
        )
    }
}

impl<'a> Sums<'a> {
    fn new(function: &'a Function, slots: i64) -> Self {
        let mut producer = vec![None; function.types.len()];
        let mut rotations = vec![0; function.types.len()];
        for (i, node) in function.nodes.iter().enumerate() {
            node.results.clone().for_each(|result| producer[result as usize] = Some(i));
            if let Op::Rotate { a, .. } | Op::Conjugate { a } = node.op {
                rotations[a.index()] += 1;
            }
        }
        Sums { function, slots, uses: function.use_counts(), producer, rotations }
    }

    /// Which values are partial sums: used by one other sum and nobody else.
    fn inner(&self) -> Vec<bool> {
        let mut inner = vec![false; self.function.types.len()];
        for node in self.function.nodes.iter().filter(|node| is_sum(&node.op)) {
            for operand in node.op.operands() {
                inner[operand.index()] = self.uses[operand.index()] == 1;
            }
        }
        inner
    }

    fn op(&self, value: ValueId) -> Option<&Op> {
        self.producer[value.index()].map(|node| &self.function.nodes[node].op)
    }

    /// The terms of the sum, in order.
    fn terms(&self, root: ValueId) -> Vec<Term> {
        let mut terms = Vec::new();
        let mut open = vec![(false, root)];
        while let Some((minus, value)) = open.pop() {
            let partial = value == root || self.uses[value.index()] == 1;
            match self.op(value).filter(|_| partial) {
                Some(Op::Add { a, b }) => open.extend([(minus, *b), (minus, *a)]),
                Some(Op::Sub { a, b }) => open.extend([(!minus, *b), (minus, *a)]),
                Some(Op::Neg { a }) => open.push((!minus, *a)),
                _ => terms.push((minus, value)),
            }
        }
        terms
    }

    /// The rotation that makes a value and its input, if nobody else needs the value.
    fn rotation(&self, value: ValueId) -> Option<(Kind, ValueId)> {
        match self.op(value).filter(|_| self.uses[value.index()] == 1)? {
            Op::Rotate { a, by } => Some((Kind::Rotation(by.rem_euclid(self.slots)), *a)),
            Op::Conjugate { a } => Some((Kind::Conjugation, *a)),
            _ => None,
        }
    }

    /// The sum with rotations merged, if that pays anywhere in it.
    fn merge(&self, root: ValueId) -> Option<Vec<(bool, Part)>> {
        let terms = self.terms(root);
        let mut groups: BTreeMap<Kind, Vec<Term>> = BTreeMap::new();
        for &(minus, value) in &terms {
            if let Some((kind, input)) = self.rotation(value) {
                groups.entry(kind).or_default().push((minus, input));
            }
        }
        groups.retain(|_, inputs| {
            let alone = inputs.iter().any(|(_, input)| self.rotations[input.index()] == 1);
            inputs.len() >= if alone { 2 } else { MANY }
        });
        if groups.is_empty() {
            return None;
        }
        let mut merged = Vec::new();
        for (minus, value) in terms {
            match self.rotation(value).filter(|(kind, _)| groups.contains_key(kind)) {
                // The group stands where its first rotation stood, and is empty for the others.
                Some((kind, _)) => match std::mem::take(groups.get_mut(&kind).expect("just found")) {
                    inputs if inputs.is_empty() => {}
                    inputs => merged.push((false, Part::Rotated(kind, inputs))),
                },
                None => merged.push((minus, Part::Value(value))),
            }
        }
        Some(merged)
    }
}
