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
    keys/secret.key stays with the client; keys/public.key is for whoever encrypts; keys/evaluation goes to the server.")]
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
        let start = Instant::now();
        let written = if self.add {
            let secret = folder.secret_key(params)?;
            folder.add(params, &secret, requests, &step)
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
                "bytes_written": written,
                "seconds": time.as_secs_f64(),
            }));
        }
        let path = self.output.display();
        figures::print(&format!(
            "{} evaluation keys, {} written in {}\n  {path}/secret.key   the client's, never leaves it\n  \
             {path}/public.key   for whoever encrypts\n  {path}/{KEY_FOLDER}   for the server\n",
            requests.len(),
            figures::bytes(written),
            figures::duration(time),
        ))
    }
}

impl Keygen {
    /// What to do with a folder whose keys could not all be written.
    fn incomplete(&self, error: ClientError) -> anyhow::Error {
        let (path, written) = (self.output.display(), matches!(error, ClientError::Io { .. }));
        let error = anyhow::Error::new(error);
        match (written, self.add) {
            (false, _) => error,
            (true, false) => error
                .context(format!("the keys in {path} are not complete: delete the folder and start again")),
            (true, true) => {
                error.context(format!("the keys in {path} are not complete: run the command again"))
            }
        }
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
