//! Tensors of constants in an ONNX file.

use super::proto::{TensorProto, data_type};
use super::{ImportError, external};
use crate::tensor::Tensor;
use half::{bf16, f16};

/// A constant: weights, or integers that describe shapes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    /// Finite numbers.
    Real(Tensor),
    /// Integers, row-major.
    Integer(Vec<i64>),
}

/// Reads a tensor. The data are there in full before anything is allocated for them, so a damaged shape
/// cannot ask for more memory than the file has bytes.
pub(super) fn read(tensor: &TensorProto) -> Result<Constant, ImportError> {
    let fail = |problem: String| ImportError::Tensor { tensor: tensor.name.clone(), problem };
    if let Some(file) = external::location(tensor) {
        return Err(fail(format!("its data are in another file, {file}; export the model as one file")));
    }
    let mut shape = Vec::with_capacity(tensor.dims.len());
    let mut count = Some(1usize);
    for &extent in &tensor.dims {
        if extent < 1 {
            return Err(fail(format!("its shape {:?} has an extent below 1", tensor.dims)));
        }
        let extent = usize::try_from(extent).unwrap_or(usize::MAX);
        count = count.and_then(|count| count.checked_mul(extent));
        shape.push(extent);
    }
    let raw = tensor.raw_data.as_slice();
    let name = tensor.name.clone();
    let wrong = |found, wanted: Option<usize>| ImportError::WrongSize {
        tensor: name.clone(),
        shape: tensor.dims.clone(),
        wanted: wanted.map_or("too many".into(), |wanted| wanted.to_string()),
        found,
    };
    /// The elements of little-endian bytes.
    fn words<const W: usize, T>(raw: &[u8], convert: impl Fn([u8; W]) -> T) -> Vec<T> {
        raw.chunks_exact(W)
            .map(|bytes| convert(bytes.try_into().expect("chunks_exact gives W bytes")))
            .collect()
    }
    // Raw bytes must fill the shape exactly; so must the typed fields.
    let check_raw = |width: usize| {
        let wanted = count.and_then(|count| count.checked_mul(width));
        if wanted == Some(raw.len()) { Ok(()) } else { Err(wrong(raw.len(), wanted)) }
    };
    let check_typed = |found: usize| {
        if count == Some(found) { Ok(()) } else { Err(wrong(found, count)) }
    };
    let is_raw = !raw.is_empty();
    let values: Vec<f32> = match tensor.data_type {
        data_type::FLOAT if is_raw => {
            check_raw(4)?;
            words(raw, f32::from_le_bytes)
        }
        data_type::FLOAT => {
            check_typed(tensor.float_data.len())?;
            tensor.float_data.clone()
        }
        data_type::DOUBLE if is_raw => {
            check_raw(8)?;
            words(raw, |bytes| f64::from_le_bytes(bytes) as f32)
        }
        data_type::DOUBLE => {
            check_typed(tensor.double_data.len())?;
            tensor.double_data.iter().map(|&value| value as f32).collect()
        }
        data_type::FLOAT16 if is_raw => {
            check_raw(2)?;
            words(raw, |bytes| f16::from_le_bytes(bytes).to_f32())
        }
        data_type::FLOAT16 => {
            check_typed(tensor.int32_data.len())?;
            tensor.int32_data.iter().map(|&bits| f16::from_bits(bits as u16).to_f32()).collect()
        }
        data_type::BFLOAT16 if is_raw => {
            check_raw(2)?;
            words(raw, |bytes| bf16::from_le_bytes(bytes).to_f32())
        }
        data_type::BFLOAT16 => {
            check_typed(tensor.int32_data.len())?;
            tensor.int32_data.iter().map(|&bits| bf16::from_bits(bits as u16).to_f32()).collect()
        }
        data_type::INT64 if is_raw => {
            check_raw(8)?;
            return Ok(Constant::Integer(words(raw, i64::from_le_bytes)));
        }
        data_type::INT64 => {
            check_typed(tensor.int64_data.len())?;
            return Ok(Constant::Integer(tensor.int64_data.clone()));
        }
        data_type::INT32 if is_raw => {
            check_raw(4)?;
            return Ok(Constant::Integer(words(raw, |bytes| i64::from(i32::from_le_bytes(bytes)))));
        }
        data_type::INT32 => {
            check_typed(tensor.int32_data.len())?;
            return Ok(Constant::Integer(tensor.int32_data.iter().map(|&value| value.into()).collect()));
        }
        other => {
            return Err(fail(format!(
                "its element type {other} is not known; float, double, float16, bfloat16, int32 and int64 are"
            )));
        }
    };
    let tensor = Tensor::new(name, shape, values);
    match tensor.first_not_finite() {
        Some((index, value)) => Err(ImportError::NotFinite { tensor: tensor.name, index, value }),
        None => Ok(Constant::Real(tensor)),
    }
}
