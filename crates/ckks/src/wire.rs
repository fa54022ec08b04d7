//! The wire format: parameters, keys and ciphertexts as bytes.
//!
//! Every object is one frame, little-endian throughout:
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | magic `89 "CERIUM" 0a` |
//! | 8..10 | format version, [`VERSION`] |
//! | 10..12 | kind of object, [`Kind`] |
//! | 12..16 | zero |
//! | 16..48 | digest of the parameter set |
//! | 48..56 | length of the payload |
//! | 56..64 | zero |
//! | 64..96 | BLAKE3 hash of bytes 0..64 and the payload |
//! | 96..128 | zero |
//! | 128.. | the payload |
//!
//! Payloads with limbs put 64 bytes of description before the words, so that words are aligned to 64 bytes in
//! the file and can be used where they lie when the file is mapped into memory. Lengths are checked against
//! the parameter set and the bytes that are there before anything is allocated, and residues against their
//! primes. The hash finds damage, not malice: whoever changes an object can hash it again, so nothing read is
//! trusted for having the right hash.

mod ciphertexts;
mod keys;

use std::fmt;

use crate::basis::{Basis, PrimeIndex};
use crate::ciphertext::CiphertextError;
use crate::evaluation_key::KeyError;
use crate::params::{Params, ParamsDigest, ParamsError, ParamsSpec};

pub use ciphertexts::{ProgramDigest, decode_ciphertexts, encode_ciphertexts, encode_seeded_ciphertexts};
pub use keys::{decode_evaluation_key, decode_public_key, encode_evaluation_key, encode_public_key};

#[cfg(target_endian = "big")]
compile_error!("the wire format is little-endian and read in place; this machine is big-endian");

/// Version of the format that this library writes and reads.
pub const VERSION: u16 = 2;
/// Bytes before the payload.
pub const HEADER: usize = 128;
/// Bytes of description before the words of a key or ciphertext.
const HEAD: usize = 64;
const MAGIC: [u8; 8] = *b"\x89CERIUM\n";

/// Kinds of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// A parameter set: [`ParamsSpec::to_bytes`].
    Params = 1,
    /// A secret key, which only the client reads and writes.
    Secret = 2,
    /// A public key.
    PublicKey = 3,
    /// An evaluation key.
    EvaluationKey = 4,
    /// A list of ciphertexts.
    Ciphertexts = 5,
}

impl Kind {
    fn from_number(number: u16) -> Option<Kind> {
        [Kind::Params, Kind::Secret, Kind::PublicKey, Kind::EvaluationKey, Kind::Ciphertexts]
            .into_iter()
            .find(|&kind| kind as u16 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Params => "a parameter set",
            Kind::Secret => "a secret key",
            Kind::PublicKey => "a public key",
            Kind::EvaluationKey => "an evaluation key",
            Kind::Ciphertexts => "a list of ciphertexts",
        })
    }
}

/// Why bytes are not the object expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The magic is missing.
    #[error("these are not Cerium's bytes: they do not begin with its signature")]
    NotCerium,
    /// Another version of the format.
    #[error(
        "format version {found} is not supported by this program, which reads version {VERSION}; use the \
         same version of Cerium on both sides"
    )]
    Version {
        /// The version found.
        found: u16,
    },
    /// Another kind of object.
    #[error("this is {}, where {expected} is expected", kind_name(*found))]
    Kind {
        /// The kind wanted.
        expected: Kind,
        /// Number of the kind found.
        found: u16,
    },
    /// The end is missing.
    #[error(
        "the bytes end early: {expected} are needed and {got} are there; the file was cut or not fully copied"
    )]
    Truncated {
        /// Bytes needed.
        expected: u64,
        /// Bytes there.
        got: u64,
    },
    /// There is more than the object.
    #[error("{extra} bytes follow the end of the object; the file was extended or mixed up")]
    TrailingBytes {
        /// Bytes too many.
        extra: u64,
    },
    /// The hash does not match.
    #[error("the checksum does not match: the bytes were damaged; copy or make the file again")]
    Damaged,
    /// It belongs to another parameter set.
    #[error(
        "{kind} of other parameters ({found}) than those in use ({expected}); keys, \
         ciphertexts and program must be made under one parameter set"
    )]
    OtherParameters {
        /// What was read.
        kind: Kind,
        /// Digest of the set in use.
        expected: ParamsDigest,
        /// Digest found.
        found: ParamsDigest,
    },
    /// A field has an impossible value.
    #[error("{kind} that makes no sense: {reason}")]
    Malformed {
        /// What was read.
        kind: Kind,
        /// Which field, and why.
        reason: &'static str,
    },
    /// A word is not below its prime.
    #[error("residue out of range: word {position} of limb {limb} is {word}, not below its prime {prime}")]
    Residue {
        /// Limb, counted from the first of the object.
        limb: usize,
        /// Position within the limb.
        position: usize,
        /// The word.
        word: u32,
        /// The prime.
        prime: u32,
    },
    /// The bytes do not start at a multiple of 4 in memory.
    #[error("the words of {0} must be aligned to 4 bytes to be read in place")]
    Unaligned(Kind),
    /// The parameter set is not acceptable.
    #[error("parameter set: {0}")]
    Params(#[from] ParamsError),
    /// The key is not possible under the parameter set.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ciphertext or public key is not possible under the parameter set.
    #[error(transparent)]
    Ciphertext(#[from] CiphertextError),
}

fn kind_name(number: u16) -> String {
    Kind::from_number(number)
        .map_or_else(|| format!("an unknown kind of object ({number})"), |kind| kind.to_string())
}

/// An object ready to be written: two parts, so that the words of a large key are not copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// Header and description.
    pub head: Vec<u8>,
    /// The words after it.
    pub words: &'a [u8],
}

