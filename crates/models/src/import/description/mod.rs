//! Network descriptions: the layers of a network in JSON, for weights in a safetensors file.
//!
//! JSON is what weights in this format usually travel with and what every exporter can write; and the text fits into the
//! metadata of a safetensors file, which then is the whole network in one file ([`Description::embed`]).
//!
//! ```json
//! {
//!   "weights": "net.safetensors",
//!   "input": { "shape": [3, 32, 32], "mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225] },
//!   "blocks": {
//!     "basic": [
//!       { "residual": { "main": [
//!         { "conv": { "name": "conv1", "padding": 1 } }, { "batch_norm": { "name": "bn1" } }, "relu",
//!         { "conv": { "name": "conv2", "padding": 1 } }, { "batch_norm": { "name": "bn2" } }
//!       ] } },
//!       "relu"
//!     ]
//!   },
//!   "layers": [
//!     { "conv": { "name": "conv1", "padding": 1 } }, { "batch_norm": { "name": "bn1" } }, "relu",
//!     { "block": { "name": "basic", "at": ["layer1.0", "layer1.1"] } },
//!     "global_average_pool", "flatten", { "dense": { "name": "linear" } }
//!   ]
//! }
//! ```

mod build;
#[cfg(test)]
mod tests;

use super::{ImportError, safetensors};
use crate::graph::Graph;
use crate::normalization::Normalization;
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::fmt;

/// The key under which a safetensors file holds a description in its metadata.
pub const METADATA_KEY: &str = "cerium.network";

/// A network without its weights.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The safetensors file with the weights: a path relative to the description's folder.
    pub weights: String,
    /// What the network takes.
    pub input: Input,
    /// Lists of layers that [`Layer::Block`] names.
    #[serde(default)]
    pub blocks: BTreeMap<String, Vec<Layer>>,
    /// The layers, each of which takes what the one before it gives.
    pub layers: Vec<Layer>,
}

/// What a network takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `[channels, height, width]` or `[features]`.
    pub shape: Vec<usize>,
    /// Mean of each channel of the pictures on which it was trained, in units of `[0, 1]`; with `deviation` or not at all.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel.
    pub deviation: Option<Vec<f32>>,
}

