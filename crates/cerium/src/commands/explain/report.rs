//! What is reported, before it is text, a page or JSON.

use cerium_artifact::{Artifact, KeyPlan, Port, Stage, StageId};
use cerium_ckks::evaluation_key::KeyKind;
use cerium_compiler::ciphertext::noise;
use cerium_runtime::null::Measurement;
use cerium_runtime::{KernelClass, Usage};
use serde_json::{Map, Value, json};

use super::devices::{self, Devices};
use super::gpu::{self, GpuReport};
use super::layers::{Layer, Layers, count, printable, products};
use crate::figures::{self, row};
use crate::measurement::Measured;
use crate::prediction::{Prediction, StageSeconds};
use crate::program::Program;

/// Everything that is reported.
pub(super) struct Report {
    pub(super) program: Program,
    /// What a run costs on the first device.
    pub(super) costs: Measurement,
    /// What it costs on each device.
    pub(super) devices: Vec<Measurement>,
    pub(super) layers: Layers,
    pub(super) device: Device,
    pub(super) predicted: StageSeconds,
    /// A run, with its seconds by stage.
    pub(super) measured: Option<(StageSeconds, Measured)>,
}

/// What times are predicted for.
pub(super) enum Device {
    /// Threads of each rank.
    Cpu {
        prediction: Box<Prediction>,
        threads: usize,
    },
    Gpu(Box<GpuReport>),
}

/// Bytes of memory that a device needs.
pub(super) fn memory(costs: &Measurement) -> u64 {
    let Measurement { key_bytes, plaintext_bytes, raw_weight_bytes, pool_bytes, .. } = *costs;
    key_bytes + plaintext_bytes + raw_weight_bytes + pool_bytes
}

/// A table with a title; the first row names the columns.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) rows: Vec<Vec<String>>,
    /// What is to be known of it.
    pub(super) note: String,
}

/// Figures of a layer, or of a stage of functions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) level_in: u8,
    pub(super) level_out: u8,
    pub(super) bootstraps: u64,
    pub(super) rotations: u64,
    pub(super) products: u64,
    /// Standard deviation in a slot; 0 where there is no estimate.
    pub(super) error: f64,
    pub(super) predicted: Seconds,
    pub(super) measured: Option<Seconds>,
}

/// Seconds of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds {
    pub(super) all: f64,
    /// The part of functions that the layer calls, bootstraps among them.
    pub(super) called: f64,
}

impl Figures {
    fn new(stage: &Stage, predicted: Seconds, measured: Option<Seconds>) -> Figures {
        Figures {
            level_in: stage.level_in.0,
            level_out: stage.level_out.0,
            bootstraps: count(stage, "bootstrap"),
            rotations: count(stage, "rotate"),
            products: products(stage),
            error: stage.error,
            predicted,
            measured,
        }
    }

    /// Measured over predicted time, where there are both.
    pub(super) fn ratio(&self) -> Option<f64> {
        let measured = self.measured?.all;
        (measured > 0.0 && self.predicted.all > 0.0).then(|| measured / self.predicted.all)
    }
}

impl Report {
    pub(super) fn stage(&self, id: StageId) -> &Stage {
        &self.program.artifact.stages[usize::from(id.0)]
    }

    /// Figures of a stage as a layer: its own kernels, and the functions that it calls.
    pub(super) fn layer(&self, id: StageId) -> Figures {
        let seconds = |of: &StageSeconds| Seconds { all: of.layer(id), called: of.called(id) };
        let measured = self.measured.as_ref().map(|(stages, _)| seconds(stages));
        Figures::new(self.stage(id), seconds(&self.predicted), measured)
    }

    /// Figures of a stage in functions, over all calls.
    pub(super) fn function(&self, id: StageId) -> Figures {
        let seconds = |of: &StageSeconds| Seconds { all: of.function(id), called: 0.0 };
        let measured = self.measured.as_ref().map(|(stages, _)| seconds(stages));
        Figures::new(self.stage(id), seconds(&self.predicted), measured)
    }

    /// What times are predicted for: `2 threads of this machine`.
    pub(super) fn device_name(&self) -> String {
        let count = self.devices.len();
        match &self.device {
            Device::Cpu { threads, .. } => {
                let threads = if *threads == 1 { "one thread".into() } else { format!("{threads} threads") };
                let ranks = if count == 1 { "".into() } else { format!("{count} ranks of ") };
                format!("{ranks}{threads} of this machine")
            }
            Device::Gpu(report) if count == 1 => report.gpu.title.into(),
            Device::Gpu(report) => {
                format!("{count} {} ({})", report.gpu.title, devices::joined(&report.group))
            }
        }
    }

