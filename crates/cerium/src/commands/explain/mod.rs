//! `cerium explain`: what a program does and costs, without running it.

mod gpu;
mod html;
mod lanes;
mod layers;
mod page;
mod report;
mod text;

use std::path::PathBuf;

use anyhow::{Result, bail};
use cerium_artifact::{Artifact, DeviceId};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::BootstrapKind;
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::kernel::Fusion;
use cerium_compiler::{CompileOptions, bootstrap, compile};
use cerium_emit::cost::{GPUS, Gpu};
use cerium_runtime::null::measure_within;

use crate::measurement::Measured;
use crate::prediction::Prediction;
use crate::program::Program;
use crate::speed::Speed;
use crate::{figures, files};
use gpu::GpuReport;
use layers::Layers;
use report::{Device, Report};

/// Draw a program and say what it costs: levels, bootstraps, rotations, precision and time of every layer, keys, memory, kernels.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cerium explain mnist.cerium\n  cerium explain mnist.cerium --html mnist.html\n  \
    cerium explain boot-40 --device h200"
)]
pub(crate) struct Explain {
    /// The program, made by `cerium compile`; or a parameter set with bootstrapping, for a bootstrap of all its slots.
    program: PathBuf,
    /// Predict the time on this GPU, which need not be at hand: a100, h100, h200 or b200.
    #[arg(long, value_name = "GPU", value_parser = gpu_named)]
    device: Option<&'static Gpu>,
    /// Predict the time on this machine with so many threads; 0 takes one for each core. Without, as many as a measured run had.
    #[arg(long, value_name = "N", conflicts_with = "device")]
    threads: Option<usize>,
    /// Hold the time of each layer against that of a run, from the file that `cerium run --profile` wrote.
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
    /// Memory that encoded weights may take, such as `4GB`. Without, all are encoded once.
    #[arg(long, value_name = "SIZE", value_parser = figures::parse_bytes)]
    plaintext_memory: Option<u64>,
    /// List the operations of each layer.
    #[arg(long)]
    operations: bool,
    /// Write the report as one page for a browser, which needs nothing but this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(self) -> Result<()> {
        let (program, source) = self.open()?;
        let measured = self.measured.as_deref().map(|path| Measured::read(path, &program)).transpose()?;
        let costs = measure_within(
            &program.artifact,
            DeviceId::default(),
            self.plaintext_memory.unwrap_or(u64::MAX),
        )?;
        let (device, predicted) = match self.device {
            Some(gpu) => {
                let before = source.map(|source| before_fusion(&source)).transpose()?;
                let report = GpuReport::new(&program, gpu, before);
                let seconds = report.stage_seconds(&program.artifact);
                (Device::Gpu(report), seconds)
            }
            None => {
                let threads = self.threads.or(measured.as_ref().map(|run| run.threads)).unwrap_or(0);
                let speed = Speed::measure(&program.params, threads);
                let prediction = Prediction::new(&program.artifact, &program.params, &speed);
                let seconds = prediction.stages.clone();
                (Device::Cpu { prediction, threads: speed.threads }, seconds)
            }
        };
        let layers = Layers::new(&program.artifact, &costs.usage);
        let measured = measured.map(|run| (run.stages(), run));
        let report = Report { program, costs, layers, device, predicted, measured };
        if let Some(path) = &self.html {
            files::write(path, page::write(&report).as_bytes())?;
        }
        if self.json {
            return figures::print_json(&report.to_json());
        }
        figures::print(&text::write(&report, self.operations))
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
