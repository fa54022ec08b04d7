//! `cerium bench`: how fast this machine is.
//!
//! What is measured is measured as it is in a program: compiled by the same passes, with real keys and ciphertexts,
//! executed by a session.

mod bootstrap;
mod device;
mod kernels;
mod measure;
mod ops;
mod transform;

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
    Device(device::Device),
    Kernels(kernels::Kernels),
    Ops(ops::Ops),
}

impl Bench {
    /// Measures what was asked for.
    pub(crate) fn run(self) -> Result<()> {
        match self.what {
            What::Bootstrap(what) => what.run(),
            What::Device(what) => what.run(),
            What::Kernels(what) => what.run(),
            What::Ops(what) => what.run(),
        }
    }
}
