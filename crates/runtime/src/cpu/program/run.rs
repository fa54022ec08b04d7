//! Executing operations tile by tile.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::{Modulus, Shoup};

use super::{Action, Factor, MOST_ADDENDS, Operation, PAD, Source, Target, TileProgram, Two, ViewId};
use crate::cpu::kernels::{self, Runs, Term};
use crate::memory::Pages;

/// Terms of an operation that need no allocation.
const FEW: usize = 16;

/// A loaded limb.
#[derive(Clone, Copy)]
pub(in super::super) enum Loaded {
    /// N words, valid for reading while the block runs, except for tiles that it has stored over.
    Limb(*const u32),
    /// The compact words, and the base-2 logarithm of the run that each stands for.
    Compact(*const u32, usize, u32),
}

impl Loaded {
    /// The `len` words from `start` on of a full limb.
    ///
    /// # Safety
    /// They are valid for reading, and nobody writes them while the slice lives.
    pub(in super::super) unsafe fn words<'a>(self, start: usize, len: usize) -> &'a [u32] {
        match self {
            // SAFETY: passed on from the caller.
            Loaded::Limb(words) => unsafe { std::slice::from_raw_parts(words.add(start), len) },
            Loaded::Compact(..) => unreachable!("the load is not compact"),
        }
    }
}

/// One block, bound to memory.
pub(in super::super) struct BoundBlock<'a> {
    pub(in super::super) isa: Isa,
    pub(in super::super) q: &'a Modulus,
    pub(in super::super) loads: &'a [Loaded],
    /// The limb that was transformed or converted: N words, of which those in the range that is run are valid for reading.
    /// Null for programs without an input.
    pub(in super::super) input: *const u32,
    pub(in super::super) stores: &'a [*mut u32],
    pub(in super::super) scalars: &'a [Shoup],
    pub(in super::super) automorphisms: &'a [Arc<Automorphism>],
}

/// What executing programs needs besides their blocks; kept from one to the next.
#[derive(Debug, Default)]
pub(in super::super) struct TileScratch {
    /// Tiles. Aligned as vectors are: one that lies across two cache lines costs twice.
    tiles: Pages,
    /// Limbs.
    limbs: Pages,
    /// Where the tile of each view begins.
    starts: Vec<usize>,
}

impl TileScratch {
    /// For programs that need up to so many words of tiles and of limbs.
    pub(in super::super) fn new(tiles: usize, limbs: usize) -> io::Result<TileScratch> {
        Ok(TileScratch { tiles: Pages::new(tiles)?, limbs: Pages::new(limbs)?, starts: Vec::new() })
    }
}

impl TileProgram {
    /// Executes the program on the words of a range: all N words if the program sweeps.
    ///
    /// # Safety
    /// The loads are valid for reading and the stores for writing, N words each (stores at least in the range), and nobody
    /// else writes the former or uses the latter. No two stores are the same limb. A store is a load or the input only as
    /// the program was compiled for, and the loads are what it was compiled for. The range is an aligned power of two of
    /// words, and the scratch memory large enough.
    pub(in super::super) unsafe fn run(
        &self,
        block: &BoundBlock<'_>,
        range: Range<usize>,
        scratch: &mut TileScratch,
    ) {
        let TileScratch { tiles, limbs, starts } = scratch;
        let limbs = &mut limbs.words_mut()[..self.scratch_limbs * (range.len() + PAD)];
        let limbs = Limbs { first: limbs.as_mut_ptr(), n: range.len() };
        let tiles = tiles.words_mut()[..self.scratch_tiles * (self.tile + PAD)].as_mut_ptr();
        let execute = |operations: &[Operation], starts: &[usize], len: usize| {
            let tiles = Tiles { block, tiles, tile: self.tile, limbs, starts, len };
            for operation in operations {
                // SAFETY: passed on from the caller; `compile` never lets an operation write what it reads.
                unsafe { tiles.apply(operation) }
            }
        };
        if self.sweeps() {
            assert_eq!(range.start, 0, "sweeps are over whole limbs");
            execute(&self.sweeps, &[0], range.len());
        }
        let len = self.tile.min(range.len());
        for start in range.step_by(len) {
            starts.clear();
            starts.push(start);
            for view in &self.views {
                let of = starts[usize::from(view.of)];
                starts.push(block.automorphisms[usize::from(view.galois)].source(of, len));
            }
            execute(&self.operations, starts, len);
        }
    }
}

/// Scratch limbs of `n` words.
#[derive(Clone, Copy)]
struct Limbs {
    first: *mut u32,
    n: usize,
}

/// The registers of a program at one tile.
struct Tiles<'a> {
    block: &'a BoundBlock<'a>,
    tiles: *mut u32,
    tile: usize,
    limbs: Limbs,
    starts: &'a [usize],
    len: usize,
}

