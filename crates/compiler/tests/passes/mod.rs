//! The passes of [`cerium_compiler::compile`] down to the polynomial level, for tests that hold it against levels below.

use cerium_compiler::ciphertext::{self, passes};
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::simplify::share;
use cerium_compiler::polynomial::{self, passes as poly_passes};

/// The program on the polynomial level after all its passes, as [`cerium_compiler::compile`] makes it, but for the
/// divisions, which are not expanded.
pub(crate) fn polynomial(source: &SourceProgram) -> polynomial::Module {
    let mut ct = source.module.clone();
    let Ok(()) = passes::expand_linear_transform(&mut ct);
    let Ok(()) = passes::expand_poly_eval(&mut ct);
    share(&mut ct);
    let Ok(()) = passes::merge_rotations(&mut ct);
    passes::place_levels(&mut ct).unwrap();
    share(&mut ct);
    let Ok(()) = passes::fold_adjustments(&mut ct);
    ct.verify().unwrap();
    share(&mut ct);
    let mut poly = ciphertext::lower_to_polynomial(&ct);
    share(&mut poly);
    let Ok(()) = poly_passes::sink_divisions(&mut poly);
    poly.verify().unwrap();
    let Ok(()) = poly_passes::merge_divisions(&mut poly);
    poly.verify().unwrap();
    poly
}
