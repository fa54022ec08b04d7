//! Executing one task.

use std::sync::Arc;

use cerium_artifact::Operand;
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::encoding::integers_to_limb;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Shoup;
use cerium_ckks::params::Params;

use super::kernels::{self, BaseConverter};
use super::program::{BoundBlock, Loaded, TILE, TileProgram, TileScratch};
use crate::device::Bindings;
use crate::key_store::KeyStore;
use crate::memory::{Form, Pages, Plaintexts, Pool};
use crate::profile::UsageTables;

/// What a task computes.
#[derive(Debug)]
pub(super) enum Work {
    Elementwise {
        limb: Limb,
        program: Arc<TileProgram>,
    },
    /// The number of the store that is transformed in place.
    Ntt {
        limb: Limb,
        home: usize,
        prologue: Prologue,
        epilogue: Option<Arc<TileProgram>>,
    },
    Intt {
        limb: Limb,
        home: usize,
        prologue: Prologue,
        epilogue: Option<Arc<TileProgram>>,
    },
    BaseConvert {
        converter: Arc<BaseConverter>,
        sources: Box<[Operand]>,
        /// With the programs that make of converted words what is stored.
        targets: Box<[(Limb, Option<Arc<TileProgram>>)]>,
    },
}

/// A block, as [`cerium_artifact::kernel::Block`].
#[derive(Debug)]
pub(super) struct Limb {
    pub(super) prime: PrimeIndex,
    pub(super) loads: Box<[Operand]>,
    /// Which loads are plaintexts, of those that the task reads.
    pub(super) plaintexts: Box<[u16]>,
    pub(super) stores: Box<[Operand]>,
    pub(super) scalars: Box<[Shoup]>,
    pub(super) automorphisms: Box<[Arc<Automorphism>]>,
}

/// Where the words come from that are transformed.
#[derive(Clone, Debug)]
pub(super) enum Prologue {
    /// They are where they are transformed.
    InPlace,
    /// The limb of this load as it is, one of the pool that is not stored over.
    Load(usize),
    /// A program whose results are the stores up to the home of the transform.
    Program(Arc<TileProgram>),
}

/// What tasks work on.
pub(super) struct Memory<'a> {
    pub(super) isa: Isa,
    pub(super) params: &'a Params,
    pub(super) pool: &'a Pool,
    pub(super) plaintexts: &'a Plaintexts,
    pub(super) keys: &'a KeyStore,
    pub(super) bindings: &'a Bindings,
}

/// Words that a limb of `len` words takes which is made of integers. Laid end to end, words at the same place of all would
/// compete for the same few cache sets.
pub(super) fn made_words(len: usize) -> usize {
    len + 17 * 16
}

/// What a thread keeps between tasks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) tiles: TileScratch,
    /// A tile of each target of a conversion.
    pub(super) converted: Pages,
    /// Limbs of plaintexts that are kept as integers.
    pub(super) plaintexts: Pages,
    pub(super) used: UsageTables,
}

/// The operands of a block, bound to memory.
struct Bound<'a> {
    limb: &'a Limb,
    loads: Vec<Loaded>,
    stores: Vec<*mut u32>,
}

impl Bound<'_> {
    /// The block of a program whose results begin at a store.
    fn block<'b>(&'b self, memory: &'b Memory<'_>, input: *const u32, first_store: usize) -> BoundBlock<'b> {
        BoundBlock {
            isa: memory.isa,
            q: memory.params.modulus(self.limb.prime),
            loads: &self.loads,
            input,
            stores: &self.stores[first_store..],
            scalars: &self.limb.scalars,
            automorphisms: &self.limb.automorphisms,
        }
    }
}

impl<'a> Memory<'a> {
    /// A limb of the pool, for reading.
    ///
    /// # Safety
    /// Nobody writes the slot while the slice lives.
    unsafe fn read(&self, operand: Operand) -> &'a [u32] {
        // SAFETY: passed on from the caller.
        unsafe { self.pool.limb(self.bindings.slot(operand)) }
    }

    /// A limb of the pool, for writing.
    ///
    /// # Safety
    /// Nobody else uses the slot while the slice lives.
    unsafe fn write(&self, operand: Operand) -> &'a mut [u32] {
        // SAFETY: passed on from the caller.
        unsafe { self.pool.limb_mut(self.bindings.slot(operand)) }
    }

    /// Binds the operands of a limb. Limbs of plaintexts that are kept as integers are made at the beginning of `free`, which
    /// leaves the rest of it.
    fn bind<'b>(&self, limb: &'b Limb, free: &mut &mut [u32]) -> Bound<'b> {
        let store = |&store: &Operand| self.pool.limb_ptr(self.bindings.slot(store));
        let mut loads: Vec<Loaded> = limb.loads.iter().map(|&load| self.load(load)).collect();
        for &load in &limb.plaintexts {
            let load = usize::from(load);
            loads[load] = self.plaintext(limb.loads[load], limb.prime, free);
        }
        Bound { limb, loads, stores: limb.stores.iter().map(store).collect() }
    }

    /// A limb of a plaintext, made if it has to be.
    fn plaintext(&self, operand: Operand, prime: PrimeIndex, free: &mut &mut [u32]) -> Loaded {
        let Operand::Plain { plaintext, limb } = operand else { unreachable!("{operand:?} is no plaintext") };
        let id = self.bindings.plaintexts[plaintext as usize];
        let words = match self.plaintexts.form(id) {
            Form::Limbs => self.plaintexts.limb(id, usize::from(limb)),
            Form::Integers => {
                let integers = self.plaintexts.integers(id);
                let len = integers.len() / 2;
                let (own, rest) = std::mem::take(free).split_at_mut(made_words(len));
                *free = rest;
                let own = &mut own[..len];
                integers_to_limb(self.params, self.isa, prime, integers, own);
                &*own
            }
        };
        match self.params.log_n() - words.len().trailing_zeros() {
            0 => Loaded::Limb(words.as_ptr()),
            log_run => Loaded::Compact(words.as_ptr(), words.len(), log_run),
        }
    }

    /// A limb that is no plaintext; for plaintexts, what nobody reads.
    fn load(&self, operand: Operand) -> Loaded {
        match operand {
            Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => {
                Loaded::Limb(self.pool.limb_ptr(self.bindings.slot(operand)).cast_const())
            }
            Operand::Plain { .. } => Loaded::Limb(std::ptr::null()),
            Operand::Key { key, digit, half, prime } => {
                let words = self.keys.limb(key as usize, usize::from(digit), half, prime);
                assert_eq!(words.len(), self.params.n(), "a limb of a key has N words");
                Loaded::Limb(words.as_ptr())
            }
        }
    }
}

