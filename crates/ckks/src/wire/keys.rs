//! Public and evaluation keys as bytes.
//!
//! Public key: seed (32), u32 limbs, u32 N, zeros to 64; then b, `[limb of Q][N]`.
//!
//! Evaluation key: seed (32), u8 kind (0 relinearization, 1 rotation, 2 conjugation, 3 to_sparse, 4
//! from_sparse), u8 level, u16 digits, u32 Galois element (1 for a key without one), u32 limbs of K, u32 N,
//! zeros to 64; then b, `[digit][limb of K][N]`.

use super::{
    Encoded, Fields, HEAD, HEADER, Kind, WireError, check_residues, header, open_under, split_head, to_words,
};
use crate::basis::Level;
use crate::ciphertext::PublicKey;
use crate::evaluation_key::{EvaluationKeyView, KeyKind, KeyRequest};
use crate::params::Params;

/// A public key as bytes.
pub fn encode_public_key<'a>(params: &Params, key: &'a PublicKey) -> Encoded<'a> {
    let mut head = Vec::with_capacity(HEADER + HEAD);
    head.extend(key.seed());
    head.extend((params.q_basis().len() as u32).to_le_bytes());
    head.extend((params.n() as u32).to_le_bytes());
    frame(params, Kind::PublicKey, head, key.words())
}

/// Reads a public key of the given parameters.
///
/// # Errors
/// Whatever makes the bytes no such key.
pub fn decode_public_key(params: &Params, bytes: &[u8]) -> Result<PublicKey, WireError> {
    let kind = Kind::PublicKey;
    let payload = open_under(params, kind, bytes)?;
    let (head, words) = split_head(payload)?;
    let mut fields = Fields(head);
    let seed = fields.array();
    let sizes = (fields.u32() as usize, fields.u32() as usize);
    if sizes != (params.q_basis().len(), params.n()) || !fields.rest_is_zero() {
        return Err(WireError::Malformed { kind, reason: "its sizes are not those of the parameter set" });
    }
    check_length(kind, words, params.q_basis().len() * params.n())?;
    let words: Vec<u32> = to_words(words);
    check_residues(params, params.q_basis(), &words)?;
    Ok(PublicKey::new(params, seed, words)?)
}

/// An evaluation key as bytes.
pub fn encode_evaluation_key<'a>(params: &Params, key: EvaluationKeyView<'a>) -> Encoded<'a> {
    let request = key.request();
    let kind = match request.kind {
        KeyKind::Relinearization => 0,
        KeyKind::Rotation(_) => 1,
        KeyKind::Conjugation => 2,
        KeyKind::ToSparse => 3,
        KeyKind::FromSparse => 4,
    };
    let mut head = Vec::with_capacity(HEADER + HEAD);
    head.extend(key.seed());
    head.extend([kind, request.level.0]);
    head.extend((key.digits() as u16).to_le_bytes());
    head.extend(request.kind.galois_element(params.log_n()).to_le_bytes());
    head.extend((key.basis().len() as u32).to_le_bytes());
    head.extend((params.n() as u32).to_le_bytes());
    frame(params, Kind::EvaluationKey, head, key.words())
}

/// Reads an evaluation key of the given parameters in place: `bytes` must begin at a multiple of 4 in memory,
/// as a mapped file does.
///
/// # Errors
/// Whatever makes the bytes no such key.
pub fn decode_evaluation_key<'a>(
    params: &Params,
    bytes: &'a [u8],
) -> Result<EvaluationKeyView<'a>, WireError> {
    let kind = Kind::EvaluationKey;
    let payload = open_under(params, kind, bytes)?;
    let (head, words) = split_head(payload)?;
    let mut fields = Fields(head);
    let seed = fields.array_ref();
    let (key_kind, level) = (fields.u8(), Level(fields.u8()));
    let digits = usize::from(fields.u16());
    let galois = fields.u32();
    let sizes = (fields.u32() as usize, fields.u32() as usize);
    let key_kind = match key_kind {
        0 => KeyKind::Relinearization,
        1 => KeyKind::Rotation(galois),
        2 => KeyKind::Conjugation,
        3 => KeyKind::ToSparse,
        4 => KeyKind::FromSparse,
        _ => return Err(WireError::Malformed { kind, reason: "there is no such kind of key" }),
    };
    let request = KeyRequest { kind: key_kind, level };
    request.check(params)?;
    if key_kind.galois_element(params.log_n()) != galois {
        return Err(WireError::Malformed { kind, reason: "its Galois element is not the one of its kind" });
    }
    let basis = request.basis(params);
    if digits != request.digits(params).len() || sizes != (basis.len(), params.n()) || !fields.rest_is_zero()
    {
        return Err(WireError::Malformed { kind, reason: "its sizes are not those of the parameter set" });
    }
    check_length(kind, words, request.words(params))?;
    let words = bytemuck::try_cast_slice(words).map_err(|_| WireError::Unaligned(kind))?;
    check_residues(params, basis, words)?;
    Ok(EvaluationKeyView::new(params, request, seed, words)?)
}

fn frame<'a>(params: &Params, kind: Kind, mut head: Vec<u8>, words: &'a [u32]) -> Encoded<'a> {
    let words: &[u8] = bytemuck::cast_slice(words);
    head.resize(HEAD, 0);
    head.splice(0..0, header(kind, params.digest(), &[&head, words]));
    Encoded { head, words }
}

fn check_length(kind: Kind, words: &[u8], expected: usize) -> Result<(), WireError> {
    if words.len() != 4 * expected {
        return Err(WireError::Malformed { kind, reason: "its length is not that of its words" });
    }
    Ok(())
}
