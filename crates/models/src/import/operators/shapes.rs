//! Operators that move elements, or change the shape around them.

use super::layers::picture;
use crate::graph::{NodeId, Op};
use crate::import::ImportError;
use crate::import::constant::Constant;
use crate::import::onnx::{Call, Importer, Value};
use crate::import::selection::Selection;

pub(super) fn flatten(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
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

pub(super) fn reshape(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    // An attribute before opset 5.
    let target = match call.ints("shape") {
        Some(target) => target,
        None => importer.integers(call, 1, "shape")?,
    };
    let shape = &importer.graph[x].shape;
    let from: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
    let shown = &target[..target.len().min(8)];
    let fail = || {
        call.unsupported(format!(
            "cannot reshape {from:?} to {shown:?}; the batch of 1 stays in front of [features] or [channels, height, width]"
        ))
    };
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
        Some((1, rest)) if matches!(rest.len(), 1 | 3) && target.len() <= 8 => {
            Ok(Value::Node(importer.graph.reshape(call.name(), x, rest.to_vec())?))
        }
        _ => Err(fail()),
    }
}

/// Zeros around a picture and its channels.
pub(super) fn pad(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    picture(importer, call, x)?;
    let mode = call.text("mode").unwrap_or_else(|| "constant".into());
    if mode != "constant" {
        return Err(
            call.unsupported(format!("mode {mode:?} is not known; pad with zeros (mode constant) instead"))
        );
    }
    let value = match importer.optional(call, 2)? {
        None => call.float("value", 0.0)?,
        Some(Value::Constant(Constant::Real(tensor))) => {
            tensor.values.iter().copied().find(|&v| v != 0.0).unwrap_or(0.0)
        }
        Some(_) => return Err(call.unsupported("its value is no constant number; pad with zeros instead")),
    };
    if value != 0.0 {
        return Err(call.unsupported(format!("it pads with {value}; pad with zeros instead")));
    }
    // An attribute before opset 11.
    let pads = match call.ints("pads") {
        Some(pads) => pads,
        None => importer.integers(call, 1, "pads")?,
    };
    if call.node.input.get(3).is_some_and(|axes| !axes.is_empty()) {
        return Err(call.unsupported("the operand axes is not known; give pads for all axes"));
    }
    let shown = &pads[..pads.len().min(8)];
    let fail = || {
        call.unsupported(format!(
            "pads {shown:?} are not known; known are eight sizes in [0, 2^31), none of them for the batch"
        ))
    };
    let pads: [i64; 8] = pads.as_slice().try_into().map_err(|_| fail())?;
    let mut sizes = [0; 8];
    for (size, pad) in sizes.iter_mut().zip(pads) {
        *size = i32::try_from(pad).ok().and_then(|pad| usize::try_from(pad).ok()).ok_or_else(fail)?;
    }
    let [0, before, top, left, 0, after, bottom, right] = sizes else { return Err(fail()) };
    let selection =
        Selection { stride: [1, 1], padding: [top, left, bottom, right], zero_channels: [before, after] };
    select(importer, call, x, selection)
}

/// Every so-manieth row and column of a picture.
pub(super) fn slice(importer: &mut Importer<'_>, call: &Call<'_>) -> Result<Value, ImportError> {
    let x = importer.node(call, 0)?;
    let [channels, height, width] = picture(importer, call, x)?;
    let extents = [1, channels, height, width];
    // Attributes before opset 10.
    let mut list = |name: &str, index: usize| match call.ints(name) {
        Some(values) => Ok(Some(values)),
        None if call.node.input.get(index).is_none_or(String::is_empty) => Ok(None),
        None => importer.integers(call, index, "its range").map(Some),
    };
    let (starts, ends) = (list("starts", 1)?.unwrap_or_default(), list("ends", 2)?.unwrap_or_default());
    let axes = list("axes", 3)?.unwrap_or_else(|| (0..starts.len().min(4) as i64).collect());
    let steps = list("steps", 4)?.unwrap_or_else(|| vec![1; axes.len()]);
    let fail = || {
        call.unsupported(
            "only every n-th row and column from the first on is known: start 0, an end at or behind the last, a step above 0",
        )
    };
    if axes.len() > 4 || [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] {
        return Err(fail());
    }
    let mut strides = [1; 4];
    for (index, &axis) in axes.iter().enumerate() {
        let axis = if axis < 0 { axis.saturating_add(4) } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&axis| axis < 4).ok_or_else(fail)?;
        let stride = i32::try_from(steps[index]).ok().and_then(|step| usize::try_from(step).ok());
        let stride = stride.filter(|&stride| stride > 0 && (axis > 1 || stride == 1)).ok_or_else(fail)?;
        if starts[index] != 0 || ends[index] < extents[axis] as i64 {
            return Err(fail());
        }
        strides[axis] = stride;
    }
    let [_, _, down, right] = strides;
    let selection = Selection { stride: [down, right], padding: [0; 4], zero_channels: [0; 2] };
    select(importer, call, x, selection)
}

/// Appends a selection; together with those before it, it is one.
fn select(
    importer: &mut Importer<'_>,
    call: &Call<'_>,
    x: NodeId,
    selection: Selection,
) -> Result<Value, ImportError> {
    let joined =
        importer.selections.get(&x).and_then(|(source, first)| Some((*source, first.then(&selection)?)));
    let (source, selection) = joined.unwrap_or((x, selection));
    let channels = importer.graph[source].channels();
    let Some(conv) = selection.conv(&call.name(), channels, &mut importer.selecting) else {
        return Err(call.unsupported(format!("{channels} channels with zeros around them are too many")));
    };
    let y = importer.graph.push(call.name(), Op::Conv(conv), vec![source])?;
    importer.selections.insert(y, (source, selection));
    Ok(Value::Node(y))
}