/// Executes one task.
///
/// # Safety
/// Nobody else writes what the task reads, or uses what it writes. The task belongs to a validated artifact, so that
/// its operands overlap only as [`cerium_artifact::kernel`] allows.
pub(super) unsafe fn execute(work: &Work, memory: &Memory<'_>, scratch: &mut Scratch) {
    let (isa, n) = (memory.isa, memory.params.n());
    let mut free = scratch.plaintexts.words_mut();
    // For all programs below. SAFETY of running them: the pointers are to limbs of N words (`Memory::load`,
    // `Pool::limb_ptr`); exclusive use as the caller says; stores are distinct in a validated artifact, and the program was
    // compiled for this block.
    match work {
        Work::Elementwise { limb, program } => {
            let bound = memory.bind(limb, &mut free);
            let block = bound.block(memory, std::ptr::null(), 0);
            // SAFETY: as said above.
            unsafe { program.run(&block, 0..n, &mut scratch.tiles) }
        }
        Work::Ntt { limb, home, prologue, epilogue } | Work::Intt { limb, home, prologue, epilogue } => {
            let bound = memory.bind(limb, &mut free);
            let from = match prologue {
                Prologue::InPlace => None,
                // SAFETY: nobody writes what is read, as the caller says; the load is no store of the block.
                Prologue::Load(load) => Some(unsafe { bound.loads[*load].words(0, n) }),
                Prologue::Program(program) => {
                    let block = bound.block(memory, std::ptr::null(), 0);
                    // SAFETY: as said above.
                    unsafe { program.run(&block, 0..n, &mut scratch.tiles) }
                    None
                }
            };
            let (table, q) = (memory.params.ntt(limb.prime), memory.params.modulus(limb.prime));
            // SAFETY: exclusive use as the caller says.
            let words = unsafe { memory.write(limb.stores[*home]) };
            match (work, from) {
                (Work::Intt { .. }, Some(from)) => {
                    table.inverse_scaled_from(isa, words, from, limb.scalars[0].w)
                }
                (Work::Intt { .. }, None) => table.inverse_scaled(isa, words, limb.scalars[0].w),
                (_, from) => {
                    if let Some(from) = from {
                        kernels::copy(isa, q, words, from);
                    }
                    table.forward(isa, words);
                }
            }
            if let Some(program) = epilogue {
                let block = bound.block(memory, bound.stores[*home], *home);
                // SAFETY: as said above.
                unsafe { program.run(&block, 0..n, &mut scratch.tiles) }
            }
        }
        Work::BaseConvert { converter, sources, targets } => {
            // SAFETY: nobody writes the sources, as the caller says; stores are none of them.
            let sources: Vec<&[u32]> = sources.iter().map(|&source| unsafe { memory.read(source) }).collect();
            if targets.iter().all(|(_, program)| program.is_none()) {
                let mut targets: Vec<&mut [u32]> =
                    // SAFETY: exclusive use as the caller says; stores are distinct and no sources.
                    targets.iter().map(|(limb, _)| unsafe { memory.write(limb.stores[0]) }).collect();
                kernels::base_convert(isa, converter, &sources, &mut targets);
                return;
            }
            let bound: Vec<Bound<'_>> =
                targets.iter().map(|(limb, _)| memory.bind(limb, &mut free)).collect();
            let tile = TILE.min(n);
            for start in (0..n).step_by(tile) {
                let tiles: Vec<&[u32]> = sources.iter().map(|source| &source[start..][..tile]).collect();
                let converted = &mut scratch.converted.words_mut()[..tile * targets.len()];
                let mut outs: Vec<&mut [u32]> = converted.chunks_exact_mut(tile).collect();
                kernels::base_convert(isa, converter, &tiles, &mut outs);
                for ((bound, (_, program)), words) in bound.iter().zip(targets).zip(outs) {
                    let input = words.as_ptr().wrapping_sub(start);
                    let block = bound.block(memory, input, 0);
                    let program = program.as_ref().expect("all targets have the same epilogue");
                    // SAFETY: as said above; the input is valid in the range that is run.
                    unsafe { program.run(&block, start..start + tile, &mut scratch.tiles) }
                }
            }
        }
    }
}
