//! Preparing runs: tables looked up, programs compiled, tasks ordered; once, so that launches only execute.

use std::collections::HashMap;
use std::sync::Arc;

use cerium_artifact::cost::kernel_cost;
use cerium_artifact::kernel::{BaseConvertBlock, Block, Body, Instruction, Program, Register, Transform};
use cerium_artifact::{Function, Kernel, Operand, StageId};
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::params::Params;

use super::kernels::BaseConverter;
use super::order::{Access, Tasks};
use super::program::{Compilation, LoadKind, Source, TILE, TileProgram};
use super::work::{Limb, Prologue, Work, made_words};
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
    /// For limbs of plaintexts that are kept as integers, if all are.
    pub(super) plaintexts: usize,
}

impl ScratchWords {
    pub(super) fn max(self, other: ScratchWords) -> ScratchWords {
        ScratchWords {
            tiles: self.tiles.max(other.tiles),
            limbs: self.limbs.max(other.limbs),
            converted: self.converted.max(other.converted),
            plaintexts: self.plaintexts.max(other.plaintexts),
        }
    }

    pub(super) fn bytes(self) -> u64 {
        4 * (self.tiles + self.limbs + self.converted + self.plaintexts) as u64
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
    results: Vec<Register>,
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
                let parts = blocks.first().map_or(Vec::new(), |block| parts(program, block));
                let mut whole = Compiled::new(program);
                let part = |part: &Part| Compiled { results: part.results.clone(), ..Compiled::new(program) };
                let mut compiled: Vec<Compiled<'_>> = parts.iter().map(part).collect();
                let mut works = Vec::new();
                for block in blocks {
                    if !apart(block, &parts) {
                        let program = self.program(function, block, &mut whole, &block.stores, &[]);
                        let limb = self.limb(function, block, 0..block.loads.len());
                        works.push((Work::Elementwise { limb, program }, access(block)));
                        continue;
                    }
                    for (part, compiled) in parts.iter().zip(&mut compiled) {
                        let stores: Vec<Operand> =
                            part.stores.iter().map(|&store| block.stores[store]).collect();
                        let program = self.program(function, block, compiled, &stores, &[]);
                        let reads = part.loads.iter().map(|&load| block.loads[load]).collect();
                        let limb = self.limb(function, block, part.loads.iter().copied());
                        let limb = Limb { stores: stores.clone().into(), ..limb };
                        let access = Access { reads, writes: stores, group: None };
                        works.push((Work::Elementwise { limb, program }, access));
                    }
                }
                works
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
                _ => Prologue::Program(self.program(function, block, &mut before, &block.stores, &[])),
            };
            let input = [block.stores[home]];
            let epilogue =
                (!trivial).then(|| self.program(function, block, &mut after, &block.stores[home..], &input));
            (self.limb(function, block, 0..block.loads.len()), home, prologue, epilogue, access(block))
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
                let program =
                    (!trivial).then(|| self.program(function, target, compiled, &target.stores, &[]));
                (self.limb(function, target, 0..target.loads.len()), program)
            };
            let targets: Box<[_]> = targets.iter().map(target).collect();
            let made = targets.iter().map(|(limb, _)| plaintext_words(function, limb)).sum();
            self.scratch.plaintexts = self.scratch.plaintexts.max(made);
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

    /// The program for a block whose results go to the first of `stores`; `input` is the slot of the words that were
    /// transformed, if there are any in a slot.
    fn program(
        &mut self,
        function: &Function,
        block: &Block,
        compiled: &mut Compiled<'_>,
        stores: &[Operand],
        input: &[Operand],
    ) -> Arc<TileProgram> {
        let loads: Vec<LoadKind> = block.loads.iter().map(|&load| self.kind(function, load)).collect();
        let overwrites = |store: &Operand| -> Vec<Source> {
            let loads = (0..).map(Source::Load).zip(&block.loads);
            let inputs = std::iter::once(Source::Input).zip(input);
            loads.chain(inputs).filter(|(_, operand)| *operand == store).map(|(source, _)| source).collect()
        };
        let stores = &stores[..compiled.results.len()];
        let overwrites: Vec<Vec<Source>> = stores.iter().map(overwrites).collect();
        let Compiled { instructions, results, whole, programs } = compiled;
        let whole = *whole;
        let program = programs.entry((loads, overwrites)).or_insert_with_key(|(loads, overwrites)| {
            Arc::new(TileProgram::compile(&Compilation { instructions, results, loads, overwrites, whole }))
        });
        let (tiles, limbs) = program.scratch_words(self.params.n());
        self.scratch = self.scratch.max(ScratchWords { tiles, limbs, ..ScratchWords::default() });
        Arc::clone(program)
    }

    /// A block of a task that reads some of its loads.
    fn limb(&mut self, function: &Function, block: &Block, reads: impl Iterator<Item = usize>) -> Limb {
        let q = self.params.modulus(block.prime);
        let automorphism = |&element: &u32| {
            let automorphism = self.automorphisms.entry(element);
            Arc::clone(
                automorphism.or_insert_with(|| Arc::new(Automorphism::new(self.params.log_n(), element))),
            )
        };
        let is_plaintext = |load: &usize| matches!(block.loads[*load], Operand::Plain { .. });
        let limb = Limb {
            prime: block.prime,
            loads: block.loads.clone().into(),
            plaintexts: reads.filter(is_plaintext).map(|load| load as u16).collect(),
            stores: block.stores.clone().into(),
            scalars: block.scalars.iter().map(|&scalar| q.shoup(scalar)).collect(),
            automorphisms: block.galois.iter().map(automorphism).collect(),
        };
        self.scratch.plaintexts = self.scratch.plaintexts.max(plaintext_words(function, &limb));
        limb
    }
}

