//! What is known of the slots of every value without running the program: whether they are real, and with what period they
//! repeat.

use std::collections::HashMap;

use cerium_artifact::Recipe;

use super::super::super::{BootstrapKind, Context, Function, Module, Op, Type};
use crate::ir::{Operation, Symbol, ValueId};

/// What holds for the slots of a value, whichever call of its function it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fact {
    /// All slots are real.
    pub(super) real: bool,
    /// They repeat with period `2^log_period`.
    pub(super) log_period: u32,
}

impl Fact {
    /// The fact of a value before anything is known: each rule only adds to it.
    const LEAST: Fact = Fact { real: true, log_period: 0 };

    /// What holds for values of both facts.
    fn join(self, other: Fact) -> Fact {
        Fact { real: self.real && other.real, log_period: self.log_period.max(other.log_period) }
    }

    /// The kind of bootstrap for such a value.
    pub(super) fn kind(self) -> BootstrapKind {
        if self.real { BootstrapKind::Real } else { BootstrapKind::Complex }
    }
}

/// Facts of all values, by function.
pub(super) struct Facts {
    values: HashMap<Symbol, Vec<Fact>>,
}

impl Facts {
    /// Facts of a module whose inputs are real with these periods.
    pub(super) fn new(module: &Module, log_periods: &[u32]) -> Facts {
        let least = |f: &Function| (f.name.clone(), vec![Fact::LEAST; f.types.len()]);
        let mut facts = Facts { values: module.functions.iter().map(least).collect() };
        let entry = module.entry();
        let inputs = facts.values.get_mut(&entry.name).expect("every function has facts");
        for (input, &log_period) in inputs.iter_mut().zip(log_periods) {
            input.log_period = log_period;
        }
        // Callers stand behind their callees, whose parameters they tell about and whose results they ask for: two passes
        // for each depth of calls, and facts only grow.
        loop {
            let before: Vec<Vec<Fact>> =
                module.functions.iter().map(|f| facts.values[&f.name].clone()).collect();
            module.functions.iter().rev().for_each(|function| facts.infer(module, function));
            if module.functions.iter().zip(&before).all(|(f, before)| facts.values[&f.name] == *before) {
                break;
            }
        }
        facts
    }

    /// The fact of a value.
    pub(super) fn of(&self, function: &Symbol, value: ValueId) -> Fact {
        self.values[function][value.index()]
    }

    fn infer(&mut self, module: &Module, function: &Function) {
        let mut values = self.values[&function.name].clone();
        // Weights that are parameters carry facts from their calls; the others state their own.
        for (fact, ty) in values.iter_mut().zip(&function.types) {
            if let Type::Plain { log_period } = ty {
                fact.log_period = *log_period;
            }
        }
        let mut conjugates: HashMap<ValueId, ValueId> = HashMap::new();
        for node in &function.nodes {
            let joined = node.op.operands().iter().map(|v| values[v.index()]).fold(Fact::LEAST, Fact::join);
            match &node.op {
                Op::Call { args, function: callee } => {
                    let (_, callee) = module.find(callee).expect("verified modules call defined functions");
                    let inside = self.values.get_mut(&callee.name).expect("every function has facts");
                    for (param, arg) in inside.iter_mut().zip(args) {
                        *param = param.join(values[arg.index()]);
                    }
                    for (result, value) in node.results.clone().zip(&callee.results) {
                        values[result as usize] = inside[value.index()];
                    }
                }
                Op::Bootstrap { xs, .. } => {
                    for (result, x) in node.results.clone().zip(xs) {
                        values[result as usize] = values[x.index()];
                    }
                }
                op => {
                    if let Op::Conjugate { a } = op {
                        conjugates.insert(node.result(), *a);
                    }
                    let result = &mut values[node.result().index()];
                    *result = Fact { log_period: joined.log_period.max(result.log_period), ..joined };
                    result.real &= is_real(&module.context, op);
                    result.real |= match op {
                        // Twice the real part.
                        Op::Add { a, b } => conjugates.get(a) == Some(b) || conjugates.get(b) == Some(a),
                        _ => false,
                    };
                }
            }
        }
        self.values.insert(function.name.clone(), values);
    }
}

/// Whether an operation on real values makes real ones.
fn is_real(context: &Context, op: &Op) -> bool {
    match op {
        Op::ModRaise { .. } => false,
        Op::Weight { index } => match context.data.weights.get(*index as usize) {
            Some(Recipe::Gather { .. }) => true,
            Some(Recipe::Constant { im, .. }) => *im == 0.0,
            _ => false,
        },
        _ => true,
    }
}
