//! Functions: operands, and an abstract run that follows which prime every limb belongs to.

use std::fmt;

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;

use super::KeyShape;
use crate::error::{ensure, inconsistent};
use crate::kernel::Operand;
use crate::{Artifact, ArtifactError, Collective, Function, Movement, StageId, Step};

/// What is known about a limb slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The prime of the limb that it holds, if it was written.
    holds: Option<PrimeIndex>,
    /// Step (from 1) that last wrote it.
    written: usize,
    /// Step (from 1) that last read it, and the block that did.
    read: (usize, Reader),
    /// How often it is among the limbs that are on their way to other devices.
    sent: u32,
    /// Whether a limb is on its way to it.
    awaits: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Reader {
    #[default]
    Nobody,
    /// One block, which may store there.
    Block(usize),
    /// Several blocks, or one at other positions than those where it stores.
    Several,
}

/// A place inside a function; a step counts from 0.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    function: &'a str,
    step: usize,
    block: Option<usize>,
}

impl Place<'_> {
    /// A block of the step.
    pub(super) fn block(self, block: usize) -> Self {
        Place { block: Some(block), ..self }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "function `{}` step {}", self.function, self.step)?;
        self.block.map_or(Ok(()), |block| write!(f, " block {block}"))
    }
}

pub(super) struct Checker<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) params: &'a Params,
    keys: &'a [KeyShape],
    function: &'a Function,
    locals: Vec<Slot>,
    results: Vec<Slot>,
    /// Collectives that were started, and how many of them are finished.
    started: Vec<&'a Collective>,
    finished: usize,
}

pub(super) fn check(
    artifact: &Artifact,
    params: &Params,
    keys: &[KeyShape],
    periods: &[Option<u32>],
    functions: &[Function],
    function: &Function,
) -> Result<(), ArtifactError> {
    let place = || format!("function `{}`", function.name);
    let pool = params.q_basis().union(params.p_basis());
    let foreign = function.args.iter().chain(&function.results).find(|&&prime| !pool.contains(prime));
    ensure(foreign.is_none(), place, || "an argument or result has a prime that the parameters do not have")?;
    debug_assert_eq!(periods.len(), function.weight_params as usize);
    for (i, plaintext) in function.plaintexts.iter().enumerate() {
        let place = || format!("function `{}` plaintext {i}", function.name);
        let basis = plaintext.basis;
        ensure(!basis.is_empty() && basis.is_subset(pool), place, || format!("{basis} is not a basis"))?;
        let modulus = plaintext.modulus;
        ensure(basis.is_subset(modulus) && modulus.is_subset(pool), place, || {
            format!("{modulus} are not its primes on all devices")
        })?;
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
        started: Vec::new(),
        finished: 0,
    };
    for (step, content) in function.steps.iter().enumerate() {
        let place = Place { function: &function.name, step, block: None };
        match content {
            Step::Launch(kernel) => checker.kernel(kernel, place)?,
            Step::Call { stage, function: callee, args, results, .. } => {
                checker.stage(*stage, place)?;
                checker.settled(place)?;
                checker.call(&functions[callee.0 as usize], args, results, place)?;
            }
            Step::Start(collective) => checker.start(collective, place)?,
            Step::Finish(number) => checker.finish(*number, place)?,
        }
    }
    checker.settled(Place { function: &function.name, step: function.steps.len(), block: None })?;
    let missing = checker.results.iter().position(|slot| slot.holds.is_none());
    ensure(missing.is_none(), place, || format!("result limb {} is not written", missing.unwrap_or_default()))
}

/// Number of stores into the function's own frame.
fn local_stores(step: &Step) -> usize {
    let local = |operand: &&Operand| matches!(operand, Operand::Local(_));
    match step {
        Step::Call { results, .. } => results.iter().filter(local).count(),
        Step::Launch(kernel) => kernel.body.blocks().flat_map(|block| &block.stores).filter(local).count(),
        Step::Start(Collective { movement: Movement::Exchange { receives, .. }, .. }) => {
            receives.iter().map(|incoming| &incoming.limb).filter(local).count()
        }
        Step::Start(_) | Step::Finish(_) => 0,
    }
}

