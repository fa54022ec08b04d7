//! Model files to programs over encrypted data.
//!
//! The path of a network, in reading order:
//!
//! ```text
//! model file -> import -> graph -> simplify -> calibrate -> approximate within a budget -> pack -> DSL program
//! ```
//!
//! [`mod@reference`] runs the graph in the clear and is the oracle for what comes after it; [`simulate`] runs the finished
//! program on clear slots against it.

pub mod activation;
pub mod approximation;
pub mod budget;
pub mod calibrate;
pub mod chebyshev;
pub mod data;
pub mod graph;
pub mod import;
mod linear;
pub mod lower;
pub mod minimax;
pub mod normalization;
pub mod packing;
pub mod picture;
pub mod reference;
pub mod scales;
pub mod simplify;
pub mod simulate;
pub mod substitution;
pub mod tensor;
