use num_complex::Complex64;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::*;
use crate::automorphism::{conjugation_element, galois_element};
use crate::basis::Level;
use crate::params::ParamsSpec;
use crate::testing::fresh_rng;

fn params(log_n: u8) -> Params {
    Params::new(ParamsSpec::insecure(log_n, 40, 3, 2).unwrap()).unwrap()
}

/// Complex64 numbers in the square from -1-i to 1+i.
fn random_slots(rng: &mut ChaCha8Rng, len: usize) -> Vec<Complex64> {
    let mut unit = || rng.next_u64() as f64 / 2f64.powi(63) - 1.0;
    (0..len).map(|_| Complex64 { re: unit(), im: unit() }).collect()
}

fn distance(a: Complex64, b: Complex64) -> f64 {
    (a.re - b.re).hypot(a.im - b.im)
}

#[test]
fn slots_are_values_at_the_roots() {
    let (params, mut rng) = (params(6), fresh_rng());
    let (encoder, n) = (Encoder::new(&params), params.n());
    let scale = Scale(2f64.powi(40));
    let slots = random_slots(&mut rng, n / 2);
    let message = encoder.encode(&params, &slots, params.q_basis(), scale).unwrap().to_floats(&params);
    let mut power = 1;
    for &slot in &slots {
        let value = message.iter().enumerate().fold(Complex64::default(), |sum, (j, &m)| {
            let angle = std::f64::consts::PI * (power * j % (2 * n)) as f64 / n as f64;
            sum + Complex64 { re: m / scale.0 * angle.cos(), im: m / scale.0 * angle.sin() }
        });
        // Each of the N coefficients is rounded by at most half a unit.
        assert!(distance(value, slot) < n as f64 / scale.0);
        power = power * 5 % (2 * n);
    }
}

#[test]
fn decoding_undoes_encoding_for_every_period() {
    for log_n in [4, 7, 11] {
        let (params, mut rng) = (params(log_n), fresh_rng());
        let encoder = Encoder::new(&params);
        for log_p in 0..log_n {
            let slots = random_slots(&mut rng, 1 << log_p);
            for (level, log_scale) in [(0, 30), (1, 45), (3, 60)] {
                let scale = Scale(1.37 * 2f64.powi(log_scale));
                let message = encoder.encode(&params, &slots, params.basis(Level(level)), scale).unwrap();
                let decoded = encoder.decode(&params, &message, scale);
                // Rounding of coefficients, and of f64.
                let bound = 2f64.powi(i32::from(log_n)) / scale.0 + 1e-13;
                for (k, &z) in decoded.iter().enumerate() {
                    assert!(distance(z, slots[k % slots.len()]) < bound, "slot {k}: {z:?}");
                }
            }
        }
    }
}

#[test]
fn the_compact_form_is_the_whole_one_without_repetitions() {
    let (params, mut rng) = (params(8), fresh_rng());
    let encoder = Encoder::new(&params);
    let basis = params.basis(Level(2)).union(params.p_basis());
    for log_p in 0..8 {
        // At 2^100 coefficients go beyond 64 bits.
        for scale in [Scale(2f64.powi(35)), Scale(2f64.powi(100))] {
            let slots = random_slots(&mut rng, 1 << log_p);
            let len = 2 << log_p;
            let mut compact = vec![0; len * basis.len()];
            let mut own: Slots = slots.iter().copied().collect();
            encoder.encode_compact(&params, &mut own, basis, basis, scale, &mut compact).unwrap();
            let whole = encoder.encode(&params, &slots, basis, scale).unwrap().ntt(&params).to_mont(&params);
            for (limb, compact) in whole.limbs().iter().zip(compact.chunks_exact(len)) {
                let expanded: Vec<u32> = (0..params.n()).map(|i| compact[i >> (8 - log_p - 1)]).collect();
                assert_eq!(limb, &expanded);
            }
        }
    }
}

#[test]
fn automorphisms_rotate_and_conjugate() {
    let (params, mut rng) = (params(7), fresh_rng());
    let (encoder, basis, scale) = (Encoder::new(&params), params.basis(Level(1)), Scale(2f64.powi(50)));
    let slots = random_slots(&mut rng, params.slots());
    let message = encoder.encode(&params, &slots, basis, scale).unwrap();
    for r in [1, 2, 3, 17, 63, -1] {
        let moved = message.automorphism(&params, galois_element(params.log_n(), r));
        for (k, &z) in encoder.decode(&params, &moved, scale).iter().enumerate() {
            let from = (k as i64 + r).rem_euclid(slots.len() as i64) as usize;
            assert!(distance(z, slots[from]) < 1e-10);
        }
    }
    let conjugated = message.automorphism(&params, conjugation_element(params.log_n()));
    for (&z, &slot) in encoder.decode(&params, &conjugated, scale).iter().zip(&slots) {
        assert!(distance(z, slot.conj()) < 1e-10);
    }
}

