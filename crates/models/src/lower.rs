//! A network to a program on slots.
//!
//! ```text
//! %1 = conv 1->8 5x5 /2 %0        y = x.linear_transform(25 diagonals) + bias
//! %2 = relu %1              ->    z = y * 0.5 + (y * y * 2 - 1).poly_eval(4 Chebyshev coefficients)
//! %4 = dense 784->10 %3           o = z.linear_transform(16 diagonals); o += o.rotate(16); ..; o + bias
//! ```
//!
//! [`Plan`] holds the decisions: units of all values ([`scales`](crate::scales)), polynomials in the place of activations
//! ([`substitution`](crate::substitution)), and where every element lies ([`packing`]).

use crate::approximation::{Approximation, ApproximationOptions};
use crate::calibrate::Calibration;
use crate::graph::{Graph, NodeId, Op};
use crate::linear::Linear;
use crate::packing::{self, Batch, Cost, Layout, PackingError, Transform};
use crate::scales::Scale;
use crate::substitution::Substitution;
use cerium_artifact::NO_ELEMENT;
use cerium_ckks::params::Params;
use cerium_compiler::dsl::{Ct, Packing, Program, SourceProgram};
use std::fmt;

/// How a network becomes a program: all decisions, before any code.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    graph: &'a Graph,
    batch: Batch,
    steps: Vec<Step>,
}

/// What is decided about one node.
#[derive(Clone, Debug)]
pub struct Step {
    /// Units of its value.
    pub scale: Scale,
    /// Where its elements lie, for each picture of the batch.
    pub layout: Layout,
    /// What computes it.
    pub realization: Realization,
}

/// What computes a node's value.
#[derive(Clone, Debug)]
pub enum Realization {
    /// The client encrypts it.
    Input,
    /// Rotations and products with plaintexts.
    Linear(Cost),
    /// One or several polynomials.
    Polynomial(Approximation),
    /// A sum of ciphertexts.
    Sum,
    /// Nothing: the same slots.
    Same,
}

impl<'a> Plan<'a> {
    /// Plans a network for ciphertexts of `slots` slots that hold a batch of pictures, with ranges from a calibration of the
    /// same graph.
    ///
    /// # Errors
    /// If a value of all pictures does not fit into one ciphertext.
    pub fn new(
        graph: &'a Graph,
        calibration: &Calibration,
        slots: usize,
        batch: Batch,
        options: &ApproximationOptions,
    ) -> Result<Self, PackingError> {
        Self::with(graph, &Substitution::uniform(graph, calibration, options), slots, batch)
    }

