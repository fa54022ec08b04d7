//! The stage programs of the public `fhe-benchmarking` ML-inference harness, as one executable.
//!
//! The harness calls each stage by its own name (`client_key_generation 0`) from the root of its checkout; `build_task.sh`
//! makes these names links to this executable and puts the compiled network beside them. Stages share files only: see
//! [`layout`].

mod clear;
mod client;
mod layout;
mod rows;
mod server;
mod submission;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use layout::Instance;
use submission::Submission;

/// A call by the name of a stage, or by the name of the executable and then that of a stage.
#[derive(Debug, Parser)]
#[command(multicall = true)]
struct Call {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// The stages of the fhe-benchmarking ML-inference harness. Paths are those of the harness, below the working directory.
    #[command(name = "fhe-benchmarking")]
    Executable {
        #[command(subcommand)]
        stage: Stage,
        /// Folder of `network.cerium`; without it, the folder from which the executable was called.
        #[arg(long, global = true, value_name = "DIR")]
        submission: Option<PathBuf>,
    },
    #[command(flatten)]
    Stage(Stage),
}

#[derive(Clone, Debug, Subcommand)]
#[command(rename_all = "snake_case")]
enum Stage {
    /// Client: a fresh secret key, and the evaluation keys that the network needs.
    ClientKeyGeneration {
        /// 0 single, 1 small, 2 medium, 3 large.
        size: Instance,
        /// Allow parameter sets without security, for tests.
        #[arg(long)]
        insecure: bool,
    },
    /// Server: check the compiled network.
    ServerPreprocessModel,
    /// Client: pixels in [0, 1] to what the network takes.
    ClientPreprocessInput {
        /// 0 single, 1 small, 2 medium, 3 large.
        size: Instance,
    },
    /// Client: encrypt the pictures.
    ClientEncodeEncryptInput {
        /// 0 single, 1 small, 2 medium, 3 large.
        size: Instance,
    },
    /// Server: the network on encrypted pictures.
    ServerEncryptedCompute {
        /// 0 single, 1 small, 2 medium, 3 large.
        size: Instance,
    },
    /// Client: decrypt the scores.
    ClientDecryptDecode {
        /// 0 single, 1 small, 2 medium, 3 large; without it, the instance that has answers.
        size: Option<Instance>,
    },
    /// Client: the class of the highest score.
    ClientPostprocess {
        /// 0 single, 1 small, 2 medium, 3 large.
        size: Instance,
    },
    /// Harness: the network in the clear, what encrypted answers are held against.
    CleartextImpl {
        /// Pixels as the harness writes them.
        pixels: PathBuf,
        /// Where the classes go, one a line.
        predictions: PathBuf,
        /// Where the scores go, those of a picture in a line.
        scores: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Call::parse().program {
        Program::Executable { stage, submission } => run(stage, submission),
        Program::Stage(stage) => run(stage, None),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(stage: Stage, folder: Option<PathBuf>) -> Result<()> {
    let folder = folder.map_or_else(submission::folder_of_call, Ok)?;
    let submission = || Submission::open(&folder);
    match stage {
        Stage::ClientKeyGeneration { size, insecure } => {
            client::generate_keys(&submission()?, size, insecure)
        }
        Stage::ServerPreprocessModel => server::preprocess(&submission()?),
        Stage::ClientPreprocessInput { size } => client::preprocess(&submission()?, size),
        Stage::ClientEncodeEncryptInput { size } => client::encrypt(&submission()?, size),
        Stage::ServerEncryptedCompute { size } => server::compute(&submission()?, size),
        Stage::ClientDecryptDecode { size } => {
            client::decrypt(&submission()?, size.map_or_else(Instance::with_answers, Ok)?)
        }
        Stage::ClientPostprocess { size } => client::postprocess(size),
        Stage::CleartextImpl { pixels, predictions, scores } => {
            clear::classify(&submission()?, &pixels, &predictions, scores.as_deref())
        }
    }
}
