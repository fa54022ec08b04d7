//! The search: dynamic programming from the results of a function to its parameters.
//!
//! Operations are taken in reverse. Between two of them lies a cut, and all that the rest of the search depends on are the
//! levels at which the values crossing the cut are needed, and which of them are to be bootstrapped; a *state* is one such
//! assignment with the least cost of reaching it. An operation adds its cost at the level its results are needed at, and
//! passes needs on; at a use, a value is either needed directly, or its bootstrap serves the use. Of two states the one that
//! costs more and needs no less is dropped, so that what remains is exact while there are at most [`BEAM`] states; beyond,
//! those are kept that promise least.

use std::collections::HashMap;
use std::rc::Rc;

use cerium_ckks::basis::Level;

use super::super::super::{Function, Module, Op};
use super::super::needs::{Need, Needs};
use super::facts::Facts;
use super::outline::{Outline, ciphertexts};
use super::prices::Prices;
use crate::bootstrap::is_free_bound;
use crate::ir::ValueId;

/// States kept after an operation.
const BEAM: usize = 256;

/// What changes of level can cost when a bootstrap serves a use, relative to the bootstrap.
const SLACK: f64 = 0.02;

/// What a state holds of a value that crosses its cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Slot {
    /// One more than the level at which the value itself is needed, 0 if it is not.
    direct: u8,
    boot: Boot,
    /// The level to which its bootstrap was last brought down.
    served: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Boot {
    /// Not bootstrapped so far.
    #[default]
    No,
    /// Bootstrapped, which is paid for where the value is made, or where it finds a partner.
    Open,
    /// Bootstrapped together with a value that is made later: it serves no earlier use, and is paid for.
    Paired,
}

#[derive(Clone, Debug)]
struct State {
    slots: Vec<Slot>,
    cost: f64,
    /// Its last decision.
    link: u32,
}

/// A decision and the one before it.
#[derive(Clone, Debug)]
struct Link {
    before: u32,
    decision: Decision,
}

/// What was decided. Values and nodes are leaders and stand for all in the same position.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// The bootstrap of a value serves its use in a node.
    Serve { value: ValueId, node: usize },
    /// Two values share a bootstrap.
    Pair(ValueId, ValueId),
    /// A call takes a plan of its callee for these levels of its results.
    Call { node: usize, results: Vec<u8>, plan: usize },
    /// The start of the search.
    Nothing,
}

/// A way to run a function.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The levels at which it takes its ciphertexts, in order of the parameters; 0 for plaintexts.
    pub(super) params: Vec<u8>,
    /// Estimated seconds.
    pub(super) cost: f64,
    link: u32,
}

/// The ways to run a function whose results are needed at given levels: none costs more than one that takes no higher levels.
#[derive(Debug)]
pub(super) struct Solution {
    pub(super) plans: Vec<Plan>,
    pub(super) outline: Outline,
    links: Vec<Link>,
    /// No state was dropped that could have been best.
    pub(super) exact: bool,
}

impl Solution {
    /// What a plan decides.
    pub(super) fn decisions(&self, plan: &Plan) -> Vec<&Decision> {
        let mut link = plan.link;
        let mut all = Vec::new();
        while self.links[link as usize].decision != Decision::Nothing {
            all.push(&self.links[link as usize].decision);
            link = self.links[link as usize].before;
        }
        all
    }
}

