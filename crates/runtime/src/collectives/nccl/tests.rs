//! NCCL's part played by this program, and that of the GPUs by the host: what is asked of NCCL moves the right words and gives
//! exact sums. Whether NCCL does what it is asked for only GPUs can tell.

use std::collections::{HashMap, VecDeque};
use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::{ptr, slice, thread};

use rand_core::RngCore;

use super::library::{CommPointer, Config, Functions, SUCCESS, SUM, UINT32, UniqueId};
use super::*;
use crate::CpuDevice;
use crate::collectives::Patience;
use crate::collectives::threads::threads;
use crate::cuda::host::{HostGpu, Order};
use crate::suite::collectives::{play, prepare};
use crate::testing::fresh_rng;

const PATIENCE: Patience = Patience { wait: Duration::from_secs(60), silence: Duration::from_secs(60) };
/// `ncclTimeout`
const TIMEOUT: c_int = 8;

/// Words on their way, by sender and receiver.
type Mail = HashMap<(usize, usize), VecDeque<Vec<u32>>>;

/// Ranks that are connected: what one has sent to another and that one has not received.
#[derive(Default)]
struct Clique {
    mail: Mutex<Mail>,
    sent: Condvar,
}

/// A communicator.
struct Communicator {
    clique: Arc<Clique>,
    rank: usize,
    size: usize,
    /// What the group is to do.
    group: Vec<Asked>,
}

enum Asked {
    Send { from: *const u32, words: usize, to: usize },
    Receive { to: *mut u32, words: usize, from: usize },
    Add { from: *const u32, to: *mut u32, words: usize },
}

static CLIQUES: LazyLock<Mutex<HashMap<[u8; 128], Arc<Clique>>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The communicator whose group is open: threads are ranks here.
    static OPEN: std::cell::Cell<*mut Communicator> = const { std::cell::Cell::new(ptr::null_mut()) };
}

impl Clique {
    fn send(&self, from: usize, to: usize, words: Vec<u32>) {
        self.mail.lock().unwrap().entry((from, to)).or_default().push_back(words);
        self.sent.notify_all();
    }

    fn receive(&self, from: usize, to: usize) -> Option<Vec<u32>> {
        let is_empty = |mail: &mut Mail| mail.get(&(from, to)).is_none_or(VecDeque::is_empty);
        let mail = self.mail.lock().unwrap();
        let (mut mail, waited) = self.sent.wait_timeout_while(mail, PATIENCE.wait, is_empty).unwrap();
        if waited.timed_out() { None } else { mail.get_mut(&(from, to))?.pop_front() }
    }
}

impl Communicator {
    /// Does what was asked for; gives nothing back before it is done, as a stream would do it later.
    fn carry_out(&mut self) -> Option<()> {
        let group = std::mem::take(&mut self.group);
        let others = (0..self.size).filter(|&other| other != self.rank);
        for asked in &group {
            match *asked {
                Asked::Send { from, words, to } => {
                    // SAFETY: the addresses are those of words of a device of this thread.
                    let words = unsafe { slice::from_raw_parts(from, words) }.to_vec();
                    self.clique.send(self.rank, to, words);
                }
                Asked::Add { from, words, .. } => {
                    // SAFETY: as above.
                    let words = unsafe { slice::from_raw_parts(from, words) }.to_vec();
                    others.clone().for_each(|to| self.clique.send(self.rank, to, words.clone()));
                }
                Asked::Receive { .. } => {}
            }
        }
        for asked in group {
            match asked {
                Asked::Send { .. } => {}
                Asked::Receive { to, words, from } => {
                    let received = self.clique.receive(from, self.rank)?;
                    assert_eq!(received.len(), words, "from rank {from} to rank {}", self.rank);
                    // SAFETY: as above.
                    unsafe { slice::from_raw_parts_mut(to, words) }.copy_from_slice(&received);
                }
                Asked::Add { from, to, words } => {
                    // SAFETY: as above.
                    let mut sums = unsafe { slice::from_raw_parts(from, words) }.to_vec();
                    for other in others.clone() {
                        let received = self.clique.receive(other, self.rank)?;
                        sums.iter_mut().zip(&received).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
                    }
                    // SAFETY: as above.
                    unsafe { slice::from_raw_parts_mut(to, words) }.copy_from_slice(&sums);
                }
            }
        }
        Some(())
    }
}

