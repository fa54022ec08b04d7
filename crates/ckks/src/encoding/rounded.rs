//! The inverse transform in vectors, and its values rounded to integers of 64 bits.
//!
//! The operations on each value are those of [`fft::inverse`](super::fft::inverse) and in its order, so that the bits are the
//! same. Real and imaginary parts lie apart. The last three stages, the reversal of indices and the rounding are one pass: it
//! takes eight rows of eight values whose indices differ in the upper three bits, and what it makes of them are eight rows
//! again, for reversing moves those bits to the end.

use num_complex::Complex64;

use crate::dispatch;
use crate::isa::Isa;
use crate::lanes::Lanes;

/// Values that are worked on together; the compiler makes vectors of them.
const ROW: usize = 8;

type Row = [f64; ROW];

/// A row of complex numbers: real and imaginary parts.
type Complexes = [Row; 2];

/// Slots of the shortest transform that is done in rows.
pub(super) const SHORTEST: usize = ROW * ROW;

/// Most slots of a block that is transformed by itself: it stays in the innermost cache.
const BLOCK: usize = 1024;

/// Bound on coefficients: two exact words tell each.
pub(super) const LIMIT: f64 = (1u64 << 62) as f64;

/// Twiddle factors as in [`fft::roots`](super::fft::roots), real and imaginary parts apart.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    re: Vec<f64>,
    im: Vec<f64>,
}

impl Roots {
    pub(super) fn new(roots: &[Complex64]) -> Roots {
        let (re, im) = roots.iter().map(|root| (root.re, root.im)).unzip();
        Roots { re, im }
    }

    /// Those from `start` on, `len` of them, in rows.
    #[inline(always)]
    fn rows(&self, start: usize, len: usize) -> [&[Row]; 2] {
        [&self.re, &self.im].map(|part| part[start..start + len].as_chunks().0)
    }
}

/// Transforms slots in place, multiplies what comes out by `scale` and rounds it. The low words of `c + 2^63` for all
/// coefficients c go to the first half of `out`, the high words to the second. The answer is the largest |c|.
///
/// Slots times `scale` are below [`LIMIT`] / 2, and there are at least [`SHORTEST`].
pub(super) fn inverse(isa: Isa, roots: &Roots, slots: [&mut [f64]; 2], scale: f64, out: &mut [u32]) -> f64 {
    let [re, im] = slots;
    let len = re.len();
    assert!(len.is_power_of_two() && len >= SHORTEST && im.len() == len && out.len() == 4 * len);
    let mut largest = 0;
    let most = &mut largest;
    dispatch!(
        isa,
        run(roots: &Roots, re: &mut [f64], im: &mut [f64], scale: f64, out: &mut [u32], most: &mut u64)
    );
    f64::from_bits(largest).round_ties_even()
}

/// `most` takes the bits of the largest coefficient without its sign, before it is rounded: those of positive doubles are
/// ordered as the doubles are.
///
/// # Safety
/// None: only plain code is compiled for the features of `V`.
#[inline(always)]
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "the compiler finds the vectors; only `dispatch` names their type"
)]
unsafe fn run<V: Lanes>(
    roots: &Roots,
    re: &mut [f64],
    im: &mut [f64],
    scale: f64,
    out: &mut [u32],
    most: &mut u64,
) {
    let mut block = re.len();
    while block > BLOCK {
        block = stages(roots, re, im, block);
    }
    for (re, im) in re.chunks_exact_mut(block).zip(im.chunks_exact_mut(block)) {
        let mut block = block;
        while block > ROW {
            block = stages(roots, re, im, block);
        }
    }
    *most = finish(roots, re, im, scale, out);
}

