//! 200 multiplications one after another, encrypted: bootstraps are placed by the compiler.
//!
//! ```sh
//! cargo run --release --example deep_iteration                     # at 128-bit security
//! cargo run --release --example deep_iteration -- --params insecure-boot-40 --insecure
//! ```

mod iteration;
#[path = "../parties/mod.rs"]
mod parties;

use anyhow::{Result, ensure};
use clap::Parser;
use parties::{Options, run_clear, run_encrypted};
use serde_json::json;

/// Iterate `z <- z^2 + c` on encrypted c.
#[derive(Debug, Parser)]
struct Cli {
    /// Multiplications one after another.
    #[arg(long, default_value_t = 200)]
    depth: usize,
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Cli { depth, options } = Cli::parse();
    let params = options.params()?;
    let source = iteration::program(&params, depth);
    let input = vec![iteration::input(&params)];
    let clear = run_clear(&source, &input).remove(0);
    let expected = iteration::expected(&input[0], depth);
    let difference = clear.iter().zip(&expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
    ensure!(difference < 1e-9, "the program computes something else: {difference:.1e} off");
    let mut report = json!({ "params": params.name(), "depth": depth, "slots": params.slots() });
    if !options.clear {
        let encrypted = run_encrypted(&source, &params, &input, &options.session())?;
        let (error, promise) = (encrypted.error(0, &clear, params.slots()), encrypted.promises[0]);
        ensure!(error <= promise, "an error of {error:.2e} exceeds the promised {promise:.2e}");
        report["largest_error"] = error.into();
        report["promised_error"] = promise.into();
        report["figures"] = encrypted.figures();
        if !options.json {
            println!("{depth} multiplications one after another on {} numbers, encrypted", params.slots());
            println!("  largest error {error:.2e}, promised {promise:.2e}");
            println!("  {}", encrypted.summary());
        }
    } else if !options.json {
        println!("{depth} multiplications one after another on {} numbers, in the clear", params.slots());
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(())
}
