//! Small networks in words.

use crate::graph::Graph;
use crate::import::{ImportError, Model, safetensors};
use crate::reference;

/// Name, shape and values of a tensor.
type Named<'a> = (&'a str, &'a [usize], &'a [f32]);

/// A safetensors file of single precision tensors.
fn weights(tensors: &[Named]) -> Vec<u8> {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        let view = ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, shape.to_vec(), data);
        (*name, view.expect("the data fill the shape"))
    });
    ::safetensors::serialize(views, None).expect("memory")
}

fn describe(layers: &str, more: &str) -> String {
    format!(
        r#"{{ "weights": "w.safetensors", "input": {{ "shape": [1, 2, 2] }}, "layers": [{layers}] {more} }}"#
    )
}

fn model(layers: &str, more: &str, tensors: &[Named]) -> Result<Model, ImportError> {
    Model::described(describe(layers, more).as_bytes(), &weights(tensors))
}

fn run(graph: &Graph, input: &[f32]) -> Vec<f64> {
    let round = |v: f64| (v * 1e5).round() / 1e5;
    reference::run(graph, input).expect("a valid input").into_iter().map(round).collect()
}

const X: [f32; 4] = [1.0, -2.0, 3.0, 4.0];

/// Every kind of layer, each beside what it says.
#[test]
fn layers_mean_what_they_say() {
    let cases: &[(&str, &[Named], &[f64])] = &[
        (r#"{"conv": {"name": "c"}}"#, &[("c.weight", &[1, 1, 1, 1], &[2.0])], &[2.0, -4.0, 6.0, 8.0]),
        (
            r#"{"conv": {"name": "c", "stride": [1, 2], "padding": [0, 1], "dilation": 1, "groups": 1}}"#,
            &[("c.weight", &[1, 1, 2, 1], &[1.0, 1.0]), ("c.bias", &[1], &[0.5])],
            &[0.5, 2.5],
        ),
        (
            r#""flatten", {"dense": {"name": "d"}}"#,
            &[("d.weight", &[1, 4], &[1.0, 1.0, 1.0, 0.0]), ("d.bias", &[1], &[1.0])],
            &[3.0],
        ),
        (r#""relu""#, &[], &[1.0, 0.0, 3.0, 4.0]),
        (r#"{"leaky_relu": {"slope": 0.5}}"#, &[], &[1.0, -1.0, 3.0, 4.0]),
        (r#""square""#, &[], &[1.0, 4.0, 9.0, 16.0]),
        (r#"{"average_pool": {"kernel": 2}}"#, &[], &[1.5]),
        (r#"{"average_pool": {"kernel": [1, 2], "stride": 1}}"#, &[], &[-0.5, 3.5]),
        (
            r#"{"average_pool": {"kernel": 2, "stride": 2, "padding": 1, "count_padding": false}}"#,
            &[],
            &[1.0, -2.0, 3.0, 4.0],
        ),
        (r#""global_average_pool""#, &[], &[1.5]),
        (r#"{"subsample": {"stride": 2, "zero_channels": [1, 2]}}"#, &[], &[0.0, 1.0, 0.0, 0.0]),
        (r#"{"residual": {"main": ["relu"]}}"#, &[], &[2.0, -2.0, 6.0, 8.0]),
        (r#"{"residual": {"main": ["relu"], "shortcut": ["square"]}}"#, &[], &[2.0, 4.0, 12.0, 20.0]),
    ];
    for (layers, tensors, wanted) in cases {
        let model = model(layers, "", tensors).unwrap_or_else(|error| panic!("{layers}: {error}"));
        assert_eq!(run(&model.graph, &X), *wanted, "{layers}");
    }
    for name in ["gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softplus"] {
        let model = model(&format!("\"{name}\""), "", &[]).expect("valid");
        assert_eq!(model.graph[model.graph.output()].op.name(), name);
    }
}

/// A batch normalization joins the layer before it only if nobody else reads that.
#[test]
fn batch_normalizations_fold_where_they_may() {
    let norm = |name: &'static str| {
        [("weight", 2.0), ("bias", 1.0), ("running_mean", 3.0), ("running_var", 3.0)]
            .map(|(part, value)| (format!("{name}.{part}"), value))
    };
    let check = |layers: &str, nodes: usize, wanted: [f64; 4]| {
        let norm = norm("n");
        let mut tensors: Vec<Named> = vec![("c.weight", &[1, 1, 1, 1], &[2.0])];
        tensors
            .extend(norm.iter().map(|(name, value)| (name.as_str(), &[1][..], std::slice::from_ref(value))));
        let counter: Named = ("n.num_batches_tracked", &[], &[7.0]);
        tensors.push(counter);
        let model = model(layers, "", &tensors).expect("valid");
        assert_eq!(model.graph.nodes().len(), nodes, "{layers}");
        assert_eq!(run(&model.graph, &X), wanted, "{layers}");
    };
    // The factor is 2 / sqrt(3 + 1) = 1.
    let (conv, norm) = (r#"{"conv": {"name": "c"}}"#, r#"{"batch_norm": {"name": "n", "epsilon": 1}}"#);
    check(&format!("{conv}, {norm}"), 2, [0.0, -6.0, 4.0, 6.0]);
    check(&format!(r#"{conv}, {{"residual": {{"main": [{norm}]}}}}"#), 4, [2.0, -10.0, 10.0, 14.0]);
    check(
        &format!(r#"{conv}, {{"residual": {{"main": [], "shortcut": [{norm}]}}}}"#),
        4,
        [2.0, -10.0, 10.0, 14.0],
    );
    check(&format!(r#"{norm}, {conv}"#), 3, [-2.0, -8.0, 2.0, 4.0]);
}

#[test]
fn blocks_are_used_at_their_prefixes() {
    let blocks = r#", "blocks": { "b": [ { "conv": { "name": "c" } }, "relu", "relu" ] }"#;
    let layers = r#"{"block": {"name": "b", "at": ["one", "two"]}}"#;
    let tensors: &[Named] =
        &[("one.c.weight", &[1, 1, 1, 1], &[2.0]), ("two.c.weight", &[1, 1, 1, 1], &[3.0])];
    let graph = model(layers, blocks, tensors).expect("valid").graph;
    assert_eq!(run(&graph, &X), [6.0, 0.0, 18.0, 24.0]);
    let names: Vec<&str> = graph.nodes().map(|(_, node)| node.name.as_str()).collect();
    assert_eq!(names, ["input", "one.c", "one.relu", "one.relu_2", "two.c", "two.relu", "two.relu_2"]);
}

/// One file holds it all, and is the same for the same network.
#[test]
fn a_description_goes_into_the_file_of_weights() {
    let tensors: &[Named] = &[("c.weight", &[1, 1, 1, 1], &[2.0])];
    let text = r#"{ "weights": "w", "input": { "shape": [1, 2, 2], "mean": [0.5], "deviation": [0.25] },
        "layers": [ { "conv": { "name": "c" } }, "relu" ] }"#;
    let described = Model::described(text.as_bytes(), &weights(tensors)).expect("valid");
    let parsed = Model::parse(described.bytes.clone()).expect("valid");
    assert_eq!((&parsed.graph, &parsed.normalization), (&described.graph, &described.normalization));
    assert_eq!(parsed.normalization.expect("described").mean, [0.5]);
    assert_eq!(parsed.bytes, described.bytes);
    let again = Model::described(text.as_bytes(), &weights(tensors)).expect("valid");
    assert_eq!(again.bytes, described.bytes);
    // It can be read as weights of another description too.
    assert_eq!(safetensors::parse(&described.bytes).expect("valid").len(), 1);
}

#[test]
fn errors_say_what_and_where() {
    let c: &[Named] = &[("c.weight", &[1, 1, 1, 1], &[2.0])];
    let conv = r#"{"conv": {"name": "c"}}"#;
    let check = |layers: &str, more: &str, tensors, parts: &[&str]| {
        let message = model(layers, more, tensors).expect_err("an error is expected").to_string();
        for part in parts {
            assert!(message.contains(part), "{layers}: no {part:?} in: {message}");
        }
    };
    check("\"max_pool\"", "", &[], &["unknown variant `max_pool`", "`average_pool`", "line 1"]);
    check(r#"{"conv": {"name": "c", "pading": 1}}"#, "", c, &["unknown field `pading`", "`padding`"]);
    check(r#"{"conv": {"name": "c", "stride": "2"}}"#, "", c, &["a number, or two: [down, right]"]);
    check(r#"{"conv": {"name": "c", "stride": 0}}"#, "", c, &["c: strides", "at least 1"]);
    check("\"relu\"", r#", "layer": []"#, &[], &["unknown field `layer`"]);
    check(r#"{"conv": {"name": "d"}}"#, "", c, &["layer d", "no tensor d.weight", "left are c.weight"]);
    check(&format!("{conv}, {conv}"), "", c, &["layer c", "another layer has read tensor c.weight"]);
    check("\"relu\"", "", c, &["no layer reads 1 of the tensors: c.weight", "describe the layers"]);
    check("", "", &[], &["has no layers"]);
    check(r#"{"dense": {"name": "c"}}"#, "", c, &["c: a matrix was expected", "[1, 1, 1, 1]"]);
    check(
        r#""flatten", "global_average_pool""#,
        "",
        &[],
        &["global_average_pool", "takes [channels, height, width], not [4]"],
    );
    check(r#"{"subsample": {"stride": 1, "zero_channels": [4194304, 0]}}"#, "", &[], &["too many"]);
    check(r#"{"block": {"name": "b", "at": ["p"]}}"#, "", &[], &["no block \"b\"", "the blocks are []"]);
    let nested = r#", "blocks": { "b": [ { "block": { "name": "b", "at": ["q"] } } ] }"#;
    check(
        r#"{"block": {"name": "b", "at": ["p"]}}"#,
        nested,
        &[],
        &["block p holds a block", "write its layers out"],
    );
    let many = format!(r#"{{"block": {{"name": "b", "at": [{}"p"]}}}}"#, "\"p\",".repeat(5000));
    check(&many, r#", "blocks": { "b": ["relu"] }"#, &[], &["more than 4096 layers"]);
    check(
        r#"{"batch_norm": {"name": "c"}}"#,
        "",
        c,
        &["layer c", "c.weight has shape [1, 1, 1, 1]", "1 channels"],
    );
    let shapes = r#"{"residual": {"main": ["global_average_pool"]}}"#;
    check(shapes, "", &[], &["add", "[1, 2, 2]"]);

    let text = |input: &str| format!(r#"{{ "weights": "w", "input": {input}, "layers": ["relu"] }}"#);
    let input = |input: &str, part: &str| {
        let message =
            Model::described(text(input).as_bytes(), &weights(&[])).expect_err("an error").to_string();
        assert!(message.contains(part), "{message}");
    };
    input(r#"{ "shape": [2, 2] }"#, "[channels, height, width]");
    input(r#"{ "shape": [1, 2, 2], "mean": [0.5] }"#, "`mean` or `deviation`, but not both");
    input(r#"{ "shape": [1, 2, 2], "mean": [0.5, 1], "deviation": [1, 1] }"#, "but 2 means");
    input(r#"{ "shape": [1, 2, 2], "mean": [0.5], "deviation": [0] }"#, "deviation is 0");

    let message = Model::parse(b" {}".to_vec()).expect_err("it needs weights").to_string();
    assert!(message.contains("together with its weights"), "{message}");
    let message = Model::parse(weights(c)).expect_err("weights alone").to_string();
    assert!(message.contains("describe the network"), "{message}");
}
