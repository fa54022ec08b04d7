//! Whole programs: the same words as the naive interpreter, on every instruction set and number of threads.

use cerium_artifact::kernel::{Block, Body, Instruction, Program};
use cerium_artifact::{
    Artifact, Function, FunctionId, Kernel, Operand, Plaintext, Recipe, StageId, Step, WeightId, WeightRef,
};
use cerium_ckks::basis::{Level, PrimeIndex, Scale};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_ckks::isa::Isa;
use cerium_ckks::params::Params;
use cerium_runtime::device::Device;
use cerium_runtime::memory::PlaintextError;
use cerium_runtime::null::{NullDevice, measure};
use cerium_runtime::profile::UsageTables;
use cerium_runtime::progress::silent;
use cerium_runtime::suite::Case;
use cerium_runtime::suite::random::{self, small_params};
use cerium_runtime::{CpuDevice, KeyStore, Mismatch, Session, SessionError, SessionOptions};

use crate::fresh_rng;
use crate::naive::Naive;

fn session(artifact: &Artifact, keys: &[EvaluationKey], device: impl Device + 'static) -> Session {
    let params = Params::new(artifact.params.clone()).unwrap();
    let keys = KeyStore::from_keys(&params, &artifact.keys, keys.to_vec(), 1, &silent).unwrap();
    Session::new(artifact, keys, Box::new(device), 1, &silent).unwrap()
}

#[test]
fn random_programs_agree_with_the_naive_interpreter() {
    let mut rng = fresh_rng();
    for (log_n, rounds) in [(4, 30), (5, 20), (10, 4), (13, 2)] {
        for _ in 0..rounds {
            let Case { artifact, params, keys, inputs } = Case::random(&mut rng, log_n);
            let limbs: Vec<Vec<u32>> = inputs[0].words().chunks(params.n()).map(<[u32]>::to_vec).collect();
            let mut naive = Naive::new(&artifact, &params, &keys);
            let expected = naive.run(&limbs).concat();
            let counted = measure(&artifact).unwrap();
            assert_eq!(counted.usage.total().launches, naive.launches[0]);
            for threads in 1..=3 {
                for isa in Isa::available() {
                    let mut session = session(&artifact, &keys, CpuDevice::with_isa(threads, isa).unwrap());
                    // Twice: nothing of the first run may show in the second.
                    for _ in 0..2 {
                        let (outputs, profile) = session.run(&inputs).unwrap();
                        assert!(outputs[0].words() == expected, "{threads} threads, {isa}");
                        assert_eq!(profile.threads, threads);
                        for stage in 0..artifact.stages.len() as u16 {
                            let stage = StageId(stage);
                            for class in cerium_runtime::KernelClass::ALL {
                                let busy = Default::default();
                                let usage = cerium_runtime::Usage { busy, ..profile.usage.get(stage, class) };
                                assert_eq!(usage, counted.usage.get(stage, class));
                            }
                        }
                        // What functions took is counted by their own stages and by those that called them.
                        let UsageTables { functions, called, .. } = &profile.usage;
                        assert_eq!(functions.total(), called.total());
                        for (stage, launches) in naive.called[0].iter().enumerate() {
                            assert_eq!(called.stage(StageId(stage as u16)).launches, *launches);
                        }
                    }
                    let memory = session.memory();
                    assert_eq!(
                        (memory.plaintexts, memory.keys),
                        (counted.plaintext_bytes, counted.key_bytes)
                    );
                }
            }
        }
    }
}

