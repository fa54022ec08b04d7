//! From instructions to operations on tiles.

use std::collections::{HashMap, HashSet};

use cerium_artifact::kernel::{Instruction, Register};

use super::{Action, Factor, Fetch, LoadKind, Operation, Source, TILE, Target, TileProgram, View, ViewId};

/// Tiles that are asked for before they are needed, 16 KiB. It is a guess: no distance made whole bootstraps measurably faster.
const TILES_AHEAD: usize = 8;

/// A program and what its blocks are like.
pub(in super::super) struct Compilation<'a> {
    /// A validated program.
    pub(in super::super) instructions: &'a [Instruction],
    /// The register of each store.
    pub(in super::super) results: &'a [Register],
    /// What each load is.
    pub(in super::super) loads: &'a [LoadKind],
    /// For each store the loads, or the input, whose words it overwrites.
    pub(in super::super) overwrites: &'a [Vec<Source>],
}

/// A register in a view: what one operation computes.
type Value = (Register, ViewId);

/// What is computed together, in the order of computing.
#[derive(Clone, Debug)]
enum Step {
    One(Value),
    /// Two dot products, with the terms of both in which the second factor is common.
    Pair([Value; 2], Vec<([Register; 2], Register)>),
}

impl TileProgram {
    /// Compiles a program.
    pub(in super::super) fn compile(compilation: &Compilation<'_>) -> TileProgram {
        let (views, values) = compilation.values();
        let steps = compilation.steps(&values, &views);
        let mut emission = Emission::new(compilation, &views, &steps);
        for (at, step) in steps.iter().enumerate() {
            emission.step(at, step);
        }
        emission.stores();
        let Emission { mut operations, scratch, .. } = emission;
        let fetches = fetches(&mut operations, compilation);
        TileProgram { operations, views, fetches, scratch: scratch.count.into() }
    }

    /// Words of scratch memory that [`TileProgram::run`] needs.
    pub(in super::super) fn scratch_words(&self) -> usize {
        self.scratch * TILE
    }

    /// Whether the program looks at other tiles than those where the results are.
    pub(in super::super) fn moves(&self) -> bool {
        !self.views.is_empty()
    }
}

