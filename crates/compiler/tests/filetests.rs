//! Runs the filetests: `tests/filetests/<level>/<name>.cer`, each an input and the expected output in one file.
//!
//! ```text
//! # test: <kind>          cat, verify, the name of a pass or lowering, kernels without fusion (assemble), with launches
//!                         fused (horizontal), with operations fused as well (fuse), cost (launches, blocks, bytes,
//!                         multiplications, key switches and memory of the compiled program, counted by the null device)
//! # fusion: all           for cost: what the program costs before and after each kind of fusion, and the traffic that none
//!                         can avoid
//! # params: <name>        an insecure parameter set by name, insecure-test if left out
//! # key_memory: <bytes>   what the keys may take, for fit_keys
//! # devices: <n> ..       for cost: what the program sends on so many devices after each communication pass; for
//!                         place_devices: the module of each device
//! # link: <name>          what joins the devices, nvlink if left out
//! # communication: <pass> the last communication pass of place_devices, all_reduce if left out
//! # weight: <period>      declares a weight, any number of times; its values are pseudo-random
//! # constant: <re> <im>   declares a weight that is a constant
//! <program>
//! ---
//! <expected output>
//! ```
//!
//! `CERIUM_BLESS=1 cargo test -p cerium-compiler --test filetests` rewrites the expected outputs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cerium_artifact::cost::program_traffic;
use cerium_artifact::kernel::Body;
use cerium_artifact::{
    Artifact, CommunicationFigures, GatherId, Operand, Recipe, Step, Tensor, TensorId, Traffic,
};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{self, Context, Data, passes};
use cerium_compiler::dsl::{Packing, SourcePort, SourceProgram};
use cerium_compiler::ir::{Module, Trace, simplify, text};
use cerium_compiler::kernel::{self, Fusion, KernelOptions};
use cerium_compiler::limb::devices::{Communication, DeviceOptions, Link, place_devices};
use cerium_compiler::limb::passes as limb_passes;
use cerium_compiler::polynomial::passes as poly_passes;
use cerium_compiler::{CompileOptions, compile, limb, polynomial};
use cerium_runtime::{KernelClass, null};

struct FileTest {
    kind: String,
    context: Context,
    key_memory: Option<u64>,
    all_fusions: bool,
    devices: Vec<DeviceOptions>,
    input: String,
}

