//! Model files to programs over encrypted data.
//!
//! The path of a network, in reading order:
//!
//! ```text
//! model file -> import -> graph -> calibrate -> approximate -> pack -> DSL program
//! ```
//!
//! [`reference`] runs the graph in the clear and is the oracle for what comes after it.

pub mod activation;
pub mod approximation;
pub mod calibrate;
pub mod data;
pub mod graph;
pub mod import;
pub mod picture;
pub mod reference;
pub mod tensor;