impl Checker<'_> {
    pub(super) fn stage(&self, stage: StageId, place: Place) -> Result<(), ArtifactError> {
        let stages = self.artifact.stages.len();
        ensure(usize::from(stage.0) < stages, || place, || format!("its stage is not one of {stages}"))
    }

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
            self.read_limb(operand, prime, Reader::Several, place)?;
        }
        for (&operand, &prime) in results.iter().zip(&callee.results) {
            self.write(operand, prime, 0, place)?;
        }
        Ok(())
    }

    /// The value of a prime of the pool.
    pub(super) fn prime(&self, prime: PrimeIndex, place: Place) -> Result<u32, ArtifactError> {
        let modulus = self.params.moduli().get(prime.index());
        let modulus = modulus.ok_or_else(|| inconsistent(place, format!("there is no prime {prime}")))?;
        Ok(modulus.value())
    }

    /// Reads any operand.
    pub(super) fn read(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        reader: Reader,
        place: Place,
    ) -> Result<(), ArtifactError> {
        let exists = match operand {
            Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => {
                return self.read_limb(operand, prime, reader, place);
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
    pub(super) fn read_limb(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        reader: Reader,
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
            (last, before) if last == step && before != reader => (step, Reader::Several),
            _ => (step, reader),
        };
        Ok(())
    }

    /// Writes a limb; all blocks of the step have read before.
    pub(super) fn write(
        &mut self,
        operand: Operand,
        prime: PrimeIndex,
        block: usize,
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
        ensure(
            slot.sent == 0 && !slot.awaits,
            || place,
            || format!("{operand:?} is written while a collective is under way that uses it"),
        )?;
        let step = place.step + 1;
        ensure(slot.written != step, || place, || format!("{operand:?} is written twice in one step"))?;
        let unread = slot.read.0 != step || slot.read.1 == Reader::Block(block);
        ensure(unread, || place, || format!("{operand:?} is written while the same step reads it"))?;
        slot.written = step;
        slot.holds = Some(prime);
        Ok(())
    }
}

/// Collectives.
impl<'a> Checker<'a> {
    fn start(&mut self, collective: &'a Collective, place: Place) -> Result<(), ArtifactError> {
        self.stage(collective.stage, place)?;
        match &collective.movement {
            Movement::Exchange { sends, receives } => {
                for outgoing in sends {
                    self.read_limb(outgoing.limb, outgoing.prime, Reader::Several, place)?;
                    if let Some(slot) = self.slot(outgoing.limb) {
                        slot.sent += 1;
                    }
                }
                for incoming in receives {
                    self.write(incoming.limb, incoming.prime, 0, place)?;
                    self.await_limb(incoming.limb);
                }
            }
            Movement::AllReduce { limbs } => {
                for (index, &(prime, limb)) in limbs.iter().enumerate() {
                    self.read_limb(limb, prime, Reader::Block(index), place)?;
                    self.write(limb, prime, index, place)?;
                    self.await_limb(limb);
                }
            }
        }
        self.started.push(collective);
        Ok(())
    }

    fn finish(&mut self, number: u32, place: Place) -> Result<(), ArtifactError> {
        let next = self.started.get(self.finished).filter(|_| number as usize == self.finished);
        let collective: &Collective = *next.ok_or_else(|| {
            inconsistent(place, format!("it waits for collective {number}, which is not the next under way"))
        })?;
        self.finished += 1;
        match &collective.movement {
            Movement::Exchange { sends, receives } => {
                receives.iter().for_each(|incoming| self.arrive(incoming.limb, incoming.prime));
                for outgoing in sends {
                    if let Some(slot) = self.slot(outgoing.limb) {
                        slot.sent -= 1;
                    }
                }
            }
            Movement::AllReduce { limbs } => limbs.iter().for_each(|&(prime, limb)| self.arrive(limb, prime)),
        }
        Ok(())
    }

    /// What is received holds nothing until it is there.
    fn await_limb(&mut self, limb: Operand) {
        if let Some(slot) = self.slot(limb) {
            (slot.awaits, slot.holds) = (true, None);
        }
    }

    fn arrive(&mut self, limb: Operand, prime: PrimeIndex) {
        if let Some(slot) = self.slot(limb) {
            (slot.awaits, slot.holds) = (false, Some(prime));
        }
    }

    /// The slot of a limb that can be written.
    fn slot(&mut self, operand: Operand) -> Option<&mut Slot> {
        match operand {
            Operand::Local(i) => self.locals.get_mut(i as usize),
            Operand::Result(i) => self.results.get_mut(i as usize),
            Operand::Arg(_) | Operand::Plain { .. } | Operand::Key { .. } => None,
        }
    }

    /// Nothing is on its way at calls and at the end.
    fn settled(&self, place: Place) -> Result<(), ArtifactError> {
        ensure(
            self.finished == self.started.len(),
            || place,
            || format!("collective {} is not waited for", self.finished),
        )
    }
}
