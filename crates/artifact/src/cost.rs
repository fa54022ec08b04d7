//! The cost of a kernel, counted before it runs.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::kernel::{Block, Body, Instruction, Kernel, Operand, Program, Transform};
use crate::{Function, Movement, PassFigures, StageId, Step};

/// What kernels cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Kernels launched.
    pub launches: u64,
    /// Their blocks; each target of a base conversion is one.
    pub blocks: u64,
    /// Bytes of limbs and constants that the blocks load, as if nothing were cached. A transform reads its limb once.
    pub bytes_read: u64,
    /// Bytes of limbs that they store.
    pub bytes_written: u64,
    /// Modular multiplications, those inside transforms included.
    pub multiplications: u64,
}

impl Cost {
    /// Bytes read and written.
    pub fn bytes(&self) -> u64 {
        self.bytes_read.saturating_add(self.bytes_written)
    }

    /// The cost of doing it so many times.
    pub fn times(self, n: u64) -> Cost {
        Cost {
            launches: self.launches.saturating_mul(n),
            blocks: self.blocks.saturating_mul(n),
            bytes_read: self.bytes_read.saturating_mul(n),
            bytes_written: self.bytes_written.saturating_mul(n),
            multiplications: self.multiplications.saturating_mul(n),
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.launches = self.launches.saturating_add(other.launches);
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.bytes_read = self.bytes_read.saturating_add(other.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.multiplications = self.multiplications.saturating_add(other.multiplications);
    }
}

/// How often a run calls each function; the last one is the entry, and callees stand before their callers.
pub fn calls(functions: &[Function]) -> Vec<u64> {
    let mut calls = vec![0u64; functions.len()];
    if let Some(entry) = calls.last_mut() {
        *entry = 1;
    }
    for (index, function) in functions.iter().enumerate().rev() {
        for step in &function.steps {
            if let Step::Call { function: callee, .. } = step {
                let callee = callee.0 as usize;
                calls[callee] = calls[callee].saturating_add(calls[index]);
            }
        }
    }
    calls
}

/// How often a run calls each function on behalf of each stage of the entry, directly or through other functions: what the
/// function costs is a cost of these stages. The entry, which is not called, has none.
pub fn calls_by_stage(functions: &[Function]) -> Vec<BTreeMap<StageId, u64>> {
    let mut calls: Vec<BTreeMap<StageId, u64>> = vec![BTreeMap::new(); functions.len()];
    for (index, function) in functions.iter().enumerate().rev() {
        let callers = std::mem::take(&mut calls[index]);
        for step in &function.steps {
            let Step::Call { stage, function: callee, .. } = step else { continue };
            let mut add = |stage: StageId, count: u64| {
                let known = calls[callee.0 as usize].entry(stage).or_default();
                *known = known.saturating_add(count);
            };
            match index + 1 == functions.len() {
                true => add(*stage, 1),
                false => callers.iter().for_each(|(&stage, &count)| add(stage, count)),
            }
        }
        calls[index] = callers;
    }
    calls
}

/// Largest number of limb slots that frames occupy while a function runs, its callees included, for each function. Needs
/// callees before callers.
pub fn peak_frames(functions: &[Function]) -> Vec<u64> {
    let mut peaks: Vec<u64> = Vec::with_capacity(functions.len());
    for function in functions {
        let callees = function.steps.iter().map(|step| match step {
            Step::Launch(_) | Step::Start(_) | Step::Finish(_) => 0,
            Step::Call { function, .. } => peaks[function.0 as usize],
        });
        peaks.push(u64::from(function.frame).saturating_add(callees.max().unwrap_or(0)));
    }
    peaks
}

/// Slots of the pool that a run of these functions needs: arguments and results of the entry, and the deepest stack of frames.
pub fn pool_limbs(functions: &[Function]) -> u64 {
    let ports = functions.last().map_or(0, |entry| (entry.args.len() + entry.results.len()) as u64);
    peak_frames(functions).last().copied().unwrap_or(0).saturating_add(ports)
}

/// What a run costs after a pass that made these functions, the last one of which is the entry.
pub fn pass_figures(pass: &str, functions: &[Function], log_n: u32) -> PassFigures {
    PassFigures {
        pass: pass.to_string(),
        cost: program_cost(functions, log_n),
        pool_limbs: pool_limbs(functions),
    }
}

/// Counts a run of a program, calls included, in a ring of degree `2^log_n`.
pub fn program_cost(functions: &[Function], log_n: u32) -> Cost {
    let mut total = Cost::default();
    for (function, calls) in functions.iter().zip(calls(functions)) {
        for step in &function.steps {
            if let Step::Launch(kernel) = step {
                total += kernel_cost(kernel, function, log_n).times(calls);
            }
        }
    }
    total
}

/// What moves between devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Collectives that devices take part in.
    pub collectives: u64,
    /// Bytes that they send.
    pub bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.collectives = self.collectives.saturating_add(other.collectives);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What one device of `devices` sends in a collective, in a ring of degree `2^log_n`. A sum of parts is a sum on a share of the
/// limbs on each device, which then sends it to all: nobody sends less, but for switches that add.
pub fn collective_traffic(movement: &Movement, devices: usize, log_n: u32) -> Traffic {
    let limbs = match movement {
        Movement::Exchange { sends, .. } => sends.len() as u64,
        Movement::AllReduce { limbs } => 2 * limbs.len() as u64 * (devices as u64 - 1) / devices as u64,
    };
    Traffic { collectives: 1, bytes: limbs << (log_n + 2) }
}

/// What one device of `devices` sends in a run, calls included.
pub fn program_traffic(functions: &[Function], devices: usize, log_n: u32) -> Traffic {
    let mut total = Traffic::default();
    for (function, calls) in functions.iter().zip(calls(functions)) {
        for step in &function.steps {
            if let Step::Start(collective) = step {
                let Traffic { collectives, bytes } = collective_traffic(&collective.movement, devices, log_n);
                total += Traffic {
                    collectives: collectives.saturating_mul(calls),
                    bytes: bytes.saturating_mul(calls),
                };
            }
        }
    }
    total
}

/// Counts what one launch of `kernel`, a kernel of the validated `function`, reads, writes and multiplies in a ring of degree
/// `2^log_n`.
pub fn kernel_cost(kernel: &Kernel, function: &Function, log_n: u32) -> Cost {
    let n = 1u64 << log_n;
    let mut cost = Cost { launches: 1, ..Cost::default() };
    let each = match &kernel.body {
        Body::Elementwise { program, .. } => n * products(program),
        Body::Ntt(transform) => n * transform_products(transform) + n / 2 * u64::from(log_n),
        // The inverse scales all N words once more.
        Body::Intt(transform) => n * transform_products(transform) + n / 2 * u64::from(log_n) + n,
        Body::BaseConvert { epilogue, blocks } => {
            for block in blocks {
                let (sources, targets) = (block.sources.len() as u64, block.targets.len() as u64);
                cost.bytes_read += 4 * n * sources;
                // One row for the quotient v, and a column of v for each target.
                cost.multiplications += n * (sources + (sources + 1) * targets);
            }
            n * products(epilogue)
        }
    };
    for block in kernel.body.blocks() {
        cost.blocks += 1;
        cost.bytes_read += block_bytes_read(block, function, log_n);
        cost.bytes_written += 4 * n * block.stores.len() as u64;
        cost.multiplications += each;
    }
    cost
}

/// Bytes of the loads of a block.
fn block_bytes_read(block: &Block, function: &Function, log_n: u32) -> u64 {
    let bytes = |load: &Operand| match load {
        Operand::Plain { plaintext, .. } => 8 << function.plaintexts[*plaintext as usize].log_period,
        _ => 4 << log_n,
    };
    block.loads.iter().map(bytes).sum()
}

fn transform_products(transform: &Transform) -> u64 {
    products(&transform.prologue) + products(&transform.epilogue)
}

/// Modular multiplications that a program does at one position.
fn products(program: &Program) -> u64 {
    let products = |instruction: &Instruction| match instruction {
        Instruction::Load(_)
        | Instruction::Input
        | Instruction::Add(..)
        | Instruction::Sub(..)
        | Instruction::Neg(_)
        | Instruction::AddScalar(..)
        | Instruction::Permute(..) => 0,
        Instruction::Mul(..) | Instruction::MontMul(..) | Instruction::MulScalar(..) => 1,
        Instruction::Dot(pairs) => pairs.len() as u64,
    };
    program.instructions.iter().map(products).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FunctionId;

    #[test]
    fn functions_count_for_the_stages_that_call_them() {
        let function = |name: &str, calls: &[(u16, u32)]| Function {
            name: name.into(),
            args: vec![],
            results: vec![],
            weight_params: 0,
            plaintexts: vec![],
            frame: 0,
            steps: calls
                .iter()
                .map(|&(stage, function)| Step::Call {
                    stage: StageId(stage),
                    function: FunctionId(function),
                    args: vec![],
                    results: vec![],
                    weights: vec![],
                })
                .collect(),
        };
        // The entry calls `inner` once and `outer` three times, which calls `inner` twice, whatever stages it names.
        let functions = [
            function("inner", &[]),
            function("outer", &[(7, 0), (8, 0)]),
            function("main", &[(0, 1), (1, 0), (0, 1), (2, 1)]),
        ];
        let of =
            |counts: &[(u16, u64)]| counts.iter().map(|&(stage, count)| (StageId(stage), count)).collect();
        let expected: [BTreeMap<StageId, u64>; 3] =
            [of(&[(0, 4), (1, 1), (2, 2)]), of(&[(0, 2), (2, 1)]), of(&[])];
        assert_eq!(calls_by_stage(&functions), expected);
        assert_eq!(calls(&functions), [7, 3, 1]);
    }
}
