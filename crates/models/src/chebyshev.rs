//! Polynomials in the Chebyshev basis, and how they are fitted.
//!
//! Two constructions: interpolation at Chebyshev points, close to minimax for smooth functions (Trefethen,
//! *Approximation Theory and Approximation Practice*, ch. 3), and least squares weighted by where the values of a network
//! really lie, which for ReLU puts the error where nobody is. Minimax polynomials themselves are in
//! [`minimax`](crate::minimax).

/// A polynomial `sum c_k T_k(t)` on `[-1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Chebyshev {
    /// `c_0, c_1, ...`; never empty.
    pub coefficients: Vec<f64>,
}

impl Chebyshev {
    /// Its degree as stated: one less than the number of coefficients.
    pub fn degree(&self) -> usize {
        self.coefficients.len() - 1
    }

    /// Its value at `t` by Clenshaw's recurrence.
    pub fn evaluate(&self, t: f64) -> f64 {
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in self.coefficients[1..].iter().rev() {
            (b1, b2) = (c + 2.0 * t * b1 - b2, b1);
        }
        self.coefficients[0] + t * b1 - b2
    }

    /// The polynomial times a constant.
    pub fn scaled(&self, factor: f64) -> Self {
        Self { coefficients: self.coefficients.iter().map(|c| c * factor).collect() }
    }

    /// The interpolant of `f` at the `degree + 1` Chebyshev points of the first kind.
    pub fn interpolate(f: impl Fn(f64) -> f64, degree: usize) -> Self {
        let n = degree + 1;
        let angle = |k: usize| std::f64::consts::PI * (k as f64 + 0.5) / n as f64;
        let values: Vec<f64> = (0..n).map(|k| f(angle(k).cos())).collect();
        let coefficient = |j: usize| {
            let sum: f64 = values.iter().enumerate().map(|(k, v)| v * (j as f64 * angle(k)).cos()).sum();
            sum * if j == 0 { 1.0 } else { 2.0 } / n as f64
        };
        Self { coefficients: (0..n).map(coefficient).collect() }
    }

    /// The polynomial that minimises `sum w_i (p(t_i) - f(t_i))^2` over the bins of `density`.
    pub fn least_squares(f: impl Fn(f64) -> f64, degree: usize, density: &Density) -> Self {
        Self::combination(f, |t| t, degree, density)
    }

    /// The even polynomial of degree `2 * degree` that minimises the same, as a polynomial of `degree` in `T_2(t)`, by
    /// `T_2k(t) = T_k(T_2(t))`.
    pub fn even_least_squares(f: impl Fn(f64) -> f64, degree: usize, density: &Density) -> Self {
        Self::combination(f, |t| 2.0 * t * t - 1.0, degree, density)
    }

    /// Coefficients of `T_k(inner(t))` by Householder's QR on the weighted basis; a basis column without weight of its own
    /// gets coefficient zero.
    fn combination(
        f: impl Fn(f64) -> f64,
        inner: impl Fn(f64) -> f64,
        degree: usize,
        density: &Density,
    ) -> Self {
        let columns = degree + 1;
        // Row i: sqrt(w_i) * (T_0(t_i), ..., T_d(t_i) | f(t_i)).
        let mut rows: Vec<Vec<f64>> = density
            .bins()
            .map(|(t, weight)| {
                let root = weight.sqrt();
                let mut row = Vec::with_capacity(columns + 1);
                let u = inner(t);
                let (mut basis, mut next) = (1.0, u);
                for _ in 0..columns {
                    row.push(root * basis);
                    (basis, next) = (next, 2.0 * u * next - basis);
                }
                row.push(root * f(t));
                row
            })
            .collect();
        let mut diagonal = vec![0.0; columns];
        for c in 0..columns.min(rows.len()) {
            let norm = rows[c..].iter().map(|row| row[c] * row[c]).sum::<f64>().sqrt();
            diagonal[c] = if rows[c][c] > 0.0 { -norm } else { norm };
            if norm < 1e-12 {
                diagonal[c] = 0.0;
                continue;
            }
            rows[c][c] -= diagonal[c];
            let reflector: Vec<f64> = rows[c..].iter().map(|row| row[c]).collect();
            let square: f64 = reflector.iter().map(|v| v * v).sum();
            for column in c + 1..=columns {
                let dot: f64 = reflector.iter().zip(&rows[c..]).map(|(v, row)| v * row[column]).sum();
                let factor = 2.0 * dot / square;
                for (v, row) in reflector.iter().zip(&mut rows[c..]) {
                    row[column] -= factor * v;
                }
            }
        }
        let mut coefficients = vec![0.0; columns];
        for c in (0..columns.min(rows.len())).rev() {
            let known: f64 = (c + 1..columns).map(|k| rows[c][k] * coefficients[k]).sum();
            coefficients[c] = if diagonal[c] == 0.0 { 0.0 } else { (rows[c][columns] - known) / diagonal[c] };
        }
        Self { coefficients }
    }
}

