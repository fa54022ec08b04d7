//! Chooses the layouts of a network's values.
//!
//! Values that pass through an operation slot by slot (activations, additions, reshapes) share one layout. Each such class
//! has a handful of candidates; starting from the first of each, classes take in turn the candidate that makes the
//! linear layers around them cheapest, until none changes.

use super::batch::Batch;
use super::diagonals;
use super::layout::{Grid, Layout};
use crate::graph::{Graph, NodeId, Op};
use crate::linear::Linear;
use crate::scales::Classes;
use std::collections::HashMap;

/// Rounds over all classes; they settle after two or three.
const ROUNDS: usize = 8;

/// A network that does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackingError {
    /// A value larger than a ciphertext.
    #[error(
        "{node}: its value of shape {shape:?} needs {needed} slots with its rows and columns padded to powers of two, but a \
         ciphertext of this parameter set has {slots}; choose a set with a larger ring"
    )]
    TooLarge {
        /// The node.
        node: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Slots that it takes at least.
        needed: usize,
        /// Slots of a ciphertext.
        slots: usize,
    },
    /// A batch for which there is no room, of a network that fits.
    #[error(
        "{batch} pictures do not fit into a ciphertext of this parameter set: it has {slots} slots, and {node} takes {needed} \
         of a picture; choose a batch of at most {largest}, or a set with a larger ring"
    )]
    Batch {
        /// Pictures.
        batch: usize,
        /// Slots of a ciphertext.
        slots: usize,
        /// The node whose value takes most.
        node: String,
        /// Slots that it takes at least.
        needed: usize,
        /// Most pictures that fit.
        largest: usize,
    },
}

/// The layout of every node's value for one picture of a batch, by node index.
///
/// # Errors
/// If a value does not fit into its picture's room of `slots` slots.
pub fn choose(graph: &Graph, slots: usize, batch: Batch) -> Result<Vec<Layout>, PackingError> {
    let mut classes = Classes::new(graph.nodes().len());
    for (id, node) in graph.nodes() {
        if matches!(node.op, Op::Activation(_) | Op::Add | Op::Reshape) {
            node.inputs.iter().for_each(|&input| classes.join(id, input));
        }
    }
    let gaps = gaps(graph);
    let grid = grid(graph, &gaps);
    // The candidates of a class are those of its first node: the value that a linear layer or the input makes.
    let mut candidates: Vec<Vec<Layout>> = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.nodes().filter(|(id, _)| classes.find(*id) == id.index()) {
        let found = match node.shape[..] {
            [channels, height, width] => {
                Layout::pictures([channels, height, width], grid, gaps[id.index()], slots)
            }
            _ if node.elements() <= slots => vec![Layout::vector(node.elements())],
            _ => Vec::new(),
        };
        if found.is_empty() {
            let area = if node.shape.len() == 3 { grid.rows.saturating_mul(grid.pitch) } else { 1 };
            let inside: usize = gaps[id.index()].iter().product();
            let blocks = node.channels().div_ceil(if node.shape.len() == 3 { inside } else { 1 });
            return Err(PackingError::TooLarge {
                node: node.name.clone(),
                shape: node.shape.clone(),
                needed: blocks.next_power_of_two().saturating_mul(area),
                slots,
            });
        }
        candidates[id.index()] = found;
    }
    make_room(graph, &mut candidates, slots, batch)?;
    let layers: Vec<(usize, usize, Linear<'_>)> = graph
        .nodes()
        .filter_map(|(id, _)| Linear::of(graph, id).map(|linear| (id, linear)))
        .map(|(id, linear)| (classes.find(linear.input()), classes.find(id), linear))
        .collect();
    let mut choice = vec![0; graph.nodes().len()];
    let mut known: HashMap<(usize, usize, usize), f64> = HashMap::new();
    for _ in 0..ROUNDS {
        let before = choice.clone();
        for class in (0..candidates.len()).filter(|&class| candidates[class].len() > 1) {
            let mut time = |candidate: usize| -> f64 {
                let pick = |other: usize| if other == class { candidate } else { choice[other] };
                let around = layers.iter().enumerate().filter(|(_, (a, b, _))| *a == class || *b == class);
                around
                    .map(|(layer, (a, b, linear))| {
                        *known.entry((layer, pick(*a), pick(*b))).or_insert_with(|| {
                            let (from, to) = (&candidates[*a][pick(*a)], &candidates[*b][pick(*b)]);
                            diagonals::estimate(linear, from, to).time()
                        })
                    })
                    .sum()
            };
            let times: Vec<f64> = (0..candidates[class].len()).map(&mut time).collect();
            let best = (0..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]));
            choice[class] = best.expect("a class has candidates");
        }
        if choice == before {
            break;
        }
    }
    let of = |id| candidates[classes.find(id)][choice[classes.find(id)]].clone();
    Ok(graph.nodes().map(|(id, _)| of(id)).collect())
}

/// Drops the candidates that take more than the room of a picture.
fn make_room(
    graph: &Graph,
    candidates: &mut [Vec<Layout>],
    slots: usize,
    batch: Batch,
) -> Result<(), PackingError> {
    // A class without a candidate is a node whose layout is that of another.
    let least = |id: NodeId| candidates[id.index()].iter().map(Layout::period).min();
    let largest = graph.nodes().filter_map(|(id, node)| Some((least(id)?, node)));
    let largest = largest.max_by_key(|(needed, _)| *needed);
    let (needed, node) = largest.expect("a graph has an input");
    let room = batch.room(slots);
    if needed > room {
        return Err(PackingError::Batch {
            batch: batch.pictures(),
            slots,
            node: node.name.clone(),
            needed,
            largest: slots / needed,
        });
    }
    candidates.iter_mut().for_each(|candidates| candidates.retain(|layout| layout.period() <= room));
    Ok(())
}

/// By how many slots neighbouring pixels of each picture are apart, so that a strided layer moves nothing.
fn gaps(graph: &Graph) -> Vec<[usize; 2]> {
    let mut gaps: Vec<[usize; 2]> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes() {
        let gap = match Linear::of(graph, id) {
            Some(linear) if node.shape.len() == 3 => {
                let (before, stride) = (gaps[linear.input().index()], linear.stride());
                [0, 1].map(|axis| before[axis].saturating_mul(stride[axis]))
            }
            // Slot by slot; a picture reshaped from a vector begins with its pixels side by side.
            _ => match node.inputs.first() {
                Some(&input) if node.shape.len() == 3 => gaps[input.index()],
                _ => [1, 1],
            },
        };
        gaps.push(gap);
    }
    gaps
}

/// The smallest grid of powers of two on which all pictures fit.
fn grid(graph: &Graph, gaps: &[[usize; 2]]) -> Grid {
    let extent = |axis: usize| {
        let pictures = graph.nodes().filter(|(_, node)| node.shape.len() == 3);
        let spans = pictures.map(|(id, node)| {
            (node.shape[axis + 1] - 1).saturating_mul(gaps[id.index()][axis]).saturating_add(1)
        });
        spans.max().unwrap_or(1).checked_next_power_of_two().unwrap_or(usize::MAX / 2 + 1)
    };
    Grid { rows: extent(0), pitch: extent(1) }
}
