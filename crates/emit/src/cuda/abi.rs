//! What emitted functions take, and what a launch of them means: the contract with whoever runs them.
//!
//! # Functions
//!
//! A [`Source`] is a whole translation unit with one function that can be launched:
//!
//! ```c++
//! extern "C" __global__ void ENTRY(const u64* pointers, const u32* constants, const u32* tables);
//! ```
//!
//! All three are device addresses, aligned to 16 bytes.
//!
//! - `pointers`: the resolved [`Launch::pointers`], one 64-bit device address each.
//! - `constants`: a copy of [`Launch::constants`].
//! - `tables`: a copy of [`tables`](super::tables) for the parameter set, the same for all launches.
//!
//! A launch consists of *rows*, mostly one a limb. The pointers of row `r` begin at `pointers[r * P]` and its constants at
//! `constants[r * C]`, where `P` and `C` are the same for all rows of a launch and stand as literals in the text. The row is
//! `blockIdx.y`; `blockIdx.x` walks along the limb. Text depends on the shape of a kernel only (its program, the number and
//! kind of its operands, the degree): primes, slots, scalars and Galois elements are data. It is the same in every run.
//!
//! # Pointers and constants of a block
//!
//! The pointers of a block of the kernel are those of its loads, then those of its stores, then what the class adds. Its
//! constants are ([`BlockShape`] has the positions)
//!
//! ```text
//! q, -q^-1 mod 2^32, 2^64 mod q, index of the prime in the pool   (`struct Prime`)
//! for each scalar s: s, floor(s * 2^32 / q)
//! for each load: base-2 logarithm of the run that each stored word stands for (0 for a whole limb)
//! for each Galois element: itself
//! ```
//!
//! and what the class adds.
//!
//! # Binding
//!
//! A launch names limbs as the artifact does ([`Pointer`]). Where they are is known when a function is activated, and
//! should cost no more than a small table then: the *bindings*, one 64-bit device address each, of whatever the device
//! chooses as bases (the frame, every argument limb, every result limb, every plaintext, every key, scratch). When a program
//! is prepared, the device writes each pointer as a [`code`]: a base and an offset in bytes. The function of
//! [`bind_source`],
//!
//! ```c++
//! extern "C" __global__ void bind(const u64* codes, const u64* bindings, u64* pointers, u32 count);
//! ```
//!
//! launched with [`BIND_THREADS`] threads a block and at least `count` threads in all, makes
//! `pointers[i] = bindings[codes[i] >> 40] + (codes[i] & (2^40 - 1))`. So one captured graph of all launches between two
//! calls serves all activations of a function.
//!
//! # Memory
//!
//! A limb is `N` words of 32 bits and begins at a multiple of 16 bytes; so does a limb of a compact plaintext with at least four
//! words. Limbs of plaintexts and keys are in Montgomery form, all words are canonical. Scratch limbs ([`Pointer::Scratch`])
//! belong to one launch: the device keeps [`Launch::scratch_limbs`] limbs, the most of any launch, and all launches of a
//! stream share them.

use cerium_artifact::kernel::Block;
use cerium_artifact::{Function, Operand};
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;

/// Text of a translation unit, and the function in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name of the function: the class and a hash of the text, so that equal names mean equal text.
    pub entry: String,
    /// CUDA C++ without includes.
    pub text: String,
}

/// A source: index into [`Emitter::sources`](super::Emitter::sources).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// What stands for the name of the function in the text given to [`Source::new`].
pub const ENTRY: &str = "ENTRY";

impl Source {
    /// The source of `body`, in which the function is called [`ENTRY`]. `device/words.cuh` is put before it.
    pub fn new(class: &str, body: &str) -> Source {
        let text = format!("{WORDS}\n{body}");
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let entry = format!("{class}_{}", &hash[..16]);
        Source { text: text.replace(ENTRY, &entry), entry }
    }
}

/// Arithmetic and loads, at the head of every source.
const WORDS: &str = include_str!("device/words.cuh");

/// One launch of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What is launched.
    pub source: SourceId,
    /// Blocks of threads in x and y; y is the number of rows. The z dimension is 1.
    pub grid: [u32; 2],
    /// Threads of a block, in x.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes. Above 48 KiB the device has to raise the function's limit.
    pub shared_bytes: u32,
    /// What the function's `pointers` point to, row by row.
    pub pointers: Vec<Pointer>,
    /// The function's `constants`, row by row.
    pub constants: Vec<u32>,
    /// Scratch limbs that it needs.
    pub scratch_limbs: u32,
}

/// What a pointer of a launch points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pointer {
    /// First word of a limb.
    Limb(Operand),
    /// First word of the scratch limb with this index.
    Scratch(u32),
}

/// Bits of a [`code`] that hold the offset.
pub const OFFSET_BITS: u32 = 40;

/// The code of a pointer for `bind`: `offset` bytes behind the address in `bindings[base]`.
///
/// # Panics
/// Unless `base` is below 2^24 and `offset` below 2^40.
pub fn code(base: usize, offset: u64) -> u64 {
    assert!(base >> (64 - OFFSET_BITS) == 0, "{base} bases: `bind` can tell 2^24 apart");
    assert!(offset >> OFFSET_BITS == 0, "an offset of {offset} bytes: `bind` can add 2^40");
    (base as u64) << OFFSET_BITS | offset
}

/// Threads of a block of `bind`.
pub const BIND_THREADS: u32 = 256;

/// The source of `bind`, which turns codes and bindings into pointers; its entry is `bind`.
pub fn bind_source() -> Source {
    Source { entry: "bind".to_string(), text: include_str!("device/bind.cuh").to_string() }
}

