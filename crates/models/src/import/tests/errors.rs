//! What cannot be imported, and what is said about it: where, what, and what to do.

use super::super::{Model, onnx};
use super::*;

/// A picture of 4 x 4.
const PICTURE: &[i64] = &[1, 1, 4, 4];

fn message(result: Result<Graph, ImportError>) -> String {
    result.expect_err("an error is expected").to_string()
}

/// Checks that a model is refused in words that hold all of `parts`.
#[track_caller]
fn refused(result: Result<Graph, ImportError>, parts: &[&str]) {
    let message = message(result);
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

fn kernel() -> TensorProto {
    tensor("w", &[1, 1, 3, 3], &[1.0; 9])
}

fn conv() -> Vec<NodeProto> {
    vec![node("Conv", &["x", "w"], "y")]
}

#[test]
fn unknown_operators() {
    let unknown = |node| model(PICTURE, vec![node], vec![]);
    let known = ["Add, AveragePool,", "Conv, Div, Dropout", "or leave it out"];
    refused(
        unknown(node("LSTM", &["x"], "y")),
        &[&["node LSTM_y: operator LSTM is not known"][..], &known].concat(),
    );
    let foreign = NodeProto { domain: "com.example".into(), ..node("Relu", &["x"], "y") };
    refused(unknown(foreign), &["Relu_y", "operator com.example::Relu is not known"]);
    // Lines that a terminal shows whole.
    assert!(message(unknown(node("LSTM", &["x"], "y"))).lines().skip(1).all(|line| line.len() <= 110));
}

#[test]
fn operators_that_will_not_come() {
    let unknown = |operator| model(PICTURE, vec![node(operator, &["x"], "y")], vec![]);
    refused(
        unknown("MaxPool"),
        &["node MaxPool_y: MaxPool: ", "use AveragePool or a Conv with stride 2", "train again"],
    );
    refused(unknown("Softmax"), &["node Softmax_y", "leave it out", "after decryption"]);
    refused(unknown("Clip"), &["node Clip_y", "use Relu"]);
    refused(unknown("Shape"), &["node Shape_y", "export the model with fixed shapes"]);
}

#[test]
fn dynamic_shapes() {
    let sized = |input: &[i64]| model(input, conv(), vec![kernel()]);
    refused(
        sized(&[1, 1, -1, 4]),
        &["input x: dimension 2 is dynamic (N)", "export the model with fixed shapes"],
    );
    refused(sized(&[7, 1, 4, 4]), &["input x", "batch size 1"]);
    refused(sized(&[]), &["input x has no shape", "fixed shapes"]);
    // A symbolic batch is one picture.
    sized(&[-1, 1, 4, 4]).expect("valid");
}

#[test]
fn missing_weights() {
    refused(
        model(PICTURE, conv(), vec![]),
        &["node Conv_y reads \"w\"", "without its weights", "export it again"],
    );
    refused(model(PICTURE, vec![node("Relu", &["x"], "z")], vec![]), &["(output)", "\"y\""]);
    refused(
        model(PICTURE, vec![node("Conv", &["x", "x"], "y")], vec![]),
        &["node Conv_y: weight must be a constant", "\"x\" is computed", "fold constants"],
    );
}

/// A tensor whose data are `length` bytes of a file.
fn external(location: &str, length: &str) -> TensorProto {
    let entry = |(key, value): (&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
    TensorProto {
        raw_data: Vec::new(),
        data_location: 1,
        external_data: [("location", location), ("offset", "4"), ("length", length)].map(entry).into(),
        ..kernel()
    }
}

#[test]
fn weights_in_other_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("net.onnx");
    let read = |location: &str, length: &str| {
        std::fs::write(&path, file(PICTURE, conv(), vec![external(location, length)])).expect("written");
        Model::read(&path, None).map(|model| model.graph)
    };
    refused(
        read("net.onnx.data", "36"),
        &["node Conv_y", "no file with the data of tensor w", "net.onnx.data", "put it beside the model"],
    );
    let bytes: Vec<u8> = [0.0f32].iter().chain(&[1.0; 9]).flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.path().join("net.onnx.data"), &bytes).expect("written");
    // With the file it is the network whose weights are in it, and needs the file no more.
    let whole = model(PICTURE, conv(), vec![kernel()]).expect("valid");
    assert_eq!(read("net.onnx.data", "36").expect("valid"), whole);
    let kept = Model::read(&path, None).expect("valid").bytes;
    assert_eq!(onnx::parse(&kept).expect("valid"), whole);

    refused(
        read("net.onnx.data", "37"),
        &["Conv_y", "tensor w", "that file has 40 bytes", "export it again"],
    );
    refused(read("net.onnx.data", "35"), &["Conv_y", "tensor w", "needs 36", "35 are there"]);
    refused(read("net.onnx.data", "-1"), &["Conv_y", "tensor w", "length of its data is no number"]);
    for outside in ["../net.onnx.data", "/net.onnx.data", ""] {
        refused(read(outside, "36"), &["Conv_y", "tensor w", "no file in the model's folder"]);
    }
    refused(
        onnx::parse(&std::fs::read(&path).expect("written")),
        &["node Conv_y: tensor w", "in another file", "export the model as one file"],
    );
}

