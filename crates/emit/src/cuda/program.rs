//! Programs as device functions.
//!
//! ```text
//! r0 = load 0; r1 = load 1        template <int V, int STEP> DEVICE void NAME(const Row& row, const Prime& p, u32 at) {
//! r2 = permute r0 by g0              Words<V> at1 = permuted<16>(positions<V, STEP>(at), constant(row, 6));
//! r3 = r2 * r1 / R; store r3   ->    Words<V> r0_1 = gather(pointer(row, 0), at1);
//!                                    Words<V> r1 = load<V, STEP>(pointer(row, 1), at);
//!                                    Words<V> r3 = mont_mul(r0_1, r1, p);
//!                                    store<V, STEP>(pointer(row, 2), at, r3);
//!                                 }
//! ```
//!
//! A function works on the `V` words of a limb at `at, at + STEP, ..`: consecutive ones (`STEP` 1, `at` a multiple of `V`, at most 8)
//! are moved 16 bytes at a time; of programs with automorphisms the threads of a warp should rather hold consecutive words
//! (`V` words of a thread lie `STEP`, the number of threads, apart): an aligned stretch comes from an aligned stretch, so a
//! warp then gathers from one line of memory.
//!
//! A register below a permutation is needed at other positions. What is below is computed once for each *view*, a chain of
//! permutations ([`Nodes`]); only loads and positions differ. The order of the statements keeps few words alive
//! ([`schedule`]).

mod nodes;
mod schedule;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use cerium_artifact::kernel::{Program, Register};

use super::abi::{BlockShape, LoadKind};
use nodes::{Action, Node, Nodes};

/// A program in the order in which it is written.
#[derive(Clone, Debug)]
pub struct Code {
    nodes: Nodes,
    order: Vec<usize>,
    live: usize,
    input: bool,
}

impl Code {
    /// The program of an elementwise kernel:
    /// `template <int V, int STEP> void NAME(const Row& row, const Prime& p, u32 at)`.
    pub fn elementwise(program: &Program, shape: &BlockShape) -> Code {
        Code::new(program, shape, 0, None, false)
    }

    /// The prologue of a transform, which returns the words that are transformed, those of register `input`:
    /// `template <int V, int STEP> Words<V> NAME(const Row& row, const Prime& p, u32 at)`.
    pub fn prologue(program: &Program, input: Register, shape: &BlockShape) -> Code {
        Code::new(program, shape, 0, Some(input), false)
    }

    /// The epilogue of a transform or conversion, which takes the words that were transformed; `first_store` is the store of
    /// its first result: `template <int V, int STEP> void NAME(const Row& row, const Prime& p, u32 at, const Words<V>& input)`.
    pub fn epilogue(program: &Program, shape: &BlockShape, first_store: usize) -> Code {
        Code::new(program, shape, first_store, None, true)
    }

    fn new(
        program: &Program,
        shape: &BlockShape,
        first_store: usize,
        returned: Option<Register>,
        input: bool,
    ) -> Code {
        let nodes = Nodes::new(program, shape, first_store, returned);
        let (order, live) = schedule::order(&nodes);
        Code { nodes, order, live, input }
    }

    /// The largest number of 32-bit values of one position that are alive at once.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Whether something is loaded through an automorphism.
    pub fn moves(&self) -> bool {
        self.nodes.moves
    }

    /// Loads and stores of one position.
    pub fn accesses(&self) -> usize {
        let access = |node: &&Node| matches!(node.action, Action::Load { .. } | Action::Store { .. });
        self.nodes.list.iter().filter(access).count()
    }

