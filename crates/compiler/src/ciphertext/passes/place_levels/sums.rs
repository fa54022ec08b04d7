//! Sums that are not made yet.
//!
//! A sum of products whose factors are at different levels is made at the lowest of them: all products are made there, where
//! one relinearization and one rescaling serve them all. Made one after the other, each product would have to be
//! relinearized, rescaled and brought down by itself before it could be added.
//!
//! ```text
//! %3 = mul(%a2, %b2) : L2                            # p = q T_m + q' T_k, the second product two levels above
//! %4 = mul(%a4, %b4) : L4                            %3 = mul(%a2, %b2) : L2
//! %5 = relinearize(%3), rescaled to L1          ->   %4 = mul(adjust(%a4), adjust(%b4)) : L2
//! %6 = relinearize(%4), rescaled, adjusted to L1     %5 = add(%3, %4), relinearized and rescaled once
//! %7 = add(%5, %6)
//! ```

use cerium_artifact::StageId;
use cerium_ckks::basis::Level;

use super::super::super::Op;
use super::super::needs::{Need, is_small_integer};
use super::{Body, PlaceError};
use crate::ir::{Number, ValueId};

/// What stands for a value of the source function.
#[derive(Clone, Debug)]
pub(super) enum Placed {
    /// A value of the placed function, ciphertext or plaintext.
    Value(ValueId),
    /// A sum that is not made yet.
    Sum(Sum),
}

/// Terms and a constant.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    terms: Vec<Term>,
    constant: f64,
}

/// `factor` times something.
#[derive(Clone, Copy, Debug)]
struct Term {
    of: Factor,
    factor: f64,
    /// The stage that it belongs to.
    stage: StageId,
}

#[derive(Clone, Copy, Debug)]
enum Factor {
    /// A product of two settled, relinearized ciphertexts; the factor is a small integer.
    Product(ValueId, ValueId),
    /// A settled ciphertext; the product with the factor takes a level.
    Scaled(ValueId),
    /// A ciphertext, pending or settled; the factor is a small integer.
    Made(ValueId),
}

impl Placed {
    /// `factor` times a settled ciphertext.
    pub(super) fn scaled(base: ValueId, factor: f64, stage: StageId) -> Placed {
        Placed::Sum(Sum { terms: vec![Term { of: Factor::Scaled(base), factor, stage }], constant: 0.0 })
    }

    /// The product of two settled ciphertexts.
    pub(super) fn product(a: ValueId, b: ValueId, stage: StageId) -> Placed {
        Placed::Sum(Sum {
            terms: vec![Term { of: Factor::Product(a, b), factor: 1.0, stage }],
            constant: 0.0,
        })
    }

    /// The terms, whatever it is.
    pub(super) fn into_sum(self, stage: StageId) -> Sum {
        match self {
            Placed::Sum(sum) => sum,
            Placed::Value(value) => {
                Sum { terms: vec![Term { of: Factor::Made(value), factor: 1.0, stage }], constant: 0.0 }
            }
        }
    }
}

impl Sum {
    /// The settled ciphertext and the factor, if the sum is one product with a constant.
    pub(super) fn as_scaled(&self) -> Option<(ValueId, f64)> {
        match self.terms.as_slice() {
            &[Term { of: Factor::Scaled(base), factor, .. }] if self.constant == 0.0 => Some((base, factor)),
            _ => None,
        }
    }

    /// `self + sign * other`.
    pub(super) fn plus(mut self, other: Sum, sign: f64) -> Sum {
        let other = other.times(sign);
        self.terms.extend(other.terms);
        self.constant += other.constant;
        self
    }

    /// With a constant added.
    pub(super) fn plus_constant(mut self, value: f64) -> Sum {
        self.constant += value;
        self
    }

    /// Every term times a small integer.
    pub(super) fn times(mut self, factor: f64) -> Sum {
        self.terms.iter_mut().for_each(|term| term.factor *= factor);
        self.constant *= factor;
        self
    }

    /// Whether all factors stay exact when multiplied by this one.
    pub(super) fn takes(&self, factor: f64) -> bool {
        let exact = |term: &Term| match term.of {
            Factor::Scaled(_) => true,
            Factor::Product(..) | Factor::Made(_) => is_small_integer(term.factor * factor),
        };
        is_small_integer(factor) && self.terms.iter().all(exact)
    }
}

