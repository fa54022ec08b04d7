//! A linear layer of a transformer over encrypted tokens, with weights as sparse plaintexts.
//!
//! ```sh
//! cargo run --release --example token_linear                                        # 768 x 3072, 128 tokens: BERT-Base
//! cargo run --release --example token_linear -- --inputs 4096 --outputs 4096        # Llama
//! cargo run --release --example token_linear -- --weights bert.safetensors --layer encoder.layer.0.intermediate.dense
//! cargo run --release --example token_linear -- --compile layer.cerium --devices 8                # for `cerium explain`
//! ```

mod layer;
#[allow(dead_code, reason = "the error of this example is that of elements, not of slots")]
#[path = "../parties/mod.rs"]
mod parties;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cerium::compiler::ir::Trace;
use cerium::compiler::limb::devices::{DeviceOptions, Link};
use cerium::compiler::{CompileOptions, compile};
use cerium::models::import::safetensors;
use clap::Parser;
use layer::{Layer, largest_error, pack};
use parties::{Options, run_clear, run_encrypted};
use serde_json::json;

/// Apply a linear layer to every token of an encrypted tensor.
#[derive(Debug, Parser)]
struct Cli {
    /// Tokens.
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// Features of a token.
    #[arg(long, default_value_t = 768)]
    inputs: usize,
    /// Features of a token of the result.
    #[arg(long, default_value_t = 3072)]
    outputs: usize,
    /// Features of every token in a ciphertext, a power of two.
    #[arg(long, default_value_t = 256)]
    width: usize,
    /// A safetensors file with the weights, in the place of random ones.
    #[arg(long, requires = "layer")]
    weights: Option<PathBuf>,
    /// The layer in the file: its tensors are called `NAME.weight` and `NAME.bias`.
    #[arg(long, requires = "weights")]
    layer: Option<String>,
    /// Write the compiled program to a file, and do nothing else.
    #[arg(long, value_name = "FILE")]
    compile: Option<PathBuf>,
    /// Devices that it is compiled for.
    #[arg(long, default_value_t = 1, requires = "compile")]
    devices: usize,
    /// What joins them: nvlink, pcie, network or memory.
    #[arg(long, default_value = "nvlink", requires = "compile")]
    link: Link,
    #[command(flatten)]
    options: Options,
}

impl Cli {
    fn layer(&self) -> Result<Layer> {
        let (Some(path), Some(name)) = (&self.weights, &self.layer) else {
            return Ok(Layer::random(self.tokens, self.inputs, self.outputs, self.width));
        };
        let mut tensors = safetensors::read(path)?;
        let mut take = |part: &str| {
            let name = format!("{name}.{part}");
            tensors.remove(&name).with_context(|| format!("{} has no tensor `{name}`", path.display()))
        };
        let (weight, bias) = (take("weight")?, take("bias")?);
        ensure!(weight.shape.len() == 2, "{} is no matrix: its shape is {:?}", weight.name, weight.shape);
        Ok(Layer { tokens: self.tokens, width: self.width, weight, bias })
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let (layer, options) = (cli.layer()?, &cli.options);
    let params = options.params()?;
    let source = layer.program(&params)?;
    if let Some(path) = &cli.compile {
        let devices = DeviceOptions { devices: cli.devices, link: cli.link, ..DeviceOptions::default() };
        let compile_options = CompileOptions { devices, ..CompileOptions::default() };
        return Ok(compile(&source, &compile_options, &mut Trace::default())?.write(path)?);
    }
    let values = layer.input();
    let (inputs, expected) = (pack(&source, &values, &params), layer.expected(&values));
    let size = format!("{} x {} over {} tokens", layer.inputs(), layer.outputs(), layer.tokens);
    let mut report = json!({
        "params": params.name(),
        "tokens": layer.tokens,
        "inputs": layer.inputs(),
        "outputs": layer.outputs(),
        "width": layer.width,
    });
    if options.clear {
        let error = largest_error(&source, &run_clear(&source, &inputs), &expected);
        ensure!(error < 1e-6, "the program computes something else: {error:.1e} off");
        report["largest_error"] = error.into();
        if !options.json {
            println!("{size}, in the clear: largest error {error:.2e}");
        }
    } else {
        let encrypted = run_encrypted(&source, &params, &inputs, &options.session())?;
        let error = largest_error(&source, &encrypted.outputs, &expected);
        let promise = encrypted.promises.iter().copied().fold(0.0, f64::max);
        ensure!(error <= promise, "an error of {error:.2e} exceeds the promised {promise:.2e}");
        report["largest_error"] = error.into();
        report["promised_error"] = promise.into();
        report["weights"] = json!(encrypted.weights);
        report["figures"] = encrypted.figures();
        if !options.json {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            let weights = encrypted.weights;
            println!("{size}, encrypted");
            println!("  largest error {error:.2e}, promised {promise:.2e}");
            println!(
                "  weights: raw {:.1} MB, as sparse plaintexts {:.1} MB, as dense ones {:.1} MB",
                mb(weights.raw),
                mb(weights.sparse),
                mb(weights.dense)
            );
            println!("  {}", encrypted.summary());
        }
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(())
}
