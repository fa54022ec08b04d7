//! What ranks must have in common before they compute together.

use cerium_artifact::Artifact;
use serde::{Deserialize, Serialize};

use crate::collectives::Collectives;
use crate::key_store::KeyStore;
use crate::session::SessionError;

/// Something in which a rank differs from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// The version of this library.
    Version,
    /// The program.
    Program,
    /// The evaluation keys.
    Keys,
}

impl Common {
    /// What the odd rank has, as in "rank 2 has another program than the others".
    pub fn other(self) -> &'static str {
        match self {
            Common::Version => "another version of cerium",
            Common::Program => "another program",
            Common::Keys => "other evaluation keys",
        }
    }
}

/// What a rank says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    version: String,
    program: [u8; 32],
    keys: [u8; 32],
    /// Where it runs; ranks may differ in this.
    host: String,
}

/// What ranks on this host, and no others, have in common.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Holds what all ranks have against each other, and their number against that of the program's devices. Tells how many other
/// ranks are on this host.
///
/// # Errors
/// [`SessionError::Odd`] on all ranks alike, [`SessionError::Devices`], and errors of collectives and of the artifact.
pub(crate) fn agree(
    artifact: &Artifact,
    keys: &KeyStore,
    collectives: &mut dyn Collectives,
) -> Result<u64, SessionError> {
    let own = Identity {
        version: env!("CARGO_PKG_VERSION").to_string(),
        program: artifact.digest()?,
        keys: keys.identity(),
        host: host(),
    };
    let bytes = postcard::to_allocvec(&own).expect("plain data");
    let identities = collectives.gather(&bytes)?;
    // Another version may have other things to say.
    let identities: Vec<Option<Identity>> =
        identities.iter().map(|bytes| postcard::from_bytes(bytes).ok()).collect();
    if let Some((rank, what)) = odd(&identities) {
        return Err(SessionError::Odd { rank, what });
    }
    let (devices, ranks) = (artifact.programs.len(), collectives.size());
    let here = identities.iter().flatten().filter(|identity| identity.host == own.host).count();
    if devices == ranks { Ok(here as u64 - 1) } else { Err(SessionError::Devices { devices, ranks }) }
}

/// The first rank that has something other than most ranks have, or, where there are as many of one kind as of the other, than
/// rank 0 has.
fn odd(identities: &[Option<Identity>]) -> Option<(usize, Common)> {
    let version = |identity: &Option<Identity>| identity.as_ref().map(|known| known.version.clone());
    let program = |identity: &Option<Identity>| identity.as_ref().map(|known| known.program);
    let keys = |identity: &Option<Identity>| identity.as_ref().map(|known| known.keys);
    let find = |what, rank: Option<usize>| rank.map(|rank| (rank, what));
    find(Common::Version, minority(identities.iter().map(version)))
        .or_else(|| find(Common::Program, minority(identities.iter().map(program))))
        .or_else(|| find(Common::Keys, minority(identities.iter().map(keys))))
}

/// The first position that does not have the most frequent value; of equally frequent ones the first counts.
fn minority<T: PartialEq>(values: impl Iterator<Item = T>) -> Option<usize> {
    let values: Vec<T> = values.collect();
    let count = |value: &T| values.iter().filter(|other| *other == value).count();
    let most = values.iter().map(count).max()?;
    let usual = values.iter().find(|value| count(value) == most)?;
    values.iter().position(|value| value != usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_is_found() {
        let odd = |values: &str| minority(values.chars());
        assert_eq!([odd(""), odd("a"), odd("aa"), odd("aaaa")], [None; 4]);
        assert_eq!([odd("ab"), odd("aab"), odd("abb"), odd("abab")], [Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn versions_count_before_programs_and_programs_before_keys() {
        let identity = |version: &str, program, keys| {
            let host = format!("host {keys}");
            Some(Identity { version: version.into(), program: [program; 32], keys: [keys; 32], host })
        };
        let usual = || identity("1", 0, 0);
        assert_eq!(odd(&[usual(), usual()]), None);
        assert_eq!(odd(&[usual(), usual(), identity("1", 0, 7)]), Some((2, Common::Keys)));
        assert_eq!(odd(&[identity("1", 0, 7), usual(), identity("1", 3, 0)]), Some((2, Common::Program)));
        assert_eq!(odd(&[usual(), identity("2", 9, 7)]), Some((1, Common::Version)));
        assert_eq!(odd(&[None, usual(), identity("1", 0, 7)]), Some((0, Common::Version)));
    }
}
