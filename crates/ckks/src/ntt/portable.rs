//! The radix-2 transform in plain Rust.

use super::NttTable;
use crate::modulus::{Modulus, Shoup};

/// Coefficients to evaluations: Cooley-Tukey butterflies, halving the stride from stage to stage.
pub(super) fn forward(table: &NttTable, limb: &mut [u32]) {
    let q = &table.q;
    let mut groups = 1;
    while groups < limb.len() {
        let stride = limb.len() / (2 * groups);
        for (i, group) in limb.chunks_exact_mut(2 * stride).enumerate() {
            let factor = table.forward.at(groups + i);
            let (xs, ys) = group.split_at_mut(stride);
            for (x, y) in xs.iter_mut().zip(ys) {
                (*x, *y) = butterfly(q, *x, *y, factor);
            }
        }
        groups *= 2;
    }
    for x in limb {
        *x = q.reduce_once(below_2q(q, *x));
    }
}

/// Evaluations, in the limb or in `from`, to coefficients, each times `scale`: Gentleman-Sande butterflies, doubling the
/// stride.
pub(super) fn inverse(table: &NttTable, limb: &mut [u32], from: Option<&[u32]>, scale: Shoup) {
    if let Some(from) = from {
        limb.copy_from_slice(from);
    }
    let q = &table.q;
    let mut groups = limb.len() / 2;
    while groups > 0 {
        let stride = limb.len() / (2 * groups);
        for (i, group) in limb.chunks_exact_mut(2 * stride).enumerate() {
            let factor = table.inverse.at(groups + i);
            let (xs, ys) = group.split_at_mut(stride);
            for (x, y) in xs.iter_mut().zip(ys) {
                (*x, *y) = inverse_butterfly(q, *x, *y, factor);
            }
        }
        groups /= 2;
    }
    for x in limb {
        *x = q.mul_shoup(*x, scale);
    }
}

/// `(x + w y, x - w y)`. In and out `[0, 4q)`.
#[inline(always)]
fn butterfly(q: &Modulus, x: u32, y: u32, factor: Shoup) -> (u32, u32) {
    let x = below_2q(q, x);
    let t = q.mul_shoup_lazy(y, factor);
    (x + t, x + 2 * q.value() - t)
}

/// `(x + y, w (x - y))`. In and out `[0, 2q)`.
#[inline(always)]
fn inverse_butterfly(q: &Modulus, x: u32, y: u32, factor: Shoup) -> (u32, u32) {
    let difference = x + 2 * q.value() - y;
    (below_2q(q, x + y), q.mul_shoup_lazy(difference, factor))
}

/// From `[0, 4q)` to `[0, 2q)`.
#[inline(always)]
fn below_2q(q: &Modulus, x: u32) -> u32 {
    // Where the difference is negative it wraps and is the larger of the two.
    x.min(x.wrapping_sub(2 * q.value()))
}
