//! What bootstraps do to slots, measured at their first calls and applied at all others.
//!
//! In the clear a bootstrap is known: the parts of a slot go through its sine, what does not repeat with its period cancels,
//! and the rest is error that does not depend on which slot it is. So two numbers a part say what a call adds: how far it
//! is from that sine without the errors of the scheme (the polynomial in place of the sine), and with them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cerium_ckks::params::Params;
use num_complex::Complex64;

use super::super::interpret::Perturb;
use super::super::{Function, Op, Slots};
use super::errors::{Errors, Gaussian, Raises, SplitMix};
use crate::bootstrap::Refresh;
use crate::ir::{Node, Symbol};

/// Slots of a function and a magnitude that are looked at before calls are no longer run: their deviation is then known to
/// about one in a hundred.
const ENOUGH: usize = 1 << 12;

/// Magnitudes below two to this power are not told apart: beside them, errors are those of the zero message.
const LEAST_LOG_MAGNITUDE: f64 = -12.0;

/// A function that is further than this from giving its argument back is run whatever its name.
const FAITHFUL: f64 = 1.0 / 256.0;

/// The responses of all bootstraps of a program, and the calls of the pair of runs in progress.
pub(super) struct Bootstraps {
    gain: f64,
    normal: Gaussian,
    seeds: SplitMix,
    responses: HashMap<Key, Response>,
    /// What the clean run decided for each call, in order; the noisy run, in which the same calls come, takes them out.
    calls: VecDeque<(Key, Option<u64>)>,
    /// The call whose body is being run.
    running: Option<Key>,
}

/// A function, and the logarithm of the magnitude of its arguments.
type Key = (Symbol, i32);

/// Squares of what is left of the results when the sine is taken off.
#[derive(Default)]
struct Response {
    clean: Parts,
    noisy: Parts,
}

#[derive(Default)]
struct Parts {
    squares: [f64; 2],
    count: usize,
}

impl Parts {
    fn observe(&mut self, difference: Complex64) {
        self.squares[0] += difference.re * difference.re;
        self.squares[1] += difference.im * difference.im;
        self.count += 1;
    }

    fn variances(&self) -> [f64; 2] {
        self.squares.map(|squares| squares / self.count.max(1) as f64)
    }
}

impl Response {
    fn is_known(&self) -> bool {
        let faithful = self.clean.variances().iter().all(|variance| variance.sqrt() < FAITHFUL);
        self.clean.count >= ENOUGH && faithful
    }
}

impl Bootstraps {
    /// Nothing known.
    pub(super) fn new(params: &Params) -> Bootstraps {
        Bootstraps {
            gain: params.bootstrap().map_or(1.0, |levels| levels.gain),
            normal: Gaussian::new(0),
            seeds: SplitMix(0),
            responses: HashMap::new(),
            calls: VecDeque::new(),
            running: None,
        }
    }

    /// What a bootstrap makes of a value before errors.
    fn refresh(&self, refresh: Refresh, slots: &Slots) -> Slots {
        let period = refresh.log_slots.map_or(slots.len(), |log| slots.len().min(1 << log));
        let mut mean = vec![Complex64::ZERO; period];
        for copy in slots.chunks(period) {
            mean.iter_mut().zip(copy).for_each(|(sum, x)| *sum += x);
        }
        let copies = (slots.len() / period) as f64;
        let sine = |x: f64| self.gain * (x / copies / self.gain).sin();
        for x in &mut mean {
            *x = Complex64::new(sine(x.re), if refresh.complex { sine(x.im) } else { 0.0 });
        }
        mean.iter().copied().cycle().take(slots.len()).collect()
    }

    /// The results of a call in a clean run, if they are known.
    fn clean(&mut self, callee: &Symbol, args: &[Arc<Slots>]) -> Option<Vec<Slots>> {
        let refresh = Refresh::of(callee)?;
        let squares: f64 = args.iter().flat_map(|slots| slots.iter()).map(Complex64::norm_sqr).sum();
        let count: usize = args.iter().map(|slots| slots.len()).sum();
        let log_magnitude = 0.5 * (squares / count.max(1) as f64).log2();
        let key = (callee.clone(), log_magnitude.max(LEAST_LOG_MAGNITUDE).floor() as i32);
        let known = self.responses.entry(key.clone()).or_default().is_known();
        let seed = known.then(|| self.seeds.next());
        self.running = seed.is_none().then(|| key.clone());
        let results = seed.map(|seed| self.known(refresh, &key, args, seed));
        self.calls.push_back((key, seed));
        results
    }

