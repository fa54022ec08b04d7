//! What the operators mean, in each of their forms.

use super::super::onnx;
use super::*;
use crate::activation::Activation;
use crate::reference;

/// The model's output, to seven digits.
fn run(graph: &Graph, input: &[f32]) -> Vec<f64> {
    let round = |v: f64| (v * 1e5).round() / 1e5;
    reference::run(graph, input).expect("a valid input").into_iter().map(round).collect()
}

#[test]
fn batch_normalization_folds_into_the_convolution() {
    let weights = vec![
        tensor("w", &[2, 1, 1, 1], &[2.0, 3.0]),
        tensor("scale", &[2], &[1.0, 4.0]),
        tensor("bias", &[2], &[0.5, 0.0]),
        tensor("mean", &[2], &[1.0, 1.0]),
        tensor("variance", &[2], &[1.0, 4.0]),
    ];
    let norm = |x: &str, y: &str| {
        with(node("BatchNormalization", &[x, "scale", "bias", "mean", "variance"], y), &[("epsilon", &[0])])
    };
    let folded = model(&[1, 1, 1, 2], vec![node("Conv", &["x", "w"], "c"), norm("c", "y")], weights.clone())
        .expect("valid");
    assert_eq!(folded.nodes().len(), 2);
    assert_eq!(run(&folded, &[1.0, 2.0]), [1.5, 3.5, 4.0, 10.0]);
    // Here the convolution's own value is read too, so it must stay as it is; also behind an alias.
    for alias in [false, true] {
        let mut nodes = vec![node("Conv", &["x", "w"], "c"), node("Identity", &["c"], "d")];
        nodes.push(norm(if alias { "d" } else { "c" }, "n"));
        nodes.push(node("Add", &["n", "c"], "y"));
        let apart = model(&[1, 1, 1, 2], nodes, weights.clone()).expect("valid");
        assert_eq!(apart.nodes().len(), 4);
        assert_eq!(run(&apart, &[1.0, 2.0]), [3.5, 7.5, 7.0, 16.0]);
    }
}

