//! One factor and one shift for each channel: what is left of a batch normalization when a network is used.

use super::ImportError;
use crate::graph::{Conv, Dense, Graph, GraphError, NodeId, Op, Window};
use crate::tensor::Tensor;

/// `factor[c] * x + shift[c]`; as many factors as shifts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    /// One factor for each channel.
    pub(super) factor: Vec<f32>,
    /// One shift for each channel.
    pub(super) shift: Vec<f32>,
}

/// The four tensors of a batch normalization, one number for each channel.
pub(super) struct Statistics<'a> {
    pub(super) scale: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) variance: &'a [f32],
}

impl Affine {
    /// `(x - mean) * scale / sqrt(variance + epsilon) + bias` (Ioffe and Szegedy 2015).
    ///
    /// # Errors
    /// The first channel whose variance is not positive.
    pub(super) fn batch_normalization(statistics: &Statistics<'_>, epsilon: f32) -> Result<Self, usize> {
        let Statistics { scale, bias, mean, variance } = *statistics;
        if let Some(channel) = variance.iter().position(|&variance| variance + epsilon <= 0.0) {
            return Err(channel);
        }
        let factor: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let shift = (0..factor.len()).map(|c| bias[c] - mean[c] * factor[c]).collect();
        Ok(Self { factor, shift })
    }

    /// Refuses NaN and infinity, which come of large numbers, in the name of the layer.
    pub(super) fn check(&self, name: &str) -> Result<(), ImportError> {
        finite(name, &self.factor)?;
        finite(name, &self.shift)
    }

    /// Applies it to the results of the linear layer `op`, which has as many channels; `false`, and nothing, where that is
    /// none.
    ///
    /// # Errors
    /// Weights that grow beyond all numbers.
    pub(super) fn absorb(&self, op: &mut Op) -> Result<bool, ImportError> {
        let (Op::Conv(Conv { weight, bias, .. }) | Op::Dense(Dense { weight, bias })) = op else {
            return Ok(false);
        };
        let row = weight.values.len() / self.factor.len();
        let channels = self.factor.iter().zip(&self.shift);
        for ((values, bias), (factor, shift)) in weight.values.chunks_mut(row).zip(&mut *bias).zip(channels) {
            values.iter_mut().for_each(|value| *value *= factor);
            *bias = *bias * factor + shift;
        }
        finite(&weight.name, &weight.values)?;
        finite(&weight.name, bias)?;
        Ok(true)
    }

    /// Appends it as a layer of its own: a depthwise convolution of one tap; the features of a vector are channels of one
    /// pixel.
    pub(super) fn push(self, graph: &mut Graph, name: &str, x: NodeId) -> Result<NodeId, GraphError> {
        let channels = self.factor.len();
        let is_vector = graph[x].shape.len() == 1;
        let picture = if is_vector { graph.reshape(name, x, vec![channels, 1, 1])? } else { x };
        let weight = Tensor::new(name, vec![channels, 1, 1, 1], self.factor);
        let conv = Conv { weight, bias: self.shift, window: Window::default(), groups: channels };
        let y = graph.push(name, Op::Conv(conv), vec![picture])?;
        if is_vector { graph.reshape(name, y, vec![channels]) } else { Ok(y) }
    }
}

/// Refuses NaN and infinity in what was computed from the weights of a file.
pub(super) fn finite(name: &str, values: &[f32]) -> Result<(), ImportError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ImportError::NotFinite { tensor: name.to_string(), index, value: values[index] }),
        None => Ok(()),
    }
}
