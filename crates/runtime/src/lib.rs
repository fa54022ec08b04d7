//! The runtime: a compiled program, evaluation keys and ciphertexts go in, ciphertexts come out. It never sees a
//! secret.
//!
//! A [`Session`] binds an artifact to its keys ([`KeyStore`]) and a [`Device`](device::Device): it encodes the
//! weights, and for each run hands the schedule ([`executor`]) to the device. [`CpuDevice`] computes;
//! [`null`] only counts. Of a program for several devices each has a session of its own: [`ranks`].

pub mod collectives;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod executor;
pub mod key_store;
pub mod memory;
pub mod null;
pub mod profile;
pub mod progress;
pub mod ranks;
mod session;
pub mod suite;
#[cfg(test)]
mod testing;

pub use cpu::CpuDevice;
pub use key_store::{KeyStore, KeyStoreError};
pub use profile::{KernelClass, Profile, Usage};
pub use ranks::{Member, RankFigures, Ranks};
pub use session::{MemoryFigures, Mismatch, Session, SessionError, SessionOptions};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// A pool of `threads` threads (0: one for each core) for the work of preparing a session; `None` if threads
/// cannot be started, in which case the caller's thread does it all.
fn preparation_pool(threads: usize) -> Option<ThreadPool> {
    ThreadPoolBuilder::new().num_threads(threads).build().ok()
}
