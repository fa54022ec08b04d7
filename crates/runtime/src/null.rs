//! The null device: runs nothing, counts everything. Programs far larger than the machine can be checked and
//! costed with it.

use std::sync::Arc;

use cerium_artifact::cost::kernel_cost;
use cerium_artifact::{Artifact, DeviceId};
use cerium_ckks::params::Params;
use serde::Serialize;

use crate::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use crate::executor::Schedule;
use crate::key_store::{KeyPart, KeyStore};
use crate::memory::{OnTheWay, PlaintextEncoder, PlaintextPlan, Plaintexts, Residency};
use crate::profile::{CommunicationTables, KernelClass, UsageTable, UsageTables};
use crate::session::SessionError;

/// A device that only counts.
#[derive(Debug, Default)]
pub struct NullDevice {
    runs: Vec<UsageTable>,
    used: UsageTables,
    pool_bytes: u64,
    limb_words: usize,
}

impl NullDevice {
    /// A device without a program.
    pub fn new() -> NullDevice {
        NullDevice::default()
    }
}

impl Device for NullDevice {
    fn name(&self) -> String {
        "null".into()
    }

    fn prepare(
        &mut self,
        params: &Params,
        runs: &[Run<'_>],
        limbs: u64,
        stages: usize,
    ) -> Result<(), DeviceError> {
        let cost = |run: &Run<'_>| {
            let mut table = UsageTable::new(stages);
            for kernel in &run.kernels {
                *table.get_mut(kernel.stage, KernelClass::of(&kernel.body)) +=
                    kernel_cost(kernel, run.function, params.log_n()).into();
            }
            table
        };
        self.runs = runs.iter().map(cost).collect();
        self.used = UsageTables::new(stages);
        self.limb_words = params.n();
        self.pool_bytes = limbs * 4 * params.n() as u64;
        Ok(())
    }

    fn load_plaintexts(&mut self, _: Plaintexts) -> Result<(), DeviceError> {
        Ok(())
    }

    /// As a CPU.
    fn on_the_way(&self) -> OnTheWay {
        OnTheWay::Integers
    }

    fn load_weights(&mut self, _: Arc<PlaintextEncoder>, _: &Residency) -> Result<(), DeviceError> {
        Ok(())
    }

    fn encode(&mut self, _: &[EncodeJob]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn load_keys(&mut self, _: Arc<KeyStore>) -> Result<(), DeviceError> {
        Ok(())
    }

    fn limb_words(&self) -> usize {
        self.limb_words
    }

    fn upload(&mut self, _: Address, _: &[u32]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn download(&mut self, _: Address, words: &mut [u32]) -> Result<(), DeviceError> {
        words.fill(0);
        Ok(())
    }

    fn launch(&mut self, run: RunId, bindings: &Bindings) -> Result<(), DeviceError> {
        self.used.add_run(&self.runs[run.0 as usize], bindings.caller);
        Ok(())
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn threads(&self) -> usize {
        1
    }

    fn pool_bytes(&self) -> u64 {
        self.pool_bytes
    }

    fn room(&mut self, _: u64, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn take_usage(&mut self) -> UsageTables {
        let stages = self.used.stages();
        std::mem::replace(&mut self.used, UsageTables::new(stages))
    }
}

/// Cost and memory of one run of a program.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Usage by stage and class.
    pub usage: UsageTables,
    /// Communication by stage.
    pub communication: CommunicationTables,
    /// Bytes of the pool: inputs, outputs and the deepest stack of frames.
    pub pool_bytes: u64,
    /// Bytes of encoded plaintexts, the buffer for those that are not resident included.
    pub plaintext_bytes: u64,
    /// Bytes of raw weights that the runtime needs because not all plaintexts are resident.
    pub raw_weight_bytes: u64,
    /// Bytes of the expanded evaluation keys: of one of several devices those that its kernels read.
    pub key_bytes: u64,
}

/// Walks the schedule of the first device of an artifact, calls included, without computing.
pub fn measure(artifact: &Artifact) -> Result<Measurement, SessionError> {
    measure_within(artifact, DeviceId::default(), u64::MAX)
}

/// As [`measure`], for any device and with at most `plaintext_memory` bytes of encoded plaintexts, as a CPU would keep them.
pub fn measure_within(
    artifact: &Artifact,
    on: DeviceId,
    plaintext_memory: u64,
) -> Result<Measurement, SessionError> {
    let params = artifact.validate()?;
    let plaintexts = PlaintextPlan::new(artifact, on)?;
    let mut device = NullDevice::new();
    let residency = Residency::within(artifact, &plaintexts, device.on_the_way(), plaintext_memory)?;
    let schedule = Schedule::new(artifact, &params, &plaintexts, &residency);
    let infallible = "the null device accepts everything";
    device
        .prepare(&params, &schedule.runs(artifact), schedule.pool_limbs(), artifact.stages.len())
        .expect(infallible);
    let communication = schedule.execute(&mut device, None).expect(infallible);
    let keys = KeyPart::all(artifact, &params);
    Ok(Measurement {
        usage: device.take_usage(),
        communication,
        pool_bytes: device.pool_bytes(),
        plaintext_bytes: residency.resident_bytes() + residency.working_bytes(),
        raw_weight_bytes: residency.raw_bytes(artifact, &plaintexts),
        key_bytes: keys[on.index()].bytes(&params),
    })
}
