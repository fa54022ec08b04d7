//! Passes on the polynomial level, in the order in which [`crate::compile`] runs them.

mod expand_divisions;
mod merge_divisions;
mod sink_divisions;

pub use expand_divisions::expand_divisions;
pub use merge_divisions::merge_divisions;
pub use sink_divisions::sink_divisions;
