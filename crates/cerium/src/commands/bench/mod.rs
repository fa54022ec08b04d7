//! `cerium bench`: how fast this machine is.
//!
//! What is measured is measured as it is in a program: compiled by the same passes, with real keys and ciphertexts,
//! executed by a session.

mod bootstrap;
mod measure;
mod ops;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measure this machine.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Bootstrap(bootstrap::Bootstrap),
    Ops(ops::Ops),
}

impl Bench {
    /// Measures what was asked for.
    pub(crate) fn run(self) -> Result<()> {
        match self.what {
            What::Bootstrap(what) => what.run(),
            What::Ops(what) => what.run(),
        }
    }
}
