//! Base conversions.

use cerium_artifact::Function;
use cerium_artifact::kernel::{BaseConvertBlock, Program};

use super::Emitter;
use super::abi::Launch;

pub(super) fn emit(_: &mut Emitter<'_>, _: &Function, _: &Program, _: &[BaseConvertBlock]) -> Vec<Launch> {
    unreachable!("written next")
}
