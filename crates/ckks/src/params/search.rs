//! Search for primes and windows: levels of any scale from whole 32-bit primes (rational rescaling).
//!
//! Q is ordered terminal primes, then main primes, and every level is a window that straddles the border: the
//! last k terminal primes and the first j main primes. Two patterns give levels of s bits each:
//!
//! - *Stacked*, for s that is a multiple of a prime's size: k is fixed (the primes of level 0) and each level
//!   adds c main primes of s/c bits.
//! - *Sawtooth*, for s between one large and two small primes. Let m be the size of a main prime in bits and
//!   s = m u/g for small u and g. Sizes of levels are multiples of the unit m/g, and terminal primes of m -
//!   m/g bits reach all of them: k terminal primes are k units short of k main primes. So a level of U units
//!   is made of k = -U mod g terminal primes and j = (U - (g - 1) k)/g main primes.
//!
//! The top level is all of Q, the most terminal and the most main primes of any level, so that no prime
//! weighs on security without carrying a message. In a sawtooth its step down is therefore some bits longer
//! than asked for, which gives fresh ciphertexts a larger scale.
//!
//! Levels need not all be equally long: those of bootstrapping have more bits than the scale. The unit of a
//! sawtooth then is one in which all lengths are whole numbers.

use super::{BootstrapSpec, ParamsError, ParamsSpec, Window};
use crate::primes;

/// Sizes of primes in bits that the search aims at: what a modulus may be, less some room at the lower end.
const MIN_BITS: f64 = 20.6;
const MAX_BITS: f64 = 30.0;
/// Most primes of one key-switching digit, or of P: what one base conversion takes.
pub const MAX_DIGIT: usize = 16;

/// What a parameter set shall offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal<'a> {
    pub(super) log_n: u8,
    /// Target of level 0 in bits; its modulus over its scale is the room for the message.
    pub(super) log_base: u8,
    /// Bits by which level 0 may miss its target.
    pub(super) base_slack: u8,
    pub(super) log_scale: u8,
    /// Levels above level 0 from the bottom up, in runs of equally long ones: (levels, bits).
    pub(super) levels: &'a [(u8, u8)],
    /// Most key-switching digits.
    pub(super) dnum: u8,
    /// Bits of P. What P has beyond the largest digit makes the noise of key switching smaller.
    pub(super) log_p: LogP,
    pub(super) bootstrap: Option<BootstrapSpec>,
    pub(super) insecure: bool,
}

/// Size of P.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogP {
    /// So many bits.
    Bits(u16),
    /// So many bits more than the largest digit.
    Beyond(u16),
}

/// How levels are made of primes: the bits of a terminal and of a main prime, and their numbers at each
/// level.
struct Pattern {
    terminal_bits: f64,
    main_bits: f64,
    /// (terminal, main) of each level; the last one has the most of both.
    counts: Vec<(usize, usize)>,
}

