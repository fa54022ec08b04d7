//! What all levels share: functions of single-assignment operations, their text form, and the simplifications
//! that need no knowledge of a level.
//!
//! A level is a [`Dialect`]: an operation enum (made by [`op_table!`](crate::op_table)), a type, and the typing
//! rule. The text form of `f(x) = 3x` on the ciphertext level is
//!
//! ```text
//! func @main(%0: ct) {
//!   stage "head"
//!   %1 = mul_const(%0) {value=3.0, scale=none} : ct
//!   return %1
//! }
//! ```

mod attribute;
mod function;
pub mod min_cut;
mod op_table;
pub mod rewrite;
pub mod simplify;
pub mod text;
mod trace;

pub use attribute::{Attribute, Number, Symbol};
pub use function::{Builder, Function, Module, Node, ValueId};
pub use op_table::Operation;
pub use trace::{Dump, PassRecord, Trace};

use std::fmt::{Debug, Display};

/// A level of the compiler.
pub trait Dialect: Sized + Debug + 'static {
    /// Name of the level, as in `--trace` and in dumps.
    const NAME: &'static str;
    /// Closed enum of operations.
    type Op: Operation;
    /// Type of a value; `Display` and `Attribute` agree.
    type Type: Clone + PartialEq + Debug + Display + Attribute;
    /// What typing needs beyond operand types: parameters and declarations.
    type Context: Clone + Debug;

    /// The result types of `op`, or a sentence saying why the operands do not fit.
    ///
    /// This is the verifier: a function whose every operation infers to the types it carries is well formed.
    fn infer(
        module: &Module<Self>,
        op: &Self::Op,
        operands: &[&Self::Type],
    ) -> Result<Vec<Self::Type>, String>;
}

/// Error of parsing or verifying the text form of a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct IrError {
    /// Line of the text form, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}
