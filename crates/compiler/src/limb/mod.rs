//! The limb level: residue polynomials modulo single primes. Everything below is one straight line of operations on
//! limbs, most of which stay within their prime; only `base_convert` mixes primes.

pub mod devices;
mod interpret;
mod ops;
pub mod passes;
mod types;

pub use interpret::Interpreter;
pub use ops::Op;
pub use types::{Arrival, Type};

use crate::ciphertext::Context;
use crate::ir;

/// The limb level as a dialect of the IR.
#[derive(Debug, Clone, Copy)]
pub struct Limb;

impl ir::Dialect for Limb {
    const NAME: &'static str = "limb";
    type Op = Op;
    type Type = Type;
    type Context = Context;

    fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
        types::infer(module, op, operands)
    }
}

/// A module of this level.
pub type Module = ir::Module<Limb>;
/// A function of this level.
pub type Function = ir::Function<Limb>;
/// A builder of this level.
pub type Builder = ir::Builder<Limb>;
