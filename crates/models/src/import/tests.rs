//! Small models built field by field.

use super::proto::*;
use super::{ImportError, onnx};
use crate::activation::Activation;
use crate::graph::Graph;
use crate::reference;
use prost::Message;

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: data_type::FLOAT,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: vec![values.len() as i64],
        data_type: data_type::INT64,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: format!("{operator}_{output}"),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn with(mut node: NodeProto, attributes: &[(&str, &[i64])]) -> NodeProto {
    for (name, ints) in attributes {
        let attribute = AttributeProto {
            name: name.to_string(),
            ints: ints.to_vec(),
            i: ints[0],
            f: ints[0] as f32,
            ..Default::default()
        };
        node.attribute.push(attribute);
    }
    node
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&extent: &i64| DimensionProto {
        dim_value: (extent >= 0).then_some(extent),
        dim_param: (extent < 0).then(|| "N".to_string()),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor_type = TensorTypeProto { elem_type: 1, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// A model from input `x` to output `y`.
fn model(input: &[i64], node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Result<Graph, ImportError> {
    let graph =
        GraphProto { node, initializer, input: vec![value("x", input)], output: vec![value("y", &[])] };
    onnx::parse(&ModelProto { ir_version: 8, graph: Some(graph), opset_import: Vec::new() }.encode_to_vec())
}

fn message(result: Result<Graph, ImportError>) -> String {
    result.expect_err("an error is expected").to_string()
}

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

#[test]
fn errors_say_what_and_where() {
    let w = || tensor("w", &[1, 1, 3, 3], &[1.0; 9]);
    let picture: &[i64] = &[1, 1, 4, 4];
    let conv = || vec![node("Conv", &["x", "w"], "y")];

    let m = message(model(picture, vec![node("MaxPool", &["x"], "y")], vec![]));
    assert!(m.contains("MaxPool_y") && m.contains("use AveragePool"), "{m}");
    let m = message(model(picture, vec![node("LSTM", &["x"], "y")], vec![]));
    assert!(
        m.contains("LSTM_y") && m.contains("operator LSTM is not known") && m.contains("Conv, Dropout"),
        "{m}"
    );
    let m = message(model(&[1, 1, -1, 4], conv(), vec![w()]));
    assert!(m.contains("value x") && m.contains("dimension 2 is dynamic (N)"), "{m}");
    let m = message(model(&[7, 1, 4, 4], conv(), vec![w()]));
    assert!(m.contains("batch size 1"), "{m}");
    let m = message(model(picture, conv(), vec![]));
    assert!(m.contains("Conv_y") && m.contains("\"w\""), "{m}");
    let m = message(model(picture, conv(), vec![tensor("w", &[1, 1, 1, 1], &[f32::NAN])]));
    assert!(m.contains("tensor w") && m.contains("element 0 is NaN"), "{m}");
    let m = message(model(picture, conv(), vec![tensor("w", &[1, 1, 3, 4], &[1.0; 9])]));
    assert!(m.contains("tensor w") && m.contains("needs 48") && m.contains("36 are there"), "{m}");
    let m = message(model(picture, conv(), vec![tensor("w", &[i64::MAX, i64::MAX], &[1.0; 9])]));
    assert!(m.contains("tensor w") && m.contains("too many"), "{m}");
    let m = message(model(picture, conv(), vec![tensor("w", &[1, 1, 5, 5], &[1.0; 25])]));
    assert!(m.contains("Conv_y") && m.contains("5x5 kernel does not fit into a 4x4"), "{m}");
    let m = message(model(picture, conv(), vec![tensor("w", &[1, 2, 1, 1], &[1.0; 2])]));
    assert!(m.contains("Conv_y") && m.contains("[2, height, width]") && m.contains("[1, 4, 4]"), "{m}");
    let m = message(model(picture, vec![node("Conv", &["x", "x"], "y")], vec![]));
    assert!(m.contains("weight must be a constant"), "{m}");
    let m = message(model(picture, vec![node("Relu", &["x"], "z")], vec![]));
    assert!(m.contains("(output)") && m.contains("\"y\""), "{m}");
    let big = with(node("Conv", &["x", "w"], "y"), &[("pads", &[1 << 30, 1 << 30, 0, 0])]);
    let m = message(model(picture, vec![big], vec![w()]));
    assert!(m.contains("Conv_y") && m.contains("elements"), "{m}");
    let m = message(model(picture, vec![with(conv().remove(0), &[("strides", &[0, 1])])], vec![w()]));
    assert!(m.contains("at least 1"), "{m}");
    assert!(onnx::parse(b"").is_err() && onnx::parse(b"\x89PNG").is_err());
}

#[test]
fn a_small_file_cannot_ask_for_a_large_graph() {
    // One matrix read by a thousand layers.
    let weights = tensor("w", &[64, 64], &[0.0; 4096]);
    let mut nodes: Vec<_> = (0..1000)
        .map(|i| {
            node(
                "MatMul",
                &[if i == 0 { "x".into() } else { format!("v{i}") }.as_str(), "w"],
                &format!("v{}", i + 1),
            )
        })
        .collect();
    nodes.push(node("Relu", &["v1000"], "y"));
    let m = message(model(&[1, 64], nodes, vec![weights]));
    assert!(m.contains("more than 16 times over"), "{m}");
}
