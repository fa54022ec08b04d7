//! Polynomials in the place of activation functions.
//!
//! Under encryption an activation is made of polynomials on `[-1, 1]` in the Chebyshev basis; the scale between that
//! interval and the network's values is folded into the weights around it. A [`Shape`] says of which ones, and with that what
//! it costs; an [`Approximation`] has them, fitted to where the values of the network lie.

use crate::activation::Activation;
use crate::chebyshev::{Chebyshev, Density};
use crate::minimax::CompositeSign;
use cerium_compiler::ciphertext::{Lanes, chebyshev_series};
use cerium_compiler::dsl::Ct;
use std::fmt;

/// Products of two ciphertexts that take as long as the share of a bootstrap that a level costs: a bootstrap of `boot-40`
/// takes 1.6 s and gives 16 levels, a product 20 ms in between.
const PRODUCTS_A_LEVEL: f64 = 5.0;

/// Of which polynomials an approximation is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One of this degree. Degrees of the form `2^k - 1` use their depth of `k` levels fully.
    Series(usize),
    /// A multiple of the argument, and an even polynomial of this degree, which takes half the products of another one. For
    /// functions that are even but for a multiple of the argument, such as ReLU, GELU and SiLU. Degrees of the form
    /// `2^k - 2` use their depth of `k` levels fully.
    Even(usize),
    /// The argument times a sign that is composed of odd polynomials of these degrees ([`CompositeSign`]). For ReLU and its
    /// leaky form.
    Composite(Vec<usize>),
}

impl Shape {
    /// All that are worth trying for a function, the cheapest first.
    pub fn candidates(activation: Activation) -> Vec<Shape> {
        let mut shapes: Vec<Shape> = [7, 15, 31, 63, 127].map(Shape::Series).into();
        if activation.odd_slope().is_some() {
            shapes.extend([6, 14, 30, 62, 126].map(Shape::Even));
        }
        if activation.is_homogeneous() {
            let degrees: [&[usize]; 5] = [&[7, 7], &[7, 15], &[15, 15], &[7, 7, 15], &[15, 15, 27]];
            shapes.extend(degrees.map(|degrees| Shape::Composite(degrees.into())));
        }
        shapes.sort_by(|a, b| a.time().total_cmp(&b.time()));
        shapes
    }

    /// The degrees of its polynomials, in the order in which they are applied.
    pub fn degrees(&self) -> &[usize] {
        match self {
            Self::Series(degree) | Self::Even(degree) => std::slice::from_ref(degree),
            Self::Composite(degrees) => degrees,
        }
    }

    /// Levels that it takes.
    pub fn depth(&self) -> u32 {
        let series = |degree: usize| (degree + 1).next_power_of_two().trailing_zeros();
        match self {
            Self::Series(degree) => series(*degree),
            Self::Even(degree) => 1 + series(degree / 2),
            Self::Composite(degrees) => 1 + degrees.iter().map(|&degree| series(degree)).sum::<u32>(),
        }
    }

    /// Products of two ciphertexts, about: baby steps, doublings and the inner nodes of the splitting, by Paterson and
    /// Stockmeyer.
    pub fn products(&self) -> usize {
        let series = |degree: usize| {
            let depth = degree.max(1).ilog2() + 1;
            let leaf = 1usize << (depth / 2).max(1);
            (leaf - 2) + (depth - leaf.ilog2()) as usize + degree.div_ceil(leaf).saturating_sub(1)
        };
        match self {
            Self::Series(degree) => series(*degree),
            Self::Even(degree) => 1 + series(degree / 2),
            Self::Composite(degrees) => 1 + degrees.iter().map(|&degree| series(degree)).sum::<usize>(),
        }
    }

    /// Time in units of a product: the products themselves, and its share of the bootstraps.
    pub fn time(&self) -> f64 {
        self.products() as f64 + PRODUCTS_A_LEVEL * f64::from(self.depth())
    }
}

/// `degree 31`, `even degree 30`, `degrees 15, 15, 27`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(degree) => write!(f, "degree {degree}"),
            Self::Even(degree) => write!(f, "even degree {degree}"),
            Self::Composite(degrees) => {
                let degrees: Vec<String> = degrees.iter().map(usize::to_string).collect();
                write!(f, "degrees {}", degrees.join(", "))
            }
        }
    }
}

