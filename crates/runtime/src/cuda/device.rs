//! The device: a program in the memory of a GPU.
//!
//! When a program is prepared, every run becomes one graph: `bind`, then its launches. An activation writes its table and
//! replays the graph; the order of the GPU's stream sees to the rest, so that the host is ahead of it until it downloads.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cerium_artifact::StageId;
use cerium_ckks::params::Params;
use cerium_emit::cuda::abi::BIND_THREADS;

use super::compile::KernelCompiler;
use super::driver::DriverGpu;
use super::encode::{Encodings, ON_THE_WAY};
use super::error::{MemoryNeeds, Purpose};
use super::gpu::{Argument, Call, FunctionIndex, Gpu, GpuAddress, GraphIndex};
use super::plan::{KeyLimb, Places, Plan, PlannedLaunch};
use super::sums::Sums;
use super::{CudaError, cache::CubinCache};
use crate::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use crate::key_store::KeyStore;
use crate::memory::{OnTheWay, PlaintextEncoder, PlaintextId, Plaintexts, Residency};
use crate::profile::{Usage, UsageTable, UsageTables};

/// Bytes to which what is put into one allocation is aligned.
const ALIGNMENT: u64 = 256;

/// Copies of which the fastest is the rate.
const COPIES: usize = 10;

/// How a GPU is used.
#[derive(Clone, Debug)]
pub struct CudaOptions {
    /// Which GPU of the machine, counted from 0.
    pub ordinal: u32,
    /// Folder of NVRTC; `None` for the usual places ([`Nvrtc::load`](super::nvrtc::Nvrtc::load)).
    pub nvrtc: Option<PathBuf>,
    /// Where compiled kernels are kept.
    pub cache: CubinCache,
    /// Take the time of each stage and class. Launches are then separate and the host waits for every run, so that the
    /// whole takes longer.
    pub profile: bool,
}

impl Default for CudaOptions {
    /// The first GPU, with the cache of the user, without times.
    fn default() -> CudaOptions {
        CudaOptions { ordinal: 0, nvrtc: None, cache: CubinCache::of_user(), profile: false }
    }
}

/// A GPU as a device.
pub struct CudaDevice {
    gpu: Box<dyn Gpu>,
    profile: bool,
    /// Memory of the program, and how much of it is allocated.
    needs: MemoryNeeds,
    taken: u64,
    limb_bytes: u64,
    pool_bytes: u64,
    places: Places,
    keys: Vec<KeyLimb>,
    /// For plaintexts that are not resident.
    encodings: Option<Encodings>,
    /// The table of the activation that runs.
    table: GpuAddress,
    runs: Vec<LoadedRun>,
    used: UsageTables,
    pub(super) sums: Sums,
}

/// A run that is ready.
struct LoadedRun {
    /// `bind`, then the launches.
    calls: Vec<Call>,
    launches: Vec<PlannedLaunch>,
    /// `None` when launches are separate.
    graph: Option<GraphIndex>,
    usage: UsageTable,
}

impl CudaDevice {
    /// A GPU of this machine.
    pub fn new(options: CudaOptions) -> Result<CudaDevice, DeviceError> {
        let CudaOptions { ordinal, nvrtc, cache, profile } = options;
        let gpu = DriverGpu::open(ordinal, KernelCompiler { nvrtc, cache })?;
        Ok(CudaDevice::on(Box::new(gpu), profile))
    }

    /// A device on something that behaves like a GPU; `profile` is as in [`CudaOptions`].
    pub fn on(gpu: Box<dyn Gpu>, profile: bool) -> CudaDevice {
        CudaDevice {
            gpu,
            profile,
            needs: MemoryNeeds::default(),
            taken: 0,
            limb_bytes: 0,
            pool_bytes: 0,
            places: Places::default(),
            keys: Vec::new(),
            encodings: None,
            table: GpuAddress::default(),
            runs: Vec::new(),
            used: UsageTables::default(),
            sums: Sums::default(),
        }
    }

