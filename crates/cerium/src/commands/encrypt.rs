//! `cerium encrypt`: an input to ciphertexts.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cerium_ckks::encoding::Encoder;
use cerium_ckks::wire;
use cerium_client::{KeyFolder, encrypt_with_public_key, encrypt_with_secret_key, excess, pack};
use serde_json::json;

use crate::program::Program;
use crate::{figures, files, input};

/// Encrypt an input for a program.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cerium encrypt mnist.cerium --keys keys --input digit.png -o image.ct\n  \
    cerium encrypt mnist.cerium --keys keys --input models/mnist/sample-images-idx3-ubyte:3 -o image.ct\n  \
    cerium encrypt mnist4.cerium --keys keys --input models/mnist/sample:0..3 --input digit.png -o images.ct"
)]
pub(crate) struct Encrypt {
    /// The program, made by `cerium compile`.
    program: PathBuf,
    /// The client's folder of keys, made by `cerium keygen`.
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// A picture (digit.png), an element of a data set (images-idx3-ubyte:17, folder:17) or several (folder:0..8), a tensor
    /// (x.safetensors), or numbers (x.json, x.csv); may be given more than once for a program that was compiled with
    /// `--batch`. Fewer inputs than its batch are repeated.
    #[arg(long, value_name = "FILE", required = true)]
    input: Vec<String>,
    /// Where the ciphertext goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Encrypt with the public key even if the secret key is there; twice the size.
    #[arg(long)]
    public: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Encrypt {
    pub(crate) fn run(self) -> Result<()> {
        let program = Program::read(&self.program)?;
        let (port, params) = (program.input()?, &program.params);
        let mut inputs = Vec::new();
        for source in &self.input {
            inputs.extend(input::read(source, program.artifact.normalization.as_ref())?);
        }
        let values: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let slots = pack(&program.artifact, port, &values)
            .with_context(|| format!("cannot encrypt {}", self.input.join(", ")))?;
        let excess = excess(&slots);
        if excess > 1.0 {
            eprintln!(
                "warning: the input reaches {excess:.1} times the range that the program was calibrated for; the answer may \
                 be wrong"
            );
        }
        let folder = KeyFolder::new(&self.keys);
        let encoder = Encoder::new(params);
        let ciphertexts = slots.iter().zip(&port.ciphertexts);
        let bytes = if !self.public && folder.secret_key_path().exists() {
            let secret = folder.secret_key(params)?;
            let encrypt = ciphertexts.map(|(slots, at)| {
                encrypt_with_secret_key(params, &encoder, &secret, slots, at.level, at.scale)
            });
            wire::encode_seeded_ciphertexts(params, program.digest, &encrypt.collect::<Result<Vec<_>, _>>()?)
        } else {
            let key = folder.public_key(params)?;
            let encrypt = ciphertexts.map(|(slots, at)| {
                encrypt_with_public_key(params, &encoder, &key, slots, at.level, at.scale)
            });
            wire::encode_ciphertexts(params, program.digest, &encrypt.collect::<Result<Vec<_>, _>>()?)
        };
        files::write(&self.output, &bytes)?;
        if self.json {
            return figures::print_json(&json!({
                "ciphertext": self.output,
                "inputs": inputs.len(),
                "batch": port.batch,
                "ciphertexts": port.ciphertexts.len(),
                "bytes": bytes.len(),
                "level": port.ciphertexts.first().map(|packed| packed.level.0),
                "range_used": excess,
            }));
        }
        let times = if port.batch == 1 { String::new() } else { format!("{} times ", inputs.len()) };
        let repeated = if inputs.len() == port.batch as usize {
            String::new()
        } else {
            format!("; repeated to fill a batch of {}, so decrypt with --count {}", port.batch, inputs.len())
        };
        figures::print(&format!(
            "{}: {times}{} values of `{}` in {} ciphertext{}, {}{repeated}\n",
            self.output.display(),
            port.elements(),
            port.name,
            slots.len(),
            if slots.len() == 1 { "" } else { "s" },
            figures::bytes(bytes.len() as u64),
        ))
    }
}
