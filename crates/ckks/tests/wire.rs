//! Bytes from strangers: whatever is flipped, cut or added, reading gives a clear error or a valid object,
//! never a panic, and never an allocation out of proportion to the bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::{Basis, Level, Scale};
use cerium_ckks::ciphertext::{Ciphertext, PublicKey, SeededCiphertext};
use cerium_ckks::evaluation_key::{EvaluationKey, KeyKind, KeyRequest};
use cerium_ckks::params::{BootstrapSpec, Params, ParamsSpec};
use cerium_ckks::wire::{self, HEADER, Kind, ProgramDigest, WireError};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// The system's allocator, which notes the largest allocation of each thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn fresh_rng() -> ChaCha8Rng {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives randomness");
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A small set with levels for bootstrapping, so that it has keys of every kind.
fn params() -> Params {
    let bootstrap = BootstrapSpec { slots_to_coeffs: 1, eval_mod: 1, coeffs_to_slots: 1, log_ratio: 10 };
    let spec = ParamsSpec::insecure(5, 40, 4, 2).unwrap();
    Params::new(ParamsSpec { bootstrap: Some(bootstrap), ..spec }).unwrap()
}

fn words(params: &Params, rng: &mut ChaCha8Rng, basis: Basis) -> Vec<u32> {
    let limb = |p| (0..params.n()).map(move |_| p).collect::<Vec<u32>>();
    let bounds = basis.iter().flat_map(|p| limb(params.modulus(p).value()));
    bounds.map(|q| rng.next_u32() % q).collect()
}

fn seed(rng: &mut ChaCha8Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

/// Reads an object and writes it again.
type Recode = fn(&Params, &[u8]) -> Result<Vec<u8>, WireError>;

fn recode_params(_: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::decode_params(bytes).map(|params| wire::encode_params(&params))
}

fn recode_public_key(params: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::decode_public_key(params, bytes).map(|key| wire::encode_public_key(params, &key).to_vec())
}

fn recode_evaluation_key(params: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::decode_evaluation_key(params, bytes).map(|key| wire::encode_evaluation_key(params, key).to_vec())
}

fn recode_ciphertexts(params: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::decode_ciphertexts(params, bytes)
        .map(|(program, list)| wire::encode_ciphertexts(params, program, &list))
}

/// Seeded ciphertexts come back expanded; here only that they can be read matters.
fn read_ciphertexts(params: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    wire::decode_ciphertexts(params, bytes).map(|_| bytes.to_vec())
}

fn samples(params: &Params, rng: &mut ChaCha8Rng) -> Vec<(&'static str, Kind, Recode, Vec<u8>)> {
    let public = PublicKey::new(params, seed(rng), words(params, rng, params.q_basis())).unwrap();
    let evaluation = |rng: &mut ChaCha8Rng, kind, level| {
        let request = KeyRequest { kind, level };
        let digits = request.digits(params).len();
        let b = (0..digits).flat_map(|_| words(params, rng, request.basis(params))).collect();
        let key = EvaluationKey::new(params, request, seed(rng), b).unwrap();
        wire::encode_evaluation_key(params, key.view(params)).to_vec()
    };
    let ciphertext = |rng: &mut ChaCha8Rng, level, polynomials| {
        let list = (0..polynomials).flat_map(|_| words(params, rng, params.basis(level))).collect();
        Ciphertext::new(params, level, params.scale(level), polynomials, list).unwrap()
    };
    let whole = [ciphertext(rng, Level(3), 2), ciphertext(rng, Level(0), 3)];
    let c0 = words(params, rng, params.basis(Level(1)));
    let seeded = SeededCiphertext::new(params, Level(1), Scale(1e9), seed(rng), c0).unwrap();
    let program = ProgramDigest(seed(rng));
    vec![
        ("parameters", Kind::Params, recode_params, wire::encode_params(params)),
        ("public key", Kind::PublicKey, recode_public_key, wire::encode_public_key(params, &public).to_vec()),
        (
            "relinearization key",
            Kind::EvaluationKey,
            recode_evaluation_key,
            evaluation(rng, KeyKind::Relinearization, Level(2)),
        ),
        (
            "rotation key",
            Kind::EvaluationKey,
            recode_evaluation_key,
            evaluation(rng, KeyKind::Rotation(galois_element(params.log_n(), 3)), Level(2)),
        ),
        (
            "conjugation key",
            Kind::EvaluationKey,
            recode_evaluation_key,
            evaluation(rng, KeyKind::Conjugation, Level(2)),
        ),
        (
            "key to the sparse secret",
            Kind::EvaluationKey,
            recode_evaluation_key,
            evaluation(rng, KeyKind::ToSparse, Level(0)),
        ),
        (
            "key from the sparse secret",
            Kind::EvaluationKey,
            recode_evaluation_key,
            evaluation(rng, KeyKind::FromSparse, params.max_level()),
        ),
        (
            "ciphertexts",
            Kind::Ciphertexts,
            recode_ciphertexts,
            wire::encode_ciphertexts(params, program, &whole),
        ),
        (
            "seeded ciphertext",
            Kind::Ciphertexts,
            read_ciphertexts,
            wire::encode_seeded_ciphertexts(params, program, &[seeded]),
        ),
    ]
}

/// Gives a changed payload the length and hash that belong to it, as an attacker would.
fn reseal(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = bytes.split_at_checked(HEADER)?;
    let digest = cerium_ckks::params::ParamsDigest(header[16..48].try_into().unwrap());
    Some([&wire::header(kind, digest, &[payload])[..], payload].concat())
}

/// Reads from an aligned copy, and checks what reading may do.
fn read(name: &str, recode: Recode, params: &Params, bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut aligned = vec![0u32; bytes.len().div_ceil(4)];
    let aligned: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
    aligned[..bytes.len()].copy_from_slice(bytes);
    LARGEST.set(0);
    let result = recode(params, &aligned[..bytes.len()]);
    let (largest, limit) = (LARGEST.get(), 4 * bytes.len() + (1 << 14));
    assert!(largest <= limit, "{name}: an allocation of {largest} bytes for {} bytes", bytes.len());
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
    }
    result
}