impl Encoded<'_> {
    /// Head and words in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head, self.words].concat()
    }
}

/// The header of a payload given in parts.
pub fn header(kind: Kind, digest: ParamsDigest, payload: &[&[u8]]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&(kind as u16).to_le_bytes());
    header[16..48].copy_from_slice(&digest.0);
    let len: usize = payload.iter().map(|part| part.len()).sum();
    header[48..56].copy_from_slice(&(len as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..64]);
    payload.iter().for_each(|part| {
        hasher.update(part);
    });
    header[64..96].copy_from_slice(hasher.finalize().as_bytes());
    header
}

/// Checks a frame and returns the parameter digest it carries and its payload.
///
/// # Errors
/// All but those about the contents of the payload.
pub fn open(kind: Kind, bytes: &[u8]) -> Result<(ParamsDigest, &[u8]), WireError> {
    let got = bytes.len() as u64;
    if !bytes.starts_with(&MAGIC) {
        return Err(if MAGIC.starts_with(bytes) {
            WireError::Truncated { expected: HEADER as u64, got }
        } else {
            WireError::NotCerium
        });
    }
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(WireError::Truncated { expected: HEADER as u64, got });
    };
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != VERSION {
        return Err(WireError::Version { found: version });
    }
    let mut fields = Fields(&header[10..]);
    let found = fields.u16();
    fields.skip(4);
    let digest = ParamsDigest(fields.array());
    let len = fields.u64();
    let expected = len.saturating_add(HEADER as u64);
    if got < expected {
        return Err(WireError::Truncated { expected, got });
    }
    if got > expected {
        return Err(WireError::TrailingBytes { extra: got - expected });
    }
    let hash = blake3::Hasher::new().update(&header[..64]).update(payload).finalize();
    if *hash.as_bytes() != header[64..96] {
        return Err(WireError::Damaged);
    }
    if found != kind as u16 {
        return Err(WireError::Kind { expected: kind, found });
    }
    if header[12..16].iter().chain(&header[56..64]).chain(&header[96..]).any(|&byte| byte != 0) {
        return Err(WireError::Malformed { kind, reason: "reserved bytes of the header are not zero" });
    }
    Ok((digest, payload))
}

/// As [`open`], for an object that must belong to `params`.
///
/// # Errors
/// Also objects of other parameters.
pub fn open_under<'a>(params: &Params, kind: Kind, bytes: &'a [u8]) -> Result<&'a [u8], WireError> {
    let (found, payload) = open(kind, bytes)?;
    let expected = params.digest();
    if found != expected {
        return Err(WireError::OtherParameters { kind, expected, found });
    }
    Ok(payload)
}

/// A parameter set as bytes.
pub fn encode_params(params: &Params) -> Vec<u8> {
    let payload = params.spec().to_bytes();
    [&header(Kind::Params, params.digest(), &[&payload])[..], &payload].concat()
}

/// Reads a parameter set and checks it. It may be insecure, and then says so ([`Params::is_insecure`]).
///
/// # Errors
/// Damaged bytes, and parameters that are not acceptable.
pub fn decode_params(bytes: &[u8]) -> Result<Params, WireError> {
    let kind = Kind::Params;
    let (found, payload) = open(kind, bytes)?;
    let spec = ParamsSpec::from_bytes(payload)
        .ok_or(WireError::Malformed { kind, reason: "a list ends early or the name is not text" })?;
    let params = Params::new(spec)?;
    if found != params.digest() {
        return Err(WireError::OtherParameters { kind, expected: params.digest(), found });
    }
    Ok(params)
}

/// Reads numbers from the front of a description whose length has been checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        *self.array_ref()
    }

    fn array_ref<const LEN: usize>(&mut self) -> &'a [u8; LEN] {
        let (head, tail) =
            self.0.split_first_chunk().expect("the length was checked against the description");
        self.0 = tail;
        head
    }

    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn skip(&mut self, len: usize) {
        self.0 = &self.0[len..];
    }

    /// Whether all that is left is zero.
    fn rest_is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }
}

/// Splits a description from the front of a payload.
fn split_head(payload: &[u8]) -> Result<(&[u8; HEAD], &[u8]), WireError> {
    let short =
        WireError::Truncated { expected: (HEADER + HEAD) as u64, got: (HEADER + payload.len()) as u64 };
    payload.split_first_chunk::<HEAD>().ok_or(short)
}

/// Checks that `words` is made of canonical limbs, those of `basis` again and again.
fn check_residues(params: &Params, basis: Basis, words: &[u32]) -> Result<(), WireError> {
    let primes: Vec<PrimeIndex> = basis.iter().collect();
    for (limb, words) in words.chunks_exact(params.n()).enumerate() {
        let prime = params.modulus(primes[limb % primes.len()]).value();
        // The maximum, and not a search, so that the common case is a vector loop.
        if words.iter().fold(0, |max, &word| max.max(word)) >= prime
            && let Some(position) = words.iter().position(|&word| word >= prime)
        {
            return Err(WireError::Residue { limb, position, word: words[position], prime });
        }
    }
    Ok(())
}

/// Copies words out of bytes that may lie anywhere in memory.
fn to_words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}
