//! Validation: what a runtime relies on.
//!
//! An artifact is data from a stranger until [`Artifact::validate`] accepts it. Afterwards:
//!
//! - the parameter set can be rebuilt, every index is in range, and every table has the size its users expect;
//! - every limb that is read was written before in the same activation of its function, modulo the same prime,
//!   so that all words in memory stay canonical and no run sees what another left behind;
//! - blocks of one kernel are independent ([`crate::kernel`]), and a call neither binds a result twice nor binds
//!   it to one of its arguments: blocks may run in any order, and in parallel;
//! - devices start the same collectives and make the same calls in the same order, what one sends is what another expects,
//!   and nobody touches a limb on its way;
//! - frames, weight parameters and nesting are bounded by the size of the artifact.
//!
//! So an executor can address memory without further checks. Not checked is whether the program computes anything
//! sensible.

mod devices;
mod function;
mod kernel;
mod port;

use std::collections::HashSet;

pub use devices::MAX_DEVICES;
pub use kernel::MAX_CONVERT_SOURCES;

use cerium_ckks::basis::{Basis, Level, PrimeIndex};
use cerium_ckks::params::Params;

use crate::cost::pool_limbs;
use crate::error::{ensure, inconsistent};
use crate::{
    Artifact, ArtifactError, DeviceId, Function, NO_ELEMENT, Normalization, Recipe, Step, Tensor, WeightRef,
};

/// Deepest nesting of calls, the entry included.
pub const MAX_CALL_DEPTH: usize = 64;

/// What the parameter set says about an evaluation key.
struct KeyShape {
    /// The primes of its limbs.
    basis: Basis,
    /// Number of its digits.
    digits: usize,
}

impl Artifact {
    /// Checks everything that execution relies on and returns the parameter set that the artifact is valid for.
    /// Time and memory are linear in the size of the artifact.
    pub fn validate(&self) -> Result<Params, ArtifactError> {
        let params = Params::new(self.params.clone())?;
        self.check_tables(&params)?;
        let keys = self.check_keys(&params)?;
        devices::check(self, &params)?;
        for functions in &self.programs {
            let periods = self.check_weight_params(functions)?;
            for (index, function) in functions.iter().enumerate() {
                function::check(self, &params, &keys, &periods[index], functions, function)?;
            }
            check_memory(functions)?;
        }
        port::check(self, &params)?;
        Ok(params)
    }

