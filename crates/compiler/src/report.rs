//! Figures of the ciphertext level that go into the artifact, for `explain` and for measurements by stage.

use std::collections::BTreeMap;

use cerium_artifact::Stage;
use cerium_ckks::basis::Level;
use cerium_ckks::params::Params;

use crate::bootstrap::is_bootstrap;
use crate::ciphertext::noise::NoiseReport;
use crate::ciphertext::{Function, Module, Op};
use crate::ir::Operation;

/// Bytes of limbs that a launch may make: some of what it hands on shall still be in the last-level cache of a device.
const LAUNCH_BYTES: usize = 1 << 26;

/// Limbs of a launch.
pub(crate) fn default_width(params: &Params) -> usize {
    (LAUNCH_BYTES / (4 * params.n())).clamp(64, 4096)
}

/// What each stage does, over all calls. A bootstrap counts in the stage that needs it; its parts have stages of their own.
pub(crate) fn stages(module: &Module, noise: &NoiseReport) -> Vec<Stage> {
    let new = |(name, error): (&String, &f64)| Tally {
        stage: Stage {
            name: name.clone(),
            level_in: Level(0),
            level_out: Level(u8::MAX),
            operations: Vec::new(),
            error: *error,
        },
        operations: BTreeMap::new(),
    };
    let mut tallies: Vec<Tally> = module.stages.iter().zip(&noise.stages).map(new).collect();
    walk(module, module.entry(), &mut tallies);
    let finish = |tally: Tally| {
        let mut stage = tally.stage;
        stage.level_out = stage.level_out.min(stage.level_in);
        stage.operations = tally.operations.into_iter().map(|(name, n)| (name.to_string(), n)).collect();
        stage
    };
    tallies.into_iter().map(finish).collect()
}

struct Tally {
    stage: Stage,
    operations: BTreeMap<&'static str, u64>,
}

fn walk(module: &Module, function: &Function, tallies: &mut [Tally]) {
    for node in &function.nodes {
        if let Op::Call { function: callee, .. } = &node.op {
            if is_bootstrap(callee) {
                *tallies[node.stage.0 as usize].operations.entry("bootstrap").or_default() += 1;
            }
            let (_, callee) = module.find(callee).expect("verified modules call defined functions");
            walk(module, callee, tallies);
            continue;
        }
        let level = |v: &crate::ir::ValueId| function.type_of(*v).placement().map(|p| p.level);
        let tally = &mut tallies[node.stage.0 as usize];
        if let Some(out) = level(&node.result()) {
            let read = node.op.operands().iter().filter_map(level).max().unwrap_or(out);
            tally.stage.level_in = tally.stage.level_in.max(read);
            tally.stage.level_out = tally.stage.level_out.min(out);
            *tally.operations.entry(node.op.mnemonic()).or_default() += 1;
        }
    }
}
