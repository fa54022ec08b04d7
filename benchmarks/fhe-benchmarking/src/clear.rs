//! The network in the clear.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cerium_models::simulate::largest;
use cerium_models::{import, reference};
use rayon::prelude::*;

use crate::rows::{self, RowWriter};
use crate::submission::Submission;

/// Classes, and scores if they are asked for, of the harness's pictures by the model in the artifact, with its activation
/// functions as they are.
pub(crate) fn classify(
    submission: &Submission,
    pixels: &Path,
    predictions: &Path,
    scores: Option<&Path>,
) -> Result<()> {
    if submission.artifact.model.is_empty() {
        bail!("the network `{}` holds no model to run in the clear", submission.artifact.name);
    }
    let graph = import::parse(&submission.artifact.model).context("cannot use the model in the network")?;
    let mut pictures = rows::read(pixels, "the harness")?.collect::<Result<Vec<_>>>()?;
    pictures.iter_mut().try_for_each(|picture| submission.normalise(picture))?;
    let outputs = pictures.par_iter().map(|picture| reference::run(&graph, picture));
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    let mut file = RowWriter::create(predictions)?;
    outputs.iter().try_for_each(|output| file.write(&[largest(output)]))?;
    file.finish()?;
    if let Some(path) = scores {
        let mut file = RowWriter::create(path)?;
        outputs.iter().try_for_each(|output| file.write(output))?;
        file.finish()?;
    }
    Ok(())
}