/// How the polynomials of activations are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApproximationOptions {
    /// Degree of the one polynomial that each activation gets, unless shapes are chosen by [`budget`](crate::budget).
    pub degree: usize,
    /// The calibrated range times this is the interval of the polynomial; at least 1.
    pub margin: f64,
    /// Share of the uniform density in the least-squares fit, in `(0, 1]`.
    pub floor: f64,
}

impl Default for ApproximationOptions {
    fn default() -> Self {
        Self { degree: 7, margin: 1.5, floor: 0.1 }
    }
}

/// The polynomials of an approximation, in `t` in `[-1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Its value.
    Series(Chebyshev),
    /// `slope * t + even(T_2(t))`.
    Even {
        /// Factor of the argument.
        slope: f64,
        /// The even part.
        even: Chebyshev,
    },
    /// `t * p_k(.. p_1(t))`, all but the last one within `[-1, 1]`.
    Composite(Vec<Chebyshev>),
}

impl Form {
    /// Its value at `t`.
    pub fn evaluate(&self, t: f64) -> f64 {
        match self {
            Self::Series(series) => series.evaluate(t),
            Self::Even { slope, even } => slope * t + even.evaluate(2.0 * t * t - 1.0),
            Self::Composite(stages) => t * stages.iter().fold(t, |x, stage| stage.evaluate(x)),
        }
    }

    /// Its values in the place of the arguments.
    pub fn evaluate_lanes(&self, values: &mut [Lanes]) {
        match self {
            Self::Series(series) => chebyshev_series(&series.coefficients, values),
            Self::Even { slope, even } => {
                let linear: Vec<Lanes> = values.iter().map(|t| t.map(|t| slope * t)).collect();
                values.as_flattened_mut().iter_mut().for_each(|t| *t = 2.0 * *t * *t - 1.0);
                chebyshev_series(&even.coefficients, values);
                let sums = values.as_flattened_mut().iter_mut().zip(linear.as_flattened());
                sums.for_each(|(value, linear)| *value += linear);
            }
            Self::Composite(stages) => {
                let factor = values.to_vec();
                stages.iter().for_each(|stage| chebyshev_series(&stage.coefficients, values));
                let products = values.as_flattened_mut().iter_mut().zip(factor.as_flattened());
                products.for_each(|(value, factor)| *value *= factor);
            }
        }
    }

    /// Its encrypted value times `factor`, which costs nothing.
    pub fn lower(&self, t: &Ct, factor: f64) -> Ct {
        match self {
            Self::Series(series) => t.poly_eval(&series.scaled(factor).coefficients),
            Self::Even { slope, even } => {
                let square = t * t * 2.0 - 1.0;
                square.poly_eval(&even.scaled(factor).coefficients) + t * (slope * factor)
            }
            Self::Composite(stages) => {
                let (last, first) = stages.split_last().expect("a composition has stages");
                let inner = first.iter().fold(t.clone(), |x, stage| x.poly_eval(&stage.coefficients));
                t * inner.poly_eval(&last.scaled(factor).coefficients)
            }
        }
    }
}

/// Polynomials in the place of an activation function: `activation(range * t) / output ~ form(t)` for `t` in `[-1, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Approximation {
    /// The function.
    pub activation: Activation,
    /// Half width of its interval `[-range, range]`. 1 where every channel has its own range (homogeneous
    /// functions), folded into the weights.
    pub range: f64,
    /// Of which polynomials it is made.
    pub shape: Shape,
    /// The polynomials, in units of the function's values.
    pub form: Form,
    /// Largest error on the whole interval, in units of the function's values.
    pub max_error: f64,
    /// Root of the mean square error where the samples lie.
    pub rms_error: f64,
}

