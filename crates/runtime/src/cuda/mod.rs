//! NVIDIA GPUs. Everything of CUDA is loaded at run time: the workspace builds, tests and runs without any of it.
//!
//! [`CudaDevice`] is the device. Its parts, in the order in which a program passes them: `plan` (kernels become launches of
//! emitted text, and everything they read is laid out), [`compile`] (text becomes machine code: [`cache`], [`nvrtc`]),
//! `device` (memory, recorded launches, tables of activations) with `encode` (plaintexts from raw weights), [`gpu`] (what is asked of a GPU) and `driver` behind it. Only
//! the last needs a GPU to be tried: [`host`] is a stand-in that runs the same text.

pub mod arch;
mod branch;
pub mod cache;
pub mod compile;
mod device;
mod driver;
mod encode;
pub mod error;
pub mod gpu;
pub mod host;
pub mod nvrtc;
mod plan;
mod sums;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use device::{CudaDevice, CudaOptions};
pub use error::CudaError;
pub use plan::sources;
pub(crate) use sums::Parts;