unsafe extern "C" fn get_version(version: *mut c_int) -> c_int {
    // SAFETY: the caller gives a valid pointer, here and below.
    unsafe { *version = 22_000 };
    SUCCESS
}

unsafe extern "C" fn get_unique_id(id: *mut UniqueId) -> c_int {
    let mut bytes = [0; 128];
    bytes[..8].copy_from_slice(&getrandom::u64().unwrap().to_le_bytes());
    // SAFETY: as above.
    unsafe { *id = UniqueId(bytes) };
    SUCCESS
}

unsafe extern "C" fn init_rank(
    comm: *mut CommPointer,
    size: c_int,
    id: UniqueId,
    rank: c_int,
    _: *mut Config,
) -> c_int {
    let clique = CLIQUES.lock().unwrap().entry(id.0).or_default().clone();
    let made = Communicator { clique, rank: rank as usize, size: size as usize, group: Vec::new() };
    // SAFETY: as above.
    unsafe { *comm = Box::into_raw(Box::new(made)).cast() };
    SUCCESS
}

unsafe extern "C" fn group_start() -> c_int {
    OPEN.set(ptr::null_mut());
    SUCCESS
}

unsafe extern "C" fn group_end() -> c_int {
    // SAFETY: the communicator was asked for something since the group began.
    match unsafe { OPEN.get().as_mut() }.map(Communicator::carry_out) {
        None | Some(Some(())) => SUCCESS,
        Some(None) => TIMEOUT,
    }
}

/// Adds to the open group.
fn ask(comm: CommPointer, kind: c_int, asked: Asked) -> c_int {
    assert_eq!(kind, UINT32);
    OPEN.set(comm.cast());
    // SAFETY: the communicator was made by `init_rank`.
    unsafe { (*comm.cast::<Communicator>()).group.push(asked) };
    SUCCESS
}

unsafe extern "C" fn send(
    from: *const c_void,
    words: usize,
    kind: c_int,
    to: c_int,
    comm: CommPointer,
    _: *mut c_void,
) -> c_int {
    ask(comm, kind, Asked::Send { from: from.cast(), words, to: to as usize })
}

unsafe extern "C" fn recv(
    to: *mut c_void,
    words: usize,
    kind: c_int,
    from: c_int,
    comm: CommPointer,
    _: *mut c_void,
) -> c_int {
    ask(comm, kind, Asked::Receive { to: to.cast(), words, from: from as usize })
}

unsafe extern "C" fn all_reduce(
    from: *const c_void,
    to: *mut c_void,
    words: usize,
    kind: c_int,
    operation: c_int,
    comm: CommPointer,
    _: *mut c_void,
) -> c_int {
    assert_eq!(operation, SUM);
    ask(comm, kind, Asked::Add { from: from.cast(), to: to.cast(), words })
}

unsafe extern "C" fn async_error(_: CommPointer, state: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { *state = SUCCESS };
    SUCCESS
}

unsafe extern "C" fn finalize(_: CommPointer) -> c_int {
    SUCCESS
}

unsafe extern "C" fn destroy(comm: CommPointer) -> c_int {
    // SAFETY: it was made by `init_rank`, and ends once.
    drop(unsafe { Box::from_raw(comm.cast::<Communicator>()) });
    SUCCESS
}

unsafe extern "C" fn error_string(_: c_int) -> *const c_char {
    c"the reason".as_ptr()
}

