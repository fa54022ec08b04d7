//! Random functions of several devices, made side by side: the same calls and collectives on all, each with kernels of its own.

use std::collections::VecDeque;

use cerium_artifact::*;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::Params;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::function::Builder;
use super::{STAGES, below, random_primes};

/// Most collectives under way at a time.
const UNDER_WAY: usize = 3;

/// What a function takes and returns, on all devices together.
#[derive(Clone)]
pub(super) struct Signature {
    pub(super) args: Vec<PrimeIndex>,
    pub(super) results: Vec<PrimeIndex>,
    pub(super) weight_params: u32,
}

/// Makes one function on all devices.
pub(super) struct Team<'a> {
    rng: &'a mut ChaCha8Rng,
    params: &'a Params,
    /// By device.
    builders: Vec<Builder<'a>>,
    /// The functions that it may call: as many on each device.
    earlier: Vec<Vec<Function>>,
    weight_params: u32,
    /// Collectives under way: movements by device.
    under_way: VecDeque<Vec<Movement>>,
    finished: u32,
}

impl<'a> Team<'a> {
    pub(super) fn new(
        rng: &'a mut ChaCha8Rng,
        params: &'a Params,
        keys: &'a [KeyRequest],
        homes: &[DeviceId],
        programs: &[Vec<Function>],
        signature: &Signature,
    ) -> Team<'a> {
        let mut builders = Vec::with_capacity(programs.len());
        for (device, earlier) in programs.iter().enumerate() {
            let home = |prime: &PrimeIndex| homes.get(prime.index()).map_or(0, |home| home.index());
            let own = |primes: &[PrimeIndex]| {
                primes.iter().copied().filter(|prime| home(prime) == device).collect()
            };
            let own = Signature {
                args: own(&signature.args),
                results: own(&signature.results),
                weight_params: signature.weight_params,
            };
            let name = format!("f{}", earlier.len());
            let rng = ChaCha8Rng::seed_from_u64(rng.next_u64());
            builders.push(Builder::new(rng, params, keys, name, own));
        }
        let (earlier, weight_params) = (programs.to_vec(), signature.weight_params);
        let (under_way, finished) = (VecDeque::new(), 0);
        Team { rng, params, builders, earlier, weight_params, under_way, finished }
    }

    /// Adds the function to the programs.
    pub(super) fn build(mut self, programs: &mut [Vec<Function>]) {
        let several = self.builders.len() > 1;
        for _ in 0..if several { 20 } else { 12 } {
            self.builders.iter_mut().for_each(Builder::step);
            match below(self.rng, 8) {
                0 => self.call(),
                1 if several => self.start(Team::exchange),
                2 if several => self.start(Team::sums),
                3 if several => self.finish(),
                _ => self.kernels(),
            }
        }
        self.builders.iter_mut().for_each(Builder::step);
        if several {
            self.start(Team::exchange_of_results);
        }
        let received = self.received();
        for (builder, received) in self.builders.iter_mut().zip(received) {
            builder.end(&received);
        }
        while !self.under_way.is_empty() {
            self.finish();
        }
        for (program, builder) in programs.iter_mut().zip(self.builders) {
            program.push(builder.function());
        }
    }

    /// A kernel on most devices.
    fn kernels(&mut self) {
        for builder in &mut self.builders {
            if below(self.rng, 4) > 0 {
                builder.kernel();
            }
        }
    }

    /// A call, if operands are found on all devices.
    fn call(&mut self) {
        let Some(callee) = below(self.rng, self.earlier[0].len() + 1).checked_sub(1) else { return };
        while !self.under_way.is_empty() {
            self.finish();
        }
        let operands = self.builders.iter_mut().zip(&self.earlier);
        let operands = operands.map(|(builder, earlier)| builder.call_operands(&earlier[callee]));
        // Not all at once: the operands of each are marked.
        let Some(operands) = operands.collect::<Option<Vec<_>>>() else { return };
        let weight = match below(self.rng, 4) {
            3 if self.weight_params > 0 => WeightRef::Param(0),
            i => WeightRef::Weight(WeightId([1, 2, 4, 7][i % 4])),
        };
        let stage = self.stage();
        for (device, (args, results)) in operands.into_iter().enumerate() {
            let primes = self.earlier[device][callee].results.iter().copied();
            self.builders[device].hold(results.iter().copied().zip(primes).collect());
            let function = FunctionId(callee as u32);
            self.builders[device].push(Step::Call { stage, function, args, results, weights: vec![weight] });
        }
    }

    /// Starts a collective, unless enough of them are under way.
    fn start(&mut self, make: fn(&mut Self) -> Vec<Movement>) {
        if self.under_way.len() == UNDER_WAY {
            self.finish();
        }
        let movements = make(self);
        let stage = self.stage();
        for (builder, movement) in self.builders.iter_mut().zip(&movements) {
            builder.depart(movement);
            builder.push(Step::Start(Collective { stage, movement: movement.clone() }));
        }
        self.under_way.push_back(movements);
    }

    /// Finishes the oldest collective under way.
    fn finish(&mut self) {
        let Some(movements) = self.under_way.pop_front() else { return };
        for (builder, movement) in self.builders.iter_mut().zip(&movements) {
            builder.arrive(movement);
            builder.push(Step::Finish(self.finished));
        }
        self.finished += 1;
    }

    /// Any limbs from any device to any other.
    fn exchange(&mut self) -> Vec<Movement> {
        let devices = self.builders.len();
        let mut limbs = Limbs::new(devices);
        for _ in 0..below(self.rng, 3 * devices) {
            let from = below(self.rng, devices);
            let to = (from + 1 + below(self.rng, devices - 1)) % devices;
            if let Some(receive) = self.builders[to].receiving()
                && let Some((prime, send)) = self.builders[from].sendable(None)
            {
                limbs.push(from, to, prime, send, receive);
            }
        }
        limbs.movements(self.rng)
    }

    /// Results that other devices have made.
    fn exchange_of_results(&mut self) -> Vec<Movement> {
        let devices = self.builders.len();
        let mut limbs = Limbs::new(devices);
        for to in 0..devices {
            for (index, prime) in self.builders[to].results().to_vec().into_iter().enumerate() {
                let from = (to + 1 + below(self.rng, devices - 1)) % devices;
                if below(self.rng, 3) == 0
                    && let Some((prime, send)) = self.builders[from].sendable(Some(prime))
                {
                    limbs.push(from, to, prime, send, Operand::Result(index as u32));
                }
            }
        }
        limbs.movements(self.rng)
    }

    /// Sums over all devices.
    fn sums(&mut self) -> Vec<Movement> {
        let mut limbs = vec![Vec::new(); self.builders.len()];
        for _ in 0..6 {
            let prime = random_primes(self.rng, self.params, 1)[0];
            let slots = self.builders.iter_mut().map(|builder| builder.summand(prime));
            if let Some(slots) = slots.collect::<Option<Vec<Operand>>>() {
                limbs.iter_mut().zip(slots).for_each(|(limbs, slot)| limbs.push((prime, slot)));
            }
        }
        limbs.into_iter().map(|limbs| Movement::AllReduce { limbs }).collect()
    }

    /// The results that are on their way to each device.
    fn received(&self) -> Vec<Vec<Operand>> {
        let limbs = |device: usize| {
            let movements = self.under_way.iter().map(move |movements| &movements[device]);
            movements.flat_map(|movement| match movement {
                Movement::Exchange { receives, .. } => receives.iter().map(|limb| limb.limb).collect(),
                Movement::AllReduce { .. } => Vec::new(),
            })
        };
        (0..self.builders.len()).map(|device| limbs(device).collect()).collect()
    }

    fn stage(&mut self) -> StageId {
        StageId(below(self.rng, STAGES) as u16)
    }
}

