//! A random script of collectives, made from a seed that all ranks know, and what it does to the limbs of all ranks, word by
//! word. A rank that plays it needs nobody else to know what its limbs must be.

use cerium_ckks::params::{Params, ParamsSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::collectives::{Collectives, Exchange, Started, Sum};
use crate::device::{Address, Device, DeviceError};

/// That of slot s is the s-th, over and over. Only that they are below 2^30 matters.
const PRIMES: [u32; 3] = [(1 << 30) - 35, 65_537, (1 << 29) - 3];
const SLOTS: usize = 12;

/// Prepares a device with slots of 2^`log_n` words, for [`play`] and nothing else.
///
/// # Panics
/// If `log_n` is no degree of an insecure parameter set.
pub fn prepare(device: &mut dyn Device, log_n: u8) -> Result<(), DeviceError> {
    let params = ParamsSpec::insecure(log_n, 30, 2, 1).and_then(Params::new).expect("a small degree");
    device.prepare(&params, &[], SLOTS as u64, 0)
}

/// A started collective: what slots take part in it, by rank, and what it writes.
struct Underway {
    started: Started,
    taken: Vec<(usize, usize)>,
    writes: Vec<(usize, usize, Vec<u32>)>,
}

/// The choices, and the limbs of all ranks.
struct Script {
    rng: ChaCha8Rng,
    size: usize,
    words: usize,
    /// By rank and slot.
    pools: Vec<Vec<Vec<u32>>>,
    underway: Vec<Underway>,
}

impl Script {
    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    fn random_limb(&mut self, slot: usize) -> Vec<u32> {
        let q = PRIMES[slot % PRIMES.len()];
        // The largest words often: sums of them are where carries are lost.
        let word =
            |rng: &mut ChaCha8Rng| if rng.next_u32().is_multiple_of(4) { q - 1 } else { rng.next_u32() % q };
        (0..self.words).map(|_| word(&mut self.rng)).collect()
    }

    fn is_free(&self, rank: usize, slot: usize) -> bool {
        self.underway.iter().all(|one| !one.taken.contains(&(rank, slot)))
    }

    /// Transfers from a slot of a rank to one of another: (from, slot, to, slot).
    fn transfers(&mut self) -> Vec<(usize, usize, usize, usize)> {
        let mut chosen: Vec<(usize, usize, usize, usize)> = Vec::new();
        for _ in 0..self.below(5 * self.size) {
            let (from, to) = (self.below(self.size), self.below(self.size));
            let (sent, received) = (self.below(SLOTS), self.below(SLOTS));
            let fits = from != to && sent % PRIMES.len() == received % PRIMES.len();
            let free = self.is_free(from, sent) && self.is_free(to, received);
            let receives = |rank, slot| chosen.iter().any(|&(_, _, r, s)| (r, s) == (rank, slot));
            let sends = |rank, slot| chosen.iter().any(|&(r, s, _, _)| (r, s) == (rank, slot));
            if fits && free && !receives(from, sent) && !receives(to, received) && !sends(to, received) {
                chosen.push((from, sent, to, received));
            }
        }
        chosen
    }

    fn start_exchange(&mut self, ranks: &mut dyn Collectives, device: &mut dyn Device) {
        let (own, chosen) = (ranks.rank(), self.transfers());
        let (mut exchange, mut taken, mut writes) = (Exchange::default(), Vec::new(), Vec::new());
        for (from, sent, to, received) in chosen {
            if from == own {
                exchange.sends.push((to, Address(sent as u32)));
            }
            if to == own {
                exchange.receives.push((from, Address(received as u32)));
            }
            taken.extend([(from, sent), (to, received)]);
            writes.push((to, received, self.pools[from][sent].clone()));
        }
        let started = ranks.start(&exchange, device).unwrap();
        self.underway.push(Underway { started, taken, writes });
    }

    fn start_sums(&mut self, ranks: &mut dyn Collectives, device: &mut dyn Device) {
        let size = self.size;
        let mut slots: Vec<usize> = (0..self.below(6)).map(|_| self.below(SLOTS)).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|&slot| (0..size).all(|rank| self.is_free(rank, slot)));
        let q = |slot: usize| PRIMES[slot % PRIMES.len()];
        let sums: Vec<Sum> =
            slots.iter().map(|&slot| Sum { slot: Address(slot as u32), q: q(slot) }).collect();
        let started = ranks.start_sums(&sums, device).unwrap();
        let every = |slot: usize| (0..size).map(move |rank| (rank, slot));
        let taken = slots.iter().copied().flat_map(every).collect();
        let mut writes = Vec::new();
        for &slot in &slots {
            let sum = |word: usize| self.pools.iter().map(|pool| u64::from(pool[slot][word])).sum::<u64>();
            let words: Vec<u32> =
                (0..self.words).map(|word| (sum(word) % u64::from(q(slot))) as u32).collect();
            writes.extend((0..size).map(|rank| (rank, slot, words.clone())));
        }
        self.underway.push(Underway { started, taken, writes });
    }

    /// Finishes one that was started, not always the first.
    fn finish(&mut self, ranks: &mut dyn Collectives, device: &mut dyn Device) {
        if self.underway.is_empty() {
            return;
        }
        let index = self.below(self.underway.len());
        let Underway { started, writes, .. } = self.underway.remove(index);
        ranks.finish(started, device).unwrap();
        let mut words = vec![0; self.words];
        for (rank, slot, expected) in writes {
            if rank == ranks.rank() {
                device.download(Address(slot as u32), &mut words).unwrap();
                assert!(words == expected, "slot {slot} of rank {rank}");
            }
            self.pools[rank][slot] = expected;
        }
    }

    fn gather(&mut self, ranks: &mut dyn Collectives) {
        let sizes: Vec<usize> = (0..self.size).map(|_| self.below(100)).collect();
        let bytes = |&size: &usize, rng: &mut ChaCha8Rng| (0..size).map(|_| rng.next_u32() as u8).collect();
        let all: Vec<Vec<u8>> = sizes.iter().map(|size| bytes(size, &mut self.rng)).collect();
        assert_eq!(ranks.gather(&all[ranks.rank()]).unwrap(), all);
    }

    /// Writes another limb where no collective does anything.
    fn change(&mut self, own: usize, device: &mut dyn Device) {
        let (rank, slot) = (self.below(self.size), self.below(SLOTS));
        let limb = self.random_limb(slot);
        if self.is_free(rank, slot) {
            if rank == own {
                device.upload(Address(slot as u32), &limb).unwrap();
            }
            self.pools[rank][slot] = limb;
        }
    }
}

