//! `cerium explain`: what a program does and costs, without running it.

mod devices;
mod gpu;
mod html;
mod lanes;
mod layers;
mod page;
mod report;
mod scaling;
mod text;

use std::path::PathBuf;

use anyhow::{Result, bail};
use cerium_artifact::{Artifact, MAX_DEVICES};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::BootstrapKind;
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::kernel::Fusion;
use cerium_compiler::limb::devices::{DeviceOptions, Link};
use cerium_compiler::{CompileOptions, bootstrap, compile};
use cerium_emit::cost::{GPUS, Gpu, Group};
use cerium_runtime::null::measure_within;
use clap::ValueEnum;

use crate::measurement::Measured;
use crate::prediction::Prediction;
use crate::program::Program;
use crate::speed::Speed;
use crate::{figures, files, speed};
use gpu::GpuReport;
use layers::Layers;
use report::{Device, Report};
use scaling::{Scaled, Scaling};

/// Draw a program and say what it costs: levels, bootstraps, rotations, precision and time of every layer, keys, memory, kernels.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cerium explain mnist.cerium\n  cerium explain mnist.cerium --html mnist.html\n  \
    cerium explain boot-40 --device h200\n  cerium explain boot-40 --device h200 --devices 8\n  \
    cerium explain boot-40 --scaling"
)]
pub(crate) struct Explain {
    /// The program, made by `cerium compile`; or a parameter set with bootstrapping, for a bootstrap of all its slots.
    program: PathBuf,
    /// Predict the time on this GPU, which need not be at hand: a100, h100, h200 or b200.
    #[arg(long, value_name = "GPU", value_parser = gpu_named)]
    device: Option<&'static Gpu>,
    /// Devices that run the program together, if it is a parameter set's bootstrap; a file is compiled for as many as it is.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_DEVICES as i64))]
    devices: Option<u16>,
    /// What joins GPUs of a node; without, NVLink.
    #[arg(long, value_enum)]
    link: Option<Wires>,
    /// Nodes that the devices are in, as many in each; InfiniBand joins them.
    #[arg(long, value_name = "N", requires = "device", value_parser = clap::value_parser!(u16).range(1..))]
    nodes: Option<u16>,
    /// Predict the time of a parameter set's bootstrap on 1 to 16 GPUs of every kind (or of that of `--device`), with NVLink and
    /// without, and say what limits it. A program in a file is compared with the same program in other files, compiled for other
    /// numbers of devices.
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..,
        conflicts_with_all = ["devices", "nodes", "threads", "measured", "plaintext_memory", "operations", "html"]
    )]
    scaling: Option<Vec<PathBuf>>,
    /// Predict the time on this machine with so many threads, which several devices divide among them; 0 takes one for each core.
    /// Without, as many as a measured run had.
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

/// What joins GPUs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wires {
    /// NVLink behind switches
    Nvlink,
    /// PCI Express through the host
    Pcie,
}

