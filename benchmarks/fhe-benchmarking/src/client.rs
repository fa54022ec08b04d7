//! The client's stages: keys, pictures to ciphertexts, ciphertexts to classes.

use std::fs;

use anyhow::{Context, Result, bail};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::KEY_FOLDER;
use cerium_ckks::wire;
use cerium_client::{self as scheme, KeyFolder, SecretKey, encrypt_with_secret_key, excess, pack, unpack};
use cerium_models::simulate::largest;

use crate::layout::{self, Instance, empty_folder};
use crate::rows::{self, RowWriter};
use crate::submission::Submission;

/// Makes a fresh secret key and exactly the evaluation keys that the network needs.
///
/// They are made in the client's folder, and those for the server are then moved to its own: the secret key is never in
/// a folder that the server reads.
pub(crate) fn generate_keys(submission: &Submission, instance: Instance, insecure: bool) -> Result<()> {
    let (params, requests) = (&submission.params, &submission.artifact.keys[..]);
    let (private, public) = (instance.secret_key(), instance.public_keys());
    empty_folder(&private)?;
    empty_folder(&public)?;
    let secret = if insecure { SecretKey::generate_insecure(params)? } else { SecretKey::generate(params)? };
    let folder = KeyFolder::new(&private);
    let bytes = folder.create(params, &secret, requests, &|_, _| {})?;
    for (from, name) in [(private.join(KEY_FOLDER), KEY_FOLDER), (folder.public_key_path(), "public.key")] {
        fs::rename(&from, public.join(name)).with_context(|| format!("cannot move {}", from.display()))?;
    }
    println!("         [client] {} evaluation keys, {:.3} GB", requests.len(), bytes as f64 / 1e9);
    Ok(())
}

/// Brings the harness's pixels to the range that the network takes.
pub(crate) fn preprocess(submission: &Submission, instance: Instance) -> Result<()> {
    let mut preprocessed = RowWriter::create(&instance.preprocessed())?;
    for pixels in rows::read(&instance.pixels(), "the harness")? {
        let mut pixels = pixels?;
        submission.check(&pixels)?;
        submission.normalise(&mut pixels)?;
        preprocessed.write(&pixels)?;
    }
    preprocessed.finish()
}

/// Encrypts the pictures, as many in a file as the network takes at a time.
pub(crate) fn encrypt(submission: &Submission, instance: Instance) -> Result<()> {
    let (artifact, params, port) = (&submission.artifact, &submission.params, submission.input());
    let secret = KeyFolder::new(instance.secret_key()).secret_key(params)?;
    let encoder = Encoder::new(params);
    empty_folder(&instance.upload())?;
    let mut pictures = rows::read(&instance.preprocessed(), "client_preprocess_input")?;
    for index in 0.. {
        let inputs = pictures.by_ref().take(port.batch as usize).collect::<Result<Vec<_>>>()?;
        if inputs.is_empty() {
            break;
        }
        let slots = pack(artifact, port, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let reach = excess(&slots);
        if reach > 1.0 {
            eprintln!(
                "warning: input {index} reaches {reach:.1} times the range that the network was calibrated for"
            );
        }
        let ciphertexts = slots
            .iter()
            .zip(&port.ciphertexts)
            .map(|(slots, at)| encrypt_with_secret_key(params, &encoder, &secret, slots, at.level, at.scale));
        let ciphertexts = ciphertexts.collect::<Result<Vec<_>, _>>()?;
        let bytes = wire::encode_seeded_ciphertexts(params, submission.digest, &ciphertexts);
        layout::write(&instance.request(index), &bytes)?;
    }
    Ok(())
}

/// Decrypts the scores of as many pictures as there are.
pub(crate) fn decrypt(submission: &Submission, instance: Instance) -> Result<()> {
    let (artifact, params, port) = (&submission.artifact, &submission.params, submission.output());
    let secret = KeyFolder::new(instance.secret_key()).secret_key(params)?;
    let encoder = Encoder::new(params);
    let mut pictures = rows::read(&instance.preprocessed(), "client_preprocess_input")?;
    let mut scores = RowWriter::create(&instance.scores())?;
    for index in 0.. {
        let inputs = pictures.by_ref().take(port.batch as usize).collect::<Result<Vec<_>>>()?.len();
        if inputs == 0 {
            break;
        }
        let bytes = layout::read(&instance.answer(index), "server_encrypted_compute")?;
        let ciphertexts = submission.ciphertexts(&bytes)?;
        if ciphertexts.len() != port.ciphertexts.len() {
            bail!("{} is no answer of the network", instance.answer(index).display());
        }
        let slots =
            ciphertexts.iter().map(|ciphertext| scheme::decrypt(params, &encoder, &secret, ciphertext));
        let tensors = unpack(artifact, port, &slots.collect::<Result<Vec<_>, _>>()?, 0.0)?;
        tensors.iter().take(inputs).try_for_each(|tensor| scores.write(tensor))?;
    }
    scores.finish()
}

/// The class of the highest score of each picture.
pub(crate) fn postprocess(instance: Instance) -> Result<()> {
    let mut predictions = RowWriter::create(&instance.predictions())?;
    for scores in rows::read(&instance.scores(), "client_decrypt_decode")? {
        let scores: Vec<f64> = scores?.into_iter().map(f64::from).collect();
        predictions.write(&[largest(&scores)])?;
    }
    predictions.finish()
}