impl Goal<'_> {
    /// Finds the primes.
    pub(super) fn search(&self, name: &str) -> Result<ParamsSpec, ParamsError> {
        let base = f64::from(self.log_base);
        self.stacked()
            .into_iter()
            .chain(self.sawtooths())
            .min_by(|a, b| a.cost(base).total_cmp(&b.cost(base)))
            .and_then(|pattern| self.realize(name, &pattern))
            .ok_or(ParamsError::Unreachable {
                log_n: self.log_n.into(),
                log_scale: self.log_scale.into(),
                levels: self.steps().count() as u32,
            })
    }

    /// Bits of each level above level 0, from the bottom up.
    fn steps(&self) -> impl Iterator<Item = f64> {
        self.levels.iter().flat_map(|&(count, bits)| std::iter::repeat_n(f64::from(bits), count.into()))
    }

    /// The pattern with whole primes in each level, if primes of such a size exist.
    fn stacked(&self) -> Option<Pattern> {
        let split = |bits: u8| {
            let count = (f64::from(bits) / MAX_BITS).ceil();
            Some((count as usize, f64::from(bits) / count)).filter(|&(_, size)| size >= MIN_BITS)
        };
        let (base_len, terminal_bits) = split(self.log_base)?;
        let (_, main_bits) = split(self.log_scale)?;
        let main = sums(0, self.steps().map(|bits| whole(bits / main_bits)))?;
        let counts = main.into_iter().map(|main_len| (base_len, main_len)).collect();
        Some(Pattern { terminal_bits, main_bits, counts })
    }

    /// All sawtooth patterns with up to 8 units in a main prime.
    fn sawtooths(&self) -> impl Iterator<Item = Pattern> {
        let (s, base, slack) =
            (f64::from(self.log_scale), f64::from(self.log_base), f64::from(self.base_slack));
        (2..=8).flat_map(move |g| {
            let (least, most) = (s * g as f64 / MAX_BITS, s * g as f64 / MIN_BITS);
            (least.ceil() as usize..=most as usize).flat_map(move |u| {
                let unit = s / u as f64;
                let base_units = ((base - slack) / unit).ceil() as usize..=((base + slack) / unit) as usize;
                base_units.filter_map(move |base_units| self.sawtooth(u, g, base_units))
            })
        })
    }

    /// The sawtooth in which the scale is `u` units, main primes are `g`, and level 0 is `base_units`; if all
    /// levels are whole units and none has too few for its terminal primes.
    fn sawtooth(&self, u: usize, g: usize, base_units: usize) -> Option<Pattern> {
        let unit = f64::from(self.log_scale) / u as f64;
        let (terminal_bits, main_bits) = (unit * (g - 1) as f64, unit * g as f64);
        if terminal_bits < MIN_BITS {
            return None;
        }
        let units = sums(base_units, self.steps().map(|bits| whole(bits / unit)))?;
        let (top_units, below) = units.split_last()?;
        let level = |&units: &usize| {
            let k = (g - units % g) % g;
            Some((k, units.checked_sub((g - 1) * k)? / g))
        };
        let mut counts = below.iter().map(level).collect::<Option<Vec<_>>>()?;
        let k_max = counts.iter().map(|c| c.0).max()?;
        let j_max = counts.iter().map(|c| c.1).max()?;
        let size = |&(k, j): &(usize, usize)| (g - 1) * k + g * j;
        let top = (k_max..=k_max + 2).flat_map(|k| (j_max..=j_max + 2).map(move |j| (k, j)));
        counts.push(top.filter(|c| size(c) >= *top_units).min_by_key(size)?);
        Some(Pattern { terminal_bits, main_bits, counts })
    }

    /// Chooses the primes of a pattern. `None` if there are too few or the digits too large.
    fn realize(&self, name: &str, pattern: &Pattern) -> Option<ParamsSpec> {
        let log_n = u32::from(self.log_n);
        let &(terminal_len, main_len) = pattern.counts.last()?;
        let ideal: Vec<f64> = std::iter::repeat_n(pattern.terminal_bits, terminal_len)
            .chain(std::iter::repeat_n(pattern.main_bits, main_len))
            .collect();
        let (_, digit_bits) = digits(&ideal, self.dnum.into())?;
        let p_bits = match self.log_p {
            LogP::Bits(bits) => f64::from(bits),
            LogP::Beyond(bits) => digit_bits + f64::from(bits),
        };
        let p_len = (p_bits / MAX_BITS).ceil().max(1.0);

        // P first, so that it gets the largest primes where it needs them.
        let p = nearest(log_n, (p_bits / p_len).clamp(MIN_BITS, MAX_BITS), p_len as usize, &[])?;
        let mut used = p.clone();
        let mut main = nearest(log_n, pattern.main_bits, main_len, &used)?;
        balance(&mut main);
        used.extend(&main);

        // Terminal primes one by one, each making up for the errors of those before it. Where main primes had
        // to stay below 2^30, terminal primes shrink with them.
        let mean = main.iter().map(|&q| log2(q)).sum::<f64>() / main_len as f64;
        let target = pattern.terminal_bits * (mean / pattern.main_bits).min(1.0);
        let mut terminal = Vec::new();
        let mut sum = 0.0;
        for i in 1..=terminal_len {
            let q = *nearest(log_n, target * i as f64 - sum, 1, &used)?.first()?;
            sum += log2(q);
            used.push(q);
            terminal.push(q);
        }

        let q: Vec<u32> = terminal.into_iter().rev().chain(main).collect();
        let window = |&(k, j): &(usize, usize)| Window {
            start: (terminal_len - k) as u8,
            end: (terminal_len + j) as u8,
        };
        let levels = pattern.counts.iter().map(window).collect();
        let bits: Vec<f64> = q.iter().map(|&q| log2(q)).collect();
        let (digits, _) = digits(&bits, self.dnum.into())?;
        let Goal { log_n, log_scale, bootstrap, insecure, .. } = *self;
        Some(ParamsSpec {
            name: name.to_owned(),
            log_n,
            log_scale,
            q,
            p,
            levels,
            digits,
            bootstrap,
            insecure,
        })
    }
}

