//! What each ONNX operator means in a graph: one table, one function a row.

use super::ImportError;
use super::constant::Constant;
use super::onnx::{Call, Importer, Value, known_operators, node_name};
use super::proto::NodeProto;
use crate::activation::Activation;
use crate::graph::{AveragePool, Conv, Dense, NodeId, Op, Window};
use crate::tensor::Tensor;

/// Imports one node: appends to the graph and says what the node's first output stands for.
pub(super) type Operator = fn(&mut Importer<'_>, &Call<'_>) -> Result<Value, ImportError>;

/// The known operators, by name.
pub(super) const TABLE: &[(&str, Operator)] = &[
    ("Add", add),
    ("AveragePool", average_pool),
    ("BatchNormalization", batch_normalization),
    ("Constant", |_, call| Ok(Value::Constant(call.constant()?))),
    ("Conv", conv),
    ("Dropout", |importer, call| importer.value(call, 0)),
    ("Flatten", flatten),
    ("Gelu", |importer, call| {
        let tanh = call.text("approximate").is_some_and(|form| form == "tanh");
        activation(importer, call, if tanh { Activation::GeluTanh } else { Activation::Gelu })
    }),
    ("Gemm", gemm),
    ("GlobalAveragePool", global_average_pool),
    ("Identity", |importer, call| importer.value(call, 0)),
    ("LeakyRelu", |importer, call| {
        let slope = f64::from(call.float("alpha", 0.01)?);
        activation(importer, call, Activation::LeakyRelu { slope })
    }),
    ("MatMul", mat_mul),
    ("Mul", mul),
    ("Relu", |importer, call| activation(importer, call, Activation::Relu)),
    ("Reshape", reshape),
    ("Sigmoid", |importer, call| activation(importer, call, Activation::Sigmoid)),
    ("Softplus", |importer, call| activation(importer, call, Activation::Softplus)),
    ("Tanh", |importer, call| activation(importer, call, Activation::Tanh)),
];

/// Operators that will not come, and what to use instead.
const REFUSED: &[(&str, &str)] = &[
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
        "Softmax",
        "leave it out: the client can apply it after decryption, and the largest logit stays the largest",
    ),
];

/// The function for a node's operator.
pub(super) fn find(node: &NodeProto) -> Result<Operator, ImportError> {
    let standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    let named = |name: &str| standard && name == node.op_type;
    if let Some((_, operator)) = TABLE.iter().find(|(name, _)| named(name)) {
        return Ok(*operator);
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
        known: known_operators().join(", "),
    })
}

/// Whether a node gives its first operand on unchanged.
pub(super) fn passes_through(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Identity" | "Dropout")
}

fn activation(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
    activation: Activation,
) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    Ok(Value::Node(importer.graph.push(call.name(), Op::Activation(activation), vec![x])?))
}

/// Products that are activations: `x * x`, and `x * sigmoid(x)` as frameworks write SiLU.
fn mul(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let (Value::Node(a), Value::Node(b)) = (importer.value(call, 0)?, importer.value(call, 1)?) else {
        return Err(call.unsupported("only x * x and x * Sigmoid(x) are known; fold constants into a layer"));
    };
    let gated = |gate: NodeId, x: NodeId| {
        let gate = &importer.graph[gate];
        gate.op == Op::Activation(Activation::Sigmoid) && gate.inputs == [x]
    };
    let (x, activation) = if a == b {
        (a, Activation::Square)
    } else if gated(b, a) {
        (a, Activation::Silu)
    } else if gated(a, b) {
        (b, Activation::Silu)
    } else {
        return Err(call.unsupported("only x * x and x * Sigmoid(x) are known"));
    };
    Ok(Value::Node(importer.graph.push(call.name(), Op::Activation(activation), vec![x])?))
}

/// The stride, padding and dilation of a convolution or pool with this kernel.
fn window(
    importer: &Importer<'_>,
    call: &Call<'_>,
    x: NodeId,
    kernel: [usize; 2],
) -> Result<Window, ImportError> {
    let mut window = Window {
        stride: call.sizes("strides")?.unwrap_or([1, 1]),
        padding: call.sizes("pads")?.unwrap_or([0; 4]),
        dilation: call.sizes("dilations")?.unwrap_or([1, 1]),
    };
    let upper = match call.text("auto_pad").as_deref() {
        None | Some("" | "NOTSET") => return Ok(window),
        Some("VALID") => {
            window.padding = [0; 4];
            return Ok(window);
        }
        Some("SAME_UPPER") => true,
        Some("SAME_LOWER") => false,
        Some(other) => return Err(call.unsupported(format!("auto_pad {other:?} is not known"))),
    };
    let [_, height, width] = importer.graph[x].shape[..] else {
        return Err(call.unsupported("its input is no picture [channels, height, width]"));
    };
    // SAME: as many outputs as strides fit, the odd zero at the end (UPPER) or at the beginning (LOWER).
    for (axis, extent) in [height, width].into_iter().enumerate() {
        let stride = window.stride[axis].max(1);
        let span = kernel[axis].saturating_sub(1).saturating_mul(window.dilation[axis]).saturating_add(1);
        let needed = (extent.div_ceil(stride) - 1).saturating_mul(stride).saturating_add(span);
        let total = needed.saturating_sub(extent);
        let (less, more) = (total / 2, total - total / 2);
        (window.padding[axis], window.padding[axis + 2]) = if upper { (less, more) } else { (more, less) };
    }
    Ok(window)
}