#[test]
fn weights_that_are_no_numbers() {
    for value in [f32::NAN, f32::INFINITY] {
        let weights = tensor("w", &[1, 1, 1, 2], &[1.0, value]);
        let says = format!("tensor w: element 1 is {value}");
        refused(model(PICTURE, conv(), vec![weights]), &["node Conv_y", &says, "must be finite"]);
    }
    // Folding can make them.
    let nodes = vec![node("Conv", &["x", "w"], "c"), node("Mul", &["c", "huge"], "y")];
    let weights = vec![tensor("w", &[1, 1, 1, 1], &[1e30]), tensor("huge", &[], &[1e30])];
    refused(model(PICTURE, nodes, weights), &["tensor w: element 0 is inf"]);
}

#[test]
fn tensors_that_contradict_themselves() {
    let convolved = |tensor| model(PICTURE, conv(), vec![tensor]);
    refused(
        convolved(tensor("w", &[1, 1, 3, 4], &[1.0; 9])),
        &["Conv_y", "tensor w", "needs 48", "36 are there"],
    );
    refused(convolved(tensor("w", &[i64::MAX, i64::MAX], &[1.0; 9])), &["tensor w", "too many"]);
    refused(convolved(tensor("w", &[0, 1], &[])), &["tensor w", "extent below 1"]);
    let text = TensorProto { data_type: 8, ..kernel() };
    refused(convolved(text), &["Conv_y", "tensor w", "element type 8 is not known", "float16"]);
    assert!(onnx::parse(b"").is_err() && onnx::parse(b"\x89PNG").is_err());
}

#[test]
fn convolutions_that_do_not_fit() {
    let convolved = |weight| model(PICTURE, conv(), vec![weight]);
    refused(
        convolved(tensor("w", &[1, 1, 5, 5], &[1.0; 25])),
        &["Conv_y", "5x5 kernel does not fit into a 4x4"],
    );
    refused(convolved(tensor("w", &[1, 2, 1, 1], &[1.0; 2])), &["Conv_y", "[2, height, width]", "[1, 4, 4]"]);
    refused(convolved(tensor("w", &[1, 1, 3], &[1.0; 3])), &["Conv_y", "only two-dimensional"]);
    let big = with(node("Conv", &["x", "w"], "y"), &[("pads", &[1 << 30, 1 << 30, 0, 0])]);
    refused(model(PICTURE, vec![big], vec![kernel()]), &["Conv_y", "elements"]);
    let still = with(conv().remove(0), &[("strides", &[0, 1])]);
    refused(model(PICTURE, vec![still], vec![kernel()]), &["Conv_y", "at least 1"]);
}

#[test]
fn sums_and_products_that_are_not_known() {
    let nodes =
        |operator: &str| vec![node("GlobalAveragePool", &["x"], "g"), node(operator, &["x", "g"], "y")];
    refused(
        model(PICTURE, nodes("Add"), vec![]),
        &["node Add_y", "shapes [1, 4, 4] and [1, 1, 1]", "summed in equal shapes only"],
    );
    refused(model(PICTURE, nodes("Mul"), vec![]), &["node Mul_y", "only x * x and x * Sigmoid(x)"]);
    refused(model(PICTURE, nodes("Sub"), vec![]), &["node Sub_y", "only differences with constants"]);
    refused(model(PICTURE, nodes("Div"), vec![]), &["node Div_y", "only division by a constant"]);
    let columns = tensor("c", &[4], &[1.0, 2.0, 3.0, 4.0]);
    refused(
        model(PICTURE, vec![node("Add", &["x", "c"], "y")], vec![columns]),
        &["node Add_y", "tensor c of shape [4]", "each of 1 channels"],
    );
    let zero = tensor("c", &[], &[0.0]);
    refused(model(PICTURE, vec![node("Div", &["x", "c"], "y")], vec![zero]), &["Div_y", "element 0 is inf"]);
}