/// Two stages on blocks of `block` values, or the only one that is left before [`finish`]. The length of blocks after them.
#[inline(always)]
fn stages(roots: &Roots, re: &mut [f64], im: &mut [f64], block: usize) -> usize {
    let blocks = re.chunks_exact_mut(block).zip(im.chunks_exact_mut(block));
    if block == 2 * ROW {
        let w = roots.rows(ROW, ROW).map(|part| part[0]);
        for (re, im) in blocks {
            let (re, im) = (re.as_chunks_mut::<ROW>().0, im.as_chunks_mut::<ROW>().0);
            let ([a, b], [c, d]) = butterfly([re[0], im[0]], [re[1], im[1]], w);
            (re[0], im[0], re[1], im[1]) = (a, b, c, d);
        }
        return ROW;
    }
    let quarter = block / 4;
    let count = quarter / ROW;
    let [near_re, near_im] = roots.rows(2 * quarter, quarter);
    let [far_re, far_im] = roots.rows(3 * quarter, quarter);
    let [inner_re, inner_im] = roots.rows(quarter, quarter);
    for (re, im) in blocks {
        let (re, im) = (quarters(re), quarters(im));
        for i in 0..count {
            let at = |part: usize| [re[part][i], im[part][i]];
            let (a, c) = butterfly(at(0), at(2), [near_re[i], near_im[i]]);
            let (b, d) = butterfly(at(1), at(3), [far_re[i], far_im[i]]);
            let w = [inner_re[i], inner_im[i]];
            let ((a, b), (c, d)) = (butterfly(a, b, w), butterfly(c, d, w));
            for (part, value) in [a, b, c, d].into_iter().enumerate() {
                (re[part][i], im[part][i]) = (value[0], value[1]);
            }
        }
    }
    quarter
}

/// The rows of four equal parts.
#[inline(always)]
fn quarters(values: &mut [f64]) -> [&mut [Row]; 4] {
    let (front, back) = values.split_at_mut(values.len() / 2);
    let (a, b) = front.split_at_mut(front.len() / 2);
    let (c, d) = back.split_at_mut(back.len() / 2);
    [a, b, c, d].map(|part| part.as_chunks_mut().0)
}

/// `(x + y, (x - y) * conjugate of w)`.
#[inline(always)]
fn butterfly(x: Complexes, y: Complexes, w: Complexes) -> (Complexes, Complexes) {
    let (mut sum, mut turned) = (x, y);
    for i in 0..ROW {
        let (re, im) = (x[0][i] - y[0][i], x[1][i] - y[1][i]);
        sum[0][i] = x[0][i] + y[0][i];
        sum[1][i] = x[1][i] + y[1][i];
        turned[0][i] = re * w[0][i] + im * w[1][i];
        turned[1][i] = im * w[0][i] - re * w[1][i];
    }
    (sum, turned)
}

/// Three bits in reverse.
const REVERSED: [usize; ROW] = [0, 4, 2, 6, 1, 5, 3, 7];

/// The stages within blocks of [`ROW`] values, values to their places, division by their number, multiplication and rounding.
/// The answer is what [`run`] says of `most`.
#[inline(always)]
fn finish(roots: &Roots, re: &[f64], im: &[f64], scale: f64, out: &mut [u32]) -> u64 {
    let len = re.len();
    // Rows whose numbers differ in the upper three bits are `distance` apart.
    let distance = len / SHORTEST;
    let log_distance = distance.trailing_zeros();
    let factor = 1.0 / len as f64;
    let (low, high) = out.split_at_mut(2 * len);
    let mut most = [0; ROW];
    let w = |index: usize| [[roots.re[index]; ROW], [roots.im[index]; ROW]];
    let w = [w(1), w(2), w(3), w(4), w(5), w(6), w(7)];
    let (re, im) = (re.as_chunks::<ROW>().0, im.as_chunks::<ROW>().0);
    for first in 0..distance {
        let mut x: [Complexes; ROW] = [[[0.0; ROW]; 2]; ROW];
        for (top, &to) in REVERSED.iter().enumerate() {
            let row = first + top * distance;
            for l in 0..ROW {
                x[l][0][to] = re[row][l];
                x[l][1][to] = im[row][l];
            }
        }
        for l in 0..4 {
            (x[l], x[l + 4]) = butterfly(x[l], x[l + 4], w[3 + l]);
        }
        for l in [0, 1, 4, 5] {
            (x[l], x[l + 2]) = butterfly(x[l], x[l + 2], w[1 + l % 2]);
        }
        for l in [0, 2, 4, 6] {
            (x[l], x[l + 1]) = butterfly(x[l], x[l + 1], w[0]);
        }
        let reversed =
            if log_distance == 0 { 0 } else { first.reverse_bits() >> (usize::BITS - log_distance) };
        for (l, parts) in x.iter().enumerate() {
            let at = REVERSED[l] * len / ROW + reversed * ROW;
            for (part, values) in parts.iter().enumerate() {
                let at = part * len + at;
                let (low, high) = (&mut low[at..at + ROW], &mut high[at..at + ROW]);
                for i in 0..ROW {
                    // The first factor is a power of two: exact.
                    let c = values[i] * factor * scale;
                    most[i] = most[i].max(c.abs().to_bits());
                    let word = shifted(c);
                    (low[i], high[i]) = (word as u32, (word >> 32) as u32);
                }
            }
        }
    }
    most.into_iter().max().unwrap_or(0)
}

