//! The values of a program: each instruction once for each view in which it is needed, sums product by product.

use std::collections::{BTreeSet, HashMap};

use cerium_artifact::kernel::{Instruction, Program, Register};

use crate::cuda::abi::BlockShape;

/// Products of canonical words that fit in 64 bits.
const FULL: usize = 16;

/// Products that fit again after a sum was folded.
const AFTER_FOLD: usize = 8;

/// What a statement computes. Operands are indices of nodes.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// The positions of a view: those of `from` (the function's own, if none) through an automorphism.
    Position {
        from: Option<usize>,
        galois: u16,
    },
    /// The words of a load, at the positions of a view if not at the function's own.
    Load {
        load: u16,
        at: Option<usize>,
    },
    /// The words given to the function.
    Input,
    Add(usize, usize),
    Sub(usize, usize),
    Neg(usize),
    Mul(usize, usize),
    MontMul(usize, usize),
    MulScalar(usize, u16),
    AddScalar(usize, u16),
    /// `sum + a * b`; the sum is folded before if it may be full.
    Product {
        sum: Option<usize>,
        fold: bool,
        a: usize,
        b: usize,
    },
    /// The residue of a sum that is as large as one of `products` products.
    Reduce {
        sum: usize,
        products: usize,
    },
    /// Writes a result.
    Store {
        store: usize,
        value: usize,
    },
    /// Hands a value to the caller.
    Return(usize),
}

/// The order in which a program is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The instruction; in another view than the program's own, the permutation that makes the view.
    place: usize,
    view: usize,
    /// The instruction, or one beside which it runs.
    beside: usize,
    /// Position in a sum.
    product: usize,
    instruction: usize,
}

/// A statement with its place in the order in which the program was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) action: Action,
    /// Where it is written; of sums that share a factor at the same place the products alternate.
    pub(super) rank: Rank,
    register: Register,
    view: usize,
}

impl Node {
    /// Words of a position that the value takes.
    pub(super) fn width(&self) -> usize {
        match self.action {
            Action::Product { .. } => 2,
            Action::Store { .. } | Action::Return(_) => 0,
            _ => 1,
        }
    }

    /// Whether the statement waits until another needs its value.
    pub(super) fn is_lazy(&self) -> bool {
        matches!(self.action, Action::Position { .. } | Action::Load { .. } | Action::Input)
    }

    /// The nodes whose values it takes.
    pub(super) fn operands(&self) -> Vec<usize> {
        match self.action {
            Action::Position { from, .. } => from.into_iter().collect(),
            Action::Load { at, .. } => at.into_iter().collect(),
            Action::Input => Vec::new(),
            Action::Add(a, b) | Action::Sub(a, b) | Action::Mul(a, b) | Action::MontMul(a, b) => vec![a, b],
            Action::Neg(a) | Action::MulScalar(a, _) | Action::AddScalar(a, _) | Action::Return(a) => {
                vec![a]
            }
            Action::Product { sum, a, b, .. } => sum.into_iter().chain([a, b]).collect(),
            Action::Reduce { sum, .. } => vec![sum],
            Action::Store { value, .. } => vec![value],
        }
    }
}

/// The statements of a program, operands before users.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    pub(super) list: Vec<Node>,
    /// Whether something is needed at other positions than the program's own.
    pub(super) moves: bool,
    /// For each store, the loads of the same slot that stand before it.
    pub(super) loads_before: HashMap<usize, Vec<usize>>,
}

impl Nodes {
    /// The nodes that the results of `program` and the register `returned` need.
    pub(super) fn new(
        program: &Program,
        shape: &BlockShape,
        first_store: usize,
        returned: Option<Register>,
    ) -> Nodes {
        let mut builder = Builder::default();
        let needed = builder.needed_views(program, returned);
        for (index, instruction) in program.instructions.iter().enumerate() {
            for &view in &needed[index] {
                let node = builder.value(instruction, (index as Register, view));
                builder.values.insert((index as Register, view), node);
            }
        }
        for (i, &register) in program.results.iter().enumerate() {
            let value = builder.values[&(register, 0)];
            let key = (register, 0);
            builder.push(Action::Store { store: first_store + i, value }, key);
        }
        if let Some(register) = returned {
            let value = builder.values[&(register, 0)];
            builder.push(Action::Return(value), (register, 0));
        }
        builder.pair_sums();
        let mut loads_before: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, node) in builder.nodes.iter().enumerate() {
            let Action::Load { load, .. } = node.action else { continue };
            for (_, store) in shape.shared.iter().filter(|(l, _)| *l == load) {
                loads_before.entry(usize::from(*store)).or_default().push(index);
            }
        }
        Nodes { list: builder.nodes, moves: !builder.views.is_empty(), loads_before }
    }

    /// The name of a value in the text. The products of a sum share one.
    pub(super) fn name(&self, node: usize) -> String {
        let Node { action, register, view, .. } = &self.list[node];
        let prefix = match action {
            Action::Position { .. } => return format!("at{view}"),
            Action::Product { .. } => "s",
            _ => "r",
        };
        match view {
            0 => format!("{prefix}{register}"),
            _ => format!("{prefix}{register}_{view}"),
        }
    }
}

/// A register in a view.
type Key = (Register, usize);

