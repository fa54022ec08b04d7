//! What can go wrong between ranks.

use std::time::Duration;

use super::mpi::MpiError;
use super::nccl::NcclError;
use super::news::{Failure, FailureKind};
use super::tcp::MeetingError;
use crate::cuda::CudaError;
use crate::device::DeviceError;

/// Why a collective failed.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A rank ended, or cannot be reached any more.
    #[error("rank {rank} was lost: {reason}; see what it wrote last, then start all ranks again")]
    Lost {
        /// Which rank.
        rank: usize,
        /// What was noticed.
        reason: String,
    },
    /// A rank told the others that it cannot go on.
    #[error("rank {rank} gave up: {reason}")]
    GaveUp {
        /// Which rank.
        rank: usize,
        /// What it said.
        reason: String,
    },
    /// A rank is alive and sends nothing.
    #[error(
        "rank {rank} has not sent {what} within {} s{}; if that is too short for the program, raise the timeout",
        .waited.as_secs_f32(), .behind.map(|behind| format!(": it waits for rank {behind} itself")).unwrap_or_default()
    )]
    Timeout {
        /// Which rank was waited for.
        rank: usize,
        /// For what.
        what: String,
        /// For how long.
        waited: Duration,
        /// The rank that keeps it waiting, itself or through others.
        behind: Option<usize>,
    },
    /// A rank does not run the same program.
    #[error(
        "rank {rank} is out of step: it sent {found} where this rank expects {expected}; all ranks must run the same program"
    )]
    OutOfStep {
        /// Which rank.
        rank: usize,
        /// What this rank waits for.
        expected: String,
        /// What came.
        found: String,
    },
    /// MPI cannot be used.
    #[error(transparent)]
    Mpi(#[from] MpiError),
    /// Ranks did not find each other.
    #[error(transparent)]
    Meeting(#[from] MeetingError),
    /// NCCL cannot be used, or failed.
    #[error(transparent)]
    Nccl(#[from] NcclError),
    /// The device could not read or write limbs.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl CollectiveError {
    /// What other ranks are told when this rank, `own`, meets the error.
    pub(super) fn failure(&self, own: usize) -> Failure {
        match self {
            CollectiveError::Lost { rank, reason } => {
                Failure { rank: *rank, kind: FailureKind::Lost, reason: reason.clone() }
            }
            CollectiveError::GaveUp { rank, reason } => {
                Failure { rank: *rank, kind: FailureKind::GaveUp, reason: reason.clone() }
            }
            other => Failure { rank: own, kind: FailureKind::GaveUp, reason: other.to_string() },
        }
    }
}

impl From<CudaError> for CollectiveError {
    fn from(error: CudaError) -> CollectiveError {
        CollectiveError::Device(error.into())
    }
}

impl From<Failure> for CollectiveError {
    fn from(failure: Failure) -> CollectiveError {
        let Failure { rank, kind, reason } = failure;
        match kind {
            FailureKind::Lost => CollectiveError::Lost { rank, reason },
            FailureKind::GaveUp => CollectiveError::GaveUp { rank, reason },
        }
    }
}
