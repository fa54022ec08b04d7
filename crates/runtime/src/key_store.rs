//! Evaluation keys at the server: found, checked, expanded.
//!
//! A key is a pair of halves for each digit and prime: the `b` half stands in a file, the `a` half is grown from the seed
//! in it. Secrets are not needed and not read.
//!
//! In memory the limbs of a key stand one after the other, those of a prime together. Of several devices each has a store, with
//! the limbs that its part of the program reads.

mod part;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cerium_artifact::kernel::Half;
use cerium_ckks::basis::{Basis, Level, PrimeIndex};
use cerium_ckks::evaluation_key::{EvaluationKey, KeyRequest};
use cerium_ckks::params::{Params, ParamsDigest};
use cerium_ckks::uniform::{Seed, uniform_limb};
use cerium_ckks::wire::{self, WireError};
use memmap2::Mmap;
use rayon::prelude::*;

pub use part::KeyPart;

use crate::memory::Pages;
use crate::preparation_pool;
use crate::progress::{Counter, Progress};

/// Folder of the evaluation keys within a key folder.
pub const FOLDER: &str = "evaluation";

/// Why keys could not be loaded or do not fit a program.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// No file for a key.
    #[error(
        "evaluation key {request} is missing in {}; `cerium keygen PROGRAM.cerium -o DIR` makes the keys of a program",
        folder.display()
    )]
    Missing {
        /// The key.
        request: KeyRequest,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot read the evaluation key {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// The file is not a good key of these parameters.
    #[error("{} cannot be used; `cerium keygen PROGRAM.cerium -o DIR` makes new keys", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WireError,
    },
    /// The file holds another key than its name says.
    #[error("{} holds the key {found} instead; `cerium keygen PROGRAM.cerium -o DIR` makes new keys", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: KeyRequest,
    },
    /// The expanded keys do not fit into memory.
    #[error("{bytes} bytes of evaluation keys do not fit into memory; use a larger machine")]
    OutOfMemory {
        /// What they need.
        bytes: u64,
    },
    /// A program was given keys that were loaded for another one.
    #[error("the program needs the evaluation key {request}, the keys were loaded for another program")]
    OtherProgram {
        /// The first key that is missing.
        request: KeyRequest,
    },
    /// A program was given keys of other parameters.
    #[error(
        "the keys were made under parameters {given}, the program works under {expected}; make keys for it"
    )]
    OtherParams {
        /// Those of the keys.
        given: ParamsDigest,
        /// Those of the program.
        expected: ParamsDigest,
    },
}

/// The evaluation keys of one program, in the order of its manifest, or the part of them that one device reads.
#[derive(Debug, Default)]
pub struct KeyStore {
    digest: Option<ParamsDigest>,
    n: usize,
    keys: Vec<StoredKey>,
    words: Pages,
    identity: [u8; 32],
}

/// Where a key stands in the store.
#[derive(Debug)]
struct StoredKey {
    request: KeyRequest,
    digits: usize,
    basis: Basis,
    /// Position of the first word.
    start: usize,
    /// For each prime of the basis and each digit which one of the limbs in the store it is, [`ABSENT`] if it is none of them;
    /// empty if all are there.
    places: Vec<u32>,
}

/// Not in the store.
const ABSENT: u32 = u32::MAX;

impl StoredKey {
    fn new(params: &Params, request: KeyRequest, limbs: &[(PrimeIndex, usize)], start: usize) -> StoredKey {
        let (digits, basis) = (request.digits(params).len(), request.basis(params));
        let mut places = Vec::new();
        if limbs.len() < digits * basis.len() {
            places = vec![ABSENT; digits * basis.len()];
            for (place, &(prime, digit)) in (0..).zip(limbs) {
                places[position(basis, prime) * digits + digit] = place;
            }
        }
        StoredKey { request, digits, basis, start, places }
    }

    /// Which of the limbs in the store it is.
    fn place(&self, digit: usize, prime: PrimeIndex) -> usize {
        let index = position(self.basis, prime) * self.digits + digit;
        let place = if self.places.is_empty() { index } else { self.places[index] as usize };
        assert!(place != ABSENT as usize, "{prime} of digit {digit} is not in this part of the key");
        place
    }
}

/// A key as it was found, possibly one for a higher level than asked for.
#[derive(Debug)]
struct FoundKey {
    request: KeyRequest,
    seed: Seed,
    source: Source,
    /// What the key found is for.
    held_request: KeyRequest,
    /// Its basis.
    held: Basis,
    /// Digit of the key found for each digit of the request.
    digits: Vec<usize>,
}

#[derive(Debug)]
enum Source {
    Mapped { map: Mmap, words: Range<usize> },
    Owned(EvaluationKey),
}