/// Words that the plaintexts of a limb take, if all of them are made of integers.
fn plaintext_words(function: &Function, limb: &Limb) -> usize {
    let words = |&load: &u16| match limb.loads[usize::from(load)] {
        Operand::Plain { plaintext, .. } => {
            made_words(2 << function.plaintexts[plaintext as usize].log_period)
        }
        _ => 0,
    };
    limb.plaintexts.iter().map(words).sum()
}

/// A part of a program that computes nothing that another part needs.
struct Part {
    /// The registers of its results, and the stores that these go to.
    results: Vec<Register>,
    stores: Vec<usize>,
    /// What it loads.
    loads: Vec<usize>,
}

/// The parts of a program. A kernel does side by side what has loads in common, such as a key; one after the other, each with
/// a whole chain of kernels of its own, they leave each other more of the caches.
fn parts(program: &Program, block: &Block) -> Vec<Part> {
    // The part of each register but loads: at first its own; then that of the last register which needs it.
    let count = program.instructions.len();
    let mut parents: Vec<usize> = (0..count).collect();
    fn root(parents: &mut [usize], mut at: usize) -> usize {
        while parents[at] != at {
            parents[at] = parents[parents[at]];
            at = parents[at];
        }
        at
    }
    let load = |register: usize| match program.instructions[register] {
        Instruction::Load(load) => Some(usize::from(load)),
        _ => None,
    };
    // What parts may have in common: keys and plaintexts.
    let constant = |register: usize| {
        load(register)
            .is_some_and(|load| matches!(block.loads[load], Operand::Key { .. } | Operand::Plain { .. }))
    };
    for (at, instruction) in program.instructions.iter().enumerate() {
        instruction.for_registers(|register| {
            if !constant(register.into()) {
                let part = root(&mut parents, register.into());
                parents[part] = at;
            }
        });
    }
    let mut parts: Vec<(usize, Part)> = Vec::new();
    for (store, &result) in program.results.iter().enumerate() {
        let part = root(&mut parents, result.into());
        let known = parts.iter().position(|(root, _)| *root == part).unwrap_or_else(|| {
            parts.push((part, Part { results: Vec::new(), stores: Vec::new(), loads: Vec::new() }));
            parts.len() - 1
        });
        parts[known].1.results.push(result);
        parts[known].1.stores.push(store);
    }
    for (part, Part { results, loads, .. }) in &mut parts {
        loads.extend(results.iter().filter_map(|&result| load(result.into())));
        for (at, instruction) in program.instructions.iter().enumerate() {
            if root(&mut parents, at) == *part {
                instruction.for_registers(|register| loads.extend(load(register.into())));
            }
        }
        loads.sort_unstable();
        loads.dedup();
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

/// Whether no part of a program stores over what another part of the block loads.
fn apart(block: &Block, parts: &[Part]) -> bool {
    let clash = |(at, part): (usize, &Part)| {
        let others = parts.iter().enumerate().filter(|&(other, _)| other != at);
        let mut loads = others.flat_map(|(_, other)| other.loads.iter().map(|&load| block.loads[load]));
        loads.any(|load| part.stores.iter().any(|&store| block.stores[store] == load))
    };
    !parts.iter().enumerate().any(clash)
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
