//! The CPU device: kernels run on this machine's vector units, blocks side by side on its cores.
//!
//! A run is prepared once into tasks, one a block (a base conversion is split by targets), in an order that keeps
//! limbs in cache ([`order`]). Threads take the first task of that order whose predecessors are done; with one
//! thread there is nothing to wait for. Words are computed from words by exact
//! arithmetic, so neither order, threads nor instruction set change a bit.

mod encode;
pub mod kernels;
mod order;
mod prepare;
mod program;
mod work;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::params::Params;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::device::{Address, Bindings, Device, DeviceError, EncodeJob, Run, RunId};
use crate::key_store::KeyStore;
use crate::memory::{OnTheWay, Pages, PlaintextEncoder, Plaintexts, Pool, Residency};
use crate::profile::{Usage, UsageTables};
use prepare::{PreparedRun, Preparer, ScratchWords};
use program::TileScratch;
use work::{Memory, Scratch};

/// The CPU as a device.
pub struct CpuDevice {
    isa: Isa,
    /// `None` for one thread, which is the caller's.
    workers: Option<ThreadPool>,
    /// One for each thread.
    scratch: Vec<Mutex<Scratch>>,
    params: Option<Params>,
    runs: Vec<PreparedRun>,
    /// The run whose tasks are counted in `done`, and how far they are.
    progress: Progress,
    pool: Pool,
    plaintexts: Plaintexts,
    /// For plaintexts that are not resident.
    encoder: Option<Arc<PlaintextEncoder>>,
    keys: Arc<KeyStore>,
    used: UsageTables,
}

impl CpuDevice {
    /// A device of `threads` threads (0: one for each core) on the best instruction set of this machine.
    pub fn new(threads: usize) -> Result<CpuDevice, DeviceError> {
        CpuDevice::with_isa(threads, Isa::detect())
    }

    /// A device on a given instruction set.
    pub fn with_isa(threads: usize, isa: Isa) -> Result<CpuDevice, DeviceError> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            threads => threads,
        };
        let workers =
            (threads > 1).then(|| ThreadPoolBuilder::new().num_threads(threads).build()).transpose();
        let workers = workers
            .map_err(|e| DeviceError::Threads { device: name(isa, threads), reason: e.to_string() })?;
        Ok(CpuDevice {
            isa,
            workers,
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
            params: None,
            runs: Vec::new(),
            progress: Progress::default(),
            pool: Pool::new(0, 0).map_err(|_| out_of_memory(isa, threads, 0))?,
            plaintexts: Plaintexts::default(),
            encoder: None,
            keys: Arc::default(),
            used: UsageTables::default(),
        })
    }
}

fn name(isa: Isa, threads: usize) -> String {
    format!("cpu ({threads} thread{}, {isa})", if threads == 1 { "" } else { "s" })
}

