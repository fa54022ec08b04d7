//! The predicted time of a program on a GPU that is not at hand.

use cerium_artifact::cost::program_cost;
use cerium_artifact::{Artifact, DeviceId, PassFigures, StageId};
use cerium_ckks::params::Params;
use cerium_emit::cost::{Bound, Gpu, Group, GroupPrediction, KernelTotal, Prediction, predict_group};
use serde_json::{Map, Value, json};

use super::layers::printable;
use super::report::Section;
use crate::figures::{self, row};
use crate::prediction::StageSeconds;
use crate::program::Program;

/// Rows of the table of kernels.
const KERNELS: usize = 20;

/// The predicted time of a program, fused as it is and less.
pub(super) struct GpuReport {
    pub(super) gpu: &'static Gpu,
    pub(super) group: Group,
    pub(super) prediction: GroupPrediction,
    /// Seconds of the program before fusion and half way, if it was compiled so.
    before: [Option<f64>; 2],
}

impl GpuReport {
    /// Predicts a program on a group of as many devices as it is for; `before` holds it unfused and with horizontal fusion only,
    /// where there is a source to compile for one device.
    pub(super) fn new(
        program: &Program,
        gpu: &'static Gpu,
        group: Group,
        before: [Option<Artifact>; 2],
    ) -> GpuReport {
        let predict = |artifact: &Artifact| predict_group(artifact, &program.params, gpu, &group);
        let before = before.map(|artifact| Some(predict(&artifact?).seconds()));
        GpuReport { gpu, group, prediction: predict(&program.artifact), before }
    }

    /// Launches of the device that ends last.
    fn launches(&self) -> &Prediction {
        self.prediction.last()
    }

    /// Predicted seconds by stage, of the device that ends last.
    pub(super) fn stage_seconds(&self) -> StageSeconds {
        let timeline = &self.prediction.timeline;
        StageSeconds::of_device(&timeline.devices[timeline.last()])
    }

    /// Predicted seconds if nothing overlapped within a launch.
    pub(super) fn seconds_apart(&self) -> f64 {
        self.prediction.seconds() - self.launches().seconds() + self.launches().seconds_apart()
    }

