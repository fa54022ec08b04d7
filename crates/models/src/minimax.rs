//! Polynomials whose largest error is the least possible, by Remez' exchange, and compositions of them for the sign.
//!
//! The sign is an odd function with a jump, so a polynomial meets it on `[-1, -eps]` and `[eps, 1]` only, which by symmetry is
//! the constant 1 on `[eps, 1]`. A composition `p_k(.. p_1(x))` of odd minimax polynomials, each on the values that the one
//! before leaves, needs far fewer products than one polynomial of the same error (Lee, Lee, No and Kim, Minimax
//! Approximation of Sign Function by Composite Polynomial for Homomorphic Comparison, ePrint 2020/834).

use crate::chebyshev::Chebyshev;

/// Exchanges until the extrema of the error are equal; each gains digits quadratically, so that a dozen is plenty.
const EXCHANGES: usize = 40;
/// Extrema that differ by less than this share of the largest count as equal.
const LEVELLED: f64 = 1e-6;
/// Points for each extremum on which extrema are looked for.
const GRID: usize = 40;

/// A polynomial of least largest error.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimax {
    /// The polynomial.
    pub polynomial: Chebyshev,
    /// Its largest error on the interval.
    pub error: f64,
    /// Where the error takes its largest size with alternating signs: one point more than there are free coefficients,
    /// which proves that no other choice of them does better (Chebyshev's theorem).
    pub alternation: Vec<f64>,
}

/// The combination of the Chebyshev polynomials `T_k` for `k` in `terms` that is nearest to `f` on `interval`.
///
/// The terms are all even ones up to some degree and the interval lies in `[0, 1]`, or all odd ones, and it does so without 0:
/// then no combination but zero has as many zeros there as there are terms, which is what the theory asks for.
///
/// # Panics
/// If there are no terms, or the interval is empty or not within `[0, 1]`.
pub fn minimax(f: impl Fn(f64) -> f64, terms: &[usize], interval: [f64; 2]) -> Minimax {
    let [low, high] = interval;
    let inside = 0.0 <= low && low < high && high <= 1.0;
    assert!(!terms.is_empty() && inside, "{} terms on [{low}, {high}]", terms.len());
    let count = terms.len() + 1;
    // Chebyshev points in the square, of which even polynomials are polynomials: denser where the extrema are.
    let place = |share: f64| {
        let along = (1.0 - (std::f64::consts::PI * share).cos()) / 2.0;
        (low * low + (high * high - low * low) * along).sqrt()
    };
    let mut points: Vec<f64> = (0..count).map(|i| place(i as f64 / (count - 1) as f64)).collect();
    let steps = GRID * count;
    let grid: Vec<f64> = (0..=steps).map(|i| place(i as f64 / steps as f64)).collect();
    let mut polynomial = Chebyshev { coefficients: vec![0.0] };
    for _ in 0..EXCHANGES {
        polynomial = levelled(&f, terms, &points);
        let error = |x: f64| polynomial.evaluate(x) - f(x);
        points = alternation(&error, &grid, count).unwrap_or(points);
        let sizes = points.iter().map(|&x| error(x).abs());
        let (least, most) = sizes.fold((f64::INFINITY, 0.0f64), |(a, b), size| (a.min(size), b.max(size)));
        if most - least <= LEVELLED * most {
            break;
        }
    }
    let error = |x: &f64| (polynomial.evaluate(*x) - f(*x)).abs();
    let error = points.iter().chain(&grid).map(error).fold(0.0, f64::max);
    Minimax { polynomial, error, alternation: points }
}

/// The combination of terms whose errors at the points are equal with alternating signs.
fn levelled(f: &impl Fn(f64) -> f64, terms: &[usize], points: &[f64]) -> Chebyshev {
    let largest = terms.iter().copied().max().unwrap_or(0);
    let mut rows: Vec<Vec<f64>> = points
        .iter()
        .enumerate()
        .map(|(i, &x)| {
            let mut basis = vec![1.0, x];
            (2..=largest).for_each(|k| basis.push(2.0 * x * basis[k - 1] - basis[k - 2]));
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            terms.iter().map(|&k| basis[k]).chain([sign, f(x)]).collect()
        })
        .collect();
    let solution = solve(&mut rows);
    let mut coefficients = vec![0.0; largest + 1];
    terms.iter().zip(solution).for_each(|(&k, c)| coefficients[k] = c);
    Chebyshev { coefficients }
}

