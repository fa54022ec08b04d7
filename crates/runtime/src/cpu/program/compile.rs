//! From instructions to operations on tiles.

use std::collections::{HashMap, HashSet};

use cerium_artifact::kernel::{Instruction, Register};

use super::join::join;
use super::{
    Action, Addends, Factor, LoadKind, MOST_ADDENDS, MOVING_TILE, Operation, PAD, Source, TILE, Target,
    TileProgram, View, ViewId,
};

/// A program and what its blocks are like.
#[derive(Clone, Copy)]
pub(in super::super) struct Compilation<'a> {
    /// A validated program.
    pub(in super::super) instructions: &'a [Instruction],
    /// The register of each store.
    pub(in super::super) results: &'a [Register],
    /// What each load is.
    pub(in super::super) loads: &'a [LoadKind],
    /// For each store the loads, or the input, whose words it overwrites.
    pub(in super::super) overwrites: &'a [Vec<Source>],
    /// Whether the program is always run on whole limbs.
    pub(in super::super) whole: bool,
}

/// Terms of a sum of products that are read together, where they are read from memory. More of them are summed up in parts:
/// memory delivers a few streams faster than many.
const FEW_STREAMS: usize = 4;

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
        let (instructions, mut addends) = compilation.joined();
        let compilation = &Compilation { instructions: &instructions, ..*compilation };
        // Of a part of a program, only its own sums are computed.
        let live = compilation.live();
        addends.retain(|&sum, _| live[usize::from(sum)]);
        let swept = compilation.swept(&live, &addends);
        let (views, values) = compilation.values(&swept);
        let sweeps = compilation.steps(&compilation.sweep_values(&swept, &addends), &views, |_| false);
        let mut steps = compilation.steps(&values, &views, |register| swept.contains(&register));
        steps.retain(|step| !matches!(step, Step::One((register, _)) if swept.contains(register)));
        let mut emission = Emission::new(compilation, addends, &views, &sweeps, &steps);
        for (at, step) in sweeps.iter().enumerate() {
            emission.step(at, step);
        }
        let sweeps = emission.end_sweeps(values.iter().filter(|(register, _)| swept.contains(register)));
        for (step, at) in steps.iter().zip(emission.first_step..) {
            emission.step(at, step);
        }
        emission.stores();
        let Emission { operations, scratch, limbs, .. } = emission;
        let (scratch_tiles, scratch_limbs) = (scratch.count.into(), limbs.into());
        let operations = join(operations);
        let tile = if views.is_empty() { TILE } else { MOVING_TILE };
        TileProgram { sweeps, operations, views, tile, scratch_tiles, scratch_limbs }
    }

    /// Words of scratch tiles and of scratch limbs that [`TileProgram::run`] needs on limbs of `n` words.
    pub(in super::super) fn scratch_words(&self, n: usize) -> (usize, usize) {
        (self.scratch_tiles * (self.tile + PAD), self.scratch_limbs * (n + PAD))
    }

    /// Whether the program must be run on whole limbs.
    pub(in super::super) fn sweeps(&self) -> bool {
        !self.sweeps.is_empty()
    }
}

