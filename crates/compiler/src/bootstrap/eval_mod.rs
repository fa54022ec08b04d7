//! The polynomial that takes a number modulo 1.
//!
//! A raised ciphertext holds `t = z / ratio + I` with a small integer I, and `sin(2 pi t) / (2 pi)` is z / ratio again, up to
//! `(2 pi / ratio)^2 / 6` of it. With `x = t - 1/4` that sine is `cos(2 pi x)`, and a cosine of an angle `2^d` times smaller
//! needs a polynomial of far lower degree, from which d double angles `y -> 2 y^2 - 1` lead back (Han and Ki, Better
//! Bootstrapping for Approximate Homomorphic Encryption, CT-RSA 2020, section 4). A cosine is even: in `v = 2 (x/X)^2 - 1`
//! the degree halves again.
//!
//! t is within `1 / ratio` of an integer, so the polynomial matters on a few narrow intervals only. It is the one of least
//! largest error there, each error counted with what the double angles make of it.

use std::f64::consts::{PI, TAU};

use cerium_ckks::params::SPARSE_WEIGHT;

/// How [`eval_mod`](super::eval_mod) takes numbers modulo 1.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalMod {
    /// Integers I of at most this size are removed.
    pub range: u32,
    /// Number of double angles.
    pub doublings: u32,
    /// Largest |x| of the intervals, which becomes 1.
    pub extent: f64,
    /// The Chebyshev series in v.
    pub coefficients: Vec<f64>,
    /// Largest error of the sine on the intervals.
    pub error: f64,
}

impl EvalMod {
    /// The polynomial of a degree in v, for integers up to `range` and messages of at most `1 / ratio`.
    ///
    /// # Panics
    /// If there are as many coefficients as points to fit, or the ratio is not above 2.
    pub fn new(range: u32, doublings: u32, degree: usize, ratio: f64) -> EvalMod {
        assert!(ratio > 2.0, "messages are less than half of the modulus");
        assert!(degree < 2 * range as usize, "more coefficients than intervals");
        let delta = 1.0 / ratio;
        let extent = f64::from(range) + 0.25 + delta;
        let angle = TAU / f64::from(1u32 << doublings);
        let integers = -i64::from(range)..=i64::from(range);
        let points: Vec<Point> = integers
            .flat_map(|i| [-delta, 0.0, delta].map(|offset| i as f64 + offset - 0.25))
            .map(|x| {
                let v = 2.0 * (x / extent).powi(2) - 1.0;
                // d cos(2^d a) / d cos(a) = 2^d sin(2^d a) / sin(a).
                let gain = f64::from(1u32 << doublings) * (TAU * x).sin() / (angle * x).sin();
                Point { row: chebyshev(v, degree), target: (angle * x).cos(), gain: gain.abs() }
            })
            .collect();
        let (coefficients, error) = least_largest_error(&points, degree + 1);
        EvalMod { range, doublings, extent, coefficients, error }
    }

    /// Base-2 logarithm of a bound on the probability that one of the `n` integers of a raised ciphertext is out of range.
    /// Each is the nearest integer to a sum of `weight + 1` numbers uniform in [-1/2, 1/2]; the bound is Chernoff's,
    /// `P(sum >= s) <= exp(-theta s) E[exp(theta u)]^(weight + 1)`, for the best theta.
    pub fn log_failure(&self, n: usize) -> f64 {
        log_failure(self.range, n)
    }

    /// Largest error of a message in [-1, 1] from the polynomial and from the sine together, for messages of at most
    /// `1 / ratio` of the modulus.
    pub fn message_error(&self, ratio: f64) -> f64 {
        ratio / TAU * self.error + (2.0 * PI / ratio).powi(2) / 6.0
    }

    /// The sine by the series and the double angles; the reference of tests.
    #[cfg(test)]
    fn evaluate(&self, t: f64) -> f64 {
        let v = 2.0 * ((t - 0.25) / self.extent).powi(2) - 1.0;
        let row = chebyshev(v, self.coefficients.len() - 1);
        let y = row.iter().zip(&self.coefficients).map(|(t, c)| t * c).sum();
        (0..self.doublings).fold(y, |y: f64, _| 2.0 * y * y - 1.0)
    }
}

/// Base-2 logarithm of a bound on the probability that one of `n` integers is larger than `range`.
pub(super) fn log_failure(range: u32, n: usize) -> f64 {
    let (terms, edge) = ((SPARSE_WEIGHT + 1) as f64, f64::from(range) + 0.5);
    if edge >= terms / 2.0 {
        return f64::NEG_INFINITY;
    }
    let exponent = |theta: f64| {
        let half = theta / 2.0;
        // ln(sinh(h) / h) without overflow.
        let log_mgf = half + (-(-2.0 * half).exp()).ln_1p() - (2.0 * half).ln();
        terms * log_mgf - theta * edge
    };
    let best = (1..2000).map(|i| exponent(f64::from(i) * 0.05)).fold(0.0, f64::min);
    best / std::f64::consts::LN_2 + 1.0 + (n as f64).log2()
}

