//! The linear layers of a network as sparse matrices: which inputs each output reads, with which weights.

use crate::graph::{Conv, Dense, Graph, Node, NodeId, Op};
use crate::scales::Scale;

/// A linear layer between the elements of two values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

impl<'a> Linear<'a> {
    /// The node's layer, if it is linear in its one operand and not the identity.
    pub(crate) fn of(graph: &'a Graph, id: NodeId) -> Option<Self> {
        let node = &graph[id];
        matches!(node.op, Op::Conv(_) | Op::Dense(_) | Op::AveragePool(_)).then_some(Self { graph, node })
    }

    /// Its operand.
    pub(crate) fn input(&self) -> NodeId {
        self.node.inputs[0]
    }

    /// Name of its weights.
    pub(crate) fn name(&self) -> &'a str {
        match &self.node.op {
            Op::Conv(Conv { weight, .. }) | Op::Dense(Dense { weight, .. }) => &weight.name,
            _ => &self.node.name,
        }
    }

    /// Number of its outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.node.elements()
    }

    /// Outputs at the corners, the middles of the edges and the middle of every channel of a picture; all of a vector.
    pub(crate) fn sample(&self) -> Vec<usize> {
        let [channels, height, width] = self.node.shape[..] else { return (0..self.outputs()).collect() };
        let mut outputs = Vec::new();
        for channel in 0..channels {
            for y in [0, height / 2, height - 1] {
                outputs.extend([0, width / 2, width - 1].map(|x| (channel * height + y) * width + x));
            }
        }
        outputs
    }

    fn input_shape(&self) -> &'a [usize] {
        &self.graph[self.node.inputs[0]].shape
    }

    /// Calls `visit(input element, index into weights)` for every term of output element `output`. Weights that are zero
    /// make no terms.
    pub(crate) fn terms(&self, output: usize, mut visit: impl FnMut(usize, usize)) {
        let from = self.input_shape();
        match &self.node.op {
            Op::Dense(dense) => {
                let row = output * from[0]..(output + 1) * from[0];
                let terms = row.clone().filter(|&index| dense.weight.values[index] != 0.0);
                terms.for_each(|index| visit(index - row.start, index));
            }
            Op::Conv(conv) => {
                let [outputs, per_group, height, width] = conv.extents();
                let (channel, y, x) = self.position(output);
                let first = channel / (outputs / conv.groups) * per_group;
                for dy in 0..height {
                    let Some(row) = conv.window.source(0, y, dy, from[1]) else { continue };
                    for dx in 0..width {
                        let Some(column) = conv.window.source(1, x, dx, from[2]) else { continue };
                        for i in 0..per_group {
                            let index = ((channel * per_group + i) * height + dy) * width + dx;
                            if conv.weight.values[index] != 0.0 {
                                visit(((first + i) * from[1] + row) * from[2] + column, index);
                            }
                        }
                    }
                }
            }
            Op::AveragePool(pool) => {
                let (channel, y, x) = self.position(output);
                for dy in 0..pool.kernel[0] {
                    let Some(row) = pool.window.source(0, y, dy, from[1]) else { continue };
                    for dx in 0..pool.kernel[1] {
                        let Some(column) = pool.window.source(1, x, dx, from[2]) else { continue };
                        visit((channel * from[1] + row) * from[2] + column, output);
                    }
                }
            }
            _ => unreachable!("{} is no linear layer", self.node.name),
        }
    }

    /// The weights that [`Linear::terms`] indexes, between values in units of these scales.
    pub(crate) fn weights(&self, from: &Scale, to: &Scale) -> Vec<f32> {
        let shape = self.input_shape();
        let scaled =
            |value: f64, input: usize, output: usize| (value * from.of(input) / to.of(output)) as f32;
        match &self.node.op {
            Op::Dense(dense) => {
                let weights = dense.weight.values.iter().enumerate();
                weights.map(|(i, &w)| scaled(w.into(), i % shape[0], i / shape[0])).collect()
            }
            Op::Conv(conv) => {
                let [outputs, per_group, height, width] = conv.extents();
                let (plane_in, plane_out) = (shape[1] * shape[2], self.node.shape[1] * self.node.shape[2]);
                let weights = conv.weight.values.iter().enumerate();
                weights
                    .map(|(i, &w)| {
                        let output = i / (per_group * height * width);
                        let group = output / (outputs / conv.groups);
                        let input = group * per_group + i / (height * width) % per_group;
                        scaled(w.into(), input * plane_in, output * plane_out)
                    })
                    .collect()
            }
            // One weight for each output: what its window holds of the picture depends on the position.
            Op::AveragePool(pool) => (0..self.outputs())
                .map(|output| {
                    let (channel, y, x) = self.position(output);
                    let divisor = pool.divisor(y, x, [shape[1], shape[2]]);
                    scaled(divisor.recip(), channel * shape[1] * shape[2], output)
                })
                .collect(),
            _ => unreachable!("{} is no linear layer", self.node.name),
        }
    }

    /// The constant that is added, in units of `to`: one number for each channel (feature) of the output.
    pub(crate) fn bias(&self, to: &Scale) -> Option<Vec<f32>> {
        let (Op::Conv(Conv { bias, .. }) | Op::Dense(Dense { bias, .. })) = &self.node.op else {
            return None;
        };
        let plane = self.outputs() / bias.len();
        let scaled = bias.iter().enumerate().map(|(c, &b)| (f64::from(b) / to.of(c * plane)) as f32);
        bias.iter().any(|&b| b != 0.0).then(|| scaled.collect())
    }

    /// Steps of the layer's window down and right; 1 where it has none.
    pub(crate) fn stride(&self) -> [usize; 2] {
        match &self.node.op {
            Op::Conv(conv) => conv.window.stride,
            Op::AveragePool(pool) => pool.window.stride,
            _ => [1, 1],
        }
    }

    /// Channel, row and column of an output of a picture.
    fn position(&self, output: usize) -> (usize, usize, usize) {
        let (height, width) = (self.node.shape[1], self.node.shape[2]);
        (output / (height * width), output / width % height, output % width)
    }
}
