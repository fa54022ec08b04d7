//! What operations cost where they run, in seconds, from tables by level.

use std::cell::RefCell;
use std::collections::HashMap;

use cerium_ckks::basis::Level;
use cerium_ckks::params::Params;

use super::super::super::cost::CostModel;
use super::super::super::{BootstrapKind, Op};
use super::facts::Fact;
use super::outline::Outline;
use crate::ir::{Node, ValueId};

/// Bootstraps are at least of so many slots.
pub(super) const LEAST_LOG_SLOTS: u32 = 4;

/// Tables of costs for levels of programs.
pub(super) struct Prices {
    /// The level at which a bootstrap takes values.
    pub(super) input: u8,
    /// The level at which it returns them, the highest one.
    pub(super) output: u8,
    model: CostModel,
    each: Vec<f64>,
    mul: Vec<f64>,
    relinearize: Vec<f64>,
    /// Of two polynomials, from this level.
    rescale: Vec<f64>,
    mod_up: Vec<f64>,
    hoisted: Vec<f64>,
    transforms: RefCell<HashMap<(u8, usize), f64>>,
    bootstraps: Vec<[f64; 3]>,
}

impl Prices {
    /// The prices of a parameter set; `None` if it has no levels for bootstrapping.
    pub(super) fn new(params: &Params) -> Option<Prices> {
        let levels = params.bootstrap()?;
        let model = CostModel::new(params);
        // A pending value may be one level above.
        let table = |price: &dyn Fn(Level) -> f64| -> Vec<f64> {
            params.levels().take(usize::from(levels.output.0) + 2).map(price).collect()
        };
        let bootstraps = (0..params.log_n()).map(|log_slots| {
            let price = |kind, values| model.bootstrap(kind, values, log_slots).unwrap_or(f64::INFINITY);
            [price(BootstrapKind::Real, 1), price(BootstrapKind::Real, 2), price(BootstrapKind::Complex, 1)]
        });
        Some(Prices {
            input: levels.input.0,
            output: levels.output.0,
            each: table(&|level| model.each(level, 1)),
            mul: table(&|level| model.mul(level)),
            relinearize: table(&|level| model.relinearize(level)),
            rescale: table(&|level| if level.0 == 0 { 0.0 } else { model.rescale(level, 2) }),
            mod_up: table(&|level| model.mod_up(level)),
            hoisted: table(&|level| model.rotate_hoisted(level)),
            transforms: RefCell::default(),
            bootstraps: bootstraps.collect(),
            model,
        })
    }

    /// Bringing a value down to a level.
    pub(super) fn adjust(&self, to: u8) -> f64 {
        self.rescale[usize::from(to) + 1] + 2.0 * self.each[usize::from(to) + 1]
    }

    /// A bootstrap of one value.
    pub(super) fn single(&self, fact: Fact) -> f64 {
        self.bootstrap(fact.kind(), 1, fact.log_period)
    }

    /// A bootstrap of two real values.
    pub(super) fn pair(&self, log_period: u32) -> f64 {
        self.bootstrap(BootstrapKind::Real, 2, log_period)
    }

    /// A bootstrap.
    pub(super) fn bootstrap(&self, kind: BootstrapKind, values: usize, log_slots: u32) -> f64 {
        let log_slots = (log_slots.max(LEAST_LOG_SLOTS) as usize).min(self.bootstraps.len() - 1);
        let [real, pair, complex] = self.bootstraps[log_slots];
        match (kind, values) {
            (BootstrapKind::Complex, _) => complex,
            (BootstrapKind::Real, 2) => pair,
            (BootstrapKind::Real, _) => real,
        }
    }

    /// An operation that is no call whose result is needed at a level, with the relinearization and the rescaling of its
    /// result if there are any. `booted` says that the result is bootstrapped.
    pub(super) fn operation(&self, outline: &Outline, node: &Node<Op>, need: u8, booted: bool) -> f64 {
        let Some(result) = outline.values.get(node.results.start as usize) else { return 0.0 };
        let of = |v: &ValueId| outline.values[v.index()];
        let settled = usize::from(need);
        let at = settled + usize::from(result.pending);
        let size = f64::from(result.size);
        let made = match &node.op {
            Op::Add { .. } | Op::Sub { .. } | Op::Neg { .. } => size * self.each[at],
            Op::MulPlain { .. } | Op::MulConst { .. } => size * self.each[at],
            Op::AddPlain { .. } | Op::AddConst { .. } => self.each[at],
            Op::Mul { .. } => self.mul[at],
            Op::Rotate { a, .. } | Op::Conjugate { a } => {
                let as_made = of(a).size == 3 && !outline.shape.settle_first[a.index()];
                let relinearize = if as_made { self.relinearize[at] } else { 0.0 };
                // Rotations of one value share raising it, unless each of them has to relinearize.
                relinearize + self.hoisted[at] + self.mod_up[at] / f64::from(of(a).rotations.max(1))
            }
            Op::LinearTransform { diagonals, .. } => {
                let key = (at as u8, diagonals.len());
                let price = || self.model.linear_transform(Level(key.0), key.1);
                *self.transforms.borrow_mut().entry(key).or_insert_with(price)
            }
            Op::PolyEval { coefficients, .. } => {
                let depth = u8::try_from(coefficients.len().ilog2() + 1).unwrap_or(u8::MAX);
                let from = need.saturating_add(depth).min(self.output);
                self.model.poly_eval(Level(from), coefficients.len() - 1)
            }
            _ => 0.0,
        };
        let settle = match result.pending && (result.settles || booted) {
            true => self.rescale[at] + if result.size == 3 { self.relinearize[at] } else { 0.0 },
            false => 0.0,
        };
        made + settle
    }
}
