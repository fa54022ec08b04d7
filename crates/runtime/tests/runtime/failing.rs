//! A device that fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cerium_ckks::params::Params;
use cerium_runtime::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use cerium_runtime::memory::{OnTheWay, PlaintextEncoder, Plaintexts, Residency};
use cerium_runtime::profile::UsageTables;
use cerium_runtime::{CpuDevice, KeyStore};

/// How a device fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Error,
    Panic,
}

/// What an error of the device, or its panic, says.
pub(crate) const REASON: &str = "a patience that has ended";

/// A CPU that computes so many runs of kernels and then fails.
pub(crate) struct Failing {
    pub(crate) cpu: CpuDevice,
    pub(crate) rest: Arc<AtomicUsize>,
    pub(crate) failure: Failure,
}

impl Device for Failing {
    fn launch(&mut self, run: RunId, bindings: &Bindings) -> Result<(), DeviceError> {
        if self.rest.load(Ordering::Relaxed) == 0 {
            match self.failure {
                Failure::Error => {
                    return Err(DeviceError::OutOfMemory { device: self.name(), bytes: 1, what: REASON });
                }
                Failure::Panic => panic!("{REASON}"),
            }
        }
        self.rest.fetch_sub(1, Ordering::Relaxed);
        self.cpu.launch(run, bindings)
    }

    fn name(&self) -> String {
        "failing".into()
    }

    fn prepare(
        &mut self,
        params: &Params,
        runs: &[Run<'_>],
        limbs: u64,
        stages: usize,
    ) -> Result<(), DeviceError> {
        self.cpu.prepare(params, runs, limbs, stages)
    }

    fn load_plaintexts(&mut self, plaintexts: Plaintexts) -> Result<(), DeviceError> {
        self.cpu.load_plaintexts(plaintexts)
    }

    fn on_the_way(&self) -> OnTheWay {
        self.cpu.on_the_way()
    }

    fn load_weights(
        &mut self,
        encoder: Arc<PlaintextEncoder>,
        residency: &Residency,
    ) -> Result<(), DeviceError> {
        self.cpu.load_weights(encoder, residency)
    }

    fn encode(&mut self, jobs: &[EncodeJob]) -> Result<(), DeviceError> {
        self.cpu.encode(jobs)
    }

    fn load_keys(&mut self, keys: Arc<KeyStore>) -> Result<(), DeviceError> {
        self.cpu.load_keys(keys)
    }

    fn limb_words(&self) -> usize {
        self.cpu.limb_words()
    }

    fn upload(&mut self, to: Address, words: &[u32]) -> Result<(), DeviceError> {
        self.cpu.upload(to, words)
    }

    fn download(&mut self, from: Address, words: &mut [u32]) -> Result<(), DeviceError> {
        self.cpu.download(from, words)
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.cpu.synchronise()
    }

    fn threads(&self) -> usize {
        self.cpu.threads()
    }

    fn pool_bytes(&self) -> u64 {
        self.cpu.pool_bytes()
    }

    fn room(&mut self, pool: u64, keys: u64, neighbours: u64) -> Option<u64> {
        self.cpu.room(pool, keys, neighbours)
    }

    fn take_usage(&mut self) -> UsageTables {
        self.cpu.take_usage()
    }
}
