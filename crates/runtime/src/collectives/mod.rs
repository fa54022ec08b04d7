//! Collectives: what the ranks of one computation give to each other.
//!
//! A program for D devices runs as D *ranks*, each with a device of its own, numbered from 0. All ranks start the same
//! collectives in the same order. [`Collectives`] is what a session asks for; behind it are
//!
//! - [`HostCollectives`]: limbs go through the memory of the hosts. Messages are carried between [`threads`] of one process, or
//!   between processes by [`mpi`] or [`tcp`]. [`Launch`] says which rank a process is, and joins the others;
//! - [`NcclCollectives`](nccl::NcclCollectives): limbs go from GPU to GPU. Ranks know of each other's failures through a
//!   [`HostCollectives`] beside it. [`connect`] takes NCCL where all ranks can.
//!
//! No wait is endless: a rank that is lost or gives up is named on all others, at once where the carrier notices it (an end
//! of file, a thread that panics), and after [`Patience`] where it does not. After a failure every call returns it again.

mod error;
mod host;
mod launch;
pub mod mpi;
pub mod nccl;
mod news;
mod shares;
pub mod tcp;
pub mod threads;
mod transport;
mod wire;

use std::time::Duration;

pub use error::CollectiveError;
pub use host::HostCollectives;
pub use launch::{Launch, LaunchError, Launcher};
pub use news::{Failure, FailureKind};
pub use transport::{Transport, connect};

use crate::device::{Address, Device};

/// Limbs that this rank gives to others and gets from them in one step. Between two ranks the k-th limb that one gives is the
/// k-th that the other gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Limbs for other ranks: who gets it, and the slot where it is. A limb may go to several ranks.
    pub sends: Vec<(usize, Address)>,
    /// Limbs from other ranks: who gives it, and the slot that takes it.
    pub receives: Vec<(usize, Address)>,
}

/// A limb of which every rank holds a part, in `[0, q)`; the sum of the parts modulo q takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The slot.
    pub slot: Address,
    /// The prime, below 2^30.
    pub q: u32,
}

/// A collective that was started and must be finished. The same number on all ranks.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use = "what a collective receives is in its slots when it is finished"]
pub struct Started(u64);

/// How long to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A rank that is alive and does not send what is waited for counts as failed after this long. Longer than the longest
    /// computation between two collectives.
    pub wait: Duration,
    /// A rank of which nothing at all is heard for this long counts as lost. Carriers between processes send a sign of life
    /// several times in it.
    pub silence: Duration,
}

impl Default for Patience {
    /// Ten minutes of waiting, half a minute of silence.
    fn default() -> Patience {
        Patience { wait: Duration::from_secs(600), silence: Duration::from_secs(30) }
    }
}

/// What a rank asks of the others. Errors name the rank that failed.
///
/// A dropped rank tells the others that it has ended; if its thread panics, that it gave up. A process waits then for the others
/// to end too, unless the computation has failed.
pub trait Collectives: Send {
    /// This rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Starts an exchange: gives what the slots to send hold after everything launched on `device` so far, and waits for
    /// nobody. Until the exchange is finished, slots that receive are neither read nor written, and slots that send are not
    /// written: a GPU gives them straight from its memory. No slot does both.
    ///
    /// # Panics
    /// If a peer is this rank or no rank.
    fn start(&mut self, exchange: &Exchange, device: &mut dyn Device) -> Result<Started, CollectiveError>;

    /// Starts sums over all ranks. Until they are finished, the slots are neither read nor written.
    fn start_sums(&mut self, sums: &[Sum], device: &mut dyn Device) -> Result<Started, CollectiveError>;

    /// Waits until whatever is launched on `device` afterwards finds what the collective receives in its slots, in canonical
    /// words. Collectives that were started before others may be finished after them, in the same order on all ranks.
    fn finish(&mut self, started: Started, device: &mut dyn Device) -> Result<(), CollectiveError>;

    /// Gives bytes to all ranks and waits for those of all, in the order of ranks: what ranks agree on, keys, outputs.
    fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Tells all others that this rank gives up, and why, as in "rank 2 gave up: {reason}". Does nothing after a failure.
    fn abort(&mut self, reason: &str);
}
