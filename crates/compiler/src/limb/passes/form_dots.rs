//! Gathers sums of products with plaintexts into dot products, which accumulate in 64 bits and reduce once.
//!
//! ```text
//! %3 = mul_montgomery(%0, %p)
//! %4 = mul_montgomery(%1, %q)     ->    %5 = dot(%0, %p, %1, %q)
//! %5 = add(%3, %4)                      %6 = ..
//! %6 = ..                               %7 = mul_montgomery(%2, %r)
//! %7 = mul_montgomery(%2, %r)           %8 = dot(%0, %p, %1, %q, %2, %r)
//! %8 = add(%5, %6)                      %9 = add(%6, %8)
//! %9 = add(%8, %7)
//! ```
//!
//! Only products and partial sums with a single use are gathered, up to a length that keeps programs within bounds. What
//! else stands in a sum is added last. A scalar times a product becomes a product with its first factor scaled.

use std::convert::Infallible;

use super::super::{Function, Module, Op};
use crate::ir::simplify::remove_unused;
use crate::ir::{Operation, ValueId};

/// Operands of the longest dot product that is formed: longer sums are sums of dot products.
const MAX_OPERANDS: usize = 256;

/// Runs the pass.
pub fn form_dots(module: &mut Module) -> Result<(), Infallible> {
    for function in &mut module.functions {
        let mut sums = Sums::new(function);
        for i in 0..function.nodes.len() {
            for result in function.nodes[i].results.clone() {
                sums.producer[result as usize] = Some(i);
            }
            let Op::Add { a, b } = function.nodes[i].op else { continue };
            match (sums.product(function, a), sums.product(function, b)) {
                (Some(a), Some(b)) => {
                    if let Some(dot) = joined(function, a, b) {
                        function.nodes[i].op = dot;
                    }
                }
                (None, Some(product)) => sums.extend(function, i, a, product),
                (Some(product), None) => sums.extend(function, i, b, product),
                (None, None) => {}
            }
        }
    }
    remove_unused(module);
    Ok(())
}

/// What is known about the values of a function.
struct Sums {
    /// How often each is used.
    uses: Vec<u32>,
    /// The node that makes it.
    producer: Vec<Option<usize>>,
}

impl Sums {
    fn new(function: &Function) -> Sums {
        Sums { uses: function.use_counts(), producer: vec![None; function.types.len()] }
    }

    /// The node that makes a value, if it has no other use.
    fn only(&self, value: ValueId) -> Option<usize> {
        self.producer[value.index()].filter(|_| self.uses[value.index()] == 1)
    }

    /// The node of a product or dot product that nobody else needs.
    fn product(&self, function: &mut Function, value: ValueId) -> Option<usize> {
        let node = self.only(value)?;
        match function.nodes[node].op {
            Op::MulMontgomery { .. } | Op::Dot { .. } => Some(node),
            Op::MulScalar { a: scaled, scalar } => {
                let inner = self.only(scaled)?;
                let Op::MulMontgomery { a, k } = function.nodes[inner].op else { return None };
                function.nodes[inner].op = Op::MulScalar { a, scalar };
                function.nodes[node].op = Op::MulMontgomery { a: scaled, k };
                Some(node)
            }
            _ => None,
        }
    }

    /// Node `sum` adds a product to a value: if that is the sum of something and another product, the products are joined
    /// and the something is added to them.
    fn extend(&self, function: &mut Function, sum: usize, value: ValueId, product: usize) {
        let Some(inner) = self.only(value) else { return };
        let Op::Add { a, b } = function.nodes[inner].op else { return };
        let (rest, other) = match (self.product(function, a), self.product(function, b)) {
            (None, Some(other)) => (a, other),
            (Some(other), None) => (b, other),
            _ => return,
        };
        let Some(dot) = joined(function, other, product) else { return };
        // At the place of the later one, where all operands are known.
        let place = product.max(other);
        function.nodes[place].op = dot;
        function.nodes[sum].op = Op::Add { a: rest, b: function.nodes[place].result() };
    }
}

/// The dot product of the terms of two nodes, unless it is too long. Products with plaintexts and products with keys stay
/// apart: a sum over keys waits for its key switch, and products with plaintexts that waited with it would not meet the other
/// sums that read the same limbs.
fn joined(function: &Function, a: usize, b: usize) -> Option<Op> {
    let kind = |node: usize| std::mem::discriminant(function.type_of(function.nodes[node].op.operands()[1]));
    if kind(a) != kind(b) {
        return None;
    }
    let mut terms = function.nodes[a].op.operands();
    terms.extend(function.nodes[b].op.operands());
    (terms.len() <= MAX_OPERANDS).then_some(Op::Dot { terms })
}