/// `c + 2^63` for the integer next to `c`, ties to even, with `|c| <= ` [`LIMIT`].
#[inline(always)]
fn shifted(c: f64) -> u64 {
    // Adding this rounds doubles below 2^51 to integers, and leaves these in the lower bits.
    const ROUND: f64 = (3u64 << 51) as f64;
    const HALF: f64 = (1u64 << 31) as f64;
    let upper = c * (1.0 / HALF) + ROUND;
    // Exact: the difference of two multiples of the last place of c that is not larger than either. The part that is taken off
    // is even, so that ties stay what they are.
    let lower = (c - (upper - ROUND) * HALF) + ROUND;
    let integer = |x: f64| x.to_bits().wrapping_sub(ROUND.to_bits());
    (integer(upper) << 31).wrapping_add(integer(lower)) ^ 1 << 63
}

#[cfg(test)]
mod tests {
    use rand_core::RngCore;

    use super::super::fft;
    use super::*;
    use crate::testing::fresh_rng;

    #[test]
    fn integers_are_those_of_the_plain_transform_on_every_instruction_set() {
        let mut rng = fresh_rng();
        let roots = fft::roots(12);
        let split = Roots::new(&roots);
        for log_len in 6..=12 {
            // Coefficients of one bit, with fractions, and of the most bits.
            for log_scale in [3, 20, 45, 60] {
                let len = 1 << log_len;
                let mut part = || (rng.next_u64() as f64) / 2f64.powi(64) - 0.5;
                let slots: Vec<Complex64> = (0..len).map(|_| Complex64 { re: part(), im: part() }).collect();
                let scale = 1.1 * 2f64.powi(log_scale);
                let mut values = slots.clone();
                fft::inverse(&roots, &mut values);
                let scaled =
                    values.iter().map(|u| u.re).chain(values.iter().map(|u| u.im)).map(|c| c * scale);
                let expected: Vec<i64> = scaled.map(|c| c.round_ties_even() as i64).collect();
                let largest = expected.iter().map(|c| c.unsigned_abs()).max().unwrap();
                for isa in Isa::available() {
                    let (mut re, mut im): (Vec<f64>, Vec<f64>) = slots.iter().map(|z| (z.re, z.im)).unzip();
                    let mut out = vec![u32::MAX; 4 * len];
                    let found = inverse(isa, &split, [&mut re, &mut im], scale, &mut out);
                    let (low, high) = out.split_at(2 * len);
                    let integer = |(&low, &high): (&u32, &u32)| {
                        (u64::from(high) << 32 | u64::from(low)).wrapping_sub(1 << 63).cast_signed()
                    };
                    let integers: Vec<i64> = low.iter().zip(high).map(integer).collect();
                    assert!(integers == expected, "{isa}, 2^{log_len} slots, scale 2^{log_scale}");
                    assert_eq!(found, largest as f64);
                }
            }
        }
    }

    #[test]
    fn doubles_become_the_nearest_integers() {
        let mut rng = fresh_rng();
        let check = |c: f64| {
            let expected = (c.round_ties_even() as i64).cast_unsigned() ^ 1 << 63;
            assert_eq!(shifted(c), expected, "{c:e}");
        };
        let halves = (-20..20).map(|i| f64::from(i) / 2.0);
        let near = |c: f64| [c - 1.5, c - 1.0, c - 0.5, c, c + 0.5, c + 1.0, c + 1.5];
        let powers = (0..=62).flat_map(|bits| near(2f64.powi(bits)));
        halves.chain(powers.filter(|c| c.abs() <= LIMIT)).for_each(|c| {
            check(c);
            check(-c);
        });
        for _ in 0..10_000 {
            let c = f64::from_bits(rng.next_u64());
            // Any exponent in turn.
            let c = c / 2f64.powi(c.abs().log2().floor().max(-1000.0) as i32)
                * 2f64.powi((rng.next_u32() % 66) as i32 - 4);
            if c.abs() <= LIMIT {
                check(c);
            }
        }
    }
}
