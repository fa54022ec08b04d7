//! Cancels transforms that undo each other, also across sums and products with constants.
//!
//! ```text
//! %2 = ntt(%1)                      # %1 from a base conversion
//! %3 = sub(%0, %2)                  %3 = intt(%0)
//! %4 = mul_scalar(%3)          ->   %4 = sub(%3, %1)
//! %5 = intt(%4)                     %5 = mul_scalar(%4)
//! %6 = base_convert(%5)             %6 = base_convert(%5)
//! ```
//!
//! `add`, `sub`, `neg` and `mul_scalar` do the same in either domain, so that each of their results may live in the one in
//! which fewer transforms are left: a [minimum cut](crate::ir::min_cut), where a value that is needed in the other domain
//! costs one transform. A division of a quotient (a rescaling after `mod_down`, say, where the two are not one) needs the
//! limbs that leave only as coefficients. On this level `restrict` and `join` are gone, and nothing stands between a
//! transform and its inverse.

use std::convert::Infallible;

use super::super::{Builder, Function, Module, Op, Type};
use crate::ir::min_cut::{Network, Vertex};
use crate::ir::simplify::remove_unused;
use crate::ir::{Operation, ValueId};
use crate::polynomial::Domain;

/// Costs of the transforms, in proportion to their time.
const NTT: u64 = 40;
const INTT: u64 = 50;
/// Cost of an operation in another domain than it was: of equal choices the old one wins. Products with constants that stand
/// behind an inverse transform stay there, where they are free (see [`fold_scalars`](super::fold_scalars)).
const MOVE: u64 = 1;

/// Runs the pass.
pub fn cancel_transforms(module: &mut Module) -> Result<(), Infallible> {
    for function in std::mem::take(&mut module.functions) {
        let function = match Values::new(&function) {
            Some(values) => values.rebuild(module, &function),
            None => function,
        };
        module.functions.push(function);
    }
    remove_unused(module);
    Ok(())
}

/// Whether the operation works on words of either domain.
fn is_free(op: &Op) -> bool {
    matches!(op, Op::Add { .. } | Op::Sub { .. } | Op::Neg { .. } | Op::MulScalar { .. })
}

/// Whether the operation only changes the domain; its result is then another form of its operand.
fn is_transform(op: &Op) -> bool {
    matches!(op, Op::Ntt { .. } | Op::Intt { factor: 1, .. })
}

fn domain(function: &Function, value: ValueId) -> Option<Domain> {
    match *function.type_of(value) {
        Type::Limb { domain, .. } => Some(domain),
        Type::Weight { .. } | Type::Plain { .. } | Type::Key { .. } => None,
    }
}

/// The values of a function, forms of one value taken together, and the domains in which they are made.
struct Values {
    /// The first form of each value.
    root: Vec<ValueId>,
    /// The domain in which a root is made.
    made_in: Vec<Option<Domain>>,
    /// Whether somebody needs a root as evaluations, and as coefficients.
    needed: Vec<[bool; 2]>,
}

impl Values {
    /// Chooses domains; `None` if there is nothing to choose.
    fn new(function: &Function) -> Option<Values> {
        if !function.nodes.iter().any(|node| matches!(node.op, Op::Intt { factor: 1, .. })) {
            return None;
        }
        let mut root: Vec<ValueId> = (0..function.types.len() as u32).map(ValueId).collect();
        let mut network = Network::new();
        // Coefficients are the side of the source.
        let mut vertices: Vec<Option<Vertex>> = vec![None; function.types.len()];
        let fixed = |domain: Domain| match domain {
            Domain::Coefficient => Network::SOURCE,
            Domain::Evaluation => Network::SINK,
        };
        for node in &function.nodes {
            if is_transform(&node.op) {
                root[node.result().index()] = root[node.op.operands()[0].index()];
            } else if is_free(&node.op) {
                let vertex = network.vertex();
                match domain(function, node.result()) {
                    Some(Domain::Coefficient) => network.edge(Network::SOURCE, vertex, MOVE),
                    _ => network.edge(vertex, Network::SINK, MOVE),
                }
                vertices[node.result().index()] = Some(vertex);
            }
        }
        let vertex = |value: ValueId| vertices[value.index()].or_else(|| domain(function, value).map(fixed));
        // What a value is worth in the domain of one of its users, once for all of them.
        let mut forms: Vec<Option<[Vertex; 2]>> = vec![None; function.types.len()];
        let mut uses = |network: &mut Network, value: ValueId, user: Vertex| {
            let value = root[value.index()];
            let Some(own) = vertex(value) else { return };
            let [evaluation, coefficient] = *forms[value.index()].get_or_insert_with(|| {
                let [evaluation, coefficient] = [network.vertex(), network.vertex()];
                network.edge(own, evaluation, NTT);
                network.edge(coefficient, own, INTT);
                [evaluation, coefficient]
            });
            network.edge(evaluation, user, Network::NEVER);
            network.edge(user, coefficient, Network::NEVER);
        };
        for node in &function.nodes {
            if is_transform(&node.op) {
                continue;
            }
            for operand in node.op.operands() {
                let user = match (is_free(&node.op), domain(function, operand)) {
                    (true, _) => vertices[node.result().index()],
                    (false, domain) => domain.map(fixed),
                };
                if let Some(user) = user {
                    uses(&mut network, operand, user);
                }
            }
        }
        for &result in &function.results {
            if let Some(domain) = domain(function, result) {
                uses(&mut network, result, fixed(domain));
            }
        }
        let cut = network.cut();
        let made_in =
            (0..function.types.len() as u32).map(ValueId).map(|value| match vertices[value.index()] {
                Some(vertex) if cut.is_source(vertex) => Some(Domain::Coefficient),
                Some(_) => Some(Domain::Evaluation),
                None => domain(function, value),
            });
        let mut values = Values { made_in: made_in.collect(), needed: vec![[false; 2]; root.len()], root };
        values.find_needs(function);
        Some(values)
    }

