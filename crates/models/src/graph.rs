//! A network as a graph of typed operations with known shapes.
//!
//! The batch dimension is gone: a value is one picture's `[channels, height, width]` or a vector `[features]`.
//! Nodes stand in the order of computation; node 0 is the only input.
//!
//! ```text
//! %0 = input                        image        [1, 28, 28]
//! %1 = conv 1->8 5x5 /2 %0          /conv1/Conv  [8, 14, 14]
//! %2 = relu %1                      /Relu        [8, 14, 14]
//! ```

use crate::activation::Activation;
use crate::tensor::{Tensor, element_count};
use std::fmt;

/// Most elements that one value may have; larger ones are refused before anything is allocated for them.
pub const MAX_ELEMENTS: usize = 1 << 24;

/// Index of a node in its graph; prints as `%3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The network's input.
    pub const INPUT: NodeId = NodeId(0);

    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// One operation and the value it makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name, as in the model file.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its operands, which stand before it.
    pub inputs: Vec<NodeId>,
    /// `[channels, height, width]` or `[features]`.
    pub shape: Vec<usize>,
}

impl Node {
    /// Number of elements of its value.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Extent of the first dimension: channels, or features of a vector.
    pub fn channels(&self) -> usize {
        self.shape[0]
    }
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The network's input.
    Input,
    /// Two-dimensional convolution (correlation, as every framework has it).
    Conv(Conv),
    /// `weight * x + bias` on a vector.
    Dense(Dense),
    /// An activation function, element by element.
    Activation(Activation),
    /// Sum of two values of equal shape.
    Add,
    /// Mean over windows.
    AveragePool(AveragePool),
    /// The same elements in the same order under another shape.
    Reshape,
}

impl Op {
    /// Its name in listings.
    pub fn name(&self) -> String {
        match self {
            Self::Input => "input".into(),
            Self::Conv(conv) => {
                let [outputs, inputs, height, width] = conv.extents();
                let stride = conv.window.stride[0];
                format!("conv {}->{outputs} {height}x{width} /{stride}", inputs * conv.groups)
            }
            Self::Dense(dense) => format!("dense {}->{}", dense.weight.shape[1], dense.weight.shape[0]),
            Self::Activation(activation) => activation.to_string(),
            Self::Add => "add".into(),
            Self::AveragePool(pool) => {
                format!("average_pool {}x{} /{}", pool.kernel[0], pool.kernel[1], pool.window.stride[0])
            }
            Self::Reshape => "reshape".into(),
        }
    }
}

/// How a window moves over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Steps down and right; at least 1.
    pub stride: [usize; 2],
    /// Zeros added at top, left, bottom, right.
    pub padding: [usize; 4],
    /// Distance between the window's taps down and right; at least 1.
    pub dilation: [usize; 2],
}

impl Default for Window {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0; 4], dilation: [1, 1] }
    }
}

impl Window {
    /// Output extents `[height, width]` for an input of `[height, width]` and a kernel, or `None` where the kernel
    /// does not fit or a number overflows.
    pub fn output(&self, input: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let mut output = [0; 2];
        for axis in 0..2 {
            let padded = input[axis].checked_add(self.padding[axis])?.checked_add(self.padding[axis + 2])?;
            let span = kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?.checked_add(1)?;
            output[axis] = padded.checked_sub(span)?.checked_div(self.stride[axis])?.checked_add(1)?;
        }
        Some(output)
    }

    /// The input position along `axis` (0 down, 1 right) that tap `tap` of the window at `position` reads, or
    /// `None` in the padding. `extent` is the input's extent along the axis.
    pub fn source(&self, axis: usize, position: usize, tap: usize, extent: usize) -> Option<usize> {
        let padded = position * self.stride[axis] + tap * self.dilation[axis];
        padded.checked_sub(self.padding[axis]).filter(|&source| source < extent)
    }
}

/// A convolution: `weight [outputs, inputs / groups, kernel height, kernel width]`, `bias [outputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Kernel.
    pub weight: Tensor,
    /// One number for each output channel.
    pub bias: Vec<f32>,
    /// How it moves.
    pub window: Window,
    /// Output channel `o` reads the input channels of group `o / (outputs / groups)`.
    pub groups: usize,
}

impl Conv {
    /// `[outputs, inputs of a group, kernel height, kernel width]`.
    pub fn extents(&self) -> [usize; 4] {
        [self.weight.shape[0], self.weight.shape[1], self.weight.shape[2], self.weight.shape[3]]
    }
}

/// A dense layer: `weight [outputs, inputs]`, `bias [outputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Matrix.
    pub weight: Tensor,
    /// One number for each output.
    pub bias: Vec<f32>,
}

