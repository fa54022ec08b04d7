//! Ranks: the sessions that run one program together, each on a device of its own.
//!
//! A program that was compiled for D devices runs in D sessions. Each [joins](crate::Session::join) with its own device and keys
//! and with the [`Collectives`] through which it reaches the others; in another process it is on its own, and [`Ranks`] are
//! all of them as threads of one. All ranks begin a run together: rank 0 has the inputs and gives them to the others, each takes
//! in the limbs of the primes that are at home on its device, and rank 0 puts the outputs together.
//!
//! A rank that fails tells the others why before it ends, so that all of them do.

mod agreement;

use std::panic;
use std::thread;

use cerium_artifact::Artifact;
use cerium_ckks::ciphertext::Ciphertext;

pub use agreement::Common;
pub(crate) use agreement::agree;

use crate::collectives::{CollectiveError, Collectives};
use crate::device::Device;
use crate::key_store::KeyStore;
use crate::profile::Profile;
use crate::progress::{Progress, silent};
use crate::session::{MemoryFigures, Session, SessionError, SessionOptions};

/// What a session of several brings.
pub struct Member {
    /// The keys that its part of the program reads.
    pub keys: KeyStore,
    /// Where it computes.
    pub device: Box<dyn Device>,
    /// The way to the others.
    pub collectives: Box<dyn Collectives>,
}

/// All ranks of a program, as threads of this process.
pub struct Ranks {
    sessions: Vec<Session>,
}

impl Ranks {
    /// Opens a session for each member, in the order of their ranks, side by side. Progress is that of rank 0.
    ///
    /// # Errors
    /// That of the rank that failed; the others end as well.
    pub fn open(
        artifact: &Artifact,
        members: Vec<Member>,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Ranks, SessionError> {
        let sessions = thread::scope(|scope| {
            let open = |(rank, member)| {
                let progress: Progress<'_> = if rank == 0 { progress } else { &silent };
                scope.spawn(move || Session::join(artifact, member, options, progress))
            };
            join(members.into_iter().enumerate().map(open).collect())
        });
        Ok(Ranks { sessions: first_cause(sessions)? })
    }

    /// Runs the program: the outputs, and the profile of each rank.
    ///
    /// # Errors
    /// Inputs that do not fit leave the ranks as they were. After any other error they cannot run again.
    pub fn run(&mut self, inputs: &[Ciphertext]) -> Result<(Vec<Ciphertext>, Vec<Profile>), SessionError> {
        if let Some(first) = self.sessions.first() {
            first.check(inputs)?;
        }
        let results = thread::scope(|scope| {
            let sessions = self.sessions.iter_mut().enumerate();
            let threads = sessions.map(|(rank, session)| {
                scope.spawn(move || session.run(if rank == 0 { inputs } else { &[] }))
            });
            join(threads.collect())
        });
        let (outputs, profiles): (Vec<_>, Vec<_>) = first_cause(results)?.into_iter().unzip();
        Ok((outputs.into_iter().next().unwrap_or_default(), profiles))
    }

    /// Memory of each rank.
    pub fn memory(&self) -> Vec<MemoryFigures> {
        self.sessions.iter().map(Session::memory).collect()
    }

    /// Names of the devices, by rank.
    pub fn devices(&self) -> Vec<String> {
        self.sessions.iter().map(Session::device).collect()
    }
}

/// What all threads give; a panic of one goes on.
fn join<T>(threads: Vec<thread::ScopedJoinHandle<'_, T>>) -> Vec<T> {
    // All end before the first panic goes on.
    let ended: Vec<thread::Result<T>> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
    ended.into_iter().map(|result| result.unwrap_or_else(|payload| panic::resume_unwind(payload))).collect()
}

/// All values, or the error that came first: one that does not only say that another rank failed.
fn first_cause<T>(results: Vec<Result<T, SessionError>>) -> Result<Vec<T>, SessionError> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    let echo = |error: &SessionError| {
        let heard = |error: &CollectiveError| {
            matches!(error, CollectiveError::Lost { .. } | CollectiveError::GaveUp { .. })
        };
        matches!(error, SessionError::Collective(error) if heard(error))
    };
    let cause = errors.iter().position(|error| !echo(error)).unwrap_or(0);
    if errors.is_empty() { Ok(values) } else { Err(errors.swap_remove(cause)) }
}