#[test]
fn dense_layers_in_all_their_forms() {
    // y = W x + b with W = [[1, 2, 3], [4, 5, 6]], b = [10, 20].
    let forms = [
        (
            vec![with(node("Gemm", &["x", "w", "b"], "y"), &[("transB", &[1])])],
            tensor("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ),
        (
            vec![node("MatMul", &["x", "w"], "m"), node("Add", &["b", "m"], "y")],
            tensor("w", &[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ),
        (
            vec![with(node("Gemm", &["x", "w", "b"], "y"), &[("alpha", &[2])])],
            tensor("w", &[3, 2], &[0.5, 2.0, 1.0, 2.5, 1.5, 3.0]),
        ),
    ];
    for (nodes, weight) in forms {
        let graph = model(&[-1, 3], nodes, vec![weight, tensor("b", &[1, 2], &[10.0, 20.0])]).expect("valid");
        assert_eq!(graph.nodes().len(), 2);
        assert_eq!(run(&graph, &[1.0, 0.0, -1.0]), [8.0, 18.0]);
    }
}

#[test]
fn pooling_reshapes_and_activations() {
    let nodes = vec![
        with(node("AveragePool", &["x"], "p"), &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]),
        node("Reshape", &["p", "shape"], "r"),
        node("Sigmoid", &["r"], "s"),
        node("Mul", &["r", "s"], "silu"),
        node("Mul", &["silu", "silu"], "y"),
    ];
    let graph = model(&[1, 1, 2, 4], nodes, vec![integers("shape", &[0, -1])]).expect("valid");
    // The sigmoid itself is dead once x * sigmoid(x) is one operation.
    let ops: Vec<_> = graph.nodes().map(|(_, node)| node.op.name()).collect();
    assert_eq!(ops, ["input", "average_pool 2x2 /2", "reshape", "silu", "square"]);
    let silu = |x| Activation::Silu.apply(x).powi(2);
    let out = run(&graph, &[1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, -4.0]);
    assert!((out[0] - silu(2.5)).abs() < 1e-4 && (out[1] - silu(-1.0)).abs() < 1e-4);
}

#[test]
fn same_padding_and_global_pooling() {
    let mut conv = with(node("Conv", &["x", "w"], "c"), &[("strides", &[2, 2])]);
    let same = AttributeProto { name: "auto_pad".into(), s: b"SAME_UPPER".to_vec(), ..Default::default() };
    conv.attribute.push(same);
    let nodes = vec![conv, node("GlobalAveragePool", &["c"], "y")];
    let graph = model(&[1, 1, 4, 4], nodes, vec![tensor("w", &[1, 1, 3, 3], &[1.0; 9])]).expect("valid");
    assert_eq!(graph.nodes().nth(1).expect("conv").1.shape, [1, 2, 2]);
    // Windows begin at 0 and 2 and see 3x3, 3x2, 2x3 and 2x2 ones.
    assert_eq!(run(&graph, &[1.0; 16]), [(9.0 + 6.0 + 6.0 + 4.0) / 4.0]);
}

/// `y = f(x)` by every node sequence that says so.
#[test]
fn sums_and_products_with_constants() {
    let c = || tensor("c", &[2, 1, 1], &[2.0, 4.0]);
    let one = || tensor("c", &[], &[2.0]);
    let picture: &[i64] = &[1, 2, 1, 1];
    for (nodes, constant, wanted) in [
        (node("Add", &["x", "c"], "y"), c(), [3.0, 6.0]),
        (node("Add", &["c", "x"], "y"), one(), [3.0, 4.0]),
        (node("Sub", &["x", "c"], "y"), c(), [-1.0, -2.0]),
        (node("Sub", &["c", "x"], "y"), c(), [1.0, 2.0]),
        (node("Mul", &["x", "c"], "y"), c(), [2.0, 8.0]),
        (node("Mul", &["c", "x"], "y"), one(), [2.0, 4.0]),
        (node("Div", &["x", "c"], "y"), c(), [0.5, 0.5]),
    ] {
        let graph = model(picture, vec![nodes], vec![constant]).expect("valid");
        assert_eq!(run(&graph, &[1.0, 2.0]), wanted);
    }
}

/// Behind a sum there is no layer that a batch normalization could join, neither for pictures nor for vectors.
#[test]
fn batch_normalization_as_a_layer_of_its_own() {
    for shape in [&[1, 2, 1, 1][..], &[1, 2]] {
        let statistics = ["scale", "bias", "mean", "variance"];
        let tensors = [[2.0, 3.0], [0.5, 0.0], [1.0, 1.0], [4.0, 1.0]];
        let weights =
            statistics.iter().zip(tensors).map(|(name, values)| tensor(name, &[2], &values)).collect();
        let nodes = vec![
            node("Add", &["x", "x"], "s"),
            with(
                node("BatchNormalization", &["s", "scale", "bias", "mean", "variance"], "y"),
                &[("epsilon", &[0])],
            ),
        ];
        let graph = model(shape, nodes, weights).expect("valid");
        assert_eq!(run(&graph, &[1.0, 2.0]), [1.5, 9.0]);
        assert_eq!(graph[graph.output()].shape, shape[1..].iter().map(|&e| e as usize).collect::<Vec<_>>());
    }
}

#[test]
fn means_over_pictures_in_all_forms() {
    let mean = |axes: &[i64], keep: i64| {
        with(node("ReduceMean", &["x"], "y"), &[("axes", axes), ("keepdims", &[keep])])
    };
    let forms = [
        (node("GlobalAveragePool", &["x"], "y"), vec![2, 1, 1]),
        (mean(&[2, 3], 1), vec![2, 1, 1]),
        (mean(&[-1, -2], 0), vec![2]),
        (with(node("ReduceMean", &["x", "axes"], "y"), &[("keepdims", &[0])]), vec![2]),
    ];
    for (form, shape) in forms {
        let graph = model(&[1, 2, 2, 1], vec![form], vec![integers("axes", &[3, 2])]).expect("valid");
        assert_eq!(graph[graph.output()].shape, shape);
        assert_eq!(run(&graph, &[1.0, 3.0, -1.0, -2.0]), [2.0, -1.5]);
    }
}

#[test]
fn reshapes_and_flatten_to_a_vector() {
    let forms = [
        node("Flatten", &["x"], "y"),
        with(node("Flatten", &["x"], "y"), &[("axis", &[-3])]),
        with(node("Reshape", &["x"], "y"), &[("shape", &[1, -1])]),
        node("Reshape", &["x", "full"], "y"),
    ];
    for form in forms {
        let graph = model(&[1, 2, 1, 2], vec![form], vec![integers("full", &[1, 4])]).expect("valid");
        assert_eq!(graph[graph.output()].shape, [4]);
        assert_eq!(run(&graph, &[1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }
}

/// The shortcut that He et al. call option A, as PyTorch exports it: one convolution with zeros and ones.
#[test]
fn slices_and_pads_are_one_selection() {
    let slice = |x: &str, axis: &str, y: &str| node("Slice", &[x, "from", "to", axis, "step"], y);
    let nodes =
        || vec![slice("x", "rows", "a"), slice("a", "columns", "b"), node("Pad", &["b", "pads"], "y")];
    let weights = || {
        vec![
            integers("from", &[0]),
            integers("to", &[i64::MAX]),
            integers("rows", &[2]),
            integers("columns", &[-1]),
            integers("step", &[2]),
            integers("pads", &[0, 1, 0, 0, 0, 1, 0, 0]),
        ]
    };
    let picture: Vec<f32> = (1..=12).map(|v| v as f32).collect();
    let graph = model(&[1, 1, 3, 4], nodes(), weights()).expect("valid");
    assert_eq!((graph.nodes().len(), graph[graph.output()].shape.as_slice()), (2, &[3, 2, 2][..]));
    assert_eq!(run(&graph, &picture), [0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 9.0, 11.0, 0.0, 0.0, 0.0, 0.0]);

    // A batch normalization takes the selection's weights; what stands behind reads that, not what was selected.
    let mut normalized = nodes();
    normalized.push(node("Mul", &["y", "two"], "m"));
    normalized.push(node("Pad", &["m", "more"], "y"));
    normalized[2].output[0] = "p".into();
    normalized[3].input[0] = "p".into();
    let more =
        [weights(), vec![tensor("two", &[], &[2.0]), integers("more", &[0, 0, 0, 1, 0, 0, 0, 0])]].concat();
    let graph = model(&[1, 1, 3, 4], normalized, more).expect("valid");
    assert_eq!(graph[graph.output()].shape, [3, 2, 3]);
    assert_eq!(run(&graph, &picture)[6..12], [0.0, 2.0, 6.0, 0.0, 18.0, 22.0]);
}

#[test]
fn zeros_around_a_picture_are_the_convolutions_own() {
    let pads = || integers("pads", &[0, 0, 1, 0, 0, 0, 0, 2]);
    let nodes = vec![node("Pad", &["x", "pads"], "p"), node("Conv", &["p", "w"], "y")];
    let graph =
        model(&[1, 1, 1, 1], nodes, vec![pads(), tensor("w", &[1, 1, 2, 1], &[3.0, 5.0])]).expect("valid");
    assert_eq!(graph.nodes().len(), 2);
    assert_eq!(run(&graph, &[2.0]), [10.0, 0.0, 0.0]);
    let graph = model(&[1, 1, 1, 1], vec![node("Pad", &["x", "pads"], "y")], vec![pads()]).expect("valid");
    assert_eq!(run(&graph, &[2.0]), [0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
}

/// The table in the documentation is the one in the code.
#[test]
fn the_documentation_lists_the_operators() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/README.md");
    let text = std::fs::read_to_string(&path).expect("models/README.md");
    let (begin, end) = ("| --- | --- |\n", "\n\n");
    let (before, rest) = text.split_once(begin).expect("a table of operators");
    let (table, after) = rest.split_once(end).expect("text behind the table");
    let wanted = onnx::coverage();
    if std::env::var_os("CERIUM_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{}{end}{after}", wanted.trim_end())).expect("written");
    } else {
        assert_eq!(
            format!("{table}\n"),
            wanted,
            "CERIUM_BLESS=1 writes the table of the code into models/README.md"
        );
    }
}
