//! What a launch asks of a device: instructions, and which limbs it reads and writes.
//!
//! Instructions of one word are counted from the text in `cuda/device` and held against disassembled code (`nvdisasm` of what
//! NVRTC 13.0 makes for sm_90): addresses, pointers and exchanges are in the figures of what they belong to.

use std::collections::HashSet;
use std::ops::{AddAssign, Mul};

use cerium_artifact::kernel::{BaseConvertBlock, Block, Body, Instruction, Program, Transform};
use cerium_artifact::{Function, Operand};
use cerium_ckks::basis::PrimeIndex;

use crate::cuda::Launch;

/// Instructions of one word.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Multiplications with one word of result.
    pub(super) narrow: f64,
    /// Multiplications with two, or with the high one.
    pub(super) wide: f64,
    /// All instructions, those among them.
    pub(super) issues: f64,
    /// Reversals of bits.
    pub(super) reversals: f64,
    /// Bytes from and to shared memory.
    pub(super) shared: f64,
}

const fn work(narrow: f64, wide: f64, issues: f64) -> Work {
    Work { narrow, wide, issues, reversals: 0.0, shared: 0.0 }
}

/// A quarter of a 16-byte access, with its address.
const ACCESS: Work = work(0.0, 0.25, 1.0);
/// A sum or difference, brought back to its range.
const ADD: Work = work(0.0, 0.0, 2.0);
/// A Montgomery multiplication: a product, the multiple of the modulus, its high word, and the range.
const MONT_MUL: Work = work(1.0, 2.0, 5.0);
/// Two of them, one without the range.
const MUL: Work = work(2.0, 4.0, 9.0);
/// A product with a known factor and its quotient.
const MUL_SCALAR: Work = work(2.0, 1.0, 5.0);
/// A term of a sum of products, accumulated in 64 bits.
const TERM: Work = work(0.0, 1.0, 1.0);
/// The reduction of such a sum.
const REDUCE: Work = work(1.0, 1.0, 5.0);
/// Where an automorphism takes a word from, once for each Galois element.
const POSITION: Work = Work { reversals: 2.0, ..work(1.0, 0.0, 8.0) };
/// A load from there, by itself.
const GATHER: Work = work(0.5, 1.0, 3.0);
/// A source of a base conversion: its share of the number of wraps.
const SOURCE: Work = work(1.0, 1.0, 2.0);
/// One stage of a transform, half a butterfly. The four plain kernels of 2^16 have 560 and 644 instructions (forward), 607 and
/// 591 (inverse) for 16 words and 8 stages, of which 143, 166, 166 and 158 are wide multiplications, 88, 115, 96 and 89 narrow
/// ones; from their mean, the accesses are taken off.
const STAGE: Work = work(0.76, 1.17, 4.45);
/// An exchange between two passes of a transform through shared memory.
const EXCHANGE: Work = Work { shared: 8.0, ..work(0.0, 0.0, 0.0) };

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.narrow += other.narrow;
        self.wide += other.wide;
        self.issues += other.issues;
        self.reversals += other.reversals;
        self.shared += other.shared;
    }
}

impl Mul<f64> for Work {
    type Output = Work;

    fn mul(self, n: f64) -> Work {
        Work {
            narrow: n * self.narrow,
            wide: n * self.wide,
            issues: n * self.issues,
            reversals: n * self.reversals,
            shared: n * self.shared,
        }
    }
}

/// A program on one word, with its loads and stores.
fn program(program: &Program) -> Work {
    let mut sum = ACCESS * program.results.len() as f64;
    let mut galois = HashSet::new();
    for (instruction, moved) in program.instructions.iter().zip(program.below_permute()) {
        sum += match instruction {
            Instruction::Input => Work::default(),
            Instruction::Load(_) if moved => GATHER,
            Instruction::Load(_) => ACCESS,
            Instruction::Add(..)
            | Instruction::Sub(..)
            | Instruction::Neg(_)
            | Instruction::AddScalar(..) => ADD,
            Instruction::Mul(..) => MUL,
            Instruction::MontMul(..) => MONT_MUL,
            Instruction::MulScalar(..) => MUL_SCALAR,
            Instruction::Dot(pairs) => {
                let mut sum = TERM * pairs.len() as f64;
                sum += REDUCE;
                sum
            }
            Instruction::Permute(_, element) => match galois.insert(*element) {
                true => POSITION,
                false => Work::default(),
            },
        };
    }
    sum
}

/// What is read or written as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item {
    /// A limb of an operand.
    Operand(Operand),
    /// Factors of a transform.
    Factors(PrimeIndex),
}

/// An access of a launch, in the order in which blocks begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Access {
    pub(super) item: Item,
    /// Bytes of the item.
    pub(super) bytes: u64,
    /// How often the launch moves them.
    pub(super) times: f64,
    pub(super) write: bool,
}

