//! Edges of a graph as lanes: every value runs down a lane of its own from the node that makes it to the last one that reads it.
//!
//! ```text
//! ●      x
//! ├─●    f(x)
//! │ ●    g(f(x))
//! ●─╯    x + g(f(x))
//! ```

/// Lanes side by side that are still a drawing.
const MOST_LANES: usize = 24;

/// A node and what runs past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneRow {
    /// The lane of the node: that of an operand that it is the last to read, where there is one.
    pub(super) lane: usize,
    /// The lanes of its operands, in order.
    pub(super) operands: Vec<OperandLane>,
    /// Lanes of values that it does not read, in order.
    pub(super) passing: Vec<usize>,
    /// Whether its value is read below.
    pub(super) goes_on: bool,
}

/// The lane of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OperandLane {
    pub(super) lane: usize,
    /// Whether nothing below reads it.
    pub(super) ends: bool,
}

/// Gives every node a lane; `operands` are the nodes, all above it, that a node reads. `None` for a graph that would be too wide to
/// look at.
pub(super) fn lanes(operands: &[Vec<usize>]) -> Option<Vec<LaneRow>> {
    let mut last_reader = vec![0; operands.len()];
    for (node, read) in operands.iter().enumerate() {
        read.iter().for_each(|&operand| last_reader[operand] = node);
    }
    // The node whose value runs in each lane.
    let mut running: Vec<Option<usize>> = Vec::new();
    let mut rows = Vec::with_capacity(operands.len());
    for (node, read) in operands.iter().enumerate() {
        let lane_of = |lane: (usize, &Option<usize>)| {
            let value = (*lane.1)?;
            read.contains(&value).then_some(OperandLane { lane: lane.0, ends: last_reader[value] == node })
        };
        let of_operands: Vec<OperandLane> = running.iter().enumerate().filter_map(lane_of).collect();
        let is_operand = |lane: usize| of_operands.iter().any(|operand| operand.lane == lane);
        let passing =
            (0..running.len()).filter(|&lane| running[lane].is_some() && !is_operand(lane)).collect();
        let ending = of_operands.iter().find(|operand| operand.ends).map(|operand| operand.lane);
        let free = || running.iter().position(Option::is_none).unwrap_or(running.len());
        let lane = ending.unwrap_or_else(free);
        for operand in of_operands.iter().filter(|operand| operand.ends) {
            running[operand.lane] = None;
        }
        if lane == running.len() {
            running.push(None);
        }
        let goes_on = last_reader[node] > node;
        running[lane] = goes_on.then_some(node);
        if running.len() > MOST_LANES {
            return None;
        }
        rows.push(LaneRow { lane, operands: of_operands, passing, goes_on });
    }
    Some(rows)
}

impl LaneRow {
    /// The last lane that it touches.
    pub(super) fn last_lane(&self) -> usize {
        let operands = self.operands.iter().map(|operand| operand.lane);
        operands.chain(self.passing.iter().copied()).fold(self.lane, usize::max)
    }

    /// The row in line-drawing characters, two a lane.
    pub(super) fn text(&self) -> String {
        let joined = || self.operands.iter().map(|operand| operand.lane).chain([self.lane]);
        let (first, last) = (joined().min().unwrap_or(self.lane), joined().max().unwrap_or(self.lane));
        let mut text = String::new();
        for lane in 0..=self.last_lane() {
            let inside = first < lane && lane < last;
            let operand = self.operands.iter().find(|operand| operand.lane == lane);
            text.push(match operand {
                _ if lane == self.lane => '●',
                Some(OperandLane { ends: true, .. }) if inside => '┴',
                Some(OperandLane { ends: false, .. }) if inside => '┼',
                Some(OperandLane { ends: true, .. }) if lane == last => '╯',
                Some(OperandLane { ends: true, .. }) => '╰',
                Some(OperandLane { ends: false, .. }) if lane == last => '┤',
                Some(OperandLane { ends: false, .. }) => '├',
                None if self.passing.contains(&lane) => '│',
                None if inside => '─',
                None => ' ',
            });
            text.push(if first <= lane && lane < last { '─' } else { ' ' });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(operands: &[Vec<usize>]) -> Vec<String> {
        let rows = lanes(operands).expect("narrow");
        rows.iter().map(|row| row.text().trim_end().to_string()).collect()
    }

    #[test]
    fn a_chain_is_one_lane() {
        assert_eq!(drawn(&[vec![], vec![0], vec![1]]), ["●", "●", "●"]);
        assert_eq!(drawn(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_residual_block_has_a_lane_for_what_is_added() {
        // x, f(x), g(f(x)), and their sum, once as it is and once with a layer on the other branch too.
        assert_eq!(drawn(&[vec![], vec![0], vec![1], vec![2, 0]]), ["●", "├─●", "│ ●", "●─╯"]);
        assert_eq!(
            drawn(&[vec![], vec![0], vec![1], vec![0], vec![2, 3], vec![4]]),
            ["●", "├─●", "│ ●", "● │", "●─╯", "●"]
        );
    }

    #[test]
    fn lanes_cross_and_join() {
        // 0 is read by all, 3 reads three values at once, 4 reads the first across the others.
        assert_eq!(
            drawn(&[vec![], vec![0], vec![0], vec![0, 1, 2], vec![0, 3]]),
            ["●", "├─●", "├─│─●", "├─●─╯", "●─╯"]
        );
        // Values that nobody reads, the same operand twice.
        assert_eq!(drawn(&[vec![], vec![], vec![0, 0]]), ["●", "│ ●", "●"]);
    }

    #[test]
    fn a_graph_that_is_too_wide_is_not_drawn() {
        let wide = |count: usize| -> Vec<Vec<usize>> {
            (0..count).map(|_| vec![]).chain([(0..count).collect()]).collect()
        };
        assert!(lanes(&wide(MOST_LANES)).is_some());
        assert_eq!(lanes(&wide(MOST_LANES + 1)), None);
    }

    /// Every value runs from its node to its last reader, in a lane that it has to itself.
    #[test]
    fn values_have_lanes_to_themselves() {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("randomness");
        let seed = u64::from_le_bytes(seed);
        println!("seed {seed}");
        let mut state = seed;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let graph: Vec<Vec<usize>> = (0..60)
            .map(|node: usize| {
                let near = |back: usize| node.checked_sub(1 + back);
                (0..below(4)).filter_map(|_| near(below(6))).collect()
            })
            .collect();
        let rows = lanes(&graph).expect("operands are near");
        let last =
            |value: usize| (value..60).filter(|&node| node == value || graph[node].contains(&value)).max();
        for (node, row) in rows.iter().enumerate() {
            let alive: Vec<usize> = (0..node).filter(|&value| last(value) >= Some(node)).collect();
            let mut expected: Vec<usize> = alive.iter().map(|&value| rows[value].lane).collect();
            expected.sort_unstable();
            let mut found: Vec<usize> = row.passing.clone();
            found.extend(row.operands.iter().map(|operand| operand.lane));
            found.sort_unstable();
            assert_eq!(found, expected, "node {node}");
            assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "node {node}: two values in a lane");
            let read = alive.iter().filter(|value| graph[node].contains(value)).count();
            assert_eq!(row.operands.len(), read, "node {node}");
            assert!(!row.passing.contains(&row.lane), "node {node} stands on another value");
        }
    }
}