/// One layer. A layer with weights has a name, to which the names of its tensors are added: `NAME.weight`; what is
/// described here as optional is used if the file has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Convolution: `NAME.weight` `[outputs, inputs / groups, height, width]`, `NAME.bias` (optional).
    Conv(ConvLayer),
    /// Batch normalization as a network uses it: `NAME.weight`, `NAME.bias`, `NAME.running_mean`, `NAME.running_var`.
    BatchNorm(BatchNormLayer),
    /// `W x + b` on a vector: `NAME.weight` `[outputs, inputs]`, `NAME.bias` (optional).
    Dense(Named),
    /// `max(x, 0)`.
    Relu,
    /// `x` above zero, `slope * x` below.
    LeakyRelu {
        /// Factor below zero.
        slope: f64,
    },
    /// `x * Phi(x)` with the normal distribution function.
    Gelu,
    /// The `tanh` form of GELU.
    GeluTanh,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x^2`.
    Square,
    /// Mean over windows.
    AveragePool(PoolLayer),
    /// Mean over each channel: `[channels, 1, 1]`.
    GlobalAveragePool,
    /// A picture as a vector.
    Flatten,
    /// Every `stride`-th row and column, and zero channels around them.
    Subsample(SubsampleLayer),
    /// `main(x) + shortcut(x)`.
    Residual(Residual),
    /// The layers of a block, once for each prefix.
    Block(Block),
}

/// A layer that is only its weights.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Name of the layer.
    pub name: String,
}

/// See [`Layer::Conv`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvLayer {
    /// Name of the layer.
    pub name: String,
    /// Steps of the window; 1 unless given.
    #[serde(default = "Pair::one")]
    pub stride: Pair,
    /// Zeros around the picture; 0 unless given.
    #[serde(default)]
    pub padding: Pair,
    /// Distance between taps; 1 unless given.
    #[serde(default = "Pair::one")]
    pub dilation: Pair,
    /// Number of groups; 1 unless given.
    #[serde(default = "one")]
    pub groups: usize,
}

/// See [`Layer::BatchNorm`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormLayer {
    /// Name of the layer.
    pub name: String,
    /// Added to the variance; 1e-5 unless given.
    #[serde(default = "usual_epsilon")]
    pub epsilon: f32,
}

/// See [`Layer::AveragePool`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolLayer {
    /// Extents of the window.
    pub kernel: Pair,
    /// Steps of the window; its extents unless given.
    pub stride: Option<Pair>,
    /// Zeros around the picture; 0 unless given.
    #[serde(default)]
    pub padding: Pair,
    /// Whether padding counts in the divisor; it does unless given.
    #[serde(default = "yes")]
    pub count_padding: bool,
}

/// See [`Layer::Subsample`]: the shortcut that He et al. (2016) call option A.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubsampleLayer {
    /// Which rows and columns stay.
    pub stride: Pair,
    /// Number of zero channels before and after those of the input; none unless given.
    #[serde(default)]
    pub zero_channels: [usize; 2],
}

/// See [`Layer::Residual`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// One summand.
    pub main: Vec<Layer>,
    /// The other; the input itself unless given.
    #[serde(default)]
    pub shortcut: Vec<Layer>,
}

/// See [`Layer::Block`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Its name in [`Description::blocks`].
    pub name: String,
    /// Prefixes; with a dot between, they go before the names of all layers in it.
    pub at: Vec<String>,
}

/// Two numbers, down and right; in JSON one number where both are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl Pair {
    fn one() -> Self {
        Self([1, 1])
    }
}

fn one() -> usize {
    1
}

fn usual_epsilon() -> f32 {
    1e-5
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or two: [down, right]")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Pair, E> {
                let value = usize::try_from(value).map_err(E::custom)?;
                Ok(Pair([value; 2]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, sequence: A) -> Result<Pair, A::Error> {
                <[usize; 2]>::deserialize(de::value::SeqAccessDeserializer::new(sequence)).map(Pair)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Description {
    /// Whether the bytes can only be a description: a JSON object.
    pub fn recognizes(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().first() == Some(&b'{')
    }

    /// Reads a description.
    ///
    /// # Errors
    /// Where it is no JSON or holds something else than is described here, with line and column.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImportError> {
        let description: Self =
            serde_json::from_slice(bytes).map_err(|error| ImportError::Description(error.to_string()))?;
        if let Some(problem) = description.normalization()?.as_ref().and_then(Normalization::problem) {
            return Err(ImportError::Description(format!("its input: {problem}")));
        }
        Ok(description)
    }

    /// What pixels become before the network sees them, if it says so.
    ///
    /// # Errors
    /// Means without deviations, and the reverse.
    pub fn normalization(&self) -> Result<Option<Normalization>, ImportError> {
        match (&self.input.mean, &self.input.deviation) {
            (None, None) => Ok(None),
            (Some(mean), Some(deviation)) => {
                let normalization = Normalization { mean: mean.clone(), deviation: deviation.clone() };
                if normalization.channels() != self.input.shape.first().copied().unwrap_or(0) {
                    let problem = format!(
                        "its input has shape {:?}, but {} means",
                        self.input.shape,
                        normalization.channels()
                    );
                    return Err(ImportError::Description(problem));
                }
                Ok(Some(normalization))
            }
            _ => Err(ImportError::Description("its input has `mean` or `deviation`, but not both".into())),
        }
    }

    /// The network with these weights.
    ///
    /// # Errors
    /// Tensors that are missing, of another shape than their layer needs, or that no layer reads; layers whose shapes do
    /// not agree. Each names the layer or tensor.
    pub fn build(&self, weights: safetensors::Tensors) -> Result<Graph, ImportError> {
        build::build(self, weights)
    }
}
