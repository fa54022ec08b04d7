//! ONNX files to graphs.
//!
//! Constants are resolved, batch normalisations and biases fold into the layer before them, pass-through nodes
//! disappear, and operations that the output does not need are dropped:
//!
//! ```text
//! Conv -> BatchNormalization -> Relu -> Flatten -> MatMul -> Add      (file)
//! conv                       -> relu -> reshape -> dense              (graph)
//! ```

use super::constant::{self, Constant};
use super::operators;
use super::proto::{DimensionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::selection::{self, Selection};
use super::{ImportError, external, operators::Operator};
use crate::graph::{Graph, NodeId, Op};
use crate::tensor::Tensor;
use prost::Message;
use std::collections::HashMap;
use std::path::Path;

/// Reads a file and those beside it in which it keeps weights; see [`parse`].
pub fn read(path: &Path) -> Result<Graph, ImportError> {
    let bytes =
        std::fs::read(path).map_err(|source| ImportError::Read { path: path.to_path_buf(), source })?;
    parse(&with_external_data(bytes, path.parent().unwrap_or(Path::new("")))?)
}

/// The same model in one file, if it keeps weights in files of `folder`; the bytes as they are if it does not.
///
/// # Errors
/// Damaged bytes, and files of weights that are missing or too short.
pub fn with_external_data(bytes: Vec<u8>, folder: &Path) -> Result<Vec<u8>, ImportError> {
    let mut model = decode(&bytes)?;
    Ok(if external::take_in(&mut model, folder)? { model.encode_to_vec() } else { bytes })
}

/// Builds the graph of an ONNX model with one input `[1, channels, height, width]` or `[1, features]` and one
/// output. The batch dimension may be symbolic; every other extent must be fixed.
///
/// # Errors
/// Damaged bytes, unknown operators, dynamic shapes, missing or non-finite weights, shapes that disagree: each
/// names the node or tensor at fault.
pub fn parse(bytes: &[u8]) -> Result<Graph, ImportError> {
    let Some(graph) = decode(bytes)?.graph else {
        return Err(ImportError::Damaged { format: "ONNX", problem: "it holds no graph".into() });
    };
    Importer::new(&graph, bytes.len())?.run(&graph)
}

fn decode(bytes: &[u8]) -> Result<ModelProto, ImportError> {
    ModelProto::decode(bytes)
        .map_err(|error| ImportError::Damaged { format: "ONNX", problem: error.to_string() })
}

/// Every operator that can be imported with its supported forms, and every one that is refused with what to use instead, as
/// the rows of a table in Markdown.
pub fn coverage() -> String {
    let known = operators::TABLE.iter().map(|row| format!("| {} | {} |\n", row.name, row.forms));
    let refused =
        operators::REFUSED.iter().map(|(name, instead)| format!("| {name} | not imported: {instead} |\n"));
    known.chain(refused).collect()
}

/// What a name in the file stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A value that the network computes.
    Node(NodeId),
    /// A constant.
    Constant(Constant),
}

/// The graph in the making and what its names stand for.
pub(super) struct Importer<'a> {
    pub(super) graph: Graph,
    values: HashMap<&'a str, Value>,
    /// Initializers that no node has read yet: read on first use, so that unused ones cost nothing.
    initializers: HashMap<&'a str, &'a TensorProto>,
    /// The name behind the output of a node that passes its operand through.
    aliases: HashMap<&'a str, &'a str>,
    /// How many operands and outputs read each value, aliases resolved.
    uses: HashMap<&'a str, usize>,
    /// What [`Selection`]s made, each with what it was made from, so that operators behind it can join it.
    pub(super) selections: HashMap<NodeId, (NodeId, Selection)>,
    /// Weights of selections that may still be made.
    pub(super) selecting: usize,
    /// Weights that may still be copied: a small file must not ask for a large graph by reading one tensor often.
    budget: usize,
}

