//! Which network, for verbs that import one.

use std::path::PathBuf;

use anyhow::Result;

use crate::network::Network;

/// The model file and what is said about it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// The model: an ONNX file, or a network description (.json) and its weights.
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// The weights of a network description, if they are not where it says.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// What pixels in [0, 1] become before the network sees them: `cifar10`, `imagenet`, `none`, or numbers for each channel,
    /// MEAN,../DEVIATION,..; if neither this nor the model says so, CIFAR-10 pictures are normalized by the statistics of
    /// CIFAR-10, digits are not.
    #[arg(long, value_name = "FORM")]
    normalize: Option<String>,
}

impl ModelArgs {
    /// Reads the network.
    pub(super) fn read(&self) -> Result<Network> {
        let mut network = Network::read(&self.model, self.weights.as_deref())?;
        if let Some(form) = &self.normalize {
            network.normalize(form)?;
        }
        Ok(network)
    }
}