impl Compilation<'_> {
    fn instruction(&self, register: Register) -> &Instruction {
        &self.instructions[usize::from(register)]
    }

    /// The views, and the registers in all views in which the results need them: loads, then the others in the order of the
    /// program.
    fn values(&self) -> (Vec<View>, Vec<Value>) {
        let mut views: Vec<View> = Vec::new();
        let mut needed: Vec<Vec<ViewId>> = vec![Vec::new(); self.instructions.len()];
        self.results.iter().for_each(|&register| needed[usize::from(register)].push(0));
        for (index, instruction) in self.instructions.iter().enumerate().rev() {
            needed[index].sort_unstable();
            needed[index].dedup();
            for of in needed[index].clone() {
                let view = match *instruction {
                    Instruction::Permute(_, galois) => {
                        let view = View { of, galois };
                        let known = views.iter().position(|&known| known == view);
                        let id = known.unwrap_or_else(|| {
                            views.push(view);
                            views.len() - 1
                        });
                        ViewId::try_from(id + 1).expect("a program has at most 2^16 views")
                    }
                    _ => of,
                };
                instruction.for_registers(|register| needed[usize::from(register)].push(view));
            }
        }
        let values = needed.iter().enumerate();
        let mut values: Vec<Value> = values
            .flat_map(|(index, views)| views.iter().map(move |&view| (index as Register, view)))
            .collect();
        // Loads are there from the beginning.
        values.sort_by_key(|&(register, _)| !matches!(self.instruction(register), Instruction::Load(_)));
        (views, values)
    }

    /// The load of a register that is a compact plaintext.
    fn compact(&self, register: Register) -> Option<u16> {
        match *self.instruction(register) {
            Instruction::Load(load) if self.loads[usize::from(load)] == LoadKind::Compact => Some(load),
            _ => None,
        }
    }

    /// Whether a register comes from memory rather than cache.
    fn stored(&self, register: Register) -> bool {
        let limb = |load: &u16| self.loads[usize::from(*load)] == LoadKind::Limb;
        matches!(self.instruction(register), Instruction::Load(load) if !limb(load))
    }

    /// The factors of a product, a compact plaintext second.
    fn factors(&self, a: Register, b: Register) -> (Register, Register) {
        if self.compact(b).is_none() && self.compact(a).is_some() { (b, a) } else { (a, b) }
    }

    /// What is computed together, in order. Two dot products that have a factor of each term in common become one pass, if one
    /// can wait for the other or be computed as early; factors from memory in common are preferred.
    fn steps(&self, values: &[Value], views: &[View]) -> Vec<Step> {
        // Where values are computed, and where they are read first; both change as pairs are made.
        let mut place: HashMap<Value, usize> =
            values.iter().enumerate().map(|(at, &value)| (value, at)).collect();
        let mut first_use: HashMap<Value, usize> = HashMap::new();
        for (at, &value) in values.iter().enumerate().rev() {
            self.for_operands(value, views, |operand| _ = first_use.insert(operand, at));
        }
        let mut joined = vec![false; values.len()];
        let mut pairs: HashMap<usize, Step> = HashMap::new();
        for (at, &value) in values.iter().enumerate() {
            let Instruction::Dot(terms) = self.instruction(value.0) else { continue };
            let mut best: Option<(usize, usize, Vec<_>)> = None;
            for (later, &other) in values.iter().enumerate().skip(at + 1) {
                let Instruction::Dot(others) = self.instruction(other.0) else { continue };
                if joined[at] || joined[later] || other.1 != value.1 {
                    continue;
                }
                let waits = first_use.get(&value).is_none_or(|&first| first > later);
                let ready = |register: &Register| place[&(*register, other.1)] < at;
                if !waits && !others.iter().all(|(a, b)| ready(a) && ready(b)) {
                    continue;
                }
                let Some(terms) = self.common(terms, others) else { continue };
                let stored = terms.iter().filter(|&&(_, common)| self.stored(common)).count();
                if best.as_ref().is_none_or(|&(_, most, _)| stored > most) {
                    best = Some((later, stored, terms));
                }
            }
            let Some((later, _, terms)) = best else { continue };
            let other = values[later];
            (joined[at], joined[later]) = (true, true);
            let waits = first_use.get(&value).is_none_or(|&first| first > later);
            let together = if waits { later } else { at };
            place.extend([(value, together), (other, together)]);
            self.for_operands(other, views, |operand| {
                let first = first_use.entry(operand).or_insert(together);
                *first = together.min(*first);
            });
            pairs.insert(together, Step::Pair([value, other], terms));
        }
        let step = |(at, &value)| match pairs.remove(&at) {
            Some(pair) => Some(pair),
            None => (!joined[at]).then_some(Step::One(value)),
        };
        values.iter().enumerate().filter_map(step).collect()
    }

    /// Calls `visit` with every value that the computation of one reads.
    fn for_operands(&self, (register, view): Value, views: &[View], mut visit: impl FnMut(Value)) {
        let instruction = self.instruction(register);
        let inner = match *instruction {
            Instruction::Permute(_, galois) => {
                let inner = views.iter().position(|&known| known == View { of: view, galois });
                inner.expect("the view of a needed value is known") as ViewId + 1
            }
            _ => view,
        };
        instruction.for_registers(|register| visit((register, inner)));
    }

    /// The terms of two dot products, matched so that each two have a factor in common; `None` if there is no such match, or
    /// a compact plaintext would be in the way.
    fn common(
        &self,
        pairs: &[(Register, Register)],
        others: &[(Register, Register)],
    ) -> Option<Vec<([Register; 2], Register)>> {
        if pairs.len() != others.len() {
            return None;
        }
        let mut free: Vec<&(Register, Register)> = others.iter().collect();
        let mut terms = Vec::with_capacity(pairs.len());
        for &(a, b) in pairs {
            let choices = |&(c, d): &(Register, Register)| {
                [(b == d, [a, c], b), (b == c, [a, d], b), (a == d, [b, c], a), (a == c, [b, d], a)]
            };
            let usable = |other: &(Register, Register)| {
                let own = |own: &[Register; 2]| own.iter().all(|&own| self.compact(own).is_none());
                choices(other).into_iter().find(|(equal, two, _)| *equal && own(two))
            };
            let (at, (_, two, common)) =
                free.iter().enumerate().find_map(|(at, o)| Some((at, usable(o)?)))?;
            free.remove(at);
            terms.push((two, common));
        }
        Some(terms)
    }
}

