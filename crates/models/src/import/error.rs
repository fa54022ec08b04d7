//! Why a model file cannot be used.

use crate::graph::GraphError;
use std::path::PathBuf;

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
    /// A file that is not there.
    #[error("there is no {what} at {path}; {hint}")]
    Missing {
        /// What is looked for.
        what: String,
        /// Where.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The bytes are not what the file claims to be.
    #[error("not a readable {format} file: {problem}; the file may be damaged or of another kind")]
    Damaged {
        /// The format that was expected.
        format: &'static str,
        /// What the decoder met.
        problem: String,
    },
    /// A network description that says something else than it can.
    #[error("the network description does not hold: {0}")]
    Description(String),
    /// An operator without meaning here.
    #[error(
        "node {node}: operator {operator} is not known; build the layer from operators that are, or leave it out. \
         Known are:\n{}",
        listing(known)
    )]
    UnknownOperator {
        /// Its type.
        operator: String,
        /// The node.
        node: String,
        /// The operators that can be imported.
        known: Vec<&'static str>,
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
        "input {value}: dimension {axis} is dynamic ({symbol}); export the model with fixed shapes and batch size 1 \
         (PyTorch: without dynamic_axes and dynamic_shapes)"
    )]
    DynamicShape {
        /// The input.
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
    #[error(
        "node {node} reads {value:?}, which no earlier node, initializer or input provides; if it is a weight, the model was \
         saved without its weights: export it again with them (PyTorch: export_params=True)"
    )]
    MissingValue {
        /// The reader.
        node: String,
        /// The name.
        value: String,
    },
    /// Weights that are needed when importing, but computed by the network.
    #[error(
        "node {node}: {role} must be a constant of the file, but {value:?} is computed by the network; let the exporter fold \
         constants (PyTorch: do_constant_folding=True)"
    )]
    NotConstant {
        /// The node.
        node: String,
        /// Which operand.
        role: &'static str,
        /// Its name.
        value: String,
    },
    /// A tensor that cannot be used.
    #[error("tensor {tensor}: {problem}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// Why, and what to do.
        problem: String,
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
    #[error(
        "tensor {tensor}: element {index} is {value}; weights must be finite: export the network from a checkpoint of which \
         the training went well"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Index of the element.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// What is wrong with something that a node reads.
    #[error("node {node}: {source}")]
    Operand {
        /// The node.
        node: String,
        /// What is wrong.
        source: Box<ImportError>,
    },
    /// An operation whose shapes do not agree.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Names in lines of some width.
fn listing(names: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for name in names {
        let mut line = lines.pop().expect("there is always one");
        if line.len() + name.len() > 90 {
            lines.push(std::mem::take(&mut line));
        }
        line += if line.is_empty() { "  " } else { ", " };
        lines.push(line + name);
    }
    lines.join(",\n")
}
