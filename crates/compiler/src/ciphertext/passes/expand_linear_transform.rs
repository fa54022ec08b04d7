//! Expands `linear_transform` into baby and giant steps.
//!
//! ```text
//! %y = linear_transform(%x, %a, %b, %c, %d) {offsets=[0 1 8 9]}
//! ->
//! %r = rotate(%x) {by=1}                                 # baby steps, shared by all giant steps
//! %s = add(mul_plain(%x, %a), mul_plain(%r, %b))
//! %t = add(mul_plain(%x, rotate_plain(%c) {by=-8}), mul_plain(%r, rotate_plain(%d) {by=-8}))
//! %y = add(%s, rotate(%t) {by=8})                        # one giant step
//! ```
//!
//! Every offset is split as `giant + baby`, the baby step being the offset modulo a stride, centered or not. Unless the
//! stride is pinned, the split that takes the least time wins: baby steps rotate one input, so that they share their `mod_up`
//! (hoisting) and stay undivided (see [`sink_divisions`](crate::polynomial::passes::sink_divisions)); a giant step pays for a
//! division and a `mod_up` as well, about 3.5 times as much.
//!
//! A *chain* rotates again and again by the same key instead: `x_{i+1} = rotate(x_i, 1)` for baby steps, and Horner's rule
//! for giant steps.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use cerium_ckks::params::Params;

use super::super::cost::CostModel;
use super::super::{Builder, Module, Op, Steps};
use crate::ir::{ValueId, rewrite::rewrite};

/// Runs the pass.
pub fn expand_linear_transform(module: &mut Module) -> Result<(), Infallible> {
    let params = module.context.params.clone();
    let (slots, time) = (params.slots() as i64, StepTimes::of(&params));
    rewrite(module, |builder, module, op| match op {
        Op::LinearTransform { x, diagonals, offsets, steps } => {
            let offsets: Vec<i64> = offsets.iter().map(|&o| centered(o, slots)).collect();
            let mut expansion = Expansion { builder, module, x: *x, slots };
            let terms = offsets.iter().copied().zip(diagonals.iter().copied());
            Some(vec![match *steps {
                Steps::Chain(stride) => expansion.chain(terms.collect(), stride),
                steps => expansion.split(terms.collect(), Split::new(steps, &offsets, slots, &time)),
            }])
        }
        _ => None,
    });
    Ok(())
}

struct Expansion<'a> {
    builder: &'a mut Builder,
    module: &'a Module,
    x: ValueId,
    slots: i64,
}

impl Expansion<'_> {
    /// Baby steps and giant steps with a key each.
    fn split(&mut self, terms: Vec<(i64, ValueId)>, split: Split) -> ValueId {
        let mut giants: BTreeMap<i64, Vec<(i64, ValueId)>> = BTreeMap::new();
        for &(offset, diagonal) in &terms {
            let baby = split.baby(offset);
            giants.entry(offset - baby).or_default().push((baby, diagonal));
        }
        // All baby rotations come first and in order, next to each other.
        let babies: BTreeSet<i64> = terms.iter().map(|&(offset, _)| split.baby(offset)).collect();
        let rotated: BTreeMap<i64, ValueId> =
            babies.into_iter().map(|by| (by, self.rotate(self.x, by))).collect();
        let mut sum = None;
        for (giant, terms) in giants {
            let inner = self.inner(&rotated, giant, &terms);
            let outer = self.rotate(inner, giant);
            sum = Some(self.add(sum, outer));
        }
        sum.expect("a verified linear_transform has at least one diagonal")
    }

    /// Steps one after the other: one key for baby steps, one for giant steps, one for the lowest offset.
    fn chain(&mut self, terms: Vec<(i64, ValueId)>, stride: i64) -> ValueId {
        let plan = Chain::new(&terms.iter().map(|t| t.0).collect::<Vec<_>>(), stride);
        let mut rotated: BTreeMap<i64, ValueId> = BTreeMap::from([(0, self.x)]);
        for step in 1..=plan.babies {
            let before = rotated[&(plan.unit * (step - 1))];
            let next = self.rotate(before, plan.unit);
            rotated.insert(plan.unit * step, next);
        }
        let mut sum = None;
        for giant in (0..=plan.giants).rev().map(|step| stride * step) {
            sum = sum.map(|sum| self.rotate(sum, stride));
            let here = |&(offset, diagonal): &(i64, ValueId)| {
                let baby = offset - plan.lowest - giant;
                (0..stride).contains(&baby).then_some((baby, diagonal))
            };
            let here: Vec<(i64, ValueId)> = terms.iter().filter_map(here).collect();
            if !here.is_empty() {
                let inner = self.inner(&rotated, giant + plan.lowest, &here);
                sum = Some(self.add(sum, inner));
            }
        }
        let sum = sum.expect("a verified linear_transform has at least one diagonal");
        self.rotate(sum, plan.lowest)
    }

    /// The products of baby steps with diagonals that are rotated back by the giant step to come.
    fn inner(&mut self, rotated: &BTreeMap<i64, ValueId>, giant: i64, terms: &[(i64, ValueId)]) -> ValueId {
        let mut inner = None;
        for (baby, diagonal) in terms {
            let p = match giant {
                0 => *diagonal,
                _ => self.push(Op::RotatePlain { p: *diagonal, by: -giant }),
            };
            let term = self.push(Op::MulPlain { a: rotated[baby], p });
            inner = Some(self.add(inner, term));
        }
        inner.expect("a giant step has at least one diagonal")
    }

    fn rotate(&mut self, a: ValueId, by: i64) -> ValueId {
        if by % self.slots == 0 { a } else { self.push(Op::Rotate { a, by }) }
    }

    fn add(&mut self, sum: Option<ValueId>, term: ValueId) -> ValueId {
        match sum {
            None => term,
            Some(a) => self.push(Op::Add { a, b: term }),
        }
    }

    fn push(&mut self, op: Op) -> ValueId {
        self.builder.push(self.module, op)
    }
}

