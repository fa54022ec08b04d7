//! Random programs, encrypted with fresh keys: what is decrypted is what the clear interpreter says, within the promise of
//! the static noise estimate.

mod programs;

use cerium_artifact::Artifact;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_client::{SecretKey, decrypt, encrypt_with_public_key, evaluation_key, public_key};
use cerium_compiler::ciphertext::{Interpreter, Slots, noise};
use cerium_compiler::dsl::{Packing, Program, SourceProgram};
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use num_complex::Complex64;
use rand::Rng;
use rand::rngs::StdRng;

/// Compiles, encrypts, runs, decrypts; checks every slot of every output. The largest ratio of error to promise.
fn check(source: &SourceProgram, params: &Params, rng: &mut StdRng) -> f64 {
    check_within(source, params, None, rng).0
}

/// As [`check`], with keys of at most `key_memory` bytes; also the program.
fn check_within(
    source: &SourceProgram,
    params: &Params,
    key_memory: Option<u64>,
    rng: &mut StdRng,
) -> (f64, Artifact) {
    let packings = source.inputs.iter().flat_map(|port| &port.packings);
    let inputs: Vec<Slots> = packings
        .map(|packing| {
            let period: Vec<Complex64> =
                packing.gather.iter().map(|_| rng.random_range(-1.0..1.0).into()).collect();
            period.iter().copied().cycle().take(params.slots()).collect()
        })
        .collect();
    let options = CompileOptions { samples: vec![inputs.clone()], key_memory, ..CompileOptions::default() };
    let artifact = compile(source, &options, &mut Trace::default()).unwrap();

    let secret = SecretKey::generate_insecure(params).unwrap();
    let public = public_key(params, &secret).unwrap();
    let keys = artifact.keys.iter().map(|&request| evaluation_key(params, &secret, request).unwrap());
    let store = KeyStore::from_keys(params, &artifact.keys, keys.collect(), 1, &progress::silent).unwrap();
    let encoder = Encoder::new(params);
    let ports = artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
    let encrypted: Vec<_> = ports
        .zip(&inputs)
        .map(|(at, slots)| {
            encrypt_with_public_key(params, &encoder, &public, slots, at.level, at.scale).unwrap()
        })
        .collect();
    let device = Box::new(CpuDevice::new(1).unwrap());
    let mut session = Session::new(&artifact, store, device, 1, &progress::silent).unwrap();
    let (outputs, _) = session.run(&encrypted).unwrap();

    let expected = Interpreter::new(&source.module).run(&inputs);
    let promises = artifact.outputs.iter().map(|port| noise::PROMISE * port.ciphertexts[0].error);
    let mut largest = 0.0f64;
    for (i, ((output, expected), promise)) in outputs.iter().zip(&expected).zip(promises).enumerate() {
        let decrypted = decrypt(params, &encoder, &secret, output).unwrap();
        let error = decrypted.iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        println!("output {i}: error {error:.3e}, promised {promise:.3e}");
        assert!(error <= promise, "output {i}: error {error:.3e} exceeds the promised {promise:.3e}");
        assert!(promise < 0.05, "output {i}: a promise of {promise:.3e} says nothing");
        largest = largest.max(error / promise);
    }
    (largest, artifact)
}

#[test]
fn random_programs_decrypt_to_the_clear_result() {
    // Scales of 40 bits are differences of 30-bit and 25-bit primes: levels are real sets of primes.
    for (log_n, log_scale) in [(10, 30), (11, 40), (10, 35)] {
        let params = Params::new(ParamsSpec::insecure(log_n, log_scale, 8, 3).unwrap()).unwrap();
        for _ in 0..2 {
            let mut rng = programs::fresh_rng();
            check(&programs::random(&params, &mut rng), &params, &mut rng);
        }
    }
}

#[test]
fn polynomials_take_their_depth_and_no_more() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 6, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    for degree in [1usize, 2, 3, 4, 7, 8, 15, 27, 31, 59] {
        let series: Vec<f64> = (0..=degree).map(|_| rng.random_range(-1.0..1.0) / degree as f64).collect();
        let p = Program::new("polynomial", &params);
        let x = p.input("x", Packing::dense(16));
        p.output("y", Packing::dense(16), &x.poly_eval(&series));
        let source = p.finish();
        let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
        let used = artifact.inputs[0].ciphertexts[0].level.0 - artifact.outputs[0].ciphertexts[0].level.0;
        let depth = (degree + 1).next_power_of_two().trailing_zeros();
        assert_eq!(u32::from(used), depth, "levels of degree {degree}");
        let ratio = check(&source, &params, &mut rng);
        assert!(ratio > 1e-3, "degree {degree}: the promise is {:.0} times the error", 1.0 / ratio);
    }
}