/// What one launch asks for.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// Blocks of threads.
    pub(super) blocks: u64,
    /// Threads of a block.
    pub(super) threads: u64,
    /// Instructions of all threads together.
    pub(super) work: Work,
    pub(super) accesses: Vec<Access>,
}

/// The demands of the `launches` that a kernel became, in order.
pub(super) fn demands(function: &Function, body: &Body, launches: &[Launch], log_n: u32) -> Vec<Demand> {
    let counter = Counter { function, log_n };
    let parts = match body {
        Body::Elementwise { program: of, blocks } => {
            let mut accesses = Vec::new();
            for block in blocks {
                counter.program(of, block, &block.stores, &mut accesses);
            }
            vec![(program(of) * blocks.len() as f64, accesses)]
        }
        Body::Ntt(transform) => counter.transform(transform, launches.len(), false),
        Body::Intt(transform) => counter.transform(transform, launches.len(), true),
        Body::BaseConvert { epilogue, blocks } => counter.conversions(epilogue, blocks, launches),
    };
    assert_eq!(parts.len(), launches.len(), "one part for each launch");
    let demand = |(launch, (of_words, accesses)): (&Launch, (Work, Vec<Access>))| Demand {
        blocks: u64::from(launch.grid[0]) * u64::from(launch.grid[1]),
        threads: launch.block.into(),
        work: of_words * f64::from(1u32 << log_n),
        accesses,
    };
    launches.iter().zip(parts).map(demand).collect()
}

struct Counter<'a> {
    function: &'a Function,
    log_n: u32,
}

impl Counter<'_> {
    fn access(&self, operand: Operand, write: bool) -> Access {
        let bytes = match operand {
            Operand::Plain { plaintext, .. } => 8 << self.function.plaintexts[plaintext as usize].log_period,
            _ => 4 << self.log_n,
        };
        Access { item: Item::Operand(operand), bytes, times: 1.0, write }
    }

    /// The loads of a program, then its stores.
    fn program(&self, program: &Program, block: &Block, stores: &[Operand], accesses: &mut Vec<Access>) {
        accesses.extend(program.loads().map(|load| self.access(block.loads[usize::from(load)], false)));
        accesses.extend(stores.iter().map(|&store| self.access(store, true)));
    }

    /// A transform in one launch or two, with the limb in its home between them.
    fn transform(&self, of: &Transform, launches: usize, inverse: bool) -> Vec<(Work, Vec<Access>)> {
        let part = |index: usize| {
            let (first, last) = (index == 0, index + 1 == launches);
            let mut word = STAGE * (f64::from(self.log_n) / launches as f64);
            // Later stages work on stretches, which come from memory or go there in another order.
            let stretches = if inverse { first } else { last };
            word += EXCHANGE * if stretches { 2.0 } else { 1.0 };
            word += if first { program(&of.prologue) } else { ACCESS };
            word += if last { program(&of.epilogue) } else { ACCESS };
            let mut accesses = Vec::new();
            for block in &of.blocks {
                let (before, after) = block.stores.split_at(of.home());
                let home = after[0];
                if first {
                    self.program(&of.prologue, block, before, &mut accesses);
                } else {
                    accesses.push(self.access(home, false));
                }
                if stretches {
                    // One factor for every four words: those of the last stages are made.
                    let factors = Item::Factors(block.prime);
                    accesses.push(Access { item: factors, bytes: 1 << self.log_n, times: 1.0, write: false });
                }
                if last {
                    self.program(&of.epilogue, block, after, &mut accesses);
                } else {
                    accesses.push(self.access(home, true));
                }
            }
            (word * of.blocks.len() as f64, accesses)
        };
        (0..launches).map(part).collect()
    }

    /// Base conversions, a launch for each number of sources.
    fn conversions(
        &self,
        epilogue: &Program,
        blocks: &[BaseConvertBlock],
        launches: &[Launch],
    ) -> Vec<(Work, Vec<Access>)> {
        let mut counts: Vec<usize> = blocks.iter().map(|block| block.sources.len()).collect();
        counts.sort_unstable();
        counts.dedup();
        let part = |(&count, launch): (&usize, &Launch)| {
            let of_count = || blocks.iter().filter(|block| block.sources.len() == count);
            // A row has some of the targets of a conversion, and loads all sources.
            let rows = f64::from(launch.grid[1]) / of_count().count() as f64;
            let mut source = ACCESS;
            source += SOURCE;
            let mut target = TERM * (count + 1) as f64;
            target += REDUCE;
            target += program(epilogue);
            let (mut words, mut accesses) = (Work::default(), Vec::new());
            for block in of_count() {
                words += source * (rows * count as f64);
                words += target * block.targets.len() as f64;
                let read = |&(_, operand): &(PrimeIndex, Operand)| self.access(operand, false);
                accesses
                    .extend(block.sources.iter().map(read).map(|access| Access { times: rows, ..access }));
                for target in &block.targets {
                    self.program(epilogue, target, &target.stores, &mut accesses);
                }
            }
            (words, accesses)
        };
        counts.iter().zip(launches).map(part).collect()
    }
}
