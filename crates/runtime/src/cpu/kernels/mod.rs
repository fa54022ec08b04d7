//! The inner loops of the CPU device: arithmetic on stretches of limbs.
//!
//! Every kernel takes canonical words and gives canonical words, the same on every instruction set. A
//! stretch may be a whole limb or any part of it, in any domain unless said otherwise; all operands have the
//! length of the output. Lengths that disagree are a broken invariant and panic.

mod base_convert;
mod elementwise;
#[cfg(test)]
mod tests;

pub use base_convert::{BaseConverter, base_convert};
pub use elementwise::{add, add_scalar, dot, mont_mul, mul, mul_scalar, neg, sub};

/// Unfolds a compact limb, each of whose words stands for a run of `2^log_run` equal words:
/// `out[i] = compact[(offset + i) >> log_run]`, so `offset` is where `out` begins in the full limb.
pub fn expand(out: &mut [u32], compact: &[u32], log_run: u32, offset: usize) {
    assert!(offset + out.len() <= compact.len() << log_run, "the stretch ends within the limb");
    let run = 1 << log_run;
    // The first run may have begun before the stretch.
    let (first, rest) = out.split_at_mut((run - offset % run).min(out.len()));
    let mut words = compact[offset >> log_run..].iter();
    for (part, &word) in std::iter::once(first).chain(rest.chunks_mut(run)).zip(&mut words) {
        part.fill(word);
    }
}
