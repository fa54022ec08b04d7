//! Model files to [`Graph`]s.
//!
//! Everything that comes from a file is checked here: sizes against the bytes that are there before anything is
//! allocated, weights for NaN and infinity, shapes for agreement. What passes needs no further check.

mod affine;
mod constant;
pub mod description;
mod error;
mod external;
pub mod onnx;
mod operators;
mod proto;
pub mod safetensors;
mod selection;
#[cfg(test)]
mod tests;

pub use error::ImportError;

use crate::graph::Graph;
use crate::normalization::Normalization;
use crate::simplify::simplify;
use description::Description;
use std::io::ErrorKind;
use std::path::Path;

/// A network as imported.
#[derive(Clone, Debug)]
pub struct Model {
    /// The network, with everything joined that can be joined: what all that follows works on.
    pub graph: Graph,
    /// What pixels become before the network sees them, if the file says so.
    pub normalization: Option<Normalization>,
    /// A file from which [`Model::parse`] gets the same network, without any other file.
    pub bytes: Vec<u8>,
}

impl Model {
    /// Reads an ONNX file, a network description, or a safetensors file with a description in it. `weights` stands for
    /// the file that a description names.
    ///
    /// # Errors
    /// See [`Model::parse`] and [`Model::described`]; files that are missing or cannot be read.
    pub fn read(path: &Path, weights: Option<&Path>) -> Result<Self, ImportError> {
        let hint =
            "a model is an ONNX file, as exported by PyTorch and others, or a network description (.json)";
        let bytes = read(path, "model", hint)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if Description::recognizes(&bytes) {
            let beside = folder.join(&Description::parse(&bytes)?.weights);
            let hint = "the description names it; put it there, or say where it is with --weights FILE";
            return Self::described(&bytes, &read(weights.unwrap_or(&beside), "file of weights", hint)?);
        }
        if weights.is_some() {
            let problem = "--weights is for network descriptions (.json); this model holds its own weights";
            return Err(ImportError::Interface(problem.into()));
        }
        let is_whole = safetensors::recognizes(&bytes);
        Self::parse(if is_whole { bytes } else { onnx::with_external_data(bytes, folder)? })
    }

    /// The network in a file that needs no other: an ONNX file, or a safetensors file with a description in it.
    ///
    /// # Errors
    /// See [`onnx::parse`] and [`Description::build`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ImportError> {
        if Description::recognizes(&bytes) {
            let problem = "this is a network description, which is read together with its weights";
            return Err(ImportError::Interface(problem.into()));
        }
        if !safetensors::recognizes(&bytes) {
            return Ok(Self { graph: simplify(&onnx::parse(&bytes)?), normalization: None, bytes });
        }
        let Some(text) = safetensors::metadata(&bytes, description::METADATA_KEY)? else {
            return Err(ImportError::Interface(
                "this is a safetensors file: weights without the network that they belong to; export the model as ONNX, or \
                 describe the network (.json) and name this file there"
                    .into(),
            ));
        };
        let description = Description::parse(text.as_bytes())?;
        Self::new(&description, safetensors::parse(&bytes)?, bytes)
    }

    /// The network of a description and its weights, a safetensors file.
    ///
    /// # Errors
    /// See [`Description::build`].
    pub fn described(description: &[u8], weights: &[u8]) -> Result<Self, ImportError> {
        let parsed = Description::parse(description)?;
        let text = str::from_utf8(description).expect("what was parsed as JSON is text");
        let bytes = safetensors::with_metadata(weights, description::METADATA_KEY, text)?;
        Self::new(&parsed, safetensors::parse(weights)?, bytes)
    }

    fn new(
        description: &Description,
        weights: safetensors::Tensors,
        bytes: Vec<u8>,
    ) -> Result<Self, ImportError> {
        let graph = simplify(&description.build(weights)?);
        Ok(Self { graph, normalization: description.normalization()?, bytes })
    }
}

/// The network in the bytes of a file that needs no other: see [`Model::parse`].
pub fn parse(bytes: &[u8]) -> Result<Graph, ImportError> {
    Ok(Model::parse(bytes.to_vec())?.graph)
}

/// The bytes of a file; `what` it is and `hint`, what to do where it is absent, are for the error.
fn read(path: &Path, what: &str, hint: &'static str) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => ImportError::Missing { what: what.into(), path: path.to_path_buf(), hint },
        _ => ImportError::Read { path: path.to_path_buf(), source },
    })
}
