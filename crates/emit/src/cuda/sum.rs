//! Sums of parts of limbs that other devices gave.

use super::abi::Source;

/// Threads of a block of the function of [`sum_source`].
pub const SUM_THREADS: u32 = 256;

/// The source of
///
/// ```c++
/// extern "C" __global__ void sum(u32* sums, const u32* parts, u32 words, u32 count, u32 stride, u32 q);
/// ```
///
/// launched with [`SUM_THREADS`] threads a block and at least `words` threads in all. It adds `count` parts, which are `stride` words
/// apart, to sums, modulo `q`. Parts are canonical; sums may be in `[0, 4q)` before, and are canonical afterwards.
pub fn sum_source() -> Source {
    Source::new("sum", include_str!("device/sum.cuh"))
}
