//! Executing operations tile by tile.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::{Modulus, Shoup};

use super::{Action, Factor, Fetch, Operation, Source, TILE, Target, TileProgram, ViewId};
use crate::cpu::kernels::{self, Runs, Term};
use crate::memory::Pages;

/// Terms and fetches of an operation that need no allocation.
const FEW: usize = 16;

/// Words by which a program that visits tiles in order fetches ahead, if it is not run on less.
const STRETCH_AHEAD: usize = 2 * TILE;

/// A loaded limb.
#[derive(Clone, Copy)]
pub(in super::super) enum Loaded {
    /// N words, valid for reading while the block runs, except for tiles that it has stored over.
    Limb(*const u32),
    /// The first tile of N words, and how far apart the beginnings of its tiles of [`TILE`] words are.
    Tiled(*const u32, usize),
    /// The compact words, and the base-2 logarithm of the run that each stands for.
    Compact(*const u32, usize, u32),
}

impl Loaded {
    /// The `len` words from `start` on of a full limb; within one tile if it is laid out by tiles.
    ///
    /// # Safety
    /// They are valid for reading, and nobody writes them while the slice lives.
    pub(in super::super) unsafe fn words<'a>(self, start: usize, len: usize) -> &'a [u32] {
        // SAFETY: passed on from the caller.
        unsafe { std::slice::from_raw_parts(self.address(start), len) }
    }

    /// Where the word at `start` is, be it within the limb or not.
    fn address(self, start: usize) -> *const u32 {
        match self {
            Loaded::Limb(words) => words.wrapping_add(start),
            Loaded::Tiled(words, stride) => words.wrapping_add(start / TILE * stride + start % TILE),
            Loaded::Compact(words, _, log_run) => words.wrapping_add(start >> log_run),
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
    /// Aligned as vectors are: one that lies across two cache lines costs twice.
    words: Pages,
    /// Where the tile of each view begins, and where the next one will.
    starts: Vec<[usize; 2]>,
}

impl TileScratch {
    /// For programs that need up to `words` words.
    pub(in super::super) fn new(words: usize) -> io::Result<TileScratch> {
        Ok(TileScratch { words: Pages::new(words)?, starts: Vec::new() })
    }
}

impl TileProgram {
    /// Executes the program on the words of a range, tile by tile: in order, or as `order` says, which lists the tiles of
    /// the whole range.
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
        order: Option<&[u32]>,
        scratch: &mut TileScratch,
    ) {
        // Stretches of a limb are run as a transform goes on: what the next one needs is fetched in the meantime.
        let ahead = range.len().min(STRETCH_AHEAD);
        let TileScratch { words, starts } = scratch;
        let words = words.words_mut()[..self.scratch_words()].as_mut_ptr();
        let len = TILE.min(range.len());
        let tiles = range.len() / len;
        assert!(order.is_none_or(|order| order.len() == tiles), "an order has all tiles");
        let start = |tile: usize| range.start + len * order.map_or(tile, |order| order[tile] as usize);
        starts.clear();
        starts.resize(1 + self.views.len(), [0; 2]);
        self.look_ahead(block, starts, start(0), len);
        for tile in 0..tiles {
            starts.iter_mut().for_each(|[now, next]| *now = *next);
            self.look_ahead(block, starts, start((tile + 1).min(tiles - 1)), len);
            let later = if order.is_some() { starts[0][1] } else { starts[0][0] + ahead };
            for operation in &self.operations {
                let tiles = Tiles { block, scratch: words, starts, later, len };
                // SAFETY: passed on from the caller; `compile` never lets an operation write a tile that it reads.
                unsafe { tiles.apply(operation, &self.fetches[operation.fetches.clone()]) }
            }
        }
    }

    /// Notes where the tiles of all views begin when that of the results, the next one, begins at `start`.
    fn look_ahead(&self, block: &BoundBlock<'_>, starts: &mut [[usize; 2]], start: usize, len: usize) {
        starts[0][1] = start;
        for (view, id) in self.views.iter().zip(1..) {
            let of = starts[usize::from(view.of)][1];
            starts[id][1] = block.automorphisms[usize::from(view.galois)].source(of, len);
        }
    }
}

/// The registers of a program at one tile.
struct Tiles<'a> {
    block: &'a BoundBlock<'a>,
    scratch: *mut u32,
    starts: &'a [[usize; 2]],
    /// Where the tile of the results begins that is fetched now for later.
    later: usize,
    len: usize,
}