impl Approximation {
    /// Fits `activation` on `[-range, range]`; `density` says where in it (as `t` in `[-1, 1]`) the samples lie, and
    /// `floor` in `(0, 1]` is the share of the uniform density that is mixed to it. A function that is a polynomial itself is
    /// met exactly, whatever the shape; of the others, single polynomials minimise the weighted sum of squares, and composed
    /// ones the largest error.
    ///
    /// # Panics
    /// If the shape is not one [for the function](Shape::candidates).
    pub fn fit(activation: Activation, range: f64, density: &Density, shape: &Shape, floor: f64) -> Self {
        let f = |t: f64| activation.apply(range * t);
        let weights = density.with_floor(floor);
        let exact = activation.polynomial_degree();
        let shape = exact.map_or_else(|| shape.clone(), Shape::Series);
        let form = match (&shape, exact) {
            (Shape::Series(degree), Some(_)) => Form::Series(Chebyshev::interpolate(f, *degree)),
            (Shape::Series(degree), None) => Form::Series(Chebyshev::least_squares(f, *degree, &weights)),
            (Shape::Even(degree), _) => {
                let slope = activation.odd_slope().expect("an even function but for a slope") * range;
                let even = Chebyshev::even_least_squares(|t| f(t) - slope * t, degree / 2, &weights);
                Form::Even { slope, even }
            }
            (Shape::Composite(degrees), _) => {
                // f(t) = t (above + below) / 2 + |t| (above - below) / 2
                let (above, below) = (f(1.0), -f(-1.0));
                let mut stages = CompositeSign::best(degrees, CompositeSign::magnitude_error).stages;
                let last = stages.last_mut().expect("a composition has stages");
                *last = last.scaled((above - below) / 2.0);
                last.coefficients[0] += (above + below) / 2.0;
                Form::Composite(stages)
            }
        };
        let error = |t: f64| (form.evaluate(t) - f(t)).abs();
        let steps = 2 * Density::BINS;
        let max_error = (0..=steps).map(|i| error(2.0 * i as f64 / steps as f64 - 1.0)).fold(0.0, f64::max);
        let mean_square: f64 = density.bins().map(|(t, weight)| weight * error(t).powi(2)).sum();
        Self { activation, range, shape, form, max_error, rms_error: mean_square.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 9] = [
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.1 },
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Softplus,
        Activation::Square,
    ];

    #[test]
    fn every_activation_is_met_better_at_a_higher_degree() {
        for activation in ALL {
            let fit = |degree| {
                Approximation::fit(activation, 4.0, &Density::uniform(), &Shape::Series(degree), 0.1)
            };
            let (low, high) = (fit(7), fit(31));
            assert!(high.rms_error <= low.rms_error * 0.5 + 1e-12, "{activation}: {low:?}");
            assert!(high.max_error < 0.15, "{activation}: {}", high.max_error);
        }
        let square = Approximation::fit(Activation::Square, 4.0, &Density::uniform(), &Shape::Series(7), 0.1);
        assert!(square.shape == Shape::Series(2) && square.max_error < 1e-12);
    }

    /// Every shape is near the function, and the values of lanes are those of single numbers.
    #[test]
    fn every_candidate_of_every_activation() {
        for activation in ALL {
            let mut best = f64::INFINITY;
            for shape in Shape::candidates(activation) {
                let fit = Approximation::fit(activation, 3.0, &Density::uniform(), &shape, 0.1);
                assert!(fit.max_error < 0.25, "{activation} by {shape}: {}", fit.max_error);
                best = best.min(fit.max_error);
                let t = [-1.0, -0.6, -0.01, 0.0, 0.2, 0.5, 0.9, 1.0];
                let mut lanes = [t];
                fit.form.evaluate_lanes(&mut lanes);
                assert!((0..8).all(|i| (lanes[0][i] - fit.form.evaluate(t[i])).abs() < 1e-12), "{shape}");
            }
            assert!(best < 2e-3, "{activation}: {best}");
        }
    }

    /// On a symmetric density an even function has no use for odd terms, and half of them cost half the products.
    #[test]
    fn even_shapes_are_as_good_and_cheaper() {
        let fit = |shape: &Shape| {
            Approximation::fit(Activation::Relu, 1.0, &Density::uniform(), shape, 1.0).rms_error
        };
        for (series, even) in [(7, 6), (15, 14), (31, 30)] {
            let (series, even) = (Shape::Series(series), Shape::Even(even));
            assert!((fit(&series) / fit(&even) - 1.0).abs() < 1e-6);
            assert!(even.depth() == series.depth() && even.products() < series.products());
        }
    }

    #[test]
    fn costs() {
        let composite = Shape::Composite(vec![15, 15, 27]);
        assert_eq!((composite.depth(), composite.to_string().as_str()), (14, "degrees 15, 15, 27"));
        assert_eq!(
            (Shape::Series(31).depth(), Shape::Series(59).depth(), Shape::Even(30).depth()),
            (5, 6, 5)
        );
        assert!(Shape::candidates(Activation::Relu).is_sorted_by(|a, b| a.time() <= b.time()));
    }
}
