//! Weights in the safetensors format: named tensors, no graph.

use super::ImportError;
use crate::tensor::{Tensor, element_count};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads a file; see [`parse`].
pub fn read(path: &Path) -> Result<Tensors, ImportError> {
    let bytes =
        std::fs::read(path).map_err(|source| ImportError::Read { path: path.to_path_buf(), source })?;
    parse(&bytes)
}

/// Whether the bytes look like such a file: it begins with the length of its header, which is a JSON object.
pub(super) fn recognizes(bytes: &[u8]) -> bool {
    bytes.get(7..9) == Some(&b"\0{"[..])
}

/// What the file's metadata say under a key.
pub(super) fn metadata(bytes: &[u8], key: &str) -> Result<Option<String>, ImportError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    Ok(header.metadata().as_ref().and_then(|entries| entries.get(key)).cloned())
}

/// The same tensors in a file with one entry of metadata. Equal arguments give equal bytes.
pub(super) fn with_metadata(bytes: &[u8], key: &str, value: &str) -> Result<Vec<u8>, ImportError> {
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    // One entry, because entries are stored in the order of a hash map.
    let entry = HashMap::from([(key.to_string(), value.to_string())]);
    ::safetensors::serialize(file.tensors(), Some(entry)).map_err(damaged)
}

fn damaged(error: SafeTensorError) -> ImportError {
    ImportError::Damaged { format: "safetensors", problem: error.to_string() }
}

/// Reads every tensor of a safetensors file as single precision. Known element types: F64, F32, F16, BF16, and
/// the integers I64, I32, U8 (exact up to 2^24). NaN and infinity are refused.
pub fn parse(bytes: &[u8]) -> Result<Tensors, ImportError> {
    // The header's length is checked against the bytes by the parser, and offsets against both.
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let data = view.data();
        /// The elements of little-endian bytes.
        fn words<const W: usize>(data: &[u8], convert: impl Fn([u8; W]) -> f32) -> Vec<f32> {
            data.chunks_exact(W)
                .map(|bytes| convert(bytes.try_into().expect("chunks_exact gives W bytes")))
                .collect()
        }
        let values = match view.dtype() {
            Dtype::F64 => words(data, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F32 => words(data, f32::from_le_bytes),
            Dtype::F16 => words(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => words(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Dtype::I64 => words(data, |bytes| i64::from_le_bytes(bytes) as f32),
            Dtype::I32 => words(data, |bytes| i32::from_le_bytes(bytes) as f32),
            Dtype::U8 => words(data, |[byte]: [u8; 1]| f32::from(byte)),
            other => {
                return Err(ImportError::Tensor {
                    tensor: name.to_string(),
                    problem: format!("its element type {other:?} is not known; floats, I64, I32 and U8 are"),
                });
            }
        };
        let shape = view.shape().to_vec();
        if element_count(&shape) != Some(values.len()) {
            let problem = format!("tensor {name} does not fill its shape {shape:?}");
            return Err(ImportError::Damaged { format: "safetensors", problem });
        }
        let tensor = Tensor::new(name, shape, values);
        if let Some((index, value)) = tensor.first_not_finite() {
            return Err(ImportError::NotFinite { tensor: tensor.name, index, value });
        }
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}
