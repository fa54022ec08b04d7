//! From limb functions to kernels, a schedule and a memory plan: the artifact's functions.

mod allocate;
mod assemble;
mod fuse;
pub mod text;

pub use assemble::{Assembled, assemble};
pub use fuse::{Group, Launch, fuse};
