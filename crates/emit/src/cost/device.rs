//! The devices whose time is predicted: what their makers say of them, what was measured on them, and who says so.

use super::interconnect::{
    INFINIBAND_HDR, INFINIBAND_NDR, Link, NVLINK_3, NVLINK_4, NVLINK_5, PCIE_4, PCIE_5,
};

/// A figure with its origin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The figure, in the unit of its field.
    pub value: f64,
    /// Where it comes from.
    pub source: &'static str,
}

pub(super) const fn figure(value: f64, source: &'static str) -> Figure {
    Figure { value, source }
}

/// A GPU. Rates are those of the whole device unless said otherwise; a rate that is used is the rated one times its share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Its name in commands, for example `h200`.
    pub name: &'static str,
    /// Its full name.
    pub title: &'static str,
    /// Multiprocessors.
    pub multiprocessors: Figure,
    /// Clock under load, in Hz.
    pub clock: Figure,
    /// Rated bandwidth of the memory, in bytes a second.
    pub dram: Figure,
    /// Share of it that kernels reach which read and write at once.
    pub dram_share: Figure,
    /// Time from a load to its data when the data is in memory, in seconds.
    pub dram_latency: Figure,
    /// Size of the L2 cache, in bytes.
    pub l2: Figure,
    /// Share of it that holds what is used again before the rate drops.
    pub l2_share: Figure,
    /// Bandwidth of the L2 cache for kernels that read and write, in bytes a second.
    pub l2_rate: Figure,
    /// Time that a kernel of a graph takes which does next to nothing, in seconds: from the end of the one before it.
    pub launch: Figure,
    /// Multiply-adds of 32 bits that a multiprocessor begins in a clock.
    pub multiplies: Figure,
    /// What a multiplication with a result of 64 bits, or its high word, takes of them.
    pub wide: Figure,
    /// Instructions (of one thread) that a multiprocessor issues in a clock.
    pub issues: Figure,
    /// Reversals of bits that a multiprocessor begins in a clock.
    pub reversals: Figure,
    /// Share of these rates that code reaches which is bound by them.
    pub arithmetic_share: Figure,
    /// Bytes that a multiprocessor moves from or to shared memory in a clock.
    pub shared: Figure,
    /// What joins the devices of a node.
    pub nvlink: Link,
    /// What joins them where there is no NVLink.
    pub pcie: Link,
    /// What joins nodes.
    pub network: Link,
}

const GUIDE: &str =
    "CUDA C++ Programming Guide, throughput of arithmetic instructions, compute capability 8.0 and 9.0";
const WIDE: &str =
    "assumed: not documented; a result of two registers is taken to need two slots of the multiplier";
const ISSUES: &str = "architecture white papers: four schedulers, one warp instruction a clock each";
const ARITHMETIC: &str = "NVIDIA developer forum 367788: Nsight Compute shows 82.5% of the rate for a tuned kernel of modular \
                          arithmetic that is bound by it (sm_89)";
const SHARED: &str = "architecture white papers: 32 banks of 4 bytes";
const LATENCY: &str = "gpu-benches, gpu-stream/h200.txt: 3165 GB/s of reads and writes at full occupancy, 1395 at a quarter, by \
                       Little's law";

