//! Limbs go from GPU to GPU by NCCL, which is opened at run time.
//!
//! An exchange is one group of sends and receives, straight from limbs to limbs, on a second stream of the GPU: it begins when
//! what was launched before is done, and runs beside what is launched afterwards. To finish it, the host waits for its end, looking
//! for news of the other ranks meanwhile, which come through [`HostCollectives`] beside NCCL. A rank that fails is named there,
//! and the others abort what NCCL has under way; NCCL itself would wait for ever.
//!
//! **Sums are exact.** NCCL adds 32-bit words and knows no primes. Residues are below 2^30, so that up to four of them add up to
//! less than 2^32 in whatever order: for as many ranks, NCCL adds (`ncclAllReduce`), and a kernel reduces each sum from `[0, 4q)`.
//! More ranks divide the words among themselves as [`HostCollectives`] does: each gets all parts of its share, adds them modulo
//! the primes by the same kernel, and gives the sums to all.
//!
//! One process may hold all ranks, each in a thread with its GPU, or each rank has a process; NCCL refuses two ranks on one GPU.

mod library;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use library::{CommPointer, Config, IN_PROGRESS, SUCCESS, SUM, UINT32, UniqueId};
pub use library::{Nccl, NcclError};

use super::shares::{Segment, segments, share};
use super::{CollectiveError, Collectives, Exchange, HostCollectives, Started, Sum};
use crate::cuda::CudaDevice;
use crate::cuda::Parts;
use crate::cuda::gpu::{BranchMark, GpuAddress, StreamHandle};
use crate::device::{Address, Device};

/// Ranks whose residues NCCL may add: their sum fits a word.
const MOST_SUMMANDS: usize = 4;
/// For so long the end of something is asked for without a pause.
const BUSY: Duration = Duration::from_millis(2);
/// The pauses after that.
const PAUSE: Duration = Duration::from_micros(50);
/// When NCCL fails, for so long a reason is waited for that names a rank.
const HEARSAY: Duration = Duration::from_secs(2);
/// How long to wait for NCCL to end in good order.
const FAREWELL: Duration = Duration::from_secs(10);

/// Collectives of ranks that are GPUs.
pub struct NcclCollectives {
    /// Tells of failures; carries what is not for GPUs.
    side: HostCollectives,
    nccl: Nccl,
    /// The communicator; null when it is no more.
    comm: CommPointer,
    underway: BTreeMap<u64, Underway>,
}

// SAFETY: a communicator may be used by any thread, one at a time.
unsafe impl Send for NcclCollectives {}

/// A collective that is not finished.
struct Underway {
    /// Its end on the second stream; `None` if this rank has no part in it.
    mark: Option<BranchMark>,
    /// Memory for parts of its sums.
    memory: Option<(GpuAddress, u64)>,
}

/// Words on their way.
enum Transfer {
    Send {
        from: GpuAddress,
        words: usize,
        to: usize,
    },
    Receive {
        to: GpuAddress,
        words: usize,
        from: usize,
    },
    /// Sums of words over all ranks, in place.
    Add {
        at: GpuAddress,
        words: usize,
    },
}

/// The GPU of a device.
fn gpu(device: &mut dyn Device) -> Result<&mut CudaDevice, NcclError> {
    let name = device.name();
    device.cuda().ok_or(NcclError::NotGpu { device: name })
}

fn words_at(address: GpuAddress, words: usize) -> GpuAddress {
    address.offset(4 * words as u64)
}

/// The words that are sent and received of sums.
struct SumWords<'a> {
    sums: &'a [Sum],
    limb_words: usize,
    rank: usize,
    size: usize,
}

