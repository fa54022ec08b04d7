//! Bootstrapping on small rings: parts in the clear, whole programs encrypted with fresh keys.

use cerium_artifact::Artifact;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_client::{SecretKey, decrypt, encrypt_with_public_key, evaluation_key, public_key};
use cerium_compiler::ciphertext::{BootstrapKind, Interpreter, Slots, noise};
use cerium_compiler::dsl::{Ct, Packing, Program, SourceProgram};
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use num_complex::Complex64;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn fresh_rng() -> StdRng {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn params() -> Params {
    Params::new(ParamsSpec::insecure_boot(11, 40).unwrap()).unwrap()
}

/// A program with one input of as many slots as there are.
fn program(params: &Params, inputs: usize, body: impl FnOnce(&Program, Vec<Ct>) -> Vec<Ct>) -> SourceProgram {
    let p = Program::new("bootstraps", params);
    let x = (0..inputs).map(|i| p.input(&format!("x{i}"), Packing::dense(params.slots()))).collect();
    for (i, y) in body(&p, x).iter().enumerate() {
        p.output(&format!("y{i}"), Packing::dense(params.slots()), y);
    }
    p.finish()
}

/// Slots with real and imaginary parts in [-1, 1], with a period; the imaginary parts are zero if `real`.
fn message(params: &Params, log_period: u32, real: bool, rng: &mut StdRng) -> Slots {
    let mut part = || rng.random_range(-1.0..1.0);
    let period: Slots =
        (0..1 << log_period).map(|_| Complex64::new(part(), if real { 0.0 } else { part() })).collect();
    period.iter().copied().cycle().take(params.slots()).collect()
}

/// Compiles and checks as [`check_compiled`] does.
fn check(source: &SourceProgram, params: &Params, inputs: &[Slots]) -> Vec<(f64, f64)> {
    let options = CompileOptions { samples: vec![inputs.to_vec()], ..CompileOptions::default() };
    let artifact = compile(source, &options, &mut Trace::default()).unwrap();
    artifact.validate().unwrap();
    check_compiled(&artifact, source, params, inputs)
}

/// Encrypts under fresh keys, runs, decrypts, and holds every slot against the clear result and the promise. Errors and
/// promises of the outputs.
fn check_compiled(
    artifact: &Artifact,
    source: &SourceProgram,
    params: &Params,
    inputs: &[Slots],
) -> Vec<(f64, f64)> {
    let secret = SecretKey::generate_insecure(params).unwrap();
    let public = public_key(params, &secret).unwrap();
    let keys = artifact.keys.iter().map(|&request| evaluation_key(params, &secret, request).unwrap());
    let store = KeyStore::from_keys(params, &artifact.keys, keys.collect(), 2, &progress::silent).unwrap();
    let encoder = Encoder::new(params);
    let ports = artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
    let encrypted: Vec<_> = ports
        .zip(inputs)
        .map(|(at, slots)| {
            encrypt_with_public_key(params, &encoder, &public, slots, at.level, at.scale).unwrap()
        })
        .collect();
    let device = Box::new(CpuDevice::new(2).unwrap());
    let mut session = Session::new(artifact, store, device, 2, &progress::silent).unwrap();
    let (outputs, _) = session.run(&encrypted).unwrap();

    let expected = Interpreter::new(&source.module).run(inputs);
    let promises = artifact.outputs.iter().map(|port| noise::PROMISE * port.ciphertexts[0].error);
    let mut measured = Vec::new();
    for (i, ((output, expected), promise)) in outputs.iter().zip(&expected).zip(promises).enumerate() {
        let decrypted = decrypt(params, &encoder, &secret, output).unwrap();
        let error = decrypted.iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        println!(
            "output {i} at {}: error 2^{:.1}, promised 2^{:.1}",
            output.level(),
            error.log2(),
            promise.log2()
        );
        assert!(error <= promise, "output {i}: error {error:.3e} exceeds the promised {promise:.3e}");
        measured.push((error, promise));
    }
    measured
}

#[test]
fn every_kind_of_bootstrap_gives_its_message_back() {
    let params = params();
    let mut rng = fresh_rng();
    let full = params.slots().trailing_zeros();
    let output = params.bootstrap().unwrap().output;
    for (kind, log_slots) in [
        (BootstrapKind::Complex, full),
        (BootstrapKind::Real, full),
        (BootstrapKind::Real, 4),
        (BootstrapKind::Complex, 8),
    ] {
        println!("{kind:?}, 2^{log_slots} slots");
        let source = program(&params, 1, |_, x| vec![x[0].bootstrap_sparse(kind, log_slots, 1.0)]);
        let input = message(&params, log_slots, kind == BootstrapKind::Real, &mut rng);
        for (error, promise) in check(&source, &params, &[input]) {
            assert!(error < 2f64.powi(-20) && promise < 2f64.powi(-17));
        }
        let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
        assert_eq!(artifact.inputs[0].ciphertexts[0].level, params.bootstrap().unwrap().input);
        assert_eq!(artifact.outputs[0].ciphertexts[0].level, output);
    }
}

#[test]
fn the_promise_holds_for_other_keys_and_messages() {
    let params = params();
    let mut rng = fresh_rng();
    let full = params.slots().trailing_zeros();
    let source = program(&params, 1, |_, x| vec![x[0].bootstrap(BootstrapKind::Complex, 1.0)]);
    let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
    let ratios: Vec<f64> = (0..8)
        .map(|_| {
            let input = message(&params, full, false, &mut rng);
            let (error, promise) = check_compiled(&artifact, &source, &params, &[input])[0];
            error / promise
        })
        .collect();
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    println!("largest error: {largest:.2} of the promise");
    assert!(largest > 0.05, "a promise of {:.0} times the error says little", 1.0 / largest);
}

#[test]
fn two_real_values_share_a_bootstrap() {
    let params = params();
    let mut rng = fresh_rng();
    let source = program(&params, 2, |_, x| {
        let (a, b) = x[0].bootstrap_pair(&x[1], 1.0);
        vec![a, b]
    });
    let full = params.slots().trailing_zeros();
    let inputs = [message(&params, full, true, &mut rng), message(&params, full, true, &mut rng)];
    for (error, _) in check(&source, &params, &inputs) {
        assert!(error < 2f64.powi(-20));
    }
}

#[test]
fn messages_of_one_large_coefficient_are_no_worse() {
    let params = params();
    let source = program(&params, 1, |_, x| vec![x[0].bootstrap(BootstrapKind::Real, 1.0)]);
    for value in [1.0, -1.0, 0.0] {
        for (error, _) in check(&source, &params, &[vec![value.into(); params.slots()]]) {
            assert!(error < 2f64.powi(-20));
        }
    }
}

#[test]
fn bounds_and_repeated_bootstraps() {
    let params = params();
    let mut rng = fresh_rng();
    let source = program(&params, 1, |_, x| {
        let y = (&x[0] * 6.0).bootstrap(BootstrapKind::Real, 8.0);
        let y = (&y * &y * (1.0 / 36.0)).bootstrap(BootstrapKind::Real, 1.0);
        vec![&y * &y]
    });
    let full = params.slots().trailing_zeros();
    for (error, _) in check(&source, &params, &[message(&params, full, true, &mut rng)]) {
        assert!(error < 2f64.powi(-14));
    }
}

/// The estimate runs the first of them only, and takes the others to do the same.
#[test]
fn the_promise_holds_through_a_chain_of_bootstraps() {
    let params = params();
    let mut rng = fresh_rng();
    let full = params.slots().trailing_zeros();
    for (kind, log_slots) in [(BootstrapKind::Complex, full), (BootstrapKind::Real, 4)] {
        let source = program(&params, 1, |_, x| {
            vec![(0..8).fold(x[0].clone(), |x, _| x.bootstrap_sparse(kind, log_slots, 1.0).rotate(1))]
        });
        let input = message(&params, log_slots, kind == BootstrapKind::Real, &mut rng);
        for (error, promise) in check(&source, &params, &[input]) {
            assert!(error > 0.05 * promise, "a promise of {:.0} times the error", promise / error);
        }
    }
}

#[test]
fn bootstraps_are_placed_where_the_program_has_none() {
    let params = params();
    let mut rng = fresh_rng();
    // Forty products of values that grow beyond 1, of two inputs, whose bootstraps can be shared.
    let source = program(&params, 2, |_, x| {
        let chain = |x: &Ct, sign: f64| {
            (0..20).fold(x * 2.0, |y, _| &y * &y * (-0.25 * sign) + (0.5 * sign)).rotate(1)
        };
        vec![chain(&x[0], 1.0) + &x[1], chain(&x[1], -1.0)]
    });
    let inputs = [message(&params, 6, true, &mut rng), message(&params, 6, true, &mut rng)];
    for (error, _) in check(&source, &params, &inputs) {
        assert!(error < 2f64.powi(-10));
    }
    let options = CompileOptions { samples: vec![inputs.to_vec()], ..CompileOptions::default() };
    let mut trace = Trace { dump: vec!["place_bootstraps".into()], ..Trace::default() };
    let artifact = compile(&source, &options, &mut trace).unwrap();
    let placed: Vec<&str> =
        trace.dumps[0].after.lines().filter(|line| line.contains(" = bootstrap(")).collect();
    assert!(placed.iter().any(|line| line.contains(", %")), "a pair in {placed:#?}");
    let reported = artifact.stages.iter().flat_map(|stage| &stage.operations);
    let reported: u64 = reported.filter(|(name, _)| name == "bootstrap").map(|(_, count)| count).sum();
    assert_eq!(reported, placed.len() as u64);
}

#[test]
fn a_second_bootstrap_takes_the_error_of_the_first_off() {
    let params = params();
    let mut rng = fresh_rng();
    let kind = BootstrapKind::Real;
    let source =
        program(&params, 1, |_, x| vec![x[0].bootstrap(kind, 1.0), x[0].bootstrap_iterated(kind, 1.0, 14)]);
    let full = params.slots().trailing_zeros();
    let results = check(&source, &params, &[message(&params, full, true, &mut rng)]);
    // What is left is the noise of the encryption itself.
    let gain = results[0].0 / results[1].0;
    assert!(gain > 2.0, "the error is {gain:.1} times smaller");
    assert!(results[1].1 < results[0].1 / 4.0, "and so is the promise");
}

/// A random program deeper than the levels of its set, on three inputs with slots in [-1, 1]; every value stays there by
/// construction.
fn deep_program(params: &Params, rng: &mut StdRng) -> SourceProgram {
    program(params, 3, |p, x| {
        let values: Vec<f32> = (0..16).map(|_| rng.random_range(-1.0..1.0)).collect();
        let tensor = p.tensor("w", values);
        let w = p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0);
        let blend = p.function("blend", 2, &[], |_, x, _| vec![(&x[0] * &x[1] + x[0].rotate(1)) * 0.5]);
        let mut values = x;
        for _ in 0..36 {
            let recent = |rng: &mut StdRng| {
                let reach = if rng.random_range(0..6) == 0 { 12 } else { 2 };
                values[values.len() - 1 - rng.random_range(0..values.len().min(reach))].clone()
            };
            let (a, b) = (recent(rng), recent(rng));
            values.push(match rng.random_range(0..6) {
                0 => (&a * &b + &a) * 0.5,
                1 => (a * &w + b) * 0.5,
                2 => p.call(&blend, &[&a, &b], &[]).remove(0),
                3 => a.poly_eval(&[0.1, 0.5, 0.1, -0.2, 0.1]),
                4 => (a.rotate(rng.random_range(1..9)) - b) * 0.5,
                _ => &a * &b * 0.75 + 0.25,
            });
        }
        values.split_off(values.len() - 2)
    })
}

#[test]
fn random_deep_programs_decrypt_to_the_clear_result() {
    let params = Params::new(ParamsSpec::insecure_boot(9, 40).unwrap()).unwrap();
    let mut rng = fresh_rng();
    let mut bootstraps = 0;
    for _ in 0..4 {
        let source = deep_program(&params, &mut rng);
        let inputs: Vec<Slots> = (0..3).map(|_| message(&params, 8, true, &mut rng)).collect();
        for (_, promise) in check(&source, &params, &inputs) {
            assert!(promise < 0.01, "a promise of {promise:.1e} says nothing");
        }
        let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
        let operations = artifact.stages.iter().flat_map(|stage| &stage.operations);
        let placed: u64 = operations.filter(|(name, _)| name == "bootstrap").map(|(_, count)| count).sum();
        println!("{placed} bootstraps");
        bootstraps += placed;
    }
    assert!(bootstraps > 0, "programs this deep need bootstraps");
}
