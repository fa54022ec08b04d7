//! `cerium explain`: what a program does and costs, without running it.

mod gpu;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use cerium_artifact::{Artifact, KeyPlan, Port, Stage, StageId};
use cerium_ckks::evaluation_key::KeyKind;
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{BootstrapKind, noise};
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::kernel::Fusion;
use cerium_compiler::{CompileOptions, bootstrap, compile};
use cerium_emit::cost::{GPUS, Gpu};
use cerium_runtime::null::{Measurement, measure_within};
use cerium_runtime::{KernelClass, Usage};
use serde_json::{Value, json};

use crate::figures::{self, row, small};
use crate::program::Program;
use crate::speed::Speed;

/// Say what a program costs: levels, operations, rotations, keys, memory, kernels, noise, and time on this machine or a GPU.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cerium explain mnist.cerium\n  cerium explain boot-40 --device h200")]
pub(crate) struct Explain {
    /// The program, made by `cerium compile`; or a parameter set with bootstrapping, for a bootstrap of all its slots.
    program: PathBuf,
    /// Predict the time on this GPU, which need not be at hand: a100, h100, h200 or b200.
    #[arg(long, value_name = "GPU", value_parser = gpu_named)]
    device: Option<&'static Gpu>,
    /// Memory that encoded weights may take, such as `4GB`. Without, all are encoded once.
    #[arg(long, value_name = "SIZE", value_parser = figures::parse_bytes)]
    plaintext_memory: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Everything that is reported.
struct Report {
    program: Program,
    costs: Measurement,
    speed: Speed,
}

impl Explain {
    pub(crate) fn run(self) -> Result<()> {
        let (program, source) = self.open()?;
        if let Some(gpu) = self.device {
            let before = source.map(|source| before_fusion(&source)).transpose()?;
            let report = gpu::Report::new(&program.artifact, &program.params, gpu, before);
            return self.print(|| report.to_text(), || report.to_json());
        }
        let costs = measure_within(&program.artifact, self.plaintext_memory.unwrap_or(u64::MAX))?;
        let speed = Speed::measure(&program.params);
        let report = Report { program, costs, speed };
        self.print(|| report.to_text(), || report.to_json())
    }

    /// The program, and its source if it is one that is known.
    fn open(&self) -> Result<(Program, Option<SourceProgram>)> {
        let set = self.program.to_str().filter(|_| !self.program.exists());
        let params = set.and_then(|name| Params::named_insecure(name).ok());
        let Some(params) = params else { return Ok((Program::read(&self.program)?, None)) };
        if params.bootstrap().is_none() {
            bail!("{} has no levels for bootstrapping; boot-40 and its like do", params.name());
        }
        let source = bootstrap::program(&params, BootstrapKind::Complex, params.log_n() - 1);
        let artifact = compile(&source, &CompileOptions::default(), &mut Trace::default())?;
        Ok((Program::new(artifact)?, Some(source)))
    }

    fn print(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<()> {
        if self.json { figures::print_json(&json()) } else { figures::print(&text()) }
    }
}

/// `[1, 28, 28]`, or `4 x [1, 28, 28]` for a batch.
fn show_shape(port: &Port) -> String {
    match port.batch {
        1 => format!("{:?}", port.shape),
        batch => format!("{batch} x {:?}", port.shape),
    }
}

fn gpu_named(name: &str) -> Result<&'static Gpu, String> {
    let known = || GPUS.iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(", ");
    Gpu::named(name).ok_or_else(|| format!("times are predicted for {}", known()))
}

/// The program without fusion, and with horizontal fusion only.
fn before_fusion(source: &SourceProgram) -> Result<[Artifact; 2]> {
    let compiled = |fusion| {
        let options = CompileOptions { fusion, ..CompileOptions::default() };
        compile(source, &options, &mut Trace::default())
    };
    Ok([compiled(Fusion::None)?, compiled(Fusion::Horizontal)?])
}

impl Report {
    /// The stages that do something.
    fn stages(&self) -> impl Iterator<Item = (StageId, &Stage)> {
        let stages = self.program.artifact.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| (StageId(index as u16), stage));
        stages.filter(|(id, _)| self.costs.usage.stage(*id).launches > 0)
    }

    /// Predicted time of a stage on one thread.
    fn stage_time(&self, stage: StageId) -> Duration {
        let classes = KernelClass::ALL.into_iter();
        classes.map(|class| self.speed.predict(class, &self.costs.usage.get(stage, class))).sum()
    }

    fn class_time(&self, class: KernelClass) -> Duration {
        self.speed.predict(class, &self.costs.usage.class(class))
    }

    fn total_time(&self) -> Duration {
        self.speed.total(&self.costs)
    }

    /// How often an operation occurs over all stages.
    fn operations(&self, name: &str) -> u64 {
        let all = self.program.artifact.stages.iter().flat_map(|stage| &stage.operations);
        all.filter(|(operation, _)| operation == name).map(|(_, count)| count).sum()
    }