impl SumWords<'_> {
    fn share(&self, rank: usize) -> impl Iterator<Item = Segment> + use<> {
        segments(share(self.sums.len() * self.limb_words, rank, self.size), self.limb_words)
    }

    fn at(&self, device: &CudaDevice, segment: Segment) -> GpuAddress {
        words_at(device.slot(self.sums[segment.limb].slot), segment.offset)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank, self.size);
        (0..size).filter(move |&other| other != rank)
    }

    /// Words from one part of the share of this rank to the next.
    fn stride(&self) -> usize {
        share(self.sums.len() * self.limb_words, self.rank, self.size).len()
    }

    /// Each rank gives to each other the parts of that one's share. Those of this rank's come into `parts`.
    fn scatter(&self, device: &CudaDevice, parts: GpuAddress) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        for (index, other) in self.others().enumerate() {
            transfers.extend(self.share(other).map(|segment| Transfer::Send {
                from: self.at(device, segment),
                words: segment.words,
                to: other,
            }));
            let part = words_at(parts, index * self.stride());
            transfers.extend(self.share(self.rank).map(|segment| Transfer::Receive {
                to: words_at(part, segment.start),
                words: segment.words,
                from: other,
            }));
        }
        transfers
    }

    /// Each rank gives its share to all others.
    fn gather(&self, device: &CudaDevice) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        for other in self.others() {
            transfers.extend(self.share(self.rank).map(|segment| Transfer::Send {
                from: self.at(device, segment),
                words: segment.words,
                to: other,
            }));
            transfers.extend(self.share(other).map(|segment| Transfer::Receive {
                to: self.at(device, segment),
                words: segment.words,
                from: other,
            }));
        }
        transfers
    }
}

impl NcclCollectives {
    /// Connects the GPUs of ranks that have joined on the way of `side`, which from now on tells of failures and carries
    /// [`gather`](Collectives::gather); returns when all have. `device` is the one that all calls will be given.
    pub fn join(
        mut side: HostCollectives,
        device: &mut dyn Device,
        nccl: Nccl,
    ) -> Result<NcclCollectives, CollectiveError> {
        let id = match (side.rank() == 0).then(|| nccl.unique_id()).transpose() {
            Ok(id) => id.map_or(Vec::new(), |id| id.to_vec()),
            Err(error) => return Err(side.fail(error.into())),
        };
        let id = side.gather(&id)?.swap_remove(0);
        let mut ranks = NcclCollectives { side, nccl, comm: ptr::null_mut(), underway: BTreeMap::new() };
        ranks.guarded(|ranks| {
            // Makes it current, which NCCL takes.
            gpu(device)?.gpu().branch()?;
            ranks.connect(&id)
        })?;
        Ok(ranks)
    }

    fn connect(&mut self, id: &[u8]) -> Result<(), CollectiveError> {
        let doing = "connecting GPUs";
        let id = id.try_into().map_err(|_| NcclError::Call { doing, reason: "rank 0 gave no id".into() })?;
        let (rank, size) = (self.side.rank() as c_int, self.side.size() as c_int);
        let mut config = Config::NON_BLOCKING;
        // SAFETY: pointers are valid during the call; the GPU is current.
        let status =
            unsafe { (self.nccl.functions.init_rank)(&mut self.comm, size, UniqueId(id), rank, &mut config) };
        self.nccl.check(doing, status)?;
        self.settle(doing)
    }

