//! The polynomial level: RNS polynomials with a basis and a domain. Here a homomorphic operation becomes arithmetic, and
//! key switching is decided.

mod interpret;
mod lower;
mod ops;
pub mod passes;
mod types;

pub(crate) use interpret::encode_limb;
pub use interpret::{Interpreter, KeySource};
pub use lower::lower_to_limb;
pub use ops::{HalfName, KeyName, Op, Scalar};
pub(crate) use types::digits_in;
pub use types::{Domain, Type};

use crate::ciphertext::Context;
use crate::ir;

/// The polynomial level as a dialect of the IR.
#[derive(Debug, Clone, Copy)]
pub struct Polynomial;

impl ir::Dialect for Polynomial {
    const NAME: &'static str = "polynomial";
    type Op = Op;
    type Type = Type;
    type Context = Context;

    fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
        types::infer(module, op, operands)
    }
}

/// A module of this level.
pub type Module = ir::Module<Polynomial>;
/// A function of this level.
pub type Function = ir::Function<Polynomial>;
/// A builder of this level.
pub type Builder = ir::Builder<Polynomial>;