    /// Number of statements.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the function does nothing.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The text of the function for limbs of `2^log_n` words.
    pub fn function(&self, name: &str, shape: &BlockShape, log_n: u32) -> String {
        let returned = self.nodes.list.iter().any(|node| matches!(node.action, Action::Return(_)));
        let mut out = format!(
            "template <int V, int STEP> DEVICE {} {name}(const Row& row, const Prime& p, u32 at{}) {{\n",
            if returned { "Words<V>" } else { "void" },
            if self.input { ", const Words<V>& input" } else { "" }
        );
        for &node in &self.order {
            out.push_str("    ");
            self.statement(&mut out, node, shape, log_n);
            out.push('\n');
        }
        out.push_str("}\n");
        out
    }

    fn statement(&self, out: &mut String, index: usize, shape: &BlockShape, log_n: u32) {
        let name = |node: &usize| self.nodes.name(*node);
        let word = |position: usize| format!("constant(row, {position})");
        let scalar = |scalar: &u16| word(shape.scalar(*scalar));
        let node = &self.nodes.list[index];
        let value = match &node.action {
            Action::Position { from, galois } => {
                let from = from.as_ref().map_or("positions<V, STEP>(at)".to_string(), name);
                format!("permuted<{log_n}>({from}, {})", word(shape.galois(*galois)))
            }
            Action::Load { load, at } => {
                let limb = format!("pointer(row, {})", shape.load(*load));
                let own = shape.shared.iter().any(|(l, _)| l == load);
                let run = word(shape.log_run(*load));
                match (shape.loads[usize::from(*load)], at) {
                    (LoadKind::Limb, None) if own => format!("load_own<V, STEP>({limb}, at)"),
                    (LoadKind::Limb, None) => format!("load<V, STEP>({limb}, at)"),
                    (LoadKind::Key, None) => format!("load_once<V, STEP>({limb}, at)"),
                    (LoadKind::Runs, None) => format!("load_runs<V, STEP>({limb}, at, {run})"),
                    (LoadKind::ShortRuns, None) => format!("load_short_runs<V, STEP>({limb}, at, {run})"),
                    (LoadKind::Limb, Some(at)) => format!("gather({limb}, {})", name(at)),
                    (LoadKind::Key, Some(at)) => format!("gather_once({limb}, {})", name(at)),
                    (LoadKind::Runs | LoadKind::ShortRuns, Some(at)) => {
                        format!("gather_runs({limb}, {}, {run})", name(at))
                    }
                }
            }
            Action::Input => "input".to_string(),
            Action::Add(a, b) => format!("add({}, {}, p)", name(a), name(b)),
            Action::Sub(a, b) => format!("sub({}, {}, p)", name(a), name(b)),
            Action::Neg(a) => format!("neg({}, p)", name(a)),
            Action::Mul(a, b) => format!("mul({}, {}, p)", name(a), name(b)),
            Action::MontMul(a, b) => format!("mont_mul({}, {}, p)", name(a), name(b)),
            Action::MulScalar(a, s) => {
                let quotient = word(shape.scalar(*s) + 1);
                format!("mul_scalar({}, {}, {quotient}, p)", name(a), scalar(s))
            }
            Action::AddScalar(a, s) => format!("add_scalar({}, {}, p)", name(a), scalar(s)),
            Action::Product { sum: None, a, b, .. } => {
                let _ = write!(out, "Sums<V> {} = product({}, {});", name(&index), name(a), name(b));
                return;
            }
            Action::Product { sum: Some(_), fold, a, b } => {
                let sum = name(&index);
                if *fold {
                    let _ = write!(out, "fold({sum}, p); ");
                }
                let _ = write!(out, "add_product({sum}, {}, {});", name(a), name(b));
                return;
            }
            Action::Reduce { sum, products } => format!("reduce<{products}>({}, p)", name(sum)),
            Action::Store { store, value } => {
                let limb = format!("pointer(row, {})", shape.store(*store));
                let _ = write!(out, "store<V, STEP>({limb}, at, {});", name(value));
                return;
            }
            Action::Return(value) => {
                let _ = write!(out, "return {};", name(value));
                return;
            }
        };
        let _ = write!(out, "const Words<V> {} = {value};", name(&index));
    }
}