    /// Figures of each pass with the predicted seconds after it.
    fn passes<'a>(&self, artifact: &'a Artifact) -> Vec<(&'a PassFigures, Option<f64>)> {
        let passes = &artifact.passes;
        let seconds = |index: usize| match index + 1 == passes.len() {
            true => Some(self.prediction.seconds()),
            false => self.before.get(index).copied().flatten(),
        };
        passes.iter().enumerate().map(|(index, pass)| (pass, seconds(index))).collect()
    }

    fn stages<'a>(&self, artifact: &'a Artifact) -> impl Iterator<Item = (&'a str, StageId)> {
        let stages = artifact.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| (stage.name.as_str(), StageId(index as u16)));
        stages.filter(|(_, id)| self.launches().stage(*id) > 0.0)
    }

    /// Tables of passes, kernels, and what bounds them.
    pub(super) fn sections(&self, program: &Program) -> Vec<Section> {
        vec![
            self.passes_section(program),
            self.kernels_section(&program.artifact),
            self.bounds_section(),
            self.figures_section(),
        ]
    }

    /// Launches, bytes and working memory before and after each pass of the kernel level.
    fn passes_section(&self, program: &Program) -> Section {
        let mut rows = vec![row(["after", "launches", "bytes", "working memory", "predicted"])];
        for (pass, seconds) in self.passes(&program.artifact) {
            let mut row = pass_row(pass, &program.params);
            row.push(seconds.map_or("-".into(), milliseconds));
            rows.push(row);
        }
        let note = "Launches and bytes of kernels: a transform is one launch, reads its limb once and writes it once.";
        Section { title: "Passes", rows, note: note.into() }
    }

    fn kernels_section(&self, artifact: &Artifact) -> Section {
        let prediction = self.launches();
        let mut rows =
            vec![row(["kernel", "stage", "launches", "limbs", "memory", "L2", "bound by", "predicted"])];
        let kernels = prediction.kernels();
        rows.extend(kernels.iter().take(KERNELS).map(|kernel| kernel_row(artifact, kernel)));
        let rest: f64 = kernels.iter().skip(KERNELS).map(|kernel| kernel.seconds).sum();
        if kernels.len() > KERNELS {
            let others = format!("{} others", kernels.len() - KERNELS);
            rows.push(row([&others, "", "", "", "", "", "", &milliseconds(rest)]));
        }
        rows.push(row([
            "all",
            "",
            &prediction.count().to_string(),
            "",
            &figures::bytes(prediction.dram_bytes()),
            &figures::bytes(prediction.l2_bytes()),
            "",
            &milliseconds(prediction.seconds()),
        ]));
        let note = "Launches on the device: a large transform is two. Bytes between memory and the L2 cache, and between \
                    that and the multiprocessors.";
        Section { title: "Kernels", rows, note: note.into() }
    }

    fn bounds_section(&self) -> Section {
        let mut rows = vec![row(["bound by", "predicted"])];
        for bound in Bound::ALL {
            let seconds = self.launches().bound(bound);
            if seconds > 0.0 {
                rows.push(row([bound.name(), &milliseconds(seconds)]));
            }
        }
        Section { title: "What bounds it", rows, note: String::new() }
    }

    fn figures_section(&self) -> Section {
        let mut rows = vec![row(["taken to be so", "figure", "source"])];
        let figures = self.gpu.figures().into_iter();
        rows.extend(figures.map(|(what, value, source)| row([what, &value, source])));
        Section { title: "The device", rows, note: String::new() }
    }

    /// What only the prediction for a GPU knows.
    pub(super) fn to_json(&self, program: &Program) -> Map<String, Value> {
        let Program { artifact, params, .. } = program;
        let prediction = self.launches();
        let cost = program_cost(artifact.functions(DeviceId::default()), params.log_n());
        let mut report = json!({
            "device": self.gpu.name,
            "predicted_ms": 1e3 * self.prediction.seconds(),
            "predicted_ms_without_overlap": 1e3 * self.seconds_apart(),
            "launches": cost.launches,
            "bytes": cost.bytes(),
            "device_launches": prediction.count(),
            "dram_bytes": prediction.dram_bytes(),
            "l2_bytes": prediction.l2_bytes(),
        });
        for (pass, seconds) in self.passes(artifact) {
            // The last pass is vertical fusion: after it, programs are fused.
            let name = if pass.pass == "vertical" { "fused" } else { &pass.pass };
            let mut figures = pass_json(pass, params);
            figures["predicted_ms"] = seconds.map(|seconds| 1e3 * seconds).into();
            report[name] = figures;
        }
        let stages = self
            .stages(artifact)
            .map(|(name, id)| json!({ "name": name, "predicted_ms": 1e3 * prediction.stage(id) }));
        report["stages"] = stages.collect();
        let kernels = prediction.kernels();
        let kernels = kernels.iter().map(|kernel| {
            json!({
                "kernel": kernel.entry,
                "stage": stage_name(artifact, kernel.stage),
                "launches": kernel.launches,
                "limbs": kernel.limbs,
                "dram_bytes": kernel.dram_bytes,
                "l2_bytes": kernel.l2_bytes,
                "bound": kernel.bound.name(),
                "predicted_ms": 1e3 * kernel.seconds,
            })
        });
        report["kernels"] = kernels.collect();
        let bounds = Bound::ALL.map(|bound| (bound.name().to_owned(), json!(1e3 * prediction.bound(bound))));
        report["bounds_ms"] = bounds.into_iter().collect::<Map<_, _>>().into();
        let figures = self
            .gpu
            .figures()
            .into_iter()
            .map(|(what, value, source)| json!({ "what": what, "value": value, "source": source }));
        report["figures"] = figures.collect();
        match report {
            Value::Object(report) => report,
            _ => unreachable!("written above as an object"),
        }
    }
}

fn stage_name(artifact: &Artifact, stage: StageId) -> &str {
    artifact.stages.get(usize::from(stage.0)).map_or("", |stage| &stage.name)
}

fn kernel_row(artifact: &Artifact, kernel: &KernelTotal<'_>) -> Vec<String> {
    row([
        kernel.entry,
        &printable(stage_name(artifact, kernel.stage)),
        &kernel.launches.to_string(),
        &kernel.limbs.to_string(),
        &figures::bytes(kernel.dram_bytes),
        &figures::bytes(kernel.l2_bytes),
        kernel.bound.name(),
        &milliseconds(kernel.seconds),
    ])
}

/// The cells of a pass: its name, launches, bytes and working memory.
pub(super) fn pass_row(pass: &PassFigures, params: &Params) -> Vec<String> {
    row([
        &pass.pass,
        &pass.cost.launches.to_string(),
        &figures::bytes(pass.cost.bytes()),
        &figures::bytes(pool_bytes(pass, params)),
    ])
}

/// The figures of a pass.
pub(super) fn pass_json(pass: &PassFigures, params: &Params) -> Value {
    json!({
        "launches": pass.cost.launches,
        "bytes": pass.cost.bytes(),
        "pool_bytes": pool_bytes(pass, params),
    })
}

fn pool_bytes(pass: &PassFigures, params: &Params) -> u64 {
    pass.pool_limbs * 4 * params.n() as u64
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", 1e3 * seconds)
}
