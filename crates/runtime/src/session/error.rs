//! What can go wrong with a session.

use std::fmt;

use cerium_artifact::ArtifactError;
use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::params::ParamsDigest;

use crate::collectives::CollectiveError;
use crate::device::DeviceError;
use crate::executor::ExecutionError;
use crate::key_store::KeyStoreError;
use crate::memory::PlaintextError;
use crate::ranks::Common;

/// Why a session could not be made or a run was refused.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The artifact is not valid.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The keys do not fit the artifact.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A weight cannot be encoded.
    #[error(transparent)]
    Plaintext(#[from] PlaintextError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Another rank failed, or the way to it.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The program is for another number of devices.
    #[error(
        "the program is compiled for {}, it was to run on {ranks}; run it on {devices}, or compile it with `--devices {ranks}`",
        count(*devices, "device")
    )]
    Devices {
        /// Devices of the program.
        devices: usize,
        /// Sessions that were to run it.
        ranks: usize,
    },
    /// A rank does not fit the others.
    #[error("rank {rank} has {} than the others; give all ranks the same", what.other())]
    Odd {
        /// Which one.
        rank: usize,
        /// In what it differs.
        what: Common,
    },
    /// The number of inputs is wrong.
    #[error(
        "{given} ciphertexts were given, the program takes {expected} ({ports}); encrypt the input for it"
    )]
    Count {
        /// Ciphertexts given.
        given: usize,
        /// Ciphertexts expected.
        expected: usize,
        /// What they are.
        ports: String,
    },
    /// An input does not fit.
    #[error("input {index} (of `{port}`) {mismatch}; encrypt it again with the program that shall run")]
    Input {
        /// Position among the inputs.
        index: usize,
        /// Its port.
        port: String,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
}

impl From<ExecutionError> for SessionError {
    fn from(error: ExecutionError) -> SessionError {
        match error {
            ExecutionError::Device(error) => error.into(),
            ExecutionError::Collective(error) => error.into(),
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How a ciphertext differs from what a port takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mismatch {
    /// It was made under other parameters.
    Params {
        /// Those of the ciphertext.
        given: ParamsDigest,
        /// Those of the program.
        expected: ParamsDigest,
    },
    /// It has another level.
    Level {
        /// That of the ciphertext.
        given: Level,
        /// That of the port.
        expected: Level,
    },
    /// It has another scale.
    Scale {
        /// That of the ciphertext.
        given: Scale,
        /// That of the port.
        expected: Scale,
    },
    /// It has another number of polynomials.
    Polynomials {
        /// Those of the ciphertext; two are expected.
        given: usize,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Params { given, expected } => {
                write!(f, "was encrypted under parameters {given}, the program works under {expected}")
            }
            Mismatch::Level { given, expected } => {
                write!(f, "has level {given}, the program takes {expected}")
            }
            Mismatch::Scale { given, expected } => {
                write!(f, "has scale 2^{:.6}, the program takes 2^{:.6}", given.log2(), expected.log2())
            }
            Mismatch::Polynomials { given } => write!(f, "has {given} polynomials, the program takes 2"),
        }
    }
}