/// A point to fit: Chebyshev polynomials there, the value, and how much its error counts.
struct Point {
    row: Vec<f64>,
    target: f64,
    gain: f64,
}

/// `T_0(v) .. T_degree(v)`.
fn chebyshev(v: f64, degree: usize) -> Vec<f64> {
    let mut row = vec![1.0, v];
    while row.len() <= degree {
        row.push(2.0 * v * row[row.len() - 1] - row[row.len() - 2]);
    }
    row.truncate(degree + 1);
    row
}

/// Coefficients with the least largest weighted error, and that error: Lawson's iteration of weighted least squares.
fn least_largest_error(points: &[Point], columns: usize) -> (Vec<f64>, f64) {
    let mut weights = vec![1.0; points.len()];
    let mut best = (Vec::new(), f64::INFINITY);
    for _ in 0..100 {
        let coefficients = least_squares(points, &weights, columns);
        let error = |p: &Point| {
            let value: f64 = p.row.iter().zip(&coefficients).map(|(t, c)| t * c).sum();
            (value - p.target).abs() * p.gain
        };
        let errors: Vec<f64> = points.iter().map(error).collect();
        let largest = errors.iter().copied().fold(0.0, f64::max);
        if largest < best.1 {
            best = (coefficients, largest);
        }
        weights.iter_mut().zip(&errors).for_each(|(w, e)| *w *= e + 1e-30);
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    best
}

/// Least squares by Householder reflections (Golub and Van Loan, Matrix Computations, section 5.3).
fn least_squares(points: &[Point], weights: &[f64], columns: usize) -> Vec<f64> {
    let scale = |(p, w): (&Point, &f64)| p.gain * w.sqrt();
    let mut rows: Vec<Vec<f64>> = points
        .iter()
        .zip(weights)
        .map(|pair| {
            let s = scale(pair);
            pair.0.row.iter().chain([&pair.0.target]).map(|x| x * s).collect()
        })
        .collect();
    for k in 0..columns {
        let norm = rows[k..].iter().map(|row| row[k] * row[k]).sum::<f64>().sqrt();
        let head = rows[k][k];
        let alpha = if head > 0.0 { -norm } else { norm };
        let mut reflector: Vec<f64> = rows[k..].iter().map(|row| row[k]).collect();
        reflector[0] -= alpha;
        let square: f64 = reflector.iter().map(|x| x * x).sum();
        if square == 0.0 {
            continue;
        }
        for j in k..=columns {
            let dot: f64 = reflector.iter().zip(&rows[k..]).map(|(r, row)| r * row[j]).sum();
            let factor = 2.0 * dot / square;
            reflector.iter().zip(&mut rows[k..]).for_each(|(r, row)| row[j] -= factor * r);
        }
    }
    let mut solution = vec![0.0; columns];
    for k in (0..columns).rev() {
        let rest: f64 = (k + 1..columns).map(|j| rows[k][j] * solution[j]).sum();
        solution[k] = (rows[k][columns] - rest) / rows[k][k];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_sine_on_every_interval() {
        for (range, degree, ratio, bound) in
            [(14, 15, 8192.0, 2e-11), (14, 12, 1024.0, 1e-6), (12, 15, 8192.0, 1e-12)]
        {
            let eval = EvalMod::new(range, 3, degree, ratio);
            let mut largest = 0.0f64;
            for i in -i64::from(range)..=i64::from(range) {
                for step in -50..=50 {
                    let t = i as f64 + f64::from(step) / 50.0 / ratio;
                    largest = largest.max((eval.evaluate(t) - (TAU * t).sin()).abs());
                }
            }
            assert!(largest < bound, "range {range}, degree {degree}: {largest:e}");
            assert!(largest < 1.05 * eval.error + 1e-13, "{largest:e} beyond {:e}", eval.error);
        }
    }

    #[test]
    fn failures_are_as_rare_as_the_exact_sum_says() {
        // The density of a sum of uniform variables by repeated convolution on a grid.
        let (terms, cells) = (SPARSE_WEIGHT + 1, 64usize);
        let mut density = vec![1.0f64];
        for _ in 0..terms {
            let mut next = vec![0.0; density.len() + cells - 1];
            for (i, p) in density.iter().enumerate() {
                next[i..i + cells].iter_mut().for_each(|q| *q += p / cells as f64);
            }
            density = next;
        }
        let center = (density.len() - 1) as f64 / 2.0;
        for range in [8, 10, 12, 14] {
            let eval = EvalMod { range, ..EvalMod::new(14, 3, 10, 1024.0) };
            let edge = (f64::from(range) + 0.5) * cells as f64;
            let tail: f64 = density
                .iter()
                .enumerate()
                .filter(|(i, _)| (*i as f64 - center).abs() >= edge)
                .map(|(_, p)| p)
                .sum();
            let (bound, exact) = (eval.log_failure(1), tail.log2());
            assert!(
                bound >= exact && bound < exact + 6.0,
                "range {range}: bound 2^{bound:.1}, exact 2^{exact:.1}"
            );
        }
    }
}
