//! What a rank gave to others, and how long it waited for them.

use std::ops::AddAssign;
use std::time::Duration;

use cerium_artifact::StageId;
use cerium_artifact::cost::Traffic;
use serde::{Deserialize, Serialize};

/// What one rank has to do with the others. Zero where a program runs on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Communication {
    /// Collectives that it took part in.
    pub collectives: u64,
    /// Bytes that it sent.
    pub bytes_sent: u64,
    /// Time in which it started collectives and waited for them. Where a device waits itself, behind the back of the host, it is
    /// not in here.
    pub waiting: Duration,
}

impl From<Traffic> for Communication {
    fn from(traffic: Traffic) -> Communication {
        let Traffic { collectives, bytes } = traffic;
        Communication { collectives, bytes_sent: bytes, waiting: Duration::ZERO }
    }
}

impl AddAssign for Communication {
    fn add_assign(&mut self, other: Communication) {
        self.collectives = self.collectives.saturating_add(other.collectives);
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.waiting += other.waiting;
    }
}

/// Communication of a run, by stage. What functions do is counted twice, as in [`UsageTables`](super::UsageTables): for the stages
/// that their collectives belong to, and for the stages of the entry that called them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CommunicationTables {
    /// Collectives of the entry, by their stage.
    pub entry: Vec<Communication>,
    /// Collectives of functions, by their stage.
    pub functions: Vec<Communication>,
    /// Collectives of functions, by the stage of the entry that called the function, itself or through others.
    pub called: Vec<Communication>,
}

impl CommunicationTables {
    /// Empty tables for this many stages.
    pub fn new(stages: usize) -> CommunicationTables {
        let table = || vec![Communication::default(); stages];
        CommunicationTables { entry: table(), functions: table(), called: table() }
    }

    /// Adds what collectives of a stage did in a function that `caller` called (`None`: in the entry).
    pub fn add(&mut self, stage: StageId, caller: Option<StageId>, communication: Communication) {
        match caller {
            None => self.entry[usize::from(stage.0)] += communication,
            Some(caller) => {
                self.functions[usize::from(stage.0)] += communication;
                self.called[usize::from(caller.0)] += communication;
            }
        }
    }

    /// Collectives that belong to a stage. Panics if there is no such stage.
    pub fn stage(&self, stage: StageId) -> Communication {
        let stage = usize::from(stage.0);
        sum(&[self.entry[stage], self.functions[stage]])
    }

    /// Collectives of a stage of the entry and of the functions that it calls. Panics if there is no such stage.
    pub fn layer(&self, stage: StageId) -> Communication {
        let stage = usize::from(stage.0);
        sum(&[self.entry[stage], self.called[stage]])
    }

    /// All collectives.
    pub fn total(&self) -> Communication {
        sum(&[sum(&self.entry), sum(&self.functions)])
    }
}

fn sum(communications: &[Communication]) -> Communication {
    let mut total = Communication::default();
    communications.iter().for_each(|&communication| total += communication);
    total
}
