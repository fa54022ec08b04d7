//! Expands rounded divisions into transforms and a base conversion.
//!
//! ```text
//! %1 = divide_round(%0) {by={4-5}, times={0}}    # %0 on {1-5}
//! ->
//! %1 = restrict(%0) {basis={4-5}}
//! %2 = intt(%1)
//! %3 = mul_primes(%2) {primes={0}}
//! %4 = base_convert(%3) {to={0-3}}
//! %5 = ntt(%4)
//! %6 = divide(%0, %5) {by={4-5}, times={0}}
//! ```
//!
//! The centered residue of the dividend modulo the divisor is subtracted, which leaves a multiple of the divisor
//! (Cheon et al., SAC 2018, section 3). Factors come after the transform, whose own constant takes them up.

use std::convert::Infallible;

use super::super::{Builder, Module, Op, Type};
use crate::ir::rewrite::rewrite;

/// Runs the pass.
pub fn expand_divisions(module: &mut Module) -> Result<(), Infallible> {
    rewrite(module, |builder, module, op| {
        let Op::DivideRound { a, by, times } = *op else { return None };
        let Type::Poly { basis, .. } = *builder.type_of(a) else { unreachable!("divide_round is typed") };
        let push = |builder: &mut Builder, op| builder.push(module, op);
        let mut rest = push(builder, Op::Restrict { a, basis: by });
        rest = push(builder, Op::Intt { a: rest });
        if !times.is_empty() {
            rest = push(builder, Op::MulPrimes { a: rest, primes: times });
        }
        rest = push(builder, Op::BaseConvert { a: rest, to: basis.minus(by).union(times) });
        let c = push(builder, Op::Ntt { a: rest });
        Some(vec![push(builder, Op::Divide { a, c, by, times })])
    });
    Ok(())
}
