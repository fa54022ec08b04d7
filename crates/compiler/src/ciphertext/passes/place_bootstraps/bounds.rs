//! How large the slots of every value are, measured on samples.

use std::collections::HashMap;

use num_complex::Complex64;

use super::super::super::{Interpreter, Module, Op, Slots};
use crate::ir::{Symbol, ValueId};

/// Slots may grow by this factor beyond what the samples showed.
const MARGIN: f64 = 2.0;

/// The largest real or imaginary part of each value in runs of a module on clear slots.
pub(super) struct Bounds {
    largest: HashMap<Symbol, Vec<f64>>,
}

impl Bounds {
    /// Runs the module on samples, the inputs of typical runs.
    pub(super) fn measure(module: &Module, samples: &[Vec<Slots>]) -> Bounds {
        // Nodes are told apart by where they are in memory: the module does not move while it is interpreted.
        let mut places: HashMap<usize, (usize, ValueId)> = HashMap::new();
        for (index, function) in module.functions.iter().enumerate() {
            for node in function.nodes.iter().filter(|node| node.results.len() == 1) {
                places.insert(std::ptr::from_ref(node) as usize, (index, node.result()));
            }
        }
        let mut largest: Vec<Vec<f64>> = module.functions.iter().map(|f| vec![0.0; f.types.len()]).collect();
        let parts =
            |slots: &[Complex64]| slots.iter().fold(0.0f64, |most, x| most.max(x.re.abs()).max(x.im.abs()));
        let entry = module.functions.len() - 1;
        for inputs in samples {
            Interpreter::new(module).run_observed(inputs, &mut |node, _, slots| {
                if let Some(&(function, value)) = places.get(&(std::ptr::from_ref(node) as usize)) {
                    let most = &mut largest[function][value.index()];
                    *most = most.max(parts(slots));
                }
            });
            for (most, slots) in largest[entry].iter_mut().zip(inputs) {
                *most = most.max(parts(slots));
            }
        }
        while carry(module, &mut largest) {}
        let names = module.functions.iter().map(|f| f.name.clone());
        Bounds { largest: names.zip(largest).collect() }
    }

    /// A power of two, at least 1, that bounds values with a margin.
    pub(super) fn of(&self, function: &Symbol, values: &[ValueId]) -> f64 {
        let largest = values.iter().map(|v| self.largest[function][v.index()]).fold(0.0, f64::max);
        (MARGIN * largest).max(1.0).log2().ceil().exp2()
    }
}

/// Carries magnitudes over calls, into parameters and out of results; whether anything was new.
fn carry(module: &Module, largest: &mut [Vec<f64>]) -> bool {
    let mut moves = Vec::new();
    for (index, function) in module.functions.iter().enumerate() {
        for node in &function.nodes {
            let results = node.results.clone().map(|r| r as usize);
            match &node.op {
                Op::Call { args, function: callee } => {
                    let (callee, inside) =
                        module.find(callee).expect("verified modules call defined functions");
                    let out = results.zip(&inside.results).map(|(r, v)| ((callee, v.index()), (index, r)));
                    let into = args.iter().enumerate().map(|(p, v)| ((index, v.index()), (callee, p)));
                    moves.extend(out.chain(into));
                }
                Op::Bootstrap { xs, .. } => {
                    moves.extend(results.zip(xs).map(|(r, v)| ((index, v.index()), (index, r))));
                }
                _ => {}
            }
        }
    }
    let mut new = false;
    for ((f, v), (g, w)) in moves {
        if largest[f][v] > largest[g][w] {
            largest[g][w] = largest[f][v];
            new = true;
        }
    }
    new
}
