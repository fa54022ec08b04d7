//! A logistic regression trained on encrypted examples: whether a tumour is benign, from 30 features.
//!
//! ```sh
//! cargo run --release --example logistic_regression                # at 128-bit security
//! cargo run --release --example logistic_regression -- --clear     # the same program on clear numbers
//! cargo run --release --example logistic_regression -- --params insecure-boot-40 --insecure --columns 16
//! ```
//!
//! The server sees neither the examples nor the weights it computes.

#[path = "../parties/mod.rs"]
mod parties;
mod table;
mod training;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use parties::{Options, run_clear, run_encrypted};
use serde_json::json;
use table::Table;

/// Train a logistic regression on encrypted examples.
#[derive(Debug, Parser)]
struct Cli {
    /// Iterations of gradient descent.
    #[arg(long, default_value_t = 12)]
    iterations: usize,
    /// Numbers of an example that are used, the intercept included; without, all.
    #[arg(long)]
    columns: Option<usize>,
    /// Folder with `train.csv` and `test.csv`.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/breast-cancer"))]
    data: PathBuf,
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let Cli { iterations, columns, data, options } = Cli::parse();
    ensure!(iterations > 0, "--iterations must be at least 1");
    let params = options.params()?;
    let (train, test) = (Table::read(&data.join("train.csv"))?, Table::read(&data.join("test.csv"))?);
    let columns = columns.unwrap_or(train.columns()).clamp(1, train.columns());
    let train = train.cut(training::capacity(&params, columns), columns);
    let test = test.cut(usize::MAX, columns);

    let source = training::program(&params, &train, iterations);
    let input = vec![training::input(&params, &train)];
    let clear = run_clear(&source, &input).remove(0);
    let weights = training::weights(&train, &clear);
    let exact = training::train_exactly(&train, iterations);
    let mut report = json!({
        "params": params.name(),
        "rows": train.rows.len(),
        "columns": columns,
        "iterations": iterations,
        "test_rows": test.rows.len(),
        "accuracy_exact": test.accuracy(&exact),
        "accuracy_clear": test.accuracy(&weights),
    });
    if !options.json {
        println!("{iterations} iterations on {} examples of {columns} numbers", train.rows.len());
        println!("accuracy on {} other examples", test.rows.len());
        println!("  without approximation   {:.1}%", 100.0 * test.accuracy(&exact));
        println!("  the program, clear      {:.1}%", 100.0 * test.accuracy(&weights));
    }
    if !options.clear {
        let encrypted = run_encrypted(&source, &params, &input, &options.session())?;
        let trained = training::weights(&train, &encrypted.outputs[0]);
        let error = training::of_weights(encrypted.error(0, &clear, columns));
        let promise = training::of_weights(encrypted.promises[0]);
        ensure!(error <= promise, "an error of {error:.2e} of a weight exceeds the promised {promise:.2e}");
        report["accuracy_encrypted"] = test.accuracy(&trained).into();
        report["largest_weight_difference"] = error.into();
        report["promised_weight_difference"] = promise.into();
        report["figures"] = encrypted.figures();
        if !options.json {
            println!("  the program, encrypted  {:.1}%", 100.0 * test.accuracy(&trained));
            println!("weights differ by {error:.2e} at most, promised {promise:.2e}");
            println!("{}", encrypted.summary());
        }
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(())
}
