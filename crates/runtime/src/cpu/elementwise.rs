//! Elementwise programs on the CPU: compiled once into operations on tiles, executed tile by tile.
//!
//! A tile is a short stretch of a limb. All registers of a program fit into L1 at that length, so a chain of
//! operations costs one pass over memory. Loads of limbs are not copied: operations read them where they are.
//! A result goes straight to its destination unless the block also loads from there.

use cerium_artifact::kernel::{Instruction, Register};
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::{Modulus, Shoup};

use super::kernels::{self, RUN_ALIGN, Runs};

/// Words of a tile: 2 KiB, so that a handful of registers leaves room in L1 for what is read and written.
pub(super) const TILE: usize = 512;
const _: () = assert!(TILE.is_multiple_of(RUN_ALIGN));

/// Pairs of a dot product that need no allocation.
const FEW_PAIRS: usize = 16;

/// Where the words of a register are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// In the limb of this load.
    Load(u16),
    /// In this scratch tile.
    Scratch(u16),
    /// In the limb of this store, written before by this program.
    Store(u16),
}

/// Where an operation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Scratch(u16),
    Store(u16),
}

#[derive(Clone, Debug)]
enum Action {
    /// Runs of equal words from a compact plaintext.
    Expand(u16),
    Copy(Source),
    Add(Source, Source),
    Sub(Source, Source),
    Neg(Source),
    Mul(Source, Source),
    MontMul(Source, Source),
    MulScalar(Source, u16),
    AddScalar(Source, u16),
    Dot(Vec<(Source, Factor)>),
}

/// The second factor of a product.
#[derive(Clone, Copy, Debug)]
enum Factor {
    Words(Source),
    /// The compact plaintext of this load, as it is.
    Runs(u16),
}

/// An elementwise program as operations on tiles.
#[derive(Clone, Debug)]
pub(super) struct TileProgram {
    operations: Vec<(Target, Action)>,
    scratch: usize,
}

/// What a load of a block is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum LoadKind {
    /// A full limb.
    Limb,
    /// A compact plaintext, which must be unfolded unless it is a factor.
    Compact,
}

/// A loaded limb.
#[derive(Clone, Copy)]
pub(super) enum Loaded {
    /// N words, valid for reading while the block runs, except for tiles that it has stored over.
    Limb(*const u32),
    /// The compact words, and the base-2 logarithm of the run that each stands for.
    Compact(*const u32, usize, u32),
}

/// One block, bound to memory.
pub(super) struct BoundBlock<'a> {
    pub(super) isa: Isa,
    pub(super) q: &'a Modulus,
    pub(super) loads: &'a [Loaded],
    pub(super) stores: &'a [*mut u32],
    pub(super) scalars: &'a [Shoup],
    /// Words of a limb.
    pub(super) n: usize,
}

impl TileProgram {
    /// Compiles a validated program for blocks with the given loads. `direct` says that no store of the block is
    /// one of its loads, so that results may be written before the last load is read.
    pub(super) fn compile(
        program: &[Instruction],
        results: &[Register],
        loads: &[LoadKind],
        direct: bool,
    ) -> TileProgram {
        let mut last_use: Vec<usize> = (0..program.len()).collect();
        for (index, instruction) in program.iter().enumerate() {
            for_operands(instruction, |register| last_use[usize::from(register)] = index);
        }
        for &register in results {
            last_use[usize::from(register)] = program.len();
        }
        let unfolded = unfolded(program, results, loads);
        let mut scratch = Scratch::default();
        let mut sources: Vec<Source> = Vec::with_capacity(program.len());
        let mut operations = Vec::with_capacity(program.len() + results.len());
        for (index, instruction) in program.iter().enumerate() {
            let at = |register: &Register| sources[usize::from(*register)];
            let factors = |(a, b): (&Register, &Register)| {
                let (a, b) = factors(program, loads, *a, *b);
                (at(&a), compact(program, loads, b).map_or(Factor::Words(at(&b)), Factor::Runs))
            };
            let action = match instruction {
                Instruction::Load(load) => unfolded[index].then_some(Action::Expand(*load)),
                Instruction::Add(a, b) => Some(Action::Add(at(a), at(b))),
                Instruction::Sub(a, b) => Some(Action::Sub(at(a), at(b))),
                Instruction::Neg(a) => Some(Action::Neg(at(a))),
                Instruction::Mul(a, b) => Some(Action::Mul(at(a), at(b))),
                Instruction::MontMul(a, b) => Some(match factors((a, b)) {
                    (a, Factor::Words(b)) => Action::MontMul(a, b),
                    (a, b) => Action::Dot(vec![(a, b)]),
                }),
                Instruction::MulScalar(a, c) => Some(Action::MulScalar(at(a), *c)),
                Instruction::AddScalar(a, c) => Some(Action::AddScalar(at(a), *c)),
                Instruction::Dot(pairs) => {
                    Some(Action::Dot(pairs.iter().map(|(a, b)| factors((a, b))).collect()))
                }
            };
            let source = match (action, instruction) {
                (None, Instruction::Load(load)) => Source::Load(*load),
                (None, _) => unreachable!("only loads need no operation"),
                (Some(action), _) => {
                    let store = results.iter().position(|&result| usize::from(result) == index);
                    let (target, source) = match store.filter(|_| direct) {
                        Some(store) => (Target::Store(store as u16), Source::Store(store as u16)),
                        None => {
                            let tile = scratch.take();
                            (Target::Scratch(tile), Source::Scratch(tile))
                        }
                    };
                    operations.push((target, action));
                    source
                }
            };
            sources.push(source);
            // Freed after the output was taken: an operation never writes what it reads.
            let mut free = |register: Register| {
                let register = usize::from(register);
                if last_use[register] == index
                    && let Source::Scratch(tile) = sources[register]
                {
                    scratch.free(tile);
                    last_use[register] = usize::MAX;
                }
            };
            for_operands(instruction, &mut free);
            free(index as Register);
        }
        if !direct {
            // A store may destroy what a later result is loaded from.
            for &register in results {
                let source = &mut sources[usize::from(register)];
                if let Source::Load(_) = source {
                    let tile = scratch.take();
                    operations.push((Target::Scratch(tile), Action::Copy(*source)));
                    *source = Source::Scratch(tile);
                }
            }
        }
        for (store, &register) in results.iter().enumerate() {
            let source = sources[usize::from(register)];
            if source != Source::Store(store as u16) {
                operations.push((Target::Store(store as u16), Action::Copy(source)));
            }
        }
        TileProgram { operations, scratch: scratch.count.into() }
    }

