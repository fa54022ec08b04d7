//! Lets values stay undivided by P through linear operations.
//!
//! ```text
//! %3 = divide_round(%1) {by=P, times={}}       %3 = add_extended(%1, %c) {times=P}   # a rotation's sum with c0
//! %4 = add(%3, %c)                             %4 = automorphism(%3) {galois=5}
//! %5 = automorphism(%4) {galois=5}             %5 = mul_plain(%4, %p)                # %p now on Q and P
//! %6 = mul_plain(%5, %p)                  ->   %6 = add(%5, %7)                      # %7 from another rotation
//! %7 = ..                                      %8 = divide_round(%6) {by=P, times={}}
//! %8 = add(%6, %7)
//! ```
//!
//! A key product is P times its value, on the primes of Q and of P. Sums, automorphisms and products with plaintexts and
//! constants are linear, so that the division (`mod_down`) can wait until somebody needs the value itself: a product of
//! ciphertexts, the next `mod_up`, the end of the function. Double hoisting (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux,
//! EUROCRYPT 2021, section 4), the accumulation of `P c0` and one `mod_down` for a sum of key switches all follow. One rounding
//! takes the place of many, so that errors only get smaller.
//!
//! An undivided value has the limbs of P on top, with which every operation takes longer; a division costs transforms and a
//! base conversion. Which values to keep undivided is a [minimum cut](crate::ir::min_cut): an undivided value costs its
//! operations' work on P, and a division (once) if anybody needs it divided, of which a rescaling afterwards takes up a part
//! ([`merge_divisions`](super::merge_divisions)); a divided value that meets an undivided one in a sum costs a product with
//! P. A rotation whose result is multiplied at once therefore stays as it is.

use std::convert::Infallible;

use cerium_artifact::StageId;
use cerium_ckks::basis::Basis;
use cerium_ckks::rns::MOST_SOURCES;

use super::super::{Builder, Function, Module, Op, Type};
use crate::ciphertext::cost::CostModel;
use crate::ir::min_cut::{Network, Vertex};
use crate::ir::{Operation, ValueId};

/// Runs the pass.
pub fn sink_divisions(module: &mut Module) -> Result<(), Infallible> {
    let p = module.context.params.p_basis();
    let cost = Cost { model: CostModel::new(&module.context.params), p: p.len() as f64 };
    for function in std::mem::take(&mut module.functions) {
        let undivided = choose(&function, &cost, p);
        let function = rebuild(module, function, &undivided, p);
        module.functions.push(function);
    }
    Ok(())
}

/// Whether the operation divides a value on Q and P by P.
fn is_mod_down(op: &Op, p: Basis) -> bool {
    matches!(op, Op::DivideRound { by, times, .. } if *by == p && times.is_empty())
}

/// The operands of a linear operation that may be undivided; none of others.
fn linear_operands(op: &Op) -> Vec<ValueId> {
    match op {
        Op::Add { a, b } | Op::Sub { a, b } => vec![*a, *b],
        Op::Neg { a }
        | Op::MulPlain { a, .. }
        | Op::AddPlain { a, .. }
        | Op::MulScalar { a, .. }
        | Op::MulPrimes { a, .. }
        | Op::AddScalar { a, .. }
        | Op::Automorphism { a, .. }
        | Op::Restrict { a, .. } => vec![*a],
        Op::AddExtended { .. }
        | Op::Mul { .. }
        | Op::Ntt { .. }
        | Op::Intt { .. }
        | Op::Join { .. }
        | Op::BaseConvert { .. }
        | Op::DivideRound { .. }
        | Op::Divide { .. }
        | Op::KeyProduct { .. }
        | Op::Weight { .. }
        | Op::Encode { .. }
        | Op::Call { .. } => Vec::new(),
    }
}

/// Estimated time in units fine enough for capacities.
struct Cost {
    model: CostModel,
    /// Number of primes of P.
    p: f64,
}

impl Cost {
    /// What the limbs of P add to a linear operation on an undivided value. Products and their sums share loads and stores.
    fn on_p(&self, op: &Op) -> u64 {
        units(match op {
            Op::Restrict { .. } | Op::AddPlain { .. } | Op::AddScalar { .. } => 0.0,
            Op::Automorphism { .. } => self.model.permute(self.p),
            _ => self.model.pointwise(self.p) / 2.0,
        })
    }