impl FoundKey {
    fn new(params: &Params, request: KeyRequest, held: KeyRequest, seed: Seed, source: Source) -> FoundKey {
        // A digit of the request is a part of one of the key.
        let held_digits = held.digits(params);
        let position = |digit: Basis| held_digits.iter().position(|&whole| digit.is_subset(whole));
        let digits = request.digits(params).into_iter().filter_map(position).collect();
        FoundKey { request, seed, source, held_request: held, held: held.basis(params), digits }
    }

    /// The limb of the `b` half for a digit of the key found and a prime.
    fn b(&self, digit: usize, prime: PrimeIndex, n: usize) -> &[u32] {
        let words = match &self.source {
            Source::Mapped { map, words } => bytemuck::cast_slice(&map[words.clone()]),
            Source::Owned(key) => key.words(),
        };
        let limb = digit * self.held.len() + position(self.held, prime);
        &words[limb * n..][..n]
    }

    /// Fills limbs of the store modulo one prime: both halves of one digit after the other.
    fn fill(&self, params: &Params, limbs: &[(PrimeIndex, usize)], words: &mut [u32]) {
        let n = params.n();
        for (&(prime, digit), halves) in limbs.iter().zip(words.chunks_exact_mut(2 * n)) {
            let (b, a) = halves.split_at_mut(n);
            let held = self.digits[digit];
            b.copy_from_slice(self.b(held, prime, n));
            uniform_limb(&self.seed, held, prime, params.modulus(prime), a);
        }
    }
}

/// Finds the file for a request, or for the lowest level above it, and maps it.
fn open(folder: &Path, params: &Params, request: KeyRequest) -> Result<FoundKey, KeyStoreError> {
    let levels = request.level.0..=params.max_level().0;
    let candidates = levels.map(|level| KeyRequest { kind: request.kind, level: Level(level) });
    for wanted in candidates {
        let path = folder.join(wanted.file_name());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(KeyStoreError::Io { path, source }),
        };
        // SAFETY: the words are read as plain numbers, so changed bytes give wrong results but no worse. A file cut
        // short would end the process; the documentation of `KeyStore::open` asks not to.
        let map = match unsafe { Mmap::map(&file) } {
            Ok(map) => map,
            Err(source) => return Err(KeyStoreError::Io { path, source }),
        };
        let key = match wire::decode_evaluation_key(params, &map) {
            Ok(key) => key,
            Err(source) => return Err(KeyStoreError::File { path, source }),
        };
        let (held, seed) = (key.request(), *key.seed());
        if held != wanted {
            return Err(KeyStoreError::OtherKey { path, found: held });
        }
        let start = key.words().as_ptr() as usize - map.as_ptr() as usize;
        let words = start..start + 4 * key.words().len();
        return Ok(FoundKey::new(params, request, held, seed, Source::Mapped { map, words }));
    }
    Err(KeyStoreError::Missing { request, folder: folder.to_owned() })
}

fn position(basis: Basis, prime: PrimeIndex) -> usize {
    basis.position(prime).unwrap_or_else(|| panic!("{prime} is not a prime of the key, {basis}"))
}