#[test]
fn objects_survive_the_wire() {
    let (params, mut rng) = (params(), fresh_rng());
    for (name, _, recode, bytes) in samples(&params, &mut rng) {
        assert_eq!(read(name, recode, &params, &bytes).as_ref(), Ok(&bytes), "{name}");
    }
    // What is read is what was written, not only the same bytes.
    let c0 = words(&params, &mut rng, params.basis(Level(2)));
    let seeded = SeededCiphertext::new(&params, Level(2), Scale(3e10), seed(&mut rng), c0).unwrap();
    let program = ProgramDigest(seed(&mut rng));
    let bytes = wire::encode_seeded_ciphertexts(&params, program, std::slice::from_ref(&seeded));
    let (found, list) = wire::decode_ciphertexts(&params, &bytes).unwrap();
    assert_eq!((found, list), (program, vec![seeded.expand(&params)]));
}

#[test]
fn any_change_is_noticed() {
    let (params, mut rng) = (params(), fresh_rng());
    for (name, _, recode, bytes) in samples(&params, &mut rng) {
        let positions = (0..HEADER + 80).chain((0..300).map(|_| rng.next_u32() as usize));
        for position in positions.map(|p| p % bytes.len()).collect::<Vec<_>>() {
            let mut changed = bytes.clone();
            changed[position] ^= 1 << (rng.next_u32() % 8);
            assert!(read(name, recode, &params, &changed).is_err(), "{name}: byte {position} flipped");
        }
        for len in (0..HEADER + 80).chain((0..100).map(|_| rng.next_u32() as usize)).map(|l| l % bytes.len())
        {
            let error = read(name, recode, &params, &bytes[..len]).expect_err("a cut object");
            assert!(matches!(error, WireError::Truncated { .. }), "{name} cut to {len}: {error}");
        }
        for extra in [1, 4, 64, 1000] {
            let extended = [&bytes[..], &vec![0; extra]].concat();
            let error = read(name, recode, &params, &extended).expect_err("an extended object");
            assert_eq!(error, WireError::TrailingBytes { extra: extra as u64 }, "{name}");
        }
    }
}

