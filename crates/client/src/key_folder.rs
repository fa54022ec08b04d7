//! The folder of a client's keys.
//!
//! ```text
//! FOLDER/secret.key                          readable by its owner only; never leaves the client
//! FOLDER/public.key                          for others who encrypt
//! FOLDER/evaluation/relinearization-L9.key   for the server: copy this folder
//! FOLDER/evaluation/rotation-25-L9.key
//! ```
//!
//! Files are written whole or not at all: under a temporary name first, which is theirs only when they are on
//! the disk. The secret key is written first, so that what is encrypted under the others can always be
//! decrypted, and the public key last: a folder with the one and without the other is *unfinished*, and
//! [`KeyFolder::resume`] goes on where making its keys was interrupted.

use std::fs::{self, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cerium_ckks::ciphertext::PublicKey;
use cerium_ckks::evaluation_key::{EvaluationKey, KEY_FOLDER, KeyRequest};
use cerium_ckks::params::Params;
use cerium_ckks::wire::{self, Encoded};
use zeroize::Zeroizing;

use crate::keygen::{evaluation_key, is_of_secret, public_key};
use crate::{ClientError, SecretKey};

/// Largest file that is read: more than any secret or public key.
const MAX_FILE: u64 = 1 << 30;

/// How the names of unfinished files begin.
const TEMPORARY: &str = ".cerium-";

/// Told how many keys of how many are done.
pub type KeyProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// The keys of a client on disk.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
}