#[test]
fn filetests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let bless = std::env::var_os("CERIUM_BLESS").is_some();
    let mut files: Vec<PathBuf> = Vec::new();
    for level in fs::read_dir(&root).unwrap() {
        let level = level.unwrap().path();
        files.extend(fs::read_dir(level).unwrap().map(|f| f.unwrap().path()));
    }
    files.sort();
    assert!(files.len() >= 10, "the filetests are there");
    let mut failures = Vec::new();
    for path in &files {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let level = name.split('/').next().unwrap().to_string();
        let content = fs::read_to_string(path).unwrap();
        let (source, expected) = content.split_once("\n---\n").unwrap_or((&content, ""));
        let output = run(&parse(source), &level).unwrap_or_else(|message| panic!("{name}: {message}"));
        if output.trim() == expected.trim() {
            println!("{name}: ok");
        } else if bless {
            fs::write(path, format!("{}\n---\n{}\n", source.trim_end(), output.trim_end())).unwrap();
            println!("{name}: blessed");
        } else {
            failures.push(format!(
                "=== {name}\n--- expected\n{}\n--- found\n{}\n",
                expected.trim(),
                output.trim()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn parse(source: &str) -> FileTest {
    let (mut kind, mut params, mut key_memory, mut all_fusions) = (None, "insecure-test", None, false);
    let mut data = Data::default();
    let (mut counts, mut link, mut communication) = (Vec::new(), Link::default(), Communication::AllReduce);
    for line in source.lines() {
        let Some((key, value)) = line.strip_prefix("# ").and_then(|l| l.split_once(": ")) else { continue };
        match key {
            "test" => kind = Some(value.trim().to_string()),
            "params" => params = value.trim(),
            "fusion" => all_fusions = value.trim() == "all",
            "devices" => {
                counts = value.split_whitespace().map(|count| count.parse().expect("a number")).collect()
            }
            "link" => link = value.trim().parse().expect("a link"),
            "communication" => {
                let pass = Communication::ALL.into_iter().find(|pass| pass.name() == value.trim());
                communication = pass.expect("a communication pass");
            }
            "key_memory" => key_memory = value.trim().parse().ok(),
            "weight" => declare(&mut data, value.trim().parse().expect("a weight has a period")),
            "constant" => {
                let parts: Vec<f64> =
                    value.split_whitespace().map(|x| x.parse().expect("a number")).collect();
                let [re, im] = parts[..] else { panic!("a constant has two parts, not `{value}`") };
                data.weights.push(Recipe::Constant { re, im });
            }
            _ => {}
        }
    }
    let params = Params::named_insecure(params).expect("filetests use insecure sets");
    let context = Context { params, data: Arc::new(data) };
    FileTest {
        kind: kind.expect("a filetest has a `# test:` line"),
        context,
        key_memory,
        all_fusions,
        devices: counts.into_iter().map(|devices| DeviceOptions { devices, link, communication }).collect(),
        input: source.to_string(),
    }
}

fn declare(data: &mut Data, period: usize) {
    let index = data.tensors.len();
    let values: Vec<f32> = (0..period).map(|i| ((i * 37 + index * 11) % 64) as f32 / 64.0 - 0.5).collect();
    data.tensors.push(Tensor { name: format!("w{index}"), values: values.into() });
    data.gathers.push((0..period as u32).collect());
    data.weights.push(Recipe::Gather {
        tensor: TensorId(index as u32),
        gather: GatherId(index as u32),
        factor: 1.0,
    });
}

fn run(test: &FileTest, level: &str) -> Result<String, String> {
    let read_ct = || text::read::<ciphertext::Ciphertext>(&test.input, test.context.clone());
    let read_poly = || text::read::<polynomial::Polynomial>(&test.input, test.context.clone());
    let read_limb = || text::read::<limb::Limb>(&test.input, test.context.clone());
    let fail = |e: cerium_compiler::ir::IrError| e.to_string();
    match (test.kind.as_str(), level) {
        ("cat", "ciphertext") => cat(read_ct().map_err(fail)?),
        ("cat", "polynomial") => cat(read_poly().map_err(fail)?),
        ("cat", "limb") => cat(read_limb().map_err(fail)?),
        ("verify", "ciphertext") => verify(read_ct()),
        ("verify", "polynomial") => verify(read_poly()),
        ("verify", "limb") => verify(read_limb()),
        ("share", "ciphertext") => pass(read_ct().map_err(fail)?, simplify::share),
        ("share", "polynomial") => pass(read_poly().map_err(fail)?, simplify::share),
        ("remove_unused", "ciphertext") => pass(read_ct().map_err(fail)?, simplify::remove_unused),
        ("expand_bootstrap", _) => {
            let mut module = read_ct().map_err(fail)?;
            match cerium_compiler::bootstrap::expand_bootstrap(&mut module, &Default::default()) {
                Ok(()) => checked(&module),
                Err(e) => Ok(format!("error: {e}")),
            }
        }
        ("expand_linear_transform", _) => pass(read_ct().map_err(fail)?, |m| {
            let Ok(()) = passes::expand_linear_transform(m);
        }),
        ("fold_adjustments", _) => pass(read_ct().map_err(fail)?, |m| {
            let Ok(()) = passes::fold_adjustments(m);
        }),
        ("merge_rotations", _) => pass(read_ct().map_err(fail)?, |m| {
            let Ok(()) = passes::merge_rotations(m);
        }),
        ("fit_keys", _) => {
            let mut module = read_ct().map_err(fail)?;
            match passes::fit_keys(&mut module, test.key_memory.unwrap_or(u64::MAX)) {
                Ok(plan) => Ok(format!("{}{plan:#?}", checked(&module)?)),
                Err(error) => Ok(format!("error: {error}")),
            }
        }
        ("expand_poly_eval", _) => pass(read_ct().map_err(fail)?, |m| {
            let Ok(()) = passes::expand_poly_eval(m);
        }),
        ("place_bootstraps", _) => {
            let mut module = read_ct().map_err(fail)?;
            let periods = vec![4; module.entry().params as usize];
            match passes::place_bootstraps(&mut module, &periods, &[]) {
                Some(_) => checked(&module),
                None => Ok("no placement".into()),
            }
        }
        ("place_levels", _) => {
            let mut module = read_ct().map_err(fail)?;
            match passes::place_levels(&mut module) {
                Ok(()) => checked(&module),
                Err(error) => Ok(format!("error: {error}")),
            }
        }
        ("lower_to_polynomial", _) => checked(&ciphertext::lower_to_polynomial(&read_ct().map_err(fail)?)),
        ("sink_divisions", _) => pass(read_poly().map_err(fail)?, |m| {
            let Ok(()) = poly_passes::sink_divisions(m);
        }),
        ("merge_divisions", _) => pass(read_poly().map_err(fail)?, |m| {
            let Ok(()) = poly_passes::merge_divisions(m);
        }),
        ("expand_divisions", _) => pass(read_poly().map_err(fail)?, |m| {
            let Ok(()) = poly_passes::expand_divisions(m);
        }),
        ("lower_to_limb", _) => checked(&polynomial::lower_to_limb(&read_poly().map_err(fail)?)),
        ("cancel_transforms", _) => pass(read_limb().map_err(fail)?, |m| {
            let Ok(()) = limb_passes::cancel_transforms(m);
        }),
        ("fold_scalars", _) => pass(read_limb().map_err(fail)?, |m| {
            let Ok(()) = limb_passes::fold_scalars(m);
        }),
        ("form_dots", _) => pass(read_limb().map_err(fail)?, |m| {
            let Ok(()) = limb_passes::form_dots(m);
        }),
        ("place_devices", _) => place(&read_limb().map_err(fail)?, &test.devices),
        ("cost", _) if !test.devices.is_empty() => traffic(&read_ct().map_err(fail)?, &test.devices),
        ("assemble", _) => assemble(&read_limb().map_err(fail)?, Fusion::None),
        ("horizontal", _) => assemble(&read_limb().map_err(fail)?, Fusion::Horizontal),
        ("fuse", _) => assemble(&read_limb().map_err(fail)?, Fusion::Full),
        ("cost", "ciphertext") => cost(test),
        (kind, level) => Err(format!("there is no test of kind `{kind}` on the {level} level")),
    }
}

/// The kernels of all functions.
fn assemble(module: &limb::Module, fusion: Fusion) -> Result<String, String> {
    let assembled = kernel::assemble(
        std::slice::from_ref(module),
        &kernel::key_manifest(module),
        &KernelOptions { fusion, width: 64, ordered: false },
    );
    Ok(assembled[0].iter().map(kernel::text::write).collect())
}

/// The compiled program.
fn compiled(module: &ciphertext::Module, options: &CompileOptions) -> Result<Artifact, String> {
    let ports = |kind: &str, count: usize| {
        (0..count)
            .map(|i| SourcePort { name: format!("{kind}{i}"), packings: vec![Packing::dense(16)] })
            .collect()
    };
    let (inputs, outputs) = (module.entry().params as usize, module.entry().results.len());
    let source = SourceProgram {
        name: "cost".into(),
        inputs: ports("in", inputs),
        outputs: ports("out", outputs),
        module: module.clone(),
    };
    compile(&source, options, &mut Trace::default()).map_err(|e| e.to_string())
}

/// What one run of the compiled program costs.
fn cost(test: &FileTest) -> Result<String, String> {
    let module = text::read::<ciphertext::Ciphertext>(&test.input, test.context.clone());
    let module = module.map_err(|e| e.to_string())?;
    let measure = |fusion: Fusion| {
        let artifact = compiled(&module, &CompileOptions { fusion, ..CompileOptions::default() })?;
        let measured = null::measure(&artifact).map_err(|e| e.to_string())?;
        Ok::<_, String>((artifact, measured))
    };
    let mut out = String::new();
    if test.all_fusions {
        for (name, fusion) in [("unfused", Fusion::None), ("horizontal", Fusion::Horizontal)] {
            let (_, measured) = measure(fusion)?;
            let cost = measured.usage.total();
            let bytes = cost.bytes_read + cost.bytes_written;
            let _ = writeln!(
                out,
                "{name}: {} launches, {bytes} bytes, pool: {} bytes",
                cost.launches, measured.pool_bytes
            );
        }
    }
    let (artifact, measured) = measure(Fusion::Full)?;
    for class in KernelClass::ALL {
        let cost = measured.usage.class(class);
        let _ = writeln!(
            out,
            "{}: {} launches, {} blocks, {} bytes read, {} bytes written, {} multiplications",
            class.name(),
            cost.launches,
            cost.blocks,
            cost.bytes_read,
            cost.bytes_written,
            cost.multiplications
        );
    }
    if test.all_fusions {
        let cost = measured.usage.total();
        let (bytes, least) = (cost.bytes_read + cost.bytes_written, unavoidable(&artifact));
        let ratio = bytes as f64 / least as f64;
        let _ = writeln!(
            out,
            "fused: {} launches, {bytes} bytes, {ratio:.3} times the unavoidable {least}",
            cost.launches
        );
    }
    let operations = artifact.stages.iter().flat_map(|stage| &stage.operations);
    let switches = operations.map(|(name, count)| match name.as_str() {
        "rotate" | "conjugate" | "relinearize" => *count,
        "mod_raise" => 2 * count,
        _ => 0,
    });
    let _ = writeln!(out, "key switches: {}", switches.sum::<u64>());
    let _ = writeln!(out, "pool: {} bytes", measured.pool_bytes);
    let _ = writeln!(out, "plaintexts: {} bytes", measured.plaintext_bytes);
    let _ = writeln!(out, "keys: {} of {} bytes", artifact.keys.len(), measured.key_bytes);
    Ok(out)
}

/// The module of each device.
fn place(module: &limb::Module, devices: &[DeviceOptions]) -> Result<String, String> {
    let mut out = String::new();
    for options in devices {
        let placed = place_devices(module.clone(), options);
        for (device, module) in placed.modules.iter().enumerate() {
            let _ = writeln!(out, "device {device} of {}\n{}", options.devices, cat(module.clone())?);
        }
    }
    Ok(out)
}

/// What all devices send in a run after each communication pass.
fn traffic(module: &ciphertext::Module, devices: &[DeviceOptions]) -> Result<String, String> {
    let mut out = String::new();
    for &options in devices {
        let options = CompileOptions { devices: options, ..CompileOptions::default() };
        let artifact = compiled(module, &options)?;
        let figures = &artifact.communication;
        let before = figures.first().map_or(0, |first| first.traffic.bytes);
        let _ = writeln!(out, "{} devices over {}", options.devices.devices, options.devices.link.name());
        for CommunicationFigures { pass, traffic } in figures {
            let saved = 100.0 * (1.0 - traffic.bytes as f64 / before as f64);
            let Traffic { collectives, bytes } = traffic;
            let _ = writeln!(
                out,
                "  {pass:<14} {collectives:>4} collectives {bytes:>12} bytes, {saved:.1}% saved"
            );
        }
        let log_n = Params::new(artifact.params.clone()).map_err(|e| e.to_string())?.log_n();
        let programs = artifact.programs.iter();
        let sent = programs.map(|program| program_traffic(program, artifact.programs.len(), log_n).bytes);
        let last = figures.last().map(|last| last.traffic.bytes);
        assert_eq!(Some(sent.sum::<u64>()), last, "the program sends what the last pass says");
    }
    Ok(out)
}

/// Bytes that cross memory in a run however operations are fused, as long as a limb does not fit on a processor's chip: what a
/// transform takes is written by somebody and read by it, what it makes is written by it and read by somebody; keys and
/// plaintexts are read where they are used.
fn unavoidable(artifact: &Artifact) -> u64 {
    let limb = 4 << Params::new(artifact.params.clone()).expect("a compiled program is valid").log_n();
    let mut bytes: Vec<u64> = Vec::new();
    for function in &artifact.programs[0] {
        let step = |step: &Step| match step {
            Step::Call { function, .. } => bytes[function.0 as usize],
            Step::Start(_) | Step::Finish(_) => 0,
            Step::Launch(kernel) => {
                let transforms = match &kernel.body {
                    Body::Ntt(transform) | Body::Intt(transform) => 4 * limb * transform.blocks.len() as u64,
                    Body::Elementwise { .. } | Body::BaseConvert { .. } => 0,
                };
                let loads = kernel.body.blocks().flat_map(|block| &block.loads).map(|load| match load {
                    Operand::Key { .. } => limb,
                    Operand::Plain { plaintext, .. } => {
                        8 << function.plaintexts[*plaintext as usize].log_period
                    }
                    Operand::Local(_) | Operand::Arg(_) | Operand::Result(_) => 0,
                });
                transforms + loads.sum::<u64>()
            }
        };
        let sum = function.steps.iter().map(step).sum();
        bytes.push(sum);
    }
    bytes.last().copied().unwrap_or(0)
}

/// Printing and parsing are inverses.
fn cat<D: cerium_compiler::ir::Dialect>(module: Module<D>) -> Result<String, String> {
    let printed = checked(&module)?;
    let again = text::read::<D>(&printed, module.context.clone()).map_err(|e| e.to_string())?;
    assert_eq!(text::write(&again), printed, "what is printed reads back as itself");
    Ok(printed)
}

fn verify<D: cerium_compiler::ir::Dialect>(
    module: Result<Module<D>, cerium_compiler::ir::IrError>,
) -> Result<String, String> {
    match module {
        Ok(module) => module.verify().map(|()| "well formed".to_string()),
        Err(error) => Ok(format!("error: {error}")),
    }
}

fn pass<D: cerium_compiler::ir::Dialect>(
    mut module: Module<D>,
    run: impl FnOnce(&mut Module<D>),
) -> Result<String, String> {
    run(&mut module);
    checked(&module)
}

fn checked<D: cerium_compiler::ir::Dialect>(module: &Module<D>) -> Result<String, String> {
    module.verify()?;
    Ok(text::write(module))
}