#[test]
fn changes_with_a_new_checksum_are_refused_or_give_a_valid_object() {
    let (params, mut rng) = (params(), fresh_rng());
    for (name, kind, recode, bytes) in samples(&params, &mut rng) {
        let mut outcomes = [0, 0];
        for round in 0..3000 {
            let mut changed = bytes.clone();
            match round % 4 {
                // The descriptions, bit by bit and with extreme values.
                0 => changed[HEADER + round / 4 % 160 % (bytes.len() - HEADER)] ^= 1 << (rng.next_u32() % 8),
                1 => {
                    changed[HEADER + round / 4 % 160 % (bytes.len() - HEADER)] =
                        [0, 127, 128, 255][round / 4 % 4]
                }
                2 => {
                    let position = rng.next_u32() as usize % (bytes.len() - 16) + 16;
                    changed[position] = rng.next_u32() as u8;
                }
                _ => {
                    let len = HEADER + rng.next_u32() as usize % (bytes.len() - HEADER);
                    changed.truncate(len);
                    changed.resize(len + rng.next_u32() as usize % 80, 0xff);
                }
            }
            let sealed = reseal(kind, &changed).unwrap();
            match read(name, recode, &params, &sealed) {
                // There is one way to write an object, so a valid one is written as it was read.
                Ok(again) => {
                    outcomes[0] += 1;
                    assert_eq!(again, sealed, "{name}");
                }
                Err(_) => outcomes[1] += 1,
            }
        }
        println!("{name}: {} valid, {} refused", outcomes[0], outcomes[1]);
        assert!(outcomes[1] > 500, "{name}: the contents are hardly checked");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let (params, mut rng) = (params(), fresh_rng());
    let other = Params::new(ParamsSpec::insecure(5, 40, 4, 2).unwrap()).unwrap();
    let samples = samples(&params, &mut rng);
    let (_, _, _, public) = &samples[1];
    let public_key = |bytes: &[u8]| wire::decode_public_key(&params, bytes).unwrap_err();

    assert_eq!(public_key(b"PK\x03\x04 a zip archive"), WireError::NotCerium);
    assert_eq!(public_key(b""), WireError::Truncated { expected: 128, got: 0 });
    assert_eq!(
        wire::decode_ciphertexts(&params, public).unwrap_err(),
        WireError::Kind { expected: Kind::Ciphertexts, found: Kind::PublicKey as u16 }
    );
    let mut changed = public.clone();
    changed[8] = 9;
    assert_eq!(public_key(&changed), WireError::Version { found: 9 });
    let mut changed = public.clone();
    changed[HEADER + 70] ^= 1;
    assert_eq!(public_key(&changed), WireError::Damaged);
    assert_eq!(
        wire::decode_public_key(&other, public).unwrap_err(),
        WireError::OtherParameters {
            kind: Kind::PublicKey,
            expected: other.digest(),
            found: params.digest()
        }
    );
    let prime = params.moduli()[1].value();
    let mut changed = public.clone();
    let word = HEADER + 64 + 4 * (params.n() + 3);
    changed[word..word + 4].copy_from_slice(&prime.to_le_bytes());
    assert_eq!(
        public_key(&reseal(Kind::PublicKey, &changed).unwrap()),
        WireError::Residue { limb: 1, position: 3, word: prime, prime }
    );
    // A payload of four gigabytes is announced, and not there.
    let mut changed = public.clone();
    changed[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(public_key(&changed), WireError::Truncated { .. }));
    // Words that are not aligned in memory.
    let (_, _, _, key) = &samples[2];
    let mut shifted = vec![0u32; key.len() / 4 + 1];
    let shifted: &mut [u8] = bytemuck::cast_slice_mut(&mut shifted);
    shifted[1..=key.len()].copy_from_slice(key);
    let error = wire::decode_evaluation_key(&params, &shifted[1..=key.len()]).err();
    assert_eq!(error, Some(WireError::Unaligned(Kind::EvaluationKey)));
}