#[test]
fn the_artifact_survives_its_file() {
    let mut rng = fresh_rng();
    for round in 0..20 {
        let artifact = random::artifact(&mut rng, 4, 1 + round % 3);
        assert_eq!(Artifact::from_bytes(&artifact.to_bytes().unwrap()).unwrap(), artifact);
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let Case { artifact, params, keys, inputs } = Case::random(&mut fresh_rng(), 4);
    let mut session = session(&artifact, &keys, NullDevice::new());
    let mut refused = |inputs: &[Ciphertext]| session.run(inputs).map(|_| ()).unwrap_err();

    let error = refused(&[]);
    assert!(matches!(error, SessionError::Count { given: 0, expected: 1, .. }), "{error}");
    assert!(error.to_string().contains("1 of `x`"), "{error}");

    let top = params.max_level();
    let zeros = |params: &Params, level: Level, scale: Scale, polynomials: usize| {
        let words = polynomials * params.basis(level).len() * params.n();
        Ciphertext::new(params, level, scale, polynomials, vec![0; words]).unwrap()
    };
    let mismatch = |error: SessionError| match error {
        SessionError::Input { index: 0, ref port, mismatch } if port == "x" => {
            assert!(error.to_string().contains("encrypt it again"), "{error}");
            mismatch
        }
        other => panic!("{other}"),
    };
    let other = Params::new(small_params(6)).unwrap();
    let error = refused(&[zeros(&other, top, other.scale(top), 2)]);
    let expected = Mismatch::Params { given: other.digest(), expected: params.digest() };
    assert_eq!(mismatch(error), expected);
    let low = Level(0);
    let error = refused(&[zeros(&params, low, params.scale(top), 2)]);
    assert_eq!(mismatch(error), Mismatch::Level { given: low, expected: top });
    let double = Scale(2.0 * params.scale(top).0);
    let error = refused(&[zeros(&params, top, double, 2)]);
    assert_eq!(mismatch(error), Mismatch::Scale { given: double, expected: params.scale(top) });
    let error = refused(&[zeros(&params, top, params.scale(top), 3)]);
    assert_eq!(mismatch(error), Mismatch::Polynomials { given: 3 });
    session.run(&inputs).unwrap();
}

/// Whatever plaintexts may take, results are the same, and they take no more.
#[test]
fn plaintexts_encoded_when_they_are_needed_give_the_same_words() {
    let mut rng = fresh_rng();
    for (log_n, wanted) in [(4, 10), (5, 10), (10, 2), (13, 1)] {
        // Programs are drawn until enough sessions encoded on the way, and enough kept integers.
        let (mut moved, mut kept) = (0, 0);
        for round in 0.. {
            if moved >= wanted && kept >= wanted {
                break;
            }
            assert!(round < 200, "N = 2^{log_n}: {moved} sessions encoded on the way, {kept} kept integers");
            let Case { artifact, params, keys, inputs } = Case::random(&mut rng, log_n);
            let open = |plaintext_memory, threads| {
                let keys = KeyStore::from_keys(&params, &artifact.keys, keys.clone(), 1, &silent).unwrap();
                let device = Box::new(CpuDevice::new(threads).unwrap());
                let options = SessionOptions { threads: 1, plaintext_memory };
                Session::with_options(&artifact, keys, device, &options, &silent)
            };
            let mut whole = open(Some(u64::MAX), 1).unwrap();
            let (expected, _) = whole.run(&inputs).unwrap();
            let all = whole.memory().plaintexts;
            assert_eq!(whole.memory().raw_weights, 0);
            let least = match open(Some(0), 1) {
                Err(SessionError::Plaintext(PlaintextError::Budget { budget: 0, needed })) => needed,
                other => panic!("{:?}", other.err()),
            };
            assert!(least > all || open(Some(least - 1), 1).is_err());
            if log_n >= 10 {
                // Weight 3 fills all slots; not even its limbs are all there at once.
                let limbs = params.q_basis().union(params.p_basis()).len();
                assert!(least < (4 * limbs * params.n()) as u64, "{least} bytes for {limbs} limbs");
            }
            for (budget, threads) in [(least, 1), (least, 2), (least.midpoint(all), 1), (all - 1, 2)] {
                let Ok(mut session) = open(Some(budget), threads) else {
                    assert!(budget < least, "{least} bytes are enough, {budget} are not");
                    continue;
                };
                let memory = session.memory();
                assert!(memory.plaintexts <= budget, "{} of {budget} bytes", memory.plaintexts);
                if memory.raw_weights > 0 {
                    assert_eq!(memory.raw_weights, artifact.tensors[0].values.bytes());
                    moved += 1;
                } else if memory.plaintexts < all {
                    kept += 1;
                }
                for _ in 0..2 {
                    let (outputs, _) = session.run(&inputs).unwrap();
                    assert!(outputs.iter().zip(&expected).all(|(a, b)| a.words() == b.words()));
                }
            }
        }
    }
}

#[test]
fn an_invalid_artifact_is_refused() {
    let Case { mut artifact, params, keys, .. } = Case::random(&mut fresh_rng(), 4);
    let keys = KeyStore::from_keys(&params, &artifact.keys, keys, 1, &silent).unwrap();
    artifact.programs[0][0].frame = u32::MAX;
    let error = Session::new(&artifact, keys, Box::new(NullDevice::new()), 1, &silent).err().unwrap();
    assert!(matches!(error, SessionError::Artifact(_)), "{error}");
}

#[test]
fn a_weight_beyond_the_modulus_is_named() {
    let Case { mut artifact, params, keys, .. } = Case::random(&mut fresh_rng(), 4);
    let keys = KeyStore::from_keys(&params, &artifact.keys, keys, 1, &silent).unwrap();
    let Recipe::Gather { factor, .. } = &mut artifact.weights[0] else { panic!("weight 0 is gathered") };
    *factor = 1e300;
    let error = Session::new(&artifact, keys, Box::new(NullDevice::new()), 1, &silent).err();
    // The weight may consist of zeros only.
    let zero = artifact.gathers[0][0] == cerium_artifact::NO_ELEMENT;
    match error {
        Some(error) => {
            assert!(error.to_string().contains("a weight of tensor `w` cannot be encoded"), "{error}")
        }
        None => assert!(zero),
    }
}

/// Functions that pass their parameters on can ask for far more encodings than the artifact is long.
#[test]
fn a_flood_of_bindings_is_refused() {
    let Case { mut artifact, params, .. } = Case::random(&mut fresh_rng(), 4);
    let weights = 2_100;
    let entry = artifact.programs[0].pop().unwrap();
    let plaintext = Plaintext { weight: WeightRef::Param(0), ..entry.plaintexts[2] };
    let copy = |primes: &[PrimeIndex]| {
        let operands =
            |operand: fn(u32) -> Operand| (0..primes.len() as u32).map(operand).collect::<Vec<_>>();
        let limbs = primes.iter().zip(operands(Operand::Arg)).zip(operands(Operand::Result));
        let block = |((&prime, load), store)| Block {
            prime,
            loads: vec![load],
            stores: vec![store],
            scalars: vec![],
            galois: vec![],
        };
        let blocks = limbs.map(block).collect();
        let program = Program { instructions: vec![Instruction::Load(0)], results: vec![0] };
        let body = Body::Elementwise { program, blocks };
        Step::Launch(Kernel { stage: StageId(0), body })
    };
    let function = |name: &str, weight_params| Function {
        name: name.into(),
        args: vec![],
        results: vec![],
        weight_params,
        plaintexts: vec![],
        frame: 0,
        steps: vec![],
    };
    let call = |function, weights| Step::Call {
        stage: StageId(0),
        function: FunctionId(function),
        args: vec![],
        results: vec![],
        weights,
    };
    let plaintexts = (0..weights).map(|i| Plaintext { weight: WeightRef::Param(i), ..plaintext }).collect();
    let wide = Function { plaintexts, ..function("wide", weights) };
    let steps = vec![call(0, vec![WeightRef::Param(0); weights as usize])];
    let fan = Function { steps, ..function("fan", 1) };
    let mut steps: Vec<Step> = (0..weights).map(|i| call(1, vec![WeightRef::Weight(WeightId(i))])).collect();
    steps.push(copy(&entry.args));
    let (args, results) = (entry.args.clone(), entry.results.clone());
    let main = Function { args, results, steps, ..function("main", 0) };
    artifact.weights = vec![artifact.weights[2]; weights as usize];
    artifact.programs[0] = vec![wide, fan, main];
    assert_eq!(artifact.validate().unwrap(), params);
    let error = measure(&artifact).unwrap_err();
    assert!(matches!(error, SessionError::Plaintext(PlaintextError::TooMany)), "{error}");
}