    /// The domain in which an operation takes an operand.
    fn taken_in(&self, function: &Function, op: &Op, result: u32, operand: ValueId) -> Option<Domain> {
        if is_free(op) { self.made_in[result as usize] } else { domain(function, operand) }
    }

    fn find_needs(&mut self, function: &Function) {
        for node in function.nodes.iter().filter(|node| !is_transform(&node.op)) {
            for operand in node.op.operands() {
                if let Some(domain) = self.taken_in(function, &node.op, node.results.start, operand) {
                    self.needed[self.root[operand.index()].index()][domain as usize] = true;
                }
            }
        }
        for &result in &function.results {
            if let Some(domain) = domain(function, result) {
                self.needed[self.root[result.index()].index()][domain as usize] = true;
            }
        }
    }

    /// The function with every value in its domain. Transforms stay where they stood, as far as they are needed.
    fn rebuild(&self, module: &Module, function: &Function) -> Function {
        let builder = Builder::new(function.name.clone(), function.param_types().to_vec());
        let mut rebuild =
            Rebuild { values: self, module, builder, forms: vec![[None; 2]; function.types.len()] };
        for param in function.params() {
            rebuild.define(param, param);
        }
        for node in &function.nodes {
            rebuild.builder.stage = node.stage;
            if is_transform(&node.op) {
                let domain = domain(function, node.result()).expect("transforms make limbs");
                let root = self.root[node.result().index()];
                if self.needed[root.index()][domain as usize] {
                    rebuild.form(root, domain);
                }
                continue;
            }
            let mut op = node.op.clone();
            op.map_operands(|v| {
                let taken = self.taken_in(function, &node.op, node.results.start, v);
                rebuild.form(self.root[v.index()], taken.unwrap_or(Domain::Evaluation))
            });
            let results = rebuild.builder.try_push(module, op);
            let results = results.unwrap_or_else(|message| panic!("transforms cancelled: {message}"));
            for (old, new) in node.results.clone().zip(results) {
                rebuild.define(ValueId(old), ValueId(new));
            }
        }
        let results = function
            .results
            .iter()
            .map(|v| rebuild.form(self.root[v.index()], domain(function, *v).unwrap_or(Domain::Evaluation)));
        let results = results.collect();
        rebuild.builder.finish(results)
    }
}

struct Rebuild<'a> {
    values: &'a Values,
    module: &'a Module,
    builder: Builder,
    /// What stands for each root, as evaluations and as coefficients; what is no limb counts as evaluations.
    forms: Vec<[Option<ValueId>; 2]>,
}

impl Rebuild<'_> {
    fn define(&mut self, old: ValueId, new: ValueId) {
        let domain = self.values.made_in[old.index()].unwrap_or(Domain::Evaluation);
        self.forms[old.index()][domain as usize] = Some(new);
    }

    /// A value in a domain, transformed if that has not been done.
    fn form(&mut self, root: ValueId, domain: Domain) -> ValueId {
        if let Some(form) = self.forms[root.index()][domain as usize] {
            return form;
        }
        let other = self.forms[root.index()].iter().flatten().next();
        let a = *other.expect("values are made before they are used");
        let op = match domain {
            Domain::Evaluation => Op::Ntt { a },
            Domain::Coefficient => Op::Intt { a, factor: 1 },
        };
        let form = self.builder.push(self.module, op);
        self.forms[root.index()][domain as usize] = Some(form);
        form
    }
}