    /// A division by P on so many limbs.
    fn division(&self, limbs: usize) -> u64 {
        units(self.quotient(self.p, limbs))
    }

    /// What P adds to a division by other primes.
    fn joining(&self, leaving: usize, limbs: usize) -> u64 {
        units(self.quotient(self.p + leaving as f64, limbs) - self.quotient(leaving as f64, limbs))
    }

    fn quotient(&self, leaving: f64, limbs: usize) -> f64 {
        self.model.convert(leaving, limbs as f64) + self.model.pointwise(limbs as f64)
    }

    /// The product with P of a divided value that is added to an undivided one.
    fn extension(&self, limbs: usize) -> u64 {
        units(self.model.pointwise(limbs as f64) / 4.0)
    }
}

/// A capacity: at least 1, so that of two equal choices the value is divided.
fn units(seconds: f64) -> u64 {
    (seconds * 1e10) as u64 + 1
}

/// Which values to keep undivided.
fn choose(function: &Function, cost: &Cost, p: Basis) -> Vec<bool> {
    let mut network = Network::new();
    // The vertex of a value that may be undivided, and that of its division.
    let mut vertices: Vec<Option<(Vertex, Vertex)>> = vec![None; function.types.len()];
    let mut add = |network: &mut Network, value: ValueId, limbs: usize| {
        let (vertex, divided) = (network.vertex(), network.vertex());
        network.edge(vertex, divided, cost.division(limbs));
        vertices[value.index()] = Some((vertex, divided));
        vertex
    };
    let limbs = |value: ValueId| match *function.type_of(value) {
        Type::Poly { basis, .. } => basis.len(),
        _ => 0,
    };
    let mut reachable = vec![false; function.types.len()];
    for node in &function.nodes {
        let undividable = |v: &ValueId| reachable[v.index()];
        let linear = linear_operands(&node.op);
        if is_mod_down(&node.op, p) {
            let vertex = add(&mut network, node.result(), limbs(node.result()));
            network.edge(Network::SOURCE, vertex, Network::NEVER);
            reachable[node.result().index()] = true;
        } else if linear.iter().any(undividable) {
            let vertex = add(&mut network, node.result(), limbs(node.result()));
            network.edge(vertex, Network::SINK, cost.on_p(&node.op));
            reachable[node.result().index()] = true;
        }
    }
    for node in &function.nodes {
        let linear = linear_operands(&node.op);
        for operand in node.op.operands() {
            let Some((vertex, divided)) = vertices[operand.index()] else {
                // A sum with a value that is never undivided multiplies it by P.
                if linear.contains(&operand)
                    && let Some((sum, _)) = vertices[node.result().index()]
                {
                    network.edge(sum, Network::SINK, cost.extension(limbs(operand)));
                }
                continue;
            };
            match (&node.op, vertices.get(node.results.start as usize).copied().flatten()) {
                (op, Some((result, _))) if !is_mod_down(op, p) => {
                    network.edge(divided, result, Network::NEVER);
                    let extended = match linear.len() {
                        1 => Network::NEVER,
                        _ => cost.extension(limbs(operand)),
                    };
                    network.edge(result, vertex, extended);
                }
                (Op::DivideRound { by, .. }, _) if by.len() + p.len() <= MOST_SOURCES => {
                    network.edge(vertex, Network::SINK, cost.joining(by.len(), limbs(node.result())));
                }
                _ => network.edge(divided, Network::SINK, Network::NEVER),
            }
        }
    }
    for result in &function.results {
        if let Some((_, divided)) = vertices[result.index()] {
            network.edge(divided, Network::SINK, Network::NEVER);
        }
    }
    let cut = network.cut();
    vertices.iter().map(|v| v.is_some_and(|(vertex, _)| cut.is_source(vertex))).collect()
}

/// What stands for a value of the old function.
#[derive(Clone, Copy, Default)]
struct Forms {
    divided: Option<ValueId>,
    undivided: Option<ValueId>,
    /// The stage of its division.
    stage: StageId,
}

struct Rebuild<'a> {
    module: &'a Module,
    builder: Builder,
    values: Vec<Forms>,
    p: Basis,
}