impl Compilation<'_> {
    fn instruction(&self, register: Register) -> &Instruction {
        &self.instructions[usize::from(register)]
    }

    /// Whether a register is there from the beginning, word by word.
    fn there(&self, register: Register) -> bool {
        match *self.instruction(register) {
            Instruction::Load(load) => self.loads[usize::from(load)] != LoadKind::Compact,
            Instruction::Input => true,
            _ => false,
        }
    }

    /// Whether a register is a sum of products with keys that can be computed before all else.
    fn sweepable(&self, register: Register) -> bool {
        match self.instruction(register) {
            Instruction::Dot(terms) => {
                self.whole
                    && terms.iter().all(|&(a, b)| self.there(a) && self.there(b))
                    && terms.iter().any(|&(a, b)| self.stored(a) || self.stored(b))
            }
            _ => false,
        }
    }

    /// The instructions, but for sums that a sweep can make on the way: where a limb is added to what only this addition
    /// reads of a sweep, the sum of products takes its place, and the limb is one of the addends, by register.
    fn joined(&self) -> (Vec<Instruction>, HashMap<Register, Vec<Register>>) {
        let mut uses = vec![0usize; self.instructions.len()];
        self.instructions.iter().for_each(|i| i.for_registers(|register| uses[usize::from(register)] += 1));
        self.results.iter().for_each(|&register| uses[usize::from(register)] += 1);
        // A limb times a scalar that is added in many places is computed once, before them.
        let multiple = |register: Register| match *self.instruction(register) {
            Instruction::MulScalar(a, _) => self.there(a) && !self.key(a) && uses[usize::from(register)] > 1,
            _ => false,
        };
        let mut instructions = self.instructions.to_vec();
        let mut addends: HashMap<Register, Vec<Register>> = HashMap::new();
        for register in 0..instructions.len() as Register {
            let Instruction::Add(a, b) = instructions[usize::from(register)] else { continue };
            let now = Compilation { instructions: &instructions, ..*self };
            let joins = |sum: Register, added: Register| {
                let few = addends.get(&sum).is_none_or(|addends| addends.len() < MOST_ADDENDS);
                now.sweepable(sum)
                    && uses[usize::from(sum)] == 1
                    && few
                    && (now.there(added) && !now.key(added) || multiple(added))
            };
            let Some((sum, added)) = [(a, b), (b, a)].into_iter().find(|&(sum, added)| joins(sum, added))
            else {
                continue;
            };
            let mut all = addends.remove(&sum).unwrap_or_default();
            all.push(added);
            addends.insert(register, all);
            // Nobody reads the register of the sum itself any more: it may be anything that is no sum.
            let unread = Instruction::Neg(added);
            instructions[usize::from(register)] =
                std::mem::replace(&mut instructions[usize::from(sum)], unread);
        }
        (instructions, addends)
    }

    /// For each register whether a result needs it.
    fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.instructions.len()];
        self.results.iter().for_each(|&register| live[usize::from(register)] = true);
        for (index, instruction) in self.instructions.iter().enumerate().rev() {
            if live[index] {
                instruction.for_registers(|register| live[usize::from(register)] = true);
            }
        }
        live
    }

    /// What is computed before all else: sums, and multiples of limbs among the addends.
    fn swept(&self, live: &[bool], addends: &HashMap<Register, Vec<Register>>) -> HashSet<Register> {
        let sums = (0..self.instructions.len() as Register)
            .filter(|&register| live[usize::from(register)] && self.sweepable(register));
        let multiples = addends.values().flatten().copied().filter(|&added| !self.there(added));
        sums.chain(multiples).collect()
    }

    /// What sweeps read, and then what they compute.
    fn sweep_values(
        &self,
        swept: &HashSet<Register>,
        addends: &HashMap<Register, Vec<Register>>,
    ) -> Vec<Value> {
        let mut read: Vec<Register> = addends.values().flatten().copied().collect();
        let mut made: Vec<Register> = swept.iter().copied().collect();
        made.sort_unstable();
        made.iter()
            .for_each(|&register| self.instruction(register).for_registers(|register| read.push(register)));
        read.retain(|register| !swept.contains(register));
        read.sort_unstable();
        read.dedup();
        read.into_iter().chain(made).map(|register| (register, 0)).collect()
    }

    /// The views, and the registers in all views in which the results need them after the sweeps: loads and what is swept,
    /// then the others in the order of the program.
    fn values(&self, swept: &HashSet<Register>) -> (Vec<View>, Vec<Value>) {
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
                    _ if swept.contains(&(index as Register)) => continue,
                    _ => of,
                };
                instruction.for_registers(|register| needed[usize::from(register)].push(view));
            }
        }
        let values = needed.iter().enumerate();
        let mut values: Vec<Value> = values
            .flat_map(|(index, views)| views.iter().map(move |&view| (index as Register, view)))
            .collect();
        // These are there from the beginning.
        let there = |register| {
            swept.contains(&register) || matches!(self.instruction(register), Instruction::Load(_))
        };
        values.sort_by_key(|&(register, _)| !there(register));
        (views, values)
    }

    /// The load of a register that is a compact plaintext.
    fn compact(&self, register: Register) -> Option<u16> {
        match *self.instruction(register) {
            Instruction::Load(load) if self.loads[usize::from(load)] == LoadKind::Compact => Some(load),
            _ => None,
        }
    }

    /// Whether a register is a limb of a key.
    fn key(&self, register: Register) -> bool {
        matches!(self.instruction(register), Instruction::Load(load) if self.loads[usize::from(*load)] == LoadKind::Key)
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
    /// can wait for the other or be computed as early; factors from memory in common are preferred. Of some registers the
    /// values are there already.
    fn steps(&self, values: &[Value], views: &[View], there: impl Fn(Register) -> bool) -> Vec<Step> {
        // Where values are computed, and where they are read first; both change as pairs are made.
        let mut place: HashMap<Value, usize> =
            values.iter().enumerate().map(|(at, &value)| (value, at)).collect();
        let mut first_use: HashMap<Value, usize> = HashMap::new();
        for (at, &value) in values.iter().enumerate().rev() {
            if !there(value.0) {
                self.for_operands(value, views, |operand| _ = first_use.insert(operand, at));
            }
        }
        let mut joined = vec![false; values.len()];
        let mut pairs: HashMap<usize, Step> = HashMap::new();
        for (at, &value) in values.iter().enumerate() {
            let Instruction::Dot(terms) = self.instruction(value.0) else { continue };
            let mut best: Option<(usize, usize, Vec<_>)> = None;
            for (later, &other) in values.iter().enumerate().skip(at + 1) {
                let Instruction::Dot(others) = self.instruction(other.0) else { continue };
                if joined[at] || joined[later] || other.1 != value.1 || there(value.0) || there(other.0) {
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
    /// What is added to swept sums.
    addends: HashMap<Register, Vec<Register>>,
    /// Compact plaintexts that are needed word by word.
    unfolded: HashSet<Value>,
    /// The last step that reads a value; the number of steps if a store is copied from it at the end.
    last_use: HashMap<Value, usize>,
    /// The view that each permutation reads.
    views: HashMap<View, ViewId>,
    sources: HashMap<Value, Source>,
    scratch: Scratch,
    /// Scratch limbs: one for each swept sum that does not go straight to its store.
    limbs: u16,
    /// Where the steps after the sweeps begin.
    first_step: usize,
    /// Whether the sweeps are being made.
    sweeping: bool,
    operations: Vec<Operation>,
}

impl<'a> Emission<'a> {
    fn new(
        compilation: &'a Compilation<'a>,
        addends: HashMap<Register, Vec<Register>>,
        views: &[View],
        sweeps: &[Step],
        steps: &[Step],
    ) -> Emission<'a> {
        let views = views.iter().enumerate().map(|(at, &view)| (view, at as ViewId + 1)).collect();
        let mut emission = Emission {
            compilation,
            addends,
            unfolded: HashSet::new(),
            last_use: HashMap::new(),
            views,
            sources: HashMap::new(),
            scratch: Scratch::default(),
            limbs: 0,
            first_step: sweeps.len(),
            sweeping: true,
            operations: Vec::new(),
        };
        for (at, step) in sweeps.iter().chain(steps).enumerate() {
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
            emission.last_use.insert((register, 0), sweeps.len() + steps.len());
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

    /// Whether a result may be stored when it is computed, by step `at`: nothing that it overwrites is read later. By this step
    /// only a sum may read it, whose kernels read a word before they write it.
    fn direct(&self, store: usize, at: usize) -> bool {
        let compilation = self.compilation;
        let sum = matches!(compilation.instruction(compilation.results[store]), Instruction::Dot(_));
        let end = if sum { at + 1 } else { at };
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
                .all(|value: Value| self.last_use.get(&value).is_none_or(|&last| last < end))
        })
    }

    /// Ends the sweeps: returns their operations, and notes that what they left is there in the given views.
    fn end_sweeps<'v>(&mut self, left: impl Iterator<Item = &'v Value>) -> Vec<Operation> {
        self.sweeping = false;
        for &(register, view) in left {
            self.sources.insert((register, view), self.sources[&(register, 0)]);
        }
        std::mem::take(&mut self.operations)
    }

    fn target(&mut self, value: Value, at: usize) -> (Target, Source) {
        let stores = self.compilation.results.iter().enumerate();
        let mut stores = stores.filter(|&(_, &result)| (result, 0) == value);
        match stores.find(|&(store, _)| self.direct(store, at)) {
            Some((store, _)) => (Target::Store(store as u16), Source::Store(store as u16)),
            None if self.sweeping => {
                self.limbs += 1;
                (Target::Swept(self.limbs - 1), Source::Swept(self.limbs - 1))
            }
            None => {
                let tile = self.scratch.take();
                (Target::Scratch(tile), Source::Scratch(tile))
            }
        }
    }

    fn push(&mut self, target: Target, view: ViewId, action: Action) {
        self.operations.push(Operation { target, view, action });
    }

    fn factor(&self, (register, view): Value) -> Factor {
        match self.compilation.compact(register) {
            Some(load) => Factor::Runs(load),
            None => Factor::Words(self.sources[&(register, view)]),
        }
    }

    /// What is added to a sum.
    fn added(&self, sum: Register) -> Addends {
        let addends = self.addends.get(&sum).into_iter().flatten();
        addends.map(|&register| self.sources[&(register, 0)]).collect()
    }

    fn step(&mut self, at: usize, step: &Step) {
        match step {
            Step::Pair([first, second], terms) => {
                let view = first.1;
                let words = |register: Register| self.sources[&(register, view)];
                let terms =
                    terms.iter().map(|&([a, b], common)| ([words(a), words(b)], self.factor((common, view))));
                let terms: Vec<_> = terms.collect();
                let (target, source) = self.target(*first, at);
                let (other, other_source) = self.target(*second, at);
                let addends = [self.added(first.0), self.added(second.0)];
                self.dot_pair([target, other], [source, other_source], view, terms, addends);
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

    /// Two dot products, in parts if they read many limbs. What a target overwrites is read by the first part.
    fn dot_pair(
        &mut self,
        [target, other]: [Target; 2],
        sources: [Source; 2],
        view: ViewId,
        mut terms: Vec<([Source; 2], Factor)>,
        mut addends: [Addends; 2],
    ) {
        // In tiles it takes many streams before parts are worth the adding up.
        let limb = |(_, factor): &&([Source; 2], Factor)| matches!(factor, Factor::Words(Source::Load(_)));
        let many = self.sweeping || terms.iter().filter(limb).count() > 2 * FEW_STREAMS;
        let parts = if many { terms.len().div_ceil(FEW_STREAMS) } else { 1 };
        let length = terms.len().div_ceil(parts);
        let overwritten = |source: &Source| {
            let overwrites = |target: Target| match target {
                Target::Store(store) => self.compilation.overwrites[usize::from(store)].contains(source),
                Target::Scratch(_) | Target::Swept(_) => false,
            };
            overwrites(target) || overwrites(other)
        };
        let first = |(own, factor): &([Source; 2], Factor)| {
            own.iter().any(overwritten) || matches!(factor, Factor::Words(source) if overwritten(source))
        };
        terms.sort_by_key(|term| !first(term));
        let (first, rest) = terms.split_at(terms.iter().filter(|term| first(term)).count().max(length));
        for terms in std::iter::once(first).chain(rest.chunks(length)) {
            let now = std::mem::replace(&mut addends, sources.map(|source| [source].into()));
            self.push(target, view, Action::DotPair(other, terms.into(), now));
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
                term => Action::Dot(Box::new([term]), Box::new([])),
            },
            Instruction::MulScalar(a, c) => Action::MulScalar(at(a), *c),
            Instruction::AddScalar(a, c) => Action::AddScalar(at(a), *c),
            Instruction::Dot(pairs) => {
                let terms = pairs.iter().map(|(a, b)| product(a, b)).collect();
                Action::Dot(terms, self.added(register))
            }
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
        let used = |value: &Value| self.sweeping || self.last_use.contains_key(value);
        debug_assert!(made.iter().all(used), "a value is not used");
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