/// How offsets split: baby step = offset modulo `stride`, in `[0, stride)` or centered around zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Split {
    stride: i64,
    center: bool,
}

impl Split {
    /// The cheapest split. Strides that are not pinned are powers of two, so that transforms of one program share keys.
    fn new(steps: Steps, offsets: &[i64], slots: i64, time: &StepTimes) -> Split {
        let strides = match steps {
            Steps::Auto => (0..=slots.trailing_zeros()).map(|log| 1i64 << log).collect(),
            Steps::Stride(stride) | Steps::Chain(stride) => vec![stride],
        };
        let splits =
            strides.into_iter().flat_map(|stride| [true, false].map(|center| Split { stride, center }));
        let best = splits.min_by(|a, b| a.time(offsets, time).total_cmp(&b.time(offsets, time)));
        best.expect("there is at least one stride")
    }

    fn baby(self, offset: i64) -> i64 {
        if self.center { centered(offset, self.stride) } else { offset.rem_euclid(self.stride) }
    }

    fn time(self, offsets: &[i64], time: &StepTimes) -> f64 {
        let babies: BTreeSet<i64> = offsets.iter().map(|&o| self.baby(o)).filter(|&b| b != 0).collect();
        let giants: BTreeSet<i64> = offsets.iter().map(|&o| o - self.baby(o)).filter(|&g| g != 0).collect();
        let mod_up = if babies.is_empty() { 0.0 } else { time.mod_up };
        mod_up + time.baby * babies.len() as f64 + time.giant * giants.len() as f64
    }
}

/// Seconds of the parts of a linear transform.
struct StepTimes {
    mod_up: f64,
    baby: f64,
    giant: f64,
}

impl StepTimes {
    /// At the highest level of programs: their proportions hardly depend on it.
    fn of(params: &Params) -> Self {
        let (cost, level) = (CostModel::new(params), params.program_level());
        StepTimes { mod_up: cost.mod_up(level), baby: cost.baby_step(level), giant: cost.giant_step(level) }
    }
}

/// The steps of a chain.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// The lowest offset, by which the result is rotated at the end.
    lowest: i64,
    /// By how much a baby step rotates.
    unit: i64,
    /// Number of baby steps.
    babies: i64,
    /// Number of giant steps.
    giants: i64,
}

impl Chain {
    fn new(offsets: &[i64], stride: i64) -> Chain {
        let lowest = offsets.iter().copied().min().unwrap_or(0);
        let babies = offsets.iter().map(|o| (o - lowest) % stride);
        let unit = babies.clone().fold(0, gcd).max(1);
        let farthest = babies.max().unwrap_or(0);
        let giants = offsets.iter().map(|o| (o - lowest) / stride).max().unwrap_or(0);
        Chain { lowest, unit, babies: farthest / unit, giants }
    }

    fn switches(self) -> i64 {
        self.babies + self.giants + i64::from(self.lowest != 0)
    }
}

/// The rotations of a split.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// By how much.
    pub(crate) rotations: BTreeSet<i64>,
    /// Number of key switches.
    pub(crate) switches: u32,
}

impl Shape {
    /// How a transform with these offsets is split.
    pub(crate) fn new(params: &Params, offsets: &[i64], steps: Steps) -> Shape {
        let slots = params.slots() as i64;
        let offsets: Vec<i64> = offsets.iter().map(|&o| centered(o, slots)).collect();
        if let Steps::Chain(stride) = steps {
            let chain = Chain::new(&offsets, stride);
            let steps = [(chain.unit, chain.babies), (stride, chain.giants), (chain.lowest, 1)];
            let steps = steps.into_iter().filter(|&(by, count)| by % slots != 0 && count > 0);
            return Shape { rotations: steps.map(|(by, _)| by).collect(), switches: chain.switches() as u32 };
        }
        let split = Split::new(steps, &offsets, slots, &StepTimes::of(params));
        let babies = offsets.iter().map(|&o| split.baby(o));
        let giants = offsets.iter().map(|&o| o - split.baby(o));
        let [babies, giants]: [BTreeSet<i64>; 2] =
            [babies.filter(|by| by % slots != 0).collect(), giants.filter(|by| by % slots != 0).collect()];
        let switches = (babies.len() + giants.len()) as u32;
        Shape { rotations: babies.into_iter().chain(giants).collect(), switches }
    }
}

/// The stride with which a chain takes the fewest key switches.
pub(crate) fn chain_stride(offsets: &[i64], slots: i64) -> i64 {
    let offsets: Vec<i64> = offsets.iter().map(|&o| centered(o, slots)).collect();
    let lowest = offsets.iter().copied().min().unwrap_or(0);
    let unit = offsets.iter().map(|o| o - lowest).fold(0, gcd).max(1);
    let span = offsets.iter().map(|o| (o - lowest) / unit).max().unwrap_or(0);
    let strides = (1..=span.isqrt() + 1).map(|factor| unit * factor);
    strides.min_by_key(|&stride| Chain::new(&offsets, stride).switches()).unwrap_or(unit)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The representative of `value` modulo `modulus` in `[-modulus/2, modulus/2)`.
fn centered(value: i64, modulus: i64) -> i64 {
    (value + modulus / 2).rem_euclid(modulus) - modulus / 2
}
