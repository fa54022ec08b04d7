//! The inner loops of the CPU device: arithmetic on stretches of limbs.
//!
//! Every kernel takes canonical words and gives canonical words, the same on every instruction set. A
//! stretch may be a whole limb or any part of it, in any domain unless said otherwise; all operands have the
//! length of the output. Lengths that disagree are a broken invariant and panic.

mod base_convert;
mod dot;
mod elementwise;
#[cfg(test)]
mod tests;

pub use base_convert::{BaseConverter, base_convert};
pub use dot::{RUN_ALIGN, Runs, Term, dot, dot_pair};
pub use elementwise::{
    add, add_mul_scalar, add_scalar, copy, mont_mul, mont_mul_scalar, mul, mul_scalar, mul_scalar_add,
    mul_scalar_sub, neg, sub, sub_mul_scalar,
};

/// Words of the widest vector; what is left over by it is done word by word.
const MOST_LANES: usize = 16;

/// Unfolds a compact limb, each of whose words stands for a run of `2^log_run` equal words:
/// `out[i] = compact[(offset + i) >> log_run]`, so `offset` is where `out` begins in the full limb.
pub fn expand(out: &mut [u32], compact: &[u32], log_run: u32, offset: usize) {
    assert!(offset + out.len() <= compact.len() << log_run, "the stretch ends within the limb");
    match log_run {
        1 => expand_short::<2>(out, compact, offset),
        2 => expand_short::<4>(out, compact, offset),
        3 => expand_short::<8>(out, compact, offset),
        4 => expand_short::<16>(out, compact, offset),
        _ => {
            let (first, rest) = split_first_run(out, 1 << log_run, offset);
            let mut words = compact[offset >> log_run..].iter();
            for (part, &word) in std::iter::once(first).chain(rest.chunks_mut(1 << log_run)).zip(&mut words) {
                part.fill(word);
            }
        }
    }
}

/// [`expand`] for runs of `RUN` words: too short for a loop of their own.
fn expand_short<const RUN: usize>(out: &mut [u32], compact: &[u32], offset: usize) {
    let mut words = compact[offset / RUN..].iter();
    let (first, rest) = split_first_run(out, RUN, offset);
    let (runs, last) = rest.as_chunks_mut::<RUN>();
    words.by_ref().take(1).for_each(|&word| first.fill(word));
    runs.iter_mut().zip(words.by_ref()).for_each(|(run, &word)| *run = [word; RUN]);
    words.take(1).for_each(|&word| last.fill(word));
}

/// Splits off what belongs to the first run, which may have begun before the stretch.
fn split_first_run(out: &mut [u32], run: usize, offset: usize) -> (&mut [u32], &mut [u32]) {
    let first = (run - offset % run).min(out.len());
    out.split_at_mut(first)
}
