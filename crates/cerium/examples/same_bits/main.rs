//! A bootstrap on one device and on several gives the same ciphertext, bit by bit: ranks as threads of this process, and as
//! processes under `mpirun`.
//!
//! ```text
//! cargo run --release --example same_bits
//! cargo run --release --example same_bits -- --params boot-40 --json
//! ```
//!
//! Keys are real ones and go to a temporary folder (3 GB for `boot-40`, which also needs 12 GB of memory), which all ranks read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use cerium::artifact::{Artifact, DeviceId};
use cerium::ckks::ciphertext::Ciphertext;
use cerium::ckks::encoding::Encoder;
use cerium::ckks::params::Params;
use cerium::ckks::wire::{ProgramDigest, decode_ciphertexts, encode_ciphertexts};
use cerium::client::{KeyFolder, SecretKey, encrypt_with_public_key};
use cerium::compiler::ciphertext::BootstrapKind;
use cerium::compiler::dsl::SourceProgram;
use cerium::compiler::ir::Trace;
use cerium::compiler::limb::devices::{DeviceOptions, Link};
use cerium::compiler::{CompileOptions, bootstrap, compile};
use cerium::runtime::collectives::threads::threads;
use cerium::runtime::collectives::{Collectives, HostCollectives, Patience, mpi};
use cerium::runtime::key_store::KeyPart;
use cerium::runtime::{CpuDevice, KeyStore, Member, Ranks, Session, SessionOptions, progress};
use clap::Parser;
use num_complex::Complex64;
use serde_json::{Value, json};

/// Hold a bootstrap on several devices against one.
#[derive(Parser, Debug)]
struct Options {
    /// Parameter set with bootstrapping.
    #[arg(long, default_value = "insecure-boot-40")]
    params: String,
    /// Numbers of devices that are threads of this process.
    #[arg(long, value_delimiter = ',', default_value = "2,3,4,8", value_name = "N,..")]
    devices: Vec<usize>,
    /// Numbers of processes under `mpirun`, where it is installed.
    #[arg(long, value_delimiter = ',', default_value = "2,4", value_name = "N,..")]
    processes: Vec<usize>,
    /// What the programs take to join the devices.
    #[arg(long, default_value = "pcie")]
    link: Link,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Be one of the processes, which find all that they need in this folder.
    #[arg(long, hide = true)]
    rank_in: Option<PathBuf>,
}

/// What all ranks make alike, and where they find keys and input.
struct Work {
    params: Params,
    source: SourceProgram,
    link: Link,
    folder: PathBuf,
}

const SESSION: SessionOptions = SessionOptions { threads: 1, plaintext_memory: None };

impl Work {
    fn new(options: &Options, folder: &Path) -> Result<Work> {
        let params = Params::named_insecure(&options.params)?;
        ensure!(params.bootstrap().is_some(), "{} has no levels for bootstrapping", options.params);
        let source = bootstrap::program(&params, BootstrapKind::Complex, params.log_n() - 1);
        Ok(Work { params, source, link: options.link, folder: folder.to_owned() })
    }

    fn program(&self, devices: usize) -> Result<Artifact> {
        let devices = DeviceOptions { devices, link: self.link, ..DeviceOptions::default() };
        let options = CompileOptions { devices, ..CompileOptions::default() };
        let artifact = compile(&self.source, &options, &mut Trace::default())?;
        artifact.validate()?;
        Ok(artifact)
    }

    /// Real keys for all programs, and a random message under them.
    fn prepare(&self, artifact: &Artifact) -> Result<()> {
        let secret = match self.params.is_insecure() {
            true => SecretKey::generate_insecure(&self.params)?,
            false => SecretKey::generate(&self.params)?,
        };
        let keys = KeyFolder::new(&self.folder);
        keys.create(&self.params, &secret, &artifact.keys, &|_, _| ())?;
        let at = &artifact.inputs[0].ciphertexts[0];
        let slots: Vec<Complex64> =
            (0..self.params.slots()).map(|slot| Complex64::cis(slot as f64) * 0.9).collect();
        let (public, encoder) = (keys.public_key(&self.params)?, Encoder::new(&self.params));
        let input = encrypt_with_public_key(&self.params, &encoder, &public, &slots, at.level, at.scale)?;
        fs::write(self.input(), encode_ciphertexts(&self.params, ProgramDigest::default(), &[input]))?;
        Ok(())
    }

    fn input(&self) -> PathBuf {
        self.folder.join("input.ct")
    }

    fn inputs(&self) -> Result<Vec<Ciphertext>> {
        Ok(decode_ciphertexts(&self.params, &fs::read(self.input())?)?.1)
    }

    fn output(&self) -> PathBuf {
        self.folder.join("output.ct")
    }

