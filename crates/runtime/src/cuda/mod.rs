//! NVIDIA GPUs. Everything of CUDA is loaded at run time: the workspace builds, tests and runs without any of it.

pub mod arch;
pub mod cache;
pub mod nvrtc;

pub use arch::Arch;
