//! Fits the evaluation keys into a budget of memory: turns linear transforms into chains, those whose keys take most first.
//!
//! ```text
//! %y = linear_transform(%x, ..) {offsets=[0 1 2 .. 30], steps=auto}       # 10 keys, 10 key switches, 5 of them hoisted
//! ->
//! %y = linear_transform(%x, ..) {offsets=[0 1 2 .. 30], steps=chain:5}    # 2 keys, 10 key switches, none hoisted
//! ```
//!
//! A chain rotates by one key again and again, which takes away the sharing of `mod_up`s but leaves two or three keys (min-KS;
//! see [`Steps::Chain`]). Whether the keys fit is seen on the placed program: keys are as large as the highest level at
//! which they are used. Transforms whose steps are pinned stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use cerium_artifact::{ChainedTransform, KeyPlan};
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::Params;

use super::super::{Function, Module, Op, Steps};
use super::expand_linear_transform::{Shape, chain_stride};
use super::{PlaceError, expand_linear_transform, expand_poly_eval, merge_rotations, place_levels};
use crate::ir::simplify::share;

/// Why keys cannot be made to fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// Even with all transforms as chains there are too many keys.
    #[error(
        "the evaluation keys take at least {least} bytes of memory, more than the {budget} that they may take; allow them more, \
         or choose a smaller parameter set"
    )]
    TooSmall {
        /// Bytes that keys may take.
        budget: u64,
        /// Bytes that they take at least.
        least: u64,
    },
    /// Levels cannot be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// Runs the pass on an unplaced module; `budget` is in bytes, both halves of every key in memory. What was done, if anything
/// had to be.
pub fn fit_keys(module: &mut Module, budget: u64) -> Result<Option<KeyPlan>, FitError> {
    let params = module.context.params.clone();
    let before = Keys::of(module)?;
    if before.bytes(&params) <= budget {
        return Ok(None);
    }
    let mut chained: Vec<Chained> = Vec::new();
    let mut least = before.bytes(&params);
    while least > budget {
        let Some(at) = best_chain(module, &before) else {
            return Err(FitError::TooSmall { budget, least });
        };
        chained.push(Chained::make(module, at));
        least = least.min(Keys::of(module)?.bytes(&params));
    }
    // Transforms share keys, so that the last chains may have made earlier ones needless.
    let mut chains = Vec::new();
    for chain in chained {
        chain.set(module, Steps::Auto);
        if Keys::of(module)?.bytes(&params) > budget {
            chain.set(module, Steps::Chain(chain.figures.stride));
            chains.push(chain.figures);
        }
    }
    let after = Keys::of(module)?;
    Ok(Some(KeyPlan {
        budget,
        keys_before: before.levels.len() as u32,
        bytes_before: before.bytes(&params),
        keys: after.levels.len() as u32,
        bytes: after.bytes(&params),
        switches_before: before.switches,
        switches: after.switches,
        chains,
    }))
}

/// A transform that became a chain: its function and its node.
struct Chained {
    at: (usize, usize),
    figures: ChainedTransform,
}

impl Chained {
    fn make(module: &mut Module, at: (usize, usize)) -> Chained {
        let params = &module.context.params;
        let node = &module.functions[at.0].nodes[at.1];
        let Op::LinearTransform { offsets, steps, .. } = &node.op else {
            unreachable!("a transform was chosen")
        };
        let stride = chain_stride(offsets, params.slots() as i64);
        let shape = |steps| Shape::new(params, offsets, steps);
        let figures = ChainedTransform {
            stage: node.stage,
            diagonals: offsets.len() as u32,
            stride,
            switches_before: shape(*steps).switches,
            switches: shape(Steps::Chain(stride)).switches,
        };
        let chained = Chained { at, figures };
        chained.set(module, Steps::Chain(stride));
        chained
    }

    fn set(&self, module: &mut Module, to: Steps) {
        if let Op::LinearTransform { steps, .. } = &mut module.functions[self.at.0].nodes[self.at.1].op {
            *steps = to;
        }
    }
}

/// The keys of a program.
struct Keys {
    /// The highest level at which each is used.
    levels: BTreeMap<KeyKind, Level>,
    /// Key switches of one run.
    switches: u64,
}