#[test]
fn batch_normalizations_that_do_not_fit() {
    let inputs = ["x", "w", "w", "w", "v"];
    let normalized = |mode: i64, variance: f32, channels: i64| {
        let nodes = vec![with(node("BatchNormalization", &inputs, "y"), &[("training_mode", &[mode])])];
        let weights =
            vec![tensor("w", &[channels], &vec![1.0; channels as usize]), tensor("v", &[1], &[variance])];
        model(PICTURE, nodes, weights)
    };
    refused(
        normalized(1, 1.0, 1),
        &["BatchNormalization_y", "training mode", "export the model for inference"],
    );
    refused(normalized(0, -1.0, 1), &["BatchNormalization_y", "variance of channel 0 is not positive"]);
    refused(normalized(0, 1.0, 3), &["BatchNormalization_y", "tensor w of shape [3]", "each of 1 channels"]);
}

#[test]
fn dense_layers_that_are_not_known() {
    let square = || tensor("w", &[4, 4], &[1.0; 16]);
    let gemm = |attributes: &[(&str, &[i64])]| vec![with(node("Gemm", &["x", "w"], "y"), attributes)];
    refused(
        model(&[1, 4], gemm(&[("transA", &[1])]), vec![square()]),
        &["Gemm_y", "transA", "transpose the weight"],
    );
    refused(model(PICTURE, gemm(&[]), vec![square()]), &["Gemm_y", "[1, 4, 4]", "flatten the picture"]);
    let left = vec![node("MatMul", &["w", "x"], "y")];
    refused(model(&[1, 4], left, vec![square()]), &["MatMul_y", "operand 0 is a constant"]);
    refused(model(&[1, 3], gemm(&[]), vec![square()]), &["Gemm_y", "4 features", "[3]"]);
}

#[test]
fn moves_that_are_not_known() {
    let padded = |mode: Option<&str>, pads: &[i64], value: f32| {
        let mut pad = node("Pad", &["x", "pads", "value"], "y");
        pad.attribute.extend(mode.map(|mode| AttributeProto {
            name: "mode".into(),
            s: mode.as_bytes().to_vec(),
            ..Default::default()
        }));
        model(PICTURE, vec![pad], vec![integers("pads", pads), tensor("value", &[], &[value])])
    };
    refused(padded(Some("reflect"), &[0; 8], 0.0), &["Pad_y", "mode \"reflect\"", "pad with zeros"]);
    refused(padded(None, &[0; 8], 1.0), &["Pad_y", "pads with 1", "pad with zeros"]);
    refused(padded(None, &[1, 0, 0, 0, 0, 0, 0, 0], 0.0), &["Pad_y", "none of them for the batch"]);
    refused(padded(None, &[0, 0, -1, 0, 0, 0, 0, 0], 0.0), &["Pad_y", "[0, 0, -1", "sizes in [0, 2^31)"]);
    refused(padded(None, &[0, 1 << 30, 0, 0, 0, 0, 0, 0], 0.0), &["Pad_y", "too many"]);
    let sliced = |from: i64, to: i64, axis: i64, step: i64| {
        let weights = [("from", from), ("to", to), ("axis", axis), ("step", step)];
        let weights = weights.map(|(name, value)| integers(name, &[value]));
        model(PICTURE, vec![node("Slice", &["x", "from", "to", "axis", "step"], "y")], weights.into())
    };
    for (from, to, axis, step) in [(1, 4, 2, 1), (0, 3, 2, 1), (0, 4, 1, 2), (0, 4, 2, -1), (0, 4, 9, 1)] {
        refused(sliced(from, to, axis, step), &["Slice_y", "every n-th row and column from the first on"]);
    }
    let reshaped =
        |shape: &[i64]| model(PICTURE, vec![node("Reshape", &["x", "s"], "y")], vec![integers("s", shape)]);
    refused(reshaped(&[2, 8]), &["Reshape_y", "[1, 1, 4, 4] to [2, 8]", "batch of 1 stays in front"]);
    refused(reshaped(&[1, 4, 4]), &["Reshape_y", "cannot reshape"]);
    refused(reshaped(&[1, 15]), &["Reshape_y", "[1, 4, 4]", "[15]"]);
    let mean = with(node("ReduceMean", &["x"], "y"), &[("axes", &[1])]);
    refused(model(PICTURE, vec![mean], vec![]), &["ReduceMean_y", "axes [1]", "height and width"]);
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
