//! What each ONNX operator means in a graph: one table, one function a row.

mod arithmetic;
mod layers;
mod shapes;

use super::ImportError;
use super::onnx::{Call, Importer, Value, node_name};
use super::proto::NodeProto;
use crate::activation::Activation;
use crate::graph::{NodeId, Op};

/// Imports one node: appends to the graph and says what the node's first output stands for.
pub(super) type Operator = fn(&mut Importer<'_>, &Call<'_>) -> Result<Value, ImportError>;

/// An operator that can be imported.
pub(super) struct Row {
    /// Its name.
    pub(super) name: &'static str,
    /// In which forms, for the table of the documentation.
    pub(super) forms: &'static str,
    import: Operator,
}

const fn row(name: &'static str, forms: &'static str, import: Operator) -> Row {
    Row { name, forms, import }
}

/// The known operators, by name.
pub(super) const TABLE: &[Row] = &[
    row(
        "Add",
        "two values of equal shape (residual); a value and a constant, one number or one for each channel, which joins the \
         layer before it",
        arithmetic::add,
    ),
    row(
        "AveragePool",
        "two-dimensional; kernel_shape, strides, pads, auto_pad, count_include_pad",
        layers::average_pool,
    ),
    row(
        "BatchNormalization",
        "for inference; joins the Conv, Gemm or MatMul before it, else (behind an Add, say) it is a layer of its own and takes \
         a level",
        arithmetic::batch_normalization,
    ),
    row("Constant", "tensors, numbers and lists of them", |_, call| Ok(Value::Constant(call.constant()?))),
    row(
        "Conv",
        "two-dimensional; strides, pads, auto_pad, dilations, group; constant weight and bias",
        layers::conv,
    ),
    row("Div", "by a constant, as Add", arithmetic::div),
    row("Dropout", "left out", |importer, call| importer.value(call, 0)),
    row("Flatten", "axis 0 or 1", shapes::flatten),
    row("Gelu", "approximate none or tanh", |importer, call| {
        let tanh = call.text("approximate").is_some_and(|form| form == "tanh");
        unary(importer, call, if tanh { Activation::GeluTanh } else { Activation::Gelu })
    }),
    row("Gemm", "alpha, beta, transB; constant matrix and bias", layers::gemm),
    row("GlobalAveragePool", "two-dimensional", layers::global_average_pool),
    row("Identity", "left out", |importer, call| importer.value(call, 0)),
    row("LeakyRelu", "alpha", |importer, call| {
        let slope = f64::from(call.float("alpha", 0.01)?);
        unary(importer, call, Activation::LeakyRelu { slope })
    }),
    row("MatMul", "a vector times a constant matrix", layers::mat_mul),
    row(
        "Mul",
        "by a constant, as Add; of a value and itself (square); of a value and its Sigmoid (SiLU)",
        arithmetic::mul,
    ),
    row(
        "Pad",
        "zeros (mode constant) around pictures and channels; joins the Conv behind it or the Slice before it, else takes a \
         level",
        shapes::pad,
    ),
    row("ReduceMean", "over height and width, with keepdims or without", layers::reduce_mean),
    row("Relu", "in all forms", |importer, call| unary(importer, call, Activation::Relu)),
    row("Reshape", "to a constant shape with a batch of 1, 0 and -1 included", shapes::reshape),
    row("Sigmoid", "in all forms", |importer, call| unary(importer, call, Activation::Sigmoid)),
    row("Slice", "every n-th row and column, from the first one on", shapes::slice),
    row("Softplus", "in all forms", |importer, call| unary(importer, call, Activation::Softplus)),
    row("Sub", "of a constant, as Add", arithmetic::sub),
    row("Tanh", "in all forms", |importer, call| unary(importer, call, Activation::Tanh)),
];

/// Operators that will not come, and what to use instead.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "Clip",
        "a bounded ReLU has two kinks, which polynomials follow badly; use Relu or Silu in its place and train again",
    ),
    (
        "GlobalMaxPool",
        "a maximum needs comparisons, which are very slow under encryption; use GlobalAveragePool",
    ),
    (
        "LogSoftmax",
        "leave it out: the client can apply it after decryption, and the largest logit stays the largest",
    ),
    (
        "MaxPool",
        "a maximum needs comparisons, which are very slow under encryption; use AveragePool or a Conv with \
         stride 2 in its place and train again",
    ),
    (
        "Shape",
        "shapes are known before the run here; export the model with fixed shapes, so that the exporter folds what is \
         computed from them into constants (PyTorch: do_constant_folding=True, without dynamic_axes and dynamic_shapes)",
    ),
    (
        "Softmax",
        "leave it out: the client can apply it after decryption, and the largest logit stays the largest",
    ),
];

/// The function for a node's operator.
pub(super) fn find(node: &NodeProto) -> Result<Operator, ImportError> {
    let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    let named = |name: &str| standard && name == node.op_type;
    if let Some(row) = TABLE.iter().find(|row| named(row.name)) {
        return Ok(row.import);
    }
    if let Some((_, instead)) = REFUSED.iter().find(|(name, _)| named(name)) {
        return Err(ImportError::Unsupported {
            node: node_name(node),
            operator: node.op_type.clone(),
            problem: (*instead).to_string(),
        });
    }
    let domain = if standard { String::new() } else { format!("{}::", node.domain) };
    Err(ImportError::UnknownOperator {
        operator: format!("{domain}{}", node.op_type),
        node: node_name(node),
        known: TABLE.iter().map(|row| row.name).collect(),
    })
}

/// Whether a node gives its first operand on unchanged.
pub(super) fn passes_through(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Identity" | "Dropout")
}

/// An activation function of operand 0.
fn unary(importer: &mut Importer<'_>, call: &Call<'_>, function: Activation) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    activation(importer, call, x, function)
}

fn activation(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
    x: NodeId,
    function: Activation,
) -> Result<Value, ImportError> {
    Ok(Value::Node(importer.graph.push(call.name(), Op::Activation(function), vec![x])?))
}