impl Tiles<'_> {
    /// # Safety
    /// As for [`TileProgram::run`]; the targets are not among the action's sources.
    unsafe fn apply(&self, operation: &Operation, fetches: &[Fetch]) {
        let Operation { target, view, ref action, .. } = *operation;
        let (isa, q) = (self.block.isa, self.block.q);
        // SAFETY: no source of this operation overlaps the target.
        let out = unsafe { self.write(target) };
        // SAFETY: sources were written by earlier operations or are loads; nothing writes them in this operation.
        let at = |source: &Source| unsafe { self.read(*source, view) };
        // SAFETY: as above.
        let factor = |factor: &Factor| unsafe { self.factor(*factor, view) };
        let mut addresses = [std::ptr::null(); FEW];
        addresses.iter_mut().zip(fetches).for_each(|(address, fetch)| *address = self.address(fetch));
        let ahead = &addresses[..fetches.len().min(FEW)];
        match action {
            Action::Dot(terms) => {
                let term = |(a, b): &(Source, Factor)| ([at(a)], factor(b));
                with_terms(terms, term, |terms| kernels::dot(isa, q, [out], terms, ahead));
                return;
            }
            Action::DotPair(other, terms) => {
                // SAFETY: as for the first target, which is another.
                let other = unsafe { self.write(*other) };
                let term = |([a, b], c): &([Source; 2], Factor)| ([at(a), at(b)], factor(c));
                with_terms(terms, term, |terms| kernels::dot_pair(isa, q, [out, other], terms, ahead));
                return;
            }
            _ => kernels::fetch(isa, self.len, ahead),
        }
        let scalar = |c: &u16| self.block.scalars[usize::from(*c)];
        match action {
            Action::Dot(_) | Action::DotPair(..) => unreachable!("done above"),
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
        }
    }

    fn start(&self, view: ViewId) -> usize {
        self.starts[usize::from(view)][0]
    }

    /// # Safety
    /// As for [`TileProgram::run`]; while the slice lives, nothing else uses the target.
    #[allow(clippy::mut_from_ref, reason = "the caller vouches for exclusive use of the target")]
    unsafe fn write(&self, target: Target) -> &mut [u32] {
        let words = match target {
            // SAFETY: the program has this many scratch tiles.
            Target::Scratch(tile) => unsafe { self.scratch.add(usize::from(tile) * TILE) },
            // The tile lies inside the limb, of which only the range that is run need be there.
            Target::Store(store) => self.block.stores[usize::from(store)].wrapping_add(self.start(0)),
        };
        // SAFETY: valid for writing, as the caller says.
        unsafe { std::slice::from_raw_parts_mut(words, self.len) }
    }

    /// # Safety
    /// As for [`TileProgram::run`]; while the slice lives, nothing writes the source.
    unsafe fn read(&self, source: Source, view: ViewId) -> &[u32] {
        let words = match source {
            Source::Load(load) => {
                // SAFETY: the tile lies inside the limb.
                return unsafe { self.block.loads[usize::from(load)].words(self.start(view), self.len) };
            }
            // Inside the limb, of which only the range that is run need be there.
            Source::Input => self.block.input.wrapping_add(self.start(0)),
            Source::Store(store) => {
                self.block.stores[usize::from(store)].wrapping_add(self.start(0)).cast_const()
            }
            // SAFETY: the program has this many scratch tiles.
            Source::Scratch(tile) => unsafe { self.scratch.add(usize::from(tile) * TILE).cast_const() },
        };
        // SAFETY: valid for `len` words, and nobody writes them now.
        unsafe { std::slice::from_raw_parts(words, self.len) }
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
            Factor::Words(source) => Runs::from(unsafe { self.read(source, view) }),
            Factor::Runs(load) => {
                // SAFETY: passed on from the caller.
                let (compact, log_run) = unsafe { self.compact(load) };
                Runs::new(compact, log_run, self.start(view))
            }
        }
    }

    /// Where the tile is that a fetch asks for.
    fn address(&self, fetch: &Fetch) -> *const u32 {
        let load = |load: u16, start: usize| self.block.loads[usize::from(load)].address(start);
        match *fetch {
            Fetch::Load { load: index, view, next } => {
                load(index, self.starts[usize::from(view)][usize::from(next)])
            }
            Fetch::Later(Source::Load(index)) => load(index, self.later),
            Fetch::Later(Source::Store(store)) => {
                self.block.stores[usize::from(store)].wrapping_add(self.later).cast_const()
            }
            Fetch::Later(Source::Input | Source::Scratch(_)) => std::ptr::null(),
        }
    }
}

/// Calls `compute` with the terms of a sum, bound to memory.
fn with_terms<'a, T, const OUTS: usize>(
    terms: &[T],
    term: impl Fn(&T) -> Term<'a, OUTS>,
    compute: impl FnOnce(&[Term<'a, OUTS>]),
) {
    let mut few = [([&[][..]; OUTS], Runs::from(&[][..])); FEW];
    if terms.len() <= FEW {
        few.iter_mut().zip(terms).for_each(|(slot, own)| *slot = term(own));
        compute(&few[..terms.len()]);
    } else {
        compute(&terms.iter().map(term).collect::<Vec<_>>());
    }
}
