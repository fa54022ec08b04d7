//! The encoder's transform as a product of few matrices with few diagonals each: what bootstrapping evaluates
//! on encrypted slots.
//!
//! Stage s of the special FFT joins elements that are 2^s apart: with i_s for bit s of an index i, it is
//! x_i <- x_a + (-1)^(i_s) w x_b, where a and b are i with bit s cleared and set, and w = exp(2 pi i 5^i /
//! 2^(s+3)) has the sign in it already, because 5^(2^s) = 1 + 2^(s+2) modulo 2^(s+3). The matrix of stages
//! `first..first + stages` has one path from each input j to each output i in the same block of 2^(first +
//! stages) with the same lower bits, and so its entry there is a single root of unity, the product of the
//! factors w of all stages s in which j_s is set:
//!
//! ```text
//! entry(i, j) = exp(2 pi i 5^i r / 2^(first + stages + 2)),    r = the bits first.. of j in reverse
//! ```
//!
//! No entry collects errors of multiplications, and all are the same on every machine. Every stage is unitary
//! but for a factor of sqrt(2), so the inverse is the conjugate transpose over 2^stages.
//!
//! The matrix as a sum of diagonals, out = sum_k diagonal(k) * rotate(x, k), takes 2^(stages + 1) - 1
//! rotations, or 2^stages where blocks are the whole vector and rotations by k and k - 2^log_slots are one
//! (Chen, Chillotti and Song, Improved Bootstrapping for Approximate Homomorphic Encryption, 2019, section
//! 4.1; Han, Hhan and Cheon, Improved Homomorphic Discrete Fourier Transforms and FHE Bootstrapping, 2019).
//! The permutation to bit-reversed order is left out: slots between the two directions are in that order, which
//! does not matter to what works on each slot alone.

use std::ops::RangeInclusive;

use num_complex::Complex64;
use serde::{Deserialize, Serialize};

use super::fft::unit;

/// Which way a factor of the transform goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// The forward transform: from slots that hold coefficients to slots of the polynomial of these
    /// coefficients. Factors apply from small spans to large ones.
    SlotsToCoeffs,
    /// Its exact inverse, from large spans to small ones; every stage divides by 2.
    CoeffsToSlots,
}

/// Some successive stages of the transform of 2^`log_slots` slots as one matrix.
///
/// Fields are free to be anything; all methods but [`is_valid`](Self::is_valid) panic unless that holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DftFactor {
    /// Forward or inverse.
    pub direction: Direction,
    /// Base-2 logarithm of the number of slots; of a message that repeats with this period if the ring has
    /// more.
    pub log_slots: u8,
    /// The first stage, that with the smallest span: 2^`first`.
    pub first: u8,
    /// The number of stages.
    pub stages: u8,
}

impl DftFactor {
    /// Most slots: those of the largest ring.
    const MAX_LOG_SLOTS: u8 = 16;

    /// The factors of a whole transform with so many stages in each, in the order in which they apply. They
    /// take slots u to the slots of the polynomial whose paired coefficients c_j + i c_(j+n), j < n =
    /// 2^`log_slots`, are u in bit-reversed order; or, in the other direction, back.
    ///
    /// Panics unless the numbers of stages add up to `log_slots` and none is 0.
    pub fn split(direction: Direction, log_slots: u8, stages: &[u8]) -> Vec<DftFactor> {
        let total: usize = stages.iter().map(|&s| usize::from(s)).sum();
        assert_eq!(total, usize::from(log_slots), "the stages of all factors are those of the transform");
        let mut done = 0;
        let factor = |&stages: &u8| {
            let first = match direction {
                Direction::SlotsToCoeffs => done,
                Direction::CoeffsToSlots => log_slots - done - stages,
            };
            done += stages;
            DftFactor { direction, log_slots, first, stages }.checked()
        };
        stages.iter().map(factor).collect()
    }

    /// Whether there is such a factor: at least one stage, all of them stages of the transform, of at most 2^16
    /// slots.
    pub fn is_valid(self) -> bool {
        let end = u32::from(self.first) + u32::from(self.stages);
        self.stages > 0 && end <= self.log_slots.into() && self.log_slots <= Self::MAX_LOG_SLOTS
    }

    fn checked(self) -> DftFactor {
        assert!(self.is_valid(), "{self:?} is no factor of a transform");
        self
    }

    /// Base-2 logarithm of the block within which elements meet.
    fn log_block(self) -> u8 {
        self.first + self.stages
    }

    /// Whether a block is the whole vector, so that rotations do not leave it.
    fn is_cyclic(self) -> bool {
        self.log_block() == self.log_slots
    }

    /// The offsets of the diagonals that are not zero, increasing: multiples of 2^`first` between -n/2
    /// (excluded) and n/2 (included), n = 2^`log_slots`.
    pub fn offsets(self) -> Vec<i64> {
        self.steps().map(|k| k << self.first).collect()
    }

    /// Whether the offset is among [`offsets`](Self::offsets).
    pub fn has_offset(self, offset: i64) -> bool {
        offset % (1 << self.checked().first) == 0 && self.steps().contains(&(offset >> self.first))
    }

    /// The offsets in units of 2^`first`.
    fn steps(self) -> RangeInclusive<i64> {
        match (self.checked().is_cyclic(), 1i64 << self.stages) {
            (true, count) => 1 - count / 2..=count / 2,
            (false, count) => 1 - count..=count - 1,
        }
    }

    /// The period of all diagonals, a power of two.
    pub fn period(self) -> usize {
        1 << self.checked().log_block()
    }

    /// One period of the diagonal of an offset: the factors of the vector rotated to the left by `offset`. Each
    /// is a root of unity, over 2^`stages` for the inverse, or 0; accurate to about 2^-52 of its size. An offset
    /// that is not among [`offsets`](Self::offsets) has a diagonal of zeros, or, where blocks are the whole
    /// vector, is one of them modulo 2^`log_slots`.
    pub fn diagonal(self, offset: i64) -> Vec<Complex64> {
        let period = self.period();
        if offset % (1 << self.first) != 0 {
            return vec![Complex64::default(); period];
        }
        let mask = period as i64 - 1;
        let entry = |row: usize| {
            let column = row as i64 + offset;
            if !self.is_cyclic() && column & !mask != 0 {
                return Complex64::default();
            }
            let column = (column & mask) as usize;
            match self.direction {
                Direction::SlotsToCoeffs => self.forward_entry(row, column),
                Direction::CoeffsToSlots => {
                    let z = self.forward_entry(column, row).conj();
                    // A power of two: exact.
                    let half = 1.0 / f64::from(1u32 << self.stages);
                    Complex64 { re: z.re * half, im: z.im * half }
                }
            }
        };
        (0..period).map(entry).collect()
    }

    /// The entry of the forward matrix at two indices of one block that agree below `first`.
    fn forward_entry(self, row: usize, column: usize) -> Complex64 {
        let reversed = (column as u32 >> self.first).reverse_bits() >> (32 - self.stages);
        let log_order = u32::from(self.log_block()) + 2;
        // The order divides 2^32, so that powers may wrap.
        let turn = 5u32.wrapping_pow(row as u32).wrapping_mul(reversed);
        unit(turn & ((1 << log_order) - 1), log_order)
    }
}

#[cfg(test)]
mod tests;
