//! Programs on the CPU: compiled once into operations on tiles ([`compile`]), executed tile by tile ([`run`]).
//!
//! A tile is a short aligned stretch of a limb. All registers of a program fit into the inner caches at that length, so a
//! chain of operations costs one pass over memory. Loads of limbs are not copied: operations read them where they are. A
//! result goes straight to its destination unless that is read afterwards.
//!
//! Products with keys are the exception: they are done first, each for the whole limb. Keys come from memory, which delivers
//! a few long streams more than twice as fast as short stretches of many; what the products leave is small beside the keys.
//!
//! An automorphism makes a tile of one tile, in another order. So a register below an [`Instruction::Permute`] is computed
//! at the tile where its words come from and permuted into the tile where they are needed. Where registers are computed is
//! their [`View`]; one that is needed in several is computed once in each.
//!
//! [`Instruction::Permute`]: cerium_artifact::kernel::Instruction::Permute

mod compile;
mod join;
mod run;
#[cfg(test)]
mod tests;

use super::kernels::RUN_ALIGN;

pub(super) use compile::Compilation;
pub(super) use run::{BoundBlock, Loaded, TileScratch};

/// Words of a tile: 4 KiB, so that a handful of registers fits L1.
pub(super) const TILE: usize = 1024;

/// Words of a tile of programs with automorphisms, 16 KiB: they read each tile at another place, and what is read in longer
/// stretches comes faster.
const MOVING_TILE: usize = 4096;

const _: () = assert!(TILE.is_multiple_of(RUN_ALIGN));

/// Words by which scratch tiles and limbs are further apart than they are long: laid end to end, words at the same place of
/// all would compete for the same few cache sets.
const PAD: usize = 17 * 16;

/// A program as operations on tiles.
#[derive(Clone, Debug)]
pub(super) struct TileProgram {
    /// Executed first, each for the whole limb, in view 0.
    sweeps: Vec<Operation>,
    /// Executed in turn for each tile.
    operations: Vec<Operation>,
    /// All but the first, which is where the results are.
    views: Vec<View>,
    /// Words of a tile, if there are so many.
    tile: usize,
    /// Number of scratch tiles.
    scratch_tiles: usize,
    /// Number of scratch limbs: what sweeps leave.
    scratch_limbs: usize,
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
    /// A full limb of a plaintext: it is in memory.
    Stored,
    /// A limb of a key: it is in memory.
    Key,
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
    /// In this scratch limb.
    Swept(u16),
    /// In the limb of this store, written before by this program.
    Store(u16),
}

/// Where an operation writes: as the [`Source`] of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Scratch(u16),
    Swept(u16),
    Store(u16),
}

#[derive(Clone, Debug)]
struct Operation {
    target: Target,
    view: ViewId,
    action: Action,
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
    /// Two operations, the first of which only the second reads.
    Two(Two, Source, Source, u16),
    Dot(Box<[(Source, Factor)]>, Addends),
    /// Two dot products with the second factors in common; the second sum goes to a target of its own.
    DotPair(Target, Box<[([Source; 2], Factor)]>, [Addends; 2]),
    /// The source is read in the view that this automorphism makes of the operation's.
    Permute {
        from: Source,
        view: ViewId,
        galois: u16,
    },
}

/// Two operations in one: on sources `a` and `b` and a scalar `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Two {
    /// `(a + b) c`
    AddMulScalar,
    /// `(a - b) c`
    SubMulScalar,
    /// `(a b) c`
    MulMulScalar,
    /// `a c + b`
    MulScalarAdd,
    /// `a c - b`
    MulScalarSub,
}

/// What is added to a sum of products, [`MOST_ADDENDS`] at most.
type Addends = Box<[Source]>;

/// Most [`Addends`] of a sum.
const MOST_ADDENDS: usize = 4;

/// The second factor of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factor {
    Words(Source),
    /// The compact plaintext of this load, as it is.
    Runs(u16),
}
