//! What collectives do to the slots of a random function.

use cerium_artifact::*;
use cerium_ckks::basis::PrimeIndex;

use super::{Builder, FRAME, below};

impl Builder<'_> {
    /// A limb to send, modulo `prime` or any: a slot, or now and then an argument.
    pub(in super::super) fn sendable(&mut self, prime: Option<PrimeIndex>) -> Option<(PrimeIndex, Operand)> {
        let arg = below(&mut self.rng, 4 * self.function.args.len().max(1));
        if let Some(&own) = self.function.args.get(arg)
            && prime.is_none_or(|prime| prime == own)
        {
            return Some((own, Operand::Arg(arg as u32)));
        }
        let slot = self.readable(usize::MAX, prime)?;
        Some((self.holds[slot], Operand::Local(slot as u32)))
    }

    /// A slot for a limb of another device.
    pub(in super::super) fn receiving(&mut self) -> Option<Operand> {
        self.writable(0, |_| false).map(|slot| Operand::Local(slot as u32))
    }

    /// A slot with a part of a sum modulo `prime`, which takes the sum.
    pub(in super::super) fn summand(&mut self, prime: PrimeIndex) -> Option<Operand> {
        let start = below(&mut self.rng, FRAME);
        let slot = (start..start + FRAME).map(|slot| slot % FRAME).find(|&slot| {
            let free = self.sent[slot] == 0 && !self.awaits[slot] && self.writer[slot].is_none();
            free && self.holds[slot] == prime
        })?;
        self.writer[slot] = Some(0);
        Some(Operand::Local(slot as u32))
    }

    /// Notes what a collective that begins does to slots.
    pub(in super::super) fn depart(&mut self, movement: &Movement) {
        let (sends, receives) = ends(movement);
        for slot in sends.into_iter().filter_map(local) {
            self.sent[slot] += 1;
        }
        for (_, slot) in receives.into_iter().filter_map(|(prime, limb)| Some((prime, local(limb)?))) {
            self.awaits[slot] = true;
        }
    }

    /// Notes what a collective that ends does to slots.
    pub(in super::super) fn arrive(&mut self, movement: &Movement) {
        let (sends, receives) = ends(movement);
        for slot in sends.into_iter().filter_map(local) {
            self.sent[slot] -= 1;
        }
        for (prime, slot) in receives.into_iter().filter_map(|(prime, limb)| Some((prime, local(limb)?))) {
            (self.awaits[slot], self.holds[slot]) = (false, prime);
        }
    }
}

/// What a movement sends and what it receives.
fn ends(movement: &Movement) -> (Vec<Operand>, Vec<(PrimeIndex, Operand)>) {
    match movement {
        Movement::Exchange { sends, receives } => (
            sends.iter().map(|outgoing| outgoing.limb).collect(),
            receives.iter().map(|incoming| (incoming.prime, incoming.limb)).collect(),
        ),
        Movement::AllReduce { limbs } => (vec![], limbs.clone()),
    }
}

fn local(operand: Operand) -> Option<usize> {
    match operand {
        Operand::Local(slot) => Some(slot as usize),
        _ => None,
    }
}
