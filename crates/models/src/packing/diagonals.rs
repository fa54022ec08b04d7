//! A linear layer between two layouts as a sum of rotations times plaintexts.
//!
//! With period `p` of the input, slot `s` of the result is `sum_r w_r[s] x[s + r]`: one generalized diagonal `w_r` for
//! each offset `r` between an input element and an output element that reads it (Halevi and Shoup 2014). Where the
//! output has a shorter period `q < p`, there are `p / q` copies of each output slot, and the terms of an output may be
//! spread over those that are a multiple of `f` apart, `q <= f <= p`: offsets are needed only modulo `f`, and rotations
//! by `f, 2f, .., p/2` sum the copies up (the hybrid diagonal method of GAZELLE, Juvekar et al. 2018, for any layouts). Fewer diagonals stand
//! against `log2(p / f)` rotations; the least cost decides.

use super::batch::Batch;
use super::layout::Layout;
use crate::linear::Linear;
use cerium_artifact::NO_ELEMENT;
use std::collections::BTreeMap;

/// Time of a rotation that shares its first half with others (hoisting), in units of a whole one.
const HOISTED: f64 = 0.6;
/// Time of a product with a plaintext.
const PRODUCT: f64 = 0.03;

/// Rotations and products of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Products with a plaintext.
    pub diagonals: usize,
    /// Rotations of the input itself (baby steps), which share most of their work.
    pub babies: usize,
    /// Rotations of partial sums: giant steps and sums over copies.
    pub giants: usize,
}

impl Cost {
    /// Time in units of one rotation: a model of the compiler's own split, good enough to choose layouts by.
    pub fn time(&self) -> f64 {
        let hoist = if self.babies > 0 { 1.0 - HOISTED } else { 0.0 };
        hoist + HOISTED * self.babies as f64 + self.giants as f64 + PRODUCT * self.diagonals as f64
    }

    /// The cheapest split of offsets in `[-modulus/2, modulus/2)` into baby and giant steps; `None` if none is cheaper
    /// than `bound`.
    fn of(offsets: &[i64], modulus: usize, giants: usize, bound: f64) -> Option<Self> {
        let mut best: Option<Self> = None;
        let mut steps = Distinct::new(2 * modulus + 2);
        for log in 0..=modulus.trailing_zeros() {
            let stride = 1i64 << log;
            for center in [false, true] {
                let baby =
                    |offset: i64| if center { centered(offset, stride) } else { offset.rem_euclid(stride) };
                let least = best.map_or(bound, |best| best.time());
                // Baby steps of this stride are counted first, and often are too many already.
                let babies = steps.count(offsets.iter().map(|&offset| baby(offset)));
                let cost = Self { diagonals: offsets.len(), babies, giants };
                if cost.time() >= least {
                    continue;
                }
                let giants = giants + steps.count(offsets.iter().map(|&offset| offset - baby(offset)));
                let cost = Self { giants, ..cost };
                if cost.time() < least {
                    best = Some(cost);
                }
            }
        }
        best
    }
}

/// Counts distinct steps within `(-size/2, size/2)`.
struct Distinct {
    /// The count in which each step was last seen.
    seen: Vec<u32>,
    counts: u32,
}

impl Distinct {
    fn new(size: usize) -> Self {
        Self { seen: vec![0; size], counts: 0 }
    }

    /// How many different steps other than zero there are.
    fn count(&mut self, steps: impl Iterator<Item = i64>) -> usize {
        self.counts += 1;
        let middle = (self.seen.len() / 2) as i64;
        let mut distinct = 0;
        for step in steps.filter(|&step| step != 0) {
            let seen = &mut self.seen[(step + middle) as usize];
            distinct += usize::from(*seen != self.counts);
            *seen = self.counts;
        }
        distinct
    }
}

/// One generalized diagonal: `weights[table[s % table.len()]] * x[s + offset]`, nothing where the table says
/// [`NO_ELEMENT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagonal {
    /// Rotation to the left.
    pub offset: i64,
    /// Index into the layer's weights for each slot of one period, a power of two.
    pub table: Vec<u32>,
}

/// A linear layer on slots: the sum of its diagonals, then `y + rotate(y, fold)` for each fold in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Diagonals by rising offset; at least one.
    pub diagonals: Vec<Diagonal>,
    /// Rotations that sum up copies.
    pub folds: Vec<i64>,
    /// What it costs.
    pub cost: Cost,
}

/// About what the layer costs between two layouts: of a picture it looks at the corners, the middles of the edges and the
/// middle, which between layouts of matching gaps see all offsets.
pub(super) fn estimate(linear: &Linear<'_>, from: &Layout, to: &Layout) -> Cost {
    best(linear, from, to, linear.sample()).1
}

/// What the layer costs between two layouts.
pub(crate) fn cost(linear: &Linear<'_>, from: &Layout, to: &Layout) -> Cost {
    best(linear, from, to, 0..linear.outputs()).1
}

