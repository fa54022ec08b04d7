//! Bootstrapping as a library of the DSL.
//!
//! A bootstrap takes a ciphertext from a low level, where its modulus is nearly used up, to the `output` level of the
//! parameter set. It is an ordinary program (Cheon, Han, Kim, Kim and Song, Bootstrapping for Approximate Homomorphic
//! Encryption, Eurocrypt 2018), in the order that puts slots-to-coefficients first:
//!
//! ```text
//! x            level `input`     slots z
//! slots_to_coeffs    level 0     polynomial with coefficients z (times Q_0 / ratio)
//! mod_raise        top level     the same, plus random integer multiples of Q_0
//! coeffs_to_slots                slots t = z / ratio + I: real parts, and imaginary parts times i
//! w + conj(w), -i (w - conj(w))  two ciphertexts with real slots
//! eval_mod    level `output`     sin(2 pi t) * ratio / (2 pi), nearly z
//! ```
//!
//! The transform before the raise is cheap, for it has few limbs; and what the sine is applied to are slots of known size,
//! not coefficients, so that its error is bounded whatever the message (a constant vector, say, whose polynomial has one
//! large coefficient). Two real vectors x and y are one complex one, x + i y, and come back as two ciphertexts.
//!
//! The raise happens under a sparse secret of small weight, which keeps I small: the ciphertext is switched to it at level 0
//! and back at the top (Bossuat, Troncoso-Pastoriza and Hubaux, Bootstrapping for Approximate Homomorphic Encryption with
//! Negligible Failure-Probability by Using Sparse-Secret Encapsulation, ACNS 2022).

mod config;
mod eval_mod;
mod expand;
mod library;

pub use config::{BootstrapConfig, BootstrapPins, log_failure};
pub use eval_mod::EvalMod;
pub(crate) use expand::is_free_bound;
pub use expand::{ExpandError, expand_bootstrap};
pub(crate) use library::Refresh;
pub use library::{coeffs_to_slots, eval_mod, slots_to_coeffs};

use cerium_ckks::params::Params;

use crate::ciphertext::BootstrapKind;
use crate::dsl::{Packing, Program, SourceProgram};

/// A program that is one bootstrap: input `x`, output `y`, `2^log_slots` slots in [-1, 1] (of each part, if complex).
///
/// # Panics
/// If there are more slots than the set has.
pub fn program(params: &Params, kind: BootstrapKind, log_slots: u32) -> SourceProgram {
    let p = Program::new("bootstrap", params);
    let x = p.input("x", Packing::dense(1 << log_slots));
    p.output("y", Packing::dense(1 << log_slots), &x.bootstrap_sparse(kind, log_slots, 1.0));
    p.finish()
}
