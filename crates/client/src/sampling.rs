//! The distributions of the scheme: ternary secrets of fixed weight, and the discrete Gaussian error.

use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::random::SecretRng;

/// Standard deviation of the error, in units of a coefficient (ePrint 2024/463, section 3).
pub const ERROR_DEVIATION: f64 = 3.19;

/// No error is larger than this. A discrete Gaussian exceeds it with probability below 2^-64, 9.4 deviations
/// out.
pub const ERROR_BOUND: i8 = 30;

/// Small coefficients of a secret polynomial, wiped when dropped.
pub(crate) type Small = Zeroizing<Vec<i8>>;

/// N coefficients of which `weight`, at random places, are -1 or 1 with equal probability, and the others 0.
pub(crate) fn ternary(rng: &mut SecretRng, n: usize, weight: usize) -> Small {
    let mut coefficients = Zeroizing::new(vec![0i8; n]);
    for coefficient in coefficients.iter_mut().take(weight) {
        *coefficient = 1 - 2 * (rng.next_u64() & 1) as i8;
    }
    // Fisher and Yates.
    for i in (1..n).rev() {
        let j = rng.below(i as u32 + 1) as usize;
        coefficients.swap(i, j);
    }
    coefficients
}

/// N errors: the discrete Gaussian of [`ERROR_DEVIATION`], cut at [`ERROR_BOUND`].
///
/// By inversion: the magnitude is the number of k with `r < P(|x| > k)` for a uniform 64-bit fraction r. All
/// thresholds are compared, so time and memory accesses do not depend on the outcome.
pub(crate) fn gaussian(rng: &mut SecretRng, n: usize) -> Small {
    let thresholds = thresholds();
    let mut sample = || {
        let r = rng.next_u64();
        let magnitude: i8 = thresholds.iter().map(|&threshold| i8::from(r < threshold)).sum();
        let sign = (rng.next_u64() & 1) as i8;
        (magnitude ^ -sign) + sign
    };
    Zeroizing::new((0..n).map(|_| sample()).collect())
}

/// `2^64 P(|x| > k)` for k from 0 to below the bound.
fn thresholds() -> &'static [u64; ERROR_BOUND as usize] {
    static TABLE: OnceLock<[u64; ERROR_BOUND as usize]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let weight = |k: i32| (-f64::from(k * k) / (2.0 * ERROR_DEVIATION * ERROR_DEVIATION)).exp();
        // Summed from the tail, so that small probabilities keep their relative precision.
        let beyond =
            |k: i32| (k + 1..=4 * i32::from(ERROR_BOUND)).rev().map(|i| 2.0 * weight(i)).sum::<f64>();
        let total = beyond(0) + 1.0;
        std::array::from_fn(|k| (beyond(k as i32) / total * 2f64.powi(64)) as u64)
    })
}

/// Two independent numbers from the normal distribution with deviation 1 (Box and Muller).
pub(crate) fn normal_pair(rng: &mut SecretRng) -> [f64; 2] {
    let radius = (-2.0 * rng.unit().ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * rng.unit()).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_exactly_half_weight() {
        let mut rng = SecretRng::new().unwrap();
        let mut totals = [0i64; 2];
        for n in [16, 4096, 1 << 14] {
            let secret = ternary(&mut rng, n, n / 2);
            assert_eq!(secret.iter().filter(|&&c| c != 0).count(), n / 2);
            assert!(secret.iter().all(|c| (-1..=1).contains(c)));
            if n == 1 << 14 {
                totals = [
                    secret.iter().map(|&c| i64::from(c)).sum(),
                    secret[..n / 2].iter().map(|&c| i64::from(c.abs())).sum(),
                ];
            }
        }
        // Signs balance, and places are spread: deviations 90 and 32, ten of them allowed.
        assert!(totals[0].abs() < 900 && (totals[1] - 4096).abs() < 320, "{totals:?}");
    }

    #[test]
    fn errors_have_the_stated_distribution() {
        let (mut rng, n) = (SecretRng::new().unwrap(), 1 << 18);
        let errors = gaussian(&mut rng, n);
        let moment = |p: i32| errors.iter().map(|&e| f64::from(e).powi(p)).sum::<f64>() / n as f64;
        let (n, sigma2) = (n as f64, ERROR_DEVIATION * ERROR_DEVIATION);
        // Within eight deviations of the sample moments: var x = s^2, var x^2 = 2 s^4, var x^4 = 96 s^8.
        assert!(moment(1).abs() < 8.0 * (sigma2 / n).sqrt());
        assert!((moment(2) - sigma2).abs() < 8.0 * sigma2 * (2.0 / n).sqrt());
        assert!((moment(4) - 3.0 * sigma2 * sigma2).abs() < 8.0 * sigma2 * sigma2 * (96.0 / n).sqrt());
        let zeros = errors.iter().filter(|&&e| e == 0).count() as f64 / n;
        let expected = 1.0 / (ERROR_DEVIATION * std::f64::consts::TAU.sqrt());
        assert!((zeros - expected).abs() < 8.0 * (expected / n).sqrt());
        assert!(errors.iter().all(|e| e.abs() <= ERROR_BOUND));
    }

    #[test]
    fn the_tail_is_cut_below_the_resolution() {
        let thresholds = thresholds();
        assert!(thresholds.is_sorted_by(|a, b| a > b));
        // What lies beyond the bound would be less than one part in 2^64.
        let last = thresholds[ERROR_BOUND as usize - 1] as f64;
        assert!(last * (-(f64::from(ERROR_BOUND)) / (ERROR_DEVIATION * ERROR_DEVIATION)).exp() < 1.0);
    }
}