/// The devices.
pub const GPUS: [Gpu; 4] = [
    Gpu {
        name: "a100",
        title: "NVIDIA A100 80GB SXM",
        multiprocessors: figure(108.0, "A100 data sheet"),
        clock: figure(
            1.41e9,
            "A100 white paper, boost clock; kept under load in chipsandcheese.com, 2 July 2023",
        ),
        dram: figure(2.039e12, "A100 data sheet"),
        dram_share: figure(0.85, "gpu-benches, cuda-stream/a100_80.txt: `scale` at 1732 GB/s"),
        dram_latency: figure(0.77e-6, LATENCY),
        l2: figure(40e6, "A100 white paper"),
        l2_share: figure(0.7, "gpu-benches, gpu-l2-cache/a100_80.txt: the rate holds up to 28 MB"),
        l2_rate: figure(
            4.0e12,
            "gpu-benches, gpu-small-kernels/a100_80_graph.txt: 8.3 and 16.7 MB of reads and writes",
        ),
        launch: figure(1.4e-6, "gpu-benches, gpu-small-kernels/a100_80_graph.txt: 4096 elements"),
        multiplies: figure(64.0, GUIDE),
        wide: figure(2.0, WIDE),
        issues: figure(128.0, ISSUES),
        reversals: figure(16.0, GUIDE),
        arithmetic_share: figure(0.8, ARITHMETIC),
        shared: figure(128.0, SHARED),
        nvlink: NVLINK_3,
        pcie: PCIE_4,
        network: INFINIBAND_HDR,
    },
    Gpu {
        name: "h100",
        title: "NVIDIA H100 80GB SXM",
        multiprocessors: figure(132.0, "H100 white paper"),
        clock: figure(1.98e9, "that of the H200, which has the same die"),
        dram: figure(3.35e12, "H100 data sheet"),
        dram_share: figure(0.8, "assumed: between the measured A100 and H200"),
        dram_latency: figure(0.77e-6, LATENCY),
        l2: figure(50e6, "H100 white paper"),
        l2_share: figure(0.85, "that of the H200, which has the same die"),
        l2_rate: figure(6.1e12, "that of the H200, which has the same die"),
        launch: figure(2.3e-6, "that of the H200"),
        multiplies: figure(64.0, GUIDE),
        wide: figure(2.0, WIDE),
        issues: figure(128.0, ISSUES),
        reversals: figure(16.0, GUIDE),
        arithmetic_share: figure(0.8, ARITHMETIC),
        shared: figure(128.0, SHARED),
        nvlink: NVLINK_4,
        pcie: PCIE_5,
        network: INFINIBAND_NDR,
    },
    Gpu {
        name: "h200",
        title: "NVIDIA H200 SXM",
        multiprocessors: figure(132.0, "H200 data sheet"),
        clock: figure(1.98e9, "gpu-benches, gpu-roofline/h200.txt: kept at 675 W"),
        dram: figure(4.8e12, "H200 data sheet"),
        dram_share: figure(
            0.78,
            "gpu-benches, gpu-roofline/h200.txt: 3760 GB/s; gpu-l2-cache/h200.txt: 3888 GB/s of reads",
        ),
        dram_latency: figure(0.77e-6, LATENCY),
        l2: figure(50e6, "H100 white paper (the same die)"),
        l2_share: figure(0.85, "gpu-benches, gpu-l2-cache/h200.txt: the rate holds up to 44 MB"),
        l2_rate: figure(
            6.1e12,
            "gpu-benches, gpu-small-kernels/h200_graph.txt: 8.3, 16.7 and 33 MB of reads and writes; reads alone 9.7e12 \
             (gpu-l2-cache/h200.txt)",
        ),
        launch: figure(2.3e-6, "gpu-benches, gpu-small-kernels/h200_graph.txt: 4096 elements"),
        multiplies: figure(64.0, GUIDE),
        wide: figure(2.0, WIDE),
        issues: figure(128.0, ISSUES),
        reversals: figure(16.0, GUIDE),
        arithmetic_share: figure(0.8, ARITHMETIC),
        shared: figure(128.0, SHARED),
        nvlink: NVLINK_4,
        pcie: PCIE_5,
        network: INFINIBAND_NDR,
    },
    Gpu {
        name: "b200",
        title: "NVIDIA B200 SXM",
        multiprocessors: figure(148.0, "public listings of the B200, not checked against NVIDIA"),
        clock: figure(1.965e9, "public listings of the B200, not checked against NVIDIA"),
        dram: figure(8e12, "HGX B200 data sheet"),
        dram_share: figure(0.78, "assumed: that of the H200"),
        dram_latency: figure(0.77e-6, LATENCY),
        l2: figure(126e6, "public listings of the B200, not checked against NVIDIA"),
        l2_share: figure(
            0.7,
            "assumed: two dies with a cache each; that of the A100, whose cache is in two parts",
        ),
        l2_rate: figure(6.8e12, "assumed: that of the H200 for each multiprocessor"),
        launch: figure(2.3e-6, "assumed: that of the H200"),
        multiplies: figure(64.0, "assumed: that of the H200"),
        wide: figure(2.0, WIDE),
        issues: figure(128.0, ISSUES),
        reversals: figure(16.0, "assumed: that of the H200"),
        arithmetic_share: figure(0.8, ARITHMETIC),
        shared: figure(128.0, SHARED),
        nvlink: NVLINK_5,
        pcie: PCIE_5,
        network: INFINIBAND_NDR,
    },
];

impl Gpu {
    /// The device with this name, for example `h200`.
    pub fn named(name: &str) -> Option<&'static Gpu> {
        GPUS.iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name))
    }

    /// Every figure with what it is, in a unit that reads well.
    pub fn figures(&self) -> Vec<(&'static str, String, &'static str)> {
        let row = |what, figure: Figure, unit: f64, name: &str| {
            let value = figure.value / unit;
            let digits = if value.fract() == 0.0 { 0 } else { 2 };
            (what, format!("{value:.digits$}{name}"), figure.source)
        };
        vec![
            row("multiprocessors", self.multiprocessors, 1.0, ""),
            row("clock", self.clock, 1e9, " GHz"),
            row("memory, rated", self.dram, 1e12, " TB/s"),
            row("memory, share reached", self.dram_share, 0.01, "%"),
            row("memory, latency", self.dram_latency, 1e-6, " us"),
            row("L2", self.l2, 1e6, " MB"),
            row("L2, share usable", self.l2_share, 0.01, "%"),
            row("L2, rate", self.l2_rate, 1e12, " TB/s"),
            row("launch in a graph", self.launch, 1e-6, " us"),
            row("32-bit multiply-adds a clock and multiprocessor", self.multiplies, 1.0, ""),
            row("slots of a wide multiplication", self.wide, 1.0, ""),
            row("instructions a clock and multiprocessor", self.issues, 1.0, ""),
            row("bit reversals a clock and multiprocessor", self.reversals, 1.0, ""),
            row("arithmetic, share reached", self.arithmetic_share, 0.01, "%"),
            row("shared memory, bytes a clock and multiprocessor", self.shared, 1.0, ""),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_sensible_and_sourced() {
        for gpu in &GPUS {
            assert_eq!(Gpu::named(&gpu.name.to_uppercase()), Some(gpu));
            for share in [gpu.dram_share, gpu.l2_share, gpu.arithmetic_share] {
                assert!((0.5..1.0).contains(&share.value), "{}: {share:?}", gpu.name);
            }
            assert!(
                gpu.l2_rate.value > gpu.dram.value * gpu.dram_share.value,
                "a cache is faster than memory"
            );
            let complete = |(what, value, source): &(&str, String, &str)| {
                !what.is_empty() && value.contains(|c: char| ('1'..='9').contains(&c)) && source.len() > 10
            };
            assert!(gpu.figures().iter().all(complete), "{:?}", gpu.figures());
        }
        assert_eq!(Gpu::named("gtx"), None);
    }
}
