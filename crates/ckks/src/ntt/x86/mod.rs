//! The transform on x86-64 vectors: 8 words with AVX2, 16 with AVX-512.
//!
//! The stages with a stride of whole vectors are the same for both and run several at a time in registers
//! ([`passes`]). The last stages, whose stride is less than a vector, need shuffles of their own
//! (`tail_avx2`, `tail_avx512`).

mod lanes;
mod passes;
mod tail_avx2;
mod tail_avx512;

use self::passes::{forward, inverse};
use super::{NttTable, portable};
use crate::modulus::Shoup;
use std::arch::x86_64::{__m256i, __m512i};

/// Coefficients to evaluations.
pub(super) fn forward_avx512(table: &NttTable, limb: &mut [u32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn run(table: &NttTable, limb: &mut [u32]) {
        // SAFETY: this function has the features of the vector type; the length was just checked.
        unsafe { forward::<__m512i>(table, limb) }
    }
    if limb.len() < 64 {
        return portable::forward(table, limb);
    }
    // SAFETY: called for `Isa::Avx512` only, which exists only where the processor has these features.
    unsafe { run(table, limb) }
}

/// Evaluations to coefficients, each times `scale`.
pub(super) fn inverse_avx512(table: &NttTable, limb: &mut [u32], scale: Shoup) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn run(table: &NttTable, limb: &mut [u32], scale: Shoup) {
        // SAFETY: this function has the features of the vector type; the length was just checked.
        unsafe { inverse::<__m512i>(table, limb, scale) }
    }
    if limb.len() < 64 {
        return portable::inverse(table, limb, scale);
    }
    // SAFETY: called for `Isa::Avx512` only, which exists only where the processor has these features.
    unsafe { run(table, limb, scale) }
}

/// Coefficients to evaluations.
pub(super) fn forward_avx2(table: &NttTable, limb: &mut [u32]) {
    #[target_feature(enable = "avx2")]
    fn run(table: &NttTable, limb: &mut [u32]) {
        // SAFETY: this function has the features of the vector type; the length was just checked.
        unsafe { forward::<__m256i>(table, limb) }
    }
    if limb.len() < 16 {
        return portable::forward(table, limb);
    }
    // SAFETY: called for `Isa::Avx2` only, which exists only where the processor has AVX2.
    unsafe { run(table, limb) }
}

/// Evaluations to coefficients, each times `scale`.
pub(super) fn inverse_avx2(table: &NttTable, limb: &mut [u32], scale: Shoup) {
    #[target_feature(enable = "avx2")]
    fn run(table: &NttTable, limb: &mut [u32], scale: Shoup) {
        // SAFETY: this function has the features of the vector type; the length was just checked.
        unsafe { inverse::<__m256i>(table, limb, scale) }
    }
    if limb.len() < 16 {
        return portable::inverse(table, limb, scale);
    }
    // SAFETY: called for `Isa::Avx2` only, which exists only where the processor has AVX2.
    unsafe { run(table, limb, scale) }
}