    fn rotation_keys(&self) -> usize {
        self.program.artifact.keys.iter().filter(|key| matches!(key.kind, KeyKind::Rotation(_))).count()
    }

    fn raw_weight_bytes(&self) -> u64 {
        self.program.artifact.tensors.iter().map(|tensor| tensor.values.bytes()).sum()
    }

    fn to_text(&self) -> String {
        let Program { artifact, params, digest } = &self.program;
        let security = match params.security_bits() {
            Some(bits) if !params.is_insecure() => format!("{bits}-bit secure"),
            _ => "INSECURE, for tests only".into(),
        };
        let mut text = format!("program `{}` ({digest:?})\n", artifact.name);
        text += &format!(
            "parameters {}: {security}, N = 2^{}, log PQ = {:.0}, {} levels\n\n",
            params.name(),
            params.log_n(),
            params.log_pq(),
            params.program_level().0
        );
        let mut rows = vec![row([
            "port",
            "tensor",
            "shape",
            "ciphertexts",
            "level",
            "bytes",
            "error",
            "bits",
            "promised",
        ])];
        for (kind, ports) in [("input", &artifact.inputs), ("output", &artifact.outputs)] {
            rows.extend(ports.iter().map(|port| self.port_row(kind, port)));
        }
        text += &figures::table(&rows);

        let mut rows = vec![row(["stage", "levels", "operations", "error", "predicted"])];
        for (id, stage) in self.stages() {
            let operations: Vec<String> =
                stage.operations.iter().map(|(name, count)| format!("{count} {name}")).collect();
            rows.push(row([
                &stage.name,
                &format!("{} -> {}", stage.level_in.0, stage.level_out.0),
                &operations.join(", "),
                &small(stage.error),
                &figures::duration(self.stage_time(id)),
            ]));
        }
        text += &format!("\n{}", figures::table(&rows));
        text += "  Errors: predicted standard deviations; of a port's elements, of a stage's slots (values in [-1, 1]).\n";

        let mut rows =
            vec![row(["kernels", "launches", "blocks", "multiplications", "read", "written", "predicted"])];
        let mut usage_row = |name: &str, usage: Usage, time: Duration| {
            rows.push(row([
                name,
                &usage.launches.to_string(),
                &usage.blocks.to_string(),
                &format!("{:.1e}", usage.multiplications as f64),
                &figures::bytes(usage.bytes_read),
                &figures::bytes(usage.bytes_written),
                &figures::duration(time),
            ]));
        };
        for class in KernelClass::ALL {
            usage_row(class.name(), self.costs.usage.class(class), self.class_time(class));
        }
        usage_row("all", self.costs.usage.total(), self.total_time());
        text += &format!("\n{}", figures::table(&rows));
        text +=
            "  Predicted from the speed of single kernels, measured now on one thread of this machine.\n\n";

        let mut rows = vec![row(["after", "launches", "bytes", "working memory"])];
        rows.extend(artifact.passes.iter().map(|pass| gpu::pass_row(pass, params)));
        text += &format!("{}\n", figures::table(&rows));

        let failure =
            self.program.log_failure().map_or("-".into(), |log| format!("below 2^{:.0}", log.ceil()));
        text += &figures::table(&[
            row(["bootstraps", &self.program.show_bootstraps()]),
            row(["  one fails with probability", &failure]),
            row(["rotations", &self.operations("rotate").to_string()]),
            row([
                "evaluation keys",
                &format!("{} ({} of rotations)", artifact.keys.len(), self.rotation_keys()),
            ]),
            row(["  as files", &figures::bytes(self.program.key_bytes())]),
            row(["  in memory", &figures::bytes(self.costs.key_bytes)]),
            row(["weights, raw", &figures::bytes(self.raw_weight_bytes())]),
            row(["weights, encoded", &figures::bytes(self.costs.plaintext_bytes)]),
            row(["working memory", &figures::bytes(self.costs.pool_bytes)]),
            row(["memory in all", &figures::bytes(self.memory())]),
        ]);
        if let Some(plan) = &artifact.key_plan {
            text += &format!("\n{}", self.key_plan_text(plan));
        }
        text
    }

    fn key_plan_text(&self, plan: &KeyPlan) -> String {
        let mut rows = vec![row(["chains of rotations", "diagonals", "key switches", "without"])];
        for chain in &plan.chains {
            let stage = self.program.artifact.stages.get(usize::from(chain.stage.0));
            rows.push(row([
                stage.map_or("", |stage| &stage.name),
                &chain.diagonals.to_string(),
                &chain.switches.to_string(),
                &chain.switches_before.to_string(),
            ]));
        }
        format!(
            "{}  To keep keys within {} of memory: {} keys of {}, without chains {} of {}. A run switches keys {} times, \
             without chains {} times, most of them at a fraction of the cost.\n",
            figures::table(&rows),
            figures::bytes(plan.budget),
            plan.keys,
            figures::bytes(plan.bytes),
            plan.keys_before,
            figures::bytes(plan.bytes_before),
            plan.switches,
            plan.switches_before,
        )
    }

