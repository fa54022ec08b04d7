//! Kernels: what a device executes.
//!
//! A kernel is one launch: a [`Body`] of one class with many independent blocks. Every limb in memory is canonical
//! (words in `[0, q)`). A block's store may be the same slot as one of its own loads, except in
//! [`Body::BaseConvert`] and [`Body::Permute`]; apart from that no block of a kernel writes a slot that another block
//! reads or writes.

use cerium_ckks::basis::PrimeIndex;
use serde::{Deserialize, Serialize};

use crate::StageId;

/// Where a limb lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operand {
    /// Slot of the function's frame.
    Local(u32),
    /// Argument limb, bound by the caller; read only.
    Arg(u32),
    /// Result limb, bound by the caller; written before it is read.
    Result(u32),
    /// Limb of an encoded plaintext of the function; read only, Montgomery form, compact (`2 * period` words, each
    /// standing for a run of `N / (2 * period)` equal words).
    Plain {
        /// Index into [`crate::Function::plaintexts`].
        plaintext: u32,
        /// Position of the prime in the plaintext's basis.
        limb: u16,
    },
    /// Limb of an evaluation key; read only, Montgomery form.
    Key {
        /// Index into [`crate::Artifact::keys`].
        key: u32,
        /// Digit of the key.
        digit: u8,
        /// Which half.
        half: Half,
        /// Prime of the limb.
        prime: PrimeIndex,
    },
}

/// The halves of an evaluation key: `b = -a*s + e + gadget`, and the uniform `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Half {
    /// The half that carries the message.
    B,
    /// The uniform half, expanded from a seed.
    A,
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// The stage it belongs to, for measurements.
    pub stage: StageId,
    /// What it computes.
    pub body: Body,
}

/// The kernel classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A straight-line program on the words at one position, for all N positions of every block.
    Elementwise {
        /// The program that all blocks run.
        program: Vec<Instruction>,
        /// Registers that are stored, in order of the blocks' `stores`.
        results: Vec<Register>,
        /// One block a limb.
        blocks: Vec<ElementwiseBlock>,
    },
    /// Negacyclic NTT: coefficient order -> bit-reversed evaluation order.
    Ntt {
        /// One block a limb.
        blocks: Vec<TransformBlock>,
    },
    /// Inverse NTT, times `factor`.
    Intt {
        /// One block a limb.
        blocks: Vec<TransformBlock>,
    },
    /// Centered base conversion (`cerium_ckks::rns`): the sources are already multiplied by `(Q/q_i)^-1`.
    BaseConvert {
        /// One block a set of source limbs.
        blocks: Vec<BaseConvertBlock>,
    },
    /// Automorphism of a limb in the evaluation domain.
    Permute {
        /// One block a limb.
        blocks: Vec<PermuteBlock>,
    },
}

/// Register of an elementwise program: the index of the instruction that wrote it.
pub type Register = u16;

/// Instruction of an elementwise program, modulo the prime of the block; it writes the register of its own index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Instruction {
    /// The block's load with this index.
    Load(u16),
    /// `a + b`.
    Add(Register, Register),
    /// `a - b`.
    Sub(Register, Register),
    /// `-a`.
    Neg(Register),
    /// `a * b`, both in normal form.
    Mul(Register, Register),
    /// `a * b * 2^-32`: normal times Montgomery form gives normal form.
    MontMul(Register, Register),
    /// `a * c` with the block's scalar of this index, normal form.
    MulScalar(Register, u16),
    /// `a + c` with the block's scalar of this index.
    AddScalar(Register, u16),
    /// `sum a_i * b_i * 2^-32`, accumulated in 64 bits.
    Dot(Vec<(Register, Register)>),
}

/// One limb of an elementwise kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementwiseBlock {
    /// The prime.
    pub prime: PrimeIndex,
    /// Operands of the `Load` instructions.
    pub loads: Vec<Operand>,
    /// Where the results go.
    pub stores: Vec<Operand>,
    /// Constants, each in `[0, q)`.
    pub scalars: Vec<u32>,
}

/// One limb of a transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformBlock {
    /// The prime.
    pub prime: PrimeIndex,
    /// Source.
    pub load: Operand,
    /// Destination.
    pub store: Operand,
    /// Constant factor of the result, in `[0, q)`; 1 for the forward transform.
    pub factor: u32,
}

/// One conversion of a polynomial to another basis; 1 to 16 sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseConvertBlock {
    /// Source limbs with their primes: coefficient domain, multiplied by `(Q/q_i)^-1`.
    pub sources: Vec<(PrimeIndex, Operand)>,
    /// Target limbs with their primes: coefficient domain.
    pub targets: Vec<(PrimeIndex, Operand)>,
}

/// One limb of an automorphism.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermuteBlock {
    /// The odd exponent g of `a(X) -> a(X^g)`, below 2N.
    pub galois: u32,
    /// The prime (the permutation does not depend on it; it is checked).
    pub prime: PrimeIndex,
    /// Source.
    pub load: Operand,
    /// Destination.
    pub store: Operand,
}