impl<'a> Importer<'a> {
    fn new(file: &'a GraphProto, bytes: usize) -> Result<Self, ImportError> {
        let initializers: HashMap<_, _> =
            file.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let inputs: Vec<_> =
            file.input.iter().filter(|input| !initializers.contains_key(input.name.as_str())).collect();
        let [input] = inputs[..] else {
            return Err(ImportError::Interface(format!(
                "the model has {} inputs; models with one input are known",
                inputs.len()
            )));
        };
        let mut aliases = HashMap::new();
        let mut uses = HashMap::new();
        for node in &file.node {
            let root = |name: &'a String| *aliases.get(name.as_str()).unwrap_or(&name.as_str());
            match (operators::passes_through(node), &node.input[..], &node.output[..]) {
                (true, [input, ..], [output, ..]) => {
                    aliases.insert(output.as_str(), root(input));
                }
                _ => node.input.iter().map(root).for_each(|name| *uses.entry(name).or_insert(0) += 1),
            }
        }
        for output in &file.output {
            let name = output.name.as_str();
            *uses.entry(*aliases.get(name).unwrap_or(&name)).or_insert(0) += 1;
        }
        let graph = Graph::new(input.name.clone(), input_shape(input)?)?;
        let values = HashMap::from([(input.name.as_str(), Value::Node(graph.output()))]);
        Ok(Self {
            graph,
            values,
            initializers,
            aliases,
            uses,
            selections: HashMap::new(),
            selecting: selection::MAX_WEIGHTS,
            budget: bytes.saturating_mul(16),
        })
    }

    fn run(mut self, file: &'a GraphProto) -> Result<Graph, ImportError> {
        let [output] = &file.output[..] else {
            return Err(ImportError::Interface(format!(
                "the model has {} outputs; models with one output are known",
                file.output.len()
            )));
        };
        for node in &file.node {
            let call = Call { node, operator: operators::find(node)? };
            let value = (call.operator)(&mut self, &call)?;
            // Further outputs exist only where nothing reads them (masks, statistics of training).
            if let Some(name) = node.output.first()
                && self.values.insert(name, value).is_some()
            {
                let problem = format!("two nodes make the value {name}");
                return Err(ImportError::Damaged { format: "ONNX", problem });
            }
        }
        let id = match self.lookup(&output.name, || "(output)".into())? {
            Some(Value::Node(id)) => id,
            Some(Value::Constant(_)) => {
                return Err(ImportError::Interface(format!("output {} is a constant", output.name)));
            }
            None => {
                return Err(ImportError::MissingValue {
                    node: "(output)".into(),
                    value: output.name.clone(),
                });
            }
        };
        self.graph.set_output(id);
        self.graph.live().ok_or_else(|| {
            ImportError::Interface(format!("output {} does not depend on the input", output.name))
        })
    }

