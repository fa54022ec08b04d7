//! Many devices: one module becomes one for each device.
//!
//! Limbs of a polynomial are spread by prime: every prime has a *home*, and functions take and return limbs on their homes.
//! Almost all operations stay within a prime; only base conversions mix primes, so that all communication is for them. Which
//! device makes which value is data ([`placement`]), and every choice is made by an estimate of time ([`costs`]):
//!
//! - *Input broadcast*: what a conversion reads goes to the homes of what it makes. Equal limbs go once, however many
//!   rotations share them, and all limbs that can go at the same time go in one collective ([`rounds`]).
//! - *Groups* ([`groups`]): parts of a function that share no ciphertexts run side by side, each on a part of the devices;
//!   independent calls of a function are such parts ([`concurrency`]).
//! - *Output aggregation* ([`aggregation`]): where many key switches are added up, each is done as a whole on one device, and
//!   the sums of the devices are added at the home of each limb.
//! - *Recomputation* ([`recomputation`]): limbs that are needed everywhere and are cheaply made from limbs that are there
//!   anyway, such as those of P before a division by P, are made on every device and need not be sent.
//! - *All-reduce* ([`all_reduce`]): sums over devices that are needed everywhere take one collective instead of two.
//!
//! Then [`project`] writes the function of each device, with collectives as operations, in an order in which what others wait
//! for comes first. Sums over devices are ordinary additions of limbs, so the results have the same bits on any number of
//! devices.

mod aggregation;
mod all_reduce;
mod concurrency;
mod costs;
mod exchanges;
mod groups;
mod placement;
mod project;
mod recomputation;
mod rounds;
mod set;
mod switches;

use std::collections::BTreeMap;

use cerium_artifact::DeviceId;
use cerium_artifact::cost::Traffic;
use cerium_ckks::basis::PrimeIndex;

use super::{Function, Module, Op};
use costs::Costs;
use exchanges::Exchanges;
use placement::{Choices, Placement};
use rounds::Rounds;

pub use costs::Link;

/// How a program is spread over devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Number of devices, 1 to [`cerium_artifact::MAX_DEVICES`].
    pub devices: usize,
    /// What connects them.
    pub link: Link,
    /// The last of the communication passes that run.
    pub communication: Communication,
}

impl Default for DeviceOptions {
    /// One device.
    fn default() -> DeviceOptions {
        DeviceOptions { devices: 1, link: Link::default(), communication: Communication::AllReduce }
    }
}

/// The communication passes in order; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Communication {
    /// Parallel key switching alone: every key switch and every division gets the limbs that it needs for itself.
    KeySwitching,
    /// What several need is received once, and all that can be sent at the same time is one collective.
    Receives,
    /// Parts that share no ciphertexts run on groups of devices, independent calls of a function among them.
    Groups,
    /// Sums of key switches are aggregated.
    Aggregation,
    /// What is cheaply made is not sent.
    Recomputation,
    /// Sums that are needed everywhere are all-reduced.
    AllReduce,
}

impl Communication {
    /// All of them in order.
    pub const ALL: [Communication; 6] = [
        Communication::KeySwitching,
        Communication::Receives,
        Communication::Groups,
        Communication::Aggregation,
        Communication::Recomputation,
        Communication::AllReduce,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Communication::KeySwitching => "key_switching",
            Communication::Receives => "receives",
            Communication::Groups => "groups",
            Communication::Aggregation => "aggregation",
            Communication::Recomputation => "recomputation",
            Communication::AllReduce => "all_reduce",
        }
    }
}

/// A module on several devices.
#[derive(Debug)]
pub struct Placed {
    /// The module of each device. Functions have the same names and stand in the same order.
    pub modules: Vec<Module>,
    /// The home of each prime.
    pub homes: Vec<DeviceId>,
    /// What all devices send in a run of the program after each communication pass that ran.
    pub traffic: Vec<(Communication, Traffic)>,
}

