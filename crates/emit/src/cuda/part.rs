//! Parts of kernels: a launch that does one program of a kernel takes the operands of that program, no others, so that
//! kernels which have the program in common share its text.

use std::ops::Range;

use cerium_artifact::kernel::{Block, Instruction, Program};

/// A program with operands of its own.
pub(super) struct Part {
    /// Its loads, scalars and Galois elements are numbered in the order in which it names them.
    pub(super) program: Program,
    loads: Vec<u16>,
    scalars: Vec<u16>,
    galois: Vec<u16>,
    stores: Range<usize>,
}

impl Part {
    /// The part of a kernel that runs `program` and has these of its blocks' stores.
    pub(super) fn new(program: &Program, stores: Range<usize>) -> Part {
        let mut part = Part {
            program: program.clone(),
            loads: Vec::new(),
            scalars: Vec::new(),
            galois: Vec::new(),
            stores,
        };
        for instruction in &mut part.program.instructions {
            match instruction {
                Instruction::Load(load) => number(load, &mut part.loads),
                Instruction::MulScalar(_, scalar) | Instruction::AddScalar(_, scalar) => {
                    number(scalar, &mut part.scalars);
                }
                Instruction::Permute(_, galois) => number(galois, &mut part.galois),
                Instruction::Input
                | Instruction::Add(..)
                | Instruction::Sub(..)
                | Instruction::Neg(_)
                | Instruction::Mul(..)
                | Instruction::MontMul(..)
                | Instruction::Dot(_) => {}
            }
        }
        part
    }

    /// What the part takes of a block.
    pub(super) fn block(&self, block: &Block) -> Block {
        Block {
            prime: block.prime,
            loads: self.loads.iter().map(|&load| block.loads[usize::from(load)]).collect(),
            stores: block.stores[self.stores.clone()].to_vec(),
            scalars: self.scalars.iter().map(|&scalar| block.scalars[usize::from(scalar)]).collect(),
            galois: self.galois.iter().map(|&galois| block.galois[usize::from(galois)]).collect(),
        }
    }
}

/// Replaces an index by its place among those that occurred.
fn number(index: &mut u16, known: &mut Vec<u16>) {
    let place = known.iter().position(|known| known == index).unwrap_or_else(|| {
        known.push(*index);
        known.len() - 1
    });
    *index = place as u16;
}
