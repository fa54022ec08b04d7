//! Chooses the polynomials of all activations: as cheap as an accuracy budget allows.
//!
//! Candidates are judged by running the network with them on samples, in the clear. All activations first take the cheapest
//! shape, then the next one, until the loss is within the budget; then those that matter least take shapes of fewer
//! levels again, as many as the budget allows.
//!
//! The loss is an expectation: where the network with polynomials answers with another class, the network itself says how
//! probable either class is, and the difference is the accuracy that is expected to be lost. Counting right answers would
//! need several thousand samples to tell half a point from chance. Networks are surer than they are right; where there are
//! labels, they say by how much (temperature scaling; Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

use crate::approximation::{ApproximationOptions, Shape};
use crate::calibrate::Calibration;
use crate::graph::{Graph, NodeId, Op};
use crate::reference::{exact, walk};
use crate::simulate::largest;
use crate::substitution::Substitution;
use cerium_compiler::ciphertext::{LANES, Lanes};
use rayon::prelude::*;

/// Samples on which a choice is accepted or not.
const JUDGES: usize = 256;
/// Samples on which activations are compared with each other.
const SCOUTS: usize = 64;
/// Rounds in which activations give up levels.
const ROUNDS: usize = 2;

/// What a choice is made by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Points of accuracy (hundredths) that may be lost; positive.
    pub points: f64,
    /// Margin and floor of the fits.
    pub options: ApproximationOptions,
}

impl Default for Budget {
    /// Ranges of twice what 200 pictures of CIFAR-10 show hold for the 1,000 that were tried, those of one and a half times do
    /// not; a low floor pays for the width.
    fn default() -> Self {
        Self {
            points: 1.0,
            options: ApproximationOptions { margin: 2.0, floor: 0.003, ..Default::default() },
        }
    }
}

/// Inputs on which choices are judged.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// At least one; [`check_input`](crate::reference::check_input) admits them.
    pub inputs: &'a [&'a [f32]],
    /// The class of each, where they are known.
    pub labels: Option<&'a [usize]>,
}

/// A choice, and what it costs.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The network with its polynomials.
    pub substitution: Substitution,
    /// Points of accuracy that are expected to be lost on the samples.
    pub loss: f64,
    /// Choices that were tried.
    pub tried: usize,
}

/// Tries shapes for all activations until the loss on `samples` is within the budget. If no choice is, the best one is returned, whose loss says so. `progress` is called with the number
/// of choices tried, and how many there may be.
///
/// # Panics
/// If there are no samples.
pub fn choose(
    graph: &Graph,
    calibration: &Calibration,
    samples: &Samples<'_>,
    budget: &Budget,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Choice {
    assert!(!samples.inputs.is_empty(), "a budget is judged on samples");
    // Spread over all of them, which may be sorted.
    let step = samples.inputs.len().div_ceil(JUDGES);
    let inputs: Vec<&[f32]> = samples.inputs.iter().step_by(step).copied().collect();
    let labels: Option<Vec<usize>> =
        samples.labels.map(|labels| labels.iter().step_by(step).copied().collect());
    let mut search = Search::new(graph, calibration, &inputs, budget, progress);
    if let Some(labels) = labels {
        let temperature = temperature(&search.clear, &labels);
        search.clear.iter_mut().flatten().for_each(|value| *value /= temperature);
        search.temperature = temperature;
    }
    let mut choice = search.rise();
    for _ in 0..ROUNDS {
        if !search.thin(&mut choice) {
            break;
        }
    }
    Choice { tried: search.tried, ..choice }
}

struct Search<'a> {
    graph: &'a Graph,
    calibration: &'a Calibration,
    samples: &'a [&'a [f32]],
    budget: &'a Budget,
    progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Outputs of the network itself, divided by the temperature.
    clear: Vec<Vec<f64>>,
    /// By what outputs are divided so that their softmax is as sure as it is right.
    temperature: f64,
    activations: Vec<NodeId>,
    tried: usize,
    expected: usize,
}