/// Gauss elimination with the largest pivot of each column; rows end with the right side.
fn solve(rows: &mut [Vec<f64>]) -> Vec<f64> {
    let n = rows.len();
    for column in 0..n {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b))).expect("there are rows left");
        rows.swap(column, pivot);
        let (above, below) = rows.split_at_mut(column + 1);
        let pivot = &above[column];
        for row in below {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * solution[k]).sum();
        solution[row] = (rows[row][n] - known) / rows[row][row];
    }
    solution
}

/// `count` points at which the error has extrema of alternating signs, the largest ones; `None` if there are fewer.
fn alternation(error: &impl Fn(f64) -> f64, grid: &[f64], count: usize) -> Option<Vec<f64>> {
    // The largest error between two changes of its sign.
    let mut extrema: Vec<(f64, f64)> = Vec::new();
    for (i, &x) in grid.iter().enumerate() {
        let mut found = (x, error(x));
        let inside = i > 0 && i + 1 < grid.len();
        if inside && found.1.abs() >= error(grid[i - 1]).abs() && found.1.abs() >= error(grid[i + 1]).abs() {
            found = sharpen(error, grid[i - 1], grid[i + 1]);
        }
        match extrema.last_mut() {
            Some(last) if (last.1 < 0.0) == (found.1 < 0.0) => {
                if found.1.abs() > last.1.abs() {
                    *last = found;
                }
            }
            _ => extrema.push(found),
        }
    }
    // Of too many, those at an end go, the smaller one first: what is left still alternates.
    while extrema.len() > count {
        let (first, last) = (extrema[0].1.abs(), extrema[extrema.len() - 1].1.abs());
        if first < last {
            extrema.remove(0);
        } else {
            extrema.pop();
        }
    }
    (extrema.len() == count).then(|| extrema.into_iter().map(|(x, _)| x).collect())
}

/// The extremum of the error's size between `low` and `high`, where it has one, by golden section.
fn sharpen(error: &impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> (f64, f64) {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..40 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if error(a).abs() > error(b).abs() { high = b } else { low = a }
    }
    let middle = 0.5 * (low + high);
    (middle, error(middle))
}

/// The sign as a composition of odd polynomials on `[-1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CompositeSign {
    /// The polynomials, the first one applied first. Each maps `[-1, 1]` to itself, but the last one, which ends within
    /// [`error`](Self::error) of -1 and 1.
    pub stages: Vec<Chebyshev>,
    /// Largest error where `|x|` is in `[eps, 1]`.
    pub error: f64,
}

impl CompositeSign {
    /// The composition of polynomials of these odd degrees that is nearest to the sign where `|x|` is in `[eps, 1]`: each is
    /// the minimax polynomial on the values that the one before leaves, which is the best choice (theorem 2 of the paper).
    ///
    /// # Panics
    /// If there are no degrees, one is even, or `eps` is not in `(0, 1)`.
    pub fn new(degrees: &[usize], eps: f64) -> Self {
        assert!(eps > 0.0 && eps < 1.0 && !degrees.is_empty(), "{degrees:?} on [{eps}, 1]");
        let (mut stages, mut low, mut error) = (Vec::new(), eps, 1.0);
        for (i, &degree) in degrees.iter().enumerate() {
            assert!(degree % 2 == 1, "the sign is odd, degree {degree} is not");
            let terms: Vec<usize> = (1..=degree).step_by(2).collect();
            let found = minimax(|_| 1.0, &terms, [low, 1.0]);
            // What is left lies within the error of 1; it is scaled so that the next one sees [low, 1].
            let scale = if i + 1 < degrees.len() { 1.0 / (1.0 + found.error) } else { 1.0 };
            stages.push(found.polynomial.scaled(scale));
            (low, error) = ((1.0 - found.error) * scale, found.error);
        }
        Self { stages, error }
    }

    /// The composition with the `eps` for which `badness` is least: some error that a wider gap makes smaller outside and
    /// larger inside of the gap, such as [`magnitude_error`](Self::magnitude_error).
    pub fn best(degrees: &[usize], badness: impl Fn(&Self) -> f64) -> Self {
        let at = |log: f64| Self::new(degrees, log.exp2());
        let (mut low, mut high) = (-20.0, -0.5);
        for _ in 0..24 {
            let (a, b) = (low + (high - low) * 0.4, low + (high - low) * 0.6);
            if badness(&at(a)) < badness(&at(b)) { high = b } else { low = a }
        }
        at(0.5 * (low + high))
    }

    /// Its value at `x`.
    pub fn evaluate(&self, x: f64) -> f64 {
        self.stages.iter().fold(x, |x, stage| stage.evaluate(x))
    }

