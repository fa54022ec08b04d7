//! The order of a program's statements: few words alive at once.
//!
//! Loads and positions wait until somebody needs them. Of the other statements, two orders are tried, and the one with fewer
//! words alive wins: that in which the program was written, with everything done at once that frees as much as it makes; and
//! the greedy one, always the statement that leaves the fewest alive.

use std::collections::BTreeSet;

use super::nodes::{Action, Nodes, Rank};

/// Statements that could be next and are looked at: a bound for programs with thousands of them.
const WINDOW: usize = 64;

/// The statements in order, and the largest number of words of a position that are alive at once.
pub(super) fn order(nodes: &Nodes) -> (Vec<usize>, usize) {
    let written = Schedule::run(nodes, |growth| growth.signum().max(0));
    let greedy = Schedule::run(nodes, |growth| growth);
    let best = if greedy.most < written.most { greedy } else { written };
    (best.order, best.most)
}

struct Schedule<'a> {
    nodes: &'a Nodes,
    /// The distinct operands of each node.
    operands: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    /// How many statements to come take a value.
    uses: Vec<usize>,
    /// How many operands a statement waits for that do not wait for it.
    missing: Vec<usize>,
    /// Statements whose operands are there, by rank.
    ready: BTreeSet<(Rank, usize)>,
    done: Vec<bool>,
    order: Vec<usize>,
    alive: usize,
    most: usize,
}

impl<'a> Schedule<'a> {
    /// Always the statement of the least `class` of growth, the earliest of them.
    fn run(nodes: &'a Nodes, class: impl Fn(isize) -> isize) -> Schedule<'a> {
        let count = nodes.list.len();
        let operands: Vec<Vec<usize>> = nodes.list.iter().map(|node| distinct(node.operands())).collect();
        let mut users = vec![Vec::new(); count];
        for (node, operands) in operands.iter().enumerate() {
            operands.iter().for_each(|&operand| users[operand].push(node));
        }
        let waits = |operands: &Vec<usize>| operands.iter().filter(|&&o| !nodes.list[o].is_lazy()).count();
        let missing: Vec<usize> = operands.iter().map(waits).collect();
        // What is returned ends the function.
        let is_last = |node: usize| matches!(nodes.list[node].action, Action::Return(_));
        let starts = |&node: &usize| missing[node] == 0 && !nodes.list[node].is_lazy() && !is_last(node);
        let ready = (0..count).filter(starts).map(|node| (nodes.list[node].rank, node)).collect();
        let mut schedule = Schedule {
            nodes,
            uses: users.iter().map(Vec::len).collect(),
            operands,
            users,
            missing,
            ready,
            done: vec![false; count],
            order: Vec::with_capacity(count),
            alive: 0,
            most: 0,
        };
        while !schedule.ready.is_empty() {
            schedule.step(&class);
        }
        (0..count).filter(|&node| is_last(node)).for_each(|node| schedule.emit(node));
        schedule
    }

    fn step(&mut self, class: impl Fn(isize) -> isize) {
        let may_run = self.ready.iter().take(WINDOW).filter(|&&(_, node)| self.loads_before(node).is_empty());
        let best = may_run.min_by_key(|&&(rank, node)| (class(self.growth(node)), rank)).copied();
        match best {
            Some(entry) => {
                self.ready.remove(&entry);
                self.emit(entry.1);
            }
            None => {
                // All that is left stores over what others store in turn, as when two limbs change places.
                let stores: Vec<usize> = self.ready.iter().take(WINDOW).map(|&(_, node)| node).collect();
                let loads: Vec<usize> = stores.into_iter().flat_map(|node| self.loads_before(node)).collect();
                distinct(loads).into_iter().for_each(|load| self.emit(load));
            }
        }
    }

    /// Loads that have to be done before a store: of its slot, but of its own value.
    fn loads_before(&self, node: usize) -> Vec<usize> {
        let Action::Store { store, value } = self.nodes.list[node].action else { return Vec::new() };
        let loads = self.nodes.loads_before.get(&store).into_iter().flatten().copied();
        loads.filter(|&load| !self.done[load] && load != value).collect()
    }

    /// By how many words the statement, with what waits for it, changes what is alive.
    fn growth(&self, node: usize) -> isize {
        let mut growth = self.nodes.list[node].width() as isize;
        let mut taken = self.operands[node].clone();
        let mut next = 0;
        while let Some(&operand) = taken.get(next) {
            next += 1;
            if taken[..next - 1].contains(&operand) {
                continue;
            }
            let width = self.nodes.list[operand].width() as isize;
            let ends = self.uses[operand] == taken.iter().filter(|&&other| other == operand).count();
            match (self.done[operand], ends) {
                (true, true) => growth -= width,
                (false, false) => growth += width,
                _ => {}
            }
            if !self.done[operand] {
                taken.extend(&self.operands[operand]);
            }
        }
        growth
    }

    /// Appends a statement, after those of its operands that waited for it.
    fn emit(&mut self, node: usize) {
        for operand in self.operands[node].clone() {
            if !self.done[operand] {
                self.emit(operand);
            }
        }
        self.done[node] = true;
        self.order.push(node);
        let lists = &self.nodes.list;
        self.alive += lists[node].width();
        self.most = self.most.max(self.alive);
        for &operand in &self.operands[node] {
            self.uses[operand] -= 1;
            if self.uses[operand] == 0 {
                self.alive -= lists[operand].width();
            }
        }
        if lists[node].is_lazy() {
            return;
        }
        for &user in &self.users[node] {
            self.missing[user] -= 1;
            if self.missing[user] == 0 && !matches!(lists[user].action, Action::Return(_)) {
                self.ready.insert((lists[user].rank, user));
            }
        }
    }
}

fn distinct(mut nodes: Vec<usize>) -> Vec<usize> {
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