impl<'a> Search<'a> {
    fn new(
        graph: &'a Graph,
        calibration: &'a Calibration,
        samples: &'a [&'a [f32]],
        budget: &'a Budget,
        progress: &'a (dyn Fn(usize, usize) + Sync),
    ) -> Self {
        let is_free = |op: &Op| matches!(op, Op::Activation(f) if f.polynomial_degree().is_none());
        let activations: Vec<NodeId> =
            graph.nodes().filter(|(_, node)| is_free(&node.op)).map(|(id, _)| id).collect();
        let expected = 6 + ROUNDS * (activations.len() + 4);
        let clear = outputs(graph, samples, exact(graph));
        Self {
            graph,
            calibration,
            samples,
            budget,
            progress,
            clear,
            temperature: 1.0,
            activations,
            tried: 0,
            expected,
        }
    }

    fn candidates(&self, id: NodeId) -> Vec<Shape> {
        match self.graph[id].op {
            Op::Activation(activation) => Shape::candidates(activation),
            _ => Vec::new(),
        }
    }

    /// All activations by their best shape of a time, for rising times, until the budget is kept.
    fn rise(&mut self) -> Choice {
        let shapes: Vec<Vec<Shape>> = self.activations.iter().map(|&id| self.candidates(id)).collect();
        let mut times: Vec<f64> = shapes.iter().flatten().map(Shape::time).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        let mut best: Option<Choice> = None;
        // A network without activations has one choice.
        for time in if times.is_empty() { vec![0.0] } else { times } {
            let shape = |id: NodeId| match self.activations.binary_search(&id) {
                Ok(index) => {
                    let within = shapes[index].iter().rev().find(|shape| shape.time() <= time);
                    within.unwrap_or(&shapes[index][0]).clone()
                }
                // A function that is a polynomial itself.
                Err(_) => Shape::Series(2),
            };
            let substitution = Substitution::new(self.graph, self.calibration, &self.budget.options, shape);
            let loss = self.loss(&substitution);
            if best.as_ref().is_none_or(|best| loss < best.loss) {
                best = Some(Choice { substitution, loss, tried: 0 });
            }
            if loss <= self.budget.points {
                break;
            }
        }
        best.expect("there is a first choice")
    }

    /// Takes levels from activations, from those first where it moves the outputs least, as many as the budget allows; whether
    /// there were any.
    fn thin(&mut self, choice: &mut Choice) -> bool {
        let mut offers = Vec::new();
        for id in self.activations.clone() {
            let depth = choice.substitution.approximation(id).map_or(0, |now| now.shape.depth());
            // The last one is the dearest, and the best.
            let fewer = self.candidates(id).into_iter().rev().find(|shape| shape.depth() < depth);
            let Some(shape) = fewer else { continue };
            let (graph, calibration, floor) = (self.graph, self.calibration, self.budget.options.floor);
            let fitted = choice.substitution.fit(graph, calibration, id, &shape, floor);
            let mut trial = choice.substitution.clone();
            trial.set(id, fitted.clone());
            offers.push((self.distance(&trial), id, fitted));
        }
        offers.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The most that are within the budget, by bisection.
        let (mut kept, mut most) = (0, offers.len());
        while kept < most {
            let count = (kept + most).div_ceil(2);
            let mut trial = choice.substitution.clone();
            offers[..count].iter().for_each(|(_, id, fitted)| trial.set(*id, fitted.clone()));
            let loss = self.loss(&trial);
            if loss <= self.budget.points {
                (kept, *choice) = (count, Choice { substitution: trial, loss, tried: 0 });
            } else {
                most = count - 1;
            }
        }
        kept > 0
    }

    /// Points of accuracy that a substitution is expected to lose on all samples.
    fn loss(&mut self, substitution: &Substitution) -> f64 {
        let found = self.run(substitution, self.samples);
        100.0 * found.iter().zip(&self.clear).map(|(found, clear)| lost(clear, found)).sum::<f64>()
            / found.len() as f64
    }

    /// How far a substitution moves the outputs of some samples: the sum of squares.
    fn distance(&mut self, substitution: &Substitution) -> f64 {
        let found = self.run(substitution, &self.samples[..SCOUTS.min(self.samples.len())]);
        let pairs = found.iter().flatten().zip(self.clear.iter().flatten());
        pairs.map(|(found, clear)| (found / self.temperature - clear).powi(2)).sum()
    }

    fn run(&mut self, substitution: &Substitution, samples: &[&[f32]]) -> Vec<Vec<f64>> {
        self.tried += 1;
        (self.progress)(self.tried, self.expected.max(self.tried));
        outputs(self.graph, samples, substitution.activate())
    }
}

/// The outputs of all samples.
fn outputs(
    graph: &Graph,
    samples: &[&[f32]],
    activate: impl Fn(NodeId, &mut [Lanes]) + Sync,
) -> Vec<Vec<f64>> {
    let run = |samples: &[&[f32]]| {
        let mut outputs = Vec::new();
        walk(graph, samples, &activate, |id, value| {
            if id == graph.output() {
                let lane = |lane: usize| value.iter().map(|value| value[lane]).collect();
                outputs = (0..samples.len()).map(lane).collect();
            }
        });
        outputs
    };
    samples.par_chunks(LANES).flat_map_iter(run).collect()
}