impl KeyFolder {
    /// The folder at a path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> KeyFolder {
        KeyFolder { path: path.into() }
    }

    /// Most bytes of memory that making the keys of `requests` takes on this machine, besides what any process
    /// takes: two of the largest keys, tables of the transforms, and what the threads work on.
    pub fn memory(params: &Params, requests: &[KeyRequest]) -> u64 {
        let (n, primes) = (params.n(), params.moduli().len());
        let keys = requests.iter().map(|request| 2 * request.words(params));
        let largest = keys.max().unwrap_or(0).max(params.q_basis().len() * n);
        // Twiddle factors of a prime are four limbs; a thread works on six.
        let limbs = 4 * primes + 6 * rayon::current_num_threads();
        let errors = params.digits().len() * n;
        (4 * (largest + limbs * n) + errors) as u64
    }

    /// Path of the secret key.
    pub fn secret_key_path(&self) -> PathBuf {
        self.path.join("secret.key")
    }

    /// Path of the public key.
    pub fn public_key_path(&self) -> PathBuf {
        self.path.join("public.key")
    }

    /// Path of an evaluation key.
    pub fn evaluation_key_path(&self, request: KeyRequest) -> PathBuf {
        self.path.join(KEY_FOLDER).join(request.file_name())
    }

    /// Makes and writes a new set of keys: the secret key, exactly the evaluation keys of `requests`, and the
    /// public key. Returns the bytes of all evaluation keys.
    ///
    /// # Errors
    /// A folder with keys in it, keys that the parameters do not have, and what the operating system refuses.
    pub fn create(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        progress: KeyProgress<'_>,
    ) -> Result<u64, ClientError> {
        requests.iter().try_for_each(|request| request.check(params))?;
        secret.check(params)?;
        let evaluation = requests.iter().map(|&request| self.evaluation_key_path(request));
        let mut paths = [self.secret_key_path(), self.public_key_path()].into_iter().chain(evaluation);
        if let Some(path) = paths.find(|path| path.exists()) {
            return Err(ClientError::Exists { path });
        }
        create_dir(&self.path.join(KEY_FOLDER))?;
        let bytes = secret.to_bytes();
        self.write(&self.secret_key_path(), Access::Owner, &[&bytes])?;
        self.resume(params, secret, requests, progress)
    }

    /// Whether making the keys of this folder was interrupted.
    pub fn is_unfinished(&self) -> bool {
        self.secret_key_path().exists() && !self.public_key_path().exists()
    }

    /// Makes and writes what is missing of an unfinished folder; `secret` is its secret key. Evaluation keys that
    /// are there are checked to be whole and of this secret, and kept. Returns the bytes written.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn resume(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        progress: KeyProgress<'_>,
    ) -> Result<u64, ClientError> {
        let written = self.add(params, secret, requests, progress)?;
        if !self.public_key_path().exists() {
            let public = public_key(params, secret)?;
            let Encoded { head, words } = wire::encode_public_key(params, &public);
            self.write(&self.public_key_path(), Access::Everyone, &[&head, words])?;
        }
        Ok(written)
    }

    /// Makes and writes the evaluation keys of `requests` that are not there yet, for a further program under
    /// the secret key of this folder. Returns the bytes written.
    ///
    /// No more than two keys are in memory at a time: one is made while the one before it is written.
    ///
    /// # Errors
    /// A folder at which another process is at work, keys that the parameters do not have, keys that are there
    /// and damaged or of another secret, and what the operating system refuses.
    pub fn add(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        progress: KeyProgress<'_>,
    ) -> Result<u64, ClientError> {
        requests.iter().try_for_each(|request| request.check(params))?;
        create_dir(&self.path.join(KEY_FOLDER))?;
        let _lock = self.lock()?;
        self.remove_temporary_files()?;
        let done = Mutex::new(0);
        let step = || {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            *done += 1;
            progress(*done, requests.len());
        };
        progress(0, requests.len());
        thread::scope(|scope| {
            let (ready, next) = sync_channel(0);
            let writer = scope.spawn(|| self.write_evaluation_keys(params, next, &step));
            let made = requests.iter().try_for_each(|&request| {
                if self.holds(params, secret, request).map_err(Some)? {
                    step();
                    return Ok(());
                }
                // An error is that the writer has gone, which will say why.
                let key = evaluation_key(params, secret, request).map_err(Some)?;
                ready.send(key).map_err(|_| None)
            });
            drop(ready);
            let written = writer.join().expect("writing files does not panic")?;
            match made {
                Err(Some(error)) => Err(error),
                _ => Ok(written),
            }
        })
    }

    /// Writes keys as they come; returns their bytes.
    fn write_evaluation_keys(
        &self,
        params: &Params,
        keys: Receiver<EvaluationKey>,
        step: &dyn Fn(),
    ) -> Result<u64, ClientError> {
        let mut written = 0;
        for key in keys {
            let path = self.evaluation_key_path(key.request());
            let Encoded { head, words } = wire::encode_evaluation_key(params, key.view(params));
            self.write(&path, Access::Everyone, &[&head, words])?;
            written += (head.len() + words.len()) as u64;
            step();
        }
        Ok(written)
    }

    /// Whether the file of an evaluation key is there; then it is a whole one of this secret.
    fn holds(&self, params: &Params, secret: &SecretKey, request: KeyRequest) -> Result<bool, ClientError> {
        let path = self.evaluation_key_path(request);
        if !path.exists() {
            return Ok(false);
        }
        let fail = |source| ClientError::Io { action: "read", path: path.clone(), source };
        let mut file = fs::File::open(&path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > MAX_FILE {
            return Err(fail(io::Error::other("it is larger than any key")));
        }
        // Words of 64 bits, so that those of the key are aligned.
        let mut words = vec![0u64; size.div_ceil(8) as usize];
        let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..size as usize];
        file.read_exact(bytes).map_err(fail)?;
        let key = wire::decode_evaluation_key(params, bytes);
        let key = key.map_err(|source| ClientError::File { path: path.clone(), source })?;
        if key.request() != request || !is_of_secret(params, secret, key) {
            return Err(ClientError::OtherKey { path });
        }
        Ok(true)
    }

    /// Keeps others from working at this folder for as long as the lock lives, or the process.
    fn lock(&self) -> Result<fs::File, ClientError> {
        let path = self.secret_key_path();
        let fail = |source| ClientError::Io { action: "lock", path: path.clone(), source };
        let file = fs::File::open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(ClientError::Busy { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(fail(source)),
        }
    }

    /// Removes what a process that was killed has left.
    fn remove_temporary_files(&self) -> Result<(), ClientError> {
        let fail = |source| ClientError::Io { action: "clean", path: self.path.clone(), source };
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                fs::remove_file(entry.path()).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Writes a file that must not exist yet: to a temporary one, made durable, then renamed. Temporary files lie in
    /// the folder itself, so that there are never any among the keys for the server.
    fn write(&self, path: &Path, access: Access, parts: &[&[u8]]) -> Result<(), ClientError> {
        let fail = |source| ClientError::Io { action: "write", path: path.into(), source };
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        // Temporary files are for their owner only until told otherwise.
        #[cfg(unix)]
        if access == Access::Everyone {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o644));
        }
        let mut file = builder.tempfile_in(&self.path).map_err(fail)?;
        parts.iter().try_for_each(|part| file.write_all(part)).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(()),
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ClientError::Exists { path: path.into() })
            }
            Err(refused) => Err(fail(refused.error)),
        }
    }

    /// Reads the secret key.
    ///
    /// # Errors
    /// A missing file, one that others can read, and one that holds no secret key of `params`.
    pub fn secret_key(&self, params: &Params) -> Result<SecretKey, ClientError> {
        let path = self.secret_key_path();
        let bytes = read(&path, Access::Owner)?;
        SecretKey::from_bytes(params, &bytes).map_err(|source| ClientError::File { path, source })
    }

    /// Reads the public key.
    ///
    /// # Errors
    /// A missing file, and one that holds no public key of `params`.
    pub fn public_key(&self, params: &Params) -> Result<PublicKey, ClientError> {
        let path = self.public_key_path();
        let bytes = read(&path, Access::Everyone)?;
        wire::decode_public_key(params, &bytes).map_err(|source| ClientError::File { path, source })
    }
}

/// Who may read a file.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    Owner,
    Everyone,
}

fn create_dir(path: &Path) -> Result<(), ClientError> {
    fs::create_dir_all(path).map_err(|source| ClientError::Io {
        action: "create the folder",
        path: path.into(),
        source,
    })
}

/// Reads a file. One for its owner only must not be open to others, as with ssh: a secret that could have
/// been read is no secret.
fn read(path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ClientError::Missing { path: path.into() },
        _ => ClientError::Io { action: "read", path: path.into(), source },
    };
    let file = fs::File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    #[cfg(unix)]
    if access == Access::Owner {
        use std::os::unix::fs::MetadataExt;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ClientError::Permissions { path: path.into(), mode });
        }
    }
    if metadata.len() > MAX_FILE {
        return Err(fail(io::Error::other("it is larger than any key")));
    }
    // With room to spare, so that the secret is not left behind by a reallocation.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    (&file).take(metadata.len()).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}
