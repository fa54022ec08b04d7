//! Writes the plans of the search into the program.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::super::{BootstrapKind, Builder, Function, Module, Op};
use super::bounds::Bounds;
use super::facts::{Fact, Facts};
use super::prices::LEAST_LOG_SLOTS;
use super::search::{Decision, Search, Solution};
use crate::ir::{Number, Operation, Symbol, ValueId};
use cerium_ckks::basis::Level;

/// Writes the best plan of the entry and what it calls; the functions of the new module.
pub(super) fn rewrite<'m>(
    module: &'m Module,
    facts: &Facts,
    bounds: &Bounds,
    search: &mut Search<'m>,
) -> Module {
    let out = Module::new(module.context.clone(), module.stages.clone());
    let mut rewriter = Rewriter { module, facts, bounds, search, out, names: HashMap::new() };
    let entry = module.functions.len() - 1;
    let results = vec![0; module.entry().results.len()];
    rewriter.function(entry, &results, 0);
    rewriter.out
}

struct Rewriter<'a, 'm> {
    module: &'m Module,
    facts: &'a Facts,
    bounds: &'a Bounds,
    search: &'a mut Search<'m>,
    out: Module,
    /// New functions by function, levels of results, and plan.
    names: HashMap<(usize, Vec<u8>, usize), Symbol>,
}

/// Values that are bootstrapped together, one or two.
struct Group {
    values: Vec<ValueId>,
    kind: BootstrapKind,
    log_slots: u32,
    bound: f64,
}

impl Rewriter<'_, '_> {
    fn function(&mut self, index: usize, results: &[u8], plan: usize) -> Symbol {
        let key = (index, results.to_vec(), plan);
        if let Some(known) = self.names.get(&key) {
            return known.clone();
        }
        let module = self.module;
        let function = &module.functions[index];
        let solution = self.search.solve(index, results);
        let chosen = Chosen::new(&solution, plan);
        let mut callees = HashMap::new();
        for (node, (results, plan)) in &chosen.calls {
            let Op::Call { function: callee, .. } = &function.nodes[*node].op else { continue };
            let (callee, _) = module.find(callee).expect("verified modules call defined functions");
            let pins = self.search.exits.contains_key(&callee).then(|| results.clone());
            callees.insert(*node, (self.function(callee, results, *plan), pins));
        }
        let body = Body::new(self.module, function, &solution, &chosen, &callees, self.facts, self.bounds);
        let mut written = body.write(&self.out, function.name.clone());
        // What differs in levels only is left to `place_levels`.
        let versions = self.names.iter().filter(|((other, ..), _)| *other == index).map(|(_, name)| name);
        let same = |name: &&Symbol| self.out.find(name).is_some_and(|(_, known)| known.same_body(&written));
        let name = match versions.into_iter().find(same) {
            Some(known) => known.clone(),
            None => {
                if !written.same_body(function) && index + 1 < module.functions.len() {
                    written.name = self.free_name(&function.name);
                }
                let name = written.name.clone();
                self.out.functions.push(written);
                name
            }
        };
        self.names.insert(key, name.clone());
        name
    }

    /// A numbered name: the name itself stays for the function as it was.
    fn free_name(&self, name: &Symbol) -> Symbol {
        let taken = |name: &Symbol| self.out.find(name).is_some() || self.module.find(name).is_some();
        let mut numbered = (1..).map(|i| Symbol(format!("{}.b{i}", name.0).into()));
        numbered.find(|name| !taken(name)).expect("there is no end of numbers")
    }
}

/// The decisions of a plan, by what they are about.
struct Chosen {
    served: HashSet<(ValueId, usize)>,
    pairs: Vec<(ValueId, ValueId)>,
    calls: Vec<(usize, (Vec<u8>, usize))>,
}

impl Chosen {
    fn new(solution: &Rc<Solution>, plan: usize) -> Chosen {
        let mut chosen = Chosen { served: HashSet::new(), pairs: Vec::new(), calls: Vec::new() };
        for decision in solution.decisions(&solution.plans[plan]) {
            match decision {
                Decision::Serve { value, node } => drop(chosen.served.insert((*value, *node))),
                Decision::Pair(a, b) => chosen.pairs.push((*a, *b)),
                Decision::Call { node, results, plan } => {
                    chosen.calls.push((*node, (results.clone(), *plan)))
                }
                Decision::Nothing => {}
            }
        }
        chosen
    }
}

#[derive(Clone, Copy)]
enum Item {
    Node(usize),
    Group(usize),
}

struct Body<'a> {
    module: &'a Module,
    function: &'a Function,
    solution: &'a Solution,
    served: &'a HashSet<(ValueId, usize)>,
    callees: &'a HashMap<usize, (Symbol, Option<Vec<u8>>)>,
    makers: Vec<Option<usize>>,
    groups: Vec<Group>,
    group_of: HashMap<ValueId, usize>,
    /// New values of the old ones, and of their bootstraps.
    new: Vec<Option<ValueId>>,
    refreshed: HashMap<ValueId, ValueId>,
}