/// How a load finds its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadKind {
    /// A whole limb.
    Limb,
    /// A limb of an evaluation key, which is read once by the kernel and long not again.
    Key,
    /// Each stored word stands for an aligned run of at least [`RUN`] equal words.
    Runs,
    /// Each stored word stands for an aligned run of equal words, of any length down to one.
    ShortRuns,
}

/// Words of the shortest run of [`LoadKind::Runs`].
pub const RUN: u32 = 8;

/// What the blocks of a kernel have in common: all that the text of a program depends on besides the program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockShape {
    /// The loads.
    pub loads: Vec<LoadKind>,
    /// Number of stores.
    pub stores: usize,
    /// Number of scalars.
    pub scalars: usize,
    /// Number of Galois elements.
    pub galois: usize,
    /// Pairs of a load and a store which are one slot in some block, sorted: a word is loaded before it is stored.
    pub shared: Vec<(u16, u16)>,
}

impl BlockShape {
    /// Words before the scalars.
    pub const HEAD: usize = 4;

    /// The shape of the blocks of a kernel, of which there is at least one.
    ///
    /// # Panics
    /// When blocks have different numbers of operands, or there is none: the kernel was not validated.
    pub fn of<'a>(
        params: &Params,
        function: &Function,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> BlockShape {
        let mut blocks = blocks.into_iter();
        let one = |block: &Block| {
            let kind = |load: &Operand| match log_run(params, function, *load) {
                0 if matches!(load, Operand::Key { .. }) => LoadKind::Key,
                0 => LoadKind::Limb,
                log_run if 1 << log_run >= RUN => LoadKind::Runs,
                _ => LoadKind::ShortRuns,
            };
            let mut shared = Vec::new();
            for (l, load) in block.loads.iter().enumerate() {
                let stores = block.stores.iter().enumerate().filter(|(_, store)| *store == load);
                shared.extend(stores.map(|(s, _)| (l as u16, s as u16)));
            }
            BlockShape {
                loads: block.loads.iter().map(kind).collect(),
                stores: block.stores.len(),
                scalars: block.scalars.len(),
                galois: block.galois.len(),
                shared,
            }
        };
        let mut shape = one(blocks.next().expect("a validated kernel has blocks"));
        for block in blocks {
            let other = one(block);
            assert!(
                shape.loads.len() == other.loads.len()
                    && (shape.stores, shape.scalars, shape.galois)
                        == (other.stores, other.scalars, other.galois),
                "the blocks of a validated kernel have the same shape"
            );
            for (kind, other) in shape.loads.iter_mut().zip(other.loads) {
                if *kind != other {
                    let whole = |kind| matches!(kind, LoadKind::Limb | LoadKind::Key);
                    let both_whole = whole(*kind) && whole(other);
                    *kind = if both_whole { LoadKind::Limb } else { LoadKind::ShortRuns };
                }
            }
            shape.shared.extend(other.shared);
        }
        shape.shared.sort_unstable();
        shape.shared.dedup();
        shape
    }

    /// Number of pointers.
    pub fn pointers(&self) -> usize {
        self.loads.len() + self.stores
    }

    /// Position of a load among the pointers.
    pub fn load(&self, load: u16) -> usize {
        usize::from(load)
    }

    /// Position of a store among the pointers.
    pub fn store(&self, store: usize) -> usize {
        self.loads.len() + store
    }

    /// Number of constants.
    pub fn constants(&self) -> usize {
        self.galois(0) + self.galois
    }

    /// Position of a scalar among the constants; its quotient follows.
    pub fn scalar(&self, scalar: u16) -> usize {
        Self::HEAD + 2 * usize::from(scalar)
    }

    /// Position among the constants of the logarithm of a load's run.
    pub fn log_run(&self, load: u16) -> usize {
        Self::HEAD + 2 * self.scalars + usize::from(load)
    }

    /// Position of a Galois element among the constants.
    pub fn galois(&self, galois: u16) -> usize {
        Self::HEAD + 2 * self.scalars + self.loads.len() + usize::from(galois)
    }

    /// Appends the pointers of a block of this shape.
    pub fn push_pointers(&self, block: &Block, pointers: &mut Vec<Pointer>) {
        pointers.extend(block.loads.iter().chain(&block.stores).copied().map(Pointer::Limb));
    }

    /// Appends the constants of a block of this shape.
    pub fn push_constants(
        &self,
        params: &Params,
        function: &Function,
        block: &Block,
        constants: &mut Vec<u32>,
    ) {
        let q = params.modulus(block.prime);
        constants.extend(head(params, block.prime));
        for &scalar in &block.scalars {
            let factor = q.shoup(scalar);
            constants.extend([factor.w, factor.w_shoup]);
        }
        constants.extend(block.loads.iter().map(|&load| log_run(params, function, load)));
        constants.extend(&block.galois);
    }
}

/// The constants of a prime: `q, -q^-1 mod 2^32, 2^64 mod q, index in the pool`; `struct Prime` on the device.
pub fn head(params: &Params, prime: PrimeIndex) -> [u32; BlockShape::HEAD] {
    let q = params.modulus(prime);
    [q.value(), q.inverse_mod_word().wrapping_neg(), q.to_mont(q.montgomery_one()), u32::from(prime.0)]
}

/// Base-2 logarithm of the number of equal words that each stored word of an operand stands for.
pub fn log_run(params: &Params, function: &Function, operand: Operand) -> u32 {
    match operand {
        Operand::Plain { plaintext, .. } => {
            params.log_n() - 1 - function.plaintexts[plaintext as usize].log_period
        }
        Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) | Operand::Key { .. } => 0,
    }
}
