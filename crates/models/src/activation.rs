//! Nonlinear functions of one variable, as a network computes them.

use std::f64::consts::{PI, SQRT_2};
use std::fmt;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` above zero, `slope * x` below.
    LeakyRelu {
        /// Factor below zero.
        slope: f64,
    },
    /// `x * Phi(x)` with the normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// The `tanh` form of GELU, from the same paper.
    GeluTanh,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x^2`: exact under encryption.
    Square,
}

impl Activation {
    /// Its value at `x`.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Self::Relu => x.max(0.0),
            Self::LeakyRelu { slope } => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x / SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::Silu => x * sigmoid(x),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Self::Square => x * x,
        }
    }

    /// Whether `f(c x) = c f(x)` for every `c > 0`, so that a scale passes through unchanged and every channel
    /// may have its own.
    pub fn is_homogeneous(self) -> bool {
        matches!(self, Self::Relu | Self::LeakyRelu { .. })
    }

    /// The `a` for which `f(x) - a x` is even, where there is one.
    pub fn odd_slope(self) -> Option<f64> {
        match self {
            Self::Relu | Self::Gelu | Self::GeluTanh | Self::Silu | Self::Softplus => Some(0.5),
            Self::LeakyRelu { slope } => Some((1.0 + slope) / 2.0),
            Self::Square => Some(0.0),
            Self::Sigmoid | Self::Tanh => None,
        }
    }

    /// The degree, where the function is itself a polynomial.
    pub fn polynomial_degree(self) -> Option<usize> {
        match self {
            Self::Square => Some(2),
            _ => None,
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relu => f.write_str("relu"),
            Self::LeakyRelu { slope } => write!(f, "leaky_relu({slope})"),
            Self::Gelu => f.write_str("gelu"),
            Self::GeluTanh => f.write_str("gelu_tanh"),
            Self::Silu => f.write_str("silu"),
            Self::Sigmoid => f.write_str("sigmoid"),
            Self::Tanh => f.write_str("tanh"),
            Self::Softplus => f.write_str("softplus"),
            Self::Square => f.write_str("square"),
        }
    }
}

/// The logistic function without overflow.
fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-7, "{a} is not {b}");
        close(Activation::Relu.apply(-2.0), 0.0);
        close(Activation::LeakyRelu { slope: 0.1 }.apply(-2.0), -0.2);
        close(Activation::Gelu.apply(1.0), 0.841_344_746);
        close(Activation::GeluTanh.apply(1.0), 0.841_191_990);
        close(Activation::Silu.apply(-1.0), -0.268_941_421);
        close(Activation::Sigmoid.apply(-800.0), 0.0);
        close(Activation::Tanh.apply(0.5), 0.462_117_157);
        close(Activation::Softplus.apply(0.0), std::f64::consts::LN_2);
        close(Activation::Softplus.apply(800.0), 800.0);
        close(Activation::Square.apply(-3.0), 9.0);
    }

    #[test]
    fn what_is_left_of_odd_slopes_is_even() {
        for f in [
            Activation::Relu,
            Activation::LeakyRelu { slope: 0.2 },
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
            Activation::Softplus,
            Activation::Square,
        ] {
            let slope = f.odd_slope().expect("even but for a slope");
            for x in [0.1, 1.0, 3.7] {
                assert!((f.apply(x) - f.apply(-x) - 2.0 * slope * x).abs() < 1e-12, "{f}");
            }
        }
    }

    #[test]
    fn homogeneous_functions_scale() {
        for f in [Activation::Relu, Activation::LeakyRelu { slope: 0.3 }] {
            assert!(f.is_homogeneous());
            for x in [-1.5, -0.1, 0.0, 0.4, 3.0] {
                assert!((f.apply(2.5 * x) - 2.5 * f.apply(x)).abs() < 1e-12);
            }
        }
    }
}