/// The best period to which offsets are reduced, and what the given outputs cost with it.
fn best(
    linear: &Linear<'_>,
    from: &Layout,
    to: &Layout,
    outputs: impl IntoIterator<Item = usize>,
) -> (usize, Cost) {
    let p = from.period();
    let mut seen = vec![false; p];
    for output in outputs {
        let slot = to.slot(output);
        linear.terms(output, |input, _| {
            // Both periods are powers of two, so the difference wraps around correctly.
            seen[from.slot(input).wrapping_sub(slot) & (p - 1)] = true;
        });
    }
    let offsets: Vec<i64> =
        seen.iter().enumerate().filter(|(_, seen)| **seen).map(|(offset, _)| offset as i64).collect();
    let mut best: Option<(usize, Cost)> = None;
    let mut fold = to.period().min(p);
    while fold <= p {
        // Copies of an output within one fold each need their own terms.
        let copies = || (0..fold).step_by(to.period()).map(|copy| copy as i64);
        let mut reduced: Vec<i64> = offsets
            .iter()
            .flat_map(|offset| copies().map(move |copy| centered(offset - copy, fold as i64)))
            .collect();
        reduced.sort_unstable();
        reduced.dedup();
        let folds = (p / fold).trailing_zeros() as usize;
        let bound = best.map_or(f64::INFINITY, |(_, best)| best.time());
        if let Some(cost) = Cost::of(&reduced, fold, folds, bound) {
            best = Some((fold, cost));
        }
        // More copies have at least as many diagonals.
        if reduced.len() as f64 * PRODUCT >= best.map_or(f64::INFINITY, |(_, best)| best.time()) {
            break;
        }
        fold *= 2;
    }
    best.expect("without a bound there is a best split")
}

impl Transform {
    /// The layer between two layouts.
    pub(crate) fn new(linear: &Linear<'_>, from: &Layout, to: &Layout) -> Self {
        let (fold, cost) = best(linear, from, to, 0..linear.outputs());
        let p = from.period();
        let period = p.max(to.period());
        let mut tables: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for output in 0..linear.outputs() {
            linear.terms(output, |input, weight| {
                let wanted = from.slot(input) as i64;
                for slot in (to.slot(output)..period).step_by(to.period()) {
                    let offset = centered(wanted - slot as i64, fold as i64);
                    // Of the copies that are summed up later, one sees the input element.
                    if (slot as i64 + offset - wanted).rem_euclid(p as i64) == 0 {
                        let table = tables.entry(offset).or_insert_with(|| vec![NO_ELEMENT; period]);
                        table[slot] = weight as u32;
                    }
                }
            });
        }
        let mut diagonals: Vec<Diagonal> =
            tables.into_iter().map(|(offset, table)| Diagonal { offset, table: shortest(table) }).collect();
        if diagonals.is_empty() {
            // No output reads any input: the zero matrix.
            diagonals.push(Diagonal { offset: 0, table: vec![NO_ELEMENT] });
        }
        let folds = (fold.trailing_zeros()..p.trailing_zeros()).map(|log| 1 << log).collect();
        Self { diagonals, folds, cost }
    }

    /// The layer for every picture of a batch, from that for one picture in its room.
    pub(crate) fn spread(mut self, batch: Batch) -> Self {
        for diagonal in &mut self.diagonals {
            diagonal.offset = batch.rotation(diagonal.offset);
            diagonal.table = batch.spread(&diagonal.table);
        }
        self.folds.iter_mut().for_each(|fold| *fold = batch.rotation(*fold));
        self
    }
}

/// The table with the shortest period that gives the same slots.
pub(crate) fn shortest(mut table: Vec<u32>) -> Vec<u32> {
    while table.len() > 1 && table[..table.len() / 2] == table[table.len() / 2..] {
        table.truncate(table.len() / 2);
    }
    table
}

