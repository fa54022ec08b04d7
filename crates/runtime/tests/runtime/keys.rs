//! The key store: what it finds, what it refuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cerium_artifact::kernel::Half;
use cerium_artifact::{Operand, Step};
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::{EvaluationKey, KeyKind, KeyRequest};
use cerium_ckks::params::Params;
use cerium_ckks::wire;
use cerium_runtime::key_store::KeyPart;
use cerium_runtime::progress::silent;
use cerium_runtime::suite::Case;
use cerium_runtime::suite::random::small_params;
use cerium_runtime::suite::random_key;
use cerium_runtime::{KeyStore, KeyStoreError};
use rand_core::RngCore;

use crate::fresh_rng;

fn write(folder: &Path, params: &Params, key: &EvaluationKey, name: &str) {
    fs::create_dir_all(folder.join("evaluation")).unwrap();
    let bytes = wire::encode_evaluation_key(params, key.view(params)).to_vec();
    fs::write(folder.join("evaluation").join(name), bytes).unwrap();
}

/// Every limb of the store against the key's own view, digit by digit of the parameter set.
fn same(store: &KeyStore, index: usize, params: &Params, request: KeyRequest, key: &EvaluationKey) {
    let view = key.view(params);
    let held = key.request().digits(params);
    let mut expanded = vec![0; params.n()];
    for (digit, part) in request.digits(params).iter().enumerate() {
        let stored = held.iter().position(|whole| part.is_subset(*whole)).unwrap();
        for prime in request.basis(params).iter() {
            assert!(store.limb(index, digit, Half::B, prime) == view.b(stored, prime).unwrap());
            view.expand_a(params, stored, prime, &mut expanded);
            assert!(store.limb(index, digit, Half::A, prime) == expanded);
        }
    }
}

#[test]
fn keys_are_found_also_at_a_higher_level() {
    let mut rng = fresh_rng();
    let params = Params::new(small_params(5)).unwrap();
    let rotation = KeyKind::Rotation(galois_element(5, 3));
    let manifest: Vec<KeyRequest> = [(KeyKind::Relinearization, 3), (rotation, 0), (KeyKind::Conjugation, 1)]
        .map(|(kind, level)| KeyRequest { kind, level: Level(level) })
        .into();
    // The rotation key is held at the top level only.
    let held = [manifest[0], KeyRequest { level: params.max_level(), ..manifest[1] }, manifest[2]];
    let keys: Vec<EvaluationKey> =
        held.iter().map(|&request| random_key(&mut rng, &params, request)).collect();
    let folder = tempfile::tempdir().unwrap();
    for (request, key) in held.iter().zip(&keys) {
        write(folder.path(), &params, key, &request.file_name());
    }
    for threads in [1, 2] {
        let mapped = KeyStore::open(folder.path(), &params, &manifest, threads, &silent).unwrap();
        let owned = KeyStore::from_keys(&params, &manifest, keys.clone(), threads, &silent).unwrap();
        for store in [mapped, owned] {
            for (index, (&request, key)) in manifest.iter().zip(&keys).enumerate() {
                same(&store, index, &params, request, key);
            }
            let words: usize = manifest.iter().map(|request| 2 * request.words(&params)).sum();
            assert_eq!(store.bytes(), 4 * words as u64);
            assert!(store.requests().eq(manifest.iter().copied()));
            store.check(&params, &manifest).unwrap();
        }
    }
}

#[test]
fn a_missing_key_is_named_with_the_command_that_makes_it() {
    let params = Params::new(small_params(5)).unwrap();
    let request = KeyRequest { kind: KeyKind::Relinearization, level: Level(2) };
    let folder = tempfile::tempdir().unwrap();
    let lower = KeyRequest { level: Level(1), ..request };
    write(folder.path(), &params, &random_key(&mut fresh_rng(), &params, lower), &lower.file_name());
    let error = KeyStore::open(folder.path(), &params, &[request], 1, &silent).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("relinearization-L2 is missing") && message.contains("cerium keygen"),
        "{message}"
    );
    assert!(KeyStore::open(Path::new("/nowhere"), &params, &[request], 1, &silent).is_err());
    assert!(KeyStore::from_keys(&params, &[request], vec![], 1, &silent).is_err());
}