    /// Does something unless the computation has failed; after an error it has, and nothing of NCCL goes on.
    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut NcclCollectives) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        if let Some(failure) = self.side.failure() {
            return Err(failure.clone().into());
        }
        act(self).map_err(|error| {
            // Whoever failed first has a name that NCCL does not know.
            let error = if let CollectiveError::Nccl(_) = error { self.hearsay(error) } else { error };
            let error = self.side.fail(error);
            self.stop();
            error
        })
    }

    /// The error of the side, if it has one soon.
    fn hearsay(&mut self, error: CollectiveError) -> CollectiveError {
        let start = Instant::now();
        while start.elapsed() < HEARSAY {
            if let Err(named) = self.side.listen() {
                return named;
            }
            thread::sleep(PAUSE);
        }
        error
    }

    /// Ends NCCL at once.
    fn stop(&mut self) {
        let comm = std::mem::replace(&mut self.comm, ptr::null_mut());
        if !comm.is_null() {
            // SAFETY: the communicator is used no more. An error would change nothing.
            unsafe { (self.nccl.functions.abort)(comm) };
        }
    }

    /// Waits until something is so, while the computation does not fail; `None` if patience ends before.
    fn wait_until(
        &mut self,
        wait: Duration,
        mut is_so: impl FnMut(&mut NcclCollectives) -> Result<bool, CollectiveError>,
    ) -> Result<Option<()>, CollectiveError> {
        let start = Instant::now();
        loop {
            self.side.listen()?;
            if is_so(self)? {
                return Ok(Some(()));
            }
            match start.elapsed() {
                elapsed if elapsed > wait => return Ok(None),
                elapsed if elapsed > BUSY => thread::sleep(PAUSE),
                _ => thread::yield_now(),
            }
        }
    }

    /// Waits until a call of NCCL that goes on has done its work.
    fn settle(&mut self, doing: &'static str) -> Result<(), CollectiveError> {
        let wait = self.side.patience().wait;
        let settled = self.wait_until(wait, |ranks| Ok(!ranks.goes_on(doing)?))?;
        let reason = || format!("it was not done within {} s", wait.as_secs_f32());
        settled.ok_or_else(|| NcclError::Call { doing, reason: reason() }.into())
    }

    /// Puts transfers on the second stream, all at once.
    fn put(&mut self, device: &mut CudaDevice, transfers: &[Transfer]) -> Result<(), CollectiveError> {
        let doing = "moving limbs";
        let stream = device.gpu().branch()?;
        // SAFETY: belongs to the call that ends the group.
        self.nccl.check(doing, unsafe { (self.nccl.functions.group_start)() })?;
        let put = transfers.iter().try_for_each(|transfer| self.put_one(transfer, stream));
        // SAFETY: a group was begun.
        let ended = self.nccl.check(doing, unsafe { (self.nccl.functions.group_end)() });
        put.and(ended)?;
        self.settle(doing)
    }

    fn put_one(&self, transfer: &Transfer, stream: StreamHandle) -> Result<(), NcclError> {
        let pointer = |address: GpuAddress| ptr::with_exposed_provenance_mut::<c_void>(address.0 as usize);
        let (comm, stream) = (self.comm, ptr::with_exposed_provenance_mut::<c_void>(stream.0));
        let functions = &self.nccl.functions;
        // SAFETY: communicator and stream live; addresses are those of words of the device, which nobody else changes before the
        // transfer is done, as `Collectives` demands.
        let status = unsafe {
            match *transfer {
                Transfer::Send { from, words, to } => {
                    (functions.send)(pointer(from), words, UINT32, to as c_int, comm, stream)
                }
                Transfer::Receive { to, words, from } => {
                    (functions.recv)(pointer(to), words, UINT32, from as c_int, comm, stream)
                }
                Transfer::Add { at, words } => {
                    (functions.all_reduce)(pointer(at), pointer(at), words, UINT32, SUM, comm, stream)
                }
            }
        };
        self.nccl.check("moving limbs", status)
    }

    /// The state of what NCCL does: does it go on?
    fn goes_on(&self, doing: &'static str) -> Result<bool, NcclError> {
        let mut state = SUCCESS;
        // SAFETY: the communicator lives, the pointer is valid.
        let status = unsafe { (self.nccl.functions.async_error)(self.comm, &mut state) };
        self.nccl.check(doing, status)?;
        self.nccl.check(doing, state)?;
        Ok(state == IN_PROGRESS)
    }

    fn start_exchange(
        &mut self,
        exchange: &Exchange,
        device: &mut dyn Device,
    ) -> Result<u64, CollectiveError> {
        let device = gpu(device)?;
        let collective = self.side.announce_exchange(exchange)?;
        let words = device.limb_words();
        let send = |&(to, slot): &(usize, Address)| Transfer::Send { from: device.slot(slot), words, to };
        let receive =
            |&(from, slot): &(usize, Address)| Transfer::Receive { to: device.slot(slot), words, from };
        let transfers: Vec<Transfer> =
            exchange.sends.iter().map(send).chain(exchange.receives.iter().map(receive)).collect();
        let mut mark = None;
        if !transfers.is_empty() {
            self.put(device, &transfers)?;
            mark = Some(device.gpu().mark_branch()?);
        }
        self.underway.insert(collective, Underway { mark, memory: None });
        Ok(collective)
    }

    /// Puts all of it on the second stream: collectives are in the same order there on all ranks, whenever they are finished.
    fn start_addition(&mut self, sums: &[Sum], device: &mut dyn Device) -> Result<u64, CollectiveError> {
        let device = gpu(device)?;
        let collective = self.side.announce_sums(sums)?;
        let (limb_words, rank, size) = (device.limb_words(), self.side.rank(), self.side.size());
        device.sum_function()?;
        let mut memory = None;
        if size <= MOST_SUMMANDS {
            let add = |sum: &Sum| Transfer::Add { at: device.slot(sum.slot), words: limb_words };
            let transfers: Vec<Transfer> = sums.iter().map(add).collect();
            self.put(device, &transfers)?;
            for sum in sums {
                let limb = device.slot(sum.slot);
                device.add_parts(
                    limb,
                    Parts { start: limb, count: 0, stride: 0 },
                    limb_words as u32,
                    sum.q,
                )?;
            }
        } else {
            let words = SumWords { sums, limb_words, rank, size };
            let parts = device.lend(4 * ((size - 1) * words.stride()) as u64)?;
            memory = Some(parts);
            self.put(device, &words.scatter(device, parts.0))?;
            for segment in words.share(rank) {
                let start = words_at(parts.0, segment.start);
                let parts = Parts { start, count: size as u32 - 1, stride: words.stride() as u32 };
                let at = words.at(device, segment);
                device.add_parts(at, parts, segment.words as u32, sums[segment.limb].q)?;
            }
            self.put(device, &words.gather(device))?;
        }
        let mark = Some(device.gpu().mark_branch()?);
        self.underway.insert(collective, Underway { mark, memory });
        Ok(collective)
    }

    fn finish_underway(&mut self, collective: u64, device: &mut dyn Device) -> Result<(), CollectiveError> {
        let device = gpu(device)?;
        let Some(Underway { mark, memory }) = self.underway.remove(&collective) else {
            panic!("collective {collective} was not started");
        };
        if let Some(mark) = mark {
            self.wait_for(collective, mark, device)?;
        }
        if let Some(memory) = memory {
            device.give_back(memory);
        }
        self.side.retire(collective);
        Ok(())
    }

    /// Waits for the end of a collective.
    fn wait_for(
        &mut self,
        collective: u64,
        mark: BranchMark,
        device: &mut CudaDevice,
    ) -> Result<(), CollectiveError> {
        let (wait, doing) = (self.side.patience().wait, "moving limbs");
        let passed = self.wait_until(wait, |ranks| {
            ranks.goes_on(doing)?;
            Ok(device.gpu().is_passed(mark)?)
        })?;
        passed.ok_or_else(|| match self.side.absent(collective) {
            Some(rank) => {
                let what = format!("its part of collective {collective}");
                CollectiveError::Timeout { rank, what, waited: wait, behind: None }
            }
            None => {
                let reason = format!(
                    "collective {collective} is not done within {} s, though all ranks have started it",
                    wait.as_secs_f32()
                );
                NcclError::Call { doing, reason }.into()
            }
        })
    }
}

