//! The kernel level: limb operations fused into launches, memory planned, functions assembled for the artifact.

mod allocate;
mod assemble;
mod horizontal;
mod program;
pub mod text;
mod vertical;

pub use assemble::{assemble, key_manifest};

use crate::limb::Op;

/// How far operations are fused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fusion {
    /// A launch for each operation on a limb: what fusion is measured against.
    None,
    /// Independent operations of one class share a launch.
    Horizontal,
    /// Dependent operations on a limb share a pass as well.
    #[default]
    Full,
}

/// Choices of the kernel level.
#[derive(Clone, Copy, Debug)]
pub struct KernelOptions {
    /// How far operations are fused.
    pub fusion: Fusion,
    /// Limbs of a launch, at least one: wide launches fill a large device, narrow ones keep what they hand on in its caches.
    pub width: usize,
    /// Whether calls and collectives stand in the order of the limb level, as they must where several devices meet in them.
    pub ordered: bool,
}

/// Whether the operation is part of programs.
fn is_elementwise(op: &Op) -> bool {
    match op {
        Op::Add { .. }
        | Op::Sub { .. }
        | Op::Neg { .. }
        | Op::Mul { .. }
        | Op::MulMontgomery { .. }
        | Op::FromMontgomery { .. }
        | Op::MulScalar { .. }
        | Op::AddScalar { .. }
        | Op::Dot { .. }
        | Op::Permute { .. } => true,
        Op::Ntt { .. }
        | Op::Intt { .. }
        | Op::BaseConvert { .. }
        | Op::Weight { .. }
        | Op::Plain { .. }
        | Op::Key { .. }
        | Op::Call { .. }
        | Op::Exchange { .. }
        | Op::AllReduce { .. } => false,
    }
}

/// Whether the operation only names an operand and computes nothing.
fn is_reference(op: &Op) -> bool {
    matches!(op, Op::Weight { .. } | Op::Plain { .. } | Op::Key { .. })
}
