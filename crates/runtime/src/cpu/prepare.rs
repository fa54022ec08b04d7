//! Preparing runs: tables looked up, programs compiled, tasks ordered; once, so that launches only execute.

use std::collections::HashMap;
use std::sync::Arc;

use cerium_artifact::kernel::{BaseConvertBlock, Body, ElementwiseBlock, PermuteBlock, TransformBlock};
use cerium_artifact::{Function, Kernel, Operand, StageId};
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::params::Params;

use super::elementwise::{LoadKind, TileProgram};
use super::kernels::BaseConverter;
use super::order::{Access, Tasks};
use super::work::Work;
use crate::cost::kernel_cost;
use crate::device::Run;
use crate::profile::{KernelClass, UsageTable};

/// Targets that one task converts to. More targets share the reading of the sources; fewer let several threads work on
/// one conversion.
fn convert_targets(threads: usize) -> usize {
    if threads == 1 { 16 } else { 8 }
}

/// A run, ready to be launched.
pub(super) struct PreparedRun {
    pub(super) tasks: Tasks<Task>,
    pub(super) cost: UsageTable,
    /// Scratch that every thread needs.
    pub(super) scratch_words: usize,
}

/// One task: a block, or a part of one.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) stage: StageId,
    pub(super) class: KernelClass,
    pub(super) work: Work,
}

/// Prepares runs; what several of them need is made once.
pub(super) struct Preparer<'a> {
    params: &'a Params,
    convert_targets: usize,
    automorphisms: HashMap<u32, Arc<Automorphism>>,
    converters: HashMap<(Vec<PrimeIndex>, Vec<PrimeIndex>), Arc<BaseConverter>>,
}

impl<'a> Preparer<'a> {
    pub(super) fn new(params: &'a Params, threads: usize) -> Preparer<'a> {
        Preparer {
            params,
            convert_targets: convert_targets(threads),
            automorphisms: HashMap::new(),
            converters: HashMap::new(),
        }
    }

    /// Primes that are transformed by: their tables are better made before the first run.
    pub(super) fn transformed(runs: &[Run<'_>]) -> Basis {
        let kernels = runs.iter().flat_map(|run| &run.kernels);
        let blocks = kernels.flat_map(|kernel| match &kernel.body {
            Body::Ntt { blocks } | Body::Intt { blocks } => blocks.as_slice(),
            _ => &[],
        });
        blocks.map(|block| block.prime).collect()
    }

    /// Prepares a run of a validated function.
    pub(super) fn prepare(&mut self, run: &Run<'_>, stages: usize) -> PreparedRun {
        let mut tasks = Vec::new();
        let mut cost = UsageTable::new(stages);
        let mut scratch_words = 0;
        for kernel in &run.kernels {
            let class = KernelClass::of(&kernel.body);
            *cost.get_mut(kernel.stage, class) += kernel_cost(kernel, run.function, self.params.log_n());
            for (work, access) in self.works(run.function, kernel, &mut scratch_words) {
                tasks.push((Task { stage: kernel.stage, class, work }, access));
            }
        }
        PreparedRun { tasks: Tasks::new(tasks), cost, scratch_words }
    }

    fn works(
        &mut self,
        function: &Function,
        kernel: &Kernel,
        scratch_words: &mut usize,
    ) -> Vec<(Work, Access)> {
        match &kernel.body {
            Body::Elementwise { program, results, blocks } => {
                let mut compiled: HashMap<(Vec<LoadKind>, bool), Arc<TileProgram>> = HashMap::new();
                let work = |block: &ElementwiseBlock| {
                    let kind = |load: &Operand| match load {
                        Operand::Plain { plaintext, .. }
                            if function.plaintexts[*plaintext as usize].log_period + 1
                                < self.params.log_n() =>
                        {
                            LoadKind::Compact
                        }
                        _ => LoadKind::Limb,
                    };
                    let kinds: Vec<LoadKind> = block.loads.iter().map(kind).collect();
                    let direct = !block.stores.iter().any(|store| block.loads.contains(store));
                    let program = compiled.entry((kinds, direct)).or_insert_with_key(|(kinds, direct)| {
                        Arc::new(TileProgram::compile(program, results, kinds, *direct))
                    });
                    *scratch_words = program.scratch_words().max(*scratch_words);
                    let q = self.params.modulus(block.prime);
                    let work = Work::Elementwise {
                        prime: block.prime,
                        program: Arc::clone(program),
                        loads: block.loads.clone().into(),
                        stores: block.stores.clone().into(),
                        scalars: block.scalars.iter().map(|&scalar| q.shoup(scalar)).collect(),
                    };
                    (work, Access { reads: block.loads.clone(), writes: block.stores.clone() })
                };
                blocks.iter().map(work).collect()
            }
            Body::Ntt { blocks } => {
                let work = |b: &TransformBlock| Work::Ntt { prime: b.prime, load: b.load, store: b.store };
                blocks.iter().map(|b| (work(b), one_to_one(b.load, b.store))).collect()
            }
            Body::Intt { blocks } => {
                let work = |b: &TransformBlock| {
                    let &TransformBlock { prime, load, store, factor } = b;
                    Work::Intt { prime, load, store, factor }
                };
                blocks.iter().map(|b| (work(b), one_to_one(b.load, b.store))).collect()
            }
            Body::BaseConvert { blocks } => blocks.iter().flat_map(|block| self.conversions(block)).collect(),
            Body::Permute { blocks } => {
                let log_n = self.params.log_n();
                let mut work = |b: &PermuteBlock| {
                    let automorphism = self.automorphisms.entry(b.galois);
                    let automorphism =
                        automorphism.or_insert_with(|| Arc::new(Automorphism::new(log_n, b.galois)));
                    Work::Permute { automorphism: Arc::clone(automorphism), load: b.load, store: b.store }
                };
                blocks.iter().map(|b| (work(b), one_to_one(b.load, b.store))).collect()
            }
        }
    }

    fn conversions(&mut self, block: &BaseConvertBlock) -> Vec<(Work, Access)> {
        let (from, sources): (Vec<PrimeIndex>, Vec<Operand>) = block.sources.iter().copied().unzip();
        let groups = block.targets.len().div_ceil(self.convert_targets);
        let group = block.targets.len().div_ceil(groups);
        let work = |targets: &[(PrimeIndex, Operand)]| {
            let (to, targets): (Vec<PrimeIndex>, Vec<Operand>) = targets.iter().copied().unzip();
            let converter = self.converters.entry((from.clone(), to)).or_insert_with_key(|(from, to)| {
                let moduli = |primes: &[PrimeIndex]| -> Vec<_> {
                    primes.iter().map(|&prime| *self.params.modulus(prime)).collect()
                };
                Arc::new(BaseConverter::new(&moduli(from), &moduli(to)))
            });
            let access = Access { reads: sources.clone(), writes: targets.clone() };
            let converter = Arc::clone(converter);
            let work =
                Work::BaseConvert { converter, sources: sources.clone().into(), targets: targets.into() };
            (work, access)
        };
        block.targets.chunks(group).map(work).collect()
    }
}

fn one_to_one(load: Operand, store: Operand) -> Access {
    Access { reads: vec![load], writes: vec![store] }
}