    /// Words of scratch memory that [`TileProgram::run`] needs.
    pub(super) fn scratch_words(&self) -> usize {
        self.scratch * TILE
    }

    /// Executes the program on all tiles of a block.
    ///
    /// # Safety
    /// The loads are valid for reading and the stores for writing, N words each, and nobody else writes the former
    /// or uses the latter. No two stores are the same limb. A store is also a load only if the program was not
    /// compiled `direct`. The block has the loads that the program was compiled for.
    pub(super) unsafe fn run(&self, block: &BoundBlock<'_>, scratch: &mut [u32]) {
        let scratch = &mut scratch[..self.scratch_words()];
        let tile = TILE.min(block.n);
        for start in (0..block.n).step_by(tile) {
            for (target, action) in &self.operations {
                let tiles = Tiles { block, scratch: scratch.as_mut_ptr(), start, len: tile };
                // SAFETY: passed on from the caller; `compile` never lets an operation write a tile that it reads.
                unsafe { tiles.apply(*target, action) }
            }
        }
    }
}

/// The load of a register that is a compact plaintext.
fn compact(program: &[Instruction], loads: &[LoadKind], register: Register) -> Option<u16> {
    match program[usize::from(register)] {
        Instruction::Load(load) => Some(load).filter(|&load| loads[usize::from(load)] == LoadKind::Compact),
        _ => None,
    }
}

/// The factors of a product, a compact plaintext second.
fn factors(program: &[Instruction], loads: &[LoadKind], a: Register, b: Register) -> (Register, Register) {
    if compact(program, loads, b).is_none() && compact(program, loads, a).is_some() { (b, a) } else { (a, b) }
}

/// For each instruction, whether it loads a compact plaintext that is needed word by word: as anything but the second
/// factor of a product.
fn unfolded(program: &[Instruction], results: &[Register], loads: &[LoadKind]) -> Vec<bool> {
    let mut unfolded = vec![false; program.len()];
    let mut need = |register: Register| {
        unfolded[usize::from(register)] = compact(program, loads, register).is_some();
    };
    for instruction in program {
        match instruction {
            Instruction::MontMul(a, b) => need(factors(program, loads, *a, *b).0),
            Instruction::Dot(pairs) => {
                pairs.iter().for_each(|&(a, b)| need(factors(program, loads, a, b).0));
            }
            other => for_operands(other, &mut need),
        }
    }
    results.iter().for_each(|&register| need(register));
    unfolded
}

/// Free scratch tiles.
#[derive(Default)]
struct Scratch {
    free: Vec<u16>,
    count: u16,
}

impl Scratch {
    fn take(&mut self) -> u16 {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }

    fn free(&mut self, tile: u16) {
        self.free.push(tile);
    }
}

