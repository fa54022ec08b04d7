//! `cerium bench kernels`: compiles kernels for GPUs, without one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use cerium_artifact::Artifact;
use cerium_emit::cuda::Source;
use cerium_runtime::cuda::nvrtc::Resources;
use cerium_runtime::cuda::{Arch, sources};
use serde::Serialize;
use serde_json::json;

use super::super::ReportArgs;
use super::super::device::DeviceArgs;
use super::measure::Setup;
use super::{bootstrap, device, ops};
use crate::figures::{self, row};
use crate::program::Program;

/// Compile the kernels of programs and of measurements for GPUs, into the folder of compiled kernels. Needs NVRTC, but no GPU.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  cerium bench kernels mnist.cerium --arch sm_90 --cubins kernels")]
pub(super) struct Kernels {
    /// Programs, made by `cerium compile`.
    programs: Vec<PathBuf>,
    /// The random programs of `cerium bench device` with this seed, and its bootstrap.
    #[arg(long, value_name = "SEED")]
    suite: Option<u64>,
    /// The operations of `cerium bench ops`, and the bootstrap if there is one, under this set.
    #[arg(long, value_name = "NAME")]
    params: Option<String>,
    /// Levels of the operations, `all` for each; without, the top level.
    #[arg(long, value_name = "LEVELS")]
    levels: Option<String>,
    /// Folder for the texts, one file each.
    #[arg(long, value_name = "DIR")]
    texts: Option<PathBuf>,
    /// Architectures of GPUs.
    #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90,sm_100")]
    arch: Vec<Arch>,
    /// Newest version of CUDA that drivers may speak; with 12, the kernels serve drivers of 12 and 13.
    #[arg(long, default_value_t = 13, value_parser = clap::value_parser!(u32).range(12..=13))]
    cuda: u32,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    report: ReportArgs,
}

/// What a kernel takes on one architecture.
#[derive(Debug, Serialize)]
struct Figures {
    entry: String,
    arch: String,
    registers: u32,
    spill_bytes: u32,
    shared_bytes: u32,
    cubin_bytes: usize,
}

impl Kernels {
    pub(super) fn run(self) -> Result<()> {
        let mut texts = Texts::default();
        for path in &self.programs {
            texts.add(&Program::read(path)?.artifact)?;
        }
        if let Some(seed) = self.suite {
            for case in device::cases(seed, device::ROUNDS) {
                texts.add(&case.artifact)?;
            }
            let (setup, source, message) = device::bootstrap(&self.device)?;
            texts.add(&setup.compile(&source, vec![message])?.artifact)?;
        }
        if let Some(name) = &self.params {
            let setup = Setup::new(name, &self.device, 0)?;
            let levels = ops::levels(&setup.params, self.levels.as_deref())?;
            for operation in ops::operations(levels.into_iter()) {
                let compiled = operation.compile(&setup);
                texts.add(&compiled.with_context(|| operation.to_string())?.artifact)?;
            }
            if setup.params.bootstrap().is_some() {
                let slots = setup.params.slots();
                let message = bootstrap::Kind::Complex.message(&setup.params, slots, 1)?;
                let source = bootstrap::Kind::Complex.program(&setup.params, slots)?;
                texts.add(&setup.compile(&source, vec![message])?.artifact)?;
            }
        }
        let sources: Vec<&Source> = texts.0.values().collect();
        if let Some(folder) = &self.texts {
            for source in &sources {
                let path = folder.join(format!("{}.cu", source.entry));
                std::fs::create_dir_all(folder)
                    .and_then(|()| std::fs::write(&path, &source.text))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        let mut figures = Vec::new();
        for &arch in &self.arch {
            let compiled = self.device.compiler().compile(&sources, arch, self.cuda)?;
            for (compiled, source) in compiled.iter().zip(&sources) {
                let entry = compiled.resources.iter().find(|resources| resources.entry == source.entry);
                let resources = entry.with_context(|| format!("NVRTC says nothing of {}", source.entry))?;
                figures.push(Figures::new(arch, resources, compiled.cubin.len()));
            }
        }
        let report = json!({ "sources": sources.len(), "kernels": figures });
        self.report.give(&report, || show(&figures, sources.len()))
    }
}

/// Texts of kernels, by the name of their function.
#[derive(Default)]
struct Texts(BTreeMap<String, Source>);

impl Texts {
    fn add(&mut self, artifact: &Artifact) -> Result<()> {
        self.0.extend(sources(artifact)?.into_iter().map(|source| (source.entry.clone(), source)));
        Ok(())
    }
}

impl Figures {
    fn new(arch: Arch, resources: &Resources, cubin_bytes: usize) -> Figures {
        Figures {
            entry: resources.entry.clone(),
            arch: arch.to_string(),
            registers: resources.registers,
            spill_bytes: resources.spill_store_bytes + resources.spill_load_bytes,
            shared_bytes: resources.shared_bytes,
            cubin_bytes,
        }
    }
}

fn show(kernels: &[Figures], sources: usize) -> String {
    let mut rows = vec![row(["kernel", "for", "registers", "spilled", "static shared memory", "size"])];
    rows.extend(kernels.iter().map(|kernel| {
        row([
            &kernel.entry,
            &kernel.arch,
            &kernel.registers.to_string(),
            &figures::bytes(kernel.spill_bytes.into()),
            &figures::bytes(kernel.shared_bytes.into()),
            &figures::bytes(kernel.cubin_bytes as u64),
        ])
    }));
    let bytes = figures::bytes(kernels.iter().map(|kernel| kernel.cubin_bytes as u64).sum());
    let spilled = kernels.iter().filter(|kernel| kernel.spill_bytes > 0).count();
    format!(
        "{}  {sources} texts, {} kernels of {bytes}, {spilled} spill\n",
        figures::table(&rows),
        kernels.len()
    )
}
