//! The network in the clear, in double precision: the oracle for everything that approximates it.

use crate::graph::{AveragePool, Conv, Dense, Graph, NodeId, Op};

/// An input that the network cannot take.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum InputError {
    /// Wrong number of elements.
    #[error("the input has {found} elements, but the network's input has shape {shape:?}")]
    Shape {
        /// Elements given.
        found: usize,
        /// The network's input shape.
        shape: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("element {index} of the input is {value}; inputs must be finite")]
    NotFinite {
        /// Index of the element.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// The network's output for one input (row-major, as the graph's input shape says).
pub fn run(graph: &Graph, input: &[f32]) -> Result<Vec<f64>, InputError> {
    let mut values = trace(graph, input)?;
    Ok(values.swap_remove(graph.output().index()))
}

/// The values of all nodes, by [`NodeId::index`].
pub fn trace(graph: &Graph, input: &[f32]) -> Result<Vec<Vec<f64>>, InputError> {
    trace_with(graph, input, |id, x| match graph[id].op {
        Op::Activation(activation) => activation.apply(x),
        _ => unreachable!("called for activation nodes only"),
    })
}

/// As [`trace`], with `activate(node, x)` in the place of every activation function: a run with approximations.
pub fn trace_with(
    graph: &Graph,
    input: &[f32],
    mut activate: impl FnMut(NodeId, f64) -> f64,
) -> Result<Vec<Vec<f64>>, InputError> {
    check_input(&graph.input().shape, input)?;
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes() {
        let operand = |index: usize| &values[node.inputs[index].index()];
        let value = match &node.op {
            Op::Input => input.iter().map(|&x| f64::from(x)).collect(),
            Op::Conv(conv) => {
                let from = &graph[node.inputs[0]].shape;
                convolve(conv, operand(0), [from[1], from[2]], [node.shape[1], node.shape[2]])
            }
            Op::Dense(dense) => multiply(dense, operand(0)),
            Op::Activation(_) => operand(0).iter().map(|&x| activate(id, x)).collect(),
            Op::Add => operand(0).iter().zip(operand(1)).map(|(a, b)| a + b).collect(),
            Op::AveragePool(pool) => {
                let from = &graph[node.inputs[0]].shape;
                average(pool, operand(0), [from[1], from[2]], [node.shape[1], node.shape[2]])
            }
            Op::Reshape => operand(0).clone(),
        };
        values.push(value);
    }
    Ok(values)
}

/// Checks the number of elements and that all are finite.
pub fn check_input(shape: &[usize], input: &[f32]) -> Result<(), InputError> {
    if input.len() != shape.iter().product::<usize>() {
        return Err(InputError::Shape { found: input.len(), shape: shape.to_vec() });
    }
    match input.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(InputError::NotFinite { index, value: input[index] }),
        None => Ok(()),
    }
}

/// One row of the picture at a time and one tap of the kernel at a time, so that the inner loop is a long
/// multiply-add over contiguous outputs.
fn convolve(conv: &Conv, x: &[f64], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let [outputs, per_group, height, width] = conv.extents();
    let stride = conv.window.stride[1];
    let mut out = Vec::with_capacity(outputs * to[0] * to[1]);
    for o in 0..outputs {
        let group = o / (outputs / conv.groups);
        for row in 0..to[0] {
            let start = out.len();
            out.resize(start + to[1], f64::from(conv.bias[o]));
            let line = &mut out[start..];
            for i in 0..per_group {
                let plane = &x[(group * per_group + i) * from[0] * from[1]..][..from[0] * from[1]];
                for dy in 0..height {
                    let Some(source) = conv.window.source(0, row, dy, from[0]) else { continue };
                    let source = &plane[source * from[1]..][..from[1]];
                    for dx in 0..width {
                        let w =
                            f64::from(conv.weight.values[((o * per_group + i) * height + dy) * width + dx]);
                        // Outputs whose tap lies inside the picture: a contiguous range of columns.
                        let inside = |column| conv.window.source(1, column, dx, from[1]);
                        let Some(first) = (0..to[1]).find(|&column| inside(column).is_some()) else {
                            continue;
                        };
                        let end = (first..to[1]).rev().find(|&column| inside(column).is_some());
                        let end = end.expect("the first one is inside") + 1;
                        let begin = inside(first).expect("found above");
                        let taps = source[begin..].iter().step_by(stride);
                        line[first..end].iter_mut().zip(taps).for_each(|(sum, x)| *sum += w * x);
                    }
                }
            }
        }
    }
    out
}

fn multiply(dense: &Dense, x: &[f64]) -> Vec<f64> {
    let rows = dense.weight.values.chunks_exact(x.len());
    rows.zip(&dense.bias)
        .map(|(row, &bias)| f64::from(bias) + row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>())
        .collect()
}

fn average(pool: &AveragePool, x: &[f64], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len() / (from[0] * from[1]) * to[0] * to[1]);
    for plane in x.chunks_exact(from[0] * from[1]) {
        for row in 0..to[0] {
            for column in 0..to[1] {
                let rows = (0..pool.kernel[0]).filter_map(|tap| pool.window.source(0, row, tap, from[0]));
                let sum: f64 = rows
                    .map(|y| {
                        (0..pool.kernel[1])
                            .filter_map(|tap| pool.window.source(1, column, tap, from[1]))
                            .map(|x_| plane[y * from[1] + x_])
                            .sum::<f64>()
                    })
                    .sum();
                out.push(sum / pool.divisor(row, column, from));
            }
        }
    }
    out
}
