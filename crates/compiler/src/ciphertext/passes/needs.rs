//! The level at which every value of an unplaced program is needed: what `place_levels` and `place_bootstraps` share.
//!
//! Needs run backwards. Outputs are needed at level 0; a product needs its operands one level above its result; a value is
//! needed at the highest level that one of its uses asks for. Since sums, rotations and calls ask for what they are asked
//! for, every operation can run at its need and none can run lower: these are the lowest levels, and operations are
//! cheapest there.

use std::collections::HashMap;
use std::rc::Rc;

use cerium_artifact::Recipe;
use cerium_ckks::basis::Level;

use super::super::{Context, Function, Module, Op, Type};
use super::poly_depth;
use crate::bootstrap::is_free_bound;
use crate::ir::{Operation, Symbol, ValueId};

/// Constants whose parts are integers of at most this size multiply without using a scale.
const SMALL_INTEGER: f64 = 1024.0;

/// Whether a product with a constant is exact at scale 1.
pub(super) fn is_small_integer(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() <= SMALL_INTEGER
}

/// The level that a value must have once it is settled, ordered by height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Need {
    /// Nothing uses the value.
    Unused,
    /// This level.
    At(Level),
    /// As high as it comes: inside a bootstrap, above the levels of programs, levels are not for choice.
    Free,
}

impl Need {
    /// The need of something that is used, at least as a result that is dropped.
    pub(super) fn used(self) -> Need {
        self.max(Need::At(Level(0)))
    }

    /// So many levels higher.
    fn above(self, levels: u8) -> Need {
        match self {
            Need::At(level) => Need::At(Level(level.0.saturating_add(levels))),
            other => other,
        }
    }

    /// The level at which an operation runs that makes a pending value with this need: no higher than necessary.
    pub(super) fn pending(self) -> Level {
        self.above(1).settled()
    }

    /// The highest level worth having with this need.
    pub(super) fn settled(self) -> Level {
        match self {
            Need::Unused => Level(0),
            Need::At(level) => level,
            Need::Free => Level(u8::MAX),
        }
    }
}

/// What placement knows of the values of a function before it knows a level.
#[derive(Debug)]
pub(super) struct Shape {
    /// Products with a constant that are not made until their use tells at which level.
    pub(super) lazy: Vec<bool>,
    /// Plaintexts that are the same small integers in every slot, exact at scale 1.
    pub(super) exact: Vec<bool>,
    /// Values with several uses: they are settled before they are rotated.
    pub(super) settle_first: Vec<bool>,
}

impl Shape {
    pub(super) fn new(context: &Context, function: &Function) -> Shape {
        let none = || vec![false; function.types.len()];
        let settle_first = function.use_counts().into_iter().map(|count| count > 1).collect();
        let mut shape = Shape { lazy: none(), exact: none(), settle_first };
        for node in &function.nodes {
            let lazy = |v: &ValueId| shape.lazy[v.index()];
            let (lazy, exact) = match &node.op {
                Op::MulConst { a, value, .. } => (lazy(a) || !is_small_integer(value.0), false),
                Op::Neg { a } | Op::Rotate { a, .. } => (lazy(a), false),
                Op::MulPlain { a, p } => (lazy(a) && shape.exact[p.index()], false),
                Op::Weight { index } => (false, exact_weight(context, *index)),
                Op::RotatePlain { p, .. } => (false, shape.exact[p.index()]),
                _ => continue,
            };
            let result = node.result().index();
            (shape.lazy[result], shape.exact[result]) = (lazy, exact);
        }
        shape
    }

    /// Levels between the operands of an operation and its result.
    pub(super) fn depth(&self, op: &Op) -> u8 {
        match op {
            Op::Mul { .. } | Op::LinearTransform { .. } => 1,
            Op::MulPlain { p, .. } => (!self.exact[p.index()]).into(),
            Op::MulConst { a, value, .. } => (!self.lazy[a.index()] && !is_small_integer(value.0)).into(),
            Op::PolyEval { coefficients, .. } => poly_depth(coefficients.len()) as u8,
            _ => 0,
        }
    }

    /// What an operation other than a call needs of its operands for a result with this need.
    pub(super) fn operand_need(&self, context: &Context, op: &Op, need: Need) -> Need {
        match op {
            Op::Lower { to, .. } => Need::At(*to),
            Op::ModRaise { .. } => Need::At(Level(0)),
            // A scale that can be divided is larger than the canonical one, as above the levels of programs.
            Op::Reinterpret { factor, .. } if factor.0 > 1.0 => Need::Free,
            Op::Bootstrap { bound, .. } => {
                let levels = context.params.bootstrap();
                let input = Need::At(levels.map_or(Level(0), |levels| levels.input));
                input.above(if is_free_bound(bound.0) { 0 } else { 1 })
            }
            op => need.used().above(self.depth(op)),
        }
    }
}

/// Whether a weight of the program is the same small integers in every slot.
fn exact_weight(context: &Context, index: u32) -> bool {
    match context.data.weights.get(index as usize) {
        Some(Recipe::Constant { re, im }) => is_small_integer(*re) && is_small_integer(*im),
        _ => false,
    }
}

/// Computes needs, once for each function and each combination of needs of its results.
pub(super) struct Needs<'a> {
    module: &'a Module,
    shapes: HashMap<Symbol, Rc<Shape>>,
    known: HashMap<(Symbol, Vec<Need>), Rc<Vec<Need>>>,
}

impl<'a> Needs<'a> {
    pub(super) fn new(module: &'a Module) -> Self {
        Needs { module, shapes: HashMap::new(), known: HashMap::new() }
    }

    /// The shape of a function.
    pub(super) fn shape(&mut self, function: &Function) -> Rc<Shape> {
        let new = || Rc::new(Shape::new(&self.module.context, function));
        self.shapes.entry(function.name.clone()).or_insert_with(new).clone()
    }

    /// The need of every value of `name` whose results have these needs.
    pub(super) fn values(&mut self, name: &Symbol, results: &[Need]) -> Rc<Vec<Need>> {
        let key = (name.clone(), results.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let module = self.module;
        let (_, function) = module.find(name).expect("verified modules call defined functions");
        let shape = self.shape(function);
        let mut needs = vec![Need::Unused; function.types.len()];
        for (value, need) in function.results.iter().zip(results) {
            needs[value.index()] = needs[value.index()].max(need.used());
        }
        for node in function.nodes.iter().rev() {
            let results = &needs[node.results.start as usize..node.results.end as usize];
            if results.iter().all(|&need| need == Need::Unused) {
                continue;
            }
            match &node.op {
                Op::Call { args, function: callee } => {
                    let results: Vec<Need> = results.iter().map(|need| need.used()).collect();
                    let callee = self.values(callee, &results);
                    for (arg, need) in args.iter().zip(callee.iter()) {
                        needs[arg.index()] = needs[arg.index()].max(need.used());
                    }
                }
                op => {
                    let need = results.iter().copied().max().unwrap_or(Need::Unused);
                    let need = shape.operand_need(&module.context, op, need);
                    for operand in op.operands() {
                        if matches!(function.type_of(operand), Type::Cipher(_)) {
                            needs[operand.index()] = needs[operand.index()].max(need);
                        }
                    }
                }
            }
        }
        let needs = Rc::new(needs);
        self.known.insert(key, needs.clone());
        needs
    }
}
