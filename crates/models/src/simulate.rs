//! The packed, approximated program on clear slots, against the original network.
//!
//! What the encrypted program computes is what this computes, up to the noise of encryption: accuracy is decided here,
//! and a layer that loses it is named.

use crate::graph::{NodeId, Op};
use crate::lower::Plan;
use crate::reference::{self, InputError};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{Interpreter, Slots};
use rayon::prelude::*;

/// What a layer may lose before it is reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Largest root-mean-square error of a layer's values, relative to the root mean square of the values.
    pub relative_error: f64,
    /// Largest magnitude of an activation's input in units of its polynomial's interval.
    pub range: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { relative_error: 0.5, range: 1.0 }
    }
}

/// How a layer fared over all inputs. Values and errors are in the network's units.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its operation, as in listings.
    pub operation: String,
    /// Smallest value in the original network.
    pub min: f64,
    /// Largest value in the original network.
    pub max: f64,
    /// Largest magnitude of a slot: must stay within 1 before an activation.
    pub largest_slot: f64,
    /// Largest error of a value.
    pub max_error: f64,
    /// Root-mean-square error of its values.
    pub rms_error: f64,
    /// That error relative to the root mean square of the values.
    pub relative_error: f64,
    /// Why it is over budget, if it is.
    pub over_budget: Option<String>,
}

/// The outcome of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// Layers in order of computation, the input first.
    pub layers: Vec<LayerReport>,
    /// Outputs of the original network, one for each input.
    pub clear: Vec<Vec<f64>>,
    /// Outputs of the program.
    pub packed: Vec<Vec<f64>>,
}

impl Simulation {
    /// The first layer over budget.
    pub fn first_over_budget(&self) -> Option<&LayerReport> {
        self.layers.iter().find(|layer| layer.over_budget.is_some())
    }

    /// For how many inputs both have the same largest output.
    pub fn agreements(&self) -> usize {
        self.clear.iter().zip(&self.packed).filter(|(a, b)| largest(a) == largest(b)).count()
    }
}

/// Index of the largest output: the predicted class.
pub fn largest(outputs: &[f64]) -> usize {
    (0..outputs.len()).max_by(|&a, &b| outputs[a].total_cmp(&outputs[b])).unwrap_or(0)
}

/// An input that cannot be simulated.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[error("input {index}: {source}")]
pub struct SimulationError {
    /// Which one, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub source: InputError,
}

/// Sums over the inputs of one layer.
#[derive(Clone, Copy)]
struct Sums {
    min: f64,
    max: f64,
    slot: f64,
    error: f64,
    square_error: f64,
    square: f64,
}

impl Sums {
    const EMPTY: Self = Self {
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        slot: 0.0,
        error: 0.0,
        square_error: 0.0,
        square: 0.0,
    };

    fn merge(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            slot: self.slot.max(other.slot),
            error: self.error.max(other.error),
            square_error: self.square_error + other.square_error,
            square: self.square + other.square,
        }
    }
}

/// Runs original and program on every input, as many at once as the plan's batch.
pub fn simulate(
    plan: &Plan<'_>,
    params: &Params,
    inputs: &[&[f32]],
    budget: &Budget,
) -> Result<Simulation, SimulationError> {
    let graph = plan.graph();
    let program = plan.probed(params);
    let interpreter = Interpreter::new(&program.module);
    let output = graph.output().index();
    let batch = plan.batch().pictures();
    // One run of the program for the inputs of a batch.
    let run = |(first, inputs): (usize, &[&[f32]])| {
        for (index, input) in inputs.iter().enumerate() {
            let index = first * batch + index;
            reference::check_input(&graph.input().shape, input)
                .map_err(|source| SimulationError { index, source })?;
        }
        let values = interpreter.run(&[program.inputs[0].packings[0].slots(inputs, params.slots())]);
        let run = |(picture, input): (usize, &&[f32])| {
            let clear = reference::trace(graph, input).expect("the input was checked");
            let nodes = graph.nodes().zip(clear.iter().zip(&values));
            let sums: Vec<Sums> = nodes
                .map(|((id, _), (clear, slots))| compare(clear, &unpack(plan, id, picture, slots), slots))
                .collect();
            let packed = unpack(plan, graph.output(), picture, &values[output]);
            (sums, clear.into_iter().nth(output).expect("the output is a node"), packed)
        };
        Ok(inputs.par_iter().enumerate().map(run).collect::<Vec<_>>())
    };
    let runs: Vec<_> = inputs.par_chunks(batch).enumerate().map(run).collect::<Result<_, _>>()?;
    let runs: Vec<_> = runs.into_iter().flatten().collect();
    let layers = graph.nodes().map(|(id, node)| {
        let sums = runs.iter().map(|(sums, ..)| sums[id.index()]).fold(Sums::EMPTY, Sums::merge);
        let count = (runs.len() * node.elements()).max(1) as f64;
        let relative_error = (sums.square_error / sums.square.max(f64::MIN_POSITIVE)).sqrt();
        let feeds_activation =
            graph.nodes().any(|(_, reader)| matches!(reader.op, Op::Activation(_)) && reader.inputs[0] == id);
        let over_budget = if feeds_activation && sums.slot > budget.range {
            Some(format!(
                "its values reach {:.2} times the interval of the activation behind it; calibrate with more samples or \
                 a wider margin",
                sums.slot
            ))
        } else if relative_error > budget.relative_error {
            Some(format!(
                "its relative error is {relative_error:.3}, more than {}; a higher degree may help",
                budget.relative_error
            ))
        } else {
            None
        };
        LayerReport {
            id,
            name: node.name.clone(),
            operation: node.op.name(),
            min: sums.min,
            max: sums.max,
            largest_slot: sums.slot,
            max_error: sums.error,
            rms_error: (sums.square_error / count).sqrt(),
            relative_error,
            over_budget,
        }
    });
    let layers = layers.collect();
    let (clear, packed) = runs.into_iter().map(|(_, clear, packed)| (clear, packed)).unzip();
    Ok(Simulation { layers, clear, packed })
}

/// The elements of a node's value of one picture of the batch.
fn unpack(plan: &Plan<'_>, id: NodeId, picture: usize, slots: &Slots) -> Vec<f64> {
    let step = plan.step(id);
    let slot = |element| plan.batch().slot(picture, step.layout.slot(element));
    let elements = 0..plan.graph()[id].elements();
    elements.map(|element| slots[slot(element)].re * step.scale.of(element)).collect()
}

fn compare(clear: &[f64], packed: &[f64], slots: &Slots) -> Sums {
    let slot = slots.iter().map(|slot| slot.re.abs()).fold(0.0, f64::max);
    clear.iter().zip(packed).fold(Sums { slot, ..Sums::EMPTY }, |sums, (&value, &packed)| {
        let error = (value - packed).abs();
        sums.merge(Sums {
            min: value,
            max: value,
            slot: 0.0,
            error,
            square_error: error * error,
            square: value * value,
        })
    })
}