/// Spreads a module over devices.
pub fn place_devices(module: Module, options: &DeviceOptions) -> Placed {
    let devices = options.devices;
    if devices == 1 {
        return Placed { modules: vec![module], homes: Vec::new(), traffic: Vec::new() };
    }
    let log_n = module.context.params.log_n();
    let primes = module.context.params.moduli().len();
    let homes: Vec<DeviceId> = (0..primes).map(|prime| DeviceId((prime % devices) as u16)).collect();
    let costs = Costs::new(&module.context.params, options.link);
    let mut traffic: BTreeMap<Communication, Traffic> = BTreeMap::new();
    let mut count = |pass: Communication, placement: &Placement<'_>, calls: u64| {
        let rounds = Rounds::new(placement);
        let Traffic { collectives, bytes } =
            Exchanges::new(placement, &rounds, pass).traffic(&rounds, devices);
        *traffic.entry(pass).or_default() +=
            Traffic { collectives: calls * collectives, bytes: (calls * bytes) << (log_n + 2) };
    };
    // Every limb at home.
    for (function, calls) in module.functions.iter().zip(calls(&module)) {
        let space = Space { function, homes: &homes, devices, costs: &costs };
        let placement = Placement::new(&space, Choices::new(&space));
        let passes = [Communication::KeySwitching, Communication::Receives].into_iter();
        passes.filter(|&pass| pass <= options.communication).for_each(|pass| count(pass, &placement, calls));
    }
    let module = match options.communication >= Communication::Groups {
        true => concurrency::join_calls(&module, &homes, devices, &costs),
        false => module,
    };
    let mut modules = vec![Module::new(module.context.clone(), module.stages.clone()); devices];
    for (function, calls) in module.functions.iter().zip(calls(&module)) {
        let space = Space { function, homes: &homes, devices, costs: &costs };
        let placement = place(&space, options.communication, |pass, placement| count(pass, placement, calls));
        let rounds = Rounds::new(&placement);
        let exchanges = Exchanges::new(&placement, &rounds, options.communication);
        let placed = project::project(&placement, &rounds, &exchanges, &modules);
        modules.iter_mut().zip(placed).for_each(|(module, function)| module.functions.push(function));
    }
    Placed { modules, homes, traffic: traffic.into_iter().collect() }
}

/// How often a run calls each function.
fn calls(module: &Module) -> Vec<u64> {
    let mut calls = vec![0u64; module.functions.len()];
    calls.last_mut().into_iter().for_each(|entry| *entry = 1);
    for (index, function) in module.functions.iter().enumerate().rev() {
        for node in &function.nodes {
            if let Op::Call { function: callee, .. } = &node.op {
                let (callee, _) = module.find(callee).expect("verified modules call defined functions");
                calls[callee] = calls[callee].saturating_add(calls[index]);
            }
        }
    }
    calls
}

/// What a function is placed on, and by which estimate.
struct Space<'a> {
    function: &'a Function,
    homes: &'a [DeviceId],
    devices: usize,
    costs: &'a Costs,
}

impl Space<'_> {
    /// The home of a prime among all devices.
    fn home(&self, prime: PrimeIndex) -> DeviceId {
        self.homes[prime.index()]
    }
}

/// A pass: what may be better than a placement.
type Pass<'a> = fn(&Placement<'a>) -> Vec<Choices>;

/// Runs the passes on a function; each keeps what makes it faster and shows it to `after`.
fn place<'a>(
    space: &'a Space<'a>,
    last: Communication,
    mut after: impl FnMut(Communication, &Placement<'a>),
) -> Placement<'a> {
    let mut best = Placement::new(space, Choices::new(space));
    let passes: [(Communication, Pass<'a>); 4] = [
        (Communication::Groups, groups::candidates),
        (Communication::Aggregation, aggregation::candidates),
        (Communication::Recomputation, recomputation::candidates),
        (Communication::AllReduce, all_reduce::candidates),
    ];
    for (pass, candidates) in passes.into_iter().filter(|(pass, _)| *pass <= last) {
        // Aggregation takes a collective more, which an all-reduce can take back.
        let looks_ahead = pass == Communication::Aggregation && last >= Communication::AllReduce;
        best = improve(best, candidates, looks_ahead);
        after(pass, &best);
    }
    best
}

/// The cheapest of a placement and its variants; variants of what is chosen are tried until none is cheaper. With
/// `looks_ahead`, a variant is as cheap as its sums over devices can make it.
fn improve<'a>(mut best: Placement<'a>, candidates: Pass<'a>, looks_ahead: bool) -> Placement<'a> {
    let time = |placement: &Placement<'a>| {
        let own = Rounds::new(placement).time(placement);
        let later = if looks_ahead { all_reduce::candidates(placement) } else { Vec::new() };
        let later = later.into_iter().map(|choices| {
            let placement = Placement::new(placement.space, choices);
            Rounds::new(&placement).time(&placement)
        });
        later.fold(own, f64::min)
    };
    let mut least = time(&best);
    loop {
        let tried = candidates(&best).into_iter().map(|choices| {
            let placement = Placement::new(best.space, choices);
            (time(&placement), placement)
        });
        let cheapest = tried.min_by(|a, b| a.0.total_cmp(&b.0));
        match cheapest.filter(|(time, _)| *time < least) {
            Some((time, placement)) => (least, best) = (time, placement),
            None => return best,
        }
    }
}