impl<'a> Body<'a> {
    fn new(
        module: &'a Module,
        function: &'a Function,
        solution: &'a Solution,
        chosen: &'a Chosen,
        callees: &'a HashMap<usize, (Symbol, Option<Vec<u8>>)>,
        facts: &Facts,
        bounds: &Bounds,
    ) -> Body<'a> {
        let mut makers = vec![None; function.types.len()];
        for (index, node) in function.nodes.iter().enumerate() {
            makers[node.results.start as usize..node.results.end as usize].fill(Some(index));
        }
        let mut body = Body {
            module,
            function,
            solution,
            served: &chosen.served,
            callees,
            makers,
            groups: Vec::new(),
            group_of: HashMap::new(),
            new: vec![None; function.types.len()],
            refreshed: HashMap::new(),
        };
        let members = |leader: ValueId| -> Vec<ValueId> {
            let all = (0..function.types.len() as u32).map(ValueId);
            all.filter(|v| solution.outline.values[v.index()].leader == leader).collect()
        };
        for &(a, b) in &chosen.pairs {
            let values = if a == b { members(a) } else { vec![a, b] };
            values.chunks(2).for_each(|values| body.add_group(facts, bounds, values));
        }
        let mut leaders: Vec<ValueId> = chosen.served.iter().map(|(leader, _)| *leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        for leader in leaders {
            for v in members(leader) {
                if !body.group_of.contains_key(&v) {
                    body.add_group(facts, bounds, &[v]);
                }
            }
        }
        body
    }

    fn add_group(&mut self, facts: &Facts, bounds: &Bounds, values: &[ValueId]) {
        let facts: Vec<Fact> = values.iter().map(|&v| facts.of(&self.function.name, v)).collect();
        let log_slots = facts.iter().map(|fact| fact.log_period).max().unwrap_or(0);
        let most = self.module.context.params.log_n() - 1;
        self.groups.push(Group {
            values: values.to_vec(),
            kind: facts[0].kind(),
            log_slots: log_slots.max(LEAST_LOG_SLOTS).min(most),
            bound: bounds.of(&self.function.name, values),
        });
        self.group_of.extend(values.iter().map(|&v| (v, self.groups.len() - 1)));
    }

    fn is_served(&self, value: ValueId, node: usize) -> bool {
        let outline = &self.solution.outline;
        self.served.contains(&(outline.values[value.index()].leader, outline.leaders[node]))
    }

    /// What must be written before an item and has not been.
    fn missing(&self, item: Item) -> Option<Item> {
        let maker = |v: ValueId| match self.new[v.index()] {
            Some(_) => None,
            None => self.makers[v.index()].map(Item::Node),
        };
        match item {
            Item::Group(group) => self.groups[group].values.iter().find_map(|&v| maker(v)),
            Item::Node(index) => {
                self.function.nodes[index].op.operands().into_iter().find_map(|v| {
                    match self.is_served(v, index) {
                        true if self.refreshed.contains_key(&v) => None,
                        true => Some(Item::Group(self.group_of[&v])),
                        false => maker(v),
                    }
                })
            }
        }
    }

    /// The function: operations in their old order, but for those that a bootstrap of two values waits for.
    fn write(mut self, out: &Module, name: Symbol) -> Function {
        let mut builder = Builder::new(name, self.function.param_types().to_vec());
        for v in self.function.params() {
            self.new[v.index()] = Some(v);
        }
        for index in 0..self.function.nodes.len() {
            let mut stack = vec![Item::Node(index)];
            while let Some(&item) = stack.last() {
                match self.missing(item) {
                    Some(before) => stack.push(before),
                    None => {
                        self.add(&mut builder, out, item);
                        stack.pop();
                    }
                }
            }
        }
        let results =
            self.function.results.iter().map(|v| self.new[v.index()].expect("every node is written"));
        let results = results.collect();
        builder.finish(results)
    }

    fn add(&mut self, builder: &mut Builder, out: &Module, item: Item) {
        match item {
            Item::Node(index) => {
                let node = &self.function.nodes[index];
                if self.new[node.results.start as usize].is_some() {
                    return;
                }
                builder.stage = node.stage;
                let mut op = node.op.clone();
                op.map_operands(|v| match self.is_served(v, index) {
                    true => self.refreshed[&v],
                    false => self.new[v.index()].expect("operands are written first"),
                });
                let callee = self.callees.get(&self.solution.outline.leaders[index]);
                if let (Op::Call { function, .. }, Some((name, _))) = (&mut op, callee) {
                    *function = name.clone();
                }
                let added = builder.try_push(out, op);
                let added = added.unwrap_or_else(|message| panic!("with bootstraps placed: {message}"));
                for (i, (old, new)) in node.results.clone().zip(added).enumerate() {
                    let pin = callee.and_then(|(_, pins)| pins.as_ref()).map(|pins| Level(pins[i]));
                    self.new[old as usize] = Some(match pin {
                        Some(to) => builder.push(out, Op::Lower { a: ValueId(new), to }),
                        None => ValueId(new),
                    });
                }
            }
            Item::Group(group) => {
                let Group { values, kind, log_slots, bound } = &self.groups[group];
                if let Some(maker) = self.makers[values[0].index()] {
                    builder.stage = self.function.nodes[maker].stage;
                }
                let xs =
                    values.iter().map(|v| self.new[v.index()].expect("operands are written first")).collect();
                let op = Op::Bootstrap { xs, kind: *kind, log_slots: *log_slots, bound: Number(*bound) };
                let added = builder.try_push(out, op);
                let added = added.unwrap_or_else(|message| panic!("a bootstrap: {message}"));
                self.refreshed.extend(values.iter().copied().zip(added.map(ValueId)));
            }
        }
    }
}
