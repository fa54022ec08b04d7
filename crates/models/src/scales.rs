//! The units in which encrypted values are held.
//!
//! A slot holds `value / scale`, with scales such that every value lies in `[-1, 1]`: activations are polynomials on that
//! interval, and the noise of an encryption is the same for all slots. Scales fold into the weights of the linear layers
//! on both sides, so they cost nothing. Values that meet (the operands and the sum of an addition, both sides of a
//! reshape) share one scale; so do both sides of a homogeneous activation such as ReLU, where
//! `relu(v) / s = relu(v / s)`, and then each channel may have its own scale.

use crate::calibrate::Calibration;
use crate::graph::{Graph, NodeId, Op};

/// A channel's scale is at least this share of the largest one: a channel that was quiet in calibration may speak later.
const QUIET: f64 = 1.0 / 16.0;

/// Scales of the elements of a value: equal within a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    channels: Vec<f64>,
    elements: usize,
}

impl Scale {
    /// One for every element.
    #[cfg(test)]
    pub(crate) fn unit(elements: usize) -> Self {
        Self { channels: vec![1.0], elements }
    }

    /// The scale of an element, by its row-major index.
    pub fn of(&self, element: usize) -> f64 {
        self.channels[element / (self.elements / self.channels.len())]
    }

    /// The largest scale of a channel.
    pub fn largest(&self) -> f64 {
        self.channels.iter().copied().fold(0.0, f64::max)
    }

    /// The scale of all elements, if they have the same.
    pub fn uniform(&self) -> Option<f64> {
        self.channels.iter().all(|&s| s == self.channels[0]).then_some(self.channels[0])
    }
}

/// Sets of nodes that share something, by the union of pairs.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    parent: Vec<usize>,
}

impl Classes {
    /// Every node alone.
    pub(crate) fn new(count: usize) -> Self {
        Self { parent: (0..count).collect() }
    }

    /// The first node of the set of `id`, which stands for it.
    pub(crate) fn find(&self, id: NodeId) -> usize {
        let mut index = id.index();
        while self.parent[index] != index {
            index = self.parent[index];
        }
        index
    }

    /// Joins two sets.
    pub(crate) fn join(&mut self, a: NodeId, b: NodeId) {
        let (a, b) = (self.find(a), self.find(b));
        self.parent[a.max(b)] = a.min(b);
    }
}

/// The scale of every node's value, by [`NodeId::index`]: the calibrated ranges, widened by `margin`.
pub fn choose(graph: &Graph, calibration: &Calibration, margin: f64) -> Vec<Scale> {
    let mut classes = Classes::new(graph.nodes().len());
    // Nodes whose values need one scale for all channels.
    let mut uniform = vec![NodeId::INPUT, graph.output()];
    for (id, node) in graph.nodes() {
        match &node.op {
            Op::Add | Op::Reshape => node.inputs.iter().for_each(|&input| classes.join(id, input)),
            Op::Activation(activation) if activation.is_homogeneous() => classes.join(id, node.inputs[0]),
            Op::Activation(_) => uniform.extend([id, node.inputs[0]]),
            Op::Input | Op::Conv(_) | Op::Dense(_) | Op::AveragePool(_) => {}
        }
    }
    // All members of a class have the same number of elements; its channels are as fine as all of them allow.
    let mut scales: Vec<Option<Scale>> = vec![None; graph.nodes().len()];
    for (id, node) in graph.nodes() {
        let class = &mut scales[classes.find(id)];
        let channels =
            class.as_ref().map_or(node.channels(), |class| gcd(class.channels.len(), node.channels()));
        *class = Some(Scale { channels: vec![0.0; channels], elements: node.elements() });
    }
    for (id, node) in graph.nodes() {
        let class = scales[classes.find(id)].as_mut().expect("filled above");
        let finer = node.channels() / class.channels.len();
        for (channel, largest) in calibration.range(id).channels.iter().enumerate() {
            let scale = &mut class.channels[channel / finer];
            *scale = scale.max(largest * margin);
        }
    }
    for class in scales.iter_mut().flatten() {
        let largest = class.channels.iter().copied().fold(0.0, f64::max);
        // A value that is zero in all samples has no unit of its own.
        let least = if largest > 0.0 { largest * QUIET } else { 1.0 };
        class.channels.iter_mut().for_each(|scale| *scale = scale.max(least));
    }
    for id in uniform {
        let class = scales[classes.find(id)].as_mut().expect("filled above");
        let largest = class.channels.iter().copied().fold(0.0, f64::max);
        class.channels.fill(largest);
    }
    let of = |id| scales[classes.find(id)].clone().expect("filled above");
    graph.nodes().map(|(id, _)| of(id)).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