    /// The devices that run the program together, at least one in a validated artifact.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..self.programs.len()).map(|index| DeviceId(index as u16))
    }

    /// The functions of a device; none if there is no such device.
    pub fn functions(&self, device: DeviceId) -> &[Function] {
        self.programs.get(device.index()).map_or(&[], Vec::as_slice)
    }

    /// The function that a device executes; every device of a validated artifact has one.
    pub fn entry(&self, device: DeviceId) -> Option<&Function> {
        self.functions(device).last()
    }

    /// The device on which limbs of a prime are between functions.
    pub fn home(&self, prime: PrimeIndex) -> DeviceId {
        self.homes.get(prime.index()).copied().unwrap_or_default()
    }

    fn check_tables(&self, params: &Params) -> Result<(), ArtifactError> {
        for (index, tensor) in self.tensors.iter().enumerate() {
            let bad = tensor.values.iter().position(|value| !value.is_finite());
            ensure(
                bad.is_none(),
                || format!("tensor {index} `{}`", tensor.name),
                || format!("value {} is not finite", bad.unwrap_or_default()),
            )?;
        }
        for (index, recipe) in self.weights.iter().enumerate() {
            self.check_recipe(recipe, params, || format!("weight {index}"))?;
        }
        for (index, stage) in self.stages.iter().enumerate() {
            let place = || format!("stage {index} `{}`", stage.name);
            for level in [stage.level_in, stage.level_out] {
                check_level(level, params, place)?;
            }
            ensure(
                stage.error.is_finite() && stage.error >= 0.0,
                place,
                || "its error is not a finite number",
            )?;
        }
        if let Some(problem) = self.normalization.as_ref().and_then(Normalization::problem) {
            return Err(inconsistent("normalization", problem));
        }
        for chain in self.key_plan.iter().flat_map(|plan| &plan.chains) {
            ensure(
                usize::from(chain.stage.0) < self.stages.len(),
                || "key plan",
                || format!("a transform is in stage {}, which there is not", chain.stage.0),
            )?;
        }
        Ok(())
    }

    fn check_recipe(
        &self,
        recipe: &Recipe,
        params: &Params,
        place: impl Fn() -> String,
    ) -> Result<(), ArtifactError> {
        match *recipe {
            Recipe::Gather { tensor, gather, factor } => {
                let tensor = self.tensors.get(tensor.0 as usize);
                let gather = self.gathers.get(gather.0 as usize);
                let (Some(tensor), Some(gather)) = (tensor, gather) else {
                    return Err(inconsistent(
                        place(),
                        "it reads a tensor or gather table that does not exist",
                    ));
                };
                ensure(factor.is_finite(), &place, || "its factor is not finite")?;
                check_period(gather, params, &place)?;
                check_entries(gather, tensor, place)
            }
            Recipe::Diagonal { tensor, block, offset, factor } => {
                let tensor = self.tensors.get(tensor.0 as usize);
                let tensor =
                    tensor.ok_or_else(|| inconsistent(place(), "it reads a tensor that does not exist"))?;
                ensure(factor.is_finite(), &place, || "its factor is not finite")?;
                let fits = block.log_period < params.log_n() && offset < block.period();
                ensure(fits, &place, || {
                    format!("diagonal {offset} of period 2^{} does not fit the slots", block.log_period)
                })?;
                let filled = block.extents.iter().all(|extent| (1..=block.period()).contains(extent));
                ensure(filled, &place, || {
                    format!("its block of {:?} is empty or larger than its period", block.extents)
                })?;
                let (last, elements) = (block.last(), tensor.values.len());
                ensure(last < elements as u64, place, || {
                    format!("element {last} is outside tensor `{}` of {elements} values", tensor.name)
                })
            }
            Recipe::Constant { re, im } => {
                ensure(re.is_finite() && im.is_finite(), place, || "its constant is not finite")
            }
            Recipe::Dft { factor, offset, scale } => {
                let fits = factor.is_valid() && u32::from(factor.log_slots) < params.log_n();
                ensure(fits, &place, || format!("{factor:?} is no factor of a transform of these slots"))?;
                ensure(factor.has_offset(offset), &place, || format!("its factor has no diagonal {offset}"))?;
                ensure(scale.is_finite(), place, || "its scale is not finite")
            }
        }
    }

    fn check_keys(&self, params: &Params) -> Result<Vec<KeyShape>, ArtifactError> {
        let mut seen = HashSet::new();
        let mut shapes = Vec::with_capacity(self.keys.len());
        for (index, key) in self.keys.iter().enumerate() {
            let place = || format!("key {index}");
            key.check(params).map_err(|e| inconsistent(place(), e))?;
            ensure(seen.insert(key.kind), place, || format!("{key} is the second key of its kind"))?;
            shapes.push(KeyShape { basis: key.basis(params), digits: key.digits(params).len() });
        }
        Ok(shapes)
    }

    /// Checks calls and bindings, and returns the base-2 logarithm of the period of every weight parameter of
    /// every function; `None` if nothing reads it.
    fn check_weight_params(&self, functions: &[Function]) -> Result<Vec<Vec<Option<u32>>>, ArtifactError> {
        ensure(!functions.is_empty(), || "functions", || "there are none")?;
        let mut names = HashSet::new();
        let mut periods: Vec<Vec<Option<u32>>> = Vec::with_capacity(functions.len());
        let mut depths: Vec<usize> = Vec::with_capacity(functions.len());
        for (index, function) in functions.iter().enumerate() {
            let place = || format!("function {index} `{}`", function.name);
            ensure(names.insert(&function.name), place, || "there is another function of this name")?;
            let references = self.weight_references(index);
            let params = function.weight_params as usize;
            ensure(params <= references, place, || {
                format!("it has {params} weight parameters and reads fewer")
            })?;
            let mut own = vec![None; params];
            for (i, plaintext) in function.plaintexts.iter().enumerate() {
                let place = || format!("function `{}` plaintext {i}", function.name);
                self.unify(&mut own, plaintext.weight, Some(plaintext.log_period), place)?;
            }
            let mut depth = 1;
            for (step, call) in function.steps.iter().enumerate() {
                let Step::Call { function: callee, weights, .. } = call else { continue };
                let callee = callee.0 as usize;
                let place = || format!("function `{}` step {step}", function.name);
                ensure(callee < index, place, || {
                    format!("it calls function {callee}, which does not stand before")
                })?;
                let (given, expected) = (weights.len(), periods[callee].len());
                ensure(given == expected, place, || {
                    format!("it binds {given} weights, its callee has {expected}")
                })?;
                for (&weight, &period) in weights.iter().zip(&periods[callee]) {
                    self.unify(&mut own, weight, period, place)?;
                }
                depth = depth.max(depths[callee] + 1);
            }
            ensure(depth <= MAX_CALL_DEPTH, place, || format!("calls nest deeper than {MAX_CALL_DEPTH}"))?;
            depths.push(depth);
            periods.push(own);
        }
        Ok(periods)
    }

    /// Notes that `weight` is read with the given period.
    fn unify(
        &self,
        own: &mut [Option<u32>],
        weight: WeightRef,
        log_period: Option<u32>,
        place: impl Fn() -> String,
    ) -> Result<(), ArtifactError> {
        let known = match weight {
            WeightRef::Weight(id) => {
                let recipe = self.weights.get(id.0 as usize);
                let recipe =
                    recipe.ok_or_else(|| inconsistent(place(), "it reads a weight that does not exist"))?;
                recipe.log_period(&self.gathers)
            }
            WeightRef::Param(i) => {
                let period = own.get_mut(i as usize);
                let period = period.ok_or_else(|| {
                    inconsistent(place(), "it reads a weight parameter that does not exist")
                })?;
                *period = period.or(log_period);
                *period
            }
        };
        ensure(known == log_period || log_period.is_none(), &place, || {
            format!("period 2^{} is expected, the weight has another", log_period.unwrap_or_default())
        })
    }

    /// How often a function reads or hands on weights, on all devices: each of them has all its weight parameters, also those
    /// that only others read.
    fn weight_references(&self, function: usize) -> usize {
        let functions = self.programs.iter().filter_map(|functions| functions.get(function));
        let references = functions.map(|function| {
            let bound = function.steps.iter().map(|step| match step {
                Step::Call { weights, .. } => weights.len(),
                Step::Launch(_) | Step::Start(_) | Step::Finish(_) => 0,
            });
            bound.sum::<usize>() + function.plaintexts.len()
        });
        references.sum()
    }
}

/// Limbs are addressed by 32 bits.
fn check_memory(functions: &[Function]) -> Result<(), ArtifactError> {
    let peak = pool_limbs(functions);
    ensure(peak <= u64::from(u32::MAX), || "memory plan", || format!("{peak} limbs are needed at once"))
}

fn check_level(level: Level, params: &Params, place: impl Fn() -> String) -> Result<(), ArtifactError> {
    let top = params.max_level();
    ensure(level <= top, place, || format!("level {level} is above the top level {top}"))
}

fn check_period(gather: &[u32], params: &Params, place: impl Fn() -> String) -> Result<(), ArtifactError> {
    let (period, slots) = (gather.len(), params.slots());
    ensure(period.is_power_of_two() && period <= slots, place, || {
        format!("period {period} is not a power of two of at most {slots}")
    })
}

fn check_entries(gather: &[u32], tensor: &Tensor, place: impl Fn() -> String) -> Result<(), ArtifactError> {
    let elements = tensor.values.len();
    let bad = gather.iter().find(|&&entry| entry != NO_ELEMENT && entry as usize >= elements);
    ensure(bad.is_none(), place, || {
        format!("entry {} is outside tensor `{}` of {elements} values", bad.unwrap_or(&0), tensor.name)
    })
}
