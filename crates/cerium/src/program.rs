//! A compiled program as the commands use it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cerium_artifact::{Artifact, ArtifactError, Port, Stage};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::params::Params;
use cerium_ckks::wire::{self, ProgramDigest};
use cerium_client::KeyFolder;
use cerium_compiler::bootstrap;

use crate::files;

/// An artifact with its parameters and its identity.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) artifact: Artifact,
    pub(crate) params: Params,
    pub(crate) digest: ProgramDigest,
}

impl Program {
    /// The program of a valid artifact.
    pub(crate) fn new(artifact: Artifact) -> Result<Program> {
        let params = artifact.validate()?;
        let digest = ProgramDigest(artifact.digest()?);
        Ok(Program { artifact, params, digest })
    }

    /// Reads an artifact file.
    pub(crate) fn read(path: &Path) -> Result<Program> {
        match Artifact::read(path) {
            Ok(artifact) => Program::new(artifact),
            Err(error @ (ArtifactError::Missing { .. } | ArtifactError::Io { .. })) => Err(error.into()),
            Err(error) => Err(error).with_context(|| format!("{} cannot be used", path.display())),
        }
    }

    /// The program's only input.
    pub(crate) fn input(&self) -> Result<&Port> {
        match &self.artifact.inputs[..] {
            [input] => Ok(input),
            inputs => bail!("the program has {} inputs; this command is for programs with one", inputs.len()),
        }
    }

    /// Reads a file of ciphertexts that were made for this program. `hint` says where one comes from.
    pub(crate) fn read_ciphertexts(&self, path: &Path, hint: &str) -> Result<Vec<Ciphertext>> {
        let bytes = files::read(path, "ciphertext", hint)?;
        self.decode_ciphertexts(&bytes).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// As [`Program::read_ciphertexts`], from the bytes of a file.
    pub(crate) fn decode_ciphertexts(&self, bytes: &[u8]) -> Result<Vec<Ciphertext>> {
        let (digest, ciphertexts) = wire::decode_ciphertexts(&self.params, bytes)?;
        if digest != self.digest {
            bail!(
                "the ciphertext is for another program ({digest:?}) than `{}` ({:?}); encrypt the input again with \
                 `cerium encrypt` and this program",
                self.artifact.name,
                self.digest
            );
        }
        Ok(ciphertexts)
    }

    /// How many bootstraps each stage needs, where it needs any.
    fn bootstraps_by_stage(&self) -> Vec<(&str, u64)> {
        let of =
            |stage: &Stage| stage.operations.iter().find(|(name, _)| name == "bootstrap").map(|(_, n)| *n);
        self.artifact.stages.iter().filter_map(|stage| Some((stage.name.as_str(), of(stage)?))).collect()
    }

    /// How many bootstraps there are.
    pub(crate) fn bootstraps(&self) -> u64 {
        self.bootstraps_by_stage().iter().map(|(_, count)| count).sum()
    }

    /// How many bootstraps there are, and where: `3 (conv2 1, conv3 2)`.
    pub(crate) fn show_bootstraps(&self) -> String {
        let stages = self.bootstraps_by_stage();
        let places: Vec<String> = stages.iter().map(|(name, count)| format!("{name} {count}")).collect();
        match self.bootstraps() {
            0 => "none".into(),
            total => format!("{total} ({})", places.join(", ")),
        }
    }

    /// Base-2 logarithm of a bound on the probability that some bootstrap of a run fails; `None` without any.
    pub(crate) fn log_failure(&self) -> Option<f64> {
        let count = Some(self.bootstraps()).filter(|&count| count > 0)?;
        Some(bootstrap::log_failure(&self.params) + (count as f64).log2())
    }

    /// Bytes of all evaluation keys as files: their uniform halves are seeds.
    pub(crate) fn key_bytes(&self) -> u64 {
        let head = (wire::HEADER + 64) as u64;
        self.artifact.keys.iter().map(|key| head + 4 * key.words(&self.params) as u64).sum()
    }

    /// Bytes of all evaluation keys in the memory of the server: both halves.
    pub(crate) fn key_memory(&self) -> u64 {
        self.artifact.keys.iter().map(|key| 8 * key.words(&self.params) as u64).sum()
    }

    /// Most bytes of memory that making the keys takes.
    pub(crate) fn keygen_memory(&self) -> u64 {
        KeyFolder::memory(&self.params, &self.artifact.keys)
    }
}
