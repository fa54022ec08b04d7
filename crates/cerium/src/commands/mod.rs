//! The verbs.

mod bench;
mod compile;
mod decrypt;
mod demo;
mod device;
mod encrypt;
mod eval;
mod explain;
mod keygen;
mod model;
mod params;
mod ranks;
mod run;
mod simulate;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::Value;

use crate::{figures, files};

/// Encrypted inference: a client encrypts, a server computes on what it cannot read, the client decrypts the answer.
#[derive(Debug, Parser)]
#[command(
    name = "cerium",
    version,
    after_help = "Begin with `cerium demo`.\n\
    The whole path: compile (server) -> keygen (client) -> encrypt (client) -> run (server) -> decrypt (client)."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Params(params::Params),
    Compile(compile::Compile),
    Explain(explain::Explain),
    Keygen(keygen::Keygen),
    Encrypt(encrypt::Encrypt),
    Run(run::Run),
    Decrypt(decrypt::Decrypt),
    Simulate(simulate::Simulate),
    Eval(eval::Eval),
    Bench(bench::Bench),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> Result<()> {
        match self.verb {
            Verb::Demo(verb) => verb.run(),
            Verb::Params(verb) => verb.run(),
            Verb::Compile(verb) => verb.run(),
            Verb::Explain(verb) => verb.run(),
            Verb::Keygen(verb) => verb.run(),
            Verb::Encrypt(verb) => verb.run(),
            Verb::Run(verb) => verb.run(),
            Verb::Decrypt(verb) => verb.run(),
            Verb::Simulate(verb) => verb.run(),
            Verb::Eval(verb) => verb.run(),
            Verb::Bench(verb) => verb.run(),
        }
    }
}

/// Number of threads, for verbs that compute.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Threads {
    /// Threads to compute with; 0 takes one for each core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// How measurements are given, for verbs that take them.
#[derive(Clone, Debug, clap::Args)]
struct ReportArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl ReportArgs {
    /// Prints and writes what was asked for.
    fn give(&self, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
        if let Some(path) = &self.save {
            files::write(path, format!("{json:#}\n").as_bytes())?;
        }
        if self.json { figures::print_json(json) } else { figures::print(&text()) }
    }
}

impl Threads {
    /// Sets the size of the pool that keys are made with, and returns the number for sessions.
    fn apply(self) -> Result<usize> {
        if self.threads > 0 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global();
            pool.with_context(|| format!("cannot start {} threads", self.threads))?;
        }
        Ok(self.threads)
    }
}
