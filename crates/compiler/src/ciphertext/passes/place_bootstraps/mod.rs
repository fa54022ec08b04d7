//! Places bootstraps where the program takes least time.
//!
//! ```text
//! # multiplications without end          # at a level of the parameter set the value is refreshed
//! %14 = mul(%13, %13)                    %14 = mul(%13, %13)
//! %15 = mul(%14, %14)             ->     %15 = bootstrap(%14) {kind=real, log_slots=15, bound=1.0}
//! ..                                     %16 = mul(%15, %15)
//! ```
//!
//! The pass runs on unplaced programs and minimises estimated time ([`CostModel`](super::super::cost::CostModel)): of
//! bootstraps, and of every operation at the level at which `place_levels` will run it, for the rules of levels are shared
//! with it ([`needs`](super::needs)). A value may be bootstrapped for some of its uses and taken as it is for others (a skip
//! connection), two real values that are there at the same time share one bootstrap, and a function is searched once for each
//! level at which its results are needed, however often it is called. Functions that come out differently for different
//! calls are copied; many copies of a large one are avoided ([`copies`]).
//!
//! Bootstraps and levels that stand in the source stay.

mod bounds;
mod facts;
mod outline;
mod prices;
mod rewrite;
mod search;
mod symmetry;

use std::collections::{BTreeMap, HashMap};

use super::super::{Function, Module, Op, Slots};
use crate::ir::Node;
use bounds::Bounds;
use facts::Facts;
use prices::Prices;
use search::{Decision, Search};

/// Copies that a function of any size may have: versions for different levels, or with bootstraps in different places.
pub const MIN_COPIES: usize = 4;

/// Operations that all copies of a function may have together, if they are more than [`MIN_COPIES`]: each takes
/// milliseconds to compile.
const MAX_COPIED: usize = 2000;

/// A search that took this many steps is not repeated for every way to leave out a level.
const QUICK: usize = 2_000;

/// What the pass found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BootstrapPlan {
    /// Estimated seconds of the whole program on one core.
    pub seconds: f64,
    /// No placement that the search could have chosen is better: among those that treat values in the same position alike,
    /// with as few copies of functions, and by the estimate.
    pub exact: bool,
}

/// Runs the pass. Inputs are real and repeat with periods of `2^log_periods` slots; `samples` are input slots of typical runs,
/// from which the bounds of bootstraps are taken (1 without any).
///
/// `None`, and nothing is changed, if the parameter set has no levels for bootstrapping, the program is written on the level
/// of the parts of a bootstrap, or no placement exists, which `place_levels` will tell about.
pub fn place_bootstraps(
    module: &mut Module,
    log_periods: &[u32],
    samples: &[Vec<Slots>],
) -> Option<BootstrapPlan> {
    let prices = Prices::new(&module.context.params)?;
    let by_hand = |op: &Op| matches!(op, Op::ModRaise { .. } | Op::Reinterpret { .. });
    if module.functions.iter().flat_map(|f| &f.nodes).any(|node| by_hand(&node.op)) {
        return None;
    }
    let facts = Facts::new(module, log_periods);
    let mut search = Search::new(module, &facts, &prices);
    let seconds = limit_copies(module, &mut search)?;
    let exact = search.entry().exact;
    if bootstraps(module, &mut search) {
        let bounds = Bounds::measure(module, samples);
        let written = rewrite::rewrite(module, &facts, &bounds, &mut search);
        *module = written;
    }
    Some(BootstrapPlan { seconds, exact })
}

/// How many copies of a function there may be.
fn copies(function: &Function) -> usize {
    let size = |node: &Node<Op>| match &node.op {
        Op::LinearTransform { diagonals, .. } => 2 * diagonals.len(),
        _ => 1,
    };
    let operations: usize = function.nodes.iter().map(size).sum();
    (MAX_COPIED / operations.max(1)).max(MIN_COPIES)
}

/// Levels at which functions return, where not all are allowed.
type Exits = HashMap<usize, Vec<u8>>;

/// Restricts the levels at which functions return until none has more versions than it may have; the estimated seconds.
fn limit_copies(module: &Module, search: &mut Search<'_>) -> Option<f64> {
    let mut seconds = search.entry().plans.first()?.cost;
    let quick = search.steps < QUICK;
    loop {
        let before = search.exits.clone();
        let versions = versions(module, search);
        let many = |(function, used): &(&usize, &BTreeMap<Version, u64>)| {
            used.len() > copies(&module.functions[**function])
        };
        let Some((&function, _)) = versions.iter().find(many) else { return Some(seconds) };
        let even = evenly(module, search, &before, function, quick);
        let fewer = leaving_out(module, search, &before, function, quick);
        let best = [even, fewer].into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((cost, exits)) = best else {
            search.restrict(before);
            return Some(seconds);
        };
        search.restrict(exits);
        seconds = cost;
    }
}

