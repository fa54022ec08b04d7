//! A small artifact made by hand that has one of everything.

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::{Basis, PrimeIndex};
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// A generator with a seed from the operating system, which is printed.
pub(crate) fn fresh_rng() -> ChaCha8Rng {
    let seed = getrandom::u64().expect("the operating system gives randomness");
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// Tests that a sample is refused, after a change, with an error that contains these words.
macro_rules! rejected {
    ($sample:path; $($name:ident: $change:expr => $part:literal;)*) => {$(
        #[test]
        fn $name() {
            let mut artifact = $sample();
            let change: fn(&mut Artifact) = $change;
            change(&mut artifact);
            let error = artifact.validate().expect_err("the artifact is inconsistent");
            let message = error.to_string();
            assert!(message.contains($part), "{message}");
        }
    )*};
}
pub(crate) use rejected;

fn launch(body: Body) -> Step {
    Step::Launch(Kernel { stage: StageId(0), body })
}

fn limbs(operand: impl Fn(u32) -> Operand, basis: Basis) -> Vec<(PrimeIndex, Operand)> {
    basis.iter().enumerate().map(|(i, prime)| (prime, operand(i as u32))).collect()
}

fn block(prime: PrimeIndex, loads: Vec<Operand>, stores: Vec<Operand>) -> Block {
    Block { prime, loads, stores, scalars: vec![], galois: vec![] }
}

fn transforms(
    load: impl Fn(u32) -> Operand,
    store: impl Fn(u32) -> Operand,
    basis: Basis,
    scalars: &[u32],
) -> Transform {
    let pairs = limbs(load, basis).into_iter().zip(limbs(store, basis));
    let block = |((prime, load), (_, store))| Block {
        scalars: scalars.to_vec(),
        ..block(prime, vec![load], vec![store])
    };
    Transform {
        prologue: Program::load(),
        input: 0,
        epilogue: Program::input(),
        blocks: pairs.map(block).collect(),
    }
}

/// A call of a function with a weight, a key product, a base conversion and an automorphism.
pub(crate) fn sample() -> Artifact {
    let spec = ParamsSpec::insecure(5, 30, 2, 2).unwrap();
    let params = Params::new(spec.clone()).unwrap();
    let level = params.max_level();
    let q = params.basis(level);
    let count = q.len() as u32;
    let pool = q.union(params.p_basis());
    let rotation = KeyRequest { kind: KeyKind::Rotation(galois_element(5, 1)), level };

    let multiply = limbs(Operand::Arg, q).into_iter().enumerate().map(|(i, (prime, load))| {
        let plain = Operand::Plain { plaintext: 0, limb: i as u16 };
        Block { scalars: vec![3], ..block(prime, vec![load, plain], vec![Operand::Local(i as u32)]) }
    });
    // Adds what enters the last transform to what leaves it.
    let mut finish = transforms(Operand::Local, Operand::Result, q, &[]);
    finish.epilogue = Program {
        instructions: vec![Instruction::Input, Instruction::Load(0), Instruction::Add(0, 1)],
        results: vec![2],
    };
    let weigh = Function {
        name: "weigh".into(),
        args: q.iter().collect(),
        results: q.iter().collect(),
        weight_params: 1,
        plaintexts: vec![Plaintext {
            weight: WeightRef::Param(0),
            basis: q,
            modulus: q,
            scale: params.scale(level),
            rotation: 0,
            log_period: 1,
        }],
        frame: count,
        steps: vec![
            launch(Body::Elementwise {
                program: Program {
                    instructions: vec![
                        Instruction::Load(0),
                        Instruction::Load(1),
                        Instruction::MontMul(0, 1),
                        Instruction::AddScalar(2, 0),
                    ],
                    results: vec![3],
                },
                blocks: multiply.collect(),
            }),
            launch(Body::Intt(transforms(Operand::Local, Operand::Local, q, &[1]))),
            launch(Body::Ntt(finish)),
        ],
    };

    let call = |poly: u32, weight: u32| Step::Call {
        stage: StageId(0),
        function: FunctionId(0),
        args: (0..count).map(|i| Operand::Arg(poly * count + i)).collect(),
        results: (0..count).map(|i| Operand::Local(poly * count + i)).collect(),
        weights: vec![WeightRef::Weight(WeightId(weight))],
    };
    let second = |i: u32| Operand::Local(count + i);
    let extended = |i: u32| Operand::Local(2 * count + i);
    let keyed = limbs(second, q).into_iter().enumerate().map(|(i, (prime, load))| {
        let key = |half| Operand::Key { key: 0, digit: 0, half, prime };
        let loads = vec![load, key(Half::B), key(Half::A), Operand::Local(i as u32)];
        block(prime, loads, vec![Operand::Local(i as u32), load])
    });
    let permuted = (0..2 * count).zip(q.iter().chain(q.iter())).map(|(i, prime)| Block {
        galois: vec![2 * 32 - 1],
        ..block(prime, vec![Operand::Local(i)], vec![Operand::Result(i)])
    });
    let targets =
        limbs(extended, pool).into_iter().map(|(prime, store)| block(prime, vec![], vec![store])).collect();
    let main = Function {
        name: "main".into(),
        args: q.iter().chain(q.iter()).collect(),
        results: q.iter().chain(q.iter()).collect(),
        weight_params: 0,
        plaintexts: vec![],
        frame: 2 * count + pool.len() as u32,
        steps: vec![
            call(0, 0),
            call(1, 1),
            launch(Body::BaseConvert {
                epilogue: Program::input(),
                blocks: vec![BaseConvertBlock { sources: limbs(second, q), targets }],
            }),
            launch(Body::Elementwise {
                program: Program {
                    instructions: vec![
                        Instruction::Load(0),
                        Instruction::Load(1),
                        Instruction::Load(2),
                        Instruction::Load(3),
                        Instruction::Dot(vec![(0, 1), (0, 2)]),
                        Instruction::Add(4, 3),
                    ],
                    results: vec![5, 4],
                },
                blocks: keyed.collect(),
            }),
            launch(Body::Elementwise {
                program: Program {
                    instructions: vec![Instruction::Load(0), Instruction::Permute(0, 0)],
                    results: vec![1],
                },
                blocks: permuted.collect(),
            }),
        ],
    };
    let packed = |gather| PackedCiphertext {
        level,
        scale: params.scale(level),
        gather: GatherId(gather),
        factor: 0.5,
        error: 0.0,
    };
    let factor = DftFactor { direction: Direction::SlotsToCoeffs, log_slots: 4, first: 1, stages: 2 };
    Artifact {
        name: "sample".into(),
        params: spec,
        programs: vec![vec![weigh, main]],
        homes: vec![],
        communication: vec![],
        inputs: vec![Port { name: "x".into(), shape: vec![1, 4], batch: 1, ciphertexts: vec![packed(1)] }],
        outputs: vec![Port { name: "y".into(), shape: vec![3], batch: 1, ciphertexts: vec![packed(2)] }],
        keys: vec![rotation],
        weights: vec![
            Recipe::Gather { tensor: TensorId(0), gather: GatherId(0), factor: 1.0 },
            Recipe::Gather { tensor: TensorId(0), gather: GatherId(3), factor: -2.0 },
            Recipe::Constant { re: 0.0, im: 1.0 },
            Recipe::Dft { factor, offset: -2, scale: 0.5 },
        ],
        gathers: vec![vec![1, NO_ELEMENT], vec![3, 2, 1, 0], vec![0, 1, 2, NO_ELEMENT], vec![2, 0]],
        tensors: vec![Tensor { name: "w".into(), values: vec![0.5, -1.0, 2.5].into() }],
        stages: vec![Stage {
            name: "layer".into(),
            level_in: level,
            level_out: level,
            operations: vec![("mul".into(), 2)],
            error: 1e-6,
        }],
        passes: vec![PassFigures {
            pass: "unfused".into(),
            cost: Cost { launches: 3, blocks: 4, bytes_read: 5, bytes_written: 6, multiplications: 7 },
            pool_limbs: 8,
        }],
        key_plan: Some(KeyPlan {
            budget: 1 << 20,
            keys_before: 9,
            bytes_before: 1 << 21,
            keys: 2,
            bytes: 1 << 19,
            switches_before: 9,
            switches: 12,
            chains: vec![ChainedTransform {
                stage: StageId(0),
                diagonals: 31,
                stride: 5,
                switches_before: 9,
                switches: 12,
            }],
        }),
        normalization: Some(Normalization { mean: vec![0.5], deviation: vec![0.25] }),
        model: b"a network".to_vec(),
    }
}
