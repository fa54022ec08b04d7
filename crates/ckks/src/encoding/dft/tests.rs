use num_complex::Complex64;
use rand_core::RngCore;

use super::*;
use crate::basis::Scale;
use crate::encoding::{Encoder, fft};
use crate::params::{Params, ParamsSpec};
use crate::rns::{Domain, Poly};
use crate::testing::fresh_rng;
use Direction::{CoeffsToSlots, SlotsToCoeffs};

/// out = sum_k diagonal(k) * rotate(x, k), on slots that repeat with the length of `x`.
fn apply(factor: DftFactor, x: &[Complex64]) -> Vec<Complex64> {
    let mut out = vec![Complex64::default(); x.len()];
    for offset in factor.offsets() {
        let diagonal = factor.diagonal(offset);
        assert_eq!(diagonal.len(), factor.period());
        for (i, out) in out.iter_mut().enumerate() {
            let from = (i as i64 + offset).rem_euclid(x.len() as i64) as usize;
            *out += diagonal[i % diagonal.len()] * x[from];
        }
    }
    out
}

fn transform(direction: Direction, x: &[Complex64], stages: &[u8]) -> Vec<Complex64> {
    let log_slots = x.len().ilog2() as u8;
    let factors = DftFactor::split(direction, log_slots, stages);
    factors.into_iter().fold(x.to_vec(), |x, factor| apply(factor, &x))
}

fn random(rng: &mut impl RngCore, len: usize) -> Vec<Complex64> {
    let mut unit = || rng.next_u64() as f64 / 2f64.powi(63) - 1.0;
    (0..len).map(|_| Complex64 { re: unit(), im: unit() }).collect()
}

fn bit_reversed(x: &[Complex64]) -> Vec<Complex64> {
    let bits = x.len().ilog2();
    (0..x.len()).map(|i| x[if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) }]).collect()
}

fn largest_error(a: &[Complex64], b: &[Complex64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
}

/// All ways to write `total` as an ordered sum.
fn splits(total: u8) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for _ in 0..total {
        all = all
            .into_iter()
            .flat_map(|split: Vec<u8>| {
                let apart = [&split[..], &[1]].concat();
                let joined = split.split_last().map(|(last, rest)| [rest, &[last + 1]].concat());
                std::iter::once(apart).chain(joined)
            })
            .collect();
    }
    all
}

#[test]
fn every_split_is_the_transform_of_the_encoder() {
    let mut rng = fresh_rng();
    let roots = fft::roots(9);
    for log_slots in 1..=9u8 {
        let x = random(&mut rng, 1 << log_slots);
        let mut expected = bit_reversed(&x);
        fft::forward(&roots, &mut expected);
        let all = splits(log_slots);
        assert_eq!(all.len(), 1 << (log_slots - 1));
        // Some of the splits of the larger ones.
        let step = all.len().div_ceil(16);
        for split in all.iter().step_by(step) {
            let slots = transform(SlotsToCoeffs, &x, split);
            let size = f64::from(1u32 << log_slots);
            assert!(largest_error(&slots, &expected) < size * 2f64.powi(-49), "{split:?}");
            let back: Vec<u8> = split.iter().rev().copied().collect();
            let inverse = transform(CoeffsToSlots, &slots, &back);
            assert!(largest_error(&inverse, &x) < 2f64.powi(-48), "{split:?}");
        }
    }
}