    /// The GPU itself.
    pub(crate) fn gpu(&mut self) -> &mut dyn Gpu {
        self.gpu.as_mut()
    }

    /// Allocates memory for a purpose.
    pub(super) fn allocate(&mut self, what: Purpose, bytes: u64) -> Result<GpuAddress, CudaError> {
        self.needs.add(what, bytes);
        self.allocate_known(bytes)
    }

    /// Allocates memory that is among the needs already.
    fn allocate_known(&mut self, bytes: u64) -> Result<GpuAddress, CudaError> {
        if let Some(address) = self.gpu.allocate(bytes)? {
            self.taken += bytes;
            return Ok(address);
        }
        let (free, total) = self.gpu.memory()?;
        let (gpu, needs) = (self.gpu.name(), self.needs.clone());
        Err(CudaError::OutOfMemory { gpu, needs, free: free + self.taken, total })
    }

    /// Writes parts one behind the other into one allocation; returns where each begins.
    pub(super) fn place(&mut self, what: Purpose, parts: &[&[u8]]) -> Result<Vec<GpuAddress>, CudaError> {
        let mut bytes = 0;
        let offsets: Vec<u64> = parts
            .iter()
            .map(|part| {
                let offset = bytes;
                bytes += (part.len() as u64).next_multiple_of(ALIGNMENT);
                offset
            })
            .collect();
        let start = self.allocate(what, bytes)?;
        let places: Vec<GpuAddress> = offsets.iter().map(|&offset| start.offset(offset)).collect();
        for (place, part) in places.iter().zip(parts) {
            self.gpu.write(*place, part)?;
        }
        Ok(places)
    }

    fn load(&mut self, params: &Params, plan: Plan, limbs: u64) -> Result<(), CudaError> {
        self.gpu.reset()?;
        self.sums = Sums::default();
        self.runs.clear();
        self.limb_bytes = 4 * params.n() as u64;
        self.pool_bytes = limbs.saturating_mul(self.limb_bytes);
        let scratch_bytes = u64::from(plan.scratch_limbs) * self.limb_bytes;
        let key_bytes = plan.keys.len() as u64 * self.limb_bytes;
        // What is known by now is named when the first of it does not fit.
        (self.needs, self.taken) = (MemoryNeeds::default(), 0);
        self.needs.add(Purpose::Pool, self.pool_bytes);
        self.needs.add(Purpose::Scratch, scratch_bytes);
        self.needs.add(Purpose::Keys, key_bytes);
        self.places = Places {
            pool: self.allocate_known(self.pool_bytes)?,
            scratch: self.allocate_known(scratch_bytes)?,
            keys: self.allocate_known(key_bytes)?,
            plaintexts: Vec::new(),
        };
        let tables = cerium_emit::cuda::tables(params);
        let mut parts: Vec<&[u8]> = vec![bytemuck::cast_slice(&tables)];
        for run in &plan.runs {
            parts.extend([bytemuck::cast_slice(&run.codes), bytemuck::cast_slice(&run.constants)]);
        }
        let parts = self.place(Purpose::Tables, &parts)?;
        let pointers = self.allocate(Purpose::Tables, 8 * plan.pointers() as u64)?;
        self.table = self.allocate(Purpose::Tables, 8 * plan.bases as u64)?;
        let functions = self.gpu.load(&plan.sources)?;
        for (run, addresses) in plan.runs.into_iter().zip(parts[1..].chunks_exact(2)) {
            let &[codes, constants] = addresses else { unreachable!("chunks of two") };
            let memory = RunMemory { codes, table: self.table, pointers, constants, tables: parts[0] };
            let calls = memory.calls(&functions, &run.launches, run.codes.len() as u32);
            let graph = if self.profile { None } else { Some(self.gpu.record(&calls)?) };
            self.runs.push(LoadedRun { calls, launches: run.launches, graph, usage: run.usage });
        }
        self.keys = plan.keys;
        self.gpu.synchronise()
    }

