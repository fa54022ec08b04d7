//! The cost of a kernel, known before it runs.

use cerium_artifact::Function;
use cerium_artifact::kernel::{Body, Instruction, Kernel, Operand};

use crate::profile::Usage;

/// Counts what one launch of `kernel`, a kernel of `function`, reads, writes and multiplies in a ring of degree
/// `2^log_n`.
pub fn kernel_cost(kernel: &Kernel, function: &Function, log_n: u32) -> Usage {
    let n = 1u64 << log_n;
    let limb = 4 * n;
    let mut usage = Usage { launches: 1, ..Usage::default() };
    match &kernel.body {
        Body::Elementwise { program, blocks, .. } => {
            let products: u64 = program.iter().map(products).sum();
            for block in blocks {
                let loads = block.loads.iter().map(|load| match load {
                    Operand::Plain { plaintext, .. } => {
                        8 << function.plaintexts[*plaintext as usize].log_period
                    }
                    _ => limb,
                });
                usage.bytes_read += loads.sum::<u64>();
                usage.bytes_written += limb * block.stores.len() as u64;
                usage.multiplications += n * products;
            }
            usage.blocks = blocks.len() as u64;
        }
        Body::Ntt { blocks } | Body::Intt { blocks } => {
            usage.blocks = blocks.len() as u64;
            usage.bytes_read = limb * usage.blocks;
            usage.bytes_written = limb * usage.blocks;
            // N/2 butterflies a stage; the inverse scales all N words once more.
            let scaling = if matches!(kernel.body, Body::Intt { .. }) { n } else { 0 };
            usage.multiplications = (n / 2 * u64::from(log_n) + scaling) * usage.blocks;
        }
        Body::BaseConvert { blocks } => {
            for block in blocks {
                let (sources, targets) = (block.sources.len() as u64, block.targets.len() as u64);
                usage.bytes_read += limb * sources;
                usage.bytes_written += limb * targets;
                // One row for the quotient v, and a column of v for each target.
                usage.multiplications += n * (sources + (sources + 1) * targets);
            }
            usage.blocks = blocks.len() as u64;
        }
        Body::Permute { blocks } => {
            usage.blocks = blocks.len() as u64;
            usage.bytes_read = limb * usage.blocks;
            usage.bytes_written = limb * usage.blocks;
        }
    }
    usage
}

fn products(instruction: &Instruction) -> u64 {
    match instruction {
        Instruction::Load(_)
        | Instruction::Add(..)
        | Instruction::Sub(..)
        | Instruction::Neg(_)
        | Instruction::AddScalar(..) => 0,
        Instruction::Mul(..) | Instruction::MontMul(..) | Instruction::MulScalar(..) => 1,
        Instruction::Dot(pairs) => pairs.len() as u64,
    }
}
