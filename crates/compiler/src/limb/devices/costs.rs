//! What operations and transfers cost. The unit is the time that a device takes for a transform of a limb: it is what most other
//! costs are known against, on CPUs and GPUs alike.

use std::str::FromStr;

use cerium_ckks::params::Params;

use super::super::Op;
use crate::ir::Operation;

/// What connects devices. Figures are those of a limb of 2^16 words against a transform of such a limb, which takes half a
/// microsecond on a GPU with 4 TB/s, and some 100 microseconds on a core of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// NVLink of the fourth generation: 450 GB/s in each direction, 0.6 microseconds a limb.
    #[default]
    Nvlink,
    /// PCIe 5 with 16 lanes: some 50 GB/s, 5 microseconds a limb.
    Pcie,
    /// A network of 400 Gb/s for each device.
    Network,
    /// CPU devices of one process, which copy through memory.
    Memory,
}

impl Link {
    /// All of them.
    pub const ALL: [Link; 4] = [Link::Nvlink, Link::Pcie, Link::Network, Link::Memory];

    /// Its name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Link::Nvlink => "nvlink",
            Link::Pcie => "pcie",
            Link::Network => "network",
            Link::Memory => "memory",
        }
    }

    /// What it costs that a limb of 2^16 words arrives.
    fn limb(self) -> f64 {
        match self {
            Link::Nvlink => 1.3,
            Link::Pcie => 10.0,
            Link::Network => 11.0,
            Link::Memory => 0.5,
        }
    }

    /// What a collective costs however little it moves.
    fn latency(self) -> f64 {
        match self {
            Link::Nvlink => 25.0,
            Link::Pcie => 40.0,
            Link::Network => 60.0,
            Link::Memory => 0.5,
        }
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Link, String> {
        let known = || Link::ALL.map(Link::name).join(", ");
        Link::ALL.into_iter().find(|link| link.name() == text).ok_or_else(|| format!("links are {}", known()))
    }
}

/// Costs under parameters and over a link.
#[derive(Debug)]
pub(super) struct Costs {
    /// Of receiving a limb.
    pub(super) limb: f64,
    /// Of a collective.
    pub(super) latency: f64,
}

impl Costs {
    pub(super) fn new(params: &Params, link: Link) -> Costs {
        // A transform grows with N log N, a transfer with N.
        let log_n = f64::from(params.log_n());
        let transform = (log_n - 16.0).exp2() * log_n / 16.0;
        Costs { limb: link.limb() * 16.0 / log_n, latency: link.latency() / transform }
    }

    /// Of an operation.
    pub(super) fn operation(&self, op: &Op) -> f64 {
        match op {
            Op::Ntt { .. } | Op::Intt { .. } => 1.0,
            Op::BaseConvert { sources, .. } => 0.1 + 0.05 * sources.len() as f64,
            Op::Dot { terms } => 0.05 + 0.07 * terms.len() as f64,
            Op::MulScalar { .. } | Op::Neg { .. } | Op::AddScalar { .. } | Op::FromMontgomery { .. } => 0.05,
            Op::Add { .. }
            | Op::Sub { .. }
            | Op::Mul { .. }
            | Op::MulMontgomery { .. }
            | Op::Permute { .. } => 0.07 * op.operands().len() as f64,
            Op::Weight { .. }
            | Op::Plain { .. }
            | Op::Key { .. }
            | Op::Call { .. }
            | Op::Exchange { .. }
            | Op::AllReduce { .. } => 0.0,
        }
    }
}