/// What an exchange moves, by device.
struct Limbs {
    sends: Vec<Vec<Outgoing>>,
    receives: Vec<Vec<Incoming>>,
}

impl Limbs {
    fn new(devices: usize) -> Limbs {
        Limbs { sends: vec![Vec::new(); devices], receives: vec![Vec::new(); devices] }
    }

    fn push(&mut self, from: usize, to: usize, prime: PrimeIndex, send: Operand, receive: Operand) {
        self.sends[from].push(Outgoing { to: DeviceId(to as u16), prime, limb: send });
        self.receives[to].push(Incoming { from: DeviceId(from as u16), prime, limb: receive });
    }

    /// Only between two devices is there an order: some list what they give or get by peer.
    fn movements(self, rng: &mut ChaCha8Rng) -> Vec<Movement> {
        let ends = self.sends.into_iter().zip(self.receives);
        let movement = |(mut sends, mut receives): (Vec<Outgoing>, Vec<Incoming>)| {
            if below(rng, 2) == 0 {
                sends.sort_by_key(|limb| limb.to);
            }
            if below(rng, 2) == 0 {
                receives.sort_by_key(|limb| std::cmp::Reverse(limb.from));
            }
            Movement::Exchange { sends, receives }
        };
        ends.map(movement).collect()
    }
}
