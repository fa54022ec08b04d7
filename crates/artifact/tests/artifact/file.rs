//! The file format: what is written is read; anything else is an error, cheaply.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::sample::{fresh_rng, sample};
use cerium_artifact::{Artifact, ArtifactError, VERSION};
use rand_core::RngCore;

/// Counts the bytes that this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|sum| sum.set(sum.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Puts the right checksum under changed bytes, as an adversary would.
fn seal(bytes: &mut [u8]) {
    let content = bytes.len() - 32;
    let checksum = blake3::hash(&bytes[..content]);
    bytes[content..].copy_from_slice(checksum.as_bytes());
}

/// Reads bytes that may be anything; the answer must be cheap, and an artifact only if it is valid.
fn read(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    let before = ALLOCATED.get();
    let result = Artifact::from_bytes(bytes);
    let allocated = ALLOCATED.get() - before;
    // All allocations together, freed or not, against a bound for the largest at one time.
    assert!(allocated < 4_000_000 + 200 * bytes.len(), "{allocated} bytes allocated for {}", bytes.len());
    result
}

#[test]
fn round_trip_through_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sample.cerium");
    let artifact = sample();
    artifact.write(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), artifact.to_bytes().unwrap());
    assert_eq!(Artifact::read(&path).unwrap(), artifact);
    assert_eq!(artifact.to_bytes().unwrap().last_chunk(), Some(&artifact.digest().unwrap()));
    // Written over, and nothing is left beside it.
    let other = Artifact { name: "other".into(), ..artifact };
    other.write(&path).unwrap();
    assert_eq!(Artifact::read(&path).unwrap().name, "other");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = Artifact::read("/nowhere/p.cerium".as_ref()).unwrap_err();
    assert!(matches!(error, ArtifactError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("cerium compile"), "{error}");
    let error = sample().write("/nowhere/p.cerium".as_ref()).unwrap_err();
    assert!(error.to_string().contains("cannot write the artifact /nowhere/p.cerium"), "{error}");
}

#[test]
fn another_version_is_named() {
    let mut bytes = sample().to_bytes().unwrap();
    bytes[8] += 1;
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, ArtifactError::OtherVersion { found, .. } if found == VERSION + 1), "{error}");
}

#[test]
fn something_else_is_no_artifact() {
    for bytes in [&b""[..], b"CERPROG", b"\x89PNG\r\n\x1a\n and more than that"] {
        assert!(matches!(read(bytes), Err(ArtifactError::NotAnArtifact)));
    }
}

#[test]
fn every_truncation_is_damage() {
    let bytes = sample().to_bytes().unwrap();
    for length in 8..bytes.len() {
        let error = read(&bytes[..length]).expect_err("it is too short");
        assert!(matches!(error, ArtifactError::Damaged(_)), "{length}: {error}");
        if length >= 8 + 4 + 32 {
            let mut sealed = bytes[..length].to_vec();
            seal(&mut sealed);
            read(&sealed).expect_err("it is too short");
        }
    }
}

#[test]
fn every_extension_is_damage() {
    let mut bytes = sample().to_bytes().unwrap();
    for _ in 0..200 {
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(ArtifactError::Damaged(_))));
        let mut sealed = bytes.clone();
        seal(&mut sealed);
        assert!(matches!(read(&sealed), Err(ArtifactError::Damaged(_))));
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let bytes = sample().to_bytes().unwrap();
    let mut rng = fresh_rng();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 + (rng.next_u32() % 255) as u8;
        let error = read(&damaged).expect_err("the checksum covers every byte");
        assert!(!error.to_string().is_empty());
    }
}

/// With the checksum recomputed, damage reaches the parser and validation.
#[test]
fn sealed_damage_is_an_error_or_a_valid_artifact() {
    let bytes = sample().to_bytes().unwrap();
    let mut rng = fresh_rng();
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + round % 4 {
            let at = 12 + rng.next_u32() as usize % (bytes.len() - 44);
            damaged[at] = match rng.next_u32() % 3 {
                0 => 0xff,
                1 => damaged[at] ^ 1 << (rng.next_u32() % 8),
                _ => rng.next_u32() as u8,
            };
        }
        seal(&mut damaged);
        if let Ok(artifact) = read(&damaged) {
            artifact.validate().expect("what is read is valid");
            accepted += 1;
        }
    }
    assert!(accepted < 20_000);
}

/// Whole sections that claim to be enormous.
#[test]
fn lying_lengths_are_cheap() {
    let bytes = sample().to_bytes().unwrap();
    for field in [16, 24, 32, 40] {
        for length in [1u64 << 20, 1 << 40, 1 << 47, u64::MAX / 4, u64::MAX] {
            let mut damaged = bytes.clone();
            damaged[field..field + 8].copy_from_slice(&length.to_le_bytes());
            seal(&mut damaged);
            assert!(matches!(read(&damaged), Err(ArtifactError::Damaged(_))));
        }
    }
}
