//! The ciphertext level: programs on ciphertexts and plaintexts.
//!
//! A program arrives *unplaced*: its values have no level and no scale. The pass [`passes::place_levels`] decides
//! levels, scales, rescales and relinearizations; after it every ciphertext type carries them.

pub mod cost;
mod interpret;
mod lanes;
mod lower;
pub mod noise;
mod ops;
pub mod passes;
mod types;

pub use interpret::{Interpreter, Observer, Slots};
pub use lanes::{LANES, LaneInterpreter, Lanes, NotReal, chebyshev_series};
pub use lower::lower_to_polynomial;
pub use ops::{BootstrapKind, Op, Steps};
pub use types::{Context, Data, Placement, Type};

use crate::ir;

/// The ciphertext level as a dialect of the IR.
#[derive(Debug, Clone, Copy)]
pub struct Ciphertext;

impl ir::Dialect for Ciphertext {
    const NAME: &'static str = "ciphertext";
    type Op = Op;
    type Type = Type;
    type Context = Context;

    fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
        types::infer(module, op, operands)
    }
}

/// A module of this level.
pub type Module = ir::Module<Ciphertext>;
/// A function of this level.
pub type Function = ir::Function<Ciphertext>;
/// A builder of this level.
pub type Builder = ir::Builder<Ciphertext>;