/// Solves functions, each once for the levels at which its results are needed.
pub(super) struct Search<'a> {
    module: &'a Module,
    facts: &'a Facts,
    prices: &'a Prices,
    /// The only levels at which a function returns, ascending; all if it is not listed.
    pub(super) exits: HashMap<usize, Vec<u8>>,
    solutions: HashMap<(usize, Vec<u8>), Rc<Solution>>,
    depths: Vec<u32>,
    /// States that operations were applied to: the work done.
    pub(super) steps: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(module: &'a Module, facts: &'a Facts, prices: &'a Prices) -> Search<'a> {
        let mut needs = Needs::new(module);
        let depth = |function: &Function| {
            let results = vec![Need::At(Level(0)); function.results.len()];
            let values = needs.values(&function.name, &results);
            let params = values[..function.params as usize].iter();
            params.map(|need| u32::from(need.settled().0)).max().unwrap_or(0)
        };
        let depths = module.functions.iter().map(depth).collect();
        Search { module, facts, prices, exits: HashMap::new(), solutions: HashMap::new(), depths, steps: 0 }
    }

    /// The levels at which a bootstrap takes and returns values.
    pub(super) fn levels(&self) -> (u8, u8) {
        (self.prices.input, self.prices.output)
    }

    /// Levels that a function takes without bootstraps.
    pub(super) fn depth(&self, function: usize) -> u8 {
        u8::try_from(self.depths[function]).unwrap_or(u8::MAX)
    }

    /// Forgets what was solved, for other `exits`.
    pub(super) fn restrict(&mut self, exits: HashMap<usize, Vec<u8>>) {
        self.exits = exits;
        self.solutions.clear();
    }

    /// The ways to run the entry with its results at level 0.
    pub(super) fn entry(&mut self) -> Rc<Solution> {
        let results = vec![0; self.module.entry().results.len()];
        self.solve(self.module.functions.len() - 1, &results)
    }

    /// The ways to run a function.
    pub(super) fn solve(&mut self, index: usize, results: &[u8]) -> Rc<Solution> {
        let key = (index, results.to_vec());
        if let Some(known) = self.solutions.get(&key) {
            return known.clone();
        }
        let module = self.module;
        let function = &module.functions[index];
        let is_entry = index + 1 == module.functions.len();
        let depth_of = |op: &Op| match op {
            Op::Call { function, .. } => module.find(function).map_or(0, |(index, _)| self.depths[index]),
            _ => 0,
        };
        let outline = Outline::new(&module.context, function, self.facts, results, is_entry, depth_of);
        let links = vec![Link { before: 0, decision: Decision::Nothing }];
        let owners = vec![None; outline.width];
        let mut run = Run { search: self, function, outline, links, exact: true, owners };
        let plans = run.plans(results, is_entry);
        let Run { outline, links, exact, .. } = run;
        let solution = Rc::new(Solution { plans, outline, links, exact });
        self.solutions.insert(key, solution.clone());
        solution
    }

    /// The level at which a function returns what is needed at `level`.
    fn exit(&self, function: usize, level: u8) -> Option<u8> {
        match self.exits.get(&function) {
            Some(exits) => exits.iter().copied().find(|&exit| exit >= level),
            None => Some(level),
        }
    }
}

struct Run<'s, 'a> {
    search: &'s mut Search<'a>,
    function: &'a Function,
    outline: Outline,
    links: Vec<Link>,
    exact: bool,
    /// The value that each slot holds at the current cut.
    owners: Vec<Option<ValueId>>,
}

impl Run<'_, '_> {
    fn plans(&mut self, results: &[u8], is_entry: bool) -> Vec<Plan> {
        let mut start = State { slots: vec![Slot::default(); self.outline.width], cost: 0.0, link: 0 };
        for (&value, &level) in self.function.results.iter().zip(results) {
            if let Some(slot) = self.slot(value) {
                let direct = &mut start.slots[slot].direct;
                *direct = (*direct).max(level + 1);
            }
        }
        self.own(&self.function.results);
        let mut states = vec![start];
        for position in (0..self.outline.order.len()).rev() {
            let index = self.outline.order[position];
            let node = &self.function.nodes[index];
            self.disown(node.results.clone().map(ValueId));
            let before = states.len();
            self.search.steps += before;
            states = states.into_iter().flat_map(|state| self.step(state, index)).collect();
            self.own(&ciphertexts(self.function, &node.op));
            if states.len() > 1 && (states.len() > before || before > 1) {
                self.prune(&mut states);
            }
        }

        let params: Vec<ValueId> = self.function.params().collect();
        let mut plans: Vec<Plan> = Vec::new();
        let mut last = Vec::new();
        for state in states {
            // A parameter that is taken at the level of a bootstrap and bootstrapped is better bootstrapped by the caller.
            let entire = |slot: Slot| slot.boot == Boot::Open && slot.direct <= self.search.prices.input + 1;
            if !is_entry && params.iter().any(|&v| self.slot(v).is_some_and(|slot| entire(state.slots[slot])))
            {
                continue;
            }
            let leaders: Vec<ValueId> = params.iter().copied().filter(|&v| self.is_leader(v)).collect();
            last.extend(self.pay(state, &leaders));
        }
        for (state, _) in last {
            let level =
                |&v: &ValueId| self.slot(v).map_or(0, |slot| self.need(state.slots[slot]).unwrap_or(0));
            plans.push(Plan {
                params: params.iter().map(level).collect(),
                cost: state.cost,
                link: state.link,
            });
        }
        plans.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let mut kept: Vec<Plan> = Vec::new();
        for plan in plans {
            let covers = |other: &Plan| other.params.iter().zip(&plan.params).all(|(a, b)| a <= b);
            if !kept.iter().any(covers) {
                kept.push(plan);
            }
        }
        kept
    }

