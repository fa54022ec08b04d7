//! The compiler: from programs in the DSL to artifacts.
//!
//! ```text
//! dsl -> ciphertext IR -> polynomial IR -> limb IR -> kernels -> artifact
//! ```
//!
//! [`compile`] is the pass list. Each level is a folder: operations in a table, types with the typing rule (which is the
//! verifier), an interpreter (which is the oracle), passes, and the lowering to the level below.

pub mod bootstrap;
pub mod ciphertext;
pub mod dsl;
pub mod ir;
pub mod kernel;
pub mod limb;
pub mod polynomial;
mod report;

use std::convert::Infallible;
use std::time::Instant;

use cerium_artifact::{Artifact, CommunicationFigures, GatherId, PackedCiphertext, Port, Traffic};
use num_complex::Complex64;

use bootstrap::{BootstrapPins, ExpandError, expand_bootstrap};
use ciphertext::passes::{
    FitError, PlaceError, expand_linear_transform, expand_poly_eval, fit_keys, fold_adjustments,
    merge_rotations, place_bootstraps, place_levels,
};
use ciphertext::{Slots, lower_to_polynomial, noise};
use dsl::{Packing, SourcePort, SourceProgram};
use ir::Trace;
use ir::simplify::share;
use kernel::{Fusion, KernelOptions};
use limb::devices::{Communication, DeviceOptions, place_devices};
use limb::passes::{cancel_transforms, fold_scalars, form_dots};
use polynomial::lower_to_limb;
use polynomial::passes::{expand_divisions, merge_divisions, sink_divisions};

/// Choices that a caller can make.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// How far operations on limbs are fused.
    pub fusion: Fusion,
    /// Limbs of a launch. Narrow launches keep what they hand on in cache, wide ones fill a large device; `None` chooses by
    /// ring degree.
    pub width: Option<usize>,
    /// Input slots of typical runs (one vector an input), from which the noise estimate takes magnitudes. Without any, a
    /// few random inputs within the bounds of the packings are used.
    pub samples: Vec<Vec<Slots>>,
    /// Choices of bootstraps that are pinned by hand.
    pub bootstrap: BootstrapPins,
    /// Bytes of memory that the evaluation keys may take, both halves of each; where they would take more, linear transforms
    /// are made of chains of equal rotations, which need fewer keys and more time. `None` asks for the fastest program.
    pub key_memory: Option<u64>,
    /// The devices that run the program together.
    pub devices: DeviceOptions,
}

/// Why a program cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The source program is not well formed.
    #[error("the program is not well formed: {0}")]
    Source(String),
    /// Bootstraps cannot be expanded.
    #[error(transparent)]
    Bootstrap(#[from] ExpandError),
    /// Levels cannot be placed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The keys cannot be made to fit.
    #[error(transparent)]
    Keys(FitError),
}

impl From<FitError> for CompileError {
    fn from(error: FitError) -> Self {
        match error {
            FitError::Place(error) => CompileError::Place(error),
            error => CompileError::Keys(error),
        }
    }
}

