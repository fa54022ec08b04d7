//! A network with polynomials in the place of its activations: units, intervals, polynomials.

use crate::approximation::{Approximation, ApproximationOptions, Shape};
use crate::calibrate::Calibration;
use crate::graph::{Graph, NodeId, Op};
use crate::scales::{self, Scale};
use cerium_compiler::ciphertext::Lanes;

/// What takes the place of the activations of a network, and the units of all values, which are those of its intervals.
#[derive(Clone, Debug)]
pub struct Substitution {
    scales: Vec<Scale>,
    approximations: Vec<Option<Approximation>>,
}

impl Substitution {
    /// Polynomials of one degree.
    pub fn uniform(graph: &Graph, calibration: &Calibration, options: &ApproximationOptions) -> Self {
        Self::new(graph, calibration, options, |_| Shape::Series(options.degree))
    }

    /// Polynomials of the shape that `shape` gives each activation; the options' degree does not matter.
    pub fn new(
        graph: &Graph,
        calibration: &Calibration,
        options: &ApproximationOptions,
        shape: impl Fn(NodeId) -> Shape,
    ) -> Self {
        let scales = scales::choose(graph, calibration, options.margin);
        let mut new = Self { scales, approximations: vec![None; graph.nodes().len()] };
        for (id, node) in graph.nodes() {
            if let Op::Activation(_) = node.op {
                new.approximations[id.index()] =
                    Some(new.fit(graph, calibration, id, &shape(id), options.floor));
            }
        }
        new
    }

    /// An activation's approximation by another shape, in the units of this substitution.
    pub(crate) fn fit(
        &self,
        graph: &Graph,
        calibration: &Calibration,
        id: NodeId,
        shape: &Shape,
        floor: f64,
    ) -> Approximation {
        let Op::Activation(activation) = graph[id].op else { panic!("{id} is no activation") };
        let input = graph[id].inputs[0];
        let from = self.scale(input);
        let plane = graph[input].elements() / graph[input].channels();
        let density = calibration.range(input).density(|channel| from.of(channel * plane));
        // A homogeneous function is the same in all units, so it is fitted on [-1, 1].
        let range = if activation.is_homogeneous() { 1.0 } else { from.of(0) };
        Approximation::fit(activation, range, &density, shape, floor)
    }

    /// The unit of a value.
    pub fn scale(&self, id: NodeId) -> &Scale {
        &self.scales[id.index()]
    }

    /// What computes a node, if it is an activation.
    pub fn approximation(&self, id: NodeId) -> Option<&Approximation> {
        self.approximations[id.index()].as_ref()
    }

    /// Replaces the approximation of an activation.
    pub(crate) fn set(&mut self, id: NodeId, approximation: Approximation) {
        self.approximations[id.index()] = Some(approximation);
    }

    /// The activations as they are computed under encryption, for [`walk`](crate::reference::walk).
    ///
    /// # Panics
    /// The function, if it is called for a node that is no activation.
    pub fn activate(&self) -> impl Fn(NodeId, &mut [Lanes]) + '_ {
        |id, values| {
            let approximation = self.approximation(id).expect("called for activation nodes only");
            let homogeneous = approximation.activation.is_homogeneous();
            let unit = |element| if homogeneous { self.scale(id).of(element) } else { approximation.range };
            for (element, lanes) in values.iter_mut().enumerate() {
                let reciprocal = unit(element).recip();
                lanes.iter_mut().for_each(|x| *x *= reciprocal);
            }
            approximation.form.evaluate_lanes(values);
            if homogeneous {
                for (element, lanes) in values.iter_mut().enumerate() {
                    let unit = unit(element);
                    lanes.iter_mut().for_each(|x| *x *= unit);
                }
            }
        }
    }
}
