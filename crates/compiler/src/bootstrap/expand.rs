//! Expands `bootstrap` into calls of the library's functions.
//!
//! ```text
//! %y = bootstrap(%x) {kind=real, log_slots=15, bound=4.0}
//! ->
//! %a = lower(%x) {to=L3}
//! %b = reinterpret(%a) {factor=0.25}       # not for a bound of 1; for one that is no power of two, a product before
//! %c = call(%b) {function=@bootstrap.real}
//! %y = mul_const(%c) {value=4.0}
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use super::library::Library;
use super::{BootstrapConfig, BootstrapPins};
use crate::ciphertext::{BootstrapKind, Module, Op};
use crate::dsl::Program;
use crate::ir::rewrite::rewrite;
use crate::ir::{Number, ValueId};

/// Why bootstraps cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The parameter set has no levels for it.
    #[error(
        "the program needs bootstrapping, for which parameter set {params} has no levels; choose one that has \
         (boot-40, for example; `cerium params` lists them)"
    )]
    NoBootstrapping {
        /// Name of the parameter set.
        params: String,
    },
    /// A choice that was pinned is not possible.
    #[error("the bootstrap cannot be as pinned: {0}")]
    Pins(String),
}

/// Larger bounds are multiplied back in steps of this size.
const STEP: f64 = 1024.0;

/// Whether values within `[-bound, bound]` are brought to [-1, 1] and back without taking a level: powers of two that a scale
/// has room for.
pub(crate) fn is_free_bound(bound: f64) -> bool {
    (1.0..=STEP).contains(&bound) && bound.log2().fract() == 0.0
}

/// Runs the pass.
pub fn expand_bootstrap(module: &mut Module, pins: &BootstrapPins) -> Result<(), ExpandError> {
    let bootstraps = module.functions.iter().flat_map(|f| &f.nodes).filter_map(|node| match node.op {
        Op::Bootstrap { log_slots, .. } => Some(log_slots),
        _ => None,
    });
    let slots: std::collections::BTreeSet<u32> = bootstraps.collect();
    if slots.is_empty() {
        return Ok(());
    }
    let params = module.context.params.clone();
    let missing = || ExpandError::NoBootstrapping { params: params.name().into() };
    let levels = params.bootstrap().ok_or_else(missing)?;

    // The library's functions, in a program of their own that continues the weights and stages of this one.
    let program = Program::resume(module);
    let mut libraries = BTreeMap::new();
    for log_slots in slots {
        let config = BootstrapConfig::new(&params, log_slots).ok_or_else(missing)?;
        let config = config.pin(&params, pins).map_err(ExpandError::Pins)?;
        libraries.insert(log_slots, Library::define(&program, &params, &config));
    }
    let library = program.suspend();
    module.context.data = Arc::clone(&library.context.data);
    module.stages = library.stages;
    module.functions.splice(0..0, library.functions);

    rewrite(module, |builder, module, op| {
        let Op::Bootstrap { xs, kind, log_slots, bound } = op else { return None };
        let library = &libraries[log_slots];
        let lower = |builder: &mut crate::ciphertext::Builder, &x: &ValueId| {
            let (a, factor) = (x, Number(1.0 / bound.0));
            // A scale that is so many times larger takes no level. It is read so at the level of the bootstrap, so that two
            // values that share one agree.
            if is_free_bound(bound.0) {
                let a = builder.push(module, Op::Lower { a, to: levels.input });
                return if factor.0 == 1.0 { a } else { builder.push(module, Op::Reinterpret { a, factor }) };
            }
            let a = builder.push(module, Op::MulConst { a, value: factor, scale: None });
            builder.push(module, Op::Lower { a, to: levels.input })
        };
        let args: Vec<ValueId> = xs.iter().map(|x| lower(builder, x)).collect();
        let function = match (kind, args.len()) {
            (BootstrapKind::Complex, _) => &library.complex,
            (BootstrapKind::Real, 1) => &library.real,
            (BootstrapKind::Real, _) => &library.pair,
        };
        let call = Op::Call { args, function: function.name().clone() };
        let results = builder.try_push(module, call).unwrap_or_else(|m| panic!("call of a bootstrap: {m}"));
        let restore = |value| {
            let mut value = ValueId(value);
            let mut rest = bound.0;
            while rest != 1.0 {
                // By integers that are small enough to be multiplied with exactly.
                let factor = if rest.fract() == 0.0 { rest.min(STEP) } else { rest };
                value = builder.push(module, Op::MulConst { a: value, value: Number(factor), scale: None });
                rest /= factor;
            }
            value
        };
        Some(results.map(restore).collect())
    });
    crate::ir::simplify::remove_unused(module);
    Ok(())
}