/// Free scratch tiles.
#[derive(Default)]
struct Scratch {
    free: Vec<u16>,
    count: u16,
}

impl Scratch {
    fn take(&mut self) -> u16 {
        self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        })
    }
}

/// Operations being made.
struct Emission<'a> {
    compilation: &'a Compilation<'a>,
    /// Compact plaintexts that are needed word by word.
    unfolded: HashSet<Value>,
    /// The last step that reads a value; the number of steps if a store is copied from it at the end.
    last_use: HashMap<Value, usize>,
    /// The view that each permutation reads.
    views: HashMap<View, ViewId>,
    sources: HashMap<Value, Source>,
    scratch: Scratch,
    operations: Vec<Operation>,
}

impl<'a> Emission<'a> {
    fn new(compilation: &'a Compilation<'a>, views: &[View], steps: &[Step]) -> Emission<'a> {
        let views = views.iter().enumerate().map(|(at, &view)| (view, at as ViewId + 1)).collect();
        let mut emission = Emission {
            compilation,
            unfolded: HashSet::new(),
            last_use: HashMap::new(),
            views,
            sources: HashMap::new(),
            scratch: Scratch::default(),
            operations: Vec::new(),
        };
        for (at, step) in steps.iter().enumerate() {
            for (value, factor) in emission.reads(step) {
                if compilation.compact(value.0).is_some() && !factor {
                    emission.unfolded.insert(value);
                }
                emission.last_use.insert(value, at);
            }
        }
        for &register in compilation.results {
            if compilation.compact(register).is_some() {
                emission.unfolded.insert((register, 0));
            }
            // A store that waits until the end is copied from it.
            emission.last_use.insert((register, 0), steps.len());
        }
        emission
    }

    /// The values that a step reads, and whether as the second factor of a product.
    fn reads(&self, step: &Step) -> Vec<(Value, bool)> {
        let compilation = self.compilation;
        let mut reads = Vec::new();
        match step {
            Step::Pair([(_, view), _], terms) => {
                for &([a, b], common) in terms {
                    reads.extend([((a, *view), false), ((b, *view), false), ((common, *view), true)]);
                }
            }
            &Step::One((register, view)) => {
                let mut product = |a, b| {
                    let (a, b) = compilation.factors(a, b);
                    reads.extend([((a, view), false), ((b, view), true)]);
                };
                match compilation.instruction(register) {
                    Instruction::MontMul(a, b) => product(*a, *b),
                    Instruction::Dot(pairs) => pairs.iter().for_each(|&(a, b)| product(a, b)),
                    &Instruction::Permute(a, galois) => {
                        reads.push(((a, self.views[&View { of: view, galois }]), false));
                    }
                    other => other.for_registers(|a| reads.push(((a, view), false))),
                }
            }
        }
        reads
    }

    /// Whether a result may be stored when it is computed, by step `at`: nothing that it overwrites is read by this step or
    /// later.
    fn direct(&self, store: usize, at: usize) -> bool {
        let compilation = self.compilation;
        compilation.overwrites[store].iter().all(|&overwritten| {
            let of = |instruction: &Instruction| match instruction {
                Instruction::Load(load) => overwritten == Source::Load(*load),
                Instruction::Input => overwritten == Source::Input,
                _ => false,
            };
            let registers = (0..).zip(compilation.instructions).filter(|(_, instruction)| of(instruction));
            // What is overwritten is read in the first view only.
            registers
                .map(|(register, _)| (register, 0))
                .all(|value: Value| self.last_use.get(&value).is_none_or(|&last| last < at))
        })
    }

    fn target(&mut self, value: Value, at: usize) -> (Target, Source) {
        let stores = self.compilation.results.iter().enumerate();
        let mut stores = stores.filter(|&(_, &result)| (result, 0) == value);
        match stores.find(|&(store, _)| self.direct(store, at)) {
            Some((store, _)) => (Target::Store(store as u16), Source::Store(store as u16)),
            None => {
                let tile = self.scratch.take();
                (Target::Scratch(tile), Source::Scratch(tile))
            }
        }
    }

    fn push(&mut self, target: Target, view: ViewId, action: Action) {
        self.operations.push(Operation { target, view, action, fetches: 0..0 });
    }

    fn factor(&self, (register, view): Value) -> Factor {
        match self.compilation.compact(register) {
            Some(load) => Factor::Runs(load),
            None => Factor::Words(self.sources[&(register, view)]),
        }
    }

    fn step(&mut self, at: usize, step: &Step) {
        match step {
            Step::Pair([first, second], terms) => {
                let view = first.1;
                let words = |register: Register| self.sources[&(register, view)];
                let terms =
                    terms.iter().map(|&([a, b], common)| ([words(a), words(b)], self.factor((common, view))));
                let terms = terms.collect();
                let (target, source) = self.target(*first, at);
                let (other, other_source) = self.target(*second, at);
                self.push(target, view, Action::DotPair(other, terms));
                self.sources.extend([(*first, source), (*second, other_source)]);
                self.free(at, step, &[*first, *second]);
            }
            &Step::One(value) => {
                match self.action(value) {
                    Ok(source) => {
                        self.sources.insert(value, source);
                    }
                    Err(action) => {
                        let (target, source) = self.target(value, at);
                        self.push(target, value.1, action);
                        self.sources.insert(value, source);
                    }
                }
                self.free(at, step, &[value]);
            }
        }
    }

    /// What computes a value, or where it is already.
    fn action(&self, (register, view): Value) -> Result<Source, Action> {
        let compilation = self.compilation;
        let at = |register: &Register| self.sources[&(*register, view)];
        let product = |a: &Register, b: &Register| {
            let (a, b) = compilation.factors(*a, *b);
            (at(&a), self.factor((b, view)))
        };
        Err(match compilation.instruction(register) {
            Instruction::Load(load) if self.unfolded.contains(&(register, view)) => Action::Expand(*load),
            Instruction::Load(load) => return Ok(Source::Load(*load)),
            Instruction::Input => return Ok(Source::Input),
            Instruction::Add(a, b) => Action::Add(at(a), at(b)),
            Instruction::Sub(a, b) => Action::Sub(at(a), at(b)),
            Instruction::Neg(a) => Action::Neg(at(a)),
            Instruction::Mul(a, b) => Action::Mul(at(a), at(b)),
            Instruction::MontMul(a, b) => match product(a, b) {
                (a, Factor::Words(b)) => Action::MontMul(a, b),
                term => Action::Dot(Box::new([term])),
            },
            Instruction::MulScalar(a, c) => Action::MulScalar(at(a), *c),
            Instruction::AddScalar(a, c) => Action::AddScalar(at(a), *c),
            Instruction::Dot(pairs) => Action::Dot(pairs.iter().map(|(a, b)| product(a, b)).collect()),
            &Instruction::Permute(a, galois) => {
                let view = self.views[&View { of: view, galois }];
                Action::Permute { from: self.sources[&(a, view)], view, galois }
            }
        })
    }

    /// Frees the scratch tiles of what a step reads or makes and no later one reads. After its targets were taken: an
    /// operation never writes what it reads.
    fn free(&mut self, at: usize, step: &Step, made: &[Value]) {
        let mut done: Vec<Value> = self.reads(step).into_iter().map(|(value, _)| value).collect();
        done.retain(|value| self.last_use[value] == at);
        // Made for nothing: the second of a pair is needed, and so is every value.
        debug_assert!(made.iter().all(|value| self.last_use.contains_key(value)), "a value is not used");
        done.sort_unstable();
        done.dedup();
        for value in done {
            if let Source::Scratch(tile) = self.sources[&value] {
                self.scratch.free.push(tile);
            }
        }
    }

    /// Copies of results that could not be stored directly.
    fn stores(&mut self) {
        let compilation = self.compilation;
        let results = || compilation.results.iter().enumerate();
        let pending: Vec<(usize, Source)> = results()
            .map(|(store, &register)| (store, self.sources[&(register, 0)]))
            // It stays where it is.
            .filter(|&(store, source)| source != Source::Store(store as u16))
            .filter(|&(store, source)| !compilation.overwrites[store].contains(&source))
            .collect();
        // What another store overwrites is saved first.
        let endangered = |store: usize, source: Source| {
            let mut others = compilation.overwrites.iter().enumerate();
            others.any(|(other, overwritten)| other != store && overwritten.contains(&source))
        };
        let saved: Vec<(usize, Source)> = pending
            .into_iter()
            .map(|(store, source)| {
                if !endangered(store, source) {
                    return (store, source);
                }
                let tile = self.scratch.take();
                self.push(Target::Scratch(tile), 0, Action::Copy(source));
                (store, Source::Scratch(tile))
            })
            .collect();
        for (store, source) in saved {
            self.push(Target::Store(store as u16), 0, Action::Copy(source));
        }
    }
}

