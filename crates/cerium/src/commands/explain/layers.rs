//! The layers of a program: its stages in the order of the network, with the edges between them where the program knows its network.

use std::collections::HashMap;

use cerium_artifact::{Artifact, Stage, StageId};
use cerium_models::graph::Op;
use cerium_runtime::profile::UsageTables;

use crate::network::Network;

/// A layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Its name, fit to be printed.
    pub(super) name: String,
    /// What it computes, if the network is known.
    pub(super) operation: Option<String>,
    /// Shape of its value, if the network is known.
    pub(super) shape: Vec<usize>,
    /// The layers that it reads, as positions in the list.
    pub(super) operands: Vec<usize>,
    /// Its stage; `None` for the input.
    pub(super) stage: Option<StageId>,
}

/// The layers of a program.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    pub(super) layers: Vec<Layer>,
    /// Whether their edges are known.
    pub(super) is_graph: bool,
    /// Stages of functions: they count for the layers that call these.
    pub(super) functions: Vec<StageId>,
}

impl Layers {
    /// The layers of an artifact whose run uses so much.
    pub(super) fn new(artifact: &Artifact, usage: &UsageTables) -> Layers {
        let ids = || (0..artifact.stages.len()).map(|index| StageId(index as u16));
        let functions = ids().filter(|&id| usage.functions.stage(id).launches > 0).collect();
        let network = Network::parse(artifact.name.clone(), artifact.model.clone()).ok();
        let mut layers = network.map_or(Vec::new(), |network| of_network(artifact, &network));
        let is_graph = !layers.is_empty();
        // What the network does not know of.
        for id in ids().filter(|&id| usage.layer(id).launches > 0) {
            if layers.iter().all(|layer| layer.stage != Some(id)) {
                layers.push(Layer {
                    name: printable(&artifact.stages[usize::from(id.0)].name),
                    operation: None,
                    shape: Vec::new(),
                    operands: Vec::new(),
                    stage: Some(id),
                });
            }
        }
        Layers { layers, is_graph, functions }
    }
}

/// The nodes of a network that are stages, and its input.
fn of_network(artifact: &Artifact, network: &Network) -> Vec<Layer> {
    let mut stages: HashMap<&str, StageId> = HashMap::new();
    for (index, stage) in artifact.stages.iter().enumerate() {
        stages.entry(&stage.name).or_insert(StageId(index as u16));
    }
    let mut layers: Vec<Layer> = Vec::new();
    // The layer whose value a node has: that of a change of shape is its operand's.
    let mut layer_of: Vec<Option<usize>> = Vec::new();
    for (_, node) in network.graph.nodes() {
        let mut operands: Vec<usize> =
            node.inputs.iter().filter_map(|input| layer_of[input.index()]).collect();
        operands.sort_unstable();
        operands.dedup();
        let is_input = matches!(node.op, Op::Input);
        // Nodes of one name are one stage, which stands where the first of them does.
        let stage = if is_input { None } else { stages.remove(node.name.as_str()) };
        if !is_input && stage.is_none() {
            layer_of.push(operands.first().copied());
            continue;
        }
        layer_of.push(Some(layers.len()));
        layers.push(Layer {
            name: printable(&node.name),
            operation: Some(node.op.name()),
            shape: node.shape.clone(),
            operands,
            stage,
        });
    }
    // A model file that has nothing to do with the program.
    if layers.iter().all(|layer| layer.stage.is_none()) { Vec::new() } else { layers }
}

/// How often a stage does an operation.
pub(super) fn count(stage: &Stage, operation: &str) -> u64 {
    stage.operations.iter().filter(|(name, _)| name == operation).map(|(_, count)| count).sum()
}

/// Products of two ciphertexts, and of a ciphertext with a plaintext.
pub(super) fn products(stage: &Stage) -> u64 {
    count(stage, "mul") + count(stage, "mul_plain")
}

/// A name from a file as it may be printed: control characters could do to a terminal what they like.
pub(super) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that change the order or the looks of others, and those that no text has.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}