impl Explain {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(files) = &self.scaling {
            return self.scale(files);
        }
        if self.link.is_some() && self.device.is_none() {
            bail!("--link is what joins GPUs; name their kind with --device");
        }
        let (program, source) = self.open()?;
        let measured = self.measured.as_deref().map(|path| Measured::read(path, &program)).transpose()?;
        let plaintext_memory = self.plaintext_memory.unwrap_or(u64::MAX);
        let devices = program.artifact.devices();
        let devices = devices.map(|device| measure_within(&program.artifact, device, plaintext_memory));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        let costs = devices[0].clone();
        let (device, predicted) = match self.device {
            Some(gpu) => {
                let group = self.group(gpu, devices.len())?;
                let less = |fusion| {
                    let source = source.as_ref().filter(|_| devices.len() == 1)?;
                    Some(compiled(source, fusion, devices.len(), self.compiled_link()))
                };
                let before = [less(Fusion::None).transpose()?, less(Fusion::Horizontal).transpose()?];
                let report = GpuReport::new(&program, gpu, group, before);
                let seconds = report.stage_seconds();
                (Device::Gpu(Box::new(report)), seconds)
            }
            None => {
                let threads = self.threads.or(measured.as_ref().map(|run| run.threads)).unwrap_or(0);
                let threads = speed::of_ranks(threads, devices.len());
                let speed = Speed::measure(&program.params, threads);
                let prediction = Prediction::new(&program.artifact, &program.params, &speed);
                let seconds = prediction.stages.clone();
                let threads = threads.div_ceil(devices.len());
                (Device::Cpu { prediction: Box::new(prediction), threads }, seconds)
            }
        };
        let layers = Layers::new(&program.artifact, &costs.usage);
        let measured = measured.map(|run| (run.stages(), run));
        let report = Report { program, costs, devices, layers, device, predicted, measured };
        if let Some(path) = &self.html {
            files::write(path, page::write(&report).as_bytes())?;
        }
        if self.json {
            return figures::print_json(&report.to_json());
        }
        figures::print(&text::write(&report, self.operations))
    }

    fn scale(&self, files: &[PathBuf]) -> Result<()> {
        let programs = match self.set() {
            Some(params) if files.is_empty() => {
                let source = bootstrap_of(&params)?;
                let of = |&(devices, nodes, link): &(usize, usize, Link)| {
                    let program = Program::new(compiled(&source, Fusion::default(), devices, link)?)?;
                    Ok(Scaled { program, nodes, link })
                };
                let wanted = |link: Link| devices_link(self.link).is_none_or(|given| given == link);
                let groups = scaling::GROUPS.iter().filter(|group| group.0 == 1 || wanted(group.2));
                groups.map(of).collect::<Result<Vec<_>>>()?
            }
            Some(_) => bail!(
                "{} is no file; --scaling compiles it for all numbers of devices",
                self.program.display()
            ),
            None => {
                let link = devices_link(self.link).unwrap_or(Link::Nvlink);
                let all = std::iter::once(&self.program).chain(files);
                let all = all.map(|path| Ok(Scaled { program: Program::read(path)?, nodes: 1, link }));
                all.collect::<Result<Vec<_>>>()?
            }
        };
        let gpus = self.device.map_or_else(|| GPUS.iter().collect(), |gpu| vec![gpu]);
        let scaling = Scaling::new(&programs, &gpus)?;
        if self.json { figures::print_json(&scaling.to_json()) } else { figures::print(&scaling.text()) }
    }

    /// How so many devices are joined.
    fn group(&self, gpu: &Gpu, devices: usize) -> Result<Group> {
        let nodes = usize::from(self.nodes.unwrap_or(1));
        if !devices.is_multiple_of(nodes) {
            bail!("{devices} devices cannot be in {nodes} nodes with as many devices each");
        }
        let link = match self.link {
            None | Some(Wires::Nvlink) => gpu.nvlink,
            Some(Wires::Pcie) => gpu.pcie,
        };
        Ok(Group::new(devices, nodes, link, gpu.network))
    }

    /// The link that a program is compiled for.
    fn compiled_link(&self) -> Link {
        match (self.device, self.nodes) {
            (None, _) => Link::Memory,
            (Some(_), Some(2..)) => Link::Network,
            (Some(_), _) => devices_link(self.link).unwrap_or(Link::Nvlink),
        }
    }

    /// The parameter set, if the program is the name of one.
    fn set(&self) -> Option<Params> {
        let name = self.program.to_str().filter(|_| !self.program.exists());
        name.and_then(|name| Params::named_insecure(name).ok())
    }

    /// The program, and its source if it is one that is known.
    fn open(&self) -> Result<(Program, Option<SourceProgram>)> {
        let Some(params) = self.set() else {
            let program = Program::read(&self.program)?;
            let devices = program.artifact.programs.len();
            if let Some(given) = self.devices.map(usize::from).filter(|&given| given != devices) {
                bail!(
                    "the program is compiled for {devices} devices, not for {given}; compile it with `--devices {given}`"
                );
            }
            return Ok((program, None));
        };
        let source = bootstrap_of(&params)?;
        let devices = self.devices.unwrap_or(1).into();
        let artifact = compiled(&source, Fusion::default(), devices, self.compiled_link())?;
        Ok((Program::new(artifact)?, Some(source)))
    }
}

/// The link of the compiler.
fn devices_link(link: Option<Wires>) -> Option<Link> {
    link.map(|link| match link {
        Wires::Nvlink => Link::Nvlink,
        Wires::Pcie => Link::Pcie,
    })
}

/// A bootstrap of all slots.
fn bootstrap_of(params: &Params) -> Result<SourceProgram> {
    if params.bootstrap().is_none() {
        bail!("{} has no levels for bootstrapping; boot-40 and its like do", params.name());
    }
    Ok(bootstrap::program(params, BootstrapKind::Complex, params.log_n() - 1))
}

fn gpu_named(name: &str) -> Result<&'static Gpu, String> {
    let known = || GPUS.iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(", ");
    Gpu::named(name).ok_or_else(|| format!("times are predicted for {}", known()))
}

/// The program for so many devices that are joined so.
fn compiled(source: &SourceProgram, fusion: Fusion, devices: usize, link: Link) -> Result<Artifact> {
    let devices = DeviceOptions { devices, link, ..DeviceOptions::default() };
    let options = CompileOptions { fusion, devices, ..CompileOptions::default() };
    Ok(compile(source, &options, &mut Trace::default())?)
}
