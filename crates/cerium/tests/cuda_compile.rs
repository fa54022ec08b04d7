//! Every kernel that is emitted for a few whole programs compiles for three architectures and keeps its registers.
//!
//! This needs NVRTC but no GPU. Where NVRTC is not installed the tests say so and check nothing else than that kernels are
//! emitted.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;

use cerium::artifact::{Artifact, Step};
use cerium::ckks::params::Params;
use cerium::compiler::ciphertext::BootstrapKind;
use cerium::compiler::dsl::{Packing, Program};
use cerium::compiler::ir::Trace;
use cerium::compiler::limb::devices::{DeviceOptions, Link};
use cerium::compiler::{CompileOptions, compile};
use cerium::models::packing::{TokenLayers, TokenLayout, TokenLinear, WeightOrder};
use cerium::models::tensor::Tensor;
use cerium::runtime::cuda::Arch;
use cerium::runtime::cuda::nvrtc::{Nvrtc, Resources};
use cerium_emit::cuda::{Emitter, Source};
use rayon::prelude::*;

const ARCHITECTURES: [Arch; 3] = [Arch::SM_80, Arch::SM_90, Arch::SM_100];

/// The distinct sources of all kernels, with the largest block of threads that each is launched with.
fn sources(artifact: &Artifact) -> Vec<(Source, u32)> {
    let params = Params::new(artifact.params.clone()).unwrap();
    let mut emitter = Emitter::new(&params);
    let mut threads: BTreeMap<usize, u32> = BTreeMap::new();
    let mut kernels = 0;
    for function in artifact.programs.iter().flatten() {
        for step in &function.steps {
            let Step::Launch(kernel) = step else { continue };
            kernels += 1;
            for launch in emitter.emit(function, kernel) {
                let most = threads.entry(launch.source.0 as usize).or_default();
                *most = launch.block.max(*most);
            }
        }
    }
    println!("{}: {kernels} kernels, {} sources", artifact.name, emitter.sources().len());
    emitter.sources().iter().cloned().zip(threads.into_values()).collect()
}

/// Compiles sources for all architectures, prints what they take, and checks it.
fn check(sources: &[(Source, u32)]) {
    let nvrtc = match Nvrtc::load(None) {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let jobs: Vec<(usize, Arch)> =
        (0..sources.len()).flat_map(|source| ARCHITECTURES.map(|arch| (source, arch))).collect();
    let compiled: Vec<Resources> = jobs
        .par_iter()
        .map(|&(source, arch)| {
            let source = &sources[source].0;
            let compiled = nvrtc.compile(&source.entry, &source.text, arch).unwrap();
            assert_eq!(compiled.resources.len(), 1, "one kernel a source");
            compiled.resources[0].clone()
        })
        .collect();
    println!("{:32} {:>7} {:>24} {:>8}", "kernel", "threads", "registers on 80, 90, 100", "shared");
    for ((source, threads), of_arch) in sources.iter().zip(compiled.chunks(ARCHITECTURES.len())) {
        let registers: Vec<String> = of_arch.iter().map(|r| r.registers.to_string()).collect();
        println!("{:32} {threads:7} {:>24} {:8}", source.entry, registers.join(" "), of_arch[0].shared_bytes);
        for resources in of_arch {
            assert_eq!(resources.entry, source.entry);
            assert_eq!(resources.spill_store_bytes + resources.stack_bytes, 0, "{} spills", source.entry);
            assert!(resources.registers * threads <= 65536, "{} cannot be launched", source.entry);
        }
    }
}

#[test]
fn kernels_of_a_bootstrap() {
    let params = Params::named("boot-40").unwrap();
    let p = Program::new("bootstrap", &params);
    let x = p.input("x", Packing::dense(params.slots()));
    let y = x.bootstrap_sparse(BootstrapKind::Complex, params.slots().trailing_zeros(), 1.0);
    p.output("y", Packing::dense(params.slots()), &y);
    let source = p.finish();
    let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
    let alone = sources(&artifact);
    check(&alone);
    // On several devices sums have parts, and some kernels make more or fewer of the limbs.
    let devices = DeviceOptions { devices: 4, link: Link::Pcie, ..DeviceOptions::default() };
    let options = CompileOptions { devices, ..CompileOptions::default() };
    let mut together = sources(&compile(&source, &options, &mut Trace::default()).unwrap());
    let known: HashSet<&str> = alone.iter().map(|(source, _)| source.text.as_str()).collect();
    together.retain(|(source, _)| !known.contains(source.text.as_str()));
    println!("{} sources on four devices that one does not have", together.len());
    check(&together);
}

#[test]
fn kernels_of_the_demonstration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mnist.cerium");
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist");
    let status = Command::new(env!("CARGO_BIN_EXE_cerium"))
        .arg("compile")
        .arg(format!("{models}/mnist.onnx"))
        .args(["--calibrate", &format!("{models}/calibration-images-idx3-ubyte")])
        .arg("-o")
        .arg(&file)
        .status()
        .unwrap();
    assert!(status.success());
    let artifact = Artifact::from_bytes(&std::fs::read(&file).unwrap()).unwrap();
    check(&sources(&artifact));
}

#[test]
fn kernels_of_a_linear_layer() {
    let (features, tokens, width) = (4096, 128, 256);
    let params = Params::named("leveled-16").unwrap();
    // Any weights will do, as long as no diagonal is zero.
    let values = |count: usize| (0..count).map(|i| (i % 1009 + 1) as f32 / 1009.0).collect::<Vec<f32>>();
    let weight = Tensor::new("weight", vec![features, features], values(features * features));
    let bias = Tensor::new("bias", vec![features], values(features));
    let layer = TokenLinear::new(&weight, WeightOrder::OutputsFirst, Some(&bias)).unwrap();
    let p = Program::new("layer", &params);
    let from = TokenLayout::new(tokens, features, width, params.slots()).unwrap();
    let x = p.input_parts("x", from.packings(1.0));
    let (to, y) = TokenLayers::new(&p).linear(&layer, &from, &x).unwrap();
    p.output_parts("y", to.packings(1.0), &y);
    let artifact = compile(&p.finish(), &CompileOptions::default(), &mut Trace::default()).unwrap();
    check(&sources(&artifact));
}
