//! What can be wrong with an artifact.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use cerium_ckks::params::ParamsError;

/// Why an artifact could not be written, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is no file of this name.
    #[error("there is no artifact at {path}; `cerium compile MODEL -o {path}` makes one")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The disk ran full; the file that was there before, if any, is unchanged.
    #[error("no space left to write {path}; nothing was changed, free some space and try again")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} the artifact {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The bytes are something else.
    #[error("not a Cerium artifact: it does not begin with the artifact magic (compile the model first)")]
    NotAnArtifact,
    /// The format has another version.
    #[error(
        "the artifact has format version {found}, this build reads version {expected}; compile the model again"
    )]
    OtherVersion {
        /// Version of the file.
        found: u32,
        /// The version that this build reads and writes.
        expected: u32,
    },
    /// The bytes are not what was written.
    #[error("the artifact is damaged: {0}; copy or compile it again")]
    Damaged(String),
    /// It cannot be stored in the file format.
    #[error("the artifact cannot be stored: {0}")]
    Unstorable(String),
    /// The parameter set is not acceptable.
    #[error("the artifact's parameter set is not valid")]
    Params(#[from] ParamsError),
    /// Its parts contradict each other; it was not made by this compiler.
    #[error("the artifact is inconsistent: {place}: {what}")]
    Inconsistent {
        /// Where, for example ``function `conv` step 3 block 2``.
        place: String,
        /// What is wrong there.
        what: String,
    },
}

impl ArtifactError {
    /// Classifies an error of the operating system.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> ArtifactError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound if action == "read" => ArtifactError::Missing { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArtifactError::DiskFull { path },
            _ => ArtifactError::Io { action, path, source },
        }
    }
}

/// `Err(Inconsistent)` unless `holds`; place and reason are formatted only when needed.
pub(crate) fn ensure<P: Display, W: Display>(
    holds: bool,
    place: impl FnOnce() -> P,
    what: impl FnOnce() -> W,
) -> Result<(), ArtifactError> {
    if holds { Ok(()) } else { Err(inconsistent(place(), what())) }
}

/// An [`ArtifactError::Inconsistent`].
pub(crate) fn inconsistent(place: impl Display, what: impl Display) -> ArtifactError {
    ArtifactError::Inconsistent { place: place.to_string(), what: what.to_string() }
}