    fn own(&mut self, values: &[ValueId]) {
        for v in values {
            let leader = self.outline.values[v.index()].leader;
            if let Some(slot) = self.outline.values[leader.index()].slot {
                self.owners[slot] = Some(leader);
            }
        }
    }

    fn disown(&mut self, values: impl Iterator<Item = ValueId>) {
        for v in values {
            let leader = self.outline.values[v.index()].leader;
            if let Some(slot) = self.outline.values[leader.index()].slot {
                self.owners[slot] = None;
            }
        }
    }

    fn is_leader(&self, v: ValueId) -> bool {
        self.outline.values[v.index()].leader == v && self.outline.values[v.index()].slot.is_some()
    }

    fn slot(&self, v: ValueId) -> Option<usize> {
        self.outline.values[self.outline.values[v.index()].leader.index()].slot
    }

    /// The level at which a value must be made; `None` if nothing needs it.
    fn need(&self, slot: Slot) -> Option<u8> {
        let input = (slot.boot != Boot::No).then_some(self.search.prices.input);
        input.max(slot.direct.checked_sub(1))
    }

    fn decide(&mut self, state: &mut State, decision: Decision) {
        self.links.push(Link { before: state.link, decision });
        state.link = self.links.len() as u32 - 1;
    }

    /// All states that `state` can become by the operation of a node.
    fn step(&mut self, state: State, index: usize) -> Vec<State> {
        let node = &self.function.nodes[index];
        let results: Vec<ValueId> = node.results.clone().map(ValueId).collect();
        let leaders: Vec<ValueId> = results.iter().copied().filter(|&v| self.is_leader(v)).collect();
        if leaders.is_empty() {
            return vec![state];
        }
        let mut next = Vec::new();
        for (mut state, booted) in self.pay(state, &leaders) {
            let needs: Vec<Option<u8>> =
                results.iter().map(|&v| self.slot(v).and_then(|slot| self.need(state.slots[slot]))).collect();
            for &v in &leaders {
                let slot = self.slot(v).expect("leaders have slots");
                state.slots[slot] = Slot::default();
            }
            if needs.iter().all(Option::is_none) {
                next.push(state);
                continue;
            }
            next.extend(self.operate(state, index, &needs, booted));
        }
        next
    }

    /// Pays for the bootstraps of values that are about to be made, alone or with others that are there at the same time.
    /// With each state comes whether one of the values is bootstrapped.
    fn pay(&mut self, state: State, made: &[ValueId]) -> Vec<(State, bool)> {
        let mut states = vec![(state, false)];
        for &v in made {
            let value = self.outline.values[v.index()];
            let slot = value.slot.expect("leaders have slots");
            let mut paid = Vec::new();
            for (mut state, booted) in states {
                if state.slots[slot].boot != Boot::Open {
                    let booted = booted || state.slots[slot].boot == Boot::Paired;
                    paid.push((state, booted));
                    continue;
                }
                let prices = self.search.prices;
                if value.fact.real && value.count > 1 {
                    // Values in the same position go in pairs.
                    state.cost += f64::from(value.count / 2) * prices.pair(value.fact.log_period);
                    state.cost += f64::from(value.count % 2) * prices.single(value.fact);
                    self.decide(&mut state, Decision::Pair(v, v));
                    paid.push((state, true));
                    continue;
                }
                let partners = self.partners(&state, v);
                for w in partners {
                    let other = self.outline.values[w.index()];
                    let mut state = state.clone();
                    state.cost += prices.pair(value.fact.log_period.max(other.fact.log_period));
                    state.slots[other.slot.expect("partners have slots")].boot = Boot::Paired;
                    self.decide(&mut state, Decision::Pair(v, w));
                    paid.push((state, true));
                }
                state.cost += f64::from(value.count) * prices.single(value.fact);
                paid.push((state, true));
            }
            states = paid;
        }
        states
    }