    /// What a name stands for at this point of the file; `reader` is for the error.
    fn lookup(&mut self, name: &str, reader: impl FnOnce() -> String) -> Result<Option<Value>, ImportError> {
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.clone()));
        }
        let Some((name, tensor)) = self.initializers.remove_entry(name) else { return Ok(None) };
        let value = constant::read(tensor)
            .map_err(|source| ImportError::Operand { node: reader(), source: Box::new(source) })?;
        let value = Value::Constant(value);
        self.values.insert(name, value.clone());
        Ok(Some(value))
    }

    /// Operand `index` of a node; `None` where it is left out.
    pub(super) fn optional(&mut self, call: &Call, index: usize) -> Result<Option<Value>, ImportError> {
        let Some(name) = call.node.input.get(index).filter(|name| !name.is_empty()) else { return Ok(None) };
        match self.lookup(name, || call.name())? {
            Some(value) => Ok(Some(value)),
            None => Err(ImportError::MissingValue { node: call.name(), value: name.clone() }),
        }
    }

    /// Operand `index`, which must be there.
    pub(super) fn value(&mut self, call: &Call, index: usize) -> Result<Value, ImportError> {
        self.optional(call, index)?
            .ok_or_else(|| call.unsupported(format!("operand {index} is missing; the file may be damaged")))
    }

    /// Operand `index`, which the network must compute.
    pub(super) fn node(&mut self, call: &Call, index: usize) -> Result<NodeId, ImportError> {
        match self.value(call, index)? {
            Value::Node(id) => Ok(id),
            Value::Constant(_) => Err(call.unsupported(format!(
                "operand {index} is a constant, where a value is expected that the network computes; simplify the model before \
                 export"
            ))),
        }
    }

    /// Takes `elements` weights from the budget.
    pub(super) fn charge(&mut self, elements: usize) -> Result<(), ImportError> {
        self.budget = self.budget.checked_sub(elements).ok_or_else(|| {
            ImportError::Interface("the network reads its weights more than 16 times over".into())
        })?;
        Ok(())
    }

    /// Operand `index` as constant numbers, if it is given.
    pub(super) fn weights(
        &mut self,
        call: &Call,
        index: usize,
        role: &'static str,
    ) -> Result<Option<Tensor>, ImportError> {
        match self.optional(call, index)? {
            None => Ok(None),
            Some(Value::Constant(Constant::Real(tensor))) => {
                self.charge(tensor.values.len())?;
                Ok(Some(tensor))
            }
            Some(Value::Constant(Constant::Integer(_))) => {
                Err(call.unsupported(format!("its {role} consists of integers")))
            }
            Some(Value::Node(_)) => Err(ImportError::NotConstant {
                node: call.name(),
                role,
                value: call.node.input[index].clone(),
            }),
        }
    }

    /// Operand `index` as constant numbers, which must be there.
    pub(super) fn required_weights(
        &mut self,
        call: &Call,
        index: usize,
        role: &'static str,
    ) -> Result<Tensor, ImportError> {
        self.weights(call, index, role)?
            .ok_or_else(|| call.unsupported(format!("its {role} is missing; the file may be damaged")))
    }

    /// Operand `index` as constant integers, which must be there.
    pub(super) fn integers(
        &mut self,
        call: &Call,
        index: usize,
        role: &'static str,
    ) -> Result<Vec<i64>, ImportError> {
        match self.value(call, index)? {
            Value::Constant(Constant::Integer(values)) => Ok(values),
            Value::Constant(Constant::Real(_)) => {
                Err(call.unsupported(format!("its {role} does not consist of integers")))
            }
            Value::Node(_) => Err(ImportError::NotConstant {
                node: call.name(),
                role,
                value: call.node.input[index].clone(),
            }),
        }
    }

    /// The layer that makes operand `index`, if nothing else reads its value: then it may absorb what follows.
    pub(super) fn absorbing(&mut self, call: &Call, index: usize, id: NodeId) -> Option<&mut Op> {
        let name = call.node.input[index].as_str();
        if self.uses.get(self.aliases.get(name).unwrap_or(&name)) != Some(&1) {
            return None;
        }
        match self.graph.op_mut(id) {
            op @ (Op::Conv(_) | Op::Dense(_)) => Some(op),
            _ => None,
        }
    }
}

/// A node of the file and the function that imports it.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) operator: Operator,
}

