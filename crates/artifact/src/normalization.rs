//! What pixels become before a network sees them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `(pixel - mean[c]) / deviation[c]` for every pixel in `[0, 1]` of channel `c`, in single precision: what pictures were
/// subjected to when the network was trained. The client applies it to pictures before it encrypts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel; as many as means, above zero.
    pub deviation: Vec<f32>,
}

impl Normalization {
    /// One that leaves pixels as they are.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], deviation: vec![1.0; channels] }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// What is wrong with it, if anything is: what comes from outside is checked so before it is used.
    pub fn problem(&self) -> Option<String> {
        let (mean, deviation) = (&self.mean, &self.deviation);
        if mean.is_empty() || mean.len() != deviation.len() {
            return Some(format!("there are {} means and {} deviations", mean.len(), deviation.len()));
        }
        let number = |value: &&f32| !value.is_finite();
        if let Some(value) = mean.iter().find(number) {
            return Some(format!("a mean is {value}; means are finite numbers"));
        }
        let positive = |value: &&f32| !(value.is_normal() && **value > 0.0);
        let value = deviation.iter().find(positive)?;
        Some(format!("a standard deviation is {value}; they are finite numbers above zero"))
    }

    /// Normalizes pictures that stand one after the other, each `[channels, pixels]`.
    ///
    /// # Panics
    /// If `pixels` is zero or the values are no whole number of pictures.
    pub fn apply(&self, values: &mut [f32], pixels: usize) {
        assert!(values.len().is_multiple_of(self.channels() * pixels), "whole pictures are normalized");
        for (index, plane) in values.chunks_exact_mut(pixels).enumerate() {
            let (mean, deviation) =
                (self.mean[index % self.channels()], self.deviation[index % self.channels()]);
            plane.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
        }
    }
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {:?}, standard deviation {:?}", self.mean, self.deviation)
    }
}