    /// Other real values that are made before `v` and are bootstrapped after it.
    fn partners(&self, state: &State, v: ValueId) -> Vec<ValueId> {
        let values = &self.outline.values;
        if !values[v.index()].fact.real {
            return Vec::new();
        }
        let live = self.owners.iter().enumerate().filter_map(|(slot, owner)| owner.map(|w| (slot, w)));
        live.filter(|&(slot, w)| {
            let other = values[w.index()];
            w != v && state.slots[slot].boot == Boot::Open && other.fact.real && other.count == 1
        })
        .map(|(_, w)| w)
        .collect()
    }

    /// The states after an operation whose results are needed at these levels.
    fn operate(&mut self, mut state: State, index: usize, needs: &[Option<u8>], booted: bool) -> Vec<State> {
        let node = &self.function.nodes[index];
        let prices = self.search.prices;
        let count = f64::from(self.outline.values[node.results.start as usize].count);
        let need = needs.iter().flatten().copied().max().unwrap_or(0);
        let mut states = vec![];
        let operand_need = match &node.op {
            Op::Call { args, function: callee } => {
                let module = self.search.module;
                let (callee, _) = module.find(callee).expect("verified modules call defined functions");
                let exits: Option<Vec<u8>> =
                    needs.iter().map(|need| self.search.exit(callee, need.unwrap_or(0))).collect();
                let Some(exits) = exits else { return states };
                for (exit, need) in exits.iter().zip(needs) {
                    state.cost +=
                        need.filter(|need| need < exit).map_or(0.0, |need| count * prices.adjust(need));
                }
                let solution = self.search.solve(callee, &exits);
                self.exact &= solution.exact;
                for (number, plan) in solution.plans.iter().enumerate() {
                    let mut state = state.clone();
                    state.cost += count * plan.cost;
                    let decision = Decision::Call { node: index, results: exits.clone(), plan: number };
                    self.decide(&mut state, decision);
                    let mut operands: Vec<(ValueId, u8)> = Vec::new();
                    for (&arg, &level) in args.iter().zip(&plan.params) {
                        if self.slot(arg).is_none() {
                            continue;
                        }
                        match operands.iter_mut().find(|(v, _)| *v == arg) {
                            Some((_, highest)) => *highest = level.max(*highest),
                            None => operands.push((arg, level)),
                        }
                    }
                    states.extend(self.serve(state, index, &operands));
                }
                return states;
            }
            Op::Bootstrap { xs, kind, log_slots, bound } => {
                let level = u8::from(!is_free_bound(bound.0));
                if need + level > prices.output {
                    return states;
                }
                state.cost += count * prices.bootstrap(*kind, xs.len(), *log_slots);
                prices.input + level
            }
            Op::Lower { to, .. } => {
                if need > to.0 {
                    return states;
                }
                to.0
            }
            op => need + self.outline.shape.depth(op),
        };
        state.cost += count * prices.operation(&self.outline, node, need, booted);
        let operands = ciphertexts(self.function, &node.op);
        let operands: Vec<(ValueId, u8)> = operands.into_iter().map(|v| (v, operand_need)).collect();
        states.extend(self.serve(state, index, &operands));
        states
    }

