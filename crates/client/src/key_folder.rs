//! The folder of a client's keys.
//!
//! ```text
//! FOLDER/secret.key                          readable by its owner only; never leaves the client
//! FOLDER/public.key                          for others who encrypt
//! FOLDER/evaluation/relinearization-L9.key   for the server: copy this folder
//! FOLDER/evaluation/rotation-25-L9.key
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cerium_ckks::ciphertext::PublicKey;
use cerium_ckks::evaluation_key::{KEY_FOLDER, KeyRequest};
use cerium_ckks::params::Params;
use cerium_ckks::wire::{self, Encoded};
use zeroize::Zeroizing;

use crate::keygen::{evaluation_key, public_key};
use crate::{ClientError, SecretKey};

/// Largest file that is read: more than any secret or public key.
const MAX_FILE: u64 = 1 << 30;

/// The keys of a client on disk. Files are written whole or not at all: under a temporary name first.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
}

impl KeyFolder {
    /// The folder at a path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> KeyFolder {
        KeyFolder { path: path.into() }
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

    /// Makes and writes a new set of keys: the secret key, the public key and exactly the evaluation keys of
    /// `requests`. The secret key is written first, so that what is encrypted under the others can always be
    /// decrypted. `progress` is told how many keys of how many are done. Returns the bytes of all evaluation
    /// keys.
    ///
    /// # Errors
    /// A folder with keys in it, keys that the parameters do not have, and what the operating system refuses.
    pub fn create(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        progress: &dyn Fn(usize, usize),
    ) -> Result<u64, ClientError> {
        requests.iter().try_for_each(|request| request.check(params))?;
        secret.check(params)?;
        create_dir(&self.path.join(KEY_FOLDER))?;
        let bytes = secret.to_bytes();
        write(&self.secret_key_path(), Access::Owner, &[&bytes])?;
        let public = public_key(params, secret)?;
        let Encoded { head, words } = wire::encode_public_key(params, &public);
        write(&self.public_key_path(), Access::Everyone, &[&head, words])?;
        self.write_evaluation_keys(params, secret, requests, false, progress)
    }

    /// Makes and writes the evaluation keys of `requests` that are not there yet, for a further program under
    /// the secret key of this folder. Returns the bytes written.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn add(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        progress: &dyn Fn(usize, usize),
    ) -> Result<u64, ClientError> {
        create_dir(&self.path.join(KEY_FOLDER))?;
        self.write_evaluation_keys(params, secret, requests, true, progress)
    }

    fn write_evaluation_keys(
        &self,
        params: &Params,
        secret: &SecretKey,
        requests: &[KeyRequest],
        keep: bool,
        progress: &dyn Fn(usize, usize),
    ) -> Result<u64, ClientError> {
        let mut written = 0;
        progress(0, requests.len());
        for (done, &request) in requests.iter().enumerate() {
            let path = self.evaluation_key_path(request);
            if !(keep && path.exists()) {
                let key = evaluation_key(params, secret, request)?;
                let Encoded { head, words } = wire::encode_evaluation_key(params, key.view(params));
                write(&path, Access::Everyone, &[&head, words])?;
                written += (head.len() + words.len()) as u64;
            }
            progress(done + 1, requests.len());
        }
        Ok(written)
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

/// Writes a file that must not exist yet: to a temporary one in the same folder, made durable, then renamed.
fn write(path: &Path, access: Access, parts: &[&[u8]]) -> Result<(), ClientError> {
    let fail = |source| ClientError::Io { action: "write", path: path.into(), source };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cerium-");
    // Temporary files are for their owner only until told otherwise.
    #[cfg(unix)]
    if access == Access::Everyone {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = builder.tempfile_in(folder).map_err(fail)?;
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