/// The slots of a polynomial, through the encoder itself, in a ring with as many or more slots.
#[test]
fn paired_coefficients_come_in_bit_reversed_order() {
    let params = Params::new(ParamsSpec::insecure(8, 40, 2, 2).unwrap()).unwrap();
    let (encoder, mut rng) = (Encoder::new(&params), fresh_rng());
    for log_slots in [3u8, 5, 7] {
        let n = 1usize << log_slots;
        let integers: Vec<i64> = (0..2 * n).map(|_| i64::from(rng.next_u32() >> 1) - (1 << 30)).collect();
        let mut coefficients = vec![0; params.n()];
        for (k, &c) in integers.iter().enumerate() {
            coefficients[k * params.slots() / n] = c;
        }
        let message = Poly::from_coefficients(&params, params.q_basis(), &coefficients);
        assert_eq!(message.domain(), Domain::Coefficient);
        let slots = encoder.decode(&params, &message, Scale(2f64.powi(30)));
        let paired: Vec<Complex64> = (0..n)
            .map(|j| Complex64::new(integers[j] as f64, integers[j + n] as f64) / 2f64.powi(30))
            .collect();
        let got = transform(SlotsToCoeffs, &bit_reversed(&paired), &[2, log_slots - 2]);
        for (k, z) in slots.iter().enumerate() {
            assert!((z - got[k % n]).norm() < 1e-12);
        }
        let back = transform(CoeffsToSlots, &slots[..n], &[1, log_slots - 1]);
        assert!(largest_error(&back, &bit_reversed(&paired)) < 1e-13);
    }
}

#[test]
fn diagonals_and_periods_are_as_few_and_short_as_can_be() {
    for direction in [SlotsToCoeffs, CoeffsToSlots] {
        for log_slots in 1..=8u8 {
            for (first, stages) in (0..log_slots).flat_map(|f| (1..=log_slots - f).map(move |s| (f, s))) {
                let factor = DftFactor { direction, log_slots, first, stages };
                let offsets = factor.offsets();
                let expected = if first + stages == log_slots { 1 << stages } else { (2 << stages) - 1 };
                assert_eq!(offsets.len(), expected);
                assert!(offsets.is_sorted_by(|a, b| a < b));
                let half = 1i64 << (log_slots - 1);
                assert!(offsets.iter().all(|&k| -half < k && k <= half), "{factor:?}: {offsets:?}");
                let diagonals: Vec<_> = offsets.iter().map(|&k| factor.diagonal(k)).collect();
                assert!(diagonals.iter().all(|d| d.iter().any(|z| z.norm() > 0.1 / f64::from(1 << stages))));
                let shorter = |d: &Vec<Complex64>| d[..d.len() / 2] == d[d.len() / 2..];
                assert!(!diagonals.iter().all(shorter), "{factor:?}");
                // All other offsets have no entry.
                for k in (1 - half..=half).filter(|k| !offsets.contains(k)) {
                    assert!(factor.diagonal(k).iter().all(|&z| z == Complex64::default()));
                }
            }
        }
    }
}

#[test]
fn large_transforms_are_accurate() {
    let mut rng = fresh_rng();
    let roots = fft::roots(15);
    let x = random(&mut rng, 1 << 15);
    let mut expected = bit_reversed(&x);
    fft::forward(&roots, &mut expected);
    let slots = transform(SlotsToCoeffs, &x, &[5, 5, 5]);
    let norm = (expected.iter().map(|z| z.norm_sqr()).sum::<f64>() / expected.len() as f64).sqrt();
    assert!(largest_error(&slots, &expected) < norm * 2f64.powi(-48));
    let back = transform(CoeffsToSlots, &slots, &[3, 4, 4, 4]);
    assert!(largest_error(&back, &x) < 2f64.powi(-48));
}

#[test]
fn impossible_factors_are_known() {
    let factor = |log_slots, first, stages| DftFactor { direction: SlotsToCoeffs, log_slots, first, stages };
    assert!(factor(15, 0, 15).is_valid() && factor(16, 15, 1).is_valid());
    for bad in [factor(15, 0, 0), factor(15, 14, 2), factor(17, 0, 1), factor(15, 255, 255), factor(0, 0, 1)]
    {
        assert!(!bad.is_valid());
    }
}

#[test]
fn offsets_are_told_from_other_numbers() {
    for log_slots in 1..6 {
        for first in 0..log_slots {
            for stages in 1..=log_slots - first {
                let factor = DftFactor { direction: SlotsToCoeffs, log_slots, first, stages };
                let offsets = factor.offsets();
                assert!((-70..70).all(|k| factor.has_offset(k) == offsets.contains(&k)), "{factor:?}");
                assert!(![i64::MIN, i64::MAX].iter().any(|&k| factor.has_offset(k)));
            }
        }
    }
}
