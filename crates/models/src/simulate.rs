//! The packed, approximated program on clear slots, against the original network.
//!
//! What the encrypted program computes is what this computes, up to the noise of encryption: accuracy is decided here,
//! and a layer that loses it is named.

use crate::graph::{NodeId, Op};
use crate::lower::{Plan, Realization};
use crate::reference::{self, InputError, exact};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{LANES, LaneInterpreter, Lanes};
use cerium_compiler::dsl::Packing;
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// What computes it, where that is an approximation: the shape of its polynomials, and their levels; else empty.
    pub realized_by: String,
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

    /// The largest difference between an output and that of the original network.
    pub fn largest_error(&self) -> f64 {
        let pairs = self.clear.iter().flatten().zip(self.packed.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
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

/// Runs original and program on every input, as many in a ciphertext as the plan's batch, several of those side by side, on
/// all threads; `progress(done, total)` is called as inputs are done.
pub fn simulate(
    plan: &Plan<'_>,
    params: &Params,
    inputs: &[&[f32]],
    budget: &Budget,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Simulation, SimulationError> {
    let graph = plan.graph();
    for (index, input) in inputs.iter().enumerate() {
        reference::check_input(&graph.input().shape, input)
            .map_err(|source| SimulationError { index, source })?;
    }
    let program = plan.probed(params);
    let interpreter = LaneInterpreter::new(&program.module).expect("programs of networks are real");
    let ids: Vec<NodeId> = graph.nodes().map(|(id, _)| id).collect();
    let (done, total) = (AtomicUsize::new(0), inputs.len());
    let batch = plan.batch().pictures();
    let run = |inputs: &[&[f32]]| {
        let lanes: Vec<&[&[f32]]> = inputs.chunks(batch).collect();
        // The pictures of all lanes that lie in the same place, with the values of all nodes. The last lane may lack some.
        let picture = |place: usize| {
            let inputs: Vec<&[f32]> = lanes.iter().filter_map(|lane| lane.get(place).copied()).collect();
            let mut clear = Vec::with_capacity(ids.len());
            reference::walk(graph, &inputs, exact(graph), |_, value| clear.push(value.to_vec()));
            (inputs.len(), clear)
        };
        let pictures: Vec<(usize, Vec<Vec<Lanes>>)> = (0..lanes[0].len()).map(picture).collect();
        let mut sums = vec![Sums::EMPTY; ids.len()];
        let mut packed = vec![Vec::new(); pictures.len()];
        let slots = pack(&program.inputs[0].packings[0], &lanes);
        interpreter.run(vec![slots], &mut |node, slots| {
            for (place, (count, clear)) in pictures.iter().enumerate() {
                let values = unpack(plan, ids[node], place, slots);
                sums[node] = sums[node].merge(compare(&clear[node], &values, slots, *count));
                if ids[node] == graph.output() {
                    packed[place] = values;
                }
            }
        });
        let outputs = (0..inputs.len()).map(|index| {
            let (lane, place) = (index / batch, index % batch);
            let of = |values: &[Lanes]| values.iter().map(|value| value[lane]).collect();
            (of(&pictures[place].1[graph.output().index()]), of(&packed[place]))
        });
        let outputs: Vec<(Vec<f64>, Vec<f64>)> = outputs.collect();
        progress(done.fetch_add(inputs.len(), Ordering::Relaxed) + inputs.len(), total);
        (sums, outputs)
    };
    let runs: Vec<_> = inputs.par_chunks(LANES * batch).map(run).collect();
    let layers = graph.nodes().map(|(id, node)| {
        let sums = runs.iter().map(|(sums, _)| sums[id.index()]).fold(Sums::EMPTY, Sums::merge);
        let count = (inputs.len() * node.elements()).max(1) as f64;
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
            realized_by: match &plan.step(id).realization {
                Realization::Polynomial(p) => format!("{} in {} levels", p.shape, p.shape.depth()),
                _ => String::new(),
            },
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
    let (clear, packed) = runs.into_iter().flat_map(|(_, outputs)| outputs).unzip();
    Ok(Simulation { layers, clear, packed })
}

/// One period of the slots of each lane's inputs.
fn pack(packing: &Packing, lanes: &[&[&[f32]]]) -> Vec<Lanes> {
    let mut packed = vec![[0.0; LANES]; packing.gather.len()];
    for (lane, inputs) in lanes.iter().enumerate() {
        let slots = packing.slots(inputs, packing.gather.len());
        packed.iter_mut().zip(slots).for_each(|(packed, slot)| packed[lane] = slot.re);
    }
    packed
}

/// The elements of a node's value of one picture of the batch.
fn unpack(plan: &Plan<'_>, id: NodeId, picture: usize, slots: &[Lanes]) -> Vec<Lanes> {
    let step = plan.step(id);
    let element = |element| {
        let (slot, scale) = (plan.batch().slot(picture, step.layout.slot(element)), step.scale.of(element));
        slots[slot & (slots.len() - 1)].map(|slot| slot * scale)
    };
    (0..plan.graph()[id].elements()).map(element).collect()
}

/// What the first `count` lanes of a layer add to its report.
fn compare(clear: &[Lanes], packed: &[Lanes], slots: &[Lanes], count: usize) -> Sums {
    let lanes =
        |values: &[Lanes]| -> Vec<f64> { values.iter().flat_map(|lanes| &lanes[..count]).copied().collect() };
    let mut sums =
        Sums { slot: lanes(slots).iter().fold(0.0, |most, slot| slot.abs().max(most)), ..Sums::EMPTY };
    for (value, packed) in lanes(clear).into_iter().zip(lanes(packed)) {
        let error = (value - packed).abs();
        sums.min = sums.min.min(value);
        sums.max = sums.max.max(value);
        sums.error = sums.error.max(error);
        sums.square_error += error * error;
        sums.square += value * value;
    }
    sums
}
