//! Programs of one number-theoretic transform: what no text of the ciphertext level says.

use cerium_artifact::kernel::{Block, Body, Kernel, Program, Transform};
use cerium_artifact::{Artifact, Function, GatherId, Operand, PackedCiphertext, Port, Stage, StageId, Step};
use cerium_ckks::basis::{Level, PrimeIndex};
use cerium_ckks::params::Params;

/// A program that transforms all limbs of a ciphertext, forward or back, in one launch.
pub(super) fn transform(params: &Params, level: Level, forward: bool) -> Artifact {
    let basis = params.basis(level);
    let limbs: Vec<PrimeIndex> = basis.iter().chain(basis.iter()).collect();
    let block = |(i, &prime): (u32, &PrimeIndex)| Block {
        prime,
        loads: vec![Operand::Arg(i)],
        stores: vec![Operand::Result(i)],
        scalars: if forward { vec![] } else { vec![1] },
        galois: vec![],
    };
    let blocks = (0..).zip(&limbs).map(block).collect();
    let transform = Transform { prologue: Program::load(), input: 0, epilogue: Program::input(), blocks };
    let body = if forward { Body::Ntt(transform) } else { Body::Intt(transform) };
    let main = Function {
        name: "main".into(),
        args: limbs.clone(),
        results: limbs,
        weight_params: 0,
        plaintexts: vec![],
        frame: 0,
        steps: vec![Step::Launch(Kernel { stage: StageId(0), body })],
    };
    let packed =
        PackedCiphertext { level, scale: params.scale(level), gather: GatherId(0), factor: 1.0, error: 0.0 };
    let port = |name: &str| Port { name: name.into(), shape: vec![1], batch: 1, ciphertexts: vec![packed] };
    let stage =
        Stage { name: "main".into(), level_in: level, level_out: level, operations: vec![], error: 0.0 };
    Artifact {
        name: if forward { "ntt" } else { "intt" }.into(),
        params: params.spec().clone(),
        programs: vec![vec![main]],
        homes: Vec::new(),
        communication: Vec::new(),
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        keys: vec![],
        weights: vec![],
        gathers: vec![vec![0]],
        tensors: vec![],
        stages: vec![stage],
        passes: Vec::new(),
        key_plan: None,
        normalization: None,
        model: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_are_valid_programs() {
        let params = Params::named_insecure("insecure-test").unwrap();
        for level in params.levels() {
            for forward in [true, false] {
                transform(&params, level, forward).validate().unwrap();
            }
        }
    }
}