impl From<Infallible> for CompileError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Compiles a program. Passes are recorded in `trace`.
pub fn compile(
    source: &SourceProgram,
    options: &CompileOptions,
    trace: &mut Trace,
) -> Result<Artifact, CompileError> {
    source.module.verify().map_err(CompileError::Source)?;

    let samples = match options.samples.as_slice() {
        [] => random_samples(source),
        samples => samples.to_vec(),
    };

    let mut ct = source.module.clone();
    let mut key_plan = None;
    // A program whose entry takes placed ciphertexts was placed by hand.
    if ct.entry().param_types().iter().all(|ty| ty.placement().is_none()) {
        trace.pass("expand_poly_eval", &mut ct, expand_poly_eval)?;
        trace.pass("share", &mut ct, sharing)?;
        trace.pass("place_bootstraps", &mut ct, |m| {
            place_bootstraps(m, &log_periods(source), &samples);
            Ok::<_, Infallible>(())
        })?;
        trace.pass("expand_bootstrap", &mut ct, |m| expand_bootstrap(m, &options.bootstrap))?;
        if let Some(budget) = options.key_memory {
            trace.pass("fit_keys", &mut ct, |m| fit_keys(m, budget).map(|plan| key_plan = plan))?;
        }
        trace.pass("expand_linear_transform", &mut ct, expand_linear_transform)?;
        trace.pass("expand_poly_eval", &mut ct, expand_poly_eval)?;
        trace.pass("share", &mut ct, sharing)?;
        trace.pass("merge_rotations", &mut ct, merge_rotations)?;
        trace.pass("place_levels", &mut ct, place_levels)?;
    }
    trace.pass("share", &mut ct, sharing)?;
    trace.pass("fold_adjustments", &mut ct, fold_adjustments)?;
    trace.pass("share", &mut ct, sharing)?;

    let mut poly =
        trace.lower("lower_to_polynomial", &ct, |m| Ok::<_, Infallible>(lower_to_polynomial(m)))?;
    trace.pass("share", &mut poly, sharing)?; // hoists: equal mod_ups of rotations of one input
    trace.pass("sink_divisions", &mut poly, sink_divisions)?;
    trace.pass("merge_divisions", &mut poly, merge_divisions)?;
    trace.pass("expand_divisions", &mut poly, expand_divisions)?;
    trace.pass("share", &mut poly, sharing)?;

    let mut limb = trace.lower("lower_to_limb", &poly, |m| Ok::<_, Infallible>(lower_to_limb(m)))?;
    trace.pass("share", &mut limb, sharing)?;
    trace.pass("cancel_transforms", &mut limb, cancel_transforms)?;
    trace.pass("fold_scalars", &mut limb, fold_scalars)?;
    trace.pass("form_dots", &mut limb, form_dots)?;

    let start = Instant::now();
    let before = limb.functions.iter().map(|f| f.nodes.len()).sum();
    let keys = kernel::key_manifest(&limb);
    let placed = place_devices(limb, &options.devices);
    let after = placed.modules.iter().flat_map(|m| &m.functions).map(|f| f.nodes.len()).sum();
    trace.record("limb", "place_devices", start.elapsed(), (before, after));

    let figures = |(pass, traffic): &(Communication, Traffic)| CommunicationFigures {
        pass: pass.name().to_string(),
        traffic: *traffic,
    };
    let communication = placed.traffic.iter().map(figures).collect();

    let start = Instant::now();
    let width = options.width.unwrap_or_else(|| report::default_width(&ct.context.params));
    let kernels = KernelOptions { fusion: options.fusion, width, ordered: options.devices.devices > 1 };
    let programs = kernel::assemble(&placed.modules, &keys, &kernels);
    let count = |steps: usize, f: &cerium_artifact::Function| steps + f.steps.len();
    let launches = programs.iter().flatten().fold(0, count);
    let nodes = placed.modules.iter().flat_map(|m| &m.functions).map(|f| f.nodes.len()).sum();
    trace.record("kernel", "assemble", start.elapsed(), (nodes, launches));
    let passes = report::passes(&placed.modules[0], &keys, &kernels, &programs[0]);

    let start = Instant::now();
    let results: Vec<&Packing> = packings(&source.outputs).collect();
    let noise = noise::estimate(&source.module, &ct, &samples, |output, slot| {
        let gather = &results[output].gather;
        gather[slot % gather.len()] != cerium_artifact::NO_ELEMENT
    });
    let nodes = ct.functions.iter().map(|f| f.nodes.len()).sum();
    trace.record("ciphertext", "estimate_noise", start.elapsed(), (nodes, noise.operations));

    let data = &ct.context.data;
    let mut gathers = data.gathers.clone();
    let entry = ct.entry();
    let mut ports = |sources: &[SourcePort], values: &[ciphertext::Type], errors: &[f64]| {
        let mut values = values.iter().zip(errors);
        let mut pack = |packing: &Packing| {
            let (ty, error) = values.next().expect("one value for each packing");
            let at = ty.placement().expect("ports of placed programs are placed ciphertexts");
            gathers.push(packing.gather.clone());
            let gather = GatherId(gathers.len() as u32 - 1);
            let factor = packing.factor;
            PackedCiphertext { level: at.level, scale: at.scale, gather, factor, error: error * factor.abs() }
        };
        let port = |port: &SourcePort| Port {
            name: port.name.clone(),
            shape: port.packings[0].shape.clone(),
            batch: port.packings[0].batch,
            ciphertexts: port.packings.iter().map(&mut pack).collect(),
        };
        sources.iter().map(port).collect::<Vec<_>>()
    };
    let inputs = ports(&source.inputs, entry.param_types(), &vec![0.0; entry.param_types().len()]);
    let outputs = ports(&source.outputs, &entry.result_types(), &noise.outputs);
    Ok(Artifact {
        name: source.name.clone(),
        params: ct.context.params.spec().clone(),
        programs,
        homes: placed.homes,
        communication,
        inputs,
        outputs,
        keys,
        weights: data.weights.clone(),
        gathers,
        tensors: data.tensors.clone(),
        stages: report::stages(&ct, &noise),
        passes,
        key_plan,
        normalization: None,
        model: Vec::new(),
    })
}

fn sharing<D: ir::Dialect>(module: &mut ir::Module<D>) -> Result<(), Infallible> {
    share(module);
    Ok(())
}

/// The packing of every ciphertext.
fn packings(ports: &[SourcePort]) -> impl Iterator<Item = &Packing> {
    ports.iter().flat_map(|port| &port.packings)
}

/// Base-2 logarithms of the periods of the inputs.
fn log_periods(source: &SourceProgram) -> Vec<u32> {
    packings(&source.inputs).map(|packing| packing.gather.len().trailing_zeros()).collect()
}

/// Deterministic pseudo-random inputs within the bounds of their packings: compilation is reproducible.
fn random_samples(source: &SourceProgram) -> Vec<Vec<Slots>> {
    let slots = source.module.context.params.slots();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let mut vector = |packing: &Packing| -> Slots {
        let element = packing.gather.iter().map(|&e| match e {
            cerium_artifact::NO_ELEMENT => Complex64::ZERO,
            _ => Complex64::new(packing.bound * uniform(), 0.0),
        });
        let period: Vec<Complex64> = element.collect();
        period.iter().copied().cycle().take(slots).collect()
    };
    (0..2).map(|_| packings(&source.inputs).map(&mut vector).collect()).collect()
}