    /// What there is to say of several devices.
    fn several(&self) -> Option<Devices<'_>> {
        let (group, timeline) = match &self.device {
            Device::Cpu { prediction, .. } => (&prediction.group, &prediction.timeline),
            Device::Gpu(report) => (&report.group, &report.prediction.timeline),
        };
        (self.devices.len() > 1).then_some(Devices { report: self, group, timeline })
    }

    /// How predictions came about, and what they leave out.
    pub(super) fn prediction_note(&self) -> String {
        match &self.device {
            Device::Cpu { threads, .. } => {
                let share = if *threads == 1 { "" } else { ", shared evenly" };
                format!(
                    "Predicted from the speed of single kernels, measured now on {}{share}; encoding weights that are not \
                     resident is not counted.",
                    self.device_name()
                )
            }
            Device::Gpu(report) => format!(
                "Predicted from the rates of the device; {} if nothing overlapped within a launch.",
                figures::seconds(report.seconds_apart())
            ),
        }
    }

    /// What a layer's time and counts are.
    pub(super) fn counting_note(&self) -> &'static str {
        "A layer's time is that of its own kernels and of the functions that it calls, bootstraps among them; rotations and \
         products are its own. Products: of two ciphertexts, or with a plaintext. Bits: -log2 of the predicted standard \
         deviation of the error of a slot, values in [-1, 1]."
    }

    pub(super) fn security(&self) -> String {
        match self.program.params.security_bits() {
            Some(bits) if !self.program.params.is_insecure() => format!("{bits}-bit secure"),
            _ => "INSECURE, for tests only".into(),
        }
    }

    /// How often an operation occurs over all stages.
    pub(super) fn operations(&self, name: &str) -> u64 {
        self.program.artifact.stages.iter().map(|stage| count(stage, name)).sum()
    }

    pub(super) fn rotation_keys(&self) -> usize {
        self.program.artifact.keys.iter().filter(|key| matches!(key.kind, KeyKind::Rotation(_))).count()
    }

    fn raw_weight_bytes(&self) -> u64 {
        self.program.artifact.tensors.iter().map(|tensor| tensor.values.bytes()).sum()
    }

    pub(super) fn memory(&self) -> u64 {
        memory(&self.costs)
    }

    /// Bits of the least precise output, as expected and as promised.
    pub(super) fn output_bits(&self) -> Option<(f64, f64)> {
        let error = self.program.artifact.outputs.iter().map(port_error).fold(0.0, f64::max);
        Some((bits(error)?, bits(noise::PROMISE * error)?))
    }

    /// Inputs and outputs.
    pub(super) fn ports(&self) -> Section {
        let heads = ["port", "tensor", "shape", "ciphertexts", "level", "bytes", "error", "bits", "promised"];
        let mut rows = vec![row(heads)];
        let Artifact { inputs, outputs, .. } = &self.program.artifact;
        for (kind, ports) in [("input", inputs), ("output", outputs)] {
            rows.extend(ports.iter().map(|port| self.port_row(kind, port)));
        }
        let note = "Errors of the elements: predicted standard deviations; the promise is twelve of them.";
        Section { title: "Inputs and outputs", rows, note: note.into() }
    }

    fn port_row(&self, kind: &str, port: &Port) -> Vec<String> {
        let level = port.ciphertexts.first().map_or_else(String::new, |packed| packed.level.0.to_string());
        let error = port_error(port);
        row([
            kind,
            &printable(&port.name),
            &show_shape(port),
            &port.ciphertexts.len().to_string(),
            &level,
            &figures::bytes(self.port_bytes(port)),
            &figures::small(error),
            &show_bits(error),
            &show_bits(noise::PROMISE * error),
        ])
    }

    fn port_bytes(&self, port: &Port) -> u64 {
        let params = &self.program.params;
        port.ciphertexts.iter().map(|packed| 8 * (params.basis(packed.level).len() * params.n()) as u64).sum()
    }

    /// What the device does, kernel by kernel.
    pub(super) fn device_sections(&self) -> Vec<Section> {
        let mut sections = self.several().map_or(Vec::new(), |devices| devices.sections());
        sections.extend(match &self.device {
            Device::Gpu(report) => report.sections(&self.program),
            Device::Cpu { prediction, .. } => vec![self.kernels(prediction), self.passes()],
        });
        sections
    }

    fn kernels(&self, prediction: &Prediction) -> Section {
        let heads = ["kernels", "launches", "blocks", "multiplications", "read", "written", "predicted"];
        let mut rows = vec![row(heads)];
        let mut usage_row = |name: &str, usage: Usage, seconds: f64| {
            rows.push(row([
                name,
                &usage.launches.to_string(),
                &usage.blocks.to_string(),
                &format!("{:.1e}", usage.multiplications as f64),
                &figures::bytes(usage.bytes_read),
                &figures::bytes(usage.bytes_written),
                &figures::seconds(seconds),
            ]));
        };
        for class in KernelClass::ALL {
            usage_row(class.name(), self.costs.usage.class(class), prediction.class(class));
        }
        usage_row("all", self.costs.usage.total(), prediction.total());
        Section { title: "Kernels", rows, note: "Bytes as if nothing were cached.".into() }
    }

    fn passes(&self) -> Section {
        let mut rows = vec![row(["after", "launches", "bytes", "working memory"])];
        let passes = &self.program.artifact.passes;
        rows.extend(passes.iter().map(|pass| gpu::pass_row(pass, &self.program.params)));
        Section { title: "Passes of the kernel level", rows, note: String::new() }
    }

    /// Bootstraps, keys and memory.
    pub(super) fn summary(&self) -> Section {
        let program = &self.program;
        let failure = program.log_failure().map_or("-".into(), |log| format!("below 2^{:.0}", log.ceil()));
        let keys = format!("{} ({} of rotations)", program.artifact.keys.len(), self.rotation_keys());
        let rows = vec![
            row(["bootstraps", &program.bootstraps().to_string()]),
            row(["  one fails with probability", &failure]),
            row(["rotations", &self.operations("rotate").to_string()]),
            row(["evaluation keys", &keys]),
            row(["  as files", &figures::bytes(program.key_bytes())]),
            row(["  in memory", &figures::bytes(self.costs.key_bytes)]),
            row(["weights, raw", &figures::bytes(self.raw_weight_bytes())]),
            row(["weights, encoded", &figures::bytes(self.costs.plaintext_bytes)]),
            row(["working memory", &figures::bytes(self.costs.pool_bytes)]),
            row(["memory in all", &figures::bytes(self.memory())]),
        ];
        let note = if self.devices.len() > 1 { "In the memory of the first device." } else { "" };
        Section { title: "Keys and memory", rows, note: note.into() }
    }

    /// What was done to keep keys within a budget, if anything was.
    pub(super) fn key_plan(&self) -> Option<Section> {
        let plan = self.program.artifact.key_plan.as_ref()?;
        let mut rows = vec![row(["chains of rotations", "diagonals", "key switches", "without"])];
        for chain in &plan.chains {
            rows.push(row([
                &printable(&self.stage(chain.stage).name),
                &chain.diagonals.to_string(),
                &chain.switches.to_string(),
                &chain.switches_before.to_string(),
            ]));
        }
        let note = format!(
            "To keep keys within {} of memory: {} keys of {}, without chains {} of {}. A run switches keys {} times, without \
             chains {} times, most of them at a fraction of the cost.",
            figures::bytes(plan.budget),
            plan.keys,
            figures::bytes(plan.bytes),
            plan.keys_before,
            figures::bytes(plan.bytes_before),
            plan.switches,
            plan.switches_before,
        );
        Some(Section { title: "Keys within a budget", rows, note })
    }

    pub(super) fn to_json(&self) -> Value {
        let Program { artifact, params, digest } = &self.program;
        let passes = artifact.passes.iter().map(|pass| {
            let mut figures = gpu::pass_json(pass, params);
            figures["pass"] = pass.pass.clone().into();
            figures
        });
        let mut report = json!({
            "name": artifact.name,
            "digest": format!("{digest:?}"),
            "params": params.name(),
            "security_bits": params.security_bits().filter(|_| !params.is_insecure()),
            "inputs": artifact.inputs.iter().map(|port| self.port_json(port)).collect::<Vec<_>>(),
            "outputs": artifact.outputs.iter().map(|port| self.port_json(port)).collect::<Vec<_>>(),
            "layers": self.layers.layers.iter().filter_map(|layer| self.layer_json(layer)).collect::<Vec<_>>(),
            "functions": self.layers.functions.iter().map(|&id| self.function_json(id)).collect::<Vec<_>>(),
            "passes": passes.collect::<Vec<_>>(),
            "bootstraps": self.program.bootstraps(),
            "log2_failure_probability": self.program.log_failure(),
            "rotations": self.operations("rotate"),
            "keys": artifact.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rotation_keys": self.rotation_keys(),
            "key_bytes": self.program.key_bytes(),
            "key_memory_bytes": self.costs.key_bytes,
            "key_plan": artifact.key_plan.as_ref().map(|plan| self.key_plan_json(plan)),
            "raw_weight_bytes": self.raw_weight_bytes(),
            "encoded_weight_bytes": self.costs.plaintext_bytes,
            "resident_raw_weight_bytes": self.costs.raw_weight_bytes,
            "pool_bytes": self.costs.pool_bytes,
            "memory_bytes": self.memory(),
            "predicted_seconds": self.predicted.total(),
            "measured_seconds": self.measured.as_ref().map(|(stages, _)| stages.total()),
            "measured_run": self.measured.as_ref().map(|(_, run)| json!({
                "device": run.device,
                "threads": run.threads,
                "seconds": run.seconds,
            })),
        });
        let of_device = match &self.device {
            Device::Gpu(report) => report.to_json(&self.program),
            Device::Cpu { prediction, threads } => {
                let kernels = KernelClass::ALL.map(|class| {
                    let mut usage = usage_json(&self.costs.usage.class(class));
                    usage["predicted_seconds"] = prediction.class(class).into();
                    (class.name().to_owned(), usage)
                });
                let kernels = kernels.into_iter().collect::<Map<_, _>>();
                Map::from_iter([("kernels".into(), kernels.into()), ("threads".into(), (*threads).into())])
            }
        };
        for (name, value) in of_device {
            report[name] = value;
        }
        report["devices"] = self.several().map(|devices| devices.to_json()).into();
        report
    }

    fn layer_json(&self, layer: &Layer) -> Option<Value> {
        let id = layer.stage?;
        let mut json = self.figures_json(id, &self.layer(id));
        json["operation"] = layer.operation.clone().into();
        json["shape"] = layer.shape.clone().into();
        let name = |&operand: &usize| self.layers.layers[operand].name.clone();
        json["reads"] = layer.operands.iter().map(name).collect::<Vec<_>>().into();
        json["usage"] = usage_json(&self.costs.usage.layer(id));
        Some(json)
    }

    fn function_json(&self, id: StageId) -> Value {
        let mut json = self.figures_json(id, &self.function(id));
        json["usage"] = usage_json(&self.costs.usage.functions.stage(id));
        json
    }

    fn figures_json(&self, id: StageId, figures: &Figures) -> Value {
        let stage = self.stage(id);
        let operations: Map<String, Value> =
            stage.operations.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        json!({
            "name": stage.name,
            "levels": { "in": figures.level_in, "out": figures.level_out },
            "bootstraps": figures.bootstraps,
            "rotations": figures.rotations,
            "products": figures.products,
            "operations": operations,
            "error": figures.error,
            "error_bits": bits(figures.error),
            "predicted_seconds": figures.predicted.all,
            "predicted_seconds_in_functions": figures.predicted.called,
            "measured_seconds": figures.measured.map(|seconds| seconds.all),
            "measured_seconds_in_functions": figures.measured.map(|seconds| seconds.called),
        })
    }

    fn port_json(&self, port: &Port) -> Value {
        let ciphertexts = port.ciphertexts.iter().map(|packed| {
            json!({
                "level": packed.level.0,
                "log_scale": packed.scale.log2(),
                "error": packed.error,
                "expected_bits": bits(packed.error),
                "promised_bits": bits(noise::PROMISE * packed.error),
            })
        });
        json!({
            "name": port.name,
            "shape": port.shape,
            "batch": port.batch,
            "ciphertexts": ciphertexts.collect::<Vec<_>>(),
            "bytes": self.port_bytes(port),
        })
    }

    fn key_plan_json(&self, plan: &KeyPlan) -> Value {
        let chains = plan.chains.iter().map(|chain| {
            json!({
                "stage": self.stage(chain.stage).name,
                "diagonals": chain.diagonals,
                "stride": chain.stride,
                "key_switches": chain.switches,
                "key_switches_without": chain.switches_before,
            })
        });
        json!({
            "budget_bytes": plan.budget,
            "keys": plan.keys,
            "key_memory_bytes": plan.bytes,
            "key_switches": plan.switches,
            "keys_without": plan.keys_before,
            "key_memory_bytes_without": plan.bytes_before,
            "key_switches_without": plan.switches_before,
            "chains": chains.collect::<Vec<_>>(),
        })
    }
}

/// `[1, 28, 28]`, or `4 x [1, 28, 28]` for a batch.
fn show_shape(port: &Port) -> String {
    match port.batch {
        1 => format!("{:?}", port.shape),
        batch => format!("{batch} x {:?}", port.shape),
    }
}

fn port_error(port: &Port) -> f64 {
    port.ciphertexts.iter().map(|packed| packed.error).fold(0.0, f64::max)
}

/// Bits of an absolute error; `None` for values without one.
pub(super) fn bits(error: f64) -> Option<f64> {
    (error > 0.0).then(|| -error.log2())
}

pub(super) fn show_bits(error: f64) -> String {
    bits(error).map_or("-".into(), |bits| format!("{bits:.1}"))
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "launches": usage.launches,
        "blocks": usage.blocks,
        "multiplications": usage.multiplications,
        "bytes_read": usage.bytes_read,
        "bytes_written": usage.bytes_written,
    })
}