    /// Keys of some devices of a program.
    fn keys(&self, artifact: &Artifact, parts: &[KeyPart]) -> Result<Vec<KeyStore>> {
        Ok(KeyStore::open_parts(&self.folder, &self.params, &artifact.keys, parts, 0, &progress::silent)?)
    }

    /// One device: the outputs and the seconds of the run.
    fn alone(&self, artifact: &Artifact) -> Result<(Vec<Ciphertext>, f64)> {
        let keys = self.keys(artifact, &[KeyPart::whole(&self.params, &artifact.keys)])?.remove(0);
        let device = Box::new(CpuDevice::new(1)?);
        let mut session = Session::with_options(artifact, keys, device, &SESSION, &progress::silent)?;
        let (outputs, profile) = session.run(&self.inputs()?)?;
        Ok((outputs, profile.wall.as_secs_f64()))
    }

    fn member(keys: KeyStore, collectives: HostCollectives) -> Result<Member> {
        Ok(Member { keys, device: Box::new(CpuDevice::new(1)?), collectives: Box::new(collectives) })
    }

    /// Ranks that are threads.
    fn threads(&self, devices: usize) -> Result<(Vec<Ciphertext>, f64)> {
        let artifact = self.program(devices)?;
        let keys = self.keys(&artifact, &KeyPart::all(&artifact, &self.params))?;
        let all = keys.into_iter().zip(threads(devices, Patience::default()));
        let members =
            all.map(|(keys, collectives)| Work::member(keys, collectives)).collect::<Result<_>>()?;
        let mut ranks = Ranks::open(&artifact, members, &SESSION, &progress::silent)?;
        let start = Instant::now();
        let (outputs, _) = ranks.run(&self.inputs()?)?;
        Ok((outputs, start.elapsed().as_secs_f64()))
    }

    /// Ranks that are processes; `None` if there is no `mpirun`.
    fn processes(&self, options: &Options, count: usize) -> Result<Option<Vec<Ciphertext>>> {
        if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let mut command = Command::new("mpirun");
        command.args(["--oversubscribe", "--allow-run-as-root", "-np", &count.to_string()]);
        command.arg(std::env::current_exe()?).args(["--params", &options.params]);
        command.args(["--link", self.link.name(), "--rank-in"]).arg(&self.folder);
        let status = command.stdout(Stdio::null()).status().context("mpirun")?;
        ensure!(status.success(), "mpirun with {count} processes: {status}");
        let bytes = fs::read(self.output())?;
        fs::remove_file(self.output())?;
        Ok(Some(decode_ciphertexts(&self.params, &bytes)?.1))
    }

    /// What one of the processes does.
    fn rank(&self) -> Result<()> {
        let collectives = mpi::join(Patience::default())?;
        let (rank, size) = (collectives.rank(), collectives.size());
        let artifact = self.program(size)?;
        let keys = self.keys(&artifact, &[KeyPart::of(&artifact, DeviceId(rank as u16))])?.remove(0);
        let member = Work::member(keys, collectives)?;
        let mut session = Session::join(&artifact, member, &SESSION, &progress::silent)?;
        let inputs = if rank == 0 { self.inputs()? } else { Vec::new() };
        let (outputs, _) = session.run(&inputs)?;
        if rank == 0 {
            fs::write(self.output(), encode_ciphertexts(&self.params, ProgramDigest::default(), &outputs))?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(folder) = &options.rank_in {
        return Work::new(&options, folder)?.rank();
    }
    let folder = tempfile::tempdir()?;
    let work = Work::new(&options, folder.path())?;
    let single = work.program(1)?;
    work.prepare(&single)?;
    let (expected, seconds) = work.alone(&single)?;
    let mut runs: Vec<Value> = Vec::new();
    let mut note = |ranks: &str, count: usize, seconds: Option<f64>, same: bool| {
        let time = seconds.map_or(String::new(), |seconds| format!(", {seconds:.2} s"));
        eprintln!("{ranks} {count}: {}{time}", if same { "the same bits" } else { "OTHER BITS" });
        runs.push(json!({ "ranks": ranks, "devices": count, "seconds": seconds, "same_bits": same }));
    };
    note("threads", 1, Some(seconds), true);
    for &devices in &options.devices {
        let (outputs, seconds) = work.threads(devices)?;
        note("threads", devices, Some(seconds), outputs == expected);
    }
    for &count in &options.processes {
        match work.processes(&options, count)? {
            Some(outputs) => note("processes", count, None, outputs == expected),
            None => eprintln!("processes {count}: skipped, there is no mpirun"),
        }
    }
    if options.json {
        let words: usize = expected.iter().map(|output| output.words().len()).sum();
        println!(
            "{:#}",
            json!({ "params": options.params, "link": options.link.name(), "words": words, "runs": runs })
        );
    }
    match runs.iter().all(|run| run["same_bits"] == true) {
        true => Ok(()),
        false => bail!("some devices gave other bits"),
    }
}
