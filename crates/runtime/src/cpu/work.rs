//! Executing one task.

use std::sync::Arc;

use cerium_artifact::Operand;
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Shoup;
use cerium_ckks::params::Params;

use super::elementwise::{BoundBlock, Loaded, TileProgram};
use super::kernels::{self, BaseConverter};
use crate::device::Bindings;
use crate::key_store::KeyStore;
use crate::memory::{Plaintexts, Pool};
use crate::profile::UsageTable;

/// What a task computes.
#[derive(Debug)]
pub(super) enum Work {
    Elementwise {
        prime: PrimeIndex,
        program: Arc<TileProgram>,
        loads: Box<[Operand]>,
        stores: Box<[Operand]>,
        scalars: Box<[Shoup]>,
    },
    Ntt {
        prime: PrimeIndex,
        load: Operand,
        store: Operand,
    },
    Intt {
        prime: PrimeIndex,
        load: Operand,
        store: Operand,
        factor: u32,
    },
    BaseConvert {
        converter: Arc<BaseConverter>,
        sources: Box<[Operand]>,
        targets: Box<[Operand]>,
    },
    Permute {
        automorphism: Arc<Automorphism>,
        load: Operand,
        store: Operand,
    },
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

/// What a thread keeps between tasks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) words: Vec<u32>,
    pub(super) used: UsageTable,
}

impl Scratch {
    pub(super) fn new(words: usize, stages: usize) -> Scratch {
        Scratch { words: vec![0; words], used: UsageTable::new(stages) }
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

    fn load(&self, operand: Operand) -> Loaded {
        match operand {
            Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => {
                Loaded::Limb(self.pool.limb_ptr(self.bindings.slot(operand)).cast_const())
            }
            Operand::Plain { plaintext, limb } => {
                let id = self.bindings.plaintexts[plaintext as usize];
                let words = self.plaintexts.limb(id, usize::from(limb));
                match self.params.log_n() - words.len().trailing_zeros() {
                    0 => Loaded::Limb(words.as_ptr()),
                    log_run => Loaded::Compact(words.as_ptr(), words.len(), log_run),
                }
            }
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
pub(super) unsafe fn execute(work: &Work, memory: &Memory<'_>, scratch: &mut [u32]) {
    let isa = memory.isa;
    match work {
        Work::Elementwise { prime, program, loads, stores, scalars } => {
            let loads: Vec<Loaded> = loads.iter().map(|&load| memory.load(load)).collect();
            let stores: Vec<*mut u32> =
                stores.iter().map(|&store| memory.pool.limb_ptr(memory.bindings.slot(store))).collect();
            let q = memory.params.modulus(*prime);
            let block = BoundBlock { isa, q, loads: &loads, stores: &stores, scalars, n: memory.params.n() };
            // SAFETY: the pointers are to limbs of N words (`Memory::load`, `Pool::limb_ptr`); exclusive use as the
            // caller says; stores are distinct in a validated artifact, and the program was compiled for this block.
            unsafe { program.run(&block, scratch) }
        }
        Work::Ntt { prime, load, store } => {
            // SAFETY: exclusive use as the caller says.
            let limb = unsafe { in_place(memory, *load, *store) };
            memory.params.ntt(*prime).forward(isa, limb);
        }
        Work::Intt { prime, load, store, factor } => {
            // SAFETY: exclusive use as the caller says.
            let limb = unsafe { in_place(memory, *load, *store) };
            memory.params.ntt(*prime).inverse_scaled(isa, limb, *factor);
        }
        Work::BaseConvert { converter, sources, targets } => {
            // SAFETY: nobody writes the sources, as the caller says; targets are none of them.
            let sources: Vec<&[u32]> = sources.iter().map(|&source| unsafe { memory.read(source) }).collect();
            let mut targets: Vec<&mut [u32]> =
                // SAFETY: exclusive use as the caller says; targets are distinct and no sources.
                targets.iter().map(|&target| unsafe { memory.write(target) }).collect();
            kernels::base_convert(isa, converter, &sources, &mut targets);
        }
        Work::Permute { automorphism, load, store } => {
            // SAFETY: nobody writes the source, as the caller says, and it is not the destination.
            let (from, to) = unsafe { (memory.read(*load), memory.write(*store)) };
            automorphism.permute(isa, to, 0, from);
        }
    }
}

/// The destination, filled with the source.
///
/// # Safety
/// Nobody else writes the source or uses the destination while the slice lives.
unsafe fn in_place<'a>(memory: &Memory<'a>, load: Operand, store: Operand) -> &'a mut [u32] {
    // SAFETY: as the caller says.
    let to = unsafe { memory.write(store) };
    if load != store {
        // SAFETY: as the caller says; a different operand is a different slot.
        to.copy_from_slice(unsafe { memory.read(load) });
    }
    to
}
