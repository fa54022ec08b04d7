//! Kernels: programs, the sizes of blocks, and which slots a block may store into.

use std::collections::HashSet;

use cerium_ckks::basis::Basis;

use super::function::{Checker, Place, Reader};
use crate::ArtifactError;
use crate::error::ensure;
use crate::kernel::{BaseConvertBlock, Block, Body, Instruction, Kernel, Program, Transform};

/// Most source primes of a base conversion: the bound under which its fixed-point quotient is exact.
pub const MAX_CONVERT_SOURCES: usize = cerium_ckks::rns::MOST_SOURCES;

/// What the programs of a kernel expect of its blocks.
#[derive(Default)]
struct Shape {
    loads: usize,
    scalars: usize,
    galois: usize,
    stores: usize,
    /// Loads that are read at other positions than those where the block stores.
    moved: HashSet<u16>,
    /// Stores (as many as this, from the first) that are written before these loads are read.
    early_stores: usize,
    late_loads: HashSet<u16>,
}

impl Shape {
    /// Adds a program; `input` says whether it may use [`Instruction::Input`].
    fn program(mut self, program: &Program, input: bool, place: Place) -> Result<Shape, ArtifactError> {
        let most = 1 + usize::from(u16::MAX);
        ensure(program.instructions.len() <= most, || place, || "its program is too long")?;
        let below = program.below_permute_checked(place)?;
        for (index, instruction) in program.instructions.iter().enumerate() {
            let need = |count: &mut usize, index: u16| *count = (*count).max(usize::from(index) + 1);
            let allowed = match instruction {
                Instruction::Load(load) => {
                    need(&mut self.loads, *load);
                    true
                }
                Instruction::Input => input && !below[index],
                Instruction::MulScalar(_, scalar) | Instruction::AddScalar(_, scalar) => {
                    need(&mut self.scalars, *scalar);
                    true
                }
                Instruction::Permute(_, galois) => {
                    need(&mut self.galois, *galois);
                    true
                }
                Instruction::Dot(pairs) => !pairs.is_empty(),
                Instruction::Add(..)
                | Instruction::Sub(..)
                | Instruction::Neg(_)
                | Instruction::Mul(..)
                | Instruction::MontMul(..) => true,
            };
            ensure(allowed, || place, || format!("instruction {index} is not allowed here"))?;
        }
        let written = |&register: &u16| usize::from(register) < program.instructions.len();
        ensure(
            program.results.iter().all(written),
            || place,
            || "a result is not a register of the program",
        )?;
        self.moved.extend(program.moved());
        self.stores += program.results.len();
        Ok(self)
    }

    fn transform(transform: &Transform, inverse: bool, place: Place) -> Result<Shape, ArtifactError> {
        let Transform { prologue, input, epilogue, .. } = transform;
        let shape = Shape { scalars: usize::from(inverse), ..Shape::default() };
        let mut shape = shape.program(prologue, false, place)?.program(epilogue, true, place)?;
        let made = usize::from(*input) < prologue.instructions.len();
        ensure(made, || place, || "what is transformed is not a register of the prologue")?;
        ensure(!epilogue.results.is_empty(), || place, || "its epilogue has no results")?;
        shape.early_stores = transform.home() + 1;
        shape.late_loads = epilogue.loads().collect();
        Ok(shape)
    }
}

impl Program {
    /// [`Program::below_permute`], after a check that instructions read what was written before.
    fn below_permute_checked(&self, place: Place) -> Result<Vec<bool>, ArtifactError> {
        for (index, instruction) in self.instructions.iter().enumerate() {
            let mut ordered = true;
            instruction.for_registers(|register| ordered &= usize::from(register) < index);
            ensure(
                ordered,
                || place,
                || format!("instruction {index} reads a register that is not written yet"),
            )?;
        }
        Ok(self.below_permute())
    }
}

