//! All-reduce: a sum over devices that all need is not added at home and sent, but added everywhere.
//!
//! ```text
//! %s: parts to the home of each limb       %s: all_reduce
//! %c = intt(%s) at home               ->   %c = intt(%s) everywhere
//! %c to everyone
//! ```
//!
//! That takes one collective instead of two, and the transforms of the sums on every device. It moves as many bytes, unless
//! switches add on the way.

use super::placement::{Choices, Placement};
use super::set::Devices;
use crate::ir::Operation;
use crate::limb::Op;

/// The choice with all sums that may be all-reduced; none if there is none.
pub(super) fn candidates(placement: &Placement<'_>) -> Vec<Choices> {
    let function = placement.space.function;
    let everyone = Devices::range(0, placement.space.devices);
    let uses = function.use_counts();
    let mut choices = placement.choices.clone();
    let mut any = false;
    for (index, node) in function.nodes.iter().enumerate() {
        let Op::Intt { a, .. } = node.op else { continue };
        let needed = placement.needs[node.result().index()];
        let may = placement.parts[a.index()]
            && !placement.choices.all_reduced[a.index()]
            && placement.held[a.index()] == everyone
            && uses[a.index()] == 1
            && 2 * needed.len() > everyone.len()
            && placement.choices.alone[index].is_none()
            && is_own(placement, a, &uses);
        if may {
            choices.all_reduced[a.index()] = true;
            choices.repeated[index] = true;
            any = true;
        }
    }
    if any { vec![choices] } else { Vec::new() }
}

/// Whether the parts of a sum are nobody else's limbs: they are replaced by the sum.
fn is_own(placement: &Placement<'_>, sum: crate::ir::ValueId, uses: &[u32]) -> bool {
    let Some(maker) = placement.maker[sum.index()] else { return false };
    match &placement.space.function.nodes[maker].op {
        // Where only one operand is there, it is the part.
        op @ (Op::Add { .. } | Op::Sub { .. }) => {
            let own = |v: crate::ir::ValueId| {
                uses[v.index()] == 1
                    && placement.maker[v.index()].is_some()
                    && placement.whole(v) == placement.held[v.index()]
                    || uses[v.index()] == 1 && is_own(placement, v, uses)
            };
            op.operands().into_iter().all(own)
        }
        Op::Dot { .. }
        | Op::Permute { .. }
        | Op::MulMontgomery { .. }
        | Op::MulScalar { .. }
        | Op::Neg { .. } => true,
        _ => false,
    }
}
