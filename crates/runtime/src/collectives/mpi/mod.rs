//! Ranks that are processes under MPI: Open MPI 4 or 5, opened at run time.
//!
//! A thread of its own makes all calls of MPI, so that messages move while the rank computes. It never blocks in MPI: it sends
//! and receives without waiting and asks again and again what is done. Ranks say that they are alive; one of which nothing is
//! heard for [`Patience::silence`] is lost. MPI itself would tell nobody, or end everybody: `mpirun` kills all processes when one
//! is killed, unless it is started with `--enable-recovery`, and then only says that.

mod library;
mod pump;

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use super::news::{Carrier, Message, News};
use super::wire::encode;
use super::{CollectiveError, HostCollectives, Patience};
use library::Mpi;
use pump::{Command, pump};

/// Why MPI cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MpiError {
    /// There is no Open MPI, or one that cannot be opened.
    #[error(
        "no Open MPI (libmpi.so.40): {reason}; install version 4 or 5 on every host (on Debian and Ubuntu `apt-get install \
         openmpi-bin`), or start the ranks with `torchrun` or `srun`"
    )]
    Missing {
        /// What the loader said.
        reason: String,
    },
    /// A library of this name has no such function or variable.
    #[error("libmpi.so.40 is not Open MPI 4 or 5: it has no {symbol}")]
    Foreign {
        /// What it lacks.
        symbol: &'static str,
    },
    /// MPI begins once in a process.
    #[error("MPI was started in this process already; a process is one rank, once")]
    Started,
    /// The ranks did not find each other.
    #[error(
        "MPI_Init has not returned within {seconds} s: some ranks were not started, or cannot be reached"
    )]
    Init {
        /// How long it was waited for.
        seconds: u64,
    },
    /// A call failed.
    #[error("{call} of MPI failed: {reason}")]
    Call {
        /// Its name.
        call: &'static str,
        /// MPI's reason.
        reason: String,
    },
}

/// Joins the processes that `mpirun` started with this one; returns when all have. Once in a process.
pub fn join(patience: Patience) -> Result<HostCollectives, CollectiveError> {
    let (ready, joined) = channel();
    let (commands, to_do) = channel();
    let (teller, news) = channel();
    let thread = thread::Builder::new().name("mpi".into()).spawn(move || match Mpi::init() {
        Err(error) => {
            // Nobody waits any more if this took too long.
            let _ = ready.send(Err(error));
        }
        Ok(mpi) => {
            let _ = ready.send(Ok((mpi.rank(), mpi.size())));
            pump(mpi, patience, &to_do, &teller);
        }
    });
    let thread =
        thread.map_err(|error| MpiError::Call { call: "starting the thread", reason: error.to_string() })?;
    match joined.recv_timeout(patience.wait) {
        Ok(Ok((rank, size))) => {
            let carrier = Mail { rank, size, commands, thread: Some(thread) };
            Ok(HostCollectives::new(rank, size, patience, Box::new(carrier), news))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(RecvTimeoutError::Timeout) => Err(MpiError::Init { seconds: patience.wait.as_secs() }.into()),
        Err(RecvTimeoutError::Disconnected) => {
            let reason = "its thread panicked".to_string();
            Err(MpiError::Call { call: "MPI_Init_thread", reason }.into())
        }
    }
}

/// What the pump is asked for.
struct Mail {
    rank: usize,
    size: usize,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Mail {
    /// Waits until the thread has ended, so that the process does not end within MPI.
    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.commands.send(Command::Leave);
            let _ = thread.join();
        }
    }
}

impl Carrier for Mail {
    fn send(&mut self, to: usize, message: Message) {
        let (header, words) = encode(News::Message { from: self.rank, message });
        // If the thread has ended, its last news say why.
        let _ = self.commands.send(Command::Say { to, header, words });
    }

    fn tell(&mut self, news: &News) {
        if let News::Failed(_) = news {
            let _ = self.commands.send(Command::Fail);
        }
        for to in (0..self.size).filter(|&to| to != self.rank) {
            let (header, words) = encode(news.clone());
            let _ = self.commands.send(Command::Say { to, header, words });
        }
    }

    fn leave(&mut self) {
        self.end();
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        // A rank that did not leave has failed, or was never used.
        let _ = self.commands.send(Command::Fail);
        self.end();
    }
}
