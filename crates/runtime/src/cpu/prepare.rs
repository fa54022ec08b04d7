//! Preparing runs: tables looked up, programs compiled, tasks ordered; once, so that launches only execute.

use std::collections::HashMap;
use std::sync::Arc;

use cerium_artifact::cost::kernel_cost;
use cerium_artifact::kernel::{BaseConvertBlock, Block, Body, Instruction, Program, Transform};
use cerium_artifact::{Function, Kernel, Operand, StageId};
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::params::Params;

use super::kernels::BaseConverter;
use super::order::{Access, Tasks};
use super::program::{Compilation, LoadKind, Source, TILE, TileProgram};
use super::work::{Limb, Prologue, Work};
use crate::device::Run;
use crate::profile::{KernelClass, UsageTable};

/// Targets that one task converts to. More targets share the reading of the sources; fewer let several threads work on
/// one conversion.
fn convert_targets(threads: usize) -> usize {
    if threads <= 2 { 32 } else { 8 }
}

/// A run, ready to be launched.
pub(super) struct PreparedRun {
    pub(super) tasks: Tasks<Task>,
    pub(super) cost: UsageTable,
    pub(super) scratch: ScratchWords,
}

/// Scratch memory that every thread needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScratchWords {
    /// For tiles of programs.
    pub(super) tiles: usize,
    /// For limbs of programs.
    pub(super) limbs: usize,
    /// For converted words.
    pub(super) converted: usize,
}

impl ScratchWords {
    pub(super) fn max(self, other: ScratchWords) -> ScratchWords {
        ScratchWords {
            tiles: self.tiles.max(other.tiles),
            limbs: self.limbs.max(other.limbs),
            converted: self.converted.max(other.converted),
        }
    }
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
    scratch: ScratchWords,
}

/// The programs compiled from one of a kernel, by what its blocks are like.
struct Compiled<'a> {
    instructions: &'a [Instruction],
    results: Vec<u16>,
    /// Whether it is always run on whole limbs.
    whole: bool,
    programs: HashMap<Likeness, Arc<TileProgram>>,
}

/// What the loads of a block are, and what each of its stores overwrites.
type Likeness = (Vec<LoadKind>, Vec<Vec<Source>>);

