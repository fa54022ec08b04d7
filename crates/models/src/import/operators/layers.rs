//! Convolutions, pools and dense layers.

use super::arithmetic::per_channel;
use crate::graph::{AveragePool, Conv, Dense, NodeId, Op, Window};
use crate::import::ImportError;
use crate::import::affine::finite;
use crate::import::onnx::{Call, Importer, Value};
use crate::tensor::Tensor;

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
    let [_, height, width] = picture(importer, call, x)?;
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

/// The shape of a picture.
pub(super) fn picture(
    importer: &Importer<'_>,
    call: &Call<'_>,
    x: NodeId,
) -> Result<[usize; 3], ImportError> {
    let shape = &importer.graph[x].shape;
    shape.as_slice().try_into().map_err(|_| {
        call.unsupported(format!(
            "its input has shape {shape:?} (without the batch), but a picture [channels, height, width] is expected"
        ))
    })
}

pub(super) fn conv(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let mut x = importer.node(call, 0)?;
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
    let mut window = window(importer, call, x, [height, width])?;
    if let Some((source, selection)) = importer.selections.get(&x)
        && selection.is_padding()
    {
        // Zeros around the picture are the window's own.
        x = *source;
        for (own, more) in window.padding.iter_mut().zip(selection.padding) {
            *own = own.saturating_add(more);
        }
    }
    let groups = usize::try_from(call.int("group", 1)).unwrap_or(0);
    let op = Op::Conv(Conv { weight, bias, window, groups });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

pub(super) fn average_pool(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
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

pub(super) fn global_average_pool(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let [_, height, width] = picture(importer, call, x)?;
    let pool = AveragePool { kernel: [height, width], window: Window::default(), count_padding: false };
    Ok(Value::Node(importer.graph.push(call.name(), Op::AveragePool(pool), vec![x])?))
}

/// A mean over height and width: global pooling as frameworks write `x.mean([2, 3])`.
pub(super) fn reduce_mean(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let [channels, ..] = picture(importer, call, x)?;
    // An attribute before opset 18.
    let axes = match call.ints("axes") {
        Some(axes) => axes,
        None if call.node.input.len() > 1 => importer.integers(call, 1, "axes")?,
        None => Vec::new(),
    };
    let mut sorted: Vec<i64> =
        axes.iter().map(|&axis| if axis < 0 { axis.saturating_add(4) } else { axis }).collect();
    sorted.sort_unstable();
    if sorted != [2, 3] {
        let shown = &axes[..axes.len().min(8)];
        return Err(call.unsupported(format!(
            "axes {shown:?} are not known; only means over height and width (2 and 3) are"
        )));
    }
    let Value::Node(pooled) = global_average_pool(importer, call)? else { unreachable!("a pool is a node") };
    if call.int("keepdims", 1) != 0 {
        return Ok(Value::Node(pooled));
    }
    Ok(Value::Node(importer.graph.reshape(call.name(), pooled, vec![channels])?))
}

pub(super) fn gemm(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = vector(importer, call)?;
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

pub(super) fn mat_mul(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = vector(importer, call)?;
    let matrix = importer.required_weights(call, 1, "right-hand side")?;
    let weight = oriented(call, matrix, false)?;
    let bias = vec![0.0; weight.shape[0]];
    let op = Op::Dense(Dense { weight, bias });
    Ok(Value::Node(importer.graph.push(call.name(), op, vec![x])?))
}

/// Operand 0 of a dense layer.
fn vector(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<NodeId, ImportError> {
    let x = importer.node(call, 0)?;
    match importer.graph[x].shape[..] {
        [_] => Ok(x),
        ref shape => Err(call.unsupported(format!(
            "its input has shape {shape:?} (without the batch), but a vector is expected; flatten the picture before it"
        ))),
    }
}

/// The matrix `[outputs, inputs]` from one stored so (`transposed`) or as `[inputs, outputs]`.
fn oriented(call: &Call<'_>, matrix: Tensor, transposed: bool) -> Result<Tensor, ImportError> {
    let [rows, columns] = matrix.shape[..] else {
        let Tensor { name, shape, .. } = &matrix;
        return Err(call.unsupported(format!("tensor {name} has shape {shape:?}; a matrix was expected")));
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

fn scale(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}