    /// The same in the noisy run that follows: before the errors of the scheme, whose deviations by part come with them.
    fn noisy(&mut self, callee: &Symbol, args: &[Arc<Slots>]) -> Option<(Vec<Slots>, [f64; 2])> {
        let refresh = Refresh::of(callee)?;
        let (key, seed) = self.calls.pop_front().expect("both runs of a program make the same calls");
        self.running = seed.is_none().then(|| key.clone());
        let results = self.known(refresh, &key, args, seed?);
        let response = &self.responses[&key];
        let (clean, noisy) = (response.clean.variances(), response.noisy.variances());
        Some((results, [0, 1].map(|part| (noisy[part] - clean[part]).max(0.0).sqrt())))
    }

    fn known(&self, refresh: Refresh, key: &Key, args: &[Arc<Slots>], seed: u64) -> Vec<Slots> {
        let deviations = self.responses[key].clean.variances().map(f64::sqrt);
        let mut random = SplitMix(seed);
        let result = |slots: &Arc<Slots>| {
            let mut slots = self.refresh(refresh, slots);
            self.normal.add(&mut slots, deviations, &mut random);
            slots
        };
        args.iter().map(result).collect()
    }

    /// After a call that was run, clean or noisy.
    fn observe(
        &mut self,
        callee: &Symbol,
        args: &[Arc<Slots>],
        results: &[Arc<Slots>],
        of: fn(&mut Response) -> &mut Parts,
    ) {
        let Some(refresh) = Refresh::of(callee) else { return };
        let key = self.running.take().expect("bootstraps do not call bootstraps");
        for (slots, result) in args.iter().zip(results) {
            let expected = self.refresh(refresh, slots);
            let parts = of(self.responses.entry(key.clone()).or_default());
            result.iter().zip(&expected).for_each(|(x, y)| parts.observe(x - y));
        }
    }
}

/// A run without the errors of the scheme.
pub(super) struct Clean<'a> {
    pub(super) bootstraps: &'a mut Bootstraps,
    pub(super) raises: Raises,
}

impl Perturb for Clean<'_> {
    fn raise(&mut self, slots: &mut Slots) {
        self.raises.raise(slots);
    }

    fn call(&mut self, callee: &Function, args: &[Arc<Slots>]) -> Option<Vec<Slots>> {
        self.bootstraps.clean(&callee.name, args)
    }

    fn called(&mut self, callee: &Function, args: &[Arc<Slots>], results: &[Arc<Slots>]) {
        self.bootstraps.observe(&callee.name, args, results, |response| &mut response.clean);
    }
}

/// The run with them, after a clean one.
pub(super) struct Noisy<'a> {
    pub(super) bootstraps: &'a mut Bootstraps,
    pub(super) errors: Errors<'a>,
}

impl Perturb for Noisy<'_> {
    fn raise(&mut self, slots: &mut Slots) {
        self.errors.raise(slots);
    }

    fn cipher(&mut self, function: &Function, node: &Node<Op>, slots: &mut Arc<Slots>) {
        self.errors.cipher(function, node, slots);
    }

    fn plain(&mut self, function: &Function, node: &Node<Op>, slots: &mut Arc<Slots>) {
        self.errors.plain(function, node, slots);
    }

    fn call(&mut self, callee: &Function, args: &[Arc<Slots>]) -> Option<Vec<Slots>> {
        let (mut results, deviations) = self.bootstraps.noisy(&callee.name, args)?;
        results.iter_mut().for_each(|slots| self.errors.add_parts(slots, deviations));
        Some(results)
    }

    fn called(&mut self, callee: &Function, args: &[Arc<Slots>], results: &[Arc<Slots>]) {
        self.bootstraps.observe(&callee.name, args, results, |response| &mut response.noisy);
    }
}
