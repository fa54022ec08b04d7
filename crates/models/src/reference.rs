//! The network in the clear, in double precision: the oracle for everything that approximates it.

use crate::graph::{AveragePool, Conv, Dense, Graph, NodeId, Op};
use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;
use cerium_compiler::ciphertext::{LANES, Lanes};

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
    check_input(&graph.input().shape, input)?;
    let mut values = Vec::with_capacity(graph.nodes().len());
    walk(graph, &[input], exact(graph), |_, value| {
        values.push(value.iter().map(|lanes| lanes[0]).collect());
    });
    Ok(values)
}

/// The activations of the network themselves, for [`walk`].
pub fn exact(graph: &Graph) -> impl Fn(NodeId, &mut [Lanes]) {
    move |id, values| match graph[id].op {
        Op::Activation(activation) => {
            values.as_flattened_mut().iter_mut().for_each(|x| *x = activation.apply(*x));
        }
        _ => unreachable!("called for activation nodes only"),
    }
}

/// Computes the network for at most [`LANES`] inputs side by side: the weights are read once for all of them, and the lanes fill
/// vectors. `activate(node, values)` turns the input of an activation into its value, in place; `visit(node, values)` sees
/// every node's value in order, and values that no later node needs are dropped. Lanes without an input hold what an input
/// of zeros gives.
///
/// # Panics
/// If there are more inputs than lanes, or [`check_input`] refuses one.
pub fn walk(
    graph: &Graph,
    inputs: &[&[f32]],
    activate: impl Fn(NodeId, &mut [Lanes]),
    mut visit: impl FnMut(NodeId, &[Lanes]),
) {
    assert!(inputs.len() <= LANES, "{} inputs for {LANES} lanes", inputs.len());
    let mut uses = vec![0usize; graph.nodes().len()];
    graph.nodes().flat_map(|(_, node)| &node.inputs).for_each(|input| uses[input.index()] += 1);
    let mut values: Vec<Vec<Lanes>> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes() {
        let operand = |index: usize| &values[node.inputs[index].index()];
        let value = match &node.op {
            Op::Input => {
                let lane = |element: usize| {
                    std::array::from_fn(|lane| {
                        inputs.get(lane).map_or(0.0, |input| f64::from(input[element]))
                    })
                };
                (0..node.elements()).map(lane).collect()
            }
            Op::Conv(conv) => {
                let from = &graph[node.inputs[0]].shape;
                convolve(conv, operand(0), [from[1], from[2]], [node.shape[1], node.shape[2]])
            }
            Op::Dense(dense) => multiply(dense, operand(0)),
            Op::Activation(_) => {
                let mut value = operand(0).clone();
                activate(id, &mut value);
                value
            }
            Op::Add => {
                let pairs = operand(0).iter().zip(operand(1));
                pairs.map(|(a, b)| std::array::from_fn(|lane| a[lane] + b[lane])).collect()
            }
            Op::AveragePool(pool) => {
                let from = &graph[node.inputs[0]].shape;
                average(pool, operand(0), [from[1], from[2]], [node.shape[1], node.shape[2]])
            }
            Op::Reshape => operand(0).clone(),
        };
        visit(id, &value);
        values.push(value);
        for input in &node.inputs {
            uses[input.index()] -= 1;
            if uses[input.index()] == 0 {
                values[input.index()] = Vec::new();
            }
        }
    }
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

/// For each position along one axis, the taps of the window that lie inside the picture, and the positions that they read.
type Taps = Vec<Vec<(usize, usize)>>;

fn taps(conv: &Conv, axis: usize, from: usize, to: usize) -> Taps {
    let kernel = conv.weight.shape[2 + axis];
    let inside = |position| {
        (0..kernel)
            .filter_map(move |tap| Some((tap, conv.window.source(axis, position, tap, from)?)))
            .collect()
    };
    (0..to).map(inside).collect()
}

/// Output channels that share what they read while it is in registers.
const TOGETHER: usize = 4;

fn convolve(conv: &Conv, x: &[Lanes], from: [usize; 2], to: [usize; 2]) -> Vec<Lanes> {
    let [outputs, per_group, height, width] = conv.extents();
    let taps = [taps(conv, 0, from[0], to[0]), taps(conv, 1, from[1], to[1])];
    let (plane, size) = (to[0] * to[1], per_group * height * width);
    let mut out = vec![[0.0; LANES]; outputs * plane];
    // Channels of different groups read different inputs.
    let together = if (outputs / conv.groups).is_multiple_of(TOGETHER) { TOGETHER } else { 1 };
    for (block, out) in out.chunks_mut(together * plane).enumerate() {
        let first = block * together;
        let group = first / (outputs / conv.groups);
        let x = &x[group * per_group * from[0] * from[1]..][..per_group * from[0] * from[1]];
        let weights = |tap| {
            std::array::from_fn(|o| {
                let o = first + o.min(together - 1);
                f64::from(conv.weight.values[o * size + tap])
            })
        };
        let block = Block {
            weights: (0..size).map(weights).collect(),
            bias: std::array::from_fn(|o| conv.bias[first + o.min(together - 1)].into()),
            kernel: [height, width],
            from,
        };
        let (block, taps) = (&block, &taps);
        dispatch!(Isa::detect(), convolve_block(block: &Block, x: &[Lanes], taps: &[Taps; 2], out: &mut [Lanes]));
    }
    out
}

/// Some output channels of a convolution.
struct Block {
    /// Of each tap, for all channels.
    weights: Vec<[f64; TOGETHER]>,
    bias: [f64; TOGETHER],
    kernel: [usize; 2],
    /// Extents of an input plane.
    from: [usize; 2],
}

/// The planes of a block's channels.
///
/// # Safety
/// None: compiled for the features of `V`, it uses no vector type itself.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "it says for which instruction set this is compiled")]
unsafe fn convolve_block<V: cerium_ckks::lanes::Lanes>(
    block: &Block,
    x: &[Lanes],
    [rows, columns]: &[Taps; 2],
    out: &mut [Lanes],
) {
    let [height, width] = block.kernel;
    let area = block.from[0] * block.from[1];
    let plane = rows.len() * columns.len();
    let mut position = 0;
    for row in rows {
        for column in columns {
            let mut sums = block.bias.map(|bias| [bias; LANES]);
            for (x, weights) in x.chunks_exact(area).zip(block.weights.chunks_exact(height * width)) {
                for &(dy, y) in row {
                    let (x, weights) =
                        (&x[y * block.from[1]..][..block.from[1]], &weights[dy * width..][..width]);
                    for &(dx, column) in column {
                        let (x, weights) = (&x[column], &weights[dx]);
                        for (sum, w) in sums.iter_mut().zip(weights) {
                            for (sum, x) in sum.iter_mut().zip(x) {
                                *sum += w * x;
                            }
                        }
                    }
                }
            }
            for (out, sum) in out[position..].iter_mut().step_by(plane).zip(&sums) {
                *out = *sum;
            }
            position += 1;
        }
    }
}

fn multiply(dense: &Dense, x: &[Lanes]) -> Vec<Lanes> {
    let rows = dense.weight.values.chunks_exact(x.len()).zip(&dense.bias);
    let row = |(row, &bias): (&[f32], &f32)| {
        let mut sum = [f64::from(bias); LANES];
        row.iter().zip(x).for_each(|(&w, x)| add_product(&mut sum, w.into(), x));
        sum
    };
    rows.map(row).collect()
}

fn average(pool: &AveragePool, x: &[Lanes], from: [usize; 2], to: [usize; 2]) -> Vec<Lanes> {
    let mut out = Vec::with_capacity(x.len() / (from[0] * from[1]) * to[0] * to[1]);
    for plane in x.chunks_exact(from[0] * from[1]) {
        for row in 0..to[0] {
            for column in 0..to[1] {
                let mut sum = [0.0; LANES];
                for y in (0..pool.kernel[0]).filter_map(|tap| pool.window.source(0, row, tap, from[0])) {
                    for x in (0..pool.kernel[1]).filter_map(|tap| pool.window.source(1, column, tap, from[1]))
                    {
                        add_product(&mut sum, 1.0, &plane[y * from[1] + x]);
                    }
                }
                let divisor = pool.divisor(row, column, from);
                out.push(sum.map(|sum| sum / divisor));
            }
        }
    }
    out
}

fn add_product(sum: &mut Lanes, w: f64, x: &Lanes) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += w * x);
}
