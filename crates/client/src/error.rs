//! What can go wrong at the client.

use std::io;
use std::path::PathBuf;

use cerium_ckks::ciphertext::CiphertextError;
use cerium_ckks::encoding::EncodingError;
use cerium_ckks::evaluation_key::KeyError;
use cerium_ckks::params::ParamsDigest;
use cerium_ckks::wire::WireError;

/// Why a client operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A key for real data was asked for under parameters that do not protect it.
    #[error(
        "parameter set `{name}` is insecure and meant for tests only; for data that matters choose a secure set, for \
         a test opt in explicitly (`SecretKey::generate_insecure`, `--insecure`)"
    )]
    Insecure {
        /// Name of the set.
        name: String,
    },
    /// The operating system has no randomness to give.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// A key and what it is used for belong to different parameter sets.
    #[error(
        "{what} belongs to other parameters ({found}) than those in use ({expected}); use the one \
         made for them"
    )]
    OtherParameters {
        /// What does not fit.
        what: &'static str,
        /// Digest of the set in use.
        expected: ParamsDigest,
        /// Digest found.
        found: ParamsDigest,
    },
    /// The precision asked for leaves no room for the noise that hides the decryption error.
    #[error(
        "cannot share {precision} bits after the point: the noise that makes sharing safe would be as small as that \
         of encryption; at this scale at most {most} bits can be shared"
    )]
    Precision {
        /// The precision asked for.
        precision: u32,
        /// The largest precision possible.
        most: u32,
    },
    /// The message cannot be encoded.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The ciphertext is not possible.
    #[error(transparent)]
    Ciphertext(#[from] CiphertextError),
    /// The evaluation key is not possible.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file exists that must not be lost.
    #[error(
        "{} exists and is not overwritten, for without its keys what was encrypted under them cannot be read; \
         choose another folder, move it away, or add the keys of a further program to it (`cerium keygen --add`)",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// An evaluation key on disk is not the one that belongs there.
    #[error(
        "{} is not the key that its name says, of the secret key of this folder; move it away, or choose another \
         folder",
        path.display()
    )]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// Another process makes keys.
    #[error("another process is making keys in {}; wait until it is done", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Others can read the secret key.
    #[error(
        "{} can be read by others (mode {mode:04o}); run `chmod 600` on it if nobody has, or make new keys",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is not there.
    #[error("{} is missing; `cerium keygen` makes the keys of a program", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: WireError,
    },
}
