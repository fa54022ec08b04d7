//! The cost of a kernel, counted before it runs.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::Function;
use crate::kernel::{Block, Body, Instruction, Kernel, Operand, Program, Transform};

/// What kernels cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Kernels launched.
    pub launches: u64,
    /// Their blocks; each target of a base conversion is one.
    pub blocks: u64,
    /// Bytes of limbs and constants that the blocks load, as if nothing were cached. A transform reads its limb once.
    pub bytes_read: u64,
    /// Bytes of limbs that they store.
    pub bytes_written: u64,
    /// Modular multiplications, those inside transforms included.
    pub multiplications: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.launches = self.launches.saturating_add(other.launches);
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.multiplications = self.multiplications.saturating_add(other.multiplications);
    }
}

/// Counts what one launch of `kernel`, a kernel of the validated `function`, reads, writes and multiplies in a ring of degree
/// `2^log_n`.
pub fn kernel_cost(kernel: &Kernel, function: &Function, log_n: u32) -> Cost {
    let n = 1u64 << log_n;
    let mut cost = Cost { launches: 1, ..Cost::default() };
    let each = match &kernel.body {
        Body::Elementwise { program, .. } => n * products(program),
        Body::Ntt(transform) => n * transform_products(transform) + n / 2 * u64::from(log_n),
        // The inverse scales all N words once more.
        Body::Intt(transform) => n * transform_products(transform) + n / 2 * u64::from(log_n) + n,
        Body::BaseConvert { epilogue, blocks } => {
            for block in blocks {
                let (sources, targets) = (block.sources.len() as u64, block.targets.len() as u64);
                cost.bytes_read += 4 * n * sources;
                // One row for the quotient v, and a column of v for each target.
                cost.multiplications += n * (sources + (sources + 1) * targets);
            }
            n * products(epilogue)
        }
    };
    for block in kernel.body.blocks() {
        cost.blocks += 1;
        cost.bytes_read += block_bytes_read(block, function, log_n);
        cost.bytes_written += 4 * n * block.stores.len() as u64;
        cost.multiplications += each;
    }
    cost
}

/// Bytes of the loads of a block.
fn block_bytes_read(block: &Block, function: &Function, log_n: u32) -> u64 {
    let bytes = |load: &Operand| match load {
        Operand::Plain { plaintext, .. } => 8 << function.plaintexts[*plaintext as usize].log_period,
        _ => 4 << log_n,
    };
    block.loads.iter().map(bytes).sum()
}

fn transform_products(transform: &Transform) -> u64 {
    products(&transform.prologue) + products(&transform.epilogue)
}

/// Modular multiplications that a program does at one position.
fn products(program: &Program) -> u64 {
    let products = |instruction: &Instruction| match instruction {
        Instruction::Load(_)
        | Instruction::Input
        | Instruction::Add(..)
        | Instruction::Sub(..)
        | Instruction::Neg(_)
        | Instruction::AddScalar(..)
        | Instruction::Permute(..) => 0,
        Instruction::Mul(..) | Instruction::MontMul(..) | Instruction::MulScalar(..) => 1,
        Instruction::Dot(pairs) => pairs.len() as u64,
    };
    program.instructions.iter().map(products).sum()
}