fn for_operands(instruction: &Instruction, mut visit: impl FnMut(Register)) {
    match instruction {
        Instruction::Load(_) => {}
        Instruction::Neg(a) | Instruction::MulScalar(a, _) | Instruction::AddScalar(a, _) => visit(*a),
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

/// The registers of a program at one tile.
struct Tiles<'a> {
    block: &'a BoundBlock<'a>,
    scratch: *mut u32,
    start: usize,
    len: usize,
}

impl Tiles<'_> {
    /// # Safety
    /// As for [`TileProgram::run`]; the target is not among the action's sources.
    unsafe fn apply(&self, target: Target, action: &Action) {
        let (isa, q) = (self.block.isa, self.block.q);
        let out = match target {
            // SAFETY: the program has this many scratch tiles.
            Target::Scratch(tile) => unsafe { self.scratch.add(usize::from(tile) * TILE) },
            // SAFETY: the tile lies inside the limb.
            Target::Store(store) => unsafe { self.block.stores[usize::from(store)].add(self.start) },
        };
        // SAFETY: valid for writing, and no source of this operation overlaps it.
        let out = unsafe { std::slice::from_raw_parts_mut(out, self.len) };
        // SAFETY: sources were written by earlier operations or are loads; nothing writes them in this operation.
        let at = |source: &Source| unsafe { self.read(*source) };
        match action {
            Action::Expand(load) => {
                // SAFETY: the program was compiled for a compact load.
                let (compact, log_run) = unsafe { self.compact(*load) };
                kernels::expand(out, compact, log_run, self.start);
            }
            Action::Copy(a) => out.copy_from_slice(at(a)),
            Action::Add(a, b) => kernels::add(isa, q, out, at(a), at(b)),
            Action::Sub(a, b) => kernels::sub(isa, q, out, at(a), at(b)),
            Action::Neg(a) => kernels::neg(isa, q, out, at(a)),
            Action::Mul(a, b) => kernels::mul(isa, q, out, at(a), at(b)),
            Action::MontMul(a, b) => kernels::mont_mul(isa, q, out, at(a), at(b)),
            Action::MulScalar(a, c) => {
                kernels::mul_scalar(isa, q, out, at(a), self.block.scalars[usize::from(*c)]);
            }
            Action::AddScalar(a, c) => {
                kernels::add_scalar(isa, q, out, at(a), self.block.scalars[usize::from(*c)].w);
            }
            Action::Dot(pairs) => {
                let factor = |factor: &Factor| match factor {
                    Factor::Words(source) => Runs::from(at(source)),
                    Factor::Runs(load) => {
                        // SAFETY: the program was compiled for a compact load.
                        let (compact, log_run) = unsafe { self.compact(*load) };
                        Runs::new(compact, log_run, self.start)
                    }
                };
                let mut few = [(&[][..], Runs::from(&[][..])); FEW_PAIRS];
                if pairs.len() <= FEW_PAIRS {
                    few.iter_mut().zip(pairs).for_each(|(slot, (a, b))| *slot = (at(a), factor(b)));
                    kernels::dot(isa, q, out, &few[..pairs.len()]);
                } else {
                    let many: Vec<_> = pairs.iter().map(|(a, b)| (at(a), factor(b))).collect();
                    kernels::dot(isa, q, out, &many);
                }
            }
        }
    }

    /// The words of a compact load, and the base-2 logarithm of the run that each stands for.
    ///
    /// # Safety
    /// As for [`TileProgram::run`].
    unsafe fn compact(&self, load: u16) -> (&[u32], u32) {
        let Loaded::Compact(words, count, log_run) = self.block.loads[usize::from(load)] else {
            unreachable!("the program was compiled for a compact load")
        };
        // SAFETY: the caller says that the compact words are valid for reading.
        (unsafe { std::slice::from_raw_parts(words, count) }, log_run)
    }

    /// # Safety
    /// As for [`TileProgram::run`]; while the slice lives, nothing writes the source.
    unsafe fn read(&self, source: Source) -> &[u32] {
        let words = match source {
            Source::Load(load) => match self.block.loads[usize::from(load)] {
                // SAFETY: the tile lies inside the limb.
                Loaded::Limb(words) => unsafe { words.add(self.start) },
                Loaded::Compact(..) => unreachable!("the program was compiled for a full limb"),
            },
            // SAFETY: the program has this many scratch tiles.
            Source::Scratch(tile) => unsafe { self.scratch.add(usize::from(tile) * TILE).cast_const() },
            // SAFETY: the tile lies inside the limb.
            Source::Store(store) => unsafe {
                self.block.stores[usize::from(store)].add(self.start).cast_const()
            },
        };
        // SAFETY: valid for `len` words, and nobody writes them now.
        unsafe { std::slice::from_raw_parts(words, self.len) }
    }
}
