//! Lists of ciphertexts as bytes: the input or the output of a program.
//!
//! Payload: digest of the program (32), u32 count, zeros to 64; then each ciphertext: u8 level, u8
//! polynomials, u8 seeded (0 or 1), u8 zero, u32 limbs, f64 scale, seed (32, zeros unless seeded), u32 N,
//! zeros to 64; then its words, `[polynomial][limb][N]`, without c_1 if it is seeded.

use std::fmt;

use super::{Fields, HEAD, Kind, WireError, check_residues, header, open_under, split_head, to_words};
use crate::basis::{Level, Scale};
use crate::ciphertext::{Ciphertext, SeededCiphertext, ciphertext_words};
use crate::params::Params;
use crate::uniform::Seed;

/// Identity of the program that ciphertexts are for (a hash of its artifact), or zeros for no particular one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ProgramDigest(pub [u8; 32]);

impl fmt::Debug for ProgramDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Ciphertexts as bytes.
pub fn encode_ciphertexts(params: &Params, program: ProgramDigest, ciphertexts: &[Ciphertext]) -> Vec<u8> {
    let heads = ciphertexts.iter().map(|ct| {
        let head = describe(params, ct.level(), ct.scale(), ct.polynomials(), None);
        (head, bytemuck::cast_slice(ct.words()))
    });
    frame(params, program, &heads.collect::<Vec<_>>())
}

/// Freshly encrypted ciphertexts as bytes, at half the size.
pub fn encode_seeded_ciphertexts(
    params: &Params,
    program: ProgramDigest,
    ciphertexts: &[SeededCiphertext],
) -> Vec<u8> {
    let heads = ciphertexts.iter().map(|ct| {
        let head = describe(params, ct.level(), ct.scale(), 2, Some(ct.seed()));
        (head, bytemuck::cast_slice(ct.c0()))
    });
    frame(params, program, &heads.collect::<Vec<_>>())
}

fn describe(
    params: &Params,
    level: Level,
    scale: Scale,
    polynomials: usize,
    seed: Option<&Seed>,
) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&[level.0, polynomials as u8, u8::from(seed.is_some()), 0]);
    head[4..8].copy_from_slice(&(params.basis(level).len() as u32).to_le_bytes());
    head[8..16].copy_from_slice(&scale.0.to_le_bytes());
    head[16..48].copy_from_slice(seed.unwrap_or(&[0; 32]));
    head[48..52].copy_from_slice(&(params.n() as u32).to_le_bytes());
    head
}

fn frame(params: &Params, program: ProgramDigest, ciphertexts: &[([u8; HEAD], &[u8])]) -> Vec<u8> {
    let mut list = [0; HEAD];
    list[..32].copy_from_slice(&program.0);
    list[32..36].copy_from_slice(&(ciphertexts.len() as u32).to_le_bytes());
    let mut payload: Vec<&[u8]> = vec![&list];
    payload.extend(ciphertexts.iter().flat_map(|(head, words)| [&head[..], words]));
    let header = header(Kind::Ciphertexts, params.digest(), &payload);
    payload.insert(0, &header);
    payload.concat()
}

/// Reads a list of ciphertexts of the given parameters; seeded ones are expanded.
///
/// # Errors
/// Whatever makes the bytes no such list.
pub fn decode_ciphertexts(
    params: &Params,
    bytes: &[u8],
) -> Result<(ProgramDigest, Vec<Ciphertext>), WireError> {
    let kind = Kind::Ciphertexts;
    let malformed = |reason| WireError::Malformed { kind, reason };
    let (list, mut rest) = split_head(open_under(params, kind, bytes)?)?;
    let mut fields = Fields(list);
    let program = ProgramDigest(fields.array());
    let count = fields.u32();
    if !fields.rest_is_zero() {
        return Err(malformed("reserved bytes of the list are not zero"));
    }
    // The count alone allocates nothing: each ciphertext must be there first.
    let mut ciphertexts = Vec::new();
    for _ in 0..count {
        let (head, tail) = split_head(rest)?;
        let mut fields = Fields(head);
        let (level, polynomials, seeded, zero) =
            (Level(fields.u8()), usize::from(fields.u8()), fields.u8(), fields.u8());
        let limbs = fields.u32() as usize;
        let scale = Scale(f64::from_le_bytes(fields.array()));
        let seed: Seed = fields.array();
        let n = fields.u32() as usize;
        let whole = ciphertext_words(params, level, scale, polynomials)?;
        if (limbs, n) != (params.basis(level).len(), params.n()) {
            return Err(malformed("its sizes are not those of the parameter set"));
        }
        if zero != 0 || !fields.rest_is_zero() {
            return Err(malformed("reserved bytes of a ciphertext are not zero"));
        }
        let words = match (seeded, polynomials) {
            (0, _) if seed == [0; 32] => whole,
            (1, 2) => whole / 2,
            _ => {
                return Err(malformed(
                    "a seed goes with two polynomials, and with the mark that there is one",
                ));
            }
        };
        let Some((words, tail)) = tail.split_at_checked(4 * words) else {
            let expected = (bytes.len() - tail.len() + 4 * words) as u64;
            return Err(WireError::Truncated { expected, got: bytes.len() as u64 });
        };
        let words: Vec<u32> = to_words(words);
        check_residues(params, params.basis(level), &words)?;
        ciphertexts.push(match seeded {
            0 => Ciphertext::new(params, level, scale, polynomials, words)?,
            _ => SeededCiphertext::new(params, level, scale, seed, words)?.expand(params),
        });
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(WireError::TrailingBytes { extra: rest.len() as u64 });
    }
    Ok((program, ciphertexts))
}
