//! Joins linear operations that follow each other, so that together they take one level.
//!
//! ```text
//! %1 = average_pool 8x8 %0      [64, 1, 1]
//! %2 = reshape %1               [64]
//! %3 = dense 64->10 %2          [10]
//! ->
//! %1 = reshape %0               [4096]
//! %2 = dense 4096->10 %1        [10]
//! ```

use crate::graph::{AveragePool, Dense, Graph, Node, NodeId, Op};
use crate::tensor::Tensor;

/// Larger matrices than this are not made.
const MAX_WEIGHTS: usize = 1 << 22;

/// The same function with every mean that only a dense layer reads folded into that layer's matrix.
pub fn simplify(graph: &Graph) -> Graph {
    let mut uses = vec![0; graph.nodes().len()];
    uses[graph.output().index()] += 1;
    graph.nodes().flat_map(|(_, node)| &node.inputs).for_each(|input| uses[input.index()] += 1);
    // The pool below a dense layer, looking through reshapes that nothing else reads.
    let pool_below = |mut id: NodeId| loop {
        let node = &graph[id];
        match &node.op {
            _ if uses[id.index()] != 1 => return None,
            Op::Reshape => id = node.inputs[0],
            Op::AveragePool(pool) => return Some((node, *pool)),
            _ => return None,
        }
    };
    let input = graph.input();
    let mut out = Graph::new(input.name.clone(), input.shape.clone()).expect("the input was valid before");
    let mut renamed = vec![out.output()];
    for (_, node) in graph.nodes().skip(1) {
        let operand = |index: usize| renamed[node.inputs[index].index()];
        let id = match &node.op {
            Op::Dense(dense) => match pool_below(node.inputs[0]) {
                Some((pool_node, pool)) if fits(graph, pool_node, dense) => {
                    let source = pool_node.inputs[0];
                    let elements = graph[source].elements();
                    let joined = join(&pool, &graph[source].shape, &pool_node.shape, dense);
                    out.reshape(pool_node.name.clone(), renamed[source.index()], vec![elements])
                        .and_then(|flat| out.push(node.name.clone(), Op::Dense(joined), vec![flat]))
                }
                _ => out.push(node.name.clone(), node.op.clone(), vec![operand(0)]),
            },
            Op::Reshape => out.reshape(node.name.clone(), operand(0), node.shape.clone()),
            op => {
                let inputs = (0..node.inputs.len()).map(operand).collect();
                out.push(node.name.clone(), op.clone(), inputs)
            }
        };
        renamed.push(id.expect("shapes agreed before and are the same now"));
    }
    out.set_output(renamed[graph.output().index()]);
    out.live().expect("the output still depends on the input")
}

fn fits(graph: &Graph, pool: &Node, dense: &Dense) -> bool {
    dense.bias.len().saturating_mul(graph[pool.inputs[0]].elements()) <= MAX_WEIGHTS
}

/// The matrix of `dense` after `pool`, on the elements of the pool's input.
fn join(pool: &AveragePool, from: &[usize], to: &[usize], dense: &Dense) -> Dense {
    let (plane, pooled) = (from[1] * from[2], to[1] * to[2]);
    let outputs = dense.bias.len();
    let mut values = vec![0.0f64; outputs * from[0] * plane];
    for (row, matrix) in
        values.chunks_exact_mut(from[0] * plane).zip(dense.weight.values.chunks_exact(to[0] * pooled))
    {
        for channel in 0..from[0] {
            for position in 0..pooled {
                let (y, x) = (position / to[2], position % to[2]);
                let weight =
                    f64::from(matrix[channel * pooled + position]) / pool.divisor(y, x, [from[1], from[2]]);
                for dy in 0..pool.kernel[0] {
                    let Some(y) = pool.window.source(0, y, dy, from[1]) else { continue };
                    for dx in 0..pool.kernel[1] {
                        let Some(x) = pool.window.source(1, x, dx, from[2]) else { continue };
                        row[channel * plane + y * from[2] + x] += weight;
                    }
                }
            }
        }
    }
    let values = values.into_iter().map(|value| value as f32).collect();
    let weight = Tensor::new(dense.weight.name.clone(), vec![outputs, from[0] * plane], values);
    Dense { weight, bias: dense.bias.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Window;
    use crate::reference;

    /// A pool, two reshapes and a dense layer become one; the values stay.
    #[test]
    fn a_pool_joins_the_dense_layer_behind_it() {
        let window = Window { stride: [2, 1], padding: [1, 0, 0, 1], ..Window::default() };
        let pool = AveragePool { kernel: [3, 2], window, count_padding: false };
        let mut graph = Graph::new("x", vec![2, 5, 4]).expect("valid");
        let pooled = graph.push("pool", Op::AveragePool(pool), vec![graph.output()]).expect("valid");
        let features = graph[pooled].elements();
        let flat = graph.reshape("flat", pooled, vec![features]).expect("valid");
        let values = (0..3 * features).map(|i| (i as f32 * 0.7).sin()).collect();
        let weight = Tensor::new("w", vec![3, features], values);
        graph
            .push("dense", Op::Dense(Dense { weight, bias: vec![1.0, 2.0, 3.0] }), vec![flat])
            .expect("valid");
        let simple = simplify(&graph);
        assert_eq!(simple.nodes().len(), 3);
        let input: Vec<f32> = (0..40).map(|i| (i as f32 * 1.3).cos()).collect();
        let run = |graph| reference::run(graph, &input).expect("valid");
        for (a, b) in run(&graph).iter().zip(run(&simple)) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        // Read by something else too, the pool stays.
        graph.set_output(pooled);
        assert_eq!(simplify(&graph).nodes().len(), 2);
    }
}