unsafe extern "C" fn last_error(_: CommPointer) -> *const c_char {
    ptr::null()
}

/// NCCL as this program plays it.
fn nccl() -> Nccl {
    let functions = Functions {
        get_version,
        get_unique_id,
        init_rank,
        group_start,
        group_end,
        send,
        recv,
        all_reduce,
        async_error,
        abort: destroy,
        finalize,
        destroy,
        error_string,
        last_error,
    };
    Nccl::with(functions, PathBuf::new(), None).unwrap()
}

/// Runs something as every rank, each a thread with a GPU whose limbs have 2^`log_n` words; skipped without a C++ compiler.
fn on_all<T: Send>(
    size: usize,
    log_n: u8,
    act: impl Fn(NcclCollectives, CudaDevice) -> T + Sync,
) -> Vec<Option<T>> {
    let act = &act;
    thread::scope(|scope| {
        let ranks = threads(size, PATIENCE).into_iter().filter_map(|side| {
            let host = HostGpu::new(Order::Ascending)?;
            Some(scope.spawn(move || {
                let mut device = CudaDevice::on(Box::new(host), false);
                let ranks = NcclCollectives::join(side, &mut device, nccl()).unwrap();
                prepare(&mut device, log_n).unwrap();
                act(ranks, device)
            }))
        });
        let ranks: Vec<_> = ranks.collect();
        if ranks.is_empty() {
            println!("skipped: there is no C++ compiler");
        }
        ranks.into_iter().map(|rank| rank.join().ok()).collect()
    })
}

#[test]
fn random_scripts_do_what_they_must() {
    let mut rng = fresh_rng();
    // Sums are NCCL's up to four ranks.
    for size in [1, 2, 3, 4, 5, 8] {
        let seed = rng.next_u64();
        let done = on_all(size, 6, |mut ranks, mut device| play(&mut ranks, &mut device, seed, 150));
        assert!(done.iter().all(Option::is_some), "{size} ranks");
    }
}

#[test]
fn a_rank_that_gives_up_is_named() {
    let errors = on_all(3, 4, |mut ranks, mut device| {
        ranks.gather(&[]).unwrap();
        if ranks.rank() == 1 {
            ranks.abort("its keys are others");
        }
        // Nobody started anything that the others would wait for within NCCL.
        let error = ranks.gather(&[]).unwrap_err().to_string();
        assert_eq!(ranks.start(&Exchange::default(), &mut device).unwrap_err().to_string(), error);
        error
    });
    assert!(errors.iter().flatten().all(|error| error == "rank 1 gave up: its keys are others"));
}

#[test]
fn ranks_out_of_step_are_named() {
    let errors = on_all(2, 4, |mut ranks, mut device| {
        let started = if ranks.rank() == 0 {
            let sum = Sum { slot: Address(0), q: 65_537 };
            ranks.start_sums(&[sum], &mut device)
        } else {
            let exchange = Exchange { sends: vec![(0, Address(0))], receives: vec![(0, Address(1))] };
            ranks.start(&exchange, &mut device)
        };
        let finished = started.and_then(|started| ranks.finish(started, &mut device));
        finished.and_then(|()| ranks.gather(&[])).unwrap_err().to_string()
    });
    // One of them notices, the other may hear of it before it notices.
    assert!(errors.iter().flatten().all(|error| error.contains("is out of step: it sent")), "{errors:?}");
}

#[test]
fn other_devices_are_refused_on_all_ranks() {
    let errors: Vec<String> = thread::scope(|scope| {
        let ranks = threads(2, PATIENCE).into_iter().map(|side| {
            scope.spawn(move || {
                let mut device = CpuDevice::new(1).unwrap();
                NcclCollectives::join(side, &mut device, nccl()).map(drop).unwrap_err().to_string()
            })
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert!(errors.iter().all(|error| error.contains("NCCL moves limbs from GPU to GPU")), "{errors:?}");
}
