//! Fuses the operations of a limb function into launches.
//!
//! ```text
//! %2 = ntt(%0) : p0                      launch ntt          %2, %3
//! %3 = ntt(%1) : p1                      launch elementwise  [%2 -> %4 -> %6], [%3 -> %5 -> %7]
//! %4 = sub(%8, %2) : p0          ->
//! %5 = sub(%9, %3) : p1
//! %6 = mul_scalar(%4) : p0
//! %7 = mul_scalar(%5) : p1
//! ```
//!
//! *Vertical*: elementwise operations of one prime chain into one program, whose intermediate values never reach memory.
//! *Horizontal*: independent operations of one class within a window of the order (see
//! [`order_by_prime`](crate::limb::passes::order_by_prime)) share a launch. A window ends where another chunk of primes
//! begins, and where a base conversion needs a limb made in it.

use std::collections::HashMap;

use cerium_artifact::StageId;
use cerium_ckks::basis::PrimeIndex;

use crate::ir::{Node, Operation, ValueId};
use crate::limb::{Function, Op, Type};

/// Largest number of operations in one elementwise program: keeps its registers and operands within reach.
const MAX_PROGRAM: usize = 192;

/// No operation joins a program that has this many operands: registers are 16-bit numbers.
const MAX_OPERANDS: usize = 8192;

/// One launch of a function's schedule; numbers are indices of nodes of the limb function.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Stage of its first operation.
    pub stage: StageId,
    /// What it runs.
    pub group: Group,
}

/// The operations of a launch.
#[derive(Clone, Debug, PartialEq)]
pub enum Group {
    /// Chains of elementwise operations, one a block; all blocks have the same shape.
    Elementwise(Vec<Vec<usize>>),
    /// Forward transforms.
    Ntt(Vec<usize>),
    /// Inverse transforms.
    Intt(Vec<usize>),
    /// Automorphisms.
    Permute(Vec<usize>),
    /// Base conversions, one block for each set of sources.
    BaseConvert(Vec<Vec<usize>>),
    /// A call.
    Call(usize),
}

impl Group {
    /// All nodes of the group.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Group::Elementwise(blocks) | Group::BaseConvert(blocks) => blocks.concat(),
            Group::Ntt(nodes) | Group::Intt(nodes) | Group::Permute(nodes) => nodes.clone(),
            Group::Call(node) => vec![*node],
        }
    }
}

/// Whether the operation is part of elementwise programs.
pub(super) fn is_elementwise(op: &Op) -> bool {
    match op {
        Op::Add { .. }
        | Op::Sub { .. }
        | Op::Neg { .. }
        | Op::Mul { .. }
        | Op::MulMontgomery { .. }
        | Op::FromMontgomery { .. }
        | Op::MulScalar { .. }
        | Op::AddScalar { .. }
        | Op::Dot { .. } => true,
        Op::Ntt { .. }
        | Op::Intt { .. }
        | Op::Permute { .. }
        | Op::BaseConvert { .. }
        | Op::Weight { .. }
        | Op::Plain { .. }
        | Op::Key { .. }
        | Op::Call { .. } => false,
    }
}

/// Whether the operation only names an operand and computes nothing.
fn is_reference(op: &Op) -> bool {
    matches!(op, Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. })
}

/// The launches of a function, in order; `chunk` is that of the order pass.
pub fn fuse(function: &Function, chunk: usize) -> Vec<Launch> {
    let mut fusion = Fusion {
        function,
        uses: function.use_counts(),
        step_of: vec![None; function.types.len()],
        steps: Vec::new(),
        open: HashMap::new(),
        launches: Vec::new(),
    };
    let mut window = None;
    for (index, node) in function.nodes.iter().enumerate() {
        if is_reference(&node.op) {
            continue;
        }
        if let Op::Call { .. } = node.op {
            fusion.close_window();
            fusion.launches.push(Launch { stage: node.stage, group: Group::Call(index) });
            continue;
        }
        let prime = prime_of(function, node);
        let converts_own = matches!(node.op, Op::BaseConvert { .. })
            && node.op.operands().iter().any(|v| fusion.step_of[v.index()].is_some());
        if converts_own || window.is_some_and(|w| w != prime.index() / chunk) {
            fusion.close_window();
        }
        window = Some(prime.index() / chunk);
        fusion.add(index, node, prime);
    }
    fusion.close_window();
    fusion.launches
}

fn prime_of(function: &Function, node: &Node<Op>) -> PrimeIndex {
    match function.type_of(node.result()) {
        Type::Limb { prime, .. } | Type::Plain { prime, .. } | Type::Key { prime } => *prime,
        Type::Weight { .. } => unreachable!("weights are references"),
    }
}

/// A block in the making: one operation, or a chain of elementwise ones.
struct Step {
    nodes: Vec<usize>,
    operands: usize,
    /// Steps run in order of rounds; steps of one round are independent.
    round: u32,
}

struct Fusion<'a> {
    function: &'a Function,
    /// How often each value is used.
    uses: Vec<u32>,
    /// The step of the open window that makes a value.
    step_of: Vec<Option<usize>>,
    steps: Vec<Step>,
    /// The elementwise step of each prime that can still grow: nothing has read its results.
    open: HashMap<PrimeIndex, usize>,
    launches: Vec<Launch>,
}