    /// The largest error of `x * sign(x)` in the place of `|x|`.
    pub fn magnitude_error(&self) -> f64 {
        // Dense near 0 and 1 alike: the errors of the first polynomial are wide, those around the gap narrow.
        let near = (0..2048).map(|i| f64::exp2(-16.0 * f64::from(i) / 2048.0));
        let even = (0..=2048).map(|i| f64::from(i) / 2048.0);
        near.chain(even).map(|x| (x * self.evaluate(x) - x).abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many extrema as Chebyshev's theorem asks for, of one size and of alternating signs, and no larger error between.
    fn check(found: &Minimax, f: impl Fn(f64) -> f64, terms: usize, [low, high]: [f64; 2]) {
        let error = |x: f64| found.polynomial.evaluate(x) - f(x);
        assert_eq!(found.alternation.len(), terms + 1);
        assert!(found.alternation.is_sorted());
        for pair in found.alternation.windows(2) {
            assert!(error(pair[0]) * error(pair[1]) < 0.0, "{pair:?}");
        }
        for &x in &found.alternation {
            assert!((error(x).abs() / found.error - 1.0).abs() < 1e-5, "{} at {x}", error(x));
        }
        let worst = (0..=20_000).map(|i| error(low + (high - low) * f64::from(i) / 2e4).abs());
        assert!(worst.fold(0.0, f64::max) < found.error * (1.0 + 1e-5));
    }

    #[test]
    fn magnitude_has_the_known_errors() {
        // 2n E_2n(|x|) of Varga and Carpenter, On the Bernstein conjecture in approximation theory (Constr. Approx. 1985).
        for (degree, product) in [(2, 0.25), (4, 0.270_483_597)] {
            let terms: Vec<usize> = (0..=degree).step_by(2).collect();
            let found = minimax(f64::abs, &terms, [0.0, 1.0]);
            check(&found, f64::abs, terms.len(), [0.0, 1.0]);
            let known = product / degree as f64;
            assert!((found.error - known).abs() < 1e-4 * known, "{degree}: {} is not {known}", found.error);
        }
        // Their limit is Bernstein's constant, 0.2801694990.
        let terms: Vec<usize> = (0..=62).step_by(2).collect();
        let error = minimax(f64::abs, &terms, [0.0, 1.0]).error;
        assert!((error * 62.0 - 0.280_169_5).abs() < 1e-4, "{error}");
    }

    #[test]
    fn sign_alternates() {
        // Degree 1 by hand: c eps = 1 - e and c = 1 + e.
        let found = minimax(|_| 1.0, &[1], [0.2, 1.0]);
        assert!((found.error - 0.8 / 1.2).abs() < 1e-9);
        for (degree, eps) in [(3, 0.3), (7, 0.05), (15, 0.01), (27, 0.1), (31, 1e-3)] {
            let terms: Vec<usize> = (1..=degree).step_by(2).collect();
            let found = minimax(|_| 1.0, &terms, [eps, 1.0]);
            check(&found, |_| 1.0, terms.len(), [eps, 1.0]);
        }
    }

    #[test]
    fn a_composition_beats_one_polynomial_of_its_cost() {
        let composite = CompositeSign::new(&[7, 7], 0.05);
        let terms: Vec<usize> = (1..=15).step_by(2).collect();
        assert!(composite.error < minimax(|_| 1.0, &terms, [0.05, 1.0]).error);
        for i in 0..=1000 {
            let x = 0.05 + 0.95 * f64::from(i) / 1000.0;
            let (above, below) = (composite.evaluate(x), composite.evaluate(-x));
            assert!((above - 1.0).abs() < composite.error * (1.0 + 1e-5) && above == -below);
            assert!(composite.stages[0].evaluate(x) <= 1.0 + 1e-9, "the second one is left at {x}");
        }
    }

    /// ReLU within 2^-13 by degrees 15, 15 and 27 (Lee et al., Low-Complexity Deep Convolutional Neural Networks on Fully
    /// Homomorphic Encryption Using Multiplexed Parallel Convolutions, ePrint 2021/1688): its error is half that of `|x|`.
    #[test]
    fn relu_of_the_literature() {
        let sign = CompositeSign::best(&[15, 15, 27], CompositeSign::magnitude_error);
        let error = sign.magnitude_error() / 2.0;
        assert!(error < f64::exp2(-13.0) && error > f64::exp2(-14.5), "2^{}", error.log2());
    }
}
