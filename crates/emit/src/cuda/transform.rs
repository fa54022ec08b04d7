//! Number-theoretic transforms.

use cerium_artifact::Function;
use cerium_artifact::kernel::Transform;
use cerium_ckks::params::Params;

use super::Emitter;
use super::abi::Launch;

/// The words behind the `tables` of every function: twiddle factors of all primes of the pool.
pub fn tables(_params: &Params) -> Vec<u32> {
    Vec::new()
}

pub(super) fn forward(emitter: &mut Emitter<'_>, function: &Function, transform: &Transform) -> Vec<Launch> {
    emit(emitter, function, transform)
}

pub(super) fn inverse(emitter: &mut Emitter<'_>, function: &Function, transform: &Transform) -> Vec<Launch> {
    emit(emitter, function, transform)
}

fn emit(_: &mut Emitter<'_>, _: &Function, _: &Transform) -> Vec<Launch> {
    unreachable!("transforms are written by another branch")
}