/// Lets each operation fetch what is needed soon after it, as far as the processor would not do so by itself: it follows
/// neither many streams nor tiles out of order, and begins anew with every page of memory. That this saves time in a whole
/// program was not measured; reads of short stretches of many limbs remain slower than memory can be.
fn fetches(operations: &mut [Operation], compilation: &Compilation<'_>) -> Vec<Fetch> {
    let mut needed: Vec<(u16, ViewId)> = Vec::new();
    // Where the needs of each operation end.
    let mut ends = Vec::with_capacity(operations.len());
    let mut later: Vec<Vec<Source>> = Vec::with_capacity(operations.len());
    let mut seen: HashSet<Source> = HashSet::new();
    for operation in &*operations {
        let mut own = Vec::new();
        operation.action.for_sources(operation.view, &mut |source, view| {
            let Source::Load(load) = *source else { return };
            if view == 0 && compilation.loads[usize::from(load)] == LoadKind::Limb {
                own.extend(seen.insert(*source).then_some(*source));
            } else if !needed.contains(&(load, view)) {
                needed.push((load, view));
            }
        });
        operation.for_targets(|target| {
            // What was transformed is in cache.
            if let Target::Store(store) = target
                && !compilation.overwrites[usize::from(store)].contains(&Source::Input)
            {
                own.push(Source::Store(store));
            }
        });
        ends.push(needed.len());
        later.push(own);
    }
    let ahead = TILES_AHEAD.min(needed.len());
    let mut fetches = Vec::new();
    let mut start = 0;
    for ((operation, end), later) in operations.iter_mut().zip(ends).zip(later) {
        let first = fetches.len();
        fetches.extend((start + ahead..end + ahead).map(|at| {
            let (load, view) = needed[at % needed.len()];
            Fetch::Load { load, view, next: at >= needed.len() }
        }));
        fetches.extend(later.into_iter().map(Fetch::Later));
        operation.fetches = first..fetches.len();
        start = end;
    }
    fetches
}

