//! Key switches, found by their operations: limbs are converted (digit by digit), transformed, and multiplied with limbs of keys.

use std::collections::{BTreeSet, HashMap};

use super::placement::{Placement, is_limb};
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op};
use crate::polynomial::KeyName;

/// What is converted for key switches and for divisions.
pub(super) struct Switches {
    /// Sets of sources, each the limbs that some conversions read.
    pub(super) sets: Vec<ConvertedSet>,
    /// The sets that each value is a source of.
    pub(super) sets_of: HashMap<ValueId, Vec<usize>>,
}

/// The limbs that conversions read together: a digit, or what a division divides by.
pub(super) struct ConvertedSet {
    pub(super) sources: Vec<ValueId>,
    /// The conversions, nodes of the function.
    pub(super) conversions: Vec<usize>,
    /// Their transforms that are multiplied with keys.
    pub(super) transforms: Vec<usize>,
    /// The keys; none for a division.
    pub(super) keys: BTreeSet<KeyName>,
    /// The input of a key switch that it is a digit of, by the first set of that input.
    pub(super) input: usize,
    /// Whether all that becomes of it is multiplied with keys.
    pub(super) only_switched: bool,
}

impl Switches {
    pub(super) fn new(placement: &Placement<'_>) -> Switches {
        let function = placement.space.function;
        let mut found = Switches { sets: Vec::new(), sets_of: HashMap::new() };
        let mut known: HashMap<&[ValueId], usize> = HashMap::new();
        let mut set_of: HashMap<ValueId, usize> = HashMap::new();
        for (index, node) in function.nodes.iter().enumerate() {
            let Op::BaseConvert { sources, .. } = &node.op else { continue };
            let set = *known.entry(sources).or_insert_with(|| {
                let set = found.sets.len();
                found.sets.push(ConvertedSet::new(sources.clone(), set));
                sources.iter().for_each(|&source| found.sets_of.entry(source).or_default().push(set));
                set
            });
            found.sets[set].conversions.push(index);
            set_of.insert(node.result(), set);
        }
        for (index, node) in function.nodes.iter().enumerate() {
            match &node.op {
                Op::Ntt { a } => {
                    if let Some(&set) = set_of.get(a) {
                        found.sets[set].transforms.push(index);
                    }
                }
                Op::Dot { terms } => found.add_product(placement, terms),
                Op::MulMontgomery { a, k } => found.add_product(placement, &[*a, *k]),
                _ => {}
            }
        }
        found.find_other_uses(function);
        found
    }

    /// The sets whose limbs meet in a product with keys are digits of one input.
    fn add_product(&mut self, placement: &Placement<'_>, terms: &[ValueId]) {
        let function = placement.space.function;
        let mut first = None;
        for pair in terms.chunks(2) {
            let key = placement.maker[pair[1].index()].map(|node| &function.nodes[node].op);
            let Some(Op::Key { key, .. }) = key else { continue };
            let Some(set) = self.digit(placement, pair[0]) else { continue };
            self.sets[set].keys.insert(*key);
            let first = *first.get_or_insert(set);
            let (a, b) = (self.input(first), self.input(set));
            self.sets[a.max(b)].input = a.min(b);
        }
    }

    /// The set that a limb was converted from, and then transformed.
    fn digit(&self, placement: &Placement<'_>, limb: ValueId) -> Option<usize> {
        let function = placement.space.function;
        let Op::Ntt { a } = function.nodes[placement.maker[limb.index()]?].op else { return None };
        let Op::BaseConvert { sources, .. } = &function.nodes[placement.maker[a.index()]?].op else {
            return None;
        };
        let sets = self.sets_of.get(sources.first()?)?;
        sets.iter().copied().find(|&set| self.sets[set].sources == *sources)
    }

    /// The first set of the input that a set is a digit of.
    pub(super) fn input(&self, set: usize) -> usize {
        let mut at = set;
        while self.sets[at].input != at {
            at = self.sets[at].input;
        }
        at
    }

    /// A set is switched only if its conversions are transformed, and its transforms multiplied with keys, and nothing else.
    fn find_other_uses(&mut self, function: &Function) {
        let mut uses: HashMap<ValueId, u32> = HashMap::new();
        for node in &function.nodes {
            let operands = node.op.operands();
            let is_product = matches!(node.op, Op::Dot { .. } | Op::MulMontgomery { .. });
            for (position, &operand) in operands.iter().enumerate() {
                let with_key = is_product
                    && operands.get(position + 1).is_some_and(|&k| !is_limb(function, k))
                    && matches!(function.type_of(operands[position + 1]), crate::limb::Type::Key { .. });
                if !with_key {
                    *uses.entry(operand).or_default() += 1;
                }
            }
        }
        function.results.iter().for_each(|&result| *uses.entry(result).or_default() += 1);
        for set in &mut self.sets {
            let transformed = |index: &usize| uses.get(&function.nodes[*index].result()) == Some(&1);
            let multiplied = |index: &usize| !uses.contains_key(&function.nodes[*index].result());
            set.only_switched = set.conversions.len() == set.transforms.len()
                && set.conversions.iter().all(transformed)
                && set.transforms.iter().all(multiplied);
        }
    }
}

impl ConvertedSet {
    fn new(sources: Vec<ValueId>, input: usize) -> ConvertedSet {
        ConvertedSet {
            sources,
            conversions: Vec::new(),
            transforms: Vec::new(),
            keys: BTreeSet::new(),
            input,
            only_switched: false,
        }
    }
}
