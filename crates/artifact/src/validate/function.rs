//! Functions: operands, registers, and an abstract run that follows which prime every limb belongs to.

use std::fmt;

use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::params::Params;

use super::KeyShape;
use crate::error::{ensure, inconsistent};
use crate::kernel::{Body, Instruction, Kernel, Operand, Register};
use crate::{Artifact, ArtifactError, Function, Step};

/// Most source primes of a base conversion: the bound under which its fixed-point quotient is exact.
pub const MAX_CONVERT_SOURCES: usize = 16;

/// What is known about a limb slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The prime of the limb that it holds, if it was written.
    holds: Option<PrimeIndex>,
    /// Step (from 1) that last wrote it.
    written: usize,
    /// Step (from 1) that last read it, and the block that did.
    read: (usize, Reader),
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Reader {
    #[default]
    Nobody,
    Block(usize),
    Several,
}

/// A place inside a function; a step counts from 0.
#[derive(Clone, Copy)]
struct Place<'a> {
    function: &'a str,
    step: usize,
    block: Option<usize>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}` step {}", self.function, self.step)?;
        self.block.map_or(Ok(()), |block| write!(f, " block {block}"))
    }
}

struct Checker<'a> {
    artifact: &'a Artifact,
    params: &'a Params,
    keys: &'a [KeyShape],
    function: &'a Function,
    locals: Vec<Slot>,
    results: Vec<Slot>,
}

pub(super) fn check(
    artifact: &Artifact,
    params: &Params,
    keys: &[KeyShape],
    periods: &[Vec<Option<u32>>],
    index: usize,
    function: &Function,
) -> Result<(), ArtifactError> {
    let place = || format!("function `{}`", function.name);
    let pool = params.q_basis().union(params.p_basis());
    let foreign = function.args.iter().chain(&function.results).find(|&&prime| !pool.contains(prime));
    ensure(foreign.is_none(), place, || "an argument or result has a prime that the parameters do not have")?;
    debug_assert_eq!(periods[index].len(), function.weight_params as usize);
    for (i, plaintext) in function.plaintexts.iter().enumerate() {
        let place = || format!("function `{}` plaintext {i}", function.name);
        let basis = plaintext.basis;
        ensure(!basis.is_empty() && basis.is_subset(pool), place, || format!("{basis} is not a basis"))?;
        let scale = plaintext.scale.0;
        ensure(scale.is_finite() && scale >= 1.0, place, || format!("scale {scale} is not a number from 1"))?;
        ensure(plaintext.log_period < params.log_n(), place, || {
            format!("period 2^{} is more than all slots", plaintext.log_period)
        })?;
        let (rotation, period) = (plaintext.rotation, 1u32 << plaintext.log_period);
        ensure(rotation < period, place, || format!("rotation {rotation} is not below the period {period}"))?;
    }
    // A slot that is never stored has no use; so a small artifact cannot ask for much memory.
    let stores = function.steps.iter().map(local_stores).sum::<usize>();
    ensure(function.frame as usize <= stores, place, || {
        format!("its frame has {} slots, it stores only {stores} limbs", function.frame)
    })?;
    let mut checker = Checker {
        artifact,
        params,
        keys,
        function,
        locals: vec![Slot::default(); function.frame as usize],
        results: vec![Slot::default(); function.results.len()],
    };
    for (step, content) in function.steps.iter().enumerate() {
        let place = Place { function: &function.name, step, block: None };
        match content {
            Step::Launch(kernel) => checker.kernel(kernel, place)?,
            Step::Call { function: callee, args, results, .. } => {
                checker.call(&artifact.functions[callee.0 as usize], args, results, place)?;
            }
        }
    }
    let missing = checker.results.iter().position(|slot| slot.holds.is_none());
    ensure(missing.is_none(), place, || format!("result limb {} is not written", missing.unwrap_or_default()))
}

/// Number of stores into the function's own frame.
fn local_stores(step: &Step) -> usize {
    let local = |operand: &&Operand| matches!(operand, Operand::Local(_));
    match step {
        Step::Call { results, .. } => results.iter().filter(local).count(),
        Step::Launch(kernel) => match &kernel.body {
            Body::Elementwise { blocks, .. } => blocks.iter().flat_map(|b| &b.stores).filter(local).count(),
            Body::Ntt { blocks } | Body::Intt { blocks } => {
                blocks.iter().map(|b| &b.store).filter(local).count()
            }
            Body::BaseConvert { blocks } => {
                blocks.iter().flat_map(|b| &b.targets).map(|(_, target)| target).filter(local).count()
            }
            Body::Permute { blocks } => blocks.iter().map(|b| &b.store).filter(local).count(),
        },
    }
}

impl Checker<'_> {
    fn call(
        &mut self,
        callee: &Function,
        args: &[Operand],
        results: &[Operand],
        place: Place,
    ) -> Result<(), ArtifactError> {
        for (given, expected, what) in
            [(args.len(), callee.args.len(), "arguments"), (results.len(), callee.results.len(), "results")]
        {
            ensure(
                given == expected,
                || place,
                || format!("it binds {given} {what}, `{}` has {expected}", callee.name),
            )?;
        }
        for (&operand, &prime) in args.iter().zip(&callee.args) {
            self.read_limb(operand, prime, 0, place)?;
        }
        // All operands are in one block, which may not write what it reads.
        for (&operand, &prime) in results.iter().zip(&callee.results) {
            self.write(operand, prime, 0, false, place)?;
        }
        Ok(())
    }

    fn kernel(&mut self, kernel: &Kernel, place: Place) -> Result<(), ArtifactError> {
        let stages = self.artifact.stages.len();
        ensure(
            usize::from(kernel.stage.0) < stages,
            || place,
            || format!("its stage is not one of {stages}"),
        )?;
        let at = |block| Place { block: Some(block), ..place };
        let count = match &kernel.body {
            Body::Elementwise { program, results, blocks } => {
                let needs = check_program(program, results, place)?;
                for (i, block) in blocks.iter().enumerate() {
                    let q = self.prime(block.prime, at(i))?;
                    let (loads, scalars, stores) =
                        (block.loads.len(), block.scalars.len(), block.stores.len());
                    ensure(
                        loads >= needs.loads,
                        || at(i),
                        || format!("{loads} loads, {} needed", needs.loads),
                    )?;
                    ensure(
                        scalars >= needs.scalars,
                        || at(i),
                        || format!("{scalars} scalars, {} needed", needs.scalars),
                    )?;
                    ensure(
                        stores == results.len(),
                        || at(i),
                        || format!("{stores} stores for {} results", results.len()),
                    )?;
                    ensure(
                        block.scalars.iter().all(|&c| c < q),
                        || at(i),
                        || "a scalar is not below the prime",
                    )?;
                    for &operand in &block.loads {
                        self.read(operand, block.prime, i, at(i))?;
                    }
                }
                for (i, block) in blocks.iter().enumerate() {
                    for &operand in &block.stores {
                        self.write(operand, block.prime, i, true, at(i))?;
                    }
                }
                blocks.len()
            }
            Body::Ntt { blocks } | Body::Intt { blocks } => {
                let forward = matches!(kernel.body, Body::Ntt { .. });
                for (i, block) in blocks.iter().enumerate() {
                    let q = self.prime(block.prime, at(i))?;
                    let factor = if forward { block.factor == 1 } else { (1..q).contains(&block.factor) };
                    ensure(factor, || at(i), || format!("factor {} is not allowed", block.factor))?;
                    self.read_limb(block.load, block.prime, i, at(i))?;
                }
                for (i, block) in blocks.iter().enumerate() {
                    self.write(block.store, block.prime, i, true, at(i))?;
                }
                blocks.len()
            }
            Body::BaseConvert { blocks } => {
                for (i, block) in blocks.iter().enumerate() {
                    let sources = block.sources.len();
                    ensure(
                        (1..=MAX_CONVERT_SOURCES).contains(&sources),
                        || at(i),
                        || format!("{sources} sources, 1 to {MAX_CONVERT_SOURCES} are possible"),
                    )?;
                    ensure(!block.targets.is_empty(), || at(i), || "no targets")?;
                    for limbs in [&block.sources, &block.targets] {
                        for &(prime, _) in limbs {
                            self.prime(prime, at(i))?;
                        }
                        let basis: Basis = limbs.iter().map(|&(prime, _)| prime).collect();
                        ensure(basis.len() == limbs.len(), || at(i), || "a prime stands twice in a basis")?;
                    }
                    for &(prime, operand) in &block.sources {
                        self.read_limb(operand, prime, i, at(i))?;
                    }
                }
                for (i, block) in blocks.iter().enumerate() {
                    for &(prime, operand) in &block.targets {
                        self.write(operand, prime, i, false, at(i))?;
                    }
                }
                blocks.len()
            }
            Body::Permute { blocks } => {
                for (i, block) in blocks.iter().enumerate() {
                    self.prime(block.prime, at(i))?;
                    let galois = block.galois;
                    let odd = galois % 2 == 1 && u64::from(galois) < 2 * self.params.n() as u64;
                    ensure(odd, || at(i), || format!("{galois} is not an odd number below 2N"))?;
                    self.read_limb(block.load, block.prime, i, at(i))?;
                }
                for (i, block) in blocks.iter().enumerate() {
                    self.write(block.store, block.prime, i, false, at(i))?;
                }
                blocks.len()
            }
        };
        ensure(count > 0, || place, || "a launch without blocks")
    }

    /// The value of a prime of the pool.
    fn prime(&self, prime: PrimeIndex, place: Place) -> Result<u32, ArtifactError> {
        let modulus = self.params.moduli().get(prime.index());
        let modulus = modulus.ok_or_else(|| inconsistent(place, format!("there is no prime {prime}")))?;
        Ok(modulus.value())
    }

    /// Reads any operand.
    fn read(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        block: usize,
        place: Place,
    ) -> Result<(), ArtifactError> {
        let exists = match operand {
            Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => {
                return self.read_limb(operand, prime, block, place);
            }
            Operand::Plain { plaintext, limb } => {
                let plaintext = self.function.plaintexts.get(plaintext as usize);
                plaintext.is_some_and(|p| p.basis.position(prime) == Some(usize::from(limb)))
            }
            Operand::Key { key, digit, prime: limb, .. } => {
                let key = self.keys.get(key as usize);
                limb == prime && key.is_some_and(|k| usize::from(digit) < k.digits && k.basis.contains(prime))
            }
        };
        ensure(exists, || place, || format!("{operand:?} does not exist modulo {prime}"))
    }

    /// Reads a full limb of the pool.
    fn read_limb(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        block: usize,
        place: Place,
    ) -> Result<(), ArtifactError> {
        let slot = match operand {
            Operand::Arg(i) => {
                let matches = self.function.args.get(i as usize) == Some(&prime);
                return ensure(matches, || place, || format!("there is no {operand:?} modulo {prime}"));
            }
            Operand::Local(i) => self.locals.get_mut(i as usize),
            Operand::Result(i) => self.results.get_mut(i as usize),
            Operand::Plain { .. } | Operand::Key { .. } => None,
        };
        let slot = slot.ok_or_else(|| inconsistent(place, format!("{operand:?} cannot be read here")))?;
        ensure(
            slot.holds == Some(prime),
            || place,
            || match slot.holds {
                None => format!("{operand:?} is read before it is written"),
                Some(other) => format!("{operand:?} is read modulo {prime}, it holds a limb modulo {other}"),
            },
        )?;
        let step = place.step + 1;
        slot.read = match slot.read {
            (last, reader) if last == step && reader != Reader::Block(block) => (step, Reader::Several),
            _ => (step, Reader::Block(block)),
        };
        Ok(())
    }

    /// Writes a limb; all blocks of the step have read before.
    fn write(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        block: usize,
        in_place: bool,
        place: Place,
    ) -> Result<(), ArtifactError> {
        let slot = match operand {
            Operand::Local(i) => self.locals.get_mut(i as usize),
            Operand::Result(i) => {
                let matches = self.function.results.get(i as usize) == Some(&prime);
                ensure(matches, || place, || format!("there is no {operand:?} modulo {prime}"))?;
                self.results.get_mut(i as usize)
            }
            Operand::Arg(_) | Operand::Plain { .. } | Operand::Key { .. } => None,
        };
        let slot = slot.ok_or_else(|| inconsistent(place, format!("{operand:?} cannot be written")))?;
        let step = place.step + 1;
        ensure(slot.written != step, || place, || format!("{operand:?} is written twice in one step"))?;
        let unread = slot.read.0 != step || in_place && slot.read.1 == Reader::Block(block);
        ensure(unread, || place, || format!("{operand:?} is written while the same step reads it"))?;
        slot.written = step;
        slot.holds = Some(prime);
        Ok(())
    }
}

/// Sizes that a program expects of its blocks.
struct Needs {
    loads: usize,
    scalars: usize,
}

fn check_program(
    program: &[Instruction],
    results: &[Register],
    place: Place,
) -> Result<Needs, ArtifactError> {
    let mut needs = Needs { loads: 0, scalars: 0 };
    ensure(program.len() <= 1 + usize::from(Register::MAX), || place, || "its program is too long")?;
    ensure(!results.is_empty(), || place, || "its program has no results")?;
    for (index, instruction) in program.iter().enumerate() {
        let earlier = |register: &Register| usize::from(*register) < index;
        let mut scalar = |scalar: u16| needs.scalars = needs.scalars.max(usize::from(scalar) + 1);
        let ordered = match instruction {
            Instruction::Load(load) => {
                needs.loads = needs.loads.max(usize::from(*load) + 1);
                true
            }
            Instruction::Add(a, b)
            | Instruction::Sub(a, b)
            | Instruction::Mul(a, b)
            | Instruction::MontMul(a, b) => earlier(a) && earlier(b),
            Instruction::Neg(a) => earlier(a),
            Instruction::MulScalar(a, c) | Instruction::AddScalar(a, c) => {
                scalar(*c);
                earlier(a)
            }
            Instruction::Dot(pairs) => {
                !pairs.is_empty() && pairs.iter().all(|(a, b)| earlier(a) && earlier(b))
            }
        };
        ensure(
            ordered,
            || place,
            || format!("instruction {index} reads a register that is not written yet"),
        )?;
    }
    let written = results.iter().all(|&register| usize::from(register) < program.len());
    ensure(written, || place, || "a result is not a register of the program")?;
    Ok(needs)
}