impl KeyStore {
    /// Reads the keys of `manifest` from `keys/evaluation`, checks them completely, and grows their uniform halves
    /// with `threads` threads (0: one for each core). A key for a higher level than asked for also serves.
    ///
    /// The files must not be changed in the meantime.
    pub fn open(
        keys: &Path,
        params: &Params,
        manifest: &[KeyRequest],
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<KeyStore, KeyStoreError> {
        let whole = KeyPart::whole(params, manifest);
        let mut stores = KeyStore::open_parts(keys, params, manifest, &[whole], threads, progress)?;
        Ok(stores.remove(0))
    }

    /// As [`KeyStore::open`], a store for each of `parts` of the manifest; every file is read once.
    pub fn open_parts(
        keys: &Path,
        params: &Params,
        manifest: &[KeyRequest],
        parts: &[KeyPart],
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<KeyStore>, KeyStoreError> {
        let folder = keys.join(FOLDER);
        let pool = preparation_pool(threads);
        let counter = Counter::new(progress, "checking keys", manifest.len());
        let open = |&request: &KeyRequest| {
            let key = open(&folder, params, request)?;
            counter.step();
            Ok(key)
        };
        let found: Result<Vec<FoundKey>, KeyStoreError> = match &pool {
            Some(pool) => pool.install(|| manifest.par_iter().map(open).collect()),
            None => manifest.iter().map(open).collect(),
        };
        KeyStore::fill(params, found?, parts, threads, progress)
    }

    /// A store of keys in memory, made under `params`, for `manifest`.
    pub fn from_keys(
        params: &Params,
        manifest: &[KeyRequest],
        keys: Vec<EvaluationKey>,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<KeyStore, KeyStoreError> {
        let whole = KeyPart::whole(params, manifest);
        let mut stores = KeyStore::parts_of_keys(params, manifest, keys, &[whole], threads, progress)?;
        Ok(stores.remove(0))
    }

    /// As [`KeyStore::from_keys`], a store for each of `parts` of the manifest.
    pub fn parts_of_keys(
        params: &Params,
        manifest: &[KeyRequest],
        mut keys: Vec<EvaluationKey>,
        parts: &[KeyPart],
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<KeyStore>, KeyStoreError> {
        let mut all = Vec::with_capacity(manifest.len());
        for &request in manifest {
            let serves = |key: &EvaluationKey| {
                key.request().kind == request.kind && key.request().level >= request.level
            };
            let found = keys.iter().position(serves);
            let found = found
                .ok_or_else(|| KeyStoreError::Missing { request, folder: "the keys in memory".into() })?;
            let key = keys.swap_remove(found);
            let (held, seed) = (key.request(), *key.seed());
            all.push(FoundKey::new(params, request, held, seed, Source::Owned(key)));
        }
        KeyStore::fill(params, all, parts, threads, progress)
    }

    fn fill(
        params: &Params,
        found: Vec<FoundKey>,
        parts: &[KeyPart],
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<KeyStore>, KeyStoreError> {
        let n = params.n();
        let mut identity = blake3::Hasher::new();
        identity.update(&params.digest().0);
        for key in &found {
            identity.update(key.held_request.to_string().as_bytes()).update(&key.seed);
        }
        let identity = *identity.finalize().as_bytes();
        let empty = |part: &KeyPart| {
            let mut total = 0;
            let keys = found.iter().enumerate().map(|(index, key)| {
                let limbs = part.key(index);
                let start = total;
                total += 2 * limbs.len() * n;
                StoredKey::new(params, key.request, limbs, start)
            });
            let keys = keys.collect();
            let bytes = 4 * total as u64;
            let words = Pages::new(total).map_err(|_| KeyStoreError::OutOfMemory { bytes })?;
            Ok(KeyStore { digest: Some(params.digest()), n, keys, words, identity })
        };
        let mut stores = parts.iter().map(empty).collect::<Result<Vec<KeyStore>, KeyStoreError>>()?;
        let limbs = stores.iter().map(|store| store.words.words().len() / n).sum();
        let (counter, pool) = (Counter::new(progress, "expanding keys", limbs), preparation_pool(threads));
        let mut rests: Vec<&mut [u32]> = stores.iter_mut().map(|store| store.words.words_mut()).collect();
        // One key after the other, so that what was found of it is given back before the next takes its place.
        for (index, found) in found.into_iter().enumerate() {
            let mut jobs = Vec::new();
            for (part, rest) in parts.iter().zip(&mut rests) {
                for limbs in part.key(index).chunk_by(|a, b| a.0 == b.0) {
                    let (own, others) = std::mem::take(rest).split_at_mut(2 * limbs.len() * n);
                    *rest = others;
                    jobs.push((limbs, own));
                }
            }
            let fill = |(limbs, words): (&[(PrimeIndex, usize)], &mut [u32])| {
                found.fill(params, limbs, words);
                (0..2 * limbs.len()).for_each(|_| counter.step());
            };
            match &pool {
                Some(pool) => pool.install(|| jobs.into_par_iter().for_each(fill)),
                None => jobs.into_iter().for_each(fill),
            }
        }
        Ok(stores)
    }

    /// What tells these keys from others for the same manifest, and is the same for all parts of them: a hash over the seeds
    /// that they were made from.
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Checks that these are the keys of a manifest, made under `params`.
    pub fn check(&self, params: &Params, manifest: &[KeyRequest]) -> Result<(), KeyStoreError> {
        let expected = params.digest();
        if let Some(given) = self.digest.filter(|&given| given != expected) {
            return Err(KeyStoreError::OtherParams { given, expected });
        }
        let held = self.keys.iter().map(|key| Some(key.request)).chain(std::iter::repeat(None));
        match manifest.iter().zip(held).find(|&(&request, held)| held != Some(request)) {
            Some((&request, _)) => Err(KeyStoreError::OtherProgram { request }),
            None => Ok(()),
        }
    }

    /// The keys that it holds, in order.
    pub fn requests(&self) -> impl Iterator<Item = KeyRequest> {
        self.keys.iter().map(|key| key.request)
    }

    /// A limb of a key: `digit` and `prime` are those of the manifest's entry. Evaluation domain, Montgomery form.
    /// Panics if there is no such limb in the store.
    pub fn limb(&self, key: usize, digit: usize, half: Half, prime: PrimeIndex) -> &[u32] {
        let stored = &self.keys[key];
        assert!(digit < stored.digits, "digit {digit} of a key of {}", stored.digits);
        let half = match half {
            Half::B => 0,
            Half::A => 1,
        };
        let limb = 2 * stored.place(digit, prime) + half;
        &self.words.words()[stored.start + limb * self.n..][..self.n]
    }

    /// Bytes of both halves of all limbs.
    pub fn bytes(&self) -> u64 {
        4 * self.words.words().len() as u64
    }
}