/// Mean over windows of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AveragePool {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// How it moves.
    pub window: Window,
    /// Whether padding counts in the divisor.
    pub count_padding: bool,
}

impl AveragePool {
    /// The divisor of the window at output position `(row, column)` over an input of `[height, width]`.
    pub fn divisor(&self, row: usize, column: usize, input: [usize; 2]) -> f64 {
        if self.count_padding {
            return (self.kernel[0] * self.kernel[1]) as f64;
        }
        let inside = |axis: usize, position| {
            (0..self.kernel[axis])
                .filter(|&tap| self.window.source(axis, position, tap, input[axis]).is_some())
                .count()
        };
        (inside(0, row) * inside(1, column)).max(1) as f64
    }
}

/// An operation that cannot stand where it was put.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    /// The operand's shape does not fit.
    #[error("{node}: {op} wants an input of {wanted}, but its input {input} has shape {shape:?}")]
    Shape {
        /// The node at fault.
        node: String,
        /// Its operation.
        op: &'static str,
        /// The shape that would do.
        wanted: String,
        /// The operand's name.
        input: String,
        /// The operand's shape.
        shape: Vec<usize>,
    },
    /// An attribute or weight shape contradicts itself.
    #[error("{node}: {problem}")]
    Invalid {
        /// The node at fault.
        node: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value would be empty or larger than [`MAX_ELEMENTS`].
    #[error(
        "{node}: its value would have shape {shape:?}; a value needs between 1 and {MAX_ELEMENTS} elements"
    )]
    Size {
        /// The node at fault.
        node: String,
        /// The shape.
        shape: Vec<usize>,
    },
}

/// A network with one input and one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    output: NodeId,
}

impl Graph {
    /// A graph that consists of its input, `[channels, height, width]` or `[features]`.
    pub fn new(name: impl Into<String>, shape: Vec<usize>) -> Result<Self, GraphError> {
        let mut graph = Self { nodes: Vec::new(), output: NodeId(0) };
        let name = name.into();
        if shape.len() != 1 && shape.len() != 3 {
            let problem = format!(
                "the input has shape {shape:?} behind its batch dimension; \
                 [channels, height, width] and [features] are known"
            );
            return Err(GraphError::Invalid { node: name, problem });
        }
        graph.insert(name, Op::Input, Vec::new(), shape)?;
        Ok(graph)
    }