/// How values spread over `[-1, 1]`: weights of equal bins, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Density {
    weights: Vec<f64>,
}

impl Density {
    /// Bins over `[-1, 1]`: equally spaced points hold a polynomial of a degree up to about twice the root of their number.
    pub const BINS: usize = 4096;

    /// Equal weight everywhere.
    pub fn uniform() -> Self {
        Self { weights: vec![1.0 / Self::BINS as f64; Self::BINS] }
    }

    /// The density that adds `weight` at each point; points outside `[-1, 1]` count at its ends, and no points at
    /// all give the uniform density.
    pub fn from_points(points: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut weights = vec![0.0; Self::BINS];
        for (t, weight) in points {
            let bin = ((t + 1.0) / 2.0 * Self::BINS as f64).clamp(0.0, (Self::BINS - 1) as f64);
            weights[bin as usize] += weight;
        }
        let total: f64 = weights.iter().sum();
        if total <= 0.0 {
            return Self::uniform();
        }
        weights.iter_mut().for_each(|weight| *weight /= total);
        Self { weights }
    }

    /// A mixture with the uniform density, which gets the share `floor` in `[0, 1]`: so that a polynomial fitted to
    /// it cannot run away where no sample was seen.
    pub fn with_floor(&self, floor: f64) -> Self {
        let uniform = floor / self.weights.len() as f64;
        Self { weights: self.weights.iter().map(|weight| weight * (1.0 - floor) + uniform).collect() }
    }

    /// Middle and weight of each bin; the weights sum to 1.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64)> {
        let n = self.weights.len() as f64;
        self.weights.iter().enumerate().map(move |(i, &weight)| ((2 * i + 1) as f64 / n - 1.0, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error on a fine grid.
    fn worst(f: impl Fn(f64) -> f64, p: &Chebyshev) -> f64 {
        (0..=2000).map(|i| i as f64 / 1000.0 - 1.0).map(|t| (f(t) - p.evaluate(t)).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn clenshaw_agrees_with_cosines() {
        let p = Chebyshev { coefficients: vec![0.3, -1.0, 0.25, 2.0] };
        for t in [-1.0f64, -0.4, 0.0, 0.7, 1.0] {
            let naive: f64 =
                p.coefficients.iter().enumerate().map(|(k, c)| c * (k as f64 * t.acos()).cos()).sum();
            assert!((p.evaluate(t) - naive).abs() < 1e-13);
        }
    }

    #[test]
    fn interpolation_converges_geometrically_for_smooth_functions() {
        let errors: Vec<f64> =
            [7, 15, 31].map(|degree| worst(f64::exp, &Chebyshev::interpolate(f64::exp, degree))).into();
        assert!(errors[0] < 1e-6 && errors[1] < 1e-13 && errors[2] < 1e-13, "{errors:?}");
    }

    #[test]
    fn least_squares_recovers_polynomials() {
        let f = |t: f64| 1.0 - 2.0 * t + 0.5 * t.powi(3) + t.powi(5);
        for density in [Density::uniform(), Density::from_points([(0.2, 1.0), (-0.9, 3.0)].into_iter())] {
            let p = Chebyshev::least_squares(f, 7, &density.with_floor(0.1));
            assert!(worst(f, &p) < 1e-9, "{}", worst(f, &p));
        }
    }

    #[test]
    fn even_polynomials_are_series_in_the_second_one() {
        let f = |t: f64| 0.5 - t * t + 0.25 * t.powi(6);
        let p = Chebyshev::even_least_squares(f, 3, &Density::uniform());
        for t in [-1.0, -0.3, 0.0, 0.8] {
            assert!((p.evaluate(2.0 * t * t - 1.0) - f(t)).abs() < 1e-10);
        }
    }

    #[test]
    fn least_squares_has_an_orthogonal_residual() {
        let density = Density::from_points((0..100).map(|i| (i as f64 / 200.0, 1.0))).with_floor(0.3);
        let f = |t: f64| t.max(0.0);
        let p = Chebyshev::least_squares(f, 7, &density);
        for k in 0..=7 {
            let basis = Chebyshev { coefficients: (0..=k).map(|j| f64::from(u8::from(j == k))).collect() };
            let dot: f64 = density.bins().map(|(t, w)| w * basis.evaluate(t) * (f(t) - p.evaluate(t))).sum();
            assert!(dot.abs() < 1e-12, "T_{k}: {dot}");
        }
    }
}