impl<'a> Compiled<'a> {
    fn new(program: &'a Program) -> Compiled<'a> {
        let results = program.results.clone();
        Compiled { instructions: &program.instructions, results, whole: true, programs: HashMap::new() }
    }
}

impl<'a> Preparer<'a> {
    pub(super) fn new(params: &'a Params, threads: usize) -> Preparer<'a> {
        Preparer {
            params,
            convert_targets: convert_targets(threads),
            automorphisms: HashMap::new(),
            converters: HashMap::new(),
            scratch: ScratchWords::default(),
        }
    }

    /// Primes that are transformed by: their tables are better made before the first run.
    pub(super) fn transformed(runs: &[Run<'_>]) -> Basis {
        let kernels = runs.iter().flat_map(|run| &run.kernels);
        let blocks = kernels.flat_map(|kernel| match &kernel.body {
            Body::Ntt(transform) | Body::Intt(transform) => transform.blocks.as_slice(),
            Body::Elementwise { .. } | Body::BaseConvert { .. } => &[],
        });
        blocks.map(|block| block.prime).collect()
    }

    /// Prepares a run of a validated function.
    pub(super) fn prepare(&mut self, run: &Run<'_>, stages: usize) -> PreparedRun {
        let mut tasks = Vec::new();
        let mut cost = UsageTable::new(stages);
        self.scratch = ScratchWords::default();
        for (number, kernel) in run.kernels.iter().enumerate() {
            let class = KernelClass::of(&kernel.body);
            *cost.get_mut(kernel.stage, class) +=
                kernel_cost(kernel, run.function, self.params.log_n()).into();
            for (work, mut access) in self.works(run.function, kernel) {
                access.group = match &work {
                    Work::Elementwise { .. } | Work::BaseConvert { .. } => None,
                    Work::Ntt { limb, .. } | Work::Intt { limb, .. } => Some((number as u32, limb.prime)),
                };
                tasks.push((Task { stage: kernel.stage, class, work }, access));
            }
        }
        PreparedRun { tasks: Tasks::new(tasks), cost, scratch: self.scratch }
    }

    fn works(&mut self, function: &Function, kernel: &Kernel) -> Vec<(Work, Access)> {
        match &kernel.body {
            Body::Elementwise { program, blocks } => {
                let mut compiled = Compiled::new(program);
                let work = |block: &Block| {
                    let program = self.program(function, block, &mut compiled, 0, &[]);
                    (Work::Elementwise { limb: self.limb(block), program }, access(block))
                };
                blocks.iter().map(work).collect()
            }
            Body::Ntt(transform) => {
                let works = self.transforms(function, transform).into_iter();
                let work = |(limb, home, prologue, epilogue, access)| {
                    (Work::Ntt { limb, home, prologue, epilogue }, access)
                };
                works.map(work).collect()
            }
            Body::Intt(transform) => {
                let works = self.transforms(function, transform).into_iter();
                let work = |(limb, home, prologue, epilogue, access)| {
                    (Work::Intt { limb, home, prologue, epilogue }, access)
                };
                works.map(work).collect()
            }
            Body::BaseConvert { epilogue, blocks } => {
                let mut compiled = Compiled { whole: false, ..Compiled::new(epilogue) };
                let trivial = *epilogue == Program::input();
                let conversions =
                    blocks.iter().flat_map(|block| self.conversions(function, block, trivial, &mut compiled));
                conversions.collect()
            }
        }
    }

    /// The parts of a transform by block: limb, home, prologue, epilogue and access.
    #[expect(clippy::type_complexity, reason = "only taken apart at once, by the two directions")]
    fn transforms(
        &mut self,
        function: &Function,
        transform: &Transform,
    ) -> Vec<(Limb, usize, Prologue, Option<Arc<TileProgram>>, Access)> {
        let home = transform.home();
        let mut before = Compiled::new(&transform.prologue);
        // What is transformed is stored like a result.
        before.results.push(transform.input);
        let mut after = Compiled::new(&transform.epilogue);
        let trivial = transform.epilogue == Program::input();
        let of_block = |block: &Block| {
            let in_place = |load: usize| block.loads[load] == block.stores[home];
            let apart = |load: usize| {
                self.kind(function, block.loads[load]) == LoadKind::Limb
                    && !block.stores.contains(&block.loads[load])
            };
            let prologue = match plain_load(transform) {
                Some(load) if in_place(load) => Prologue::InPlace,
                Some(load) if apart(load) => Prologue::Load(load),
                _ => Prologue::Program(self.program(function, block, &mut before, 0, &[])),
            };
            let input = [block.stores[home]];
            let epilogue = (!trivial).then(|| self.program(function, block, &mut after, home, &input));
            (self.limb(block), home, prologue, epilogue, access(block))
        };
        transform.blocks.iter().map(of_block).collect()
    }

    fn conversions(
        &mut self,
        function: &Function,
        block: &BaseConvertBlock,
        trivial: bool,
        compiled: &mut Compiled<'_>,
    ) -> Vec<(Work, Access)> {
        let (from, sources): (Vec<PrimeIndex>, Vec<Operand>) = block.sources.iter().copied().unzip();
        let groups = block.targets.len().div_ceil(self.convert_targets);
        let group = block.targets.len().div_ceil(groups);
        let work = |targets: &[Block]| {
            let to: Vec<PrimeIndex> = targets.iter().map(|target| target.prime).collect();
            let converter = self.converters.entry((from.clone(), to)).or_insert_with_key(|(from, to)| {
                let moduli = |primes: &[PrimeIndex]| -> Vec<_> {
                    primes.iter().map(|&prime| *self.params.modulus(prime)).collect()
                };
                Arc::new(BaseConverter::new(&moduli(from), &moduli(to)))
            });
            let converter = Arc::clone(converter);
            let mut access = Access { reads: sources.clone(), writes: Vec::new(), group: None };
            let target = |target: &Block| {
                access.reads.extend(&target.loads);
                access.writes.extend(&target.stores);
                let program = (!trivial).then(|| self.program(function, target, compiled, 0, &[]));
                (self.limb(target), program)
            };
            let targets: Box<[_]> = targets.iter().map(target).collect();
            if !trivial {
                self.scratch.converted = self.scratch.converted.max(targets.len() * TILE);
            }
            (Work::BaseConvert { converter, sources: sources.clone().into(), targets }, access)
        };
        block.targets.chunks(group).map(work).collect()
    }

    fn kind(&self, function: &Function, load: Operand) -> LoadKind {
        match load {
            Operand::Plain { plaintext, .. } => {
                let compact = function.plaintexts[plaintext as usize].log_period + 1 < self.params.log_n();
                if compact { LoadKind::Compact } else { LoadKind::Stored }
            }
            Operand::Key { .. } => LoadKind::Key,
            Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => LoadKind::Limb,
        }
    }

    /// The program for a block whose results go to the stores from `first` on; `input` is the slot of the words that were
    /// transformed, if there are any in a slot.
    fn program(
        &mut self,
        function: &Function,
        block: &Block,
        compiled: &mut Compiled<'_>,
        first: usize,
        input: &[Operand],
    ) -> Arc<TileProgram> {
        let loads: Vec<LoadKind> = block.loads.iter().map(|&load| self.kind(function, load)).collect();
        let overwrites = |store: &Operand| -> Vec<Source> {
            let loads = (0..).map(Source::Load).zip(&block.loads);
            let inputs = std::iter::once(Source::Input).zip(input);
            loads.chain(inputs).filter(|(_, operand)| *operand == store).map(|(source, _)| source).collect()
        };
        let stores = &block.stores[first..][..compiled.results.len()];
        let overwrites: Vec<Vec<Source>> = stores.iter().map(overwrites).collect();
        let Compiled { instructions, results, whole, programs } = compiled;
        let whole = *whole;
        let program = programs.entry((loads, overwrites)).or_insert_with_key(|(loads, overwrites)| {
            Arc::new(TileProgram::compile(&Compilation { instructions, results, loads, overwrites, whole }))
        });
        let (tiles, limbs) = program.scratch_words(self.params.n());
        self.scratch = self.scratch.max(ScratchWords { tiles, limbs, converted: 0 });
        Arc::clone(program)
    }

    fn limb(&mut self, block: &Block) -> Limb {
        let q = self.params.modulus(block.prime);
        let automorphism = |&element: &u32| {
            let automorphism = self.automorphisms.entry(element);
            Arc::clone(
                automorphism.or_insert_with(|| Arc::new(Automorphism::new(self.params.log_n(), element))),
            )
        };
        Limb {
            prime: block.prime,
            loads: block.loads.clone().into(),
            stores: block.stores.clone().into(),
            scalars: block.scalars.iter().map(|&scalar| q.shoup(scalar)).collect(),
            automorphisms: block.galois.iter().map(automorphism).collect(),
        }
    }
}

/// The load of a transform that has no prologue but this.
fn plain_load(transform: &Transform) -> Option<usize> {
    match transform.prologue.instructions[usize::from(transform.input)] {
        Instruction::Load(load) if transform.prologue.results.is_empty() => Some(load.into()),
        _ => None,
    }
}

fn access(block: &Block) -> Access {
    Access { reads: block.loads.clone(), writes: block.stores.clone(), group: None }
}
