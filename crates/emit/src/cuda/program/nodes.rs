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

/// Instruction, product within it, and what tells equals apart: the order in which a program is written.
pub(super) type Rank = (usize, usize, usize);

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
        let ranks = ranks(program);
        for (index, instruction) in program.instructions.iter().enumerate() {
            for &view in &needed[index] {
                let node = builder.value(instruction, (index as Register, view), ranks[index]);
                builder.values.insert((index as Register, view), node);
            }
        }
        for (i, &register) in program.results.iter().enumerate() {
            let value = builder.values[&(register, 0)];
            let rank = (usize::from(register), usize::MAX, i);
            builder.push(Action::Store { store: first_store + i, value }, rank, (register, 0));
        }
        if let Some(register) = returned {
            let value = builder.values[&(register, 0)];
            builder.push(Action::Return(value), (usize::MAX, 0, 0), (register, 0));
        }
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

/// For each instruction, the instruction beside which it runs: a sum runs beside an earlier one if they share a factor at
/// the same place.
fn ranks(program: &Program) -> Vec<usize> {
    let mut first: HashMap<(usize, Register), usize> = HashMap::new();
    let mut ranks: Vec<usize> = (0..program.instructions.len()).collect();
    for (index, instruction) in program.instructions.iter().enumerate() {
        let Instruction::Dot(pairs) = instruction else { continue };
        let factors = pairs.iter().enumerate().flat_map(|(place, &(a, b))| [(place, a), (place, b)]);
        if let Some(&beside) = factors.clone().filter_map(|factor| first.get(&factor)).min() {
            ranks[index] = beside;
        }
        for factor in factors {
            first.entry(factor).or_insert(ranks[index]);
        }
    }
    ranks
}

/// A register in a view.
type Key = (Register, usize);

/// A chain of permutations: those of the view `from`, then one more. View 0 is the program's own positions; view `i` is the
/// entry `i - 1` of [`Builder::views`].
struct View {
    from: usize,
    galois: u16,
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
                    Instruction::Permute(_, galois) => self.view(view, *galois),
                    _ => view,
                };
                instruction.for_registers(|register| {
                    needed[usize::from(register)].insert(view);
                });
            }
        }
        needed
    }

    fn view(&mut self, from: usize, galois: u16) -> usize {
        let known = self.views.iter().position(|view| view.from == from && view.galois == galois);
        let index = known.unwrap_or_else(|| {
            self.views.push(View { from, galois, positions: None });
            self.views.len() - 1
        });
        index + 1
    }

    /// The node of a view's positions; none for the program's own.
    fn positions(&mut self, view: usize) -> Option<usize> {
        let View { from, galois, positions } = *self.views.get(view.checked_sub(1)?)?;
        if positions.is_some() {
            return positions;
        }
        let from = self.positions(from);
        let node = self.push(Action::Position { from, galois }, (0, 0, 0), (0, view));
        self.views[view - 1].positions = Some(node);
        Some(node)
    }

    fn push(&mut self, action: Action, rank: Rank, (register, view): Key) -> usize {
        self.nodes.push(Node { action, rank, register, view });
        self.nodes.len() - 1
    }

    /// The node of an instruction's value in a view; those of its operands are there.
    fn value(&mut self, instruction: &Instruction, key: Key, beside: usize) -> usize {
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
            Instruction::Dot(pairs) => return self.dot(pairs, key, beside),
            Instruction::Permute(a, galois) => {
                let view = self.view(view, *galois);
                return self.values[&(*a, view)];
            }
        };
        self.push(action, (usize::from(register), 0, 0), key)
    }

    fn dot(&mut self, pairs: &[(Register, Register)], key: Key, beside: usize) -> usize {
        let (register, view) = key;
        let mut sum = None;
        let mut filled = 0;
        for (place, (a, b)) in pairs.iter().enumerate() {
            let fold = filled == FULL;
            if fold {
                filled -= AFTER_FOLD;
            }
            filled += 1;
            let (a, b) = (self.values[&(*a, view)], self.values[&(*b, view)]);
            let rank = (beside, place, usize::from(register));
            sum = Some(self.push(Action::Product { sum, fold, a, b }, rank, key));
        }
        let sum = sum.expect("a validated sum has products");
        let rank = (beside, pairs.len(), usize::from(register));
        self.push(Action::Reduce { sum, products: filled }, rank, key)
    }
}