impl Operation {
    /// Calls `visit` with every target.
    fn for_targets(&self, mut visit: impl FnMut(Target)) {
        visit(self.target);
        if let Action::DotPair(other, _) = self.action {
            visit(other);
        }
    }
}

impl Action {
    /// Calls `visit` with every source, and the view in which an operation in `view` reads it.
    fn for_sources(&self, view: ViewId, visit: &mut impl FnMut(&Source, ViewId)) {
        match self {
            Action::Expand(_) => {}
            Action::Copy(a) | Action::Neg(a) | Action::MulScalar(a, _) | Action::AddScalar(a, _) => {
                visit(a, view)
            }
            Action::Permute { from, view, .. } => visit(from, *view),
            Action::Add(a, b) | Action::Sub(a, b) | Action::Mul(a, b) | Action::MontMul(a, b) => {
                visit(a, view);
                visit(b, view);
            }
            Action::Dot(terms) => {
                for (a, b) in terms {
                    visit(a, view);
                    if let Factor::Words(b) = b {
                        visit(b, view);
                    }
                }
            }
            Action::DotPair(_, terms) => {
                for (a, b) in terms {
                    a.iter().for_each(|a| visit(a, view));
                    if let Factor::Words(b) = b {
                        visit(b, view);
                    }
                }
            }
        }
    }
}
