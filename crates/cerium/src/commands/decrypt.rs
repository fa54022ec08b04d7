//! `cerium decrypt`: the encrypted answer to numbers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cerium_artifact::Port;
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_client::{KeyFolder, SecretKey, decrypt, decrypt_for_sharing, unpack};
use cerium_models::simulate::largest;
use serde_json::{Value, json};

use crate::figures::{self, row, small};
use crate::program::Program;

/// Decrypt the answer of a program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cerium decrypt mnist.cerium --keys keys --input answer.ct\n  \
    cerium decrypt mnist4.cerium --keys keys --input answers.ct --count 3\n\n\
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
    /// How many inputs were encrypted, for a program that was compiled with `--batch`; further answers repeat theirs and are
    /// not shown.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
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
        let mut answers = decrypt_outputs(&program, &secret, &ciphertexts, self.share_bits)
            .with_context(|| format!("cannot decrypt {}", self.input.display()))?;
        if let Some(count) = self.count {
            for Answer { port, tensors } in &mut answers {
                if count > port.batch {
                    bail!(
                        "--count {count} is more than the program takes at a time, which is {}",
                        port.batch
                    );
                }
                tensors.truncate(count as usize);
            }
        }
        if self.json {
            let answers: Vec<Value> = answers.iter().map(Answer::to_json).collect();
            return figures::print_json(&json!({ "outputs": answers }));
        }
        figures::print(&answers.iter().map(Answer::to_text).collect::<String>())
    }
}

/// What came out at a port.
pub(super) struct Answer<'p> {
    pub(super) port: &'p Port,
    /// The tensor of each input of the batch.
    pub(super) tensors: Vec<Vec<f64>>,
}

impl Answer<'_> {
    /// With the values of one tensor, or an array with those of each of a batch.
    fn to_json(&self) -> Value {
        let Answer { port, tensors } = self;
        let (values, largest) = match (port.batch, &tensors[..]) {
            (1, [values]) => (json!(values), json!(largest(values))),
            _ => (json!(tensors), tensors.iter().map(|values| largest(values)).collect()),
        };
        json!({
            "name": port.name,
            "shape": port.shape,
            "batch": port.batch,
            "values": values,
            "largest": largest,
            "predicted_error": predicted_error(port),
        })
    }

    fn to_text(&self) -> String {
        let Answer { port, tensors } = self;
        let mut text = String::new();
        for (index, values) in tensors.iter().enumerate() {
            let largest = largest(values);
            let mark = |index| if index == largest { "<- largest" } else { "" };
            let rows = values
                .iter()
                .enumerate()
                .map(|(index, value)| row([&index.to_string(), &format!("{value:.4}"), mark(index)]));
            let of = if port.batch == 1 { String::new() } else { format!(" of input {index}") };
            text += &format!("`{}`{of}: the largest value is number {largest}\n", port.name);
            text += &figures::table(&rows.collect::<Vec<_>>());
        }
        text + &format!("  predicted error of a value: {}\n", small(predicted_error(port)))
    }
}

/// Predicted standard deviation of the error of an output's elements.
pub(super) fn predicted_error(port: &Port) -> f64 {
    port.ciphertexts.iter().map(|packed| packed.error).fold(0.0, f64::max)
}

/// The answers at all outputs. With `share_bits`, safe to pass on.
pub(super) fn decrypt_outputs<'p>(
    program: &'p Program,
    secret: &SecretKey,
    ciphertexts: &[Ciphertext],
    share_bits: Option<u32>,
) -> Result<Vec<Answer<'p>>> {
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
        outputs.push(Answer { port, tensors: unpack(artifact, port, &slots, noise)? });
    }
    Ok(outputs)
}