/// What must agree for elementwise blocks to share a launch: operations with their operands' places, and whether anybody
/// outside the block needs the result.
type Shape = Vec<(&'static str, Vec<Place>, bool)>;

/// Where a block's operation finds an operand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// The result of the block's operation with this index.
    Chain(usize),
    /// The block's load with this index.
    Load(usize),
}

impl Fusion<'_> {
    fn add(&mut self, index: usize, node: &Node<Op>, prime: PrimeIndex) {
        let elementwise = is_elementwise(&node.op);
        let open = self.open.get(&prime).copied().filter(|_| elementwise);
        let mut round = 0;
        for operand in node.op.operands() {
            let Some(step) = self.step_of[operand.index()] else { continue };
            if Some(step) != open {
                round = round.max(self.steps[step].round + 1);
                // Somebody reads it: the step must not grow any more, its round is final.
                self.open.retain(|_, &mut s| s != step);
            }
        }
        let operands = node.op.operands().len();
        let has_room = |step: &Step| step.nodes.len() < MAX_PROGRAM && step.operands < MAX_OPERANDS;
        let step = match open.filter(|&step| has_room(&self.steps[step])) {
            Some(step) => {
                let step_ref = &mut self.steps[step];
                step_ref.nodes.push(index);
                step_ref.operands += operands;
                step_ref.round = step_ref.round.max(round);
                step
            }
            None => {
                // A step that was full may be read by this one.
                if let Some(full) = open {
                    round = round.max(self.steps[full].round + 1);
                }
                self.steps.push(Step { nodes: vec![index], operands, round });
                self.steps.len() - 1
            }
        };
        if elementwise {
            self.open.insert(prime, step);
        }
        for result in node.results.clone() {
            self.step_of[result as usize] = Some(step);
        }
    }

    /// Turns the steps of the window into launches: round by round, one launch for each class and shape.
    fn close_window(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        self.open.clear();
        for step in &steps {
            for &node in &step.nodes {
                for result in self.function.nodes[node].results.clone() {
                    self.step_of[result as usize] = None;
                }
            }
        }
        steps.sort_by_key(|step| step.round);
        for round in steps.chunk_by(|a, b| a.round == b.round) {
            self.launch_round(round);
        }
    }

    fn launch_round(&mut self, steps: &[Step]) {
        let (mut ntt, mut intt, mut permute) = (Vec::new(), Vec::new(), Vec::new());
        let mut conversions: Vec<(Vec<ValueId>, Vec<usize>)> = Vec::new();
        let mut chains: Vec<(Shape, Vec<Vec<usize>>)> = Vec::new();
        for step in steps {
            let first = step.nodes[0];
            match &self.function.nodes[first].op {
                Op::Ntt { .. } => ntt.push(first),
                Op::Intt { .. } => intt.push(first),
                Op::Permute { .. } => permute.push(first),
                Op::BaseConvert { sources, .. } => match conversions.iter_mut().find(|(s, _)| s == sources) {
                    Some((_, nodes)) => nodes.push(first),
                    None => conversions.push((sources.clone(), vec![first])),
                },
                _ => {
                    let shape = self.shape(&step.nodes);
                    match chains.iter_mut().find(|(s, _)| *s == shape) {
                        Some((_, blocks)) => blocks.push(step.nodes.clone()),
                        None => chains.push((shape, vec![step.nodes.clone()])),
                    }
                }
            }
        }
        let function = self.function;
        let mut launch = |group: Group| {
            if let Some(&first) = group.nodes().first() {
                self.launches.push(Launch { stage: function.nodes[first].stage, group });
            }
        };
        launch(Group::BaseConvert(conversions.into_iter().map(|(_, nodes)| nodes).collect()));
        launch(Group::Intt(intt));
        launch(Group::Ntt(ntt));
        launch(Group::Permute(permute));
        for (_, blocks) in chains {
            launch(Group::Elementwise(blocks));
        }
    }

    fn shape(&self, nodes: &[usize]) -> Shape {
        let mut loads: Vec<ValueId> = Vec::new();
        let mut made: HashMap<ValueId, usize> = HashMap::new();
        let mut inside: HashMap<ValueId, u32> = HashMap::new();
        for value in nodes.iter().flat_map(|&node| self.function.nodes[node].op.operands()) {
            *inside.entry(value).or_default() += 1;
        }
        let mut shape = Vec::with_capacity(nodes.len());
        for (i, &node) in nodes.iter().enumerate() {
            let node = &self.function.nodes[node];
            let places = node.op.operands().into_iter().map(|v| match made.get(&v) {
                Some(&i) => Place::Chain(i),
                None => Place::Load(loads.iter().position(|&l| l == v).unwrap_or_else(|| {
                    loads.push(v);
                    loads.len() - 1
                })),
            });
            let places = places.collect();
            let result = node.result();
            let escapes = self.uses[result.index()] > inside.get(&result).copied().unwrap_or(0);
            shape.push((node.op.mnemonic(), places, escapes));
            made.insert(node.result(), i);
        }
        shape
    }
}
