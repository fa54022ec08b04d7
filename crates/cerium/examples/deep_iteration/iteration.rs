//! A program of any depth: `z <- z^2 + c`, over and over.
//!
//! For c in [-0.6, 0.2] the iteration from 0 stays within [-0.6, 0.6] and ends in a fixed point that attracts, so that
//! errors fade (its multiplier is at most 0.85 in absolute value): what is left of them at the end is what the last
//! iterations added.

use cerium::ckks::params::Params;
use cerium::compiler::ciphertext::Slots;
use cerium::compiler::dsl::{Packing, Program, SourceProgram};

/// `depth` multiplications one after another, on a c in every slot.
pub(crate) fn program(params: &Params, depth: usize) -> SourceProgram {
    let p = Program::new("deep iteration", params);
    let c = p.input("c", Packing { bound: 0.6, ..Packing::dense(params.slots()) });
    let step = p.function("step", 2, &[], |_, values, _| {
        let [z, c] = values else { unreachable!("it was declared with two") };
        vec![z * z + c]
    });
    let mut z = c.clone();
    for _ in 0..depth {
        z = p.call(&step, &[&z, &c], &[]).remove(0);
    }
    p.output("z", Packing { bound: 0.6, ..Packing::dense(params.slots()) }, &z);
    p.finish()
}

/// Values of c, evenly over the interval.
pub(crate) fn input(params: &Params) -> Slots {
    let slots = params.slots();
    (0..slots).map(|i| (-0.6 + 0.8 * i as f64 / (slots - 1) as f64).into()).collect()
}

/// The same without the library.
pub(crate) fn expected(input: &Slots, depth: usize) -> Slots {
    let iterate = |c: f64| (0..depth).fold(c, |z, _| z * z + c);
    input.iter().map(|c| iterate(c.re).into()).collect()
}
