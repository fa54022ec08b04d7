//! Minimum cuts: how a pass chooses between two forms of every value at once.
//!
//! Many a choice has this shape: each value lives in one of two forms, every operation costs something in either, and where a
//! value of one form is needed in the other, a conversion costs something once. The cheapest labelling is a minimum cut (the
//! project selection problem; Picard, Management Science 22, 1976): values are nodes, one form is the side of the source,
//! the other that of the sink, and what a pair of labels costs is the capacity of the edge that they cut.

use std::collections::VecDeque;

/// A directed graph with capacities, a source and a sink.
#[derive(Clone, Debug)]
pub struct Network {
    /// Edge 2i and its reverse 2i + 1 lie together.
    edges: Vec<Edge>,
    /// Edges that leave each node.
    leaving: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    to: u32,
    /// What may still flow.
    room: u64,
}

/// A node of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vertex(u32);

impl Network {
    /// The node on one side of the cut.
    pub const SOURCE: Vertex = Vertex(0);
    /// The node on the other side.
    pub const SINK: Vertex = Vertex(1);
    /// The capacity of an edge that must not be cut.
    pub const NEVER: u64 = 1 << 48;

    /// A graph of source and sink alone.
    #[expect(clippy::new_without_default, reason = "an empty network is not a natural default")]
    pub fn new() -> Self {
        Network { edges: Vec::new(), leaving: vec![Vec::new(), Vec::new()] }
    }

    /// Adds a node.
    pub fn vertex(&mut self) -> Vertex {
        self.leaving.push(Vec::new());
        Vertex(self.leaving.len() as u32 - 1)
    }

    /// It costs `capacity` if `from` is on the source's side and `to` on the sink's.
    pub fn edge(&mut self, from: Vertex, to: Vertex, capacity: u64) {
        for (from, to, room) in [(from, to, capacity), (to, from, 0)] {
            self.leaving[from.0 as usize].push(self.edges.len() as u32);
            self.edges.push(Edge { to: to.0, room });
        }
    }

    /// A minimum cut: whether each node is on the source's side, the fewest of all minimum cuts. By Dinic's algorithm: flow
    /// along shortest paths until none is left.
    pub fn cut(mut self) -> Cut {
        loop {
            let distance = self.distances();
            if distance[Self::SINK.0 as usize].is_none() {
                return Cut { source_side: distance.iter().map(Option::is_some).collect() };
            }
            let mut next = vec![0usize; self.leaving.len()];
            while self.augment(&distance, &mut next) {}
        }
    }

    /// Number of edges from the source to every node that can be reached.
    fn distances(&self) -> Vec<Option<u32>> {
        let mut distance = vec![None; self.leaving.len()];
        distance[Self::SOURCE.0 as usize] = Some(0);
        let mut queue = VecDeque::from([Self::SOURCE.0]);
        while let Some(node) = queue.pop_front() {
            let beyond = distance[node as usize].map(|d| d + 1);
            for &edge in &self.leaving[node as usize] {
                let Edge { to, room } = self.edges[edge as usize];
                if room > 0 && distance[to as usize].is_none() {
                    distance[to as usize] = beyond;
                    queue.push_back(to);
                }
            }
        }
        distance
    }

    /// Sends flow along one shortest path; `next` remembers which edges of each node are exhausted.
    fn augment(&mut self, distance: &[Option<u32>], next: &mut [usize]) -> bool {
        let mut path: Vec<u32> = Vec::new();
        let mut node = Self::SOURCE.0;
        while node != Self::SINK.0 {
            let edges = &self.leaving[node as usize];
            let beyond = distance[node as usize].map(|d| d + 1);
            let forward = |&edge: &u32| {
                let Edge { to, room } = self.edges[edge as usize];
                room > 0 && distance[to as usize] == beyond
            };
            match edges[next[node as usize]..].iter().position(forward) {
                Some(skipped) => {
                    next[node as usize] += skipped;
                    let edge = edges[next[node as usize]];
                    path.push(edge);
                    node = self.edges[edge as usize].to;
                }
                None => {
                    next[node as usize] = edges.len();
                    let Some(edge) = path.pop() else { return false };
                    node = self.edges[edge as usize ^ 1].to;
                    next[node as usize] += 1;
                }
            }
        }
        let flow = path.iter().map(|&edge| self.edges[edge as usize].room).min().unwrap_or(0);
        for edge in path {
            self.edges[edge as usize].room -= flow;
            self.edges[edge as usize ^ 1].room += flow;
        }
        true
    }
}

/// The two sides of a cut.
#[derive(Clone, Debug)]
pub struct Cut {
    source_side: Vec<bool>,
}

impl Cut {
    /// Whether the node is on the source's side.
    pub fn is_source(&self, vertex: Vertex) -> bool {
        self.source_side[vertex.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small deterministic generator; the seed is printed.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn no_labelling_is_cheaper() {
        let seed =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        println!("seed {seed}");
        let mut random = Random(seed);
        for _ in 0..200 {
            let nodes = 2 + random.below(8) as usize;
            let mut network = Network::new();
            for _ in 2..nodes {
                network.vertex();
            }
            let edges: Vec<(u32, u32, u64)> = (0..random.below(30))
                .map(|_| {
                    (random.below(nodes as u64) as u32, random.below(nodes as u64) as u32, random.below(9))
                })
                .collect();
            edges.iter().for_each(|&(a, b, capacity)| network.edge(Vertex(a), Vertex(b), capacity));
            let cost = |side: &dyn Fn(u32) -> bool| -> u64 {
                edges.iter().filter(|(a, b, _)| side(*a) && !side(*b)).map(|(_, _, capacity)| capacity).sum()
            };
            let cut = network.cut();
            let found = cost(&|node| cut.is_source(Vertex(node)));
            assert!(cut.is_source(Network::SOURCE) && !cut.is_source(Network::SINK));
            let best = (0..1u32 << nodes)
                .filter(|labels| labels & 3 == 1)
                .map(|labels| cost(&|node| labels >> node & 1 == 1))
                .min();
            assert_eq!(Some(found), best, "{edges:?}");
        }
    }
}