    /// The ways to serve the operands of a node at these levels: directly or by bootstraps.
    fn serve(&mut self, state: State, node: usize, operands: &[(ValueId, u8)]) -> Vec<State> {
        let prices = self.search.prices;
        let mut states = vec![state];
        for &(v, level) in operands {
            let leader = self.outline.values[v.index()].leader;
            let value = self.outline.values[leader.index()];
            let slot = value.slot.expect("operands have slots");
            let adjust = |level: u8| f64::from(value.count) * prices.adjust(level);
            let mut served = Vec::new();
            for mut state in states {
                let known = state.slots[slot];
                if level < known.direct {
                    state.cost += if level + 1 < known.direct { adjust(level) } else { 0.0 };
                    served.push(state);
                    continue;
                }
                let worthwhile = value.candidate && level > prices.input && known.boot == Boot::No;
                if level <= prices.output && (worthwhile || known.boot == Boot::Open) {
                    let mut state = state.clone();
                    let brought_down = level < prices.output && level + 1 != known.served;
                    state.cost += if brought_down { adjust(level) } else { 0.0 };
                    state.slots[slot] = Slot { boot: Boot::Open, served: level + 1, ..known };
                    self.decide(&mut state, Decision::Serve { value: leader, node });
                    served.push(state);
                }
                if level <= prices.output && known.boot != Boot::Open {
                    state.cost += if known.direct > 0 { adjust(known.direct - 1) } else { 0.0 };
                    state.slots[slot].direct = level + 1;
                    served.push(state);
                }
            }
            states = served;
        }
        states
    }

    /// Whether whatever can follow `b` can be had with `a` at no more cost, if need be by letting bootstraps serve uses that `a`
    /// served directly.
    fn covers(&self, a: &State, b: &State) -> bool {
        let (prices, values) = (self.search.prices, &self.outline.values);
        let mut room = b.cost - a.cost;
        for ((a, b), owner) in a.slots.iter().zip(&b.slots).zip(&self.owners) {
            let lower = a.direct <= b.direct;
            if room < 0.0 {
                return false;
            }
            if lower && (a.boot == Boot::No || a.boot == b.boot) {
                continue;
            }
            let Some(value) = owner.map(|v| values[v.index()]) else { return false };
            if a.boot == Boot::Paired || b.direct <= prices.input || !(lower || value.candidate) {
                return false;
            }
            let bootstrap = f64::from(value.count) * prices.single(value.fact);
            room -=
                bootstrap * if a.boot == Boot::Open && b.boot == Boot::Open { SLACK } else { 1.0 + SLACK };
        }
        room >= 0.0
    }

    /// Drops states that another one covers, and the least promising beyond the beam.
    fn prune(&mut self, states: &mut Vec<State>) {
        let prices = self.search.prices;
        let mut best: HashMap<Vec<(u8, Boot)>, usize> = HashMap::new();
        let mut distinct: Vec<State> = Vec::new();
        for state in states.drain(..) {
            let key = state.slots.iter().map(|slot| (slot.direct, slot.boot)).collect();
            match best.entry(key) {
                std::collections::hash_map::Entry::Occupied(known) => {
                    let known = &mut distinct[*known.get()];
                    if state.cost < known.cost {
                        *known = state;
                    }
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(distinct.len());
                    distinct.push(state);
                }
            }
        }
        distinct.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        for state in distinct {
            if !states.iter().any(|other| self.covers(other, &state)) {
                states.push(state);
            }
        }
        if states.len() > BEAM {
            // What is left to do grows with the highest level needed: a bootstrap for each range of levels.
            let ahead = |state: &State| {
                let open = state.slots.iter().filter(|slot| slot.boot == Boot::Open).count() as f64;
                let highest = state.slots.iter().filter_map(|&slot| self.need(slot)).max().unwrap_or(0);
                let share = f64::from(highest) / f64::from(prices.output - prices.input);
                state.cost + (open + share) * prices.pair(0)
            };
            states.sort_by(|a, b| ahead(a).total_cmp(&ahead(b)));
            // The state that asks for least stays, whatever it costs: from it the search can always go on.
            let highest = |state: &State| state.slots.iter().map(|slot| slot.direct).max();
            let least = (0..states.len()).min_by_key(|&i| highest(&states[i])).unwrap_or(0);
            states.swap(least, least.min(BEAM - 1));
            states.truncate(BEAM);
            self.exact = false;
        }
    }
}
