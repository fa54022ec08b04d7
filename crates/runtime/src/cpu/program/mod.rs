//! Programs on the CPU: compiled once into operations on tiles ([`compile`]), executed tile by tile ([`run`]).
//!
//! A tile is a short aligned stretch of a limb. All registers of a program fit into the inner caches at that length, so a
//! chain of operations costs one pass over memory. Loads of limbs are not copied: operations read them where they are. A
//! result goes straight to its destination unless that is read afterwards.
//!
//! An automorphism makes a tile of one tile, in another order. So a register below an [`Instruction::Permute`] is computed
//! at the tile where its words come from and permuted into the tile where they are needed. Where registers are computed is
//! their [`View`]; one that is needed in several is computed once in each.
//!
//! [`Instruction::Permute`]: cerium_artifact::kernel::Instruction::Permute

mod compile;
mod order;
mod run;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::kernels::RUN_ALIGN;
use crate::key_store::KEY_TILE;

pub(super) use compile::Compilation;
pub(super) use order::tile_order;
pub(super) use run::{BoundBlock, Loaded, TileScratch};

/// Words of a tile: 2 KiB, so that a handful of registers leaves room in L1 for what is read and written. Keys are laid out
/// by such tiles.
pub(super) const TILE: usize = KEY_TILE;
const _: () = assert!(TILE.is_multiple_of(RUN_ALIGN));

/// A program as operations on tiles.
#[derive(Clone, Debug)]
pub(super) struct TileProgram {
    operations: Vec<Operation>,
    /// All but the first, which is where the results are.
    views: Vec<View>,
    /// What operations fetch in advance.
    fetches: Vec<Fetch>,
    /// Number of scratch tiles.
    scratch: usize,
}

/// Number of a view: 0 is where the results are, the others are entries of [`TileProgram::views`], counted from 1.
type ViewId = u16;

/// Where words come from: the positions `pi_g(i)` for the positions `i` of another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct View {
    of: ViewId,
    /// Index of the automorphism in the block.
    galois: u16,
}

/// What a load of a block is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum LoadKind {
    /// A limb of the pool, likely to be in some cache.
    Limb,
    /// A limb of a key or a plaintext: it is in memory.
    Stored,
    /// A compact plaintext, which must be unfolded unless it is a factor.
    Compact,
}

/// Where the words of a register are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// In the limb of this load.
    Load(u16),
    /// In the limb that was transformed or converted.
    Input,
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
struct Operation {
    target: Target,
    view: ViewId,
    action: Action,
    /// Part of [`TileProgram::fetches`].
    fetches: Range<usize>,
}

/// What an operation does. Sources are read in the operation's view.
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
    Dot(Box<[(Source, Factor)]>),
    /// Two dot products with the second factors in common; the second sum goes to a target of its own.
    DotPair(Target, Box<[([Source; 2], Factor)]>),
    /// The source is read in the view that this automorphism makes of the operation's.
    Permute {
        from: Source,
        view: ViewId,
        galois: u16,
    },
}

/// The second factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    Words(Source),
    /// The compact plaintext of this load, as it is.
    Runs(u16),
}

/// A tile that an operation fetches into cache for one of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
    /// Of a load in a view, for this tile of the results or for the next.
    Load { load: u16, view: ViewId, next: bool },
    /// Of a load or store, for a tile of the results that comes later.
    Later(Source),
}
