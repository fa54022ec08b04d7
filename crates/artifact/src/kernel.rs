//! Kernels: what a device executes.
//!
//! A kernel is one launch: a [`Body`] of one class with many independent blocks of one shape. What a block does to single
//! words stands in [`Program`]s: the whole of an elementwise kernel, the prologue and the epilogue of a transform, the
//! epilogue of a base conversion. Words between them never reach memory.
//!
//! Every limb in memory is canonical (words in `[0, q)`). No block of a kernel writes a slot that another block of it reads
//! or writes, and no two stores of a block are the same slot. A block may store into a slot that it loads itself, but
//! - never if it loads the slot through an automorphism ([`Program::moved`]),
//! - the *home* of a transform ([`Transform::home`]) is no load of its epilogue, and
//! - what the prologue of a transform stores is no load of its epilogue;
//! - the stores of a base conversion are none of its sources.

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
    /// A program on the words at one position, for all N positions of every block.
    Elementwise {
        /// What all blocks do; its results go to the blocks' `stores`.
        program: Program,
        /// One block a limb.
        blocks: Vec<Block>,
    },
    /// Negacyclic NTT: coefficient order -> bit-reversed evaluation order.
    Ntt(Transform),
    /// Inverse NTT, times `scalars[0]` of the block.
    Intt(Transform),
    /// Centered base conversion (`cerium_ckks::rns`): the sources are already multiplied by `(Q/q_i)^-1`.
    BaseConvert {
        /// What happens to every converted word ([`Instruction::Input`]); its results go to the targets' `stores`.
        epilogue: Program,
        /// One block a set of source limbs.
        blocks: Vec<BaseConvertBlock>,
    },
}

/// Transforms of limbs, one a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    /// Makes the words that are transformed; its results, if any, are stored as they are.
    pub prologue: Program,
    /// The register of the prologue that is transformed.
    pub input: Register,
    /// What happens to every transformed word ([`Instruction::Input`]); it has results.
    pub epilogue: Program,
    /// One block a limb. The `stores` are the results of the prologue, then those of the epilogue. In an inverse transform
    /// `scalars[0]` is the constant factor of what enters the epilogue, in `[1, q)`.
    pub blocks: Vec<Block>,
}

impl Transform {
    /// Index of the store of a block in whose slot a device may keep the limb between prologue and epilogue: that of the
    /// epilogue's first result.
    pub fn home(&self) -> usize {
        self.prologue.results.len()
    }
}

/// A straight-line program on the words at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Program {
    /// Each writes the register of its own index.
    pub instructions: Vec<Instruction>,
    /// Registers that are stored.
    pub results: Vec<Register>,
}

/// Register of a program: the index of the instruction that wrote it.
pub type Register = u16;

/// Instruction of a program, modulo the prime of the block.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Instruction {
    /// The block's load with this index.
    Load(u16),
    /// The word that was transformed or converted (epilogues only, and not below a [`Instruction::Permute`]).
    Input,
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
    /// Automorphism `X -> X^g` of a limb in the evaluation domain, with the block's `galois` of this index: the value that
    /// register `a` has at position `pi_g(i)` (`cerium_ckks::automorphism`). An aligned stretch of `2^k` positions comes
    /// from an aligned stretch of `2^k` positions, for every k.
    Permute(Register, u16),
}

impl Instruction {
    /// Calls `visit` with every register that is read, in order.
    pub fn for_registers(&self, mut visit: impl FnMut(Register)) {
        match self {
            Instruction::Load(_) | Instruction::Input => {}
            Instruction::Neg(a)
            | Instruction::MulScalar(a, _)
            | Instruction::AddScalar(a, _)
            | Instruction::Permute(a, _) => visit(*a),
            Instruction::Add(a, b)
            | Instruction::Sub(a, b)
            | Instruction::Mul(a, b)
            | Instruction::MontMul(a, b) => {
                visit(*a);
                visit(*b);
            }
            Instruction::Dot(pairs) => {
                for &(a, b) in pairs {
                    visit(a);
                    visit(b);
                }
            }
        }
    }
}

impl Program {
    /// The program that hands on the first load: a transform without prologue.
    pub fn load() -> Program {
        Program { instructions: vec![Instruction::Load(0)], results: Vec::new() }
    }

    /// The program that stores what was transformed or converted: no epilogue.
    pub fn input() -> Program {
        Program { instructions: vec![Instruction::Input], results: vec![0] }
    }

    /// For each instruction whether a value of it is needed at other positions than the program's own: it stands below an
    /// [`Instruction::Permute`]. It may be needed at its own position as well.
    pub fn below_permute(&self) -> Vec<bool> {
        let mut below = vec![false; self.instructions.len()];
        for (index, instruction) in self.instructions.iter().enumerate().rev() {
            let moves = below[index] || matches!(instruction, Instruction::Permute(..));
            instruction.for_registers(|register| below[usize::from(register)] |= moves);
        }
        below
    }

    /// Indices of the loads that are read through an automorphism.
    pub fn moved(&self) -> impl Iterator<Item = u16> + '_ {
        let instructions = self.below_permute().into_iter().zip(&self.instructions);
        instructions.filter_map(|(below, instruction)| match instruction {
            Instruction::Load(load) if below => Some(*load),
            _ => None,
        })
    }

    /// Indices of all loads, in order of the instructions.
    pub fn loads(&self) -> impl Iterator<Item = u16> + '_ {
        self.instructions.iter().filter_map(|instruction| match instruction {
            Instruction::Load(load) => Some(*load),
            _ => None,
        })
    }
}

/// One limb of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The prime.
    pub prime: PrimeIndex,
    /// Operands of the `Load` instructions, of prologue and epilogue alike.
    pub loads: Vec<Operand>,
    /// Where the results go.
    pub stores: Vec<Operand>,
    /// Constants, each in `[0, q)`.
    pub scalars: Vec<u32>,
    /// Odd exponents of automorphisms, each below 2N.
    pub galois: Vec<u32>,
}

/// One conversion of a polynomial to another basis; 1 to 24 sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseConvertBlock {
    /// Source limbs with their primes: coefficient domain, multiplied by `(Q/q_i)^-1`.
    pub sources: Vec<(PrimeIndex, Operand)>,
    /// One for each target limb.
    pub targets: Vec<Block>,
}

impl Body {
    /// All blocks with a program of their own: limbs of elementwise kernels and transforms, targets of base conversions.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        let (blocks, conversions): (&[Block], &[BaseConvertBlock]) = match self {
            Body::Elementwise { blocks, .. } => (blocks, &[]),
            Body::Ntt(transform) | Body::Intt(transform) => (&transform.blocks, &[]),
            Body::BaseConvert { blocks, .. } => (&[], blocks),
        };
        blocks.iter().chain(conversions.iter().flat_map(|block| &block.targets))
    }
}