#[test]
fn files_that_are_no_such_key_are_refused() {
    let mut rng = fresh_rng();
    let params = Params::new(small_params(5)).unwrap();
    let request = KeyRequest { kind: KeyKind::Relinearization, level: Level(1) };
    let folder = tempfile::tempdir().unwrap();
    let open = || KeyStore::open(folder.path(), &params, &[request], 1, &silent);
    let key = random_key(&mut rng, &params, request);
    let name = request.file_name();
    write(folder.path(), &params, &key, &name);
    open().unwrap();

    let path = folder.path().join("evaluation").join(&name);
    let good = fs::read(&path).unwrap();
    let mut damaged = good.clone();
    let at = rng.next_u32() as usize % good.len();
    damaged[at] ^= 1 << (rng.next_u32() % 8);
    for bytes in [&damaged[..], &good[..good.len() - 1], &[]] {
        fs::write(&path, bytes).unwrap();
        let error = open().unwrap_err();
        // An empty file may not even be mappable.
        assert!(matches!(error, KeyStoreError::File { .. } | KeyStoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    }

    let other = KeyRequest { kind: KeyKind::Conjugation, ..request };
    write(folder.path(), &params, &random_key(&mut rng, &params, other), &name);
    let error = open().unwrap_err();
    assert!(matches!(error, KeyStoreError::OtherKey { found, .. } if found == other), "{error}");

    let foreign = Params::new(small_params(6)).unwrap();
    write(folder.path(), &foreign, &random_key(&mut rng, &foreign, request), &name);
    let error = open().unwrap_err();
    assert!(matches!(error, KeyStoreError::File { .. }), "{error}");
}

#[test]
fn keys_of_another_program_or_parameters_do_not_fit() {
    let mut rng = fresh_rng();
    let params = Params::new(small_params(5)).unwrap();
    let request = KeyRequest { kind: KeyKind::Relinearization, level: Level(1) };
    let keys = vec![random_key(&mut rng, &params, request)];
    let store = KeyStore::from_keys(&params, &[request], keys, 1, &silent).unwrap();
    let other = KeyRequest { kind: KeyKind::Conjugation, ..request };
    for manifest in [&[other][..], &[request, other]] {
        let error = store.check(&params, manifest).unwrap_err();
        assert!(matches!(error, KeyStoreError::OtherProgram { request } if request == other), "{error}");
    }
    let foreign = Params::new(small_params(6)).unwrap();
    let error = store.check(&foreign, &[request]).unwrap_err();
    assert!(matches!(error, KeyStoreError::OtherParams { .. }), "{error}");
}

#[test]
fn parts_hold_what_is_read_and_nothing_else() {
    let mut rng = fresh_rng();
    for devices in [2, 5] {
        let Case { artifact, params, keys, .. } = Case::random_on(&mut rng, 5, devices);
        let whole = KeyStore::from_keys(&params, &artifact.keys, keys.clone(), 1, &silent).unwrap();
        let parts = KeyPart::all(&artifact, &params);
        let stores =
            KeyStore::parts_of_keys(&params, &artifact.keys, keys.clone(), &parts, 2, &silent).unwrap();
        for ((store, part), functions) in stores.iter().zip(&parts).zip(&artifact.programs) {
            assert_eq!(store.bytes(), part.bytes(&params));
            assert_eq!(store.identity(), whole.identity());
            store.check(&params, &artifact.keys).unwrap();
            let mut read = BTreeSet::new();
            for step in functions.iter().flat_map(|function| &function.steps) {
                let Step::Launch(kernel) = step else { continue };
                for load in kernel.body.blocks().flat_map(|block| &block.loads) {
                    let Operand::Key { key, digit, half, prime } = *load else { continue };
                    let limb =
                        |store: &KeyStore| store.limb(key as usize, digit.into(), half, prime).to_vec();
                    assert!(limb(store) == limb(&whole));
                    read.insert((key, digit, prime));
                }
            }
            assert_eq!(store.bytes(), 8 * (read.len() * params.n()) as u64);
        }
    }
    // One device has all of them.
    let Case { artifact, params, keys, .. } = Case::random(&mut rng, 5);
    let whole = KeyStore::from_keys(&params, &artifact.keys, keys, 1, &silent).unwrap();
    assert_eq!(KeyPart::all(&artifact, &params)[0].bytes(&params), whole.bytes());
    // Other keys for the same manifest are others.
    let other = artifact.keys.iter().map(|&request| random_key(&mut rng, &params, request)).collect();
    let other = KeyStore::from_keys(&params, &artifact.keys, other, 1, &silent).unwrap();
    assert_ne!(other.identity(), whole.identity());
}