    /// Plans a network with these polynomials for ciphertexts of `slots` slots that hold a batch of pictures.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn with(
        graph: &'a Graph,
        substitution: &Substitution,
        slots: usize,
        batch: Batch,
    ) -> Result<Self, PackingError> {
        let layouts = packing::choose(graph, slots, batch)?;
        let steps = graph.nodes().zip(&layouts).map(|((id, node), layout)| {
            let realization = match &node.op {
                Op::Input => Realization::Input,
                Op::Conv(_) | Op::Dense(_) | Op::AveragePool(_) => {
                    let linear = Linear::of(graph, id).expect("these are the linear layers");
                    Realization::Linear(packing::cost(&linear, &layouts[linear.input().index()], layout))
                }
                Op::Activation(_) => {
                    let approximation = substitution.approximation(id).expect("activations have one");
                    Realization::Polynomial(approximation.clone())
                }
                Op::Add => Realization::Sum,
                Op::Reshape => Realization::Same,
            };
            Step { scale: substitution.scale(id).clone(), layout: layout.clone(), realization }
        });
        Ok(Self { graph, batch, steps: steps.collect() })
    }

    /// The network.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// The pictures of a ciphertext.
    pub fn batch(&self) -> Batch {
        self.batch
    }

    /// What is decided about a node.
    pub fn step(&self, id: NodeId) -> &Step {
        &self.steps[id.index()]
    }

    /// The program: the network's input to its output, of every picture of the batch.
    ///
    /// # Panics
    /// If `params` has fewer slots than the plan was made for.
    pub fn program(&self, name: &str, params: &Params) -> SourceProgram {
        self.build(name, params, |id| id == self.graph.output())
    }

    /// The program with the value of every node as an output, named by its id, in order.
    pub(crate) fn probed(&self, params: &Params) -> SourceProgram {
        self.build("probe", params, |_| true)
    }

    fn build(&self, name: &str, params: &Params, is_output: impl Fn(NodeId) -> bool) -> SourceProgram {
        let program = Program::new(name, params);
        let mut values: Vec<Ct> = Vec::with_capacity(self.steps.len());
        for (id, node) in self.graph.nodes() {
            let operand = |index: usize| &values[node.inputs[index].index()];
            if !matches!(node.op, Op::Input | Op::Reshape) {
                program.stage(&node.name);
            }
            let value = match &self.step(id).realization {
                Realization::Input => program.input(&node.name, self.input(id)),
                Realization::Linear(_) => self.linear(&program, id, operand(0)),
                Realization::Polynomial(approximation) => {
                    // Homogeneous: the polynomial is in units of the range on both sides.
                    let unit = if approximation.activation.is_homogeneous() {
                        1.0
                    } else {
                        self.step(id).scale.of(0)
                    };
                    approximation.form.lower(operand(0), unit.recip())
                }
                Realization::Sum => operand(0) + operand(1),
                Realization::Same => operand(0).clone(),
            };
            values.push(value);
        }
        for (id, _) in self.graph.nodes().filter(|(id, _)| is_output(*id)) {
            let name = if id == self.graph.output() { self.graph[id].name.clone() } else { id.to_string() };
            program.output(&name, self.output(id), &values[id.index()]);
        }
        program.finish()
    }

    fn linear(&self, program: &Program, id: NodeId, x: &Ct) -> Ct {
        let linear = Linear::of(self.graph, id).expect("planned as a linear layer");
        let (from, to) = (self.step(linear.input()), self.step(id));
        let transform = Transform::new(&linear, &from.layout, &to.layout).spread(self.batch);
        let name = linear.name();
        let weights = program.tensor(name, linear.weights(&from.scale, &to.scale));
        let diagonals: Vec<_> = transform
            .diagonals
            .iter()
            .map(|diagonal| (diagonal.offset, program.weight(weights, &diagonal.table, 1.0)))
            .collect();
        let mut y = x.linear_transform(&diagonals);
        for &fold in &transform.folds {
            y = &y + y.rotate(fold);
        }
        let Some(bias) = linear.bias(&to.scale) else { return y };
        let plane = linear.outputs() / bias.len();
        let channel = |&element: &u32| if element == NO_ELEMENT { element } else { element / plane as u32 };
        let channels: Vec<u32> = to.layout.elements().iter().map(channel).collect();
        let table = self.batch.spread(&channels);
        let bias = program.tensor(&format!("{name} bias"), bias);
        y.add_weight(&program.weight(bias, &table, 1.0))
    }

    /// The packing of the network's input.
    fn input(&self, id: NodeId) -> Packing {
        let (step, node) = (self.step(id), &self.graph[id]);
        let gather = self.batch.input(step.layout.elements(), node.elements());
        self.port(id, gather, f64::recip)
    }

    /// The packing of a node's value as an output.
    fn output(&self, id: NodeId) -> Packing {
        let (step, node) = (self.step(id), &self.graph[id]);
        let gather = self.batch.output(step.layout.elements(), node.elements());
        self.port(id, gather, |scale| scale)
    }

    /// A node's value as an input or output; `factor` turns its scale into the port's factor.
    fn port(&self, id: NodeId, gather: Vec<u32>, factor: impl Fn(f64) -> f64) -> Packing {
        Packing {
            shape: self.graph[id].shape.iter().map(|&extent| extent as u32).collect(),
            batch: self.batch.pictures() as u32,
            gather,
            // Ports have one scale for all elements; probes of other values apply theirs when they are read.
            factor: factor(self.step(id).scale.uniform().unwrap_or(1.0)),
            bound: 1.0,
        }
    }
}

/// One line a node: its operation, what computes it, and after how many slots its layout repeats.
impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.graph.nodes() {
            let step = self.step(id);
            write!(f, "{id} {:24} period {:<6}", node.op.name(), step.layout.period())?;
            match &step.realization {
                Realization::Linear(Cost { diagonals, babies, giants }) => {
                    write!(f, " {diagonals} diagonals, {} rotations ({babies} hoisted)", babies + giants)?;
                }
                Realization::Polynomial(p) => {
                    write!(f, " {}, error at most {:.4}, rms {:.4}", p.shape, p.max_error, p.rms_error)?;
                }
                Realization::Input | Realization::Sum | Realization::Same => {}
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
