//! `cerium keygen`: the client's keys for a program.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use cerium_ckks::evaluation_key::{EvaluationKey, KEY_FOLDER};
use cerium_ckks::params::Params;
use cerium_client::{ClientError, KeyFolder, SecretKey, evaluation_key};
use serde_json::json;

use super::Threads;
use crate::figures;
use crate::program::Program;
use crate::progress::Progress;

/// Make the keys of a program: a secret key, a public key, and exactly the evaluation keys that the program needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cerium keygen mnist.cerium -o keys\n\n\
    keys/secret.key stays with the client; keys/public.key is for whoever encrypts; keys/evaluation goes to the server.\n\
    Interrupted, it goes on where it was when the same command is run again.")]
pub(crate) struct Keygen {
    /// The program, made by `cerium compile`.
    program: PathBuf,
    /// Folder for the keys.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Keep the secret key that is in the folder, and make only the evaluation keys that are missing.
    #[arg(long)]
    add: bool,
    /// Allow parameter sets without security, for tests.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    threads: Threads,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Keygen {
    pub(crate) fn run(self) -> Result<()> {
        self.threads.apply()?;
        let program = Program::read(&self.program)?;
        let (params, requests) = (&program.params, &program.artifact.keys[..]);
        let folder = KeyFolder::new(&self.output);
        let progress = Progress::new();
        let step = |done: usize, total: usize| progress.step("making keys", done, total);
        let resumed = !self.add && folder.is_unfinished();
        if !self.json {
            figures::print(&format!(
                "{} evaluation keys: {} on disk, {} in the memory of the server; making them takes {} of memory\n{}",
                requests.len(),
                figures::bytes(program.key_bytes()),
                figures::bytes(program.key_memory()),
                figures::bytes(program.keygen_memory()),
                if resumed { "going on where making the keys of this folder was interrupted\n" } else { "" },
            ))?;
        }
        let start = Instant::now();
        let written = if self.add {
            let secret = folder.secret_key(params)?;
            folder.add(params, &secret, requests, &step)
        } else if resumed {
            let secret = folder.secret_key(params)?;
            folder.resume(params, &secret, requests, &step)
        } else {
            folder.create(params, &generate(params, self.insecure)?, requests, &step)
        };
        let written = written.map_err(|error| self.incomplete(error))?;
        let time = start.elapsed();
        progress.clear();
        if self.json {
            return figures::print_json(&json!({
                "keys": self.output,
                "params": params.name(),
                "evaluation_keys": requests.len(),
                "evaluation_key_bytes": program.key_bytes(),
                "key_memory_bytes": program.key_memory(),
                "keygen_memory_bytes": program.keygen_memory(),
                "resumed": resumed,
                "bytes_written": written,
                "seconds": time.as_secs_f64(),
            }));
        }
        let path = self.output.display();
        figures::print(&format!(
            "{} written in {}\n  {path}/secret.key   the client's, never leaves it\n  \
             {path}/public.key   for whoever encrypts\n  {path}/{KEY_FOLDER}   for the server\n",
            figures::bytes(written),
            figures::duration(time),
        ))
    }
}

impl Keygen {
    /// What to do with a folder whose keys could not all be written.
    fn incomplete(&self, error: ClientError) -> anyhow::Error {
        let written = matches!(error, ClientError::Io { .. });
        let error = anyhow::Error::new(error);
        if !written {
            return error;
        }
        let path = self.output.display();
        error.context(format!("the keys in {path} are not complete: run the command again to go on"))
    }
}

/// The evaluation keys of a program, in memory.
pub(super) fn evaluation_keys(
    program: &Program,
    secret: &SecretKey,
    progress: &Progress,
) -> Result<Vec<EvaluationKey>> {
    let requests = program.artifact.keys.iter().enumerate();
    let keys = requests.map(|(done, &request)| {
        progress.step("making keys", done, program.artifact.keys.len());
        Ok(evaluation_key(&program.params, secret, request)?)
    });
    keys.collect()
}

/// A fresh secret key; under parameters without security only if that is allowed.
pub(super) fn generate(params: &Params, insecure: bool) -> Result<SecretKey> {
    Ok(if insecure { SecretKey::generate_insecure(params)? } else { SecretKey::generate(params)? })
}
