//! Sums, products and batch normalizations.

use super::activation;
use crate::activation::Activation;
use crate::graph::{NodeId, Op};
use crate::import::ImportError;
use crate::import::affine::{Affine, Statistics};
use crate::import::constant::Constant;
use crate::import::onnx::{Call, Importer, Value};
use crate::tensor::Tensor;

/// The operands of an operation on two values.
enum Operands {
    /// Both are computed by the network.
    Values(NodeId, NodeId),
    /// Operand `index` is, the other is a constant with one number for each channel.
    Constant { index: usize, x: NodeId, values: Vec<f32> },
}

/// A sum of two values, or a bias: then it joins the layer before it.
pub(super) fn add(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    match operands(importer, call)? {
        Operands::Values(a, b) => {
            let (left, right) = (&importer.graph[a].shape, &importer.graph[b].shape);
            if left != right {
                return Err(call.unsupported(format!(
                    "its operands have shapes {left:?} and {right:?} (without the batch); values that the network computes are \
                     summed in equal shapes only, a value of fewer elements is not repeated"
                )));
            }
            Ok(Value::Node(importer.graph.push(call.name(), Op::Add, vec![a, b])?))
        }
        Operands::Constant { index, x, values } => {
            let factor = vec![1.0; values.len()];
            affine(importer, call, index, x, Affine { factor, shift: values })
        }
    }
}

/// A difference with a constant.
pub(super) fn sub(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let Operands::Constant { index, x, values } = operands(importer, call)? else {
        return Err(call.unsupported(
            "only differences with constants are known; turn the sign of a layer's weights instead",
        ));
    };
    let (factor, sign) = if index == 0 { (1.0, -1.0) } else { (-1.0, 1.0) };
    let shift: Vec<f32> = values.iter().map(|value| sign * value).collect();
    affine(importer, call, index, x, Affine { factor: vec![factor; shift.len()], shift })
}

/// A quotient by a constant.
pub(super) fn div(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let Operands::Constant { index: 0, x, values } = operands(importer, call)? else {
        return Err(call.unsupported("only division by a constant is known"));
    };
    let factor: Vec<f32> = values.iter().map(|value| value.recip()).collect();
    affine(importer, call, 0, x, Affine { shift: vec![0.0; factor.len()], factor })
}

/// A product with a constant, or one that is an activation: `x * x`, and `x * sigmoid(x)` as frameworks write SiLU.
pub(super) fn mul(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let (a, b) = match operands(importer, call)? {
        Operands::Values(a, b) => (a, b),
        Operands::Constant { index, x, values } => {
            let shift = vec![0.0; values.len()];
            return affine(importer, call, index, x, Affine { factor: values, shift });
        }
    };
    let gated = |gate: NodeId, x: NodeId| {
        let gate = &importer.graph[gate];
        gate.op == Op::Activation(Activation::Sigmoid) && gate.inputs == [x]
    };
    let (x, function) = if a == b {
        (a, Activation::Square)
    } else if gated(b, a) {
        (a, Activation::Silu)
    } else if gated(a, b) {
        (b, Activation::Silu)
    } else {
        return Err(call.unsupported("of products of two values only x * x and x * Sigmoid(x) are known"));
    };
    activation(importer, call, x, function)
}

/// Folded into the layer before it, or a layer of its own.
pub(super) fn batch_normalization(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    if call.int("training_mode", 0) != 0 {
        return Err(call
            .unsupported("it is in training mode; export the model for inference (PyTorch: model.eval())"));
    }
    let epsilon = call.float("epsilon", 1e-5)?;
    let channels = importer.graph[x].channels();
    importer.charge(2 * channels)?;
    let mut parameters = Vec::with_capacity(4);
    for (index, role) in [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")] {
        let tensor = importer.required_weights(call, index, role)?;
        parameters.push(per_channel(call, &tensor, &[channels])?);
    }
    let [scale, bias, mean, variance] = &parameters[..] else { unreachable!("four were read") };
    let folded = Affine::batch_normalization(&Statistics { scale, bias, mean, variance }, epsilon)
        .map_err(|channel| call.unsupported(format!("the variance of channel {channel} is not positive")))?;
    affine(importer, call, 0, x, folded)
}

/// The two operands of a node, a constant spread over the channels of the other.
fn operands(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Operands, ImportError> {
    let (index, x, constant) = match (importer.value(call, 0)?, importer.value(call, 1)?) {
        (Value::Node(a), Value::Node(b)) => return Ok(Operands::Values(a, b)),
        (Value::Node(x), Value::Constant(constant)) => (0, x, constant),
        (Value::Constant(constant), Value::Node(x)) => (1, x, constant),
        (Value::Constant(_), Value::Constant(_)) => {
            return Err(call.unsupported("both operands are constants; simplify the model before export"));
        }
    };
    let Constant::Real(constant) = constant else {
        return Err(call.unsupported("its constant consists of integers"));
    };
    let shape = importer.graph[x].shape.clone();
    importer.charge(2 * shape[0])?;
    Ok(Operands::Constant { index, x, values: per_channel(call, &constant, &shape)? })
}

/// A constant that broadcasts to a value of `shape` (behind the batch dimension) with one number per channel.
pub(super) fn per_channel(
    call: &Call<'_>,
    constant: &Tensor,
    shape: &[usize],
) -> Result<Vec<f32>, ImportError> {
    if constant.values.len() == 1 {
        return Ok(vec![constant.values[0]; shape[0]]);
    }
    // Behind leading ones (broadcast dimensions) stand the channels, then ones for height and width.
    let leading = constant.shape.iter().take_while(|&&extent| extent == 1).count();
    let extents = &constant.shape[leading..];
    let fits = extents.len() == shape.len()
        && extents.first() == Some(&shape[0])
        && extents[1..].iter().all(|&extent| extent == 1);
    if fits {
        return Ok(constant.values.clone());
    }
    Err(call.unsupported(format!(
        "tensor {} of shape {:?} stands where one number, or one for each of {} channels, is expected",
        constant.name, constant.shape, shape[0]
    )))
}

/// Folded into the layer that makes operand `index` if that has no other reader, else a layer of its own.
fn affine(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
    index: usize,
    x: NodeId,
    affine: Affine,
) -> Result<Value, ImportError> {
    affine.check(&call.name())?;
    if let Some(op) = importer.absorbing(call, index, x)
        && affine.absorb(op)?
    {
        // It may have been a selection, and is none any more.
        importer.selections.remove(&x);
        return Ok(Value::Node(x));
    }
    Ok(Value::Node(affine.push(&mut importer.graph, &call.name(), x)?))
}
