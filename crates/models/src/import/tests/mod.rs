//! Small models built field by field.

mod errors;
mod forms;

use super::proto::*;
use super::{ImportError, onnx};
use crate::graph::Graph;
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
    onnx::parse(&file(input, node, initializer))
}

/// The bytes of such a model.
fn file(input: &[i64], node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let graph =
        GraphProto { node, initializer, input: vec![value("x", input)], output: vec![value("y", &[])] };
    ModelProto { ir_version: 8, graph: Some(graph), opset_import: Vec::new() }.encode_to_vec()
}
