//! Compiled programs on the CPU device give the bits of the polynomial interpreter, on every instruction set and number of
//! threads.

mod keys;
mod passes;
mod programs;

use cerium_artifact::kernel::Half;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::{EvaluationKey, KeyKind, KeyRequest};
use cerium_ckks::isa::Isa;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_ckks::rns::{Domain, Poly};
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::kernel::Fusion;
use cerium_compiler::polynomial::{Interpreter, KeySource};
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use rand::Rng;
use rand::rngs::StdRng;

/// Uniform keys of a manifest.
struct Keys {
    params: Params,
    keys: Vec<EvaluationKey>,
}

impl Keys {
    fn new(params: &Params, manifest: &[KeyRequest], rng: &mut StdRng) -> Keys {
        Keys { params: params.clone(), keys: keys::uniform_keys(params, manifest, rng) }
    }
}

impl KeySource for Keys {
    fn limb(&self, kind: KeyKind, half: Half, digit: usize, prime: PrimeIndex) -> Vec<u32> {
        let key = self.keys.iter().find(|k| k.request().kind == kind).expect("the manifest has every key");
        let digit = key.request().digit_position(&self.params, digit).expect("the manifest has every digit");
        let view = key.view(&self.params);
        // The interpreter also computes limbs that a restriction drops; the compiled program and its keys do without.
        let Some(b) = view.b(digit, prime) else { return vec![0; self.params.n()] };
        match half {
            Half::B => b.to_vec(),
            Half::A => {
                let mut words = vec![0; self.params.n()];
                view.expand_a(&self.params, digit, prime, &mut words);
                words
            }
        }
    }
}

#[test]
fn the_cpu_device_computes_what_the_interpreter_computes() {
    let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
    for _ in 0..8 {
        let mut rng = programs::fresh_rng();
        let source = programs::random(&params, &mut rng);
        let fusion = [Fusion::None, Fusion::Horizontal, Fusion::Full, Fusion::Full][rng.random_range(0..4)];
        let width = Some(rng.random_range(1..64));
        let options = CompileOptions { fusion, width, ..CompileOptions::default() };
        let artifact = compile(&source, &options, &mut Trace::default()).unwrap();
        artifact.validate().unwrap();
        let keys = Keys::new(&params, &artifact.keys, &mut rng);
        let inputs = keys::uniform_inputs(&params, &artifact, &mut rng);
        let expected = interpret(&source, &keys, &inputs);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let device = CpuDevice::with_isa(threads, isa).unwrap();
                let store = keys.keys.clone();
                let store =
                    KeyStore::from_keys(&params, &artifact.keys, store, threads, &progress::silent).unwrap();
                let mut session =
                    Session::new(&artifact, store, Box::new(device), threads, &progress::silent).unwrap();
                for run in 0..2 {
                    let (outputs, _) = session.run(&inputs).unwrap();
                    let words: Vec<&[u32]> = outputs.iter().map(Ciphertext::words).collect();
                    assert!(
                        words.concat() == expected,
                        "{fusion:?}, width {width:?}, {isa}, {threads} threads, run {run}"
                    );
                }
            }
        }
    }
}

/// All words of all outputs, by the polynomial interpreter.
fn interpret(source: &SourceProgram, keys: &Keys, inputs: &[Ciphertext]) -> Vec<u32> {
    let params = &keys.params;
    let poly = passes::polynomial(source);
    let args = inputs.iter().flat_map(|input| {
        let words = input.words();
        let basis = params.basis(input.level());
        words
            .chunks(words.len() / 2)
            .map(move |half| Poly::from_words(params, basis, Domain::Evaluation, half))
    });
    let results = Interpreter::new(&poly, keys).run(args.collect());
    results.iter().flat_map(Poly::to_words).collect()
}