impl Checker<'_> {
    pub(super) fn kernel(&mut self, kernel: &Kernel, place: Place) -> Result<(), ArtifactError> {
        self.stage(kernel.stage, place)?;
        match &kernel.body {
            Body::Elementwise { program, blocks } => {
                ensure(!program.results.is_empty(), || place, || "its program has no results")?;
                let shape = Shape::default().program(program, false, place)?;
                self.blocks(blocks.iter(), &shape, place)
            }
            Body::Ntt(transform) => {
                let shape = Shape::transform(transform, false, place)?;
                self.blocks(transform.blocks.iter(), &shape, place)
            }
            Body::Intt(transform) => {
                let shape = Shape::transform(transform, true, place)?;
                let factor = |block: &Block| block.scalars.first() != Some(&0);
                ensure(transform.blocks.iter().all(factor), || place, || "a factor is zero")?;
                self.blocks(transform.blocks.iter(), &shape, place)
            }
            Body::BaseConvert { epilogue, blocks } => {
                ensure(!epilogue.results.is_empty(), || place, || "its epilogue has no results")?;
                let shape = Shape::default().program(epilogue, true, place)?;
                for (i, block) in blocks.iter().enumerate() {
                    self.conversion(block, place.block(i))?;
                }
                self.blocks(blocks.iter().flat_map(|block| &block.targets), &shape, place)
            }
        }?;
        ensure(kernel.body.blocks().next().is_some(), || place, || "a launch without blocks")
    }

    /// The bases of a conversion, and the reading of its sources.
    fn conversion(&mut self, block: &BaseConvertBlock, place: Place) -> Result<(), ArtifactError> {
        let sources = block.sources.len();
        ensure(
            (1..=MAX_CONVERT_SOURCES).contains(&sources),
            || place,
            || format!("{sources} sources, 1 to {MAX_CONVERT_SOURCES} are possible"),
        )?;
        ensure(!block.targets.is_empty(), || place, || "no targets")?;
        let from = block.sources.iter().map(|&(prime, _)| prime);
        for limbs in [from.collect::<Vec<_>>(), block.targets.iter().map(|target| target.prime).collect()] {
            for &prime in &limbs {
                self.prime(prime, place)?;
            }
            let basis: Basis = limbs.iter().copied().collect();
            ensure(basis.len() == limbs.len(), || place, || "a prime stands twice in a basis")?;
        }
        for &(prime, operand) in &block.sources {
            self.read_limb(operand, prime, Reader::Several, place)?;
        }
        Ok(())
    }

    fn blocks<'b>(
        &mut self,
        blocks: impl Iterator<Item = &'b Block> + Clone,
        shape: &Shape,
        place: Place,
    ) -> Result<(), ArtifactError> {
        let at = |block| place.block(block);
        for (i, block) in blocks.clone().enumerate() {
            let q = self.prime(block.prime, at(i))?;
            for (what, given, needed) in [
                ("loads", block.loads.len(), shape.loads),
                ("scalars", block.scalars.len(), shape.scalars),
                ("automorphisms", block.galois.len(), shape.galois),
            ] {
                ensure(given >= needed, || at(i), || format!("{given} {what}, {needed} needed"))?;
            }
            let (stores, results) = (block.stores.len(), shape.stores);
            ensure(stores == results, || at(i), || format!("{stores} stores for {results} results"))?;
            ensure(block.scalars.iter().all(|&c| c < q), || at(i), || "a scalar is not below the prime")?;
            let foreign = |&&g: &&u32| g % 2 == 0 || u64::from(g) >= 2 * self.params.n() as u64;
            let foreign = block.galois.iter().find(foreign);
            ensure(
                foreign.is_none(),
                || at(i),
                || format!("{} is not an odd number below 2N", foreign.copied().unwrap_or_default()),
            )?;
            for (load, &operand) in block.loads.iter().enumerate() {
                let moved = u16::try_from(load).is_ok_and(|load| shape.moved.contains(&load));
                let reader = if moved { Reader::Several } else { Reader::Block(i) };
                self.read(operand, block.prime, reader, at(i))?;
            }
        }
        for (i, block) in blocks.enumerate() {
            let late =
                |&load: &u16| block.stores[..shape.early_stores].contains(&block.loads[usize::from(load)]);
            ensure(
                !shape.late_loads.iter().any(late),
                || at(i),
                || "it stores over what its epilogue loads before that is read",
            )?;
            for &operand in &block.stores {
                self.write(operand, block.prime, i, at(i))?;
            }
        }
        Ok(())
    }
}