impl Body<'_, '_> {
    /// Makes a sum, no higher than needed: pending if a product or a pending value is in it, unless settled values at the level
    /// below are too.
    pub(super) fn make(&mut self, sum: Sum, need: Need) -> Result<ValueId, PlaceError> {
        let stage = self.builder.stage;
        let made = self.make_terms(sum, need);
        self.builder.stage = stage;
        made
    }

    fn make_terms(&mut self, sum: Sum, need: Need) -> Result<ValueId, PlaceError> {
        let Sum { mut terms, constant } = sum;
        // The level at which products are made: values that are settled below it are added after the rescaling.
        let level = terms.iter().map(|term| self.pending_level(term.of)).min();
        let level = level.expect("a sum has terms").min(need.pending());
        for term in &mut terms {
            self.builder.stage = term.stage;
            if let Factor::Made(value) = term.of
                && self.is_pending(value)
                && self.level(value) > level
            {
                term.of = Factor::Made(self.settle(value)?);
            }
        }
        let pending = |this: &Self, of: Factor| match of {
            Factor::Product(..) | Factor::Scaled(_) => true,
            Factor::Made(value) => this.is_pending(value),
        };
        if !terms.iter().any(|term| pending(self, term.of)) {
            return self.make_settled(None, &terms, constant);
        }
        let (mut now, mut after) = (Vec::new(), Vec::new());
        for term in terms {
            match term.of {
                Factor::Made(value) if !self.is_pending(value) && self.level(value) < level => {
                    after.push(term)
                }
                _ => now.push(term),
            }
        }
        let mut total = None;
        for Term { of, factor, stage } in now {
            self.builder.stage = stage;
            let (value, factor) = match of {
                Factor::Product(a, b) => {
                    let (a, b) = (self.lower(a, level), self.lower(b, level));
                    (self.push(Op::Mul { a, b }), factor)
                }
                Factor::Made(value) if self.is_pending(value) => (value, factor),
                Factor::Scaled(base) | Factor::Made(base) => (self.scaled(base, factor, level)?, 1.0),
            };
            total = Some(self.accumulate(total, value, factor));
        }
        let total = total.expect("one term is pending");
        if after.is_empty() {
            return Ok(self.add_constant(total, constant));
        }
        let total = self.settle(total)?;
        self.make_settled(Some(total), &after, constant)
    }

    /// The sum of settled values at the lowest of their levels.
    fn make_settled(
        &mut self,
        first: Option<ValueId>,
        terms: &[Term],
        constant: f64,
    ) -> Result<ValueId, PlaceError> {
        let values: Vec<ValueId> = terms
            .iter()
            .map(|term| match term.of {
                Factor::Made(value) => value,
                Factor::Product(..) | Factor::Scaled(_) => unreachable!("products are pending"),
            })
            .collect();
        let level = first.iter().chain(&values).map(|&v| self.level(v)).min();
        let level = level.expect("a sum has terms");
        let mut total = first.map(|v| self.lower(v, level));
        for (term, value) in terms.iter().zip(values) {
            self.builder.stage = term.stage;
            let value = self.lower(value, level);
            total = Some(self.accumulate(total, value, term.factor));
        }
        Ok(self.add_constant(total.expect("a sum has terms"), constant))
    }

    /// `total + factor * value`, both at one level and one scale; the factor is a small integer.
    fn accumulate(&mut self, total: Option<ValueId>, value: ValueId, factor: f64) -> ValueId {
        match total {
            Some(a) if factor == -1.0 => self.push(Op::Sub { a, b: value }),
            _ => {
                let b = match factor {
                    1.0 => value,
                    -1.0 => self.push(Op::Neg { a: value }),
                    _ => {
                        self.push(Op::MulConst { a: value, value: Number(factor), scale: Some(Number(1.0)) })
                    }
                };
                match total {
                    Some(a) => self.push(Op::Add { a, b }),
                    None => b,
                }
            }
        }
    }

    fn add_constant(&mut self, a: ValueId, value: f64) -> ValueId {
        if value == 0.0 { a } else { self.push(Op::AddConst { a, value: Number(value) }) }
    }

    /// The highest level at which a term can be part of a pending sum, or be added to it after rescaling.
    fn pending_level(&self, of: Factor) -> Level {
        match of {
            Factor::Product(a, b) => self.level(a).min(self.level(b)),
            Factor::Scaled(base) => self.level(base),
            Factor::Made(value) if self.is_pending(value) => self.level(value),
            Factor::Made(value) => Level(self.level(value).0 + 1),
        }
    }
}