fn conv(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let weight = importer.required_weights(call, 1, "weight")?;
    let [outputs, _, height, width] = weight.shape[..] else {
        return Err(call.unsupported(format!(
            "its weight has shape {:?}; only two-dimensional convolutions are known",
            weight.shape
        )));
    };
    let bias = match importer.weights(call, 2, "bias")? {
        Some(bias) => bias.values,
        None => vec![0.0; outputs],
    };
    let window = window(importer, call, x, [height, width])?;
    let groups = usize::try_from(call.int("group", 1)).unwrap_or(0);
    let op = Op::Conv(Conv { weight, bias, window, groups });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

fn average_pool(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let Some(kernel) = call.sizes::<2>("kernel_shape")? else {
        return Err(call.unsupported("attribute kernel_shape is missing"));
    };
    if call.int("ceil_mode", 0) != 0 {
        return Err(call.unsupported("ceil_mode is not known; pad the picture instead"));
    }
    let window = window(importer, call, x, kernel)?;
    let count_padding = call.int("count_include_pad", 0) != 0;
    let op = Op::AveragePool(AveragePool { kernel, window, count_padding });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

fn global_average_pool(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let [_, height, width] = importer.graph[x].shape[..] else {
        return Err(call.unsupported("its input is no picture [channels, height, width]"));
    };
    let pool = AveragePool { kernel: [height, width], window: Window::default(), count_padding: false };
    Ok(Value::Node(importer.graph.push(call.name(), Op::AveragePool(pool), vec![x])?))
}

fn flatten(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    // With a batch of one, axis 0 and axis 1 give the same [1, features].
    let axis = call.int("axis", 1);
    let rank = importer.graph[x].shape.len() as i64 + 1;
    if !matches!(axis, 0 | 1) && axis != 1 - rank && axis != -rank {
        return Err(call.unsupported(format!("axis {axis} is not known; only axis 1 is")));
    }
    let elements = importer.graph[x].elements();
    Ok(Value::Node(importer.graph.reshape(call.name(), x, vec![elements])?))
}

fn reshape(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let target = match call.shape() {
        Some(target) => target,
        None => importer.integers(call, 1, "shape")?,
    };
    let shape = &importer.graph[x].shape;
    let from: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
    let shown = &target[..target.len().min(8)];
    let fail = || call.unsupported(format!("cannot reshape {from:?} to {shown:?}"));
    let elements: usize = from.iter().product();
    let mut to = Vec::new();
    let mut inferred = None;
    for (axis, &extent) in target.iter().take(8).enumerate() {
        to.push(match extent {
            0 => *from.get(axis).ok_or_else(fail)?,
            -1 if inferred.is_none() => {
                inferred = Some(axis);
                1
            }
            _ => usize::try_from(extent).map_err(|_| fail())?,
        });
    }
    let known =
        to.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent)).ok_or_else(fail)?;
    if let Some(axis) = inferred {
        to[axis] = elements.checked_div(known).ok_or_else(fail)?;
    }
    // The graph checks the number of elements; here only the batch dimension is taken off.
    match to.split_first() {
        Some((1, rest)) if !rest.is_empty() && target.len() <= 8 => {
            Ok(Value::Node(importer.graph.reshape(call.name(), x, rest.to_vec())?))
        }
        _ => Err(fail()),
    }
}

