//! The special FFT: between the slots of a message and the coefficients of its polynomial.
//!
//! Slot k of a real polynomial of degree below 2p is its value at w_k = exp(i pi 5^k / 2p), k < p. Because
//! w_k^p = i, pairing the coefficients as u_j = m_j + i m_(j+p) leaves z_k = sum u_j w_k^j. Splitting into
//! even and odd j gives two transforms of half the size, for w_k^2 is the root of that size, and w_(k+p/2) =
//! -w_k: an FFT whose twiddle factors in the stage of length `len` are exp(i pi 5^k / 2 len), whatever p is.
//! One table serves all periods.

use num_complex::Complex64;

/// Twiddle factors of all stages up to `2^log_slots` slots: entry `len/2 + k` is exp(i pi 5^k / 2 len), k <
/// len/2.
pub(super) fn roots(log_slots: u32) -> Vec<Complex64> {
    let mut roots = vec![Complex64::default(); 1 << log_slots];
    for log_half in 0..log_slots {
        let half = 1usize << log_half;
        let mask = 8 * half as u32 - 1;
        let mut power = 1u32;
        for root in &mut roots[half..2 * half] {
            *root = unit(power, log_half + 3);
            power = power.wrapping_mul(5) & mask;
        }
    }
    roots
}

/// Slots from paired coefficients, in place; the length is a power of two up to that of `roots`.
pub(super) fn forward(roots: &[Complex64], values: &mut [Complex64]) {
    bit_reverse(values);
    let mut half = 1;
    while half < values.len() {
        let twiddles = &roots[half..2 * half];
        for block in values.chunks_exact_mut(2 * half) {
            let (even, odd) = block.split_at_mut(half);
            for ((e, o), &w) in even.iter_mut().zip(odd).zip(twiddles) {
                let turned = *o * w;
                (*e, *o) = (*e + turned, *e - turned);
            }
        }
        half *= 2;
    }
}

/// Paired coefficients from slots, in place: the inverse of [`forward`].
pub(super) fn inverse(roots: &[Complex64], values: &mut [Complex64]) {
    let mut half = values.len() / 2;
    while half > 0 {
        let twiddles = &roots[half..2 * half];
        for block in values.chunks_exact_mut(2 * half) {
            let (even, odd) = block.split_at_mut(half);
            for ((e, o), &w) in even.iter_mut().zip(odd).zip(twiddles) {
                (*e, *o) = (*e + *o, (*e - *o) * w.conj());
            }
        }
        half /= 2;
    }
    bit_reverse(values);
    // A power of two: exact.
    let factor = 1.0 / values.len() as f64;
    for value in values {
        *value = Complex64 { re: value.re * factor, im: value.im * factor };
    }
}

fn bit_reverse(values: &mut [Complex64]) {
    let bits = values.len().trailing_zeros();
    for i in 0..values.len() {
        let j = if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) };
        if i < j {
            values.swap(i, j);
        }
    }
}

/// exp(2 pi i turn / 2^log_order) for `turn` below 2^`log_order`, `log_order` at least 3, from additions and
/// multiplications alone: the system's sine differs between machines, and encodings must not.
pub(super) fn unit(turn: u32, log_order: u32) -> Complex64 {
    let eighth = 1u32 << (log_order - 3);
    let (octant, rest) = (turn / eighth, turn % eighth);
    // Odd octants are mirror images, so that the angle lies in [0, pi/4].
    let rest = if octant % 2 == 0 { rest } else { eighth - rest };
    let x = f64::from(rest) / f64::from(eighth) * std::f64::consts::FRAC_PI_4;
    let series = |first: f64, from: u32| {
        // Terms from the 11th on are below 2^-53 of the sum.
        (1..11).rev().fold(1.0, |sum, i| {
            let k = f64::from(2 * i + from);
            1.0 - sum * x * x / (k * (k - 1.0))
        }) * first
    };
    let (cos, sin) = (series(1.0, 0), series(x, 1));
    let (re, im) = match octant {
        0 => (cos, sin),
        1 => (sin, cos),
        2 => (-sin, cos),
        3 => (-cos, sin),
        4 => (-cos, -sin),
        5 => (-sin, -cos),
        6 => (sin, -cos),
        _ => (cos, -sin),
    };
    Complex64 { re, im }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_accurate() {
        for log_order in [3, 4, 7, 18] {
            let order = 1u32 << log_order;
            for turn in (0..order).step_by((order as usize / 1000).max(1)) {
                let angle = f64::from(turn) / f64::from(order) * std::f64::consts::TAU;
                let unit = unit(turn, log_order);
                assert!((unit.re - angle.cos()).abs() < 1e-15, "{turn}/{order}");
                assert!((unit.im - angle.sin()).abs() < 1e-15, "{turn}/{order}");
            }
        }
    }

    #[test]
    fn agrees_with_evaluation_at_the_roots() {
        for log_slots in 0..7 {
            let (slots, roots) = (1usize << log_slots, roots(9));
            let coefficients: Vec<Complex64> = (0..slots)
                .map(|i| Complex64 { re: (i as f64 * 0.7).sin(), im: (i as f64 * 1.3 + 1.0).cos() })
                .collect();
            let mut values = coefficients.clone();
            forward(&roots, &mut values);
            let mut power = 1;
            for value in &values {
                let root = |j: usize| unit((power * j % (4 * slots)) as u32 * 2, log_slots + 3);
                let direct = coefficients
                    .iter()
                    .enumerate()
                    .fold(Complex64::default(), |sum, (j, &u)| sum + u * root(j));
                assert!((value.re - direct.re).abs() + (value.im - direct.im).abs() < 1e-12);
                power = power * 5 % (4 * slots);
            }
            inverse(&roots, &mut values);
            for (value, u) in values.iter().zip(&coefficients) {
                assert!((value.re - u.re).abs() + (value.im - u.im).abs() < 1e-13);
            }
        }
    }
}
