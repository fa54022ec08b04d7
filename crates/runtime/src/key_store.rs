//! Evaluation keys at the server: found, checked, expanded.
//!
//! A key is a pair of halves for each digit and prime: the `b` half stands in a file, the `a` half is grown from the seed
//! in it. Secrets are not needed and not read.
//!
//! In memory the limbs of a key stand one after the other, those of a prime together.

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

/// The evaluation keys of one program, in the order of its manifest.
#[derive(Debug, Default)]
pub struct KeyStore {
    digest: Option<ParamsDigest>,
    n: usize,
    keys: Vec<StoredKey>,
    words: Pages,
}

/// Where a key stands in the store.
#[derive(Debug)]
struct StoredKey {
    request: KeyRequest,
    digits: usize,
    basis: Basis,
    /// Position of the first word.
    start: usize,
}

/// A key as it was found, possibly one for a higher level than asked for.
#[derive(Debug)]
struct FoundKey {
    request: KeyRequest,
    seed: Seed,
    source: Source,
    /// Basis of the key found.
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
        FoundKey { request, seed, source, held: held.basis(params), digits }
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

    /// Fills the part of the store for one prime: both halves of one digit after the other.
    fn fill(&self, params: &Params, prime: PrimeIndex, words: &mut [u32]) {
        let n = params.n();
        for (&held, halves) in self.digits.iter().zip(words.chunks_exact_mut(2 * n)) {
            let (b, a) = halves.split_at_mut(n);
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
        KeyStore::fill(params, found?, threads, progress)
    }

    /// A store of keys in memory, made under `params`, for `manifest`.
    pub fn from_keys(
        params: &Params,
        manifest: &[KeyRequest],
        mut keys: Vec<EvaluationKey>,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<KeyStore, KeyStoreError> {
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
        KeyStore::fill(params, all, threads, progress)
    }

    fn fill(
        params: &Params,
        found: Vec<FoundKey>,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<KeyStore, KeyStoreError> {
        let n = params.n();
        let mut total = 0;
        let place = |key: &FoundKey| {
            let (digits, basis, start) = (key.digits.len(), key.request.basis(params), total);
            total += 2 * digits * basis.len() * n;
            StoredKey { request: key.request, digits, basis, start }
        };
        let keys: Vec<StoredKey> = found.iter().map(place).collect();
        let mut words =
            Pages::new(total).map_err(|_| KeyStoreError::OutOfMemory { bytes: 4 * total as u64 })?;
        let limbs = keys.iter().map(|key| 2 * key.digits * key.basis.len()).sum();
        let (counter, pool) = (Counter::new(progress, "expanding keys", limbs), preparation_pool(threads));
        let mut rest = words.words_mut();
        // One key after the other, so that what was found of it is given back before the next takes its place.
        for (key, found) in keys.iter().zip(found) {
            let (own, others) = rest.split_at_mut(2 * key.digits * key.basis.len() * n);
            rest = others;
            let primes: Vec<PrimeIndex> = key.basis.iter().collect();
            let jobs = primes.into_iter().zip(own.chunks_exact_mut((2 * key.digits * n).max(1)));
            let fill = |(prime, words): (PrimeIndex, &mut [u32])| {
                found.fill(params, prime, words);
                (0..2 * key.digits).for_each(|_| counter.step());
            };
            match &pool {
                Some(pool) => pool.install(|| jobs.collect::<Vec<_>>().into_par_iter().for_each(fill)),
                None => jobs.for_each(fill),
            }
        }
        Ok(KeyStore { digest: Some(params.digest()), n, keys, words })
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
    /// Panics if there is no such limb.
    pub fn limb(&self, key: usize, digit: usize, half: Half, prime: PrimeIndex) -> &[u32] {
        let stored = &self.keys[key];
        assert!(digit < stored.digits, "digit {digit} of a key of {}", stored.digits);
        let half = match half {
            Half::B => 0,
            Half::A => 1,
        };
        let limb = 2 * (position(stored.basis, prime) * stored.digits + digit) + half;
        &self.words.words()[stored.start + limb * self.n..][..self.n]
    }

    /// Bytes of both halves of all keys.
    pub fn bytes(&self) -> u64 {
        let words = |key: &StoredKey| 2 * (key.digits * key.basis.len() * self.n) as u64;
        4 * self.keys.iter().map(words).sum::<u64>()
    }
}
