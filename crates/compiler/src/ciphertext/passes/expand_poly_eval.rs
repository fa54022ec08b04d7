//! Expands `poly_eval` into products of Chebyshev polynomials, in the least multiplicative depth.
//!
//! ```text
//! %y = poly_eval(%x) {coefficients=[c0 c1 c2 c3]}
//! ->
//! %t2 = 2 x^2 - 1
//! %q  = (2 c3) x + c2                  # p = q * T_2 + r, by T_i T_2 = (T_{i+2} + T_{|i-2|}) / 2
//! %y  = %q * %t2 + ((c1 - c3) x + c0)
//! ```
//!
//! A polynomial of degree d takes `ceil(log2(d + 1))` levels: the split point is always the largest power of two at most
//! d, the quotient gets one level less than the whole, and a remainder is a plain linear combination of Chebyshev
//! polynomials as soon as its depth allows (Paterson and Stockmeyer's baby step).

use std::collections::HashMap;
use std::convert::Infallible;

use super::super::{Builder, Module, Op};
use crate::ir::{Number, ValueId, rewrite::rewrite};

/// Coefficients below this are dropped: relative to the largest, far below the precision of an encoding.
const NEGLIGIBLE: f64 = 1e-14;

/// Levels that a Chebyshev series with this many coefficients takes.
pub fn poly_depth(coefficients: usize) -> u32 {
    coefficients.max(1).next_power_of_two().trailing_zeros()
}

/// Runs the pass.
pub fn expand_poly_eval(module: &mut Module) -> Result<(), Infallible> {
    rewrite(module, |builder, module, op| match op {
        Op::PolyEval { x, coefficients } => {
            let largest = coefficients.iter().fold(0.0f64, |m, c| m.max(c.0.abs()));
            let mut series: Vec<f64> = coefficients.iter().map(|c| c.0).collect();
            series.iter_mut().filter(|c| c.abs() <= NEGLIGIBLE * largest).for_each(|c| *c = 0.0);
            let degree = degree(&series);
            let budget = poly_depth(degree + 1);
            let leaf = 1 << (budget / 2).max(1);
            let mut expansion = Expansion { builder, module, x: *x, leaf, chebyshev: HashMap::new() };
            let value = expansion.evaluate(&series[..=degree], budget);
            // A constant polynomial still has to come out as a ciphertext.
            Some(vec![value.unwrap_or_else(|| {
                let zero = expansion.push(Op::Sub { a: *x, b: *x });
                expansion.add_const(zero, series[0])
            })])
        }
        _ => None,
    });
    Ok(())
}

fn degree(series: &[f64]) -> usize {
    series.iter().rposition(|&c| c != 0.0).unwrap_or(0)
}

/// Levels that `T_k` takes.
fn chebyshev_depth(k: usize) -> u32 {
    k.max(1).next_power_of_two().trailing_zeros()
}

struct Expansion<'a> {
    builder: &'a mut Builder,
    module: &'a Module,
    x: ValueId,
    /// Polynomials of a smaller degree are combined term by term where their depth allows.
    leaf: usize,
    chebyshev: HashMap<usize, ValueId>,
}

impl Expansion<'_> {
    fn push(&mut self, op: Op) -> ValueId {
        self.builder.push(self.module, op)
    }

    /// `T_k(x)` for k >= 1, by `T_{a+b} = 2 T_a T_b - T_{a-b}` with the deepest factor a power of two.
    fn t(&mut self, k: usize) -> ValueId {
        if k == 1 {
            return self.x;
        }
        if let Some(&known) = self.chebyshev.get(&k) {
            return known;
        }
        let a = if k.is_power_of_two() { k / 2 } else { 1 << k.ilog2() };
        let b = k - a;
        let (ta, tb) = (self.t(a), self.t(b));
        let product = self.push(Op::Mul { a: ta, b: tb });
        let twice = self.push(Op::MulConst { a: product, value: Number(2.0), scale: None });
        let value = if a == b {
            self.push(Op::AddConst { a: twice, value: Number(-1.0) })
        } else {
            let difference = self.t(a - b);
            self.push(Op::Sub { a: twice, b: difference })
        };
        self.chebyshev.insert(k, value);
        value
    }

    /// The series in at most `budget` levels; `None` if it is a constant.
    fn evaluate(&mut self, series: &[f64], budget: u32) -> Option<ValueId> {
        let degree = degree(series);
        if degree == 0 {
            return None;
        }
        if degree < self.leaf && chebyshev_depth(degree) < budget {
            return Some(self.combine(&series[..=degree]));
        }
        let m = 1 << degree.ilog2();
        let mut quotient = vec![0.0; degree - m + 1];
        let mut remainder = series[..m].to_vec();
        quotient[0] = series[m];
        for i in 1..=degree - m {
            quotient[i] = 2.0 * series[m + i];
            remainder[m - i] -= series[m + i];
        }
        let tm = self.t(m);
        let high = match self.evaluate(&quotient, budget - 1) {
            Some(q) => self.push(Op::Mul { a: q, b: tm }),
            None => self.push(Op::MulConst { a: tm, value: Number(quotient[0]), scale: None }),
        };
        Some(match self.evaluate(&remainder, budget) {
            Some(low) => self.push(Op::Add { a: high, b: low }),
            None => self.add_const(high, remainder[0]),
        })
    }

    /// `sum_k series[k] T_k` term by term: one level below its deepest Chebyshev polynomial.
    fn combine(&mut self, series: &[f64]) -> ValueId {
        let mut sum: Option<ValueId> = None;
        for (k, &c) in series.iter().enumerate().skip(1).filter(|(_, c)| **c != 0.0) {
            let t = self.t(k);
            let term = self.push(Op::MulConst { a: t, value: Number(c), scale: None });
            sum = Some(match sum {
                None => term,
                Some(a) => self.push(Op::Add { a, b: term }),
            });
        }
        let sum = sum.expect("the leading coefficient is not zero");
        self.add_const(sum, series[0])
    }

    fn add_const(&mut self, a: ValueId, value: f64) -> ValueId {
        if value == 0.0 { a } else { self.push(Op::AddConst { a, value: Number(value) }) }
    }
}