impl Call<'_> {
    /// The node's name; where it has none, that of its value.
    pub(super) fn name(&self) -> String {
        node_name(self.node)
    }

    /// A complaint about this node.
    pub(super) fn unsupported(&self, problem: impl Into<String>) -> ImportError {
        ImportError::Unsupported {
            node: self.name(),
            operator: self.node.op_type.clone(),
            problem: problem.into(),
        }
    }

    fn attribute(&self, name: &str) -> Option<&super::proto::AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// An integer attribute.
    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    /// A real attribute; NaN and infinity are refused.
    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32, ImportError> {
        let value = self.attribute(name).map_or(default, |attribute| attribute.f);
        if value.is_finite() {
            Ok(value)
        } else {
            Err(self.unsupported(format!("attribute {name} is {value}")))
        }
    }

    /// A text attribute.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.attribute(name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    /// A list of `N` sizes, if it is given.
    pub(super) fn sizes<const N: usize>(&self, name: &str) -> Result<Option<[usize; N]>, ImportError> {
        let Some(attribute) = self.attribute(name) else { return Ok(None) };
        let fail = || {
            let given = &attribute.ints[..attribute.ints.len().min(8)];
            self.unsupported(format!(
                "attribute {name} is {given:?}, but {N} sizes in [0, 2^31) were expected \
                 (only two-dimensional pictures are known)"
            ))
        };
        let given: [i64; N] = attribute.ints.as_slice().try_into().map_err(|_| fail())?;
        let mut sizes = [0; N];
        for (size, value) in sizes.iter_mut().zip(given) {
            *size = i32::try_from(value).ok().and_then(|v| usize::try_from(v).ok()).ok_or_else(fail)?;
        }
        Ok(Some(sizes))
    }

    /// A list of integers, if it is given.
    pub(super) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    /// The value of a `Constant` node.
    pub(super) fn constant(&self) -> Result<Constant, ImportError> {
        if let Some(tensor) = self.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            return constant::read(&TensorProto { name: self.name(), ..tensor.clone() })
                .map_err(|source| ImportError::Operand { node: self.name(), source: Box::new(source) });
        }
        let real = |values: Vec<f32>| {
            let tensor = Tensor::new(self.name(), vec![values.len()], values);
            match tensor.first_not_finite() {
                Some((index, value)) => Err(ImportError::NotFinite { tensor: self.name(), index, value }),
                None => Ok(Constant::Real(tensor)),
            }
        };
        if let Some(attribute) = self.attribute("value_ints") {
            Ok(Constant::Integer(attribute.ints.clone()))
        } else if let Some(attribute) = self.attribute("value_int") {
            Ok(Constant::Integer(vec![attribute.i]))
        } else if let Some(attribute) = self.attribute("value_floats") {
            real(attribute.floats.clone())
        } else if let Some(attribute) = self.attribute("value_float") {
            real(vec![attribute.f])
        } else {
            Err(self.unsupported("it has no value of a known kind"))
        }
    }
}

/// A node's name; where it has none, that of its value.
pub(super) fn node_name(node: &NodeProto) -> String {
    let unnamed = || node.output.first().cloned().unwrap_or_else(|| "(no name)".into());
    if node.name.is_empty() { unnamed() } else { node.name.clone() }
}

/// The shape of the network's input without its batch dimension.
fn input_shape(input: &ValueInfoProto) -> Result<Vec<usize>, ImportError> {
    let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
    let dims = shape.map_or(&[][..], |shape| &shape.dim);
    let Some((batch, rest)) = dims.split_first() else {
        let problem = format!("input {} has no shape; export the model with fixed shapes", input.name);
        return Err(ImportError::Interface(problem));
    };
    if let Some(batch) = batch.dim_value.filter(|&batch| batch != 1) {
        return Err(ImportError::Interface(format!(
            "input {} has {batch} as its first extent, the batch size; export the model with batch size 1",
            input.name
        )));
    }
    let fixed = |(axis, dim): (usize, &DimensionProto)| match dim.dim_value {
        Some(extent) if extent > 0 => Ok(usize::try_from(extent).unwrap_or(usize::MAX)),
        _ => Err(ImportError::DynamicShape {
            value: input.name.clone(),
            axis: axis + 1,
            symbol: dim.dim_param.clone().unwrap_or_else(|| format!("{}", dim.dim_value.unwrap_or(0))),
        }),
    };
    rest.iter().enumerate().map(fixed).collect()
}