fn out_of_memory(isa: Isa, threads: usize, bytes: u64) -> DeviceError {
    DeviceError::OutOfMemory { device: name(isa, threads), bytes, what: "the working memory of the program" }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        name(self.isa, self.threads())
    }

    fn prepare(
        &mut self,
        params: &Params,
        runs: &[Run<'_>],
        limbs: u64,
        stages: usize,
    ) -> Result<(), DeviceError> {
        let bytes = limbs.saturating_mul(4 * params.n() as u64);
        self.pool =
            Pool::new(limbs, params.n()).map_err(|_| out_of_memory(self.isa, self.threads(), bytes))?;
        let mut preparer = Preparer::new(params, self.threads());
        self.runs = runs.iter().map(|run| preparer.prepare(run, stages)).collect();
        let threads = self.threads();
        let scratch = self.runs.iter().map(|run| run.scratch);
        let scratch = scratch.fold(ScratchWords::default(), ScratchWords::max);
        let bytes = scratch.bytes();
        let out_of_memory = |_| out_of_memory(self.isa, threads, bytes);
        for own in &mut self.scratch {
            *own.get_mut().unwrap_or_else(PoisonError::into_inner) = Scratch {
                tiles: TileScratch::new(scratch.tiles, scratch.limbs).map_err(out_of_memory)?,
                converted: Pages::new(scratch.converted).map_err(out_of_memory)?,
                plaintexts: Pages::new(scratch.plaintexts).map_err(out_of_memory)?,
                used: UsageTables::new(stages),
            };
        }
        let tasks = self.runs.iter().map(|run| run.tasks.len()).max().unwrap_or(0);
        self.progress = Progress::new(tasks);
        let primes: Vec<PrimeIndex> = Preparer::transformed(runs).iter().collect();
        let table = |&prime: &PrimeIndex| {
            params.ntt(prime);
        };
        match &self.workers {
            Some(workers) => workers.install(|| primes.par_iter().for_each(table)),
            None => primes.iter().for_each(table),
        }
        self.params = Some(params.clone());
        self.used = UsageTables::new(stages);
        Ok(())
    }

    fn load_plaintexts(&mut self, plaintexts: Plaintexts) -> Result<(), DeviceError> {
        self.plaintexts = plaintexts;
        Ok(())
    }

    fn on_the_way(&self) -> OnTheWay {
        OnTheWay::Integers
    }

    fn load_weights(&mut self, encoder: Arc<PlaintextEncoder>, _: &Residency) -> Result<(), DeviceError> {
        self.encoder = Some(encoder);
        Ok(())
    }

    fn encode(&mut self, jobs: &[EncodeJob]) -> Result<(), DeviceError> {
        self.encode_plaintexts(jobs);
        Ok(())
    }

    fn load_keys(&mut self, keys: Arc<KeyStore>) -> Result<(), DeviceError> {
        self.keys = keys;
        Ok(())
    }

    fn limb_words(&self) -> usize {
        self.pool.limb_words()
    }

    fn upload(&mut self, to: Address, words: &[u32]) -> Result<(), DeviceError> {
        self.pool.words_mut(to).copy_from_slice(words);
        Ok(())
    }

    fn download(&mut self, from: Address, words: &mut [u32]) -> Result<(), DeviceError> {
        words.copy_from_slice(self.pool.words_mut(from));
        Ok(())
    }

    fn launch(&mut self, run: RunId, bindings: &Bindings) -> Result<(), DeviceError> {
        let run = &self.runs[run.0 as usize];
        let params = self.params.as_ref().expect("prepare comes before launch");
        let memory = Memory {
            isa: self.isa,
            params,
            pool: &self.pool,
            plaintexts: &self.plaintexts,
            keys: &self.keys,
            bindings,
        };
        self.used.add_run(&run.cost, bindings.caller);
        match &self.workers {
            Some(workers) if run.tasks.len() > 1 => {
                self.progress.start(run);
                let (progress, scratch) = (&self.progress, &self.scratch);
                workers.broadcast(|context| {
                    let mut own = scratch[context.index()].lock().unwrap_or_else(PoisonError::into_inner);
                    work_side_by_side(run, &memory, &mut own, progress);
                });
            }
            _ => {
                let own = self.scratch[0].get_mut().unwrap_or_else(PoisonError::into_inner);
                for position in 0..run.tasks.len() {
                    // SAFETY: this thread executes all tasks, one after the other in an order that respects
                    // their dependencies.
                    unsafe { execute(run, position, &memory, own) }
                }
            }
        }
        Ok(())
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn threads(&self) -> usize {
        self.scratch.len()
    }

    fn pool_bytes(&self) -> u64 {
        self.pool.bytes()
    }

    /// Keys are in this memory already.
    fn room(&mut self, pool: u64, _keys: u64, neighbours: u64) -> Option<u64> {
        Some((encode::available_memory()? / (1 + neighbours)).saturating_sub(pool))
    }

    fn take_usage(&mut self) -> UsageTables {
        let stages = self.used.stages();
        let mut used = std::mem::replace(&mut self.used, UsageTables::new(stages));
        for own in &mut self.scratch {
            let own = own.get_mut().unwrap_or_else(PoisonError::into_inner);
            used += &own.used;
            own.used = UsageTables::new(stages);
        }
        used
    }
}

/// How far the threads are with the tasks of a launch.
#[derive(Debug, Default)]
struct Progress {
    /// Positions of tasks that wait for nothing and that nobody has taken; the first in order comes first, which
    /// finishes what is in cache before anything new is begun.
    ready: Mutex<BinaryHeap<Reverse<u32>>>,
    /// For each task the predecessors that are not done.
    waiting: Vec<AtomicU32>,
    /// Tasks that are not done.
    unfinished: AtomicUsize,
    /// A thread panicked; its task will never be done.
    failed: AtomicBool,
}

impl Progress {
    fn new(tasks: usize) -> Progress {
        Progress { waiting: (0..tasks).map(|_| AtomicU32::new(0)).collect(), ..Progress::default() }
    }

    fn start(&mut self, run: &PreparedRun) {
        let ready = self.ready.get_mut().unwrap_or_else(PoisonError::into_inner);
        ready.clear();
        for (position, waiting) in self.waiting.iter_mut().enumerate().take(run.tasks.len()) {
            let predecessors = run.tasks.predecessors(position).len() as u32;
            *waiting.get_mut() = predecessors;
            if predecessors == 0 {
                ready.push(Reverse(position as u32));
            }
        }
        *self.unfinished.get_mut() = run.tasks.len();
        *self.failed.get_mut() = false;
    }

    /// The next task, as soon as there is one; `None` if all are done or one never will be.
    fn take(&self) -> Option<usize> {
        let mut patience = 0;
        loop {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Some(Reverse(position)) = next {
                return Some(position as usize);
            }
            if self.unfinished.load(Ordering::Acquire) == 0 || self.failed.load(Ordering::Relaxed) {
                return None;
            }
            // The other threads are in the middle of some tens of microseconds of work, unless they were put to sleep.
            patience += 1;
            for _ in 0..64 {
                std::hint::spin_loop();
            }
            if patience > 32 {
                std::thread::yield_now();
            }
        }
    }

    /// A task is done: its successors wait for one less. What the task wrote is seen by them: the last of their
    /// predecessors to finish has seen the others' decrements, and hands them over under the lock.
    fn finish(&self, run: &PreparedRun, position: usize) {
        let successors = run.tasks.successors(position).iter();
        let mut enabled =
            successors.filter(|&&s| self.waiting[s as usize].fetch_sub(1, Ordering::AcqRel) == 1);
        if let Some(&first) = enabled.next() {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.push(Reverse(first));
            ready.extend(enabled.map(|&position| Reverse(position)));
        }
        self.unfinished.fetch_sub(1, Ordering::Release);
    }
}

/// Takes tasks until there are none.
fn work_side_by_side(run: &PreparedRun, memory: &Memory<'_>, own: &mut Scratch, progress: &Progress) {
    struct Failed<'a>(&'a AtomicBool);
    impl Drop for Failed<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.store(true, Ordering::Relaxed);
            }
        }
    }
    let _guard = Failed(&progress.failed);
    while let Some(position) = progress.take() {
        // SAFETY: every task is taken by one thread, and all that must precede it are done.
        unsafe { execute(run, position, memory, own) }
        progress.finish(run, position);
    }
}

/// Executes and times one task.
///
/// # Safety
/// The predecessors of the task are done, and no task that waits for it has begun.
unsafe fn execute(run: &PreparedRun, position: usize, memory: &Memory<'_>, own: &mut Scratch) {
    let task = run.tasks.task(position);
    let start = Instant::now();
    // SAFETY: passed on from the caller.
    unsafe { work::execute(&task.work, memory, own) }
    let usage = Usage { busy: start.elapsed(), ..Usage::default() };
    own.used.add(task.stage, task.class, memory.bindings.caller, usage);
}