/// The estimated seconds with restricted exits, if there is a plan.
fn cost(search: &mut Search<'_>, exits: &Exits) -> Option<f64> {
    search.restrict(exits.clone());
    search.entry().plans.first().map(|plan| plan.cost)
}

/// Exits of a function at equal distances from the level of bootstraps up, which suit repeated calls.
fn evenly(
    module: &Module,
    search: &mut Search<'_>,
    before: &Exits,
    function: usize,
    quick: bool,
) -> Option<(f64, Exits)> {
    let most = copies(&module.functions[function]);
    let (input, output) = search.levels();
    let strides = if quick {
        (1..=output - input).collect()
    } else {
        vec![search.depth(function).clamp(1, output - input)]
    };
    let tried = strides.into_iter().filter_map(|stride| {
        let levels = (input..=output).step_by(stride.into()).take(most).collect();
        let mut exits = before.clone();
        exits.insert(function, levels);
        let cost = cost(search, &exits)?;
        let fits = versions(module, search).get(&function).is_none_or(|used| used.len() <= most);
        fits.then_some((cost, exits))
    });
    tried.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// The exits in use but for those whose absence costs least, or if trying takes long, those least used.
fn leaving_out(
    module: &Module,
    search: &mut Search<'_>,
    before: &Exits,
    function: usize,
    quick: bool,
) -> Option<(f64, Exits)> {
    let mut exits = before.clone();
    let mut seconds = cost(search, &exits)?;
    loop {
        let used = versions(module, search).remove(&function).unwrap_or_default();
        if used.len() <= copies(&module.functions[function]) {
            return Some((seconds, exits));
        }
        let mut levels: BTreeMap<u8, u64> = BTreeMap::new();
        for ((results, _), calls) in &used {
            results.iter().for_each(|&level| *levels.entry(level).or_default() += calls);
        }
        if levels.len() < 2 {
            return None;
        }
        let rarest = levels.iter().min_by_key(|(_, calls)| **calls).map(|(&level, _)| level)?;
        let candidates: Vec<u8> = if quick { levels.keys().copied().collect() } else { vec![rarest] };
        let tried = candidates.into_iter().filter_map(|level| {
            let mut exits = exits.clone();
            exits.insert(function, levels.keys().copied().filter(|&l| l != level).collect());
            Some((cost(search, &exits)?, exits))
        });
        (seconds, exits) = tried.min_by(|a, b| a.0.total_cmp(&b.0))?;
        search.restrict(exits.clone());
    }
}

/// Whether the best plan has bootstraps.
fn bootstraps(module: &Module, search: &mut Search<'_>) -> bool {
    versions(module, search).iter().any(|(&function, used)| {
        used.keys().any(|(results, plan)| {
            let solution = search.solve(function, results);
            let decisions = solution.decisions(&solution.plans[*plan]);
            decisions.iter().any(|decision| matches!(decision, Decision::Serve { .. }))
        })
    })
}

/// A version of a function: the levels of its results, and the number of the plan.
type Version = (Vec<u8>, usize);

/// The versions of each function in the best plan, with the number of their calls.
fn versions(module: &Module, search: &mut Search<'_>) -> BTreeMap<usize, BTreeMap<Version, u64>> {
    let mut versions: BTreeMap<usize, BTreeMap<Version, u64>> = BTreeMap::new();
    let entry = module.functions.len() - 1;
    let results = vec![0; module.entry().results.len()];
    versions.entry(entry).or_default().insert((results, 0), 1);
    // Callers stand behind their callees: when a function's turn comes, all calls of it are known.
    for index in (0..=entry).rev() {
        let Some(used) = versions.get(&index).cloned() else { continue };
        for ((results, plan), calls) in used {
            let solution = search.solve(index, &results);
            for decision in solution.decisions(&solution.plans[plan]) {
                let Decision::Call { node, results, plan } = decision else { continue };
                let Op::Call { function, .. } = &module.functions[index].nodes[*node].op else { continue };
                let (callee, _) = module.find(function).expect("verified modules call defined functions");
                let count = u64::from(
                    solution.outline.values[module.functions[index].nodes[*node].results.start as usize]
                        .count,
                );
                *versions.entry(callee).or_default().entry((results.clone(), *plan)).or_default() +=
                    calls * count;
            }
        }
    }
    versions
}