    /// Appends an operation on values of the graph, infers its shape, and makes it the output.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<NodeId>,
    ) -> Result<NodeId, GraphError> {
        let name = name.into();
        let shape = self.infer(&name, &op, &inputs)?;
        self.insert(name, op, inputs, shape)
    }

    /// Appends a change of shape to `[channels, height, width]` or `[features]`, and makes it the output.
    pub fn reshape(
        &mut self,
        name: impl Into<String>,
        input: NodeId,
        shape: Vec<usize>,
    ) -> Result<NodeId, GraphError> {
        let name = name.into();
        let from = &self[input].shape;
        if element_count(&shape) != Some(self[input].elements()) || !matches!(shape.len(), 1 | 3) {
            let problem = format!("cannot give a value of shape {from:?} the shape {shape:?}");
            return Err(GraphError::Invalid { node: name, problem });
        }
        self.insert(name, Op::Reshape, vec![input], shape)
    }

    /// Declares which value is the network's output (else: the last one).
    pub fn set_output(&mut self, output: NodeId) {
        self.output = output;
    }

    /// Nodes in order of computation.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index as u32), node))
    }

    /// The network's input.
    pub fn input(&self) -> &Node {
        &self.nodes[0]
    }

    /// The network's output.
    pub fn output(&self) -> NodeId {
        self.output
    }

    /// The operation of a node, for passes that fold one operation into the one before it; its shape must stay.
    pub(crate) fn op_mut(&mut self, id: NodeId) -> &mut Op {
        &mut self.nodes[id.index()].op
    }

    /// The graph without nodes that its output does not need; `None` if it does not need the input.
    pub(crate) fn live(mut self) -> Option<Self> {
        let mut live = vec![false; self.nodes.len()];
        live[self.output.index()] = true;
        for index in (0..self.nodes.len()).rev() {
            if live[index] {
                self.nodes[index].inputs.iter().for_each(|input| live[input.index()] = true);
            }
        }
        let mut renamed = Vec::with_capacity(live.len());
        let mut next = 0;
        for &live in &live {
            renamed.push(NodeId(next));
            next += u32::from(live);
        }
        let mut keep = live.iter();
        self.nodes.retain(|_| *keep.next().expect("one flag a node"));
        for node in &mut self.nodes {
            node.inputs.iter_mut().for_each(|input| *input = renamed[input.index()]);
        }
        self.output = renamed[self.output.index()];
        live[0].then_some(self)
    }

    fn insert(
        &mut self,
        name: String,
        op: Op,
        inputs: Vec<NodeId>,
        shape: Vec<usize>,
    ) -> Result<NodeId, GraphError> {
        match element_count(&shape) {
            Some(1..=MAX_ELEMENTS) => {}
            _ => return Err(GraphError::Size { node: name, shape }),
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { name, op, inputs, shape });
        self.output = id;
        Ok(id)
    }

    /// The shape of `op` applied to `inputs`.
    fn infer(&self, name: &str, op: &Op, inputs: &[NodeId]) -> Result<Vec<usize>, GraphError> {
        let invalid = |problem: String| GraphError::Invalid { node: name.to_string(), problem };
        let mismatch = |op, wanted: String, input: NodeId| GraphError::Shape {
            node: name.to_string(),
            op,
            wanted,
            input: self[input].name.clone(),
            shape: self[input].shape.clone(),
        };
        let arity = match op {
            Op::Input | Op::Reshape => 0,
            Op::Add => 2,
            Op::Conv(_) | Op::Dense(_) | Op::Activation(_) | Op::AveragePool(_) => 1,
        };
        let first = match inputs.first() {
            Some(&first) if inputs.len() == arity => first,
            _ => return Err(invalid(format!("{} operands where {arity} were expected", inputs.len()))),
        };
        if let Op::Conv(Conv { window, .. }) | Op::AveragePool(AveragePool { window, .. }) = op
            && (window.stride.contains(&0) || window.dilation.contains(&0))
        {
            return Err(invalid("strides and dilations are at least 1".into()));
        }
        let shape = &self[first].shape;
        match op {
            Op::Input | Op::Reshape => unreachable!("has no operands here, so it was refused above"),
            Op::Activation(_) => Ok(shape.clone()),
            Op::Add => {
                let other = inputs[1];
                if self[other].shape != *shape {
                    return Err(mismatch("Add", format!("shape {shape:?}, as the other input"), other));
                }
                Ok(shape.clone())
            }
            Op::Dense(dense) => {
                let [outputs, features] = dense.weight.shape[..] else {
                    return Err(invalid(format!(
                        "a matrix was expected, its weight has shape {:?}",
                        dense.weight.shape
                    )));
                };
                if dense.bias.len() != outputs {
                    return Err(invalid(format!("{} bias values for {outputs} outputs", dense.bias.len())));
                }
                if *shape != [features] {
                    return Err(mismatch(
                        "Gemm or MatMul",
                        format!("{features} features in one dimension"),
                        first,
                    ));
                }
                Ok(vec![outputs])
            }
            Op::Conv(conv) => {
                let [outputs, per_group, height, width] = conv.weight.shape[..] else {
                    return Err(invalid(format!(
                        "only two-dimensional convolutions are known, its weight has shape {:?}",
                        conv.weight.shape
                    )));
                };
                if conv.groups == 0 || outputs % conv.groups != 0 {
                    return Err(invalid(format!(
                        "{outputs} output channels cannot be split into {} groups",
                        conv.groups
                    )));
                }
                if conv.bias.len() != outputs {
                    return Err(invalid(format!("{} bias values for {outputs} channels", conv.bias.len())));
                }
                let wanted = per_group.checked_mul(conv.groups);
                match shape[..] {
                    [channels, h, w] if Some(channels) == wanted => {
                        let [h, w] = conv.window.output([h, w], [height, width]).ok_or_else(|| {
                            invalid(format!("a {height}x{width} kernel does not fit into a {h}x{w} picture"))
                        })?;
                        Ok(vec![outputs, h, w])
                    }
                    _ => Err(mismatch(
                        "Conv",
                        format!("[{}, height, width]", per_group.saturating_mul(conv.groups)),
                        first,
                    )),
                }
            }
            Op::AveragePool(pool) => {
                let [channels, h, w] = shape[..] else {
                    return Err(mismatch("AveragePool", "[channels, height, width]".into(), first));
                };
                let [height, width] = pool.kernel;
                let [h, w] = pool.window.output([h, w], pool.kernel).ok_or_else(|| {
                    invalid(format!("a {height}x{width} window does not fit into a {h}x{w} picture"))
                })?;
                Ok(vec![channels, h, w])
            }
        }
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.nodes() {
            write!(f, "{id} = {}", node.op.name())?;
            for input in &node.inputs {
                write!(f, " {input}")?;
            }
            writeln!(f, "  {} {:?}", node.name, node.shape)?;
        }
        writeln!(f, "output {}", self.output)
    }
}
