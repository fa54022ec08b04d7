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
//! Every offset is split as `giant + baby`, the baby step being the offset modulo a stride, centered or not; the split
//! with the least cost wins. Baby steps rotate one input, so that they share their `mod_up` (hoisting); a giant step pays
//! for a whole key switch.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::super::{Builder, Module, Op};
use crate::ir::{ValueId, rewrite::rewrite};

/// Cost of a rotation that shares its `mod_up` with others, relative to a full key switch: what remains is the key
/// product and the `mod_down`.
const HOISTED: f64 = 0.6;

/// Runs the pass.
pub fn expand_linear_transform(module: &mut Module) -> Result<(), Infallible> {
    let slots = module.context.params.slots() as i64;
    rewrite(module, |builder, module, op| match op {
        Op::LinearTransform { x, diagonals, offsets } => {
            let offsets: Vec<i64> = offsets.iter().map(|&o| centered(o, slots)).collect();
            Some(vec![expand(builder, module, *x, diagonals, &offsets, slots)])
        }
        _ => None,
    });
    Ok(())
}

fn expand(
    builder: &mut Builder,
    module: &Module,
    x: ValueId,
    diagonals: &[ValueId],
    offsets: &[i64],
    slots: i64,
) -> ValueId {
    let split = best_split(offsets, slots);
    let mut giants: BTreeMap<i64, Vec<(i64, ValueId)>> = BTreeMap::new();
    for (&offset, &diagonal) in offsets.iter().zip(diagonals) {
        let baby = split.baby(offset);
        giants.entry(offset - baby).or_default().push((baby, diagonal));
    }
    // All baby rotations come first and in order, next to each other.
    let babies: BTreeSet<i64> = offsets.iter().map(|&o| split.baby(o)).collect();
    let rotated: BTreeMap<i64, ValueId> =
        babies.into_iter().map(|by| (by, rotate(builder, module, x, by))).collect();
    let mut sum = None;
    for (giant, terms) in giants {
        let mut inner = None;
        for (baby, diagonal) in terms {
            let p = match giant {
                0 => diagonal,
                _ => builder.push(module, Op::RotatePlain { p: diagonal, by: -giant }),
            };
            let term = builder.push(module, Op::MulPlain { a: rotated[&baby], p });
            inner = Some(add(builder, module, inner, term));
        }
        let inner = inner.expect("a giant step has at least one diagonal");
        let outer = rotate(builder, module, inner, giant);
        sum = Some(add(builder, module, sum, outer));
    }
    sum.expect("a verified linear_transform has at least one diagonal")
}

fn rotate(builder: &mut Builder, module: &Module, a: ValueId, by: i64) -> ValueId {
    if by == 0 { a } else { builder.push(module, Op::Rotate { a, by }) }
}

fn add(builder: &mut Builder, module: &Module, sum: Option<ValueId>, term: ValueId) -> ValueId {
    match sum {
        None => term,
        Some(a) => builder.push(module, Op::Add { a, b: term }),
    }
}

/// How offsets split: baby step = offset modulo `stride`, in `[0, stride)` or centered around zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Split {
    stride: i64,
    center: bool,
}

impl Split {
    fn baby(self, offset: i64) -> i64 {
        if self.center { centered(offset, self.stride) } else { offset.rem_euclid(self.stride) }
    }

    fn cost(self, offsets: &[i64]) -> f64 {
        let babies: BTreeSet<i64> = offsets.iter().map(|&o| self.baby(o)).filter(|&b| b != 0).collect();
        let giants: BTreeSet<i64> = offsets.iter().map(|&o| o - self.baby(o)).filter(|&g| g != 0).collect();
        let hoisted = if babies.is_empty() { 0.0 } else { 1.0 - HOISTED + HOISTED * babies.len() as f64 };
        hoisted + giants.len() as f64
    }
}

fn best_split(offsets: &[i64], slots: i64) -> Split {
    let strides = (0..=slots.trailing_zeros()).map(|log| 1i64 << log);
    let splits = strides.flat_map(|stride| [true, false].map(|center| Split { stride, center }));
    splits
        .min_by(|a, b| a.cost(offsets).total_cmp(&b.cost(offsets)))
        .expect("there is at least the stride of one")
}

/// The representative of `value` modulo `modulus` in `[-modulus/2, modulus/2)`.
fn centered(value: i64, modulus: i64) -> i64 {
    (value + modulus / 2).rem_euclid(modulus) - modulus / 2
}