    /// Launches one by one and adds the times.
    fn launch_timed(&mut self, run: usize, caller: Option<StageId>) -> Result<(), CudaError> {
        let LoadedRun { calls, launches, .. } = &self.runs[run];
        self.gpu.call(&calls[0])?;
        self.gpu.mark()?;
        for (index, call) in calls[1..].iter().enumerate() {
            self.gpu.call(call)?;
            let cell = |launch: &PlannedLaunch| (launch.stage, launch.class);
            // Launches of one cell share a mark.
            if launches.get(index + 1).map(cell) != Some(cell(&launches[index])) {
                self.gpu.mark()?;
            }
        }
        let cells = launches.chunk_by(|a, b| (a.stage, a.class) == (b.stage, b.class));
        for (seconds, cell) in self.gpu.elapsed()?.into_iter().zip(cells) {
            let PlannedLaunch { stage, class, .. } = cell[0];
            let usage = Usage { busy: Duration::from_secs_f64(seconds), ..Usage::default() };
            self.used.add(stage, class, caller, usage);
        }
        Ok(())
    }

    /// Where a slot is.
    pub(crate) fn slot(&self, address: Address) -> GpuAddress {
        self.places.pool.offset(u64::from(address.0) * self.limb_bytes)
    }
}

impl CudaDevice {
    /// What tells its GPU from all others; `None` if the host takes the place of one.
    pub fn uuid(&self) -> Option<[u8; 16]> {
        self.gpu.uuid()
    }

    /// Bytes that copies within the GPU's memory read and write in a second: no kernel moves limbs faster. Measured; takes
    /// some milliseconds and half of the free memory, 2 GiB at most. The device has no program then.
    pub fn copy_rate(&mut self) -> Result<f64, DeviceError> {
        let (free, _) = self.gpu.memory()?;
        let bytes = (free / 4).min(1 << 30);
        let (from, to) = (self.allocate(Purpose::Scratch, bytes)?, self.allocate(Purpose::Scratch, bytes)?);
        // The first copy is not counted.
        for _ in 0..=COPIES {
            self.gpu.copy(to, from, bytes)?;
            self.gpu.mark()?;
        }
        let fastest = self.gpu.elapsed()?.into_iter().fold(f64::INFINITY, f64::min);
        self.gpu.reset()?;
        Ok(2.0 * bytes as f64 / fastest)
    }
}

/// Where the launches of a run find what they read.
struct RunMemory {
    codes: GpuAddress,
    table: GpuAddress,
    pointers: GpuAddress,
    constants: GpuAddress,
    tables: GpuAddress,
}

impl RunMemory {
    /// `bind` for `count` pointers, then the launches. Functions are in the order of the plan's sources.
    fn calls(&self, functions: &[FunctionIndex], launches: &[PlannedLaunch], count: u32) -> Vec<Call> {
        let bind = Call {
            function: functions[0],
            grid: [count.div_ceil(BIND_THREADS).max(1), 1],
            block: BIND_THREADS,
            shared_bytes: 0,
            arguments: vec![
                Argument::Address(self.codes),
                Argument::Address(self.table),
                Argument::Address(self.pointers),
                Argument::Word(count),
            ],
        };
        let call = |launch: &PlannedLaunch| Call {
            function: functions[launch.source],
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            arguments: vec![
                Argument::Address(self.pointers.offset(8 * launch.pointers as u64)),
                Argument::Address(self.constants.offset(4 * launch.constants as u64)),
                Argument::Address(self.tables),
            ],
        };
        std::iter::once(bind).chain(launches.iter().map(call)).collect()
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        format!("cuda ({})", self.gpu.name())
    }

