//! What values a network really takes, from sample inputs.
//!
//! Two runs over the samples: the first finds every channel's largest value, the second counts, for the inputs of
//! activations, how the values spread below it. Minima, maxima and counts do not depend on the order of the
//! samples, so the result is the same on any number of threads.

use crate::chebyshev::Density;
use crate::graph::{Graph, NodeId, Op};
use crate::reference::{self, InputError, check_input, exact};
use cerium_compiler::ciphertext::{LANES, Lanes};
use rayon::prelude::*;

/// Bins of a channel's histogram over `[-largest, largest]`.
const BINS: usize = 256;

/// Why samples cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CalibrationError {
    /// No samples.
    #[error("no sample inputs were given; calibration needs some, a hundred or more are better")]
    Empty,
    /// A sample that the network cannot take.
    #[error("sample {index}: {source}")]
    Sample {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        source: InputError,
    },
}

/// The range of a node's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Largest magnitude in each channel.
    pub channels: Vec<f64>,
    /// For inputs of activations: how often each channel's values fell in each of [`BINS`] equal parts of its
    /// range; else empty.
    histogram: Vec<u32>,
}

impl Range {
    /// The largest magnitude.
    pub fn largest(&self) -> f64 {
        self.max.abs().max(self.min.abs())
    }

    /// The density of `value / scale[channel]`; uniform for a node that feeds no activation.
    pub fn density(&self, scale: impl Fn(usize) -> f64) -> Density {
        let channels = self.channels.iter().zip(self.histogram.chunks_exact(BINS)).enumerate();
        Density::from_points(channels.flat_map(|(channel, (&largest, counts))| {
            let factor = largest / scale(channel);
            counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(move |(bin, &count)| (factor * middle(bin), f64::from(count)))
        }))
    }

    /// The value below which the share `q` of all values lie, to the resolution of the histograms; for inputs of
    /// activations only.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let mut values: Vec<(f64, u32)> = self
            .channels
            .iter()
            .zip(self.histogram.chunks_exact(BINS))
            .flat_map(|(&largest, counts)| {
                counts.iter().enumerate().map(move |(bin, &n)| (largest * middle(bin), n))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: u64 = values.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut below = 0;
        values.into_iter().find_map(|(value, count)| {
            below += u64::from(count);
            (below as f64 >= q * total as f64).then_some(value)
        })
    }

    fn empty(channels: usize) -> Self {
        Self {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            channels: vec![0.0; channels],
            histogram: Vec::new(),
        }
    }

    /// Takes in the first `count` lanes of a value.
    fn include(&mut self, values: &[Lanes], count: usize) {
        let plane = values.len() / self.channels.len();
        for (largest, values) in self.channels.iter_mut().zip(values.chunks_exact(plane)) {
            for &value in values.iter().flat_map(|lanes| &lanes[..count]) {
                self.min = self.min.min(value);
                self.max = self.max.max(value);
                *largest = largest.max(value.abs());
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for (a, b) in self.channels.iter_mut().zip(&other.channels) {
            *a = a.max(*b);
        }
    }
}

/// The middle of a histogram's bin, in `(-1, 1)`.
fn middle(bin: usize) -> f64 {
    (2 * bin + 1) as f64 / BINS as f64 - 1.0
}

/// The ranges of all values of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    ranges: Vec<Range>,
    samples: usize,
}

impl Calibration {
    /// Runs the network on every sample.
    pub fn measure(graph: &Graph, samples: &[&[f32]]) -> Result<Self, CalibrationError> {
        if samples.is_empty() {
            return Err(CalibrationError::Empty);
        }
        for (index, sample) in samples.iter().enumerate() {
            check_input(&graph.input().shape, sample)
                .map_err(|source| CalibrationError::Sample { index, source })?;
        }
        let empty =
            || -> Vec<Range> { graph.nodes().map(|(_, node)| Range::empty(node.channels())).collect() };
        let mut ranges = samples
            .par_chunks(LANES)
            .fold(empty, |mut ranges, samples| {
                let include = |id: NodeId, values: &[_]| ranges[id.index()].include(values, samples.len());
                reference::walk(graph, samples, exact(graph), include);
                ranges
            })
            .reduce(empty, |mut a, b| {
                a.iter_mut().zip(&b).for_each(|(a, b)| a.merge(b));
                a
            });
        let mut activations: Vec<NodeId> = graph
            .nodes()
            .filter(|(_, node)| matches!(node.op, Op::Activation(_)))
            .map(|(_, node)| node.inputs[0])
            .collect();
        // A value may feed several.
        activations.sort_unstable();
        activations.dedup();
        let none = || -> Vec<Vec<u32>> {
            activations.iter().map(|id| vec![0; ranges[id.index()].channels.len() * BINS]).collect()
        };
        let histograms = samples
            .par_chunks(LANES)
            .fold(none, |mut histograms, samples| {
                reference::walk(graph, samples, exact(graph), |id, values| {
                    if let Ok(place) = activations.binary_search(&id) {
                        let values = values.iter().map(|lanes| &lanes[..samples.len()]);
                        count(&mut histograms[place], values, &ranges[id.index()].channels);
                    }
                });
                histograms
            })
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
                    *a = a.saturating_add(*b);
                }
                a
            });
        for (id, histogram) in activations.iter().zip(histograms) {
            ranges[id.index()].histogram = histogram;
        }
        Ok(Self { ranges, samples: samples.len() })
    }

    /// The range of a node's values.
    pub fn range(&self, id: NodeId) -> &Range {
        &self.ranges[id.index()]
    }

    /// How many samples were run.
    pub fn samples(&self) -> usize {
        self.samples
    }
}

