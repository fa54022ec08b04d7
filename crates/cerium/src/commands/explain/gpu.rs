//! The predicted time of a program on a GPU that is not at hand.

use cerium_artifact::cost::program_cost;
use cerium_artifact::{Artifact, PassFigures, StageId};
use cerium_ckks::params::Params;
use cerium_emit::cost::{Bound, Gpu, KernelTotal, Prediction, predict};
use serde_json::{Map, Value, json};

use crate::figures::{self, row};

/// Rows of the table of kernels.
const KERNELS: usize = 20;

/// The predicted time of a program, fused as it is and less.
pub(super) struct Report<'a> {
    artifact: &'a Artifact,
    params: &'a Params,
    gpu: &'static Gpu,
    prediction: Prediction,
    /// Seconds of the program before fusion and half way, if it was compiled so.
    before: [Option<f64>; 2],
}

impl<'a> Report<'a> {
    /// Predicts a program; `before` holds it unfused and with horizontal fusion only, where there is a source to compile.
    pub(super) fn new(
        artifact: &'a Artifact,
        params: &'a Params,
        gpu: &'static Gpu,
        before: Option<[Artifact; 2]>,
    ) -> Report<'a> {
        let seconds = |artifact: &Artifact| Some(predict(artifact, params, gpu).seconds());
        let before = before.map_or([None; 2], |before| before.each_ref().map(seconds));
        Report { artifact, params, gpu, prediction: predict(artifact, params, gpu), before }
    }

    /// Figures of each pass with the predicted seconds after it.
    fn passes(&self) -> Vec<(&PassFigures, Option<f64>)> {
        let passes = &self.artifact.passes;
        let seconds = |index: usize| match index + 1 == passes.len() {
            true => Some(self.prediction.seconds()),
            false => self.before.get(index).copied().flatten(),
        };
        passes.iter().enumerate().map(|(index, pass)| (pass, seconds(index))).collect()
    }

    fn stages(&self) -> impl Iterator<Item = (&str, StageId)> {
        let stages = self.artifact.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| (stage.name.as_str(), StageId(index as u16)));
        stages.filter(|(_, id)| self.prediction.stage(*id) > 0.0)
    }

    fn stage_name(&self, stage: StageId) -> &str {
        self.artifact.stages.get(usize::from(stage.0)).map_or("", |stage| &stage.name)
    }

    pub(super) fn to_text(&self) -> String {
        let prediction = &self.prediction;
        let mut text = format!(
            "program `{}` for {} on {}: predicted {} a run, {} if nothing overlapped within a launch\n\n",
            self.artifact.name,
            self.params.name(),
            self.gpu.title,
            milliseconds(prediction.seconds()),
            milliseconds(prediction.seconds_apart()),
        );
        text += &self.passes_text();

        let mut rows = vec![row(["stage", "launches", "memory", "L2", "predicted"])];
        for (name, id) in self.stages() {
            let of_stage = prediction.launches.iter().filter(|launch| launch.stage == id);
            let (mut launches, mut dram, mut l2) = (0, 0, 0);
            for launch in of_stage {
                launches += launch.calls;
                dram += launch.calls * launch.time.dram_bytes;
                l2 += launch.calls * launch.time.l2_bytes;
            }
            rows.push(row([
                name,
                &launches.to_string(),
                &figures::bytes(dram),
                &figures::bytes(l2),
                &milliseconds(prediction.stage(id)),
            ]));
        }
        rows.push(row([
            "all",
            &prediction.count().to_string(),
            &figures::bytes(prediction.dram_bytes()),
            &figures::bytes(prediction.l2_bytes()),
            &milliseconds(prediction.seconds()),
        ]));
        text += &format!("\n{}", figures::table(&rows));
        text += "  Launches on the device: a large transform is two. Bytes between memory and the L2 cache, and between \
                 that and the multiprocessors.\n";

        let mut rows =
            vec![row(["kernel", "stage", "launches", "limbs", "memory", "L2", "bound by", "predicted"])];
        let kernels = prediction.kernels();
        rows.extend(kernels.iter().take(KERNELS).map(|kernel| self.kernel_row(kernel)));
        let rest: f64 = kernels.iter().skip(KERNELS).map(|kernel| kernel.seconds).sum();
        if kernels.len() > KERNELS {
            let others = format!("{} others", kernels.len() - KERNELS);
            rows.push(row([&others, "", "", "", "", "", "", &milliseconds(rest)]));
        }
        text += &format!("\n{}", figures::table(&rows));

        let mut rows = vec![row(["bound by", "predicted"])];
        for bound in Bound::ALL {
            let seconds = prediction.bound(bound);
            if seconds > 0.0 {
                rows.push(row([bound.name(), &milliseconds(seconds)]));
            }
        }
        text += &format!("\n{}", figures::table(&rows));

        text += "\n  Taken to be so:\n";
        for (what, value, source) in self.gpu.figures() {
            text += &format!("  {what}: {value} ({source})\n");
        }
        text
    }

    /// Launches, bytes and working memory before and after each pass of the kernel level.
    fn passes_text(&self) -> String {
        let mut rows = vec![row(["after", "launches", "bytes", "working memory", "predicted"])];
        for (pass, seconds) in self.passes() {
            let mut row = pass_row(pass, self.params);
            row.push(seconds.map_or("-".into(), milliseconds));
            rows.push(row);
        }
        figures::table(&rows)
            + "  Launches and bytes of kernels: a transform is one launch, reads its limb once and writes it once.\n"
    }

    fn kernel_row(&self, kernel: &KernelTotal<'_>) -> Vec<String> {
        row([
            kernel.entry,
            self.stage_name(kernel.stage),
            &kernel.launches.to_string(),
            &kernel.limbs.to_string(),
            &figures::bytes(kernel.dram_bytes),
            &figures::bytes(kernel.l2_bytes),
            kernel.bound.name(),
            &milliseconds(kernel.seconds),
        ])
    }

    pub(super) fn to_json(&self) -> Value {
        let prediction = &self.prediction;
        let cost = program_cost(&self.artifact.functions, self.params.log_n());
        let mut report = json!({
            "name": self.artifact.name,
            "params": self.params.name(),
            "device": self.gpu.name,
            "predicted_ms": 1e3 * prediction.seconds(),
            "predicted_ms_without_overlap": 1e3 * prediction.seconds_apart(),
            "launches": cost.launches,
            "bytes": cost.bytes(),
            "device_launches": prediction.count(),
            "dram_bytes": prediction.dram_bytes(),
            "l2_bytes": prediction.l2_bytes(),
        });
        for (pass, seconds) in self.passes() {
            // The last pass is vertical fusion: after it, programs are fused.
            let name = if pass.pass == "vertical" { "fused" } else { &pass.pass };
            let mut figures = pass_json(pass, self.params);
            figures["predicted_ms"] = seconds.map(|seconds| 1e3 * seconds).into();
            report[name] = figures;
        }
        let stages = self
            .stages()
            .map(|(name, id)| json!({ "name": name, "predicted_ms": 1e3 * prediction.stage(id) }));
        report["stages"] = stages.collect();
        let kernels = prediction.kernels();
        let kernels = kernels.iter().map(|kernel| {
            json!({
                "kernel": kernel.entry,
                "stage": self.stage_name(kernel.stage),
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
        report
    }
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
