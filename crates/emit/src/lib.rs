//! The kernel generator: what a device other than the CPU runs, made from the kernels of an artifact.
//!
//! An artifact holds kernels as data ([`cerium_artifact::kernel`]) and is neutral to devices. This crate turns a kernel into
//! text for a device's compiler, says how to launch it, and predicts how long it takes ([`cost`]). It compiles and runs nothing
//! itself.

pub mod cost;
pub mod cuda;
