//! Whole programs in emitted CUDA C++ give the bits of the CPU device: the device for GPUs runs on the host here.

mod keys;
mod programs;

use cerium_artifact::Artifact;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ciphertext::BootstrapKind;
use cerium_compiler::dsl::{Packing, Program, SourceProgram};
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::cuda::CudaDevice;
use cerium_runtime::cuda::host::{HostGpu, Order};
use cerium_runtime::device::Device;
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use rand::Rng;
use rand::rngs::StdRng;

/// All words of all outputs, of two runs one after the other: nothing of the first may show in the second.
fn run(
    artifact: &Artifact,
    keys: &[EvaluationKey],
    inputs: &[Ciphertext],
    device: impl Device + 'static,
) -> Vec<u32> {
    let params = Params::new(artifact.params.clone()).unwrap();
    let store = KeyStore::from_keys(&params, &artifact.keys, keys.to_vec(), 2, &progress::silent).unwrap();
    let mut session = Session::new(artifact, store, Box::new(device), 2, &progress::silent).unwrap();
    let words = |session: &mut Session| {
        let (outputs, _) = session.run(inputs).unwrap();
        outputs.iter().map(Ciphertext::words).collect::<Vec<_>>().concat()
    };
    let first = words(&mut session);
    assert!(words(&mut session) == first, "two runs differ");
    first
}

/// Holds the device for GPUs against the CPU device, with the threads of blocks in several orders.
fn check(params: &Params, source: &SourceProgram, rng: &mut StdRng) {
    let artifact = compile(source, &CompileOptions::default(), &mut Trace::default()).unwrap();
    let keys = keys::uniform_keys(params, &artifact.keys, rng);
    let inputs = keys::uniform_inputs(params, &artifact, rng);
    let expected = run(&artifact, &keys, &inputs, CpuDevice::new(2).unwrap());
    for order in [Order::Descending, Order::Shuffled(rng.random())] {
        let Some(gpu) = HostGpu::new(order) else {
            println!("skipped: there is no C++ compiler");
            return;
        };
        let result = run(&artifact, &keys, &inputs, CudaDevice::on(Box::new(gpu), false));
        assert!(result == expected, "{order:?}");
    }
}

#[test]
fn a_bootstrap_is_right() {
    let params = Params::new(ParamsSpec::insecure_boot(7, 40).unwrap()).unwrap();
    let p = Program::new("bootstrap", &params);
    let x = p.input("x", Packing::dense(params.slots()));
    let y = (&x * &x).bootstrap(BootstrapKind::Complex, 1.0);
    p.output("y", Packing::dense(params.slots()), &(y.rotate(1) * x));
    check(&params, &p.finish(), &mut programs::fresh_rng());
}

#[test]
fn a_network_is_right() {
    let params = Params::new(ParamsSpec::insecure(8, 30, 6, 2).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let p = Program::new("network", &params);
    let mut x = p.input("x", Packing::dense(16));
    for layer in 0..2 {
        p.stage(&format!("layer {layer}"));
        let diagonals: Vec<_> = (0..16)
            .map(|offset| {
                let values = (0..16).map(|_| rng.random_range(-0.25..0.25)).collect();
                let tensor = p.tensor(&format!("w{layer}.{offset}"), values);
                (offset, p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0))
            })
            .collect();
        x = x.linear_transform(&diagonals).poly_eval(&[0.1, 0.5, 0.2]);
    }
    p.output("y", Packing::dense(16), &x);
    check(&params, &p.finish(), &mut rng);
}

#[test]
fn a_random_program_is_right() {
    let params = Params::new(ParamsSpec::insecure(6, 30, 8, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let source = programs::random(&params, &mut rng);
    check(&params, &source, &mut rng);
}
