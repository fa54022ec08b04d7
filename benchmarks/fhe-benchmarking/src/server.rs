//! The server's stages. Of `io` they read the public keys and the uploaded ciphertexts only.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cerium_ckks::wire;
use cerium_runtime::{CpuDevice, KeyStore, Session, progress};
use serde_json::json;

use crate::layout::{self, Instance, empty_folder};
use crate::submission::Submission;

/// How often progress is told.
const OFTEN: Duration = Duration::from_secs(10);

/// Checks the network. There is no more to do ahead: it was compiled when the submission was built, since keys depend on
/// it and the client makes them first, and the process that computes encodes the weights into its own memory.
pub(crate) fn preprocess(submission: &Submission) -> Result<()> {
    println!(
        "         [server] network `{}` under {}, {} evaluation keys",
        submission.artifact.name,
        submission.params.name(),
        submission.artifact.keys.len()
    );
    Ok(())
}

/// Runs the network on each uploaded file; keys and weights are loaded once.
pub(crate) fn compute(submission: &Submission, instance: Instance) -> Result<()> {
    let (artifact, params) = (&submission.artifact, &submission.params);
    let start = Instant::now();
    let keys = KeyStore::open(&instance.public_keys(), params, &artifact.keys, 0, &progress::silent)
        .context("cannot use the keys that client_key_generation makes")?;
    let device = Box::new(CpuDevice::new(0)?);
    let mut session = Session::new(artifact, keys, device, 0, &progress::silent)?;
    let preparation = start.elapsed();
    println!("         [server] keys and weights ready after {:.2} s", preparation.as_secs_f64());

    let total = (0..).take_while(|&index| instance.request(index).exists()).count();
    if total == 0 {
        bail!(
            "there are no ciphertexts in {}; client_encode_encrypt_input writes them",
            instance.upload().display()
        );
    }
    empty_folder(&instance.download())?;
    let (mut computation, mut told) = (Duration::ZERO, start);
    for index in 0..total {
        let path = instance.request(index);
        let bytes = layout::read(&path, "client_encode_encrypt_input")?;
        let inputs =
            submission.ciphertexts(&bytes).with_context(|| format!("{} cannot be used", path.display()))?;
        let (outputs, profile) = session.run(&inputs)?;
        computation += profile.wall;
        let bytes = wire::encode_ciphertexts(params, submission.digest, &outputs);
        layout::write(&instance.answer(index), &bytes)?;
        if index + 1 == total || told.elapsed() > OFTEN {
            told = Instant::now();
            let seconds = computation.as_secs_f64();
            println!("         [server] {} of {total} ciphertexts computed in {seconds:.2} s", index + 1);
        }
    }
    let steps = json!({
        "Loading keys, encoding weights": preparation.as_secs_f64(),
        "Encrypted computation": computation.as_secs_f64(),
        "Total": start.elapsed().as_secs_f64(),
    });
    layout::write(&instance.server_steps(), format!("{steps:#}\n").as_bytes())
}