    fn memory(&self) -> u64 {
        let Measurement { key_bytes, plaintext_bytes, raw_weight_bytes, pool_bytes, .. } = self.costs;
        key_bytes + plaintext_bytes + raw_weight_bytes + pool_bytes
    }

    fn port_row(&self, kind: &str, port: &Port) -> Vec<String> {
        let level = port.ciphertexts.first().map_or_else(String::new, |packed| packed.level.0.to_string());
        let error = port.ciphertexts.iter().map(|packed| packed.error).fold(0.0, f64::max);
        row([
            kind,
            &port.name,
            &show_shape(port),
            &port.ciphertexts.len().to_string(),
            &level,
            &figures::bytes(self.port_bytes(port)),
            &small(error),
            &show_bits(error),
            &show_bits(noise::PROMISE * error),
        ])
    }

    fn port_bytes(&self, port: &Port) -> u64 {
        let params = &self.program.params;
        port.ciphertexts.iter().map(|packed| 8 * (params.basis(packed.level).len() * params.n()) as u64).sum()
    }

    fn to_json(&self) -> Value {
        let Program { artifact, params, digest } = &self.program;
        let port = |port: &Port| {
            json!({
                "name": port.name,
                "shape": port.shape,
                "batch": port.batch,
                "ciphertexts": port.ciphertexts.iter().map(|packed| json!({
                    "level": packed.level.0,
                    "log_scale": packed.scale.log2(),
                    "error": packed.error,
                    "expected_bits": bits(packed.error),
                    "promised_bits": bits(noise::PROMISE * packed.error),
                })).collect::<Vec<_>>(),
                "bytes": self.port_bytes(port),
            })
        };
        let stages = self.stages().map(|(id, stage)| {
            let operations: serde_json::Map<String, Value> =
                stage.operations.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
            json!({
                "name": stage.name,
                "level_in": stage.level_in.0,
                "level_out": stage.level_out.0,
                "operations": operations,
                "error": stage.error,
                "predicted_seconds": self.stage_time(id).as_secs_f64(),
                "usage": usage_json(&self.costs.usage.stage(id)),
            })
        });
        let kernels: serde_json::Map<String, Value> = KernelClass::ALL
            .into_iter()
            .map(|class| {
                let mut usage = usage_json(&self.costs.usage.class(class));
                usage["predicted_seconds"] = self.class_time(class).as_secs_f64().into();
                (class.name().to_owned(), usage)
            })
            .collect();
        json!({
            "name": artifact.name,
            "digest": format!("{digest:?}"),
            "params": params.name(),
            "security_bits": params.security_bits().filter(|_| !params.is_insecure()),
            "inputs": artifact.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": artifact.outputs.iter().map(port).collect::<Vec<_>>(),
            "stages": stages.collect::<Vec<_>>(),
            "kernels": kernels,
            "passes": artifact.passes.iter().map(|pass| {
                let mut figures = gpu::pass_json(pass, params);
                figures["pass"] = pass.pass.clone().into();
                figures
            }).collect::<Vec<_>>(),
            "bootstraps": self.program.bootstraps(),
            "log2_failure_probability": self.program.log_failure(),
            "rotations": self.operations("rotate"),
            "keys": artifact.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rotation_keys": self.rotation_keys(),
            "key_bytes": self.program.key_bytes(),
            "key_memory_bytes": self.costs.key_bytes,
            "key_plan": artifact.key_plan.as_ref().map(|plan| json!({
                "budget_bytes": plan.budget,
                "keys": plan.keys,
                "key_memory_bytes": plan.bytes,
                "key_switches": plan.switches,
                "keys_without": plan.keys_before,
                "key_memory_bytes_without": plan.bytes_before,
                "key_switches_without": plan.switches_before,
                "chains": plan.chains.iter().map(|chain| json!({
                    "stage": artifact.stages.get(usize::from(chain.stage.0)).map(|stage| &stage.name),
                    "diagonals": chain.diagonals,
                    "stride": chain.stride,
                    "key_switches": chain.switches,
                    "key_switches_without": chain.switches_before,
                })).collect::<Vec<_>>(),
            })),
            "raw_weight_bytes": self.raw_weight_bytes(),
            "encoded_weight_bytes": self.costs.plaintext_bytes,
            "resident_raw_weight_bytes": self.costs.raw_weight_bytes,
            "pool_bytes": self.costs.pool_bytes,
            "memory_bytes": self.memory(),
            "predicted_seconds_one_thread": self.total_time().as_secs_f64(),
        })
    }
}

/// Bits of an absolute error; `None` for values without one.
fn bits(error: f64) -> Option<f64> {
    (error > 0.0).then(|| -error.log2())
}

fn show_bits(error: f64) -> String {
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
