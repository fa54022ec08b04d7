//! Figures of the ciphertext level that go into the artifact, for `explain` and for measurements by stage.

use std::collections::BTreeMap;

use cerium_artifact::cost::pass_figures;
use cerium_artifact::{PassFigures, Stage};
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::Params;

use crate::bootstrap::Refresh;
use crate::ciphertext::noise::NoiseReport;
use crate::ciphertext::{Function, Module, Op};
use crate::ir::Operation;
use crate::kernel::{self, Fusion, KernelOptions};
use crate::limb;

/// Bytes of limbs that a launch may make: some of what it hands on shall still be in the last-level cache of a device.
const LAUNCH_BYTES: usize = 1 << 26;

/// Limbs of a launch.
pub(crate) fn default_width(params: &Params) -> usize {
    (LAUNCH_BYTES / (4 * params.n())).clamp(64, 4096)
}

/// What a run costs before the kernel level fuses anything, and after each step of it up to the one that made `assembled`. Of several
/// devices those of one.
pub(crate) fn passes(
    limb: &limb::Module,
    keys: &[KeyRequest],
    options: &KernelOptions,
    assembled: &[cerium_artifact::Function],
) -> Vec<PassFigures> {
    let log_n = limb.context.params.log_n();
    let steps = [(Fusion::None, "unfused"), (Fusion::Horizontal, "horizontal"), (Fusion::Full, "vertical")];
    let done = steps.iter().position(|(step, _)| *step == options.fusion).expect("every fusion is a step");
    let figures = |&(step, name): &(Fusion, &str)| match step == options.fusion {
        true => pass_figures(name, assembled, log_n),
        false => {
            let options = KernelOptions { fusion: step, ..*options };
            let before = kernel::assemble(std::slice::from_ref(limb), keys, &options);
            pass_figures(name, &before[0], log_n)
        }
    };
    steps[..=done].iter().map(figures).collect()
}

/// What each stage does, over all calls. A bootstrap counts in the stage that needs it; its parts have stages of their own.
pub(crate) fn stages(module: &Module, noise: &NoiseReport) -> Vec<Stage> {
    // Callees stand before callers: each body is looked at once, however often it is called.
    let mut done: Vec<Vec<Tally>> = Vec::with_capacity(module.functions.len());
    for function in &module.functions {
        let tallies = tally(module, function, &done);
        done.push(tallies);
    }
    let entry = done.pop().unwrap_or_default();
    let finish = |((name, error), tally): ((&String, &f64), Tally)| Stage {
        name: name.clone(),
        level_in: tally.level_in,
        level_out: tally.level_out.min(tally.level_in),
        operations: tally.operations.into_iter().map(|(name, n)| (name.to_string(), n)).collect(),
        error: *error,
    };
    module.stages.iter().zip(&noise.stages).zip(entry).map(finish).collect()
}

/// What a function does in one stage, its callees included.
#[derive(Clone)]
struct Tally {
    level_in: Level,
    level_out: Level,
    operations: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.level_in = self.level_in.max(other.level_in);
        self.level_out = self.level_out.min(other.level_out);
        for (name, count) in &other.operations {
            *self.operations.entry(name).or_default() += count;
        }
    }
}

fn tally(module: &Module, function: &Function, callees: &[Vec<Tally>]) -> Vec<Tally> {
    let none = Tally { level_in: Level(0), level_out: Level(u8::MAX), operations: BTreeMap::new() };
    let mut tallies = vec![none; module.stages.len()];
    for node in &function.nodes {
        if let Op::Call { function: callee, .. } = &node.op {
            if Refresh::of(callee).is_some() {
                *tallies[node.stage.0 as usize].operations.entry("bootstrap").or_default() += 1;
            }
            let (callee, _) = module.find(callee).expect("verified modules call defined functions");
            tallies.iter_mut().zip(&callees[callee]).for_each(|(tally, inside)| tally.add(inside));
            continue;
        }
        let level = |v: &crate::ir::ValueId| function.type_of(*v).placement().map(|p| p.level);
        if let Some(out) = level(&node.result()) {
            let read = node.op.operands().iter().filter_map(level).max().unwrap_or(out);
            let operations = BTreeMap::from([(node.op.mnemonic(), 1)]);
            tallies[node.stage.0 as usize].add(&Tally { level_in: read, level_out: out, operations });
        }
    }
    tallies
}