impl Tiles<'_> {
    /// # Safety
    /// As for [`TileProgram::run`]; only those of sums and of two operations may be among the action's sources.
    unsafe fn apply(&self, operation: &Operation) {
        let Operation { target, view, ref action } = *operation;
        let (isa, q) = (self.block.isa, self.block.q);
        // SAFETY: passed on from the caller; a source of these is one of their targets or apart from them.
        unsafe {
            match action {
                &Action::Two(two, a, b, c) => return self.apply_two(two, target, [a, b], c, view),
                Action::Dot(terms, addends) => return self.dot([target], terms, [addends], view),
                Action::DotPair(other, terms, [own, others]) => {
                    return self.dot_pair([target, *other], terms, [own, others], view);
                }
                _ => {}
            }
        }
        // SAFETY: no source of this operation overlaps the target.
        let out = unsafe { self.write(target) };
        // SAFETY: sources were written by earlier operations or are loads; nothing writes them in this operation.
        let at = |source: &Source| unsafe { self.read(*source, view) };
        let scalar = |c: &u16| self.block.scalars[usize::from(*c)];
        match action {
            Action::Expand(load) => {
                // SAFETY: the program was compiled for a compact load.
                let (compact, log_run) = unsafe { self.compact(*load) };
                kernels::expand(out, compact, log_run, self.start(view));
            }
            Action::Permute { from, view: inner, galois } => {
                let automorphism = &self.block.automorphisms[usize::from(*galois)];
                // SAFETY: as for the other sources.
                automorphism.permute(isa, out, self.start(view), unsafe { self.read(*from, *inner) });
            }
            Action::Copy(a) => kernels::copy(isa, q, out, at(a)),
            Action::Add(a, b) => kernels::add(isa, q, out, at(a), at(b)),
            Action::Sub(a, b) => kernels::sub(isa, q, out, at(a), at(b)),
            Action::Neg(a) => kernels::neg(isa, q, out, at(a)),
            Action::Mul(a, b) => kernels::mul(isa, q, out, at(a), at(b)),
            Action::MontMul(a, b) => kernels::mont_mul(isa, q, out, at(a), at(b)),
            Action::MulScalar(a, c) => kernels::mul_scalar(isa, q, out, at(a), scalar(c)),
            Action::AddScalar(a, c) => kernels::add_scalar(isa, q, out, at(a), scalar(c).w),
            Action::Two(..) | Action::Dot(..) | Action::DotPair(..) => unreachable!("done above"),
        }
    }

    /// # Safety
    /// As for [`TileProgram::run`]; the target may be one of the sources, and overlaps none otherwise.
    unsafe fn dot(
        &self,
        targets: [Target; 1],
        terms: &[(Source, Factor)],
        addends: [&[Source]; 1],
        view: ViewId,
    ) {
        let (isa, q) = (self.block.isa, self.block.q);
        // SAFETY: the slices are gone when the words are used through pointers, which are valid as the caller says.
        unsafe {
            let outs = targets.map(|target| self.write(target).as_mut_ptr());
            let term = |&(a, b): &(Source, Factor)| ([self.read(a, view).as_ptr()], self.factor(b, view));
            let added = addends.map(|addends| self.addends(addends, view));
            with_terms(terms, term, |terms| {
                kernels::dot(isa, q, outs, self.len, terms, [&added[0][..addends[0].len()]]);
            });
        }
    }

    /// # Safety
    /// As for [`Tiles::dot`], for both targets.
    unsafe fn dot_pair(
        &self,
        targets: [Target; 2],
        terms: &[([Source; 2], Factor)],
        addends: [&[Source]; 2],
        view: ViewId,
    ) {
        let (isa, q) = (self.block.isa, self.block.q);
        // SAFETY: as in `dot`.
        unsafe {
            let outs = targets.map(|target| self.write(target).as_mut_ptr());
            let term = |&(a, b): &([Source; 2], Factor)| {
                (a.map(|a| self.read(a, view).as_ptr()), self.factor(b, view))
            };
            let added = addends.map(|addends| self.addends(addends, view));
            let added = [&added[0][..addends[0].len()], &added[1][..addends[1].len()]];
            with_terms(terms, term, |terms| kernels::dot_pair(isa, q, outs, self.len, terms, added));
        }
    }

    /// # Safety
    /// As for [`Tiles::read`].
    unsafe fn addends(&self, addends: &[Source], view: ViewId) -> [*const u32; MOST_ADDENDS] {
        let mut added = [std::ptr::null(); MOST_ADDENDS];
        for (added, &source) in added.iter_mut().zip(addends) {
            // SAFETY: passed on from the caller.
            *added = unsafe { self.read(source, view).as_ptr() };
        }
        added
    }

    /// # Safety
    /// As for [`TileProgram::run`]; the target may be one of the sources, and overlaps none otherwise.
    unsafe fn apply_two(&self, two: Two, target: Target, sources: [Source; 2], scalar: u16, view: ViewId) {
        let (isa, q, c) = (self.block.isa, self.block.q, self.block.scalars[usize::from(scalar)]);
        // SAFETY: the slices are gone when the words are used through pointers.
        let ([a, b], out) = unsafe {
            (sources.map(|source| self.read(source, view).as_ptr()), self.write(target).as_mut_ptr())
        };
        // SAFETY: all are valid for `len` words, as the caller says.
        unsafe {
            match two {
                Two::AddMulScalar => kernels::add_mul_scalar(isa, q, out, a, b, c, self.len),
                Two::SubMulScalar => kernels::sub_mul_scalar(isa, q, out, a, b, c, self.len),
                // The product of two words lacks a factor of 2^32.
                Two::MulMulScalar => {
                    kernels::mont_mul_scalar(isa, q, out, a, b, q.shoup(q.to_mont(c.w)), self.len);
                }
                Two::MulScalarAdd => kernels::mul_scalar_add(isa, q, out, a, b, c, self.len),
                Two::MulScalarSub => kernels::mul_scalar_sub(isa, q, out, a, b, c, self.len),
            }
        }
    }

    fn start(&self, view: ViewId) -> usize {
        self.starts[usize::from(view)]
    }

    /// # Safety
    /// As for [`TileProgram::run`]; while the slice lives, nothing else uses the target.
    #[allow(clippy::mut_from_ref, reason = "the caller vouches for exclusive use of the target")]
    unsafe fn write(&self, target: Target) -> &mut [u32] {
        let words = match target {
            // SAFETY: the program has this many scratch tiles.
            Target::Scratch(tile) => unsafe { self.tiles.add(usize::from(tile) * (self.tile + PAD)) },
            // SAFETY: the tile lies inside the limb.
            Target::Swept(limb) => unsafe { self.swept(limb).add(self.start(0)) },
            // The tile lies inside the limb, of which only the range that is run need be there.
            Target::Store(store) => self.block.stores[usize::from(store)].wrapping_add(self.start(0)),
        };
        // SAFETY: valid for writing, as the caller says.
        unsafe { std::slice::from_raw_parts_mut(words, self.len) }
    }

    /// # Safety
    /// As for [`TileProgram::run`]; while the slice lives, nothing writes the source.
    unsafe fn read(&self, source: Source, view: ViewId) -> &[u32] {
        let start = self.start(view);
        let words = match source {
            Source::Load(load) => {
                // SAFETY: the tile lies inside the limb.
                return unsafe { self.block.loads[usize::from(load)].words(start, self.len) };
            }
            // SAFETY: the program has this many scratch tiles.
            Source::Scratch(tile) => unsafe {
                self.tiles.add(usize::from(tile) * (self.tile + PAD)).cast_const()
            },
            // SAFETY: the tile lies inside the limb.
            Source::Swept(limb) => unsafe { self.swept(limb).add(start).cast_const() },
            // Inside the limb, of which only the range that is run need be there.
            Source::Input => self.block.input.wrapping_add(start),
            Source::Store(store) => self.block.stores[usize::from(store)].wrapping_add(start).cast_const(),
        };
        // SAFETY: valid for `len` words, and nobody writes them now.
        unsafe { std::slice::from_raw_parts(words, self.len) }
    }

    /// A scratch limb.
    ///
    /// # Safety
    /// The program has this many.
    unsafe fn swept(&self, limb: u16) -> *mut u32 {
        // SAFETY: passed on from the caller.
        unsafe { self.limbs.first.add(usize::from(limb) * (self.limbs.n + PAD)) }
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
    /// As for [`Tiles::read`].
    unsafe fn factor(&self, factor: Factor, view: ViewId) -> Runs<'_> {
        match factor {
            // SAFETY: passed on from the caller.
            Factor::Words(source) => Runs::words(unsafe { self.read(source, view).as_ptr() }, self.len),
            Factor::Runs(load) => {
                // SAFETY: passed on from the caller.
                let (compact, log_run) = unsafe { self.compact(load) };
                Runs::new(compact, log_run, self.start(view))
            }
        }
    }
}

/// Calls `compute` with the terms of a sum, bound to memory.
fn with_terms<'a, T, const OUTS: usize>(
    terms: &[T],
    term: impl Fn(&T) -> Term<'a, OUTS>,
    compute: impl FnOnce(&[Term<'a, OUTS>]),
) {
    let mut few = [([std::ptr::null(); OUTS], Runs::words(std::ptr::null(), 0)); FEW];
    if terms.len() <= FEW {
        few.iter_mut().zip(terms).for_each(|(slot, own)| *slot = term(own));
        compute(&few[..terms.len()]);
    } else {
        compute(&terms.iter().map(term).collect::<Vec<_>>());
    }
}
