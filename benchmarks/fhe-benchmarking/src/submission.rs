//! What lies beside the stages: the compiled network, and how pictures become its input.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cerium_artifact::{Artifact, Port};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::params::Params;
use cerium_ckks::wire::{self, ProgramDigest};
use serde::Deserialize;

/// The compiled network and its parameters.
pub(crate) struct Submission {
    pub(crate) artifact: Artifact,
    pub(crate) params: Params,
    pub(crate) digest: ProgramDigest,
    normalisation: Normalisation,
}

/// Mean and standard deviation of each channel of the pictures that the network was trained on; without channels, pixels
/// are taken as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Normalisation {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// The folder from which this program was called. Links are not followed: stages are links, and what lies beside the
/// links is meant.
pub(crate) fn folder_of_call() -> Result<PathBuf> {
    let call = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    match call.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => Ok(folder.to_owned()),
        _ => {
            let path = env::current_exe().context("cannot find out where this program is")?;
            Ok(path.parent().unwrap_or(Path::new(".")).to_owned())
        }
    }
}

impl Submission {
    /// Reads `network.cerium`, and `normalisation.json` if there is one.
    pub(crate) fn open(folder: &Path) -> Result<Submission> {
        let path = folder.join("network.cerium");
        let artifact = Artifact::read(&path)
            .with_context(|| format!("{} cannot be used; build_task.sh makes one", path.display()))?;
        let params = artifact.validate()?;
        let digest = ProgramDigest(artifact.digest()?);
        if let (_, []) | ([], _) = (&artifact.inputs[..], &artifact.outputs[..]) {
            bail!("the network `{}` has no input or no output", artifact.name);
        }
        if artifact.inputs.len() > 1 || artifact.outputs.len() > 1 {
            bail!("the network `{}` has more than one input or output", artifact.name);
        }
        Ok(Submission { artifact, params, digest, normalisation: Normalisation::read(folder)? })
    }

    /// The network's only input.
    pub(crate) fn input(&self) -> &Port {
        &self.artifact.inputs[0]
    }

    /// The network's only output.
    pub(crate) fn output(&self) -> &Port {
        &self.artifact.outputs[0]
    }

    /// Checks that a picture has as many pixels as the network takes.
    pub(crate) fn check(&self, pixels: &[f32]) -> Result<()> {
        let port = self.input();
        if pixels.len() != port.elements() {
            bail!(
                "the pictures have {} pixels, `{}` of the network `{}` has shape {:?}; was the network built for another data \
                 set?",
                pixels.len(),
                port.name,
                self.artifact.name,
                port.shape
            );
        }
        Ok(())
    }

    /// Pixels in `[0, 1]`, channel by channel, as the network takes them.
    ///
    /// # Errors
    /// Another number of channels.
    pub(crate) fn normalise(&self, pixels: &mut [f32]) -> Result<()> {
        let Normalisation { mean, deviation } = &self.normalisation;
        if mean.is_empty() {
            return Ok(());
        }
        if !pixels.len().is_multiple_of(mean.len()) {
            bail!(
                "{} pixels are not {} channels, for which there is a normalisation",
                pixels.len(),
                mean.len()
            );
        }
        let extent = pixels.len() / mean.len();
        for (channel, (mean, deviation)) in pixels.chunks_exact_mut(extent).zip(mean.iter().zip(deviation)) {
            channel.iter_mut().for_each(|pixel| *pixel = (*pixel - mean) / deviation);
        }
        Ok(())
    }

    /// The ciphertexts in a file's bytes, which must be made for this network.
    pub(crate) fn ciphertexts(&self, bytes: &[u8]) -> Result<Vec<Ciphertext>> {
        let (digest, ciphertexts) = wire::decode_ciphertexts(&self.params, bytes)?;
        if digest != self.digest {
            bail!("the ciphertexts are for another network ({digest:?}) than this one ({:?})", self.digest);
        }
        Ok(ciphertexts)
    }
}

impl Normalisation {
    fn read(folder: &Path) -> Result<Normalisation> {
        let path = folder.join("normalisation.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Normalisation::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let read: Normalisation =
            serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be used", path.display()))?;
        if read.mean.len() != read.deviation.len() || read.deviation.iter().any(|&deviation| deviation <= 0.0)
        {
            bail!("{}: one mean and one positive deviation is needed for each channel", path.display());
        }
        Ok(read)
    }
}