/// Adds values to per-channel histograms.
fn count<'a>(histogram: &mut [u32], mut values: impl ExactSizeIterator<Item = &'a [f64]>, largest: &[f64]) {
    let plane = values.len() / largest.len();
    for (counts, &largest) in histogram.chunks_exact_mut(BINS).zip(largest) {
        let factor = if largest > 0.0 { BINS as f64 / (2.0 * largest) } else { 0.0 };
        for &value in values.by_ref().take(plane).flatten() {
            let bin = (value + largest) * factor;
            counts[(bin as usize).min(BINS - 1)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::chebyshev::Density;

    fn relu(features: usize) -> Graph {
        let mut graph = Graph::new("x", vec![features]).expect("valid");
        let input = graph.output();
        graph.push("relu", Op::Activation(Activation::Relu), vec![input]).expect("valid");
        graph
    }

    #[test]
    fn ranges_and_quantiles() {
        let graph = relu(2);
        let samples: Vec<Vec<f32>> = (0..=100).map(|i| vec![i as f32 / 100.0, -4.0]).collect();
        let samples: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
        let calibration = Calibration::measure(&graph, &samples).expect("valid");
        let input = graph.nodes().next().expect("an input").0;
        let range = calibration.range(input);
        assert_eq!((range.min, range.max), (-4.0, 1.0));
        assert_eq!(range.channels, [1.0, 4.0]);
        assert!((range.quantile(0.75).expect("feeds relu") - 0.5).abs() < 0.02);
        let relu = calibration.range(graph.output());
        assert_eq!((relu.min, relu.max, relu.quantile(0.5)), (0.0, 1.0, None));
        // In units of twice the channels' ranges, channel 1 is all at -0.5 and channel 0 spreads over [0, 0.5].
        let density = range.density(|channel| 2.0 * [1.0, 4.0][channel]);
        let mass = |low: f64, high: f64| -> f64 {
            density.bins().filter(|(t, _)| *t > low && *t < high).map(|(_, w)| w).sum()
        };
        assert!((mass(-0.55, -0.45) - 0.5).abs() < 1e-9);
        assert!((mass(-0.01, 0.51) - 0.5).abs() < 1e-9);
        assert_eq!(relu.density(|_| 1.0), Density::uniform());
    }

    #[test]
    fn bad_samples_are_named() {
        let graph = relu(2);
        assert_eq!(Calibration::measure(&graph, &[]), Err(CalibrationError::Empty));
        let error = Calibration::measure(&graph, &[&[0.0, 1.0], &[0.0, f32::NAN]]).expect_err("NaN");
        assert!(error.to_string().starts_with("sample 1: element 1 of the input is NaN"), "{error}");
        let error = Calibration::measure(&graph, &[&[0.0]]).expect_err("one element is missing");
        assert!(error.to_string().contains("1 elements"), "{error}");
    }
}
