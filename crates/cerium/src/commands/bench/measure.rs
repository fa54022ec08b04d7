//! Programs that are measured: prepared, run over and over, timed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cerium_artifact::PackedCiphertext;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_ckks::params::Params;
use cerium_client::{SecretKey, decrypt, encrypt_with_secret_key};
use cerium_compiler::ciphertext::Slots;
use cerium_compiler::dsl::SourceProgram;
use cerium_compiler::ir::Trace;
use cerium_compiler::limb::devices::{DeviceOptions, Link};
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::device::Device;
use cerium_runtime::{KeyStore, Ranks, Session};
use serde::Serialize;

use super::super::device::DeviceArgs;
use super::super::keygen;
use super::super::ranks::{Keys, RankArgs};
use crate::program::Program;
use crate::progress::Progress;

/// What all measured programs share.
pub(super) struct Setup {
    pub(super) params: Params,
    pub(super) progress: Progress,
    secret: SecretKey,
    encoder: Encoder,
    device: DeviceArgs,
    threads: usize,
    /// As in [`CompileOptions`].
    pub(super) key_memory: Option<u64>,
    /// The devices that share the work of programs that are prepared, and what joins them.
    pub(super) ranks: RankArgs,
    pub(super) link: Link,
}

/// A program that is ready to run.
pub(super) struct Prepared<'a> {
    setup: &'a Setup,
    pub(super) program: Program,
    pub(super) ranks: Ranks,
    pub(super) compilation: Duration,
    pub(super) key_generation: Duration,
}

impl Setup {
    /// With a fresh secret key under a parameter set; those without security are welcome, because nothing secret is
    /// encrypted here. Programs run on `device`, a CPU with `threads` threads, 0 for one on each core.
    pub(super) fn new(params: &str, device: &DeviceArgs, threads: usize) -> Result<Setup> {
        let params = Params::named_insecure(params)?;
        let secret = SecretKey::generate_insecure(&params)?;
        let encoder = Encoder::new(&params);
        let device = device.clone();
        let (progress, ranks) = (Progress::new(), RankArgs::default());
        let link = Link::Memory;
        Ok(Setup { params, progress, secret, encoder, device, threads, key_memory: None, ranks, link })
    }

    /// Compiles a program. `samples` are as in [`CompileOptions`].
    pub(super) fn compile(&self, source: &SourceProgram, samples: Vec<Vec<Slots>>) -> Result<Program> {
        let devices = DeviceOptions {
            devices: self.ranks.devices.unwrap_or(1),
            link: self.link,
            ..DeviceOptions::default()
        };
        let options =
            CompileOptions { samples, key_memory: self.key_memory, devices, ..CompileOptions::default() };
        Program::new(compile(source, &options, &mut Trace::default())?)
    }

    /// Makes the keys of a program, on all cores.
    pub(super) fn keys(&self, program: &Program) -> Result<Vec<EvaluationKey>> {
        keygen::evaluation_keys(program, &self.secret, &self.progress)
    }

    /// A session of a program with its keys.
    pub(super) fn session(
        &self,
        program: &Program,
        keys: Vec<EvaluationKey>,
        device: Box<dyn Device>,
    ) -> Result<Session> {
        let step = |what: &'static str, done: usize, total: usize| self.progress.step(what, done, total);
        let keys = KeyStore::from_keys(&self.params, &program.artifact.keys, keys, 0, &step)?;
        let options = self.device.session(0);
        let session = Session::with_options(&program.artifact, keys, device, &options, &step)?;
        self.progress.clear();
        Ok(session)
    }

    /// A program with its keys, on all its devices. `samples` are as in [`CompileOptions`].
    pub(super) fn prepare(&self, source: &SourceProgram, samples: Vec<Vec<Slots>>) -> Result<Prepared<'_>> {
        let start = Instant::now();
        let program = self.compile(source, samples)?;
        let compilation = start.elapsed();
        let start = Instant::now();
        let keys = self.keys(&program)?;
        let key_generation = start.elapsed();
        let places = self.ranks.places(&program, &self.device, self.threads)?;
        let ranks = places.open(&program, Keys::Made(keys), &self.progress)?;
        self.progress.clear();
        Ok(Prepared { setup: self, program, ranks, compilation, key_generation })
    }

    /// Encrypts inputs of a program, one vector of slots each.
    pub(super) fn encrypt(&self, program: &Program, inputs: &[Slots]) -> Result<Vec<Ciphertext>> {
        let Setup { params, secret, encoder, .. } = self;
        let ports = program.artifact.inputs.iter().flat_map(|port| &port.ciphertexts);
        let encrypt = |(at, slots): (&PackedCiphertext, &Slots)| {
            Ok(encrypt_with_secret_key(params, encoder, secret, slots, at.level, at.scale)?.expand(params))
        };
        ports.zip(inputs).map(encrypt).collect()
    }
}

impl Prepared<'_> {
    /// Encrypts inputs of the program, one vector of slots each.
    pub(super) fn encrypt(&self, inputs: &[Slots]) -> Result<Vec<Ciphertext>> {
        self.setup.encrypt(&self.program, inputs)
    }

    /// The slots of outputs.
    pub(super) fn decrypt(&self, outputs: &[Ciphertext]) -> Result<Vec<Slots>> {
        let Setup { params, secret, encoder, .. } = self.setup;
        let decrypt = |output| decrypt(params, encoder, secret, output);
        Ok(outputs.iter().map(decrypt).collect::<Result<_, _>>()?)
    }
}

/// Refuses to measure nothing.
pub(super) fn check_runs(runs: usize) -> Result<()> {
    if runs == 0 {
        bail!("--runs must be at least 1");
    }
    Ok(())
}

/// Measured times, in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Times {
    /// The one in the middle.
    pub(super) median_s: f64,
    /// First and last decile.
    pub(super) spread_s: [f64; 2],
    /// All of them, in order.
    pub(super) samples_s: Vec<f64>,
}

impl Times {
    /// Of at least one run.
    pub(super) fn new(samples: &[Duration]) -> Times {
        let samples_s: Vec<f64> =
            samples.iter().map(|time| (time.as_secs_f64() * 1e9).round() / 1e9).collect();
        let mut sorted = samples_s.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        Times { median_s: at(0.5), spread_s: [at(0.1), at(0.9)], samples_s }
    }
}

/// Processor time of all threads of this process so far.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // The kernel's clocks do not run backwards past zero.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The most memory that this process has occupied, where the system tells (Linux does).
pub(super) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_deciles() {
        let times = Times::new(&[9, 1, 8, 2, 7, 3, 6, 4, 5, 10, 0].map(Duration::from_secs));
        assert_eq!((times.median_s, times.spread_s), (5.0, [1.0, 9.0]));
        assert_eq!(Times::new(&[Duration::from_millis(1500)]).spread_s, [1.5, 1.5]);
    }

    #[test]
    fn work_takes_processor_time_and_memory() {
        let (begin, start) = (cpu_time(), Instant::now());
        let mut sum = 0u64;
        while start.elapsed() < Duration::from_millis(30) {
            sum = std::hint::black_box(sum + 1);
        }
        let spent = cpu_time() - begin;
        assert!(spent > Duration::from_millis(1), "{spent:?}");
        if cfg!(target_os = "linux") {
            assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