/// The representative of `value` modulo `modulus` in `[-modulus/2, modulus/2)`.
fn centered(value: i64, modulus: i64) -> i64 {
    (value + modulus / 2).rem_euclid(modulus) - modulus / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{AveragePool, Conv, Dense, Graph, NodeId, Op, Window};
    use crate::packing::choose;
    use crate::packing::layout::Grid;
    use crate::reference;
    use crate::tensor::Tensor;

    /// splitmix64 from a printed seed.
    struct Draw(u64);

    impl Draw {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        fn values(&mut self, count: usize) -> Vec<f32> {
            (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
        }

        /// A convolution, pool or dense layer on a value of this shape that fits it, if luck has it.
        fn layer(&mut self, shape: &[usize]) -> Op {
            let [channels, _, _] = shape[..] else {
                let outputs = 1 + self.below(9);
                let weight = Tensor::new("w", vec![outputs, shape[0]], self.values(outputs * shape[0]));
                return Op::Dense(Dense { weight, bias: vec![0.0; outputs] });
            };
            let window = Window {
                stride: [1 + self.below(3), 1 + self.below(2)],
                padding: [self.below(3), self.below(3), self.below(3), self.below(3)],
                dilation: [1 + self.below(2), 1],
            };
            let kernel = [1 + self.below(3), 1 + self.below(4)];
            if self.below(4) == 0 {
                return Op::AveragePool(AveragePool { kernel, window, count_padding: false });
            }
            let groups = if channels % 2 == 0 { 1 + self.below(2) } else { 1 };
            let (outputs, per_group) = (groups * (1 + self.below(4)), channels / groups);
            let shape = vec![outputs, per_group, kernel[0], kernel[1]];
            let values = self.values(shape.iter().product());
            Op::Conv(Conv {
                weight: Tensor::new("w", shape, values),
                bias: vec![0.0; outputs],
                window,
                groups,
            })
        }
    }

    /// The transform on one period of slots, as the encrypted program does it.
    fn apply(transform: &Transform, weights: &[f32], x: &[f64], slots: usize) -> Vec<f64> {
        let at = |values: &[f64], slot: i64| values[slot.rem_euclid(values.len() as i64) as usize];
        let mut y: Vec<f64> = (0..slots)
            .map(|slot| {
                let terms = transform.diagonals.iter().map(|diagonal| {
                    let weight = weights.get(diagonal.table[slot % diagonal.table.len()] as usize);
                    weight.map_or(0.0, |&w| f64::from(w) * at(x, slot as i64 + diagonal.offset))
                });
                terms.sum()
            })
            .collect();
        for fold in &transform.folds {
            y = (0..slots).map(|slot| y[slot] + at(&y, slot as i64 + fold)).collect();
        }
        y
    }

    /// Two random layers behind each other, in all pairs of layouts and for random batches, against the clear executor for
    /// each picture; what lies in slots without meaning and in other pictures must not matter.
    #[test]
    fn layers_between_all_layouts() {
        const SLOTS: usize = 512;
        let seed = getrandom::u64().expect("the system has randomness");
        println!("seed {seed}");
        let mut draw = Draw(seed);
        let (mut checked, mut folded) = (0, 0);
        while checked < 60 {
            let shape = if draw.below(4) == 0 {
                vec![1 + draw.below(40)]
            } else {
                vec![1 + draw.below(4), 1 + draw.below(6), 1 + draw.below(8)]
            };
            let mut graph = Graph::new("x", shape.clone()).expect("valid");
            let op = draw.layer(&shape);
            let Ok(first) = graph.push("first", op, vec![NodeId::INPUT]) else { continue };
            let mut last = first;
            if graph[first].shape.len() == 3 && draw.below(3) == 0 {
                let elements = graph[first].elements();
                last = graph.reshape("flat", first, vec![elements]).expect("same elements");
            }
            let op = draw.layer(&graph[last].shape.clone());
            let Ok(second) = graph.push("second", op, vec![last]) else { continue };
            let batch = Batch::new(1 + draw.below(5));
            let room = batch.room(SLOTS);
            let Ok(layouts) = choose(&graph, SLOTS, batch) else { continue };
            // Other layouts of the value between the layers than the chosen one must do as well.
            let mut between = vec![layouts[first.index()].clone()];
            if let [channels, height, width] = graph[first].shape[..] {
                let grid = Grid { rows: 16, pitch: 16 };
                between.extend(Layout::pictures([channels, height, width], grid, [2, 2], room));
            }
            let unit = crate::scales::Scale::unit;
            for middle in between {
                let mut trace =
                    || reference::trace(&graph, &draw.values(graph.input().elements())).expect("valid");
                let values: Vec<_> = (0..batch.pictures()).map(|_| trace()).collect();
                for (id, from, to) in
                    [(first, &layouts[0], &middle), (second, &middle, &layouts[second.index()])]
                {
                    let linear = Linear::of(&graph, id).expect("linear");
                    let transform = Transform::new(&linear, from, to).spread(batch);
                    let value = |id: NodeId, layout: &Layout, slot: usize| {
                        let (slot, place) = (slot / batch.places(), slot % batch.places());
                        let element = layout.elements()[slot % layout.period()];
                        values.get(place).map(|values| values[id.index()].get(element as usize).copied())
                    };
                    let slots: Vec<f64> = (0..SLOTS)
                        .map(|slot| value(linear.input(), from, slot).flatten().unwrap_or(1e6))
                        .collect();
                    let scales = [unit(graph[linear.input()].elements()), unit(linear.outputs())];
                    let y = apply(&transform, &linear.weights(&scales[0], &scales[1]), &slots, SLOTS);
                    for (slot, &found) in y.iter().enumerate() {
                        match value(id, to, slot) {
                            // A place behind the last picture.
                            None => {}
                            Some(None) => assert_eq!(found, 0.0, "slot {slot} without meaning"),
                            Some(Some(wanted)) => assert!(
                                (found - wanted).abs() < 1e-6,
                                "slot {slot} of {batch:?}: {found}, not {wanted}\n{graph}"
                            ),
                        }
                    }
                    folded += usize::from(!transform.folds.is_empty());
                    checked += 1;
                }
            }
        }
        assert!(folded > 0, "no layer was summed up over copies");
    }
}