#[test]
fn factors_of_the_transform_undo_each_other() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 6, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let p = Program::new("transform", &params);
    let mut x = p.input("x", Packing::dense(512));
    for (direction, scale) in [(Direction::SlotsToCoeffs, 0.5), (Direction::CoeffsToSlots, 2.0)] {
        let factor = DftFactor { direction, log_slots: 9, first: 6, stages: 3 };
        let offsets = factor.offsets().into_iter();
        let diagonals: Vec<_> =
            offsets.map(|offset| (offset, p.dft_diagonal(factor, offset, scale))).collect();
        x = x.linear_transform(&diagonals);
    }
    p.output("x", Packing::dense(512), &x);
    let source = p.finish();
    let input: Slots = (0..params.slots()).map(|_| rng.random_range(-1.0..1.0).into()).collect();
    let output = Interpreter::new(&source.module).run(std::slice::from_ref(&input)).remove(0);
    assert!(input.iter().zip(&output).all(|(a, b)| (a - b).norm() < 1e-13));
    check(&source, &params, &mut rng);
}

#[test]
fn functions_take_other_weights_at_every_call() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 6, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let p = Program::new("layers", &params);
    let mut x = p.input("x", Packing::dense(32));
    let layer = p.function("layer", 1, &[32, 8], |_, cts, weights| {
        let y = cts[0].linear_transform(&[
            (0, weights[0].clone()),
            (1, weights[1].clone()),
            (9, weights[0].clone()),
        ]);
        vec![y + &weights[1]]
    });
    for i in 0..3 {
        let tensor = p.tensor(&format!("w{i}"), (0..40).map(|_| rng.random_range(-0.3..0.3)).collect());
        let wide = p.weight(tensor, &(0..32).collect::<Vec<u32>>(), 1.0);
        let narrow = p.weight(tensor, &(32..40).collect::<Vec<u32>>(), 1.0);
        x = p.call(&layer, &[&x], &[&wide, &narrow]).remove(0);
    }
    p.output("y", Packing::dense(32), &x);
    check(&p.finish(), &params, &mut rng);
}

/// A program whose keys must take half as much memory has fewer of them and gives the same result.
#[test]
fn keys_fit_a_budget() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 4, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let p = Program::new("transforms", &params);
    let tensor = p.tensor("w", (0..16).map(|_| rng.random_range(-0.1..0.1)).collect());
    let weight = p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0);
    let diagonals = |unit: i64| (-5..11).map(|i| (unit * i, weight.clone())).collect::<Vec<_>>();
    let x = p.input("x", Packing::dense(params.slots()));
    let y = x.linear_transform(&diagonals(1)).linear_transform(&diagonals(16)).rotate(3);
    p.output("y", Packing::dense(params.slots()), &y);
    let source = p.finish();

    let memory =
        |artifact: &Artifact| -> u64 { artifact.keys.iter().map(|key| 8 * key.words(&params) as u64).sum() };
    let (_, free) = check_within(&source, &params, None, &mut rng);
    assert!(free.key_plan.is_none());
    let budget = memory(&free) / 2;
    let (_, tight) = check_within(&source, &params, Some(budget), &mut rng);
    let plan = tight.key_plan.as_ref().unwrap();
    assert_eq!((plan.budget, plan.keys as usize, plan.bytes), (budget, tight.keys.len(), memory(&tight)));
    assert_eq!((plan.keys_before as usize, plan.bytes_before), (free.keys.len(), memory(&free)));
    assert!(plan.bytes <= budget && !plan.chains.is_empty());

    let options = CompileOptions { key_memory: Some(budget / 8), ..CompileOptions::default() };
    let error = compile(&source, &options, &mut Trace::default()).unwrap_err();
    assert!(error.to_string().contains("evaluation keys take at least"), "{error}");
}

/// Giant steps of transforms of several ciphertexts are rotated together.
#[test]
fn sums_of_transforms_share_giant_steps() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 3, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let rotations = |artifact: &Artifact| -> u64 {
        let operations = artifact.stages.iter().flat_map(|stage| &stage.operations);
        operations.filter(|(name, _)| name == "rotate").map(|(_, count)| count).sum()
    };
    let mut compiled = |inputs: usize| {
        let p = Program::new("transforms", &params);
        let input = |i: usize| p.input(&format!("x{i}"), Packing::dense(params.slots()));
        let inputs: Vec<_> = (0..inputs).map(input).collect();
        let tensor = p.tensor("w", (0..16).map(|_| rng.random_range(-0.1..0.1)).collect());
        let weight = p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0);
        let diagonals: Vec<_> = (0..16).map(|i| (i, weight.clone())).collect();
        let sum = inputs.iter().map(|x| x.linear_transform(&diagonals)).reduce(|sum, y| sum - y).unwrap();
        p.output("y", Packing::dense(params.slots()), &sum);
        check_within(&p.finish(), &params, None, &mut rng).1
    };
    let (one, three) = (rotations(&compiled(1)), rotations(&compiled(3)));
    assert!(one < three && three < 3 * one, "{one} rotations for one transform, {three} for three");
}
