//! `cerium decrypt`: the encrypted answer to numbers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cerium_artifact::Port;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_client::{KeyFolder, SecretKey, decrypt, decrypt_for_sharing};
use serde_json::{Value, json};

use crate::figures::{self, row, small};
use crate::packing;
use crate::program::Program;

/// Decrypt the answer of a program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cerium decrypt mnist.cerium --keys keys --input answer.ct\n\n\
    Exact decrypted values tell about the secret key. Use --share-bits for values that are passed on or published.")]
pub(crate) struct Decrypt {
    /// The program, made by `cerium compile`.
    program: PathBuf,
    /// The client's folder of keys, made by `cerium keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The encrypted answer, made by `cerium run`.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Drown the decryption error in noise, so that the values can be shared: this many bits after the point of a slot
    /// stay.
    #[arg(long, value_name = "B")]
    share_bits: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Decrypt {
    pub(crate) fn run(self) -> Result<()> {
        let program = Program::read(&self.program)?;
        let ciphertexts = program.read_ciphertexts(&self.input, "`cerium run` makes one")?;
        let secret = KeyFolder::new(&self.keys).secret_key(&program.params)?;
        let outputs = decrypt_outputs(&program, &secret, &ciphertexts, self.share_bits)
            .with_context(|| format!("cannot decrypt {}", self.input.display()))?;
        if self.json {
            let ports = outputs.iter().map(|(port, values)| {
                json!({
                    "name": port.name,
                    "shape": port.shape,
                    "values": values,
                    "largest": packing::largest(values),
                    "predicted_error": predicted_error(port),
                })
            });
            return figures::print_json(&json!({ "outputs": ports.collect::<Vec<Value>>() }));
        }
        let mut text = String::new();
        for (port, values) in &outputs {
            let largest = packing::largest(values);
            let mark = |index| if index == largest { "<- largest" } else { "" };
            let rows = values
                .iter()
                .enumerate()
                .map(|(index, value)| row([&index.to_string(), &format!("{value:.4}"), mark(index)]));
            text += &format!("`{}`: the largest value is number {largest}\n", port.name);
            text += &figures::table(&rows.collect::<Vec<_>>());
            text += &format!("  predicted error of a value: {}\n", small(predicted_error(port)));
        }
        figures::print(&text)
    }
}

/// Predicted standard deviation of the error of an output's elements.
pub(super) fn predicted_error(port: &Port) -> f64 {
    port.ciphertexts.iter().map(|packed| packed.error).fold(0.0, f64::max)
}

/// The tensors of all outputs. With `share_bits`, safe to pass on.
pub(super) fn decrypt_outputs<'p>(
    program: &'p Program,
    secret: &SecretKey,
    ciphertexts: &[Ciphertext],
    share_bits: Option<u32>,
) -> Result<Vec<(&'p Port, Vec<f64>)>> {
    let (artifact, params) = (&program.artifact, &program.params);
    let expected: usize = artifact.outputs.iter().map(|port| port.ciphertexts.len()).sum();
    let placed = artifact.outputs.iter().flat_map(|port| &port.ciphertexts);
    let fit = placed.zip(ciphertexts).all(|(at, ct)| at.level == ct.level() && at.scale.matches(ct.scale()));
    if ciphertexts.len() != expected || !fit {
        bail!(
            "it is not an answer of program `{}` (an input, perhaps); `cerium run` makes one",
            artifact.name
        );
    }
    let encoder = Encoder::new(params);
    let mut rest = ciphertexts.iter();
    let mut outputs = Vec::with_capacity(artifact.outputs.len());
    for port in &artifact.outputs {
        let slots = rest.by_ref().take(port.ciphertexts.len()).map(|ciphertext| match share_bits {
            None => decrypt(params, &encoder, secret, ciphertext),
            Some(bits) => decrypt_for_sharing(params, &encoder, secret, ciphertext, bits),
        });
        let slots: Vec<_> = slots.collect::<Result<_, _>>()?;
        let noise = share_bits.map_or(0.0, |bits| (-f64::from(bits)).exp2());
        outputs.push((port, packing::unpack(artifact, port, &slots, noise)?));
    }
    Ok(outputs)
}
