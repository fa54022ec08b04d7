//! The time of a launch: the slowest of the things that a device does at once.

use std::fmt;

use super::demand::Demand;
use super::device::Gpu;

/// What bounds a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// Launching it takes longer than what it does.
    Launch,
    /// Memory.
    Dram,
    /// The L2 cache.
    L2,
    /// The multipliers of the multiprocessors.
    Multiply,
    /// Instructions of any kind.
    Issue,
    /// Reversals of bits, by which automorphisms find their words.
    Reversal,
    /// Shared memory.
    Shared,
}

impl Bound {
    /// All bounds.
    pub const ALL: [Bound; 7] = [
        Bound::Launch,
        Bound::Dram,
        Bound::L2,
        Bound::Multiply,
        Bound::Issue,
        Bound::Reversal,
        Bound::Shared,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Launch => "launch",
            Bound::Dram => "memory",
            Bound::L2 => "L2",
            Bound::Multiply => "multiplications",
            Bound::Issue => "instructions",
            Bound::Reversal => "bit reversals",
            Bound::Shared => "shared memory",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Predicted time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// Seconds from the end of the launch before it to its own, if what the device does at once overlaps.
    pub seconds: f64,
    /// Seconds if moving data and computing did not overlap at all.
    pub apart: f64,
    /// What bounds it.
    pub bound: Bound,
    /// Bytes that memory moves.
    pub dram_bytes: u64,
    /// Bytes that multiprocessors load and store.
    pub l2_bytes: u64,
}

/// Threads of a multiprocessor that are at work at once: kernels are built for 64 registers a thread.
const RESIDENT: u64 = 1024;

/// Bytes that a thread has asked for and not got: two accesses of 16 bytes.
const IN_FLIGHT: f64 = 32.0;

/// The time of a launch that moves so many bytes from and to memory and the L2 cache.
pub(super) fn time(gpu: &Gpu, demand: &Demand, dram_bytes: u64, l2_bytes: u64) -> Time {
    let multiprocessors = gpu.multiprocessors.value;
    // The multiprocessor with most blocks ends last.
    let most = (demand.blocks as f64 / multiprocessors).ceil() / demand.blocks as f64;
    let clocks = |instructions: f64, rate: f64| instructions * most / rate / gpu.clock.value;
    let arithmetic = |instructions: f64, rate: f64| clocks(instructions, rate) / gpu.arithmetic_share.value;
    // Little's law: few threads do not ask for enough to keep memory busy.
    let threads = (demand.blocks * demand.threads).min(RESIDENT * multiprocessors as u64);
    let asked = threads as f64 * IN_FLIGHT / gpu.dram_latency.value;
    let work = &demand.work;
    let roofs = [
        (Bound::Dram, dram_bytes as f64 / (gpu.dram.value * gpu.dram_share.value).min(asked)),
        (Bound::L2, l2_bytes as f64 / gpu.l2_rate.value),
        (Bound::Multiply, arithmetic(work.narrow + gpu.wide.value * work.wide, gpu.multiplies.value)),
        (Bound::Issue, arithmetic(work.issues, gpu.issues.value)),
        (Bound::Reversal, arithmetic(work.reversals, gpu.reversals.value)),
        (Bound::Shared, clocks(work.shared, gpu.shared.value)),
    ];
    let (bound, slowest) =
        roofs.into_iter().fold((Bound::Launch, 0.0), |slowest, roof| match roof.1 > slowest.1 {
            true => roof,
            false => slowest,
        });
    let bound = if slowest < gpu.launch.value { Bound::Launch } else { bound };
    let largest = |of: &[Bound]| {
        let roofs = roofs.iter().filter(|(bound, _)| of.contains(bound));
        roofs.fold(0.0, |largest: f64, (_, seconds)| largest.max(*seconds))
    };
    let moving = largest(&[Bound::Dram, Bound::L2]) + largest(&[Bound::Shared]);
    let computing = largest(&[Bound::Multiply, Bound::Issue, Bound::Reversal]);
    let launch = gpu.launch.value;
    Time { seconds: launch + slowest, apart: launch + moving + computing, bound, dram_bytes, l2_bytes }
}