impl Collectives for NcclCollectives {
    fn rank(&self) -> usize {
        self.side.rank()
    }

    fn size(&self) -> usize {
        self.side.size()
    }

    fn start(&mut self, exchange: &Exchange, device: &mut dyn Device) -> Result<Started, CollectiveError> {
        self.guarded(|ranks| ranks.start_exchange(exchange, device)).map(Started)
    }

    fn start_sums(&mut self, sums: &[Sum], device: &mut dyn Device) -> Result<Started, CollectiveError> {
        self.guarded(|ranks| ranks.start_addition(sums, device)).map(Started)
    }

    fn finish(&mut self, started: Started, device: &mut dyn Device) -> Result<(), CollectiveError> {
        self.guarded(|ranks| ranks.finish_underway(started.0, device))
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.guarded(|ranks| ranks.side.gather(bytes))
    }

    fn abort(&mut self, reason: &str) {
        self.side.abort(reason);
        self.stop();
    }
}

impl Drop for NcclCollectives {
    fn drop(&mut self) {
        if self.comm.is_null() {
            return;
        }
        let in_order = self.side.failure().is_none() && self.underway.is_empty() && !thread::panicking();
        // SAFETY: the communicator lives.
        let ending =
            in_order && matches!(unsafe { (self.nccl.functions.finalize)(self.comm) }, SUCCESS | IN_PROGRESS);
        let start = Instant::now();
        let mut goes_on = ending;
        while goes_on && start.elapsed() < FAREWELL {
            thread::sleep(PAUSE);
            goes_on = self.goes_on("ending").unwrap_or(true);
        }
        if ending && !goes_on {
            let comm = std::mem::replace(&mut self.comm, ptr::null_mut());
            // SAFETY: the communicator has ended, and is used no more.
            unsafe { (self.nccl.functions.destroy)(comm) };
        }
        self.stop();
    }
}