/// Plays a random script of `steps` steps as one rank on a device that [`prepare`] has prepared, and holds its limbs against the
/// words that they must be. All ranks give the same seed.
///
/// # Panics
/// If a limb has other words, or a collective fails.
pub fn play(ranks: &mut dyn Collectives, device: &mut dyn Device, seed: u64, steps: usize) {
    let (own, size, words) = (ranks.rank(), ranks.size(), device.limb_words());
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let mut script = Script { rng, size, words, pools: Vec::new(), underway: Vec::new() };
    for _ in 0..size {
        let pool = (0..SLOTS).map(|slot| script.random_limb(slot)).collect();
        script.pools.push(pool);
    }
    for (slot, limb) in script.pools[own].iter().enumerate() {
        device.upload(Address(slot as u32), limb).unwrap();
    }
    for _ in 0..steps {
        match script.below(8) {
            0 | 1 => script.start_exchange(ranks, device),
            2 => script.start_sums(ranks, device),
            3 => script.gather(ranks),
            4 | 5 => script.change(own, device),
            _ => script.finish(ranks, device),
        }
    }
    while !script.underway.is_empty() {
        script.finish(ranks, device);
    }
    let mut words = vec![0; script.words];
    for (slot, expected) in script.pools[own].iter().enumerate() {
        device.download(Address(slot as u32), &mut words).unwrap();
        assert!(words == *expected, "slot {slot} of rank {own} at the end");
    }
}
