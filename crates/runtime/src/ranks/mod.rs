//! Ranks: the sessions that run one program together, each on a device of its own.
//!
//! A program that was compiled for D devices runs in D sessions. Each [joins](crate::Session::join) with its own device and keys
//! and with the [`Collectives`] through which it reaches the others. [`Ranks`] are those in one process. All ranks begin a run together: rank 0 has the inputs and gives them to the others, each takes
//! in the limbs of the primes that are at home on its device, and rank 0 puts the outputs together.
//!
//! A rank that fails tells the others why before it ends, so that all of them do.

mod agreement;

use std::panic;
use std::thread;

use cerium_artifact::Artifact;
use cerium_ckks::ciphertext::Ciphertext;
use serde::{Deserialize, Serialize};

pub use agreement::Common;
pub(crate) use agreement::agree;

use crate::collectives::{CollectiveError, Collectives};
use crate::device::Device;
use crate::key_store::KeyStore;
use crate::profile::{Communication, Profile};
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

/// What a rank has, and what it did in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankFigures {
    /// Name of its device.
    pub device: String,
    /// Memory that it occupies.
    pub memory: MemoryFigures,
    /// What it had to do with the others.
    pub communication: Communication,
}

/// The ranks of a program that are threads of this process: all of them, one whose peers are elsewhere, or, of a program for one
/// device, the only one.
pub struct Ranks {
    sessions: Vec<Session>,
}

impl Ranks {
    /// The session of a program for one device.
    pub fn alone(session: Session) -> Ranks {
        Ranks { sessions: vec![session] }
    }

    /// Opens a session for each member, in the order of their ranks, side by side. Progress is that of the first.
    ///
    /// # Errors
    /// Those of [`Session::join`], of the rank that failed; the others end as well.
    pub fn open(
        artifact: &Artifact,
        members: Vec<Member>,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Ranks, SessionError> {
        let members = members.into_iter().enumerate().collect();
        let open = |(index, member)| {
            let progress: Progress<'_> = if index == 0 { progress } else { &silent };
            Session::join(artifact, member, options, progress)
        };
        Ok(Ranks { sessions: side_by_side(members, open)? })
    }

    /// Whether rank 0 is here, which takes inputs and gives outputs.
    pub fn has_first(&self) -> bool {
        self.sessions.iter().any(Session::is_first)
    }

    /// Runs the program: the outputs, and the profile of each rank that is here. Without [`rank 0`](Ranks::has_first) inputs are
    /// not looked at, and there are no outputs.
    ///
    /// # Errors
    /// If all ranks are here, inputs that do not fit leave them as they were. After any other error they cannot run again.
    pub fn run(&mut self, inputs: &[Ciphertext]) -> Result<(Vec<Ciphertext>, Vec<Profile>), SessionError> {
        if self.sessions.len() > 1
            && let Some(first) = self.sessions.iter().find(|session| session.is_first())
        {
            first.check(inputs)?;
        }
        let run = |session: &mut Session| {
            let inputs = if session.is_first() { inputs } else { &[] };
            session.run(inputs)
        };
        let results = side_by_side(self.sessions.iter_mut().collect(), run)?;
        let (outputs, profiles): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        Ok((outputs.into_iter().flatten().collect(), profiles))
    }

    /// Figures of all ranks, those elsewhere included, of a run that gave these profiles. All ranks ask together.
    ///
    /// # Errors
    /// [`SessionError::Collective`].
    pub fn figures(&mut self, profiles: &[Profile]) -> Result<Vec<RankFigures>, SessionError> {
        let sessions = self.sessions.iter_mut().zip(profiles).collect();
        let figures = |(session, profile): (&mut Session, &Profile)| session.figures(profile);
        Ok(side_by_side(sessions, figures)?.into_iter().next().unwrap_or_default())
    }
}

/// Does work on each item in a thread of its own. The error is the one that came first: one that does not only say that another
/// rank failed. A panic goes on when all have ended.
fn side_by_side<I: Send, T: Send>(
    mut items: Vec<I>,
    work: impl Fn(I) -> Result<T, SessionError> + Sync,
) -> Result<Vec<T>, SessionError> {
    if items.len() == 1 {
        return Ok(vec![work(items.remove(0))?]);
    }
    let work = &work;
    let ended: Vec<thread::Result<Result<T, SessionError>>> = thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in ended {
        match result.unwrap_or_else(|payload| panic::resume_unwind(payload)) {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    let cause = errors.iter().position(|error| !is_heard(error)).unwrap_or(0);
    if errors.is_empty() { Ok(values) } else { Err(errors.swap_remove(cause)) }
}

/// Whether an error only says that another rank failed.
fn is_heard(error: &SessionError) -> bool {
    matches!(error, SessionError::Collective(CollectiveError::Lost { .. } | CollectiveError::GaveUp { .. }))
}
