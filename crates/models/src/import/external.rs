//! Tensors of an ONNX file whose data are in files beside it, as exporters write large models.

use super::onnx::node_name;
use super::proto::{GraphProto, ModelProto, TensorProto};
use super::{ImportError, read};
use std::collections::HashMap;
use std::path::{Component, Path};

/// `TensorProto::data_location` of a tensor whose data are elsewhere.
const EXTERNAL: i32 = 1;

/// Takes the data of all such initializers into the model; `false` where there are none.
///
/// # Errors
/// Names the tensor and a node that reads it: files outside `folder`, files that are missing or too short.
pub(super) fn take_in(model: &mut ModelProto, folder: &Path) -> Result<bool, ImportError> {
    let Some(graph) = &mut model.graph else { return Ok(false) };
    let mut tensors = std::mem::take(&mut graph.initializer);
    let mut files = HashMap::new();
    let mut found = false;
    for tensor in tensors.iter_mut().filter(|tensor| tensor.data_location == EXTERNAL) {
        found = true;
        tensor.raw_data =
            data(tensor, folder, &mut files).map_err(|source| at_reader(graph, &tensor.name, source))?;
        tensor.data_location = 0;
        tensor.external_data.clear();
    }
    graph.initializer = tensors;
    Ok(found)
}

/// The file that the tensor names, if any.
pub(super) fn location(tensor: &TensorProto) -> Option<&str> {
    (tensor.data_location == EXTERNAL).then(|| entry(tensor, "location").unwrap_or("(no name)"))
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

fn data(
    tensor: &TensorProto,
    folder: &Path,
    files: &mut HashMap<String, Vec<u8>>,
) -> Result<Vec<u8>, ImportError> {
    let fail = |problem: String| ImportError::Tensor { tensor: tensor.name.clone(), problem };
    let location = entry(tensor, "location").unwrap_or_default();
    let path = Path::new(location);
    if location.is_empty()
        || !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(fail(format!(
            "its data are in {location:?}, which is no file in the model's folder; export the model as one file"
        )));
    }
    let number = |key: &str| match entry(tensor, key).map(str::parse::<usize>) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(fail(format!("the {key} of its data is no number; the file may be damaged"))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    if !files.contains_key(location) {
        let what = format!("file with the data of tensor {}", tensor.name);
        let hint =
            "put it beside the model, where the model was exported to, or export the model as one file";
        files.insert(location.to_string(), read(&folder.join(path), &what, hint)?);
    }
    let bytes = &files[location];
    let end = length.map_or(Some(bytes.len()), |length| offset.checked_add(length));
    let range = end.and_then(|end| bytes.get(offset..end));
    range.map(<[u8]>::to_vec).ok_or_else(|| {
        fail(format!(
            "its data are bytes {offset} and following of {location}, but that file has {} bytes; copy or export it again",
            bytes.len()
        ))
    })
}

/// The error at the first node that reads the tensor.
fn at_reader(graph: &GraphProto, tensor: &str, source: ImportError) -> ImportError {
    match graph.node.iter().find(|node| node.input.iter().any(|input| input == tensor)) {
        Some(node) => ImportError::Operand { node: node_name(node), source: Box::new(source) },
        None => source,
    }
}