fn rebuild(module: &Module, function: Function, choice: &[bool], p: Basis) -> Function {
    let widened = widened_encodings(&function, choice);
    let builder = Builder::new(function.name.clone(), function.param_types().to_vec());
    let values = function.params().map(|v| Forms { divided: Some(v), ..Forms::default() }).collect();
    let mut this = Rebuild { module, builder, values, p };
    for node in function.nodes {
        this.builder.stage = node.stage;
        let first = node.results.start as usize;
        let undivided = if is_mod_down(&node.op, p) {
            let Op::DivideRound { a, .. } = node.op else { unreachable!("it divides") };
            Some(this.divided(a))
        } else if choice.get(first).copied().unwrap_or(false) {
            this.linear(&node.op)
        } else {
            None
        };
        if undivided.is_some() {
            this.values.push(Forms { undivided, divided: None, stage: node.stage });
            continue;
        }
        let mut op = node.op;
        op.map_operands(|v| this.divided(v));
        if let Op::Encode { basis, .. } = &mut op
            && widened[first]
        {
            *basis = basis.union(p);
        }
        let results = this.builder.try_push(module, op);
        let results = results.unwrap_or_else(|message| panic!("divisions sunk: {message}"));
        this.values.extend(results.map(|v| Forms {
            divided: Some(ValueId(v)),
            undivided: None,
            stage: node.stage,
        }));
    }
    let results = function.results.iter().map(|&v| this.divided(v)).collect();
    this.builder.finish(results)
}

/// Which values are encodings that undivided values are multiplied with.
fn widened_encodings(function: &Function, choice: &[bool]) -> Vec<bool> {
    let mut widened = vec![false; function.types.len()];
    for node in &function.nodes {
        if let Op::MulPlain { p, .. } = node.op {
            widened[p.index()] |= choice[node.result().index()];
        }
    }
    widened
}

impl Rebuild<'_> {
    /// The value itself; divides if that has not been done.
    fn divided(&mut self, value: ValueId) -> ValueId {
        let Forms { divided, undivided, stage } = self.values[value.index()];
        if let Some(divided) = divided {
            return divided;
        }
        let a = undivided.expect("a value has a form");
        let here = std::mem::replace(&mut self.builder.stage, stage);
        let divided = self.push(Op::DivideRound { a, by: self.p, times: Basis::EMPTY });
        self.builder.stage = here;
        self.values[value.index()].divided = Some(divided);
        divided
    }

    fn undivided(&self, value: ValueId) -> Option<ValueId> {
        self.values[value.index()].undivided
    }

    /// P times the result of a linear operation, if one of its operands is there undivided.
    fn linear(&mut self, op: &Op) -> Option<ValueId> {
        let (times, operands) = (self.p, linear_operands(op));
        let op = match (op, operands.as_slice()) {
            (Op::Add { .. } | Op::Sub { .. }, &[a, b]) => {
                let minus = matches!(op, Op::Sub { .. });
                match (self.undivided(a), self.undivided(b)) {
                    (Some(a), Some(b)) if minus => Op::Sub { a, b },
                    (Some(a), Some(b)) => Op::Add { a, b },
                    (Some(a), None) => {
                        let c = self.divided(b);
                        let c = if minus { self.push(Op::Neg { a: c }) } else { c };
                        Op::AddExtended { a, c, times }
                    }
                    (None, Some(b)) => {
                        let c = self.divided(a);
                        let a = if minus { self.push(Op::Neg { a: b }) } else { b };
                        Op::AddExtended { a, c, times }
                    }
                    (None, None) => return None,
                }
            }
            (op, &[a]) => {
                let a = self.undivided(a)?;
                match *op {
                    Op::MulPlain { p, .. } => Op::MulPlain { a, p: self.divided(p) },
                    Op::AddPlain { p, times, .. } => {
                        Op::AddPlain { a, p: self.divided(p), times: times.union(self.p) }
                    }
                    Op::AddScalar { scalar, times, .. } => {
                        Op::AddScalar { a, scalar, times: times.union(self.p) }
                    }
                    Op::Restrict { basis, .. } => Op::Restrict { a, basis: basis.union(self.p) },
                    Op::Neg { .. } => Op::Neg { a },
                    Op::MulScalar { scalar, .. } => Op::MulScalar { a, scalar },
                    Op::MulPrimes { primes, .. } => Op::MulPrimes { a, primes },
                    Op::Automorphism { galois, .. } => Op::Automorphism { a, galois },
                    _ => unreachable!("linear operations"),
                }
            }
            _ => unreachable!("linear operations have one or two operands"),
        };
        Some(self.push(op))
    }

    fn push(&mut self, op: Op) -> ValueId {
        self.builder.push(self.module, op)
    }
}