    fn prepare(
        &mut self,
        params: &Params,
        runs: &[Run<'_>],
        limbs: u64,
        stages: usize,
    ) -> Result<(), DeviceError> {
        self.load(params, Plan::new(params, runs, stages), limbs)?;
        self.used = UsageTables::new(stages);
        Ok(())
    }

    fn load_plaintexts(&mut self, plaintexts: Plaintexts) -> Result<(), DeviceError> {
        let start = self.place(Purpose::Plaintexts, &[bytemuck::cast_slice(plaintexts.words())])?[0];
        let place = |words: Range<usize>| start.offset(4 * words.start as u64);
        self.places.plaintexts = plaintexts.ranges().map(place).collect();
        Ok(())
    }

    /// A block of threads makes a plaintext within the fast memory of one processor.
    fn on_the_way(&self) -> OnTheWay {
        ON_THE_WAY
    }

    fn load_weights(
        &mut self,
        encoder: Arc<PlaintextEncoder>,
        residency: &Residency,
    ) -> Result<(), DeviceError> {
        let ids: Vec<PlaintextId> = residency.moving().collect();
        let batch = residency.spans().iter().map(|span| span.encoded.len()).max().unwrap_or(0);
        self.encodings = Some(self.place_weights(&encoder, &ids, batch)?);
        Ok(())
    }

    fn encode(&mut self, jobs: &[EncodeJob]) -> Result<(), DeviceError> {
        let encodings = self.encodings.take().expect("raw weights are loaded before they are encoded");
        let places = std::mem::take(&mut self.places.plaintexts);
        let encoded = self.encode_plaintexts(&encodings, CudaDevice::targets(&places, jobs));
        (self.encodings, self.places.plaintexts) = (Some(encodings), places);
        Ok(encoded?)
    }

    fn load_keys(&mut self, keys: Arc<KeyStore>) -> Result<(), DeviceError> {
        let limb =
            |limb: &KeyLimb| keys.limb(limb.key as usize, usize::from(limb.digit), limb.half, limb.prime);
        for (index, key) in self.keys.iter().enumerate() {
            let place = self.places.keys.offset(index as u64 * self.limb_bytes);
            self.gpu.write(place, bytemuck::cast_slice(limb(key)))?;
        }
        Ok(())
    }

    fn cuda(&mut self) -> Option<&mut CudaDevice> {
        Some(self)
    }

    fn limb_words(&self) -> usize {
        (self.limb_bytes / 4) as usize
    }

    fn upload(&mut self, to: Address, words: &[u32]) -> Result<(), DeviceError> {
        Ok(self.gpu.write(self.slot(to), bytemuck::cast_slice(words))?)
    }

    fn download(&mut self, from: Address, words: &mut [u32]) -> Result<(), DeviceError> {
        Ok(self.gpu.read(self.slot(from), bytemuck::cast_slice_mut(words))?)
    }

    fn launch(&mut self, run: RunId, bindings: &Bindings) -> Result<(), DeviceError> {
        let table = self.places.table(bindings, self.limb_bytes);
        self.gpu.write(self.table, bytemuck::cast_slice(&table))?;
        let index = run.0 as usize;
        match self.runs[index].graph {
            Some(graph) => self.gpu.replay(graph)?,
            None => self.launch_timed(index, bindings.caller)?,
        }
        self.used.add_run(&self.runs[index].usage, bindings.caller);
        Ok(())
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        Ok(self.gpu.synchronise()?)
    }

    fn threads(&self) -> usize {
        1
    }

    fn pool_bytes(&self) -> u64 {
        self.pool_bytes
    }

    fn room(&mut self, pool: u64, keys: u64, _: u64) -> Option<u64> {
        // One that does not know says 0.
        let (free, _) = self.gpu.memory().ok().filter(|(free, _)| *free > 0)?;
        // A sixteenth for tables, scratch and the functions themselves.
        Some((free - free / 16).saturating_sub(pool).saturating_sub(keys))
    }

    fn take_usage(&mut self) -> UsageTables {
        let stages = self.used.stages();
        std::mem::replace(&mut self.used, UsageTables::new(stages))
    }
}