impl Keys {
    /// The keys of an unplaced program, which is placed for the purpose.
    fn of(module: &Module) -> Result<Keys, PlaceError> {
        let mut placed = module.clone();
        let Ok(()) = expand_linear_transform(&mut placed);
        let Ok(()) = expand_poly_eval(&mut placed);
        share(&mut placed);
        let Ok(()) = merge_rotations(&mut placed);
        place_levels(&mut placed)?;
        share(&mut placed);
        let mut keys = Keys { levels: BTreeMap::new(), switches: 0 };
        let mut switches: Vec<u64> = Vec::new();
        for function in &placed.functions {
            let count = keys.add(&placed, function, &switches);
            switches.push(count);
        }
        keys.switches = switches.pop().unwrap_or_default();
        Ok(keys)
    }

    /// Adds the keys of a function; the key switches of one call, given those of the functions before it.
    fn add(&mut self, module: &Module, function: &Function, callees: &[u64]) -> u64 {
        let params = &module.context.params;
        let slots = params.slots() as i64;
        let mut switches = 0;
        for node in &function.nodes {
            let kinds = match &node.op {
                Op::Rotate { by, .. } if by % slots == 0 => continue,
                Op::Rotate { by, .. } => vec![rotation(params, *by)],
                Op::Conjugate { .. } => vec![KeyKind::Conjugation],
                Op::Relinearize { .. } => vec![KeyKind::Relinearization],
                Op::ModRaise { .. } => vec![KeyKind::ToSparse, KeyKind::FromSparse],
                Op::Call { function, .. } => {
                    let (callee, _) = module.find(function).expect("verified modules call defined functions");
                    switches += callees[callee];
                    continue;
                }
                _ => continue,
            };
            switches += kinds.len() as u64;
            let level = function.type_of(node.result()).placement().map_or(Level(0), |at| at.level);
            for kind in kinds {
                let level = if kind == KeyKind::ToSparse { Level(0) } else { level };
                let highest = self.levels.entry(kind).or_insert(level);
                *highest = level.max(*highest);
            }
        }
        switches
    }

    fn bytes(&self, params: &Params) -> u64 {
        self.levels.iter().map(|(&kind, &level)| bytes(params, kind, level)).sum()
    }
}

/// Both halves of a key in memory.
fn bytes(params: &Params, kind: KeyKind, level: Level) -> u64 {
    8 * KeyRequest { kind, level }.words(params) as u64
}

fn rotation(params: &Params, by: i64) -> KeyKind {
    KeyKind::Rotation(galois_element(params.log_n(), by.rem_euclid(params.slots() as i64)))
}

/// The transform whose chain saves most, shares in keys that others use too included: its function and its node.
fn best_chain(module: &Module, keys: &Keys) -> Option<(usize, usize)> {
    let params = &module.context.params;
    let slots = params.slots() as i64;
    let kinds = |rotations: &BTreeSet<i64>| -> BTreeSet<KeyKind> {
        rotations.iter().map(|&by| rotation(params, by)).collect()
    };
    let mut users: BTreeMap<KeyKind, u32> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (f, function) in module.functions.iter().enumerate() {
        for (n, node) in function.nodes.iter().enumerate() {
            let used = match &node.op {
                Op::Rotate { by, .. } if by % slots != 0 => BTreeSet::from([rotation(params, *by)]),
                Op::LinearTransform { offsets, steps, .. } => {
                    let used = kinds(&Shape::new(params, offsets, *steps).rotations);
                    if *steps == Steps::Auto {
                        let chain = Steps::Chain(chain_stride(offsets, slots));
                        candidates.push((
                            (f, n),
                            used.clone(),
                            kinds(&Shape::new(params, offsets, chain).rotations),
                        ));
                    }
                    used
                }
                _ => continue,
            };
            used.into_iter().for_each(|kind| *users.entry(kind).or_default() += 1);
        }
    }
    let level = |kind: &KeyKind| keys.levels.get(kind).copied();
    let saved = |(_, now, chain): &((usize, usize), BTreeSet<KeyKind>, BTreeSet<KeyKind>)| -> f64 {
        let top = now.iter().filter_map(level).max().unwrap_or(Level(0));
        let size = |kind: KeyKind, level: Level| bytes(params, kind, level) as f64;
        let freed = now.iter().filter(|kind| !chain.contains(kind));
        let freed = freed.filter_map(|kind| Some(size(*kind, level(kind)?) / f64::from(users[kind])));
        let added = chain.iter().filter(|kind| !users.contains_key(kind)).map(|&kind| size(kind, top));
        freed.sum::<f64>() - added.sum::<f64>()
    };
    let best = candidates.iter().max_by(|a, b| saved(a).total_cmp(&saved(b)));
    best.map(|candidate| candidate.0)
}