/// Scales of bootstrapping exceed the 53 bits of a double: what is lost is below 2^-49 of the largest slot.
#[test]
fn large_scales_keep_the_precision_of_doubles() {
    let (log_n, mut rng) = (16, fresh_rng());
    let encoder = Encoder::of_degree(log_n);
    let scale = Scale(2f64.powi(58));
    for log_p in [4, 10, 15] {
        // A polynomial of few terms; its slots are computed directly, each with an error of about 2^-53.
        let (p, terms) = (1usize << log_p, 4);
        let exponents: Vec<usize> = (0..terms).map(|_| rng.next_u64() as usize % (2 * p)).collect();
        let mut expected = vec![0i128; 2 * p];
        exponents.iter().for_each(|&j| expected[j] += 1 << (58 - 2));
        let mut power = 1;
        let slots: Vec<Complex64> = (0..p)
            .map(|_| {
                let root = |&j: &usize| {
                    let turn = (power * j % (4 * p)) as f64 / (2 * p) as f64;
                    Complex64::cis(std::f64::consts::PI * turn) / terms as f64
                };
                let slot = exponents.iter().map(root).sum();
                power = power * 5 % (4 * p);
                slot
            })
            .collect();
        let found = encoder.coefficients(&slots, scale).unwrap();
        let error = found.iter().zip(&expected).map(|(a, b)| (a - b).unsigned_abs()).max().unwrap();
        println!("period 2^{log_p}: error 2^{:.1} of the scale", (error as f64).log2() - 58.0);
        assert!(error < 1 << (58 - 49), "period 2^{log_p}");
    }
}

#[test]
fn constants_encode_exactly() {
    let params = params(6);
    let (encoder, basis, scale) = (Encoder::new(&params), params.basis(Level(0)), Scale(1.0));
    for z in [Complex64::I, -Complex64::I, Complex64 { re: 1024.0, im: -3.0 }] {
        assert_eq!(encoder.coefficients(&[z], scale).unwrap(), [z.re as i128, z.im as i128]);
        let message = encoder.encode(&params, &[z], basis, scale).unwrap();
        assert!(encoder.decode(&params, &message, scale).iter().all(|&slot| distance(slot, z) < 1e-12));
    }
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let params = params(6);
    let (encoder, basis) = (Encoder::new(&params), params.basis(Level(0)));
    let encode = |slots: &[f64], scale| {
        let mut words = vec![0; 2 * slots.len() * basis.len()];
        let mut slots: Slots = slots.iter().copied().collect();
        encoder.encode_compact(&params, &mut slots, basis, basis, Scale(scale), &mut words)
    };
    assert!(matches!(encode(&[0.0, f64::NAN], 1e9), Err(EncodingError::NotFinite { slot: 1, .. })));
    assert!(matches!(encode(&[f64::NEG_INFINITY], 1e9), Err(EncodingError::NotFinite { slot: 0, .. })));
    assert!(matches!(encode(&[0.0; 3], 1e9), Err(EncodingError::Period { len: 3, slots: 32 })));
    assert!(matches!(encode(&[], 1e9), Err(EncodingError::Period { len: 0, .. })));
    assert!(matches!(encode(&[0.0; 64], 1e9), Err(EncodingError::Period { .. })));
    assert!(matches!(encode(&[1.0], 0.5), Err(EncodingError::Scale(_))));
    assert!(matches!(encode(&[1.0], f64::NAN), Err(EncodingError::Scale(_))));
    assert!(matches!(encode(&[1.0], 2f64.powi(80)), Err(EncodingError::Overflow { .. })));
    assert!(matches!(encode(&[1e300, -1e300], 1e300), Err(EncodingError::Overflow { .. })));
    assert!(matches!(encode(&[f64::MAX, f64::MAX], 1e9), Err(EncodingError::Overflow { .. })));
    assert!(encode(&[1.0], 2f64.powi(50)).is_ok());
}
