//! Exchanges: which moves are one collective.

use std::collections::{BTreeMap, BTreeSet};

use cerium_artifact::cost::Traffic;

use super::Communication;
use super::placement::Placement;
use super::rounds::{Move, Rounds};
use super::switches::Switches;
use crate::ir::ValueId;

/// The moves of each collective, in the order in which all devices start them: by round, and within it by what they are for.
pub(super) struct Exchanges {
    by_round: BTreeMap<u32, Vec<Vec<Move>>>,
}

impl Exchanges {
    pub(super) fn new(placement: &Placement<'_>, rounds: &Rounds, communication: Communication) -> Exchanges {
        let mut groups: BTreeMap<(u32, Purpose), Vec<Move>> = BTreeMap::new();
        let switches = (communication == Communication::KeySwitching).then(|| Switches::new(placement));
        for &step in &rounds.moves {
            let purposes =
                switches.as_ref().map_or_else(|| vec![Purpose::default()], |s| purposes(s, step.value));
            for purpose in purposes {
                groups.entry((step.round, purpose)).or_default().push(step);
            }
        }
        let mut exchanges = Exchanges { by_round: BTreeMap::new() };
        for ((round, _), moves) in groups {
            exchanges.by_round.entry(round).or_default().push(moves);
        }
        exchanges
    }

    /// The moves of each exchange of a round.
    pub(super) fn of_round(&self, round: u32) -> impl Iterator<Item = &[Move]> {
        self.by_round.get(&round).into_iter().flatten().map(Vec::as_slice)
    }

    /// Collectives, and limbs that all devices send.
    pub(super) fn traffic(&self, rounds: &Rounds, devices: usize) -> Traffic {
        let summing: BTreeSet<u32> = rounds.all_reduces.iter().map(|(round, _)| *round).collect();
        let exchanges = self.by_round.values().flatten();
        // A limb that is summed is sent to its home by all others, and from there to them.
        let summed = 2 * rounds.all_reduces.len() * (devices - 1);
        Traffic {
            collectives: (exchanges.clone().count() + summing.len()) as u64,
            bytes: (exchanges.map(Vec::len).sum::<usize>() + summed) as u64,
        }
    }
}

/// What a limb is received for, where nothing is shared: an input of key switches and which of them, a division, anything else.
type Purpose = (usize, usize);

fn purposes(switches: &Switches, value: ValueId) -> Vec<Purpose> {
    let Some(sets) = switches.sets_of.get(&value) else { return vec![Purpose::default()] };
    let mut all = BTreeSet::new();
    for &set in sets {
        let keys = switches.sets[set].keys.len().max(1);
        all.extend((0..keys).map(|key| (1 + switches.input(set), key)));
    }
    all.into_iter().collect()
}