/// A chain of permutations: those of the view `from`, then one more. View 0 is the program's own positions; view `i` is the
/// entry `i - 1` of [`Builder::views`].
#[derive(Clone, Copy)]
struct View {
    from: usize,
    galois: u16,
    /// The first permutation of the program's own view that begins the chain.
    place: usize,
    /// The node of its positions, once there is one.
    positions: Option<usize>,
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    views: Vec<View>,
    values: HashMap<Key, usize>,
}

impl Builder {
    /// For each instruction, the views in which its value is needed, in increasing order.
    fn needed_views(&mut self, program: &Program, returned: Option<Register>) -> Vec<BTreeSet<usize>> {
        let mut needed = vec![BTreeSet::new(); program.instructions.len()];
        for &register in program.results.iter().chain(&returned) {
            needed[usize::from(register)].insert(0);
        }
        for (index, instruction) in program.instructions.iter().enumerate().rev() {
            for view in needed[index].clone() {
                let view = match instruction {
                    Instruction::Permute(_, galois) => self.view(view, *galois, index),
                    _ => view,
                };
                instruction.for_registers(|register| {
                    needed[usize::from(register)].insert(view);
                });
            }
        }
        needed
    }

    /// The view behind a view and a permutation, which stands at `place`.
    fn view(&mut self, from: usize, galois: u16, place: usize) -> usize {
        let place = if from == 0 { place } else { self.views[from - 1].place };
        let known = self.views.iter().position(|view| view.from == from && view.galois == galois);
        let index = known.unwrap_or_else(|| {
            self.views.push(View { from, galois, place, positions: None });
            self.views.len() - 1
        });
        self.views[index].place = self.views[index].place.min(place);
        index + 1
    }

    /// The node of a view's positions; none for the program's own.
    fn positions(&mut self, view: usize) -> Option<usize> {
        let View { from, galois, positions, .. } = *self.views.get(view.checked_sub(1)?)?;
        if positions.is_some() {
            return positions;
        }
        let from = self.positions(from);
        let node = self.push(Action::Position { from, galois }, (0, view));
        self.views[view - 1].positions = Some(node);
        Some(node)
    }

    fn push(&mut self, action: Action, key: Key) -> usize {
        self.push_product(action, key, usize::MAX)
    }

    fn push_product(&mut self, action: Action, (register, view): Key, product: usize) -> usize {
        let instruction = usize::from(register);
        let place = view.checked_sub(1).map_or(instruction, |view| self.views[view].place);
        let rank = Rank { place, view, beside: instruction, product, instruction };
        self.nodes.push(Node { action, rank, register, view });
        self.nodes.len() - 1
    }

    /// The node of an instruction's value in a view; those of its operands are there.
    fn value(&mut self, instruction: &Instruction, key: Key) -> usize {
        let (register, view) = key;
        let at = |register: Register| self.values[&(register, view)];
        let action = match instruction {
            Instruction::Load(load) => Action::Load { load: *load, at: self.positions(view) },
            Instruction::Input => Action::Input,
            Instruction::Add(a, b) => Action::Add(at(*a), at(*b)),
            Instruction::Sub(a, b) => Action::Sub(at(*a), at(*b)),
            Instruction::Neg(a) => Action::Neg(at(*a)),
            Instruction::Mul(a, b) => Action::Mul(at(*a), at(*b)),
            Instruction::MontMul(a, b) => Action::MontMul(at(*a), at(*b)),
            Instruction::MulScalar(a, scalar) => Action::MulScalar(at(*a), *scalar),
            Instruction::AddScalar(a, scalar) => Action::AddScalar(at(*a), *scalar),
            Instruction::Dot(pairs) => return self.dot(pairs, key),
            Instruction::Permute(a, galois) => {
                let view = self.view(view, *galois, usize::from(register));
                return self.values[&(*a, view)];
            }
        };
        self.push(action, key)
    }

    fn dot(&mut self, pairs: &[(Register, Register)], key: Key) -> usize {
        let mut sum = None;
        let mut filled = 0;
        for (product, (a, b)) in pairs.iter().enumerate() {
            let fold = filled == FULL;
            if fold {
                filled -= AFTER_FOLD;
            }
            filled += 1;
            let (a, b) = (self.values[&(*a, key.1)], self.values[&(*b, key.1)]);
            sum = Some(self.push_product(Action::Product { sum, fold, a, b }, key, product));
        }
        let sum = sum.expect("a validated sum has products");
        self.push(Action::Reduce { sum, products: filled }, key)
    }

    /// Puts sums side by side, two by two, if they alone share a load at the same place: it is then not kept.
    fn pair_sums(&mut self) {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.operands().into_iter().for_each(|operand| users[operand].push(index));
        }
        let mut paired: HashMap<Key, Rank> = HashMap::new();
        for (load, users) in self.nodes.iter().zip(&users) {
            let (Action::Load { .. }, &[first, second]) = (&load.action, users.as_slice()) else { continue };
            let (first, second) = (&self.nodes[first], &self.nodes[second]);
            let are_products = [first, second].iter().all(|n| matches!(n.action, Action::Product { .. }));
            let keys = [first, second].map(|node| (node.register, node.view));
            if are_products
                && keys[0] != keys[1]
                && first.rank.product == second.rank.product
                && keys.iter().all(|key| !paired.contains_key(key))
            {
                paired.extend(keys.map(|key| (key, first.rank)));
            }
        }
        for node in &mut self.nodes {
            let Some(rank) = paired.get(&(node.register, node.view)) else { continue };
            node.rank = Rank { place: rank.place, beside: rank.beside, ..node.rank };
        }
    }
}