impl Pattern {
    /// What to keep small: limbs at all levels, the bits of the top level, and the miss of level 0.
    fn cost(&self, log_base: f64) -> f64 {
        let bits = |&(k, j): &(usize, usize)| k as f64 * self.terminal_bits + j as f64 * self.main_bits;
        let limbs: usize = self.counts.iter().map(|(k, j)| k + j).sum();
        let miss = self.counts.first().map_or(0.0, |c| (bits(c) - log_base).abs());
        limbs as f64 + self.counts.last().map_or(0.0, bits) / 4.0 + miss / 4.0
    }
}

/// `x` if it is a whole number, but for the rounding of a division.
fn whole(x: f64) -> Option<usize> {
    Some(x.round()).filter(|whole| (whole - x).abs() < 1e-9).map(|whole| whole as usize)
}

/// `first` and the sums of it and the steps up to each. `None` if there is a step of none.
fn sums(first: usize, steps: impl Iterator<Item = Option<usize>>) -> Option<Vec<usize>> {
    let sums = steps.scan(first, |sum, step| {
        Some(step.map(|step| {
            *sum += step;
            *sum
        }))
    });
    std::iter::once(Some(first)).chain(sums).collect()
}

/// The `count` primes nearest to 2^`bits` on the logarithmic scale, from those a modulus may be and not in
/// `used`.
fn nearest(log_n: u32, bits: f64, count: usize, used: &[u32]) -> Option<Vec<u32>> {
    let centre = bits.clamp(MIN_BITS, MAX_BITS).exp2() as u32;
    let fresh = |q: &u32| !used.contains(q);
    let mut below = primes::ntt_primes_below(log_n, centre).map(|q| q.value()).filter(fresh).peekable();
    let mut above = primes::ntt_primes_above(log_n, centre - 1).map(|q| q.value()).filter(fresh).peekable();
    (0..count)
        .map(|_| match (below.peek(), above.peek()) {
            (Some(&b), Some(&a)) if log2(a) - bits < bits - log2(b) => above.next(),
            (None, Some(_)) => above.next(),
            _ => below.next(),
        })
        .collect()
}

/// Orders primes so that the product of every prefix stays near the mean: largest and smallest in turn.
fn balance(primes: &mut Vec<u32>) {
    primes.sort_unstable();
    let mean = primes.iter().map(|&q| log2(q)).sum::<f64>() / primes.len().max(1) as f64;
    let mut rest: std::collections::VecDeque<u32> = primes.drain(..).collect();
    let mut excess = 0.0;
    while let Some(q) = if excess > 0.0 { rest.pop_front() } else { rest.pop_back() } {
        excess += log2(q) - mean;
        primes.push(q);
    }
}

/// Cuts primes of the given sizes, in order, into at most `dnum` digits of which the largest is as small as
/// can be. Returns the number of primes in each and the bits of the largest.
fn digits(bits: &[f64], dnum: usize) -> Option<(Vec<u8>, f64)> {
    let greedy = |capacity: f64| {
        let mut digits: Vec<(u8, f64)> = Vec::new();
        for &size in bits {
            match digits.last_mut() {
                Some((len, sum)) if *sum + size <= capacity && usize::from(*len) < MAX_DIGIT => {
                    *len += 1;
                    *sum += size;
                }
                _ => digits.push((1, size)),
            }
        }
        let largest = digits.iter().map(|d| d.1).fold(0.0, f64::max);
        (digits.iter().map(|d| d.0).collect::<Vec<u8>>(), largest)
    };
    let total: f64 = bits.iter().sum();
    // Capacities in quarter bits; the last one takes everything, unless digits run full.
    let steps = (total * 4.0) as usize + 1;
    (1..=steps).map(|quarters| greedy(quarters as f64 / 4.0)).find(|(digits, _)| digits.len() <= dnum)
}

fn log2(q: u32) -> f64 {
    f64::from(q).log2()
}
