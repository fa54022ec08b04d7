//! Random valid artifacts.

mod devices;
mod function;

use cerium_artifact::*;
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::{Level, PrimeIndex};
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::below;
use devices::{Signature, Team};

const STAGES: usize = 3;

/// Eight weights, in 32 bits or in 16.
fn weights(rng: &mut ChaCha8Rng) -> Values {
    let short = below(rng, 2) == 0;
    let weight = |_| match short {
        true => below(rng, 256) as f32 / 256.0,
        false => rng.next_u32() as f32 / 4e9,
    };
    Values::from((0..8).map(weight).collect::<Vec<f32>>())
}

/// A random program in a ring of degree `2^log_n`, from 4 to 17: functions that call earlier ones, kernels of all classes on
/// random operands, in place and not. On several devices, of which some may have no prime at home, limbs move between them, and
/// kernels run meanwhile.
pub fn artifact(rng: &mut ChaCha8Rng, log_n: u8, devices: usize) -> Artifact {
    let params = Params::new(small_params(log_n)).expect("a valid set");
    let level = params.max_level();
    let galois = |r| KeyKind::Rotation(galois_element(log_n.into(), r));
    let keys = vec![
        KeyRequest { kind: KeyKind::Relinearization, level },
        KeyRequest { kind: galois(3), level: Level(1) },
    ];
    let tensors = vec![Tensor { name: "w".into(), values: weights(rng) }];
    let gathers: Vec<Vec<u32>> = [1, 4, 4, params.slots()]
        .map(|period| (0..period).map(|_| [0, 3, 7, NO_ELEMENT][below(rng, 4)]).collect())
        .into();
    let recipe = |gather, factor| Recipe::Gather { tensor: TensorId(0), gather: GatherId(gather), factor };
    // Weights 1, 2, 4 and 7 have one period, and 4 is 2 again.
    let mut weights = vec![recipe(0, 1.0), recipe(1, -0.5), recipe(2, 0.25), recipe(3, 1.0), recipe(2, 0.25)];
    weights.push(Recipe::Constant { re: -2.0, im: 1.0 });
    let factor = DftFactor { direction: Direction::CoeffsToSlots, log_slots: 3, first: 1, stages: 1 };
    weights.push(Recipe::Dft { factor, offset: -2, scale: 0.75 });
    let block = MatrixBlock { first: 1, strides: [1, 2], extents: [4, 2], log_period: 2 };
    weights.push(Recipe::Diagonal {
        tensor: TensorId(0),
        block,
        offset: below(rng, 4) as u32,
        factor: -0.75,
    });
    let homes: Vec<DeviceId> = match devices {
        1 => Vec::new(),
        _ => params.moduli().iter().map(|_| DeviceId(below(rng, devices) as u16)).collect(),
    };
    let mut programs = vec![Vec::new(); devices];
    for _ in 0..3 {
        let args = random_primes(rng, &params, 6);
        let results = (0..3).map(|_| args[below(rng, args.len())]).collect();
        let signature = Signature { args, results, weight_params: 1 };
        Team::new(rng, &params, &keys, &homes, &programs, &signature).build(&mut programs);
    }
    let basis = params.basis(level);
    let ends: Vec<PrimeIndex> = basis.iter().chain(basis.iter()).collect();
    let entry = Signature { args: ends.clone(), results: ends, weight_params: 0 };
    Team::new(rng, &params, &keys, &homes, &programs, &entry).build(&mut programs);
    let port = |name: &str, gather| Port {
        name: name.into(),
        shape: vec![8],
        batch: 1,
        ciphertexts: vec![PackedCiphertext {
            level,
            scale: params.scale(level),
            gather: GatherId(gather),
            factor: 1.0,
            error: 0.0,
        }],
    };
    let mut gathers = gathers;
    gathers.push((0..8).collect());
    let stage = |i| Stage {
        name: format!("stage{i}"),
        level_in: level,
        level_out: level,
        operations: vec![],
        error: 0.0,
    };
    let artifact = Artifact {
        name: "random".into(),
        params: params.spec().clone(),
        programs,
        homes,
        inputs: vec![port("x", 1)],
        outputs: vec![port("y", 4)],
        keys,
        weights,
        gathers,
        tensors,
        stages: (0..STAGES).map(stage).collect(),
        passes: Vec::new(),
        communication: Vec::new(),
        key_plan: None,
        normalization: None,
        model: Vec::new(),
    };
    artifact.validate().expect("only valid artifacts are made here");
    artifact
}

/// A small insecure set.
pub fn small_params(log_n: u8) -> ParamsSpec {
    ParamsSpec::insecure(log_n, 30, 3, 2).expect("primes for a small set")
}

fn random_primes(rng: &mut ChaCha8Rng, params: &Params, count: usize) -> Vec<PrimeIndex> {
    (0..count).map(|_| PrimeIndex(below(rng, params.moduli().len()) as u8)).collect()
}