/// The temperature under which the labels are most probable.
fn temperature(outputs: &[Vec<f64>], labels: &[usize]) -> f64 {
    let surprise = |log: f64| -> f64 {
        let one = |(values, label): (&Vec<f64>, &usize)| {
            let values: Vec<f64> = values.iter().map(|value| value / log.exp2()).collect();
            let most = values[largest(&values)];
            let total: f64 = values.iter().map(|value| (value - most).exp()).sum();
            total.ln() - values.get(*label).map_or(0.0, |value| value - most)
        };
        outputs.iter().zip(labels).map(one).sum()
    };
    // It has one minimum. Beyond these limits there are too few samples to tell.
    let (mut low, mut high) = (-2.0, 2.0);
    for _ in 0..30 {
        let (a, b) = (low + (high - low) * 0.4, low + (high - low) * 0.6);
        if surprise(a) < surprise(b) { high = b } else { low = a }
    }
    f64::exp2(0.5 * (low + high))
}

/// How much less probable the class with the largest output `found` is than that with the largest output `clear`, by the
/// probabilities that the softmax of `clear` gives; all of it where a value is not a number. A single output is no class: there
/// it is the relative error.
fn lost(clear: &[f64], found: &[f64]) -> f64 {
    if found.iter().any(|value| !value.is_finite()) {
        return 1.0;
    }
    if let ([clear], [found]) = (clear, found) {
        return ((clear - found) / clear.abs().max(f64::MIN_POSITIVE)).abs().min(1.0);
    }
    let (was, is) = (clear[largest(clear)], clear[largest(found)]);
    let total: f64 = clear.iter().map(|value| (value - was).exp()).sum();
    (1.0 - (is - was).exp()) / total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::graph::Dense;
    use crate::tensor::Tensor;

    #[test]
    fn losses_are_differences_of_probabilities() {
        let clear = [1.0, 3.0f64.ln() + 1.0, -50.0];
        assert_eq!(lost(&clear, &[0.0, 0.1, 0.0]), 0.0);
        // Three quarters against one.
        assert!((lost(&clear, &[0.2, 0.1, 0.0]) - 0.5).abs() < 1e-12);
        assert_eq!(lost(&clear, &[f64::NAN, 0.1, 0.0]), 1.0);
        assert!((lost(&[2.0], &[1.5]) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn temperatures_make_networks_as_sure_as_they_are_right() {
        // Three in four are right, so the odds should be 3 to 1: twice ln 3 is too sure by a factor of two.
        let outputs = vec![vec![0.0, 2.0 * 3f64.ln()]; 4];
        assert!((temperature(&outputs, &[1, 1, 0, 1]) - 2.0).abs() < 1e-3);
        assert!((temperature(&[vec![0.0, 1.0]], &[1]) - 0.25).abs() < 1e-3, "one sample tells nothing");
    }

    /// Two classes whose difference is `relu(x) + relu(-x) - 0.3` and a half of an activation that does not matter.
    fn folded() -> (Graph, Vec<Vec<f32>>) {
        let dense = |name: &str, shape: [usize; 2], values: &[f32], bias: &[f32]| {
            Op::Dense(Dense { weight: Tensor::new(name, shape.into(), values.into()), bias: bias.into() })
        };
        let mut graph = Graph::new("x", vec![1]).expect("valid");
        let relu = || Op::Activation(Activation::Relu);
        let mut push = |name: &str, op| {
            let last = graph.output();
            graph.push(name, op, vec![last]).expect("valid")
        };
        push("spread", dense("spread", [2, 1], &[1.0, -1.0], &[0.0, 0.0]));
        push("fold", relu());
        push("same", dense("same", [2, 2], &[1.0, 0.0, 0.0, 1.0], &[0.0, 0.0]));
        push("idle", relu());
        push("classes", dense("classes", [2, 2], &[20.0, 20.0, 0.0, 0.0], &[-6.0, 0.0]));
        let samples = (0..200).map(|i| vec![i as f32 / 100.0 - 1.0]).collect();
        (graph, samples)
    }

    #[test]
    fn a_smaller_budget_costs_more() {
        let (graph, samples) = folded();
        let samples: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
        let calibration = Calibration::measure(&graph, &samples).expect("valid");
        let choose = |points| {
            let budget = Budget { points, ..Budget::default() };
            let samples = Samples { inputs: &samples, labels: None };
            let choice = choose(&graph, &calibration, &samples, &budget, &|_, _| {});
            let time: f64 = graph
                .nodes()
                .filter_map(|(id, _)| choice.substitution.approximation(id))
                .map(|approximation| approximation.shape.time())
                .sum();
            println!("{points}: loss {}, time {time}, {} tried", choice.loss, choice.tried);
            assert!(choice.loss <= points);
            time
        };
        let (strict, usual, loose) = (choose(0.02), choose(1.0), choose(30.0));
        assert!(strict > usual && usual >= loose);
        let cheapest = Shape::candidates(Activation::Relu)[0].time();
        assert_eq!(loose, 2.0 * cheapest);
    }
}
