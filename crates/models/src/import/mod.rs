//! Model files to [`Graph`]s.
//!
//! Everything that comes from a file is checked here: sizes against the bytes that are there before anything is
//! allocated, weights for NaN and infinity, shapes for agreement. What passes needs no further check.

mod constant;
pub mod onnx;
mod operators;
mod proto;
pub mod safetensors;
#[cfg(test)]
mod tests;

use crate::graph::{Graph, GraphError};
use crate::simplify::simplify;
use std::path::PathBuf;

/// The network in the bytes of a model file, with everything joined that can be joined: the graph that what follows
/// works on.
///
/// # Errors
/// See [`onnx::parse`]; a safetensors file is refused by name, for it holds weights without a network.
pub fn parse(bytes: &[u8]) -> Result<Graph, ImportError> {
    // Such a file begins with the length of its header, which is a JSON object.
    if bytes.get(7..9) == Some(&b"\0{"[..]) {
        return Err(ImportError::Interface(
            "this is a safetensors file: weights without the network that they belong to; export the model as ONNX".into(),
        ));
    }
    Ok(simplify(&onnx::parse(bytes)?))
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not what the file claims to be.
    #[error("not a readable {format} file: {problem}; the file may be damaged or of another kind")]
    Damaged {
        /// The format that was expected.
        format: &'static str,
        /// What the decoder met.
        problem: String,
    },
    /// An operator without meaning here.
    #[error("node {node}: operator {operator} is not known; known are {known}")]
    UnknownOperator {
        /// Its type.
        operator: String,
        /// The node.
        node: String,
        /// The operators that can be imported.
        known: String,
    },
    /// A known operator in a form that cannot be used.
    #[error("node {node}: {operator}: {problem}")]
    Unsupported {
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// What cannot be used, and what to do instead.
        problem: String,
    },
    /// A shape that is not known before the run.
    #[error(
        "value {value}: dimension {axis} is dynamic ({symbol}); export the model with fixed shapes and batch size 1"
    )]
    DynamicShape {
        /// The value.
        value: String,
        /// Which dimension.
        axis: usize,
        /// Its symbol in the file.
        symbol: String,
    },
    /// A graph that this crate cannot hold: its inputs and outputs.
    #[error("{0}")]
    Interface(String),
    /// A value that nothing makes.
    #[error("node {node} reads {value:?}, which no earlier node, initializer or input provides")]
    MissingValue {
        /// The reader.
        node: String,
        /// The name.
        value: String,
    },
    /// Weights that are needed when importing, but computed by the network.
    #[error("node {node}: {role} must be a constant of the file, but {value:?} is computed by the network")]
    NotConstant {
        /// The node.
        node: String,
        /// Which operand.
        role: &'static str,
        /// Its name.
        value: String,
    },
    /// A tensor whose data do not fill its shape.
    #[error(
        "tensor {tensor} has shape {shape:?}, which needs {wanted} bytes or values, but {found} are there; \
         the file may be damaged"
    )]
    WrongSize {
        /// The tensor.
        tensor: String,
        /// Its shape in the file.
        shape: Vec<i64>,
        /// What its shape needs.
        wanted: String,
        /// What is there.
        found: usize,
    },
    /// A weight that is no number.
    #[error("tensor {tensor}: element {index} is {value}; weights must be finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index of the element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// An operation whose shapes do not agree.
    #[error(transparent)]
    Graph(#[from] GraphError),
}