fn gemm(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let matrix = importer.required_weights(call, 1, "weight")?;
    if call.int("transA", 0) != 0 {
        return Err(call.unsupported("transA is not known; transpose the weight instead"));
    }
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let mut weight = oriented(call, matrix, call.int("transB", 0) != 0)?;
    scale(&mut weight.values, alpha);
    let outputs = weight.shape[0];
    let bias = match importer.weights(call, 2, "bias")? {
        None => vec![0.0; outputs],
        Some(bias) => {
            let mut bias = per_channel(call, &bias, &[outputs])?;
            scale(&mut bias, beta);
            bias
        }
    };
    finite(&weight.name, &weight.values)?;
    finite(&call.name(), &bias)?;
    let op = Op::Dense(Dense { weight, bias });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

fn mat_mul(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let matrix = importer.required_weights(call, 1, "right-hand side")?;
    let weight = oriented(call, matrix, false)?;
    let bias = vec![0.0; weight.shape[0]];
    let op = Op::Dense(Dense { weight, bias });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

/// A sum of two values, or a bias: then it joins the layer before it.
fn add(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let (index, x, constant) = match (importer.value(call, 0)?, importer.value(call, 1)?) {
        (Value::Node(a), Value::Node(b)) => {
            return Ok(Value::Node(importer.graph.push(call.name(), Op::Add, vec![a, b])?));
        }
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
    let shift = per_channel(call, &constant, &shape)?;
    let factor = vec![1.0; shift.len()];
    affine(importer, call, index, x, &factor, &shift)
}

/// `(x - mean) * scale / sqrt(variance + epsilon) + bias` for each channel (Ioffe and Szegedy 2015), folded.
fn batch_normalization(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    if call.int("training_mode", 0) != 0 {
        return Err(call.unsupported("it is in training mode; export the model for inference"));
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
    if let Some(index) = variance.iter().position(|&variance| variance + epsilon <= 0.0) {
        return Err(call.unsupported(format!("the variance of channel {index} is not positive")));
    }
    let factor: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let shift: Vec<f32> = (0..channels).map(|c| bias[c] - mean[c] * factor[c]).collect();
    affine(importer, call, 0, x, &factor, &shift)
}

/// `factor[c] * x + shift[c]`: folded into the layer before it if that has no other reader, else a depthwise
/// convolution of one tap.
fn affine(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
    index: usize,
    x: NodeId,
    factor: &[f32],
    shift: &[f32],
) -> Result<Value, ImportError> {
    if let Some(Op::Conv(Conv { weight, bias, .. }) | Op::Dense(Dense { weight, bias })) =
        importer.absorbing(call, index, x)
    {
        let row = weight.values.len() / factor.len();
        for (channel, values) in weight.values.chunks_mut(row).enumerate() {
            scale(values, factor[channel]);
            bias[channel] = bias[channel] * factor[channel] + shift[channel];
        }
        finite(&weight.name, &weight.values)?;
        finite(&call.name(), bias)?;
        return Ok(Value::Node(x));
    }
    finite(&call.name(), factor)?;
    finite(&call.name(), shift)?;
    let [channels, _, _] = importer.graph[x].shape[..] else {
        return Err(call.unsupported("on a vector it must follow a Gemm or MatMul that nothing else reads"));
    };
    let weight = Tensor::new(call.name(), vec![channels, 1, 1, 1], factor.to_vec());
    let conv = Conv { weight, bias: shift.to_vec(), window: Window::default(), groups: channels };
    Ok(Value::Node(importer.graph.push(call.name(), Op::Conv(conv), vec![x])?))
}

/// The matrix `[outputs, inputs]` from one stored so (`transposed`) or as `[inputs, outputs]`.
fn oriented(call: &Call<'_>, matrix: Tensor, transposed: bool) -> Result<Tensor, ImportError> {
    let [rows, columns] = matrix.shape[..] else {
        let shape = &matrix.shape;
        return Err(call.unsupported(format!("its weight has shape {shape:?}; a matrix was expected")));
    };
    if transposed {
        return Ok(matrix);
    }
    let mut values = Vec::with_capacity(matrix.values.len());
    for column in 0..columns {
        values.extend((0..rows).map(|row| matrix.values[row * columns + column]));
    }
    Ok(Tensor::new(matrix.name, vec![columns, rows], values))
}

/// A constant that broadcasts to a value of `shape` (behind the batch dimension) with one number per channel.
fn per_channel(call: &Call<'_>, constant: &Tensor, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
    let fail = || {
        call.unsupported(format!(
            "constant {} of shape {:?} was met where one number for each of {} channels was expected",
            constant.name, constant.shape, shape[0]
        ))
    };
    if constant.values.len() == 1 {
        return Ok(vec![constant.values[0]; shape[0]]);
    }
    // Behind leading ones (broadcast dimensions) stand the channels, then ones for height and width.
    let leading = constant.shape.iter().take_while(|&&extent| extent == 1).count();
    let extents = &constant.shape[leading..];
    let fits = extents.len() == shape.len()
        && extents.first() == Some(&shape[0])
        && extents[1..].iter().all(|&extent| extent == 1);
    if fits { Ok(constant.values.clone()) } else { Err(fail()) }
}

fn scale(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}

/// Refuses NaN and infinity after folding.
fn finite(name: &str, values: &[f32]) -> Result<(), ImportError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ImportError::NotFinite { tensor: name.to_string(), index, value: values[index] }),
        None => Ok(()),
    }
}
