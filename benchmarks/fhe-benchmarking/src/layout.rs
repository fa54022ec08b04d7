//! The directories of the harness, below the root of its checkout, in which it starts every stage.
//!
//! ```text
//! datasets/<instance>/intermediate/test_pixels.txt      harness: a picture a line, values in [0, 1]
//! io/<instance>/public_keys/                            client -> server; its size is measured
//! io/<instance>/secret_key/                             the client's own
//! io/<instance>/intermediate/preprocessed_input.txt     the client's own
//! io/<instance>/ciphertexts_upload/cipher_input_0.bin   client -> server; its size is measured
//! io/<instance>/ciphertexts_download/cipher_result_0.bin   server -> client; its size is measured
//! io/<instance>/server_reported_steps.json              server: seconds of its parts
//! io/<instance>/intermediate/model_scores.txt           the client's own
//! io/<instance>/encrypted_model_predictions.txt         the answer: a class a line
//! ```
//!
//! What is in the folders that are measured is the submission's affair. A server stage reads `public_keys` and
//! `ciphertexts_upload` and nothing else of `io`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// How many pictures there are: 1, 100, 1,000 or 10,000. The stages take as many as the harness has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instance {
    /// Size 0.
    Single,
    /// Size 1.
    Small,
    /// Size 2.
    Medium,
    /// Size 3.
    Large,
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(size: &str) -> Result<Instance, String> {
        match size {
            "0" => Ok(Instance::Single),
            "1" => Ok(Instance::Small),
            "2" => Ok(Instance::Medium),
            "3" => Ok(Instance::Large),
            _ => Err("sizes are 0 (single), 1 (small), 2 (medium) and 3 (large)".to_owned()),
        }
    }
}

impl Instance {
    const ALL: [Instance; 4] = [Instance::Single, Instance::Small, Instance::Medium, Instance::Large];

    /// The only instance with answers to decrypt.
    ///
    /// # Errors
    /// None, and several.
    pub(crate) fn with_answers() -> Result<Instance> {
        let mut found = Instance::ALL.into_iter().filter(|instance| instance.answer(0).exists());
        match (found.next(), found.next()) {
            (Some(instance), None) => Ok(instance),
            (None, _) => {
                bail!("there are no answers in io/*/ciphertexts_download; run server_encrypted_compute")
            }
            _ => bail!("several instances have answers; name the size of the one to decrypt"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Instance::Single => "single",
            Instance::Small => "small",
            Instance::Medium => "medium",
            Instance::Large => "large",
        }
    }

    fn io(self) -> PathBuf {
        Path::new("io").join(self.name())
    }

    /// Pixels in `[0, 1]`, by channel, row by row.
    pub(crate) fn pixels(self) -> PathBuf {
        Path::new("datasets").join(self.name()).join("intermediate/test_pixels.txt")
    }

    /// Folder of the public and the evaluation keys.
    pub(crate) fn public_keys(self) -> PathBuf {
        self.io().join("public_keys")
    }

    /// Folder of the secret key.
    pub(crate) fn secret_key(self) -> PathBuf {
        self.io().join("secret_key")
    }

    /// Folder of the client's files from stage to stage.
    pub(crate) fn intermediate(self) -> PathBuf {
        self.io().join("intermediate")
    }

    /// What the network takes, a picture a line.
    pub(crate) fn preprocessed(self) -> PathBuf {
        self.intermediate().join("preprocessed_input.txt")
    }

    /// Folder of encrypted pictures.
    pub(crate) fn upload(self) -> PathBuf {
        self.io().join("ciphertexts_upload")
    }

    /// Ciphertext `index` of the network's input: as many pictures as the network takes at a time.
    pub(crate) fn request(self, index: usize) -> PathBuf {
        self.upload().join(format!("cipher_input_{index}.bin"))
    }

    /// Folder of encrypted scores.
    pub(crate) fn download(self) -> PathBuf {
        self.io().join("ciphertexts_download")
    }

    /// The network's answer to input `index`.
    pub(crate) fn answer(self, index: usize) -> PathBuf {
        self.download().join(format!("cipher_result_{index}.bin"))
    }

    /// Seconds of the parts of the server's work, which the harness reports beside its own.
    pub(crate) fn server_steps(self) -> PathBuf {
        self.io().join("server_reported_steps.json")
    }

    /// Scores, those of a picture in a line.
    pub(crate) fn scores(self) -> PathBuf {
        self.intermediate().join("model_scores.txt")
    }

    /// Classes, one a line.
    pub(crate) fn predictions(self) -> PathBuf {
        self.io().join("encrypted_model_predictions.txt")
    }
}

/// Makes an empty folder, without what a run before this one has left in it.
pub(crate) fn empty_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", path.display()));
        }
        _ => {}
    }
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Reads a file that the stage before this one writes.
pub(crate) fn read(path: &Path, stage: &str) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}, which {stage} writes", path.display()))
}

/// Writes a file, and its folder if there is none.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
