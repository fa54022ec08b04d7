//! What joins devices: how fast it is, who measured that, and what a collective takes of it.
//!
//! The words of an all-reduce are added by devices, not by switches. Switches (NVLink SHARP) add words without reducing them, and
//! a sum of more than four residues below 2^30 needs 64 bits: on 8 GPUs they would take in twice the bytes at 273 GB/s (H100,
//! NVIDIA/nccl 1455), while devices that add send 1.75 times the bytes at 370 GB/s. Up to four they are no faster (the same
//! measurement). They do not pay.

use cerium_artifact::cost::collective_traffic;
use cerium_artifact::{DeviceId, Movement};

use super::device::{Figure, figure};

/// What joins devices of a node, or nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Its name.
    pub title: &'static str,
    /// Rated bandwidth of one device in each direction, in bytes a second.
    pub rate: Figure,
    /// Share of it that limbs reach which are sent to several devices and received from them at once.
    pub share: Figure,
    /// Time of a group of sends and receives of next to nothing, in seconds.
    pub latency: Figure,
}

/// Third-generation NVLink behind switches: A100.
pub const NVLINK_3: Link = Link {
    title: "NVLink 3",
    rate: figure(3e11, "A100 white paper: 12 links of 25 GB/s in each direction"),
    share: figure(
        0.78,
        "NVIDIA/nccl, src/graph/tuning.cc: at most 235 GB/s on compute capability 8.0; NVIDIA/nccl 1048: 232.5 GB/s measured on \
         8 A100",
    ),
    latency: NVLINK_LATENCY,
};

/// Fourth-generation NVLink behind switches: H100 and H200.
pub const NVLINK_4: Link = Link {
    title: "NVLink 4",
    rate: figure(4.5e11, "H100 white paper: 18 links of 25 GB/s in each direction"),
    share: figure(
        0.75,
        "NVIDIA/nccl 2169: `alltoall_perf` on 4 H100, 335 to 338 GB/s; rings reach 370 GB/s (NVIDIA/nccl-tests 212)",
    ),
    latency: NVLINK_LATENCY,
};

/// Fifth-generation NVLink behind switches: B200.
pub const NVLINK_5: Link = Link {
    title: "NVLink 5",
    rate: figure(9e11, "HGX B200 data sheet: 18 links of 50 GB/s in each direction"),
    share: figure(
        0.75,
        "assumed: that of NVLink 4; NVIDIA/nccl, src/graph/topo.h, reckons with 40.1 GB/s a link (0.8) for rings",
    ),
    latency: NVLINK_LATENCY,
};

const NVLINK_LATENCY: Figure = figure(
    10.5e-6,
    "deepseek-ai/DeepEP 303: `alltoall_perf` of 128 bytes on 8 H20 with NVLink 4, 10.3 to 10.6 us; of other generations \
     assumed",
);

/// PCI Express 4.0, 16 lanes, through the host: A100 without NVLink.
pub const PCIE_4: Link = Link {
    title: "PCIe 4.0 x16",
    rate: figure(3.15e10, "PCI Express 4.0: 16 GT/s, 16 lanes, 128b/130b"),
    share: figure(0.45, "assumed: that of PCIe 5.0"),
    latency: PCIE_LATENCY,
};

/// PCI Express 5.0, 16 lanes, through the host: H100, H200 and B200 without NVLink.
pub const PCIE_5: Link = Link {
    title: "PCIe 5.0 x16",
    rate: figure(6.3e10, "PCI Express 5.0: 32 GT/s, 16 lanes, 128b/130b"),
    share: figure(
        0.45,
        "NVIDIA/nccl 1639: 8 GPUs with PCIe 5.0 behind two processors, 28 GB/s in both directions at once",
    ),
    latency: PCIE_LATENCY,
};

const PCIE_LATENCY: Figure = figure(
    11.9e-6,
    "tinygrad/open-gpu-kernel-modules 17: `alltoall_perf` of 8 bytes on 2 GPUs through the host, 11.3 to 11.9 us; of 8 GPUs \
     assumed",
);

/// InfiniBand HDR, one adapter for each GPU: nodes of A100.
pub const INFINIBAND_HDR: Link = Link {
    title: "InfiniBand HDR",
    rate: figure(2.5e10, "200 Gbit/s, one adapter for each GPU"),
    share: figure(0.96, "NVIDIA/nccl 1048: 24 GB/s through one adapter"),
    latency: NETWORK_LATENCY,
};

/// InfiniBand NDR, one adapter for each GPU: nodes of H100, H200 and B200.
pub const INFINIBAND_NDR: Link = Link {
    title: "InfiniBand NDR",
    rate: figure(5e10, "400 Gbit/s, one adapter for each GPU"),
    share: figure(0.97, "NVIDIA/nccl-tests 267: 48 to 49 GB/s through one adapter"),
    latency: NETWORK_LATENCY,
};

const NETWORK_LATENCY: Figure = figure(
    19e-6,
    "NVIDIA/nccl-tests 150: `all_reduce_perf` of 8 bytes on 2 GPUs of two nodes with HDR, 19.0 us; of NDR assumed",
);

impl Link {
    /// Bytes that a device sends, and receives at the same time, in a second.
    pub fn bandwidth(&self) -> f64 {
        self.rate.value * self.share.value
    }

    /// Every figure with what it is, in a unit that reads well.
    pub fn figures(&self) -> Vec<(String, String, &'static str)> {
        let row = |what: &str, value: String, source| (format!("{}, {what}", self.title), value, source);
        vec![
            row("rated", format!("{:.1} GB/s", self.rate.value / 1e9), self.rate.source),
            row("share reached", format!("{:.0}%", self.share.value / 0.01), self.share.source),
            row("latency", format!("{:.1} us", self.latency.value / 1e-6), self.latency.source),
        ]
    }
}

/// Devices that run a program together: nodes of as many devices each, with a link within a node and a network between nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Devices.
    pub devices: usize,
    /// Devices of a node, a divisor of the number of devices; devices of a node follow each other.
    pub per_node: usize,
    /// Between devices of a node.
    pub link: Link,
    /// Between nodes.
    pub network: Link,
    /// Bytes that a device hands over or takes in a second where it does so itself, between kernels; `None` where limbs move
    /// beside them.
    pub hands: Option<f64>,
}

/// What a collective takes of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// The devices that it sends to or receives from; none if it takes no part.
    pub peers: Vec<usize>,
    /// Seconds before the first byte.
    pub latency: f64,
    /// Seconds in which bytes move.
    pub moving: f64,
    /// Seconds without kernels that it takes to hand over what it sends, when it starts.
    pub gives: f64,
    /// Seconds without kernels that it takes to take in what it receives, when it finishes.
    pub takes: f64,
    /// Bytes that it sends, to other nodes among them.
    pub sent: u64,
    /// Bytes that it sends to other nodes.
    pub sent_far: u64,
}

impl Group {
    /// Devices in as many nodes.
    ///
    /// # Panics
    /// If the nodes would not be of one size.
    pub fn new(devices: usize, nodes: usize, link: Link, network: Link) -> Group {
        assert!(nodes > 0 && devices.is_multiple_of(nodes), "{devices} devices in {nodes} nodes");
        Group { devices, per_node: devices / nodes, link, network, hands: None }
    }

    /// Threads of one process that hand limbs to each other, so many bytes in a second each, and wake each other in `latency`
    /// seconds.
    pub fn threads(devices: usize, hands: f64, latency: f64) -> Group {
        let measured = |value| figure(value, "measured now");
        let link = Link {
            title: "memory",
            rate: measured(hands),
            share: figure(1.0, "what is measured is reached"),
            latency: measured(latency),
        };
        Group { devices, per_node: devices.max(1), link, network: link, hands: Some(hands) }
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.devices / self.per_node
    }

    /// What a collective takes of `device`, in a ring of degree `2^log_n`. Link and network are used at once, and each in both
    /// directions; hands do one thing after the other.
    pub fn transfer(&self, device: DeviceId, movement: &Movement, log_n: u32) -> Transfer {
        let limb = 4u64 << log_n;
        let sent = collective_traffic(movement, self.devices, log_n).bytes;
        let node = |device: usize| device / self.per_node;
        match movement {
            Movement::Exchange { sends, receives } => {
                let far = |peer: DeviceId| node(peer.index()) != node(device.index());
                let bytes = |peers: &[DeviceId], is_far: bool| {
                    peers.iter().filter(|&&peer| far(peer) == is_far).count() as u64 * limb
                };
                let to: Vec<DeviceId> = sends.iter().map(|limb| limb.to).collect();
                let from: Vec<DeviceId> = receives.iter().map(|limb| limb.from).collect();
                let larger = |is_far| bytes(&to, is_far).max(bytes(&from, is_far)) as f64;
                let mut peers: Vec<usize> = to.iter().chain(&from).map(|peer| peer.index()).collect();
                peers.sort_unstable();
                peers.dedup();
                let sent_far = bytes(&to, true);
                let received = from.len() as u64 * limb;
                let times = self.times(larger(false), larger(true));
                self.by_hand(Transfer { peers, sent, sent_far, ..times }, sent as f64, received as f64)
            }
            Movement::AllReduce { limbs } if !limbs.is_empty() => {
                // Each device of a node adds a share of the limbs, nodes exchange shares, and devices exchange sums.
                let bytes = (limbs.len() as u64 * limb) as f64;
                let (local, nodes) = (self.per_node as f64, self.nodes() as f64);
                let near = 2.0 * bytes * (local - 1.0) / local;
                let far = 2.0 * bytes / local * (nodes - 1.0) / nodes;
                let one = self.times(near, far);
                let peers = (0..self.devices).filter(|&peer| peer != device.index()).collect();
                // Parts go to where they are added before sums come back.
                let latency = 2.0 * one.latency;
                let transfer = Transfer { peers, sent, sent_far: far as u64, latency, ..one };
                let parts = sent as f64 / 2.0;
                self.by_hand(transfer, parts, 3.0 * parts)
            }
            Movement::AllReduce { .. } => Transfer::default(),
        }
    }

    /// A transfer of a device that gives and takes so many bytes, by hand if the group does so.
    fn by_hand(&self, transfer: Transfer, given: f64, taken: f64) -> Transfer {
        match self.hands {
            None => transfer,
            Some(rate) => Transfer { moving: 0.0, gives: given / rate, takes: taken / rate, ..transfer },
        }
    }

    /// Times for so many bytes over link and network.
    fn times(&self, near: f64, far: f64) -> Transfer {
        let of = |bytes: f64, link: &Link| match bytes > 0.0 {
            true => (link.latency.value, bytes / link.bandwidth()),
            false => (0.0, 0.0),
        };
        let (near, far) = (of(near, &self.link), of(far, &self.network));
        Transfer { latency: near.0.max(far.0), moving: near.1.max(far.1), ..Transfer::default() }
    }
}

#[cfg(test)]
mod tests {
    use cerium_artifact::{Incoming, Operand, Outgoing};
    use cerium_ckks::basis::PrimeIndex;

    use super::super::GPUS;
    use super::*;

    fn link(rate: f64, latency: f64) -> Link {
        let source = "made up for a test";
        Link {
            title: "test",
            rate: figure(rate, source),
            share: figure(1.0, source),
            latency: figure(latency, source),
        }
    }

    fn exchange(to: &[u16], from: &[u16]) -> Movement {
        let (prime, limb) = (PrimeIndex(0), Operand::Local(0));
        Movement::Exchange {
            sends: to.iter().map(|&to| Outgoing { to: DeviceId(to), prime, limb }).collect(),
            receives: from.iter().map(|&from| Incoming { from: DeviceId(from), prime, limb }).collect(),
        }
    }

    #[test]
    fn figures_are_sensible_and_sourced() {
        for gpu in &GPUS {
            let links = [gpu.nvlink, gpu.pcie, gpu.network];
            for link in links {
                assert!((0.4..1.0).contains(&link.share.value), "{link:?}");
                assert!((1e-6..1e-4).contains(&link.latency.value), "{link:?}");
                assert!(link.figures().iter().all(|(_, _, source)| source.len() > 10));
            }
            let [nvlink, pcie, network] = links.map(|link| link.bandwidth());
            assert!(gpu.dram.value > nvlink && nvlink > network.max(pcie), "{}", gpu.name);
        }
    }

    #[test]
    fn the_larger_direction_counts() {
        // Limbs of 4096 bytes at 4096 bytes a second.
        let group = Group::new(4, 1, link(4096.0, 0.5), link(1.0, 9.0));
        let transfer = group.transfer(DeviceId(0), &exchange(&[1, 2, 1], &[3]), 10);
        let sent = 3 * 4096;
        let expected =
            Transfer { peers: vec![1, 2, 3], latency: 0.5, moving: 3.0, sent, ..Transfer::default() };
        assert_eq!(transfer, expected);
        assert_eq!(group.transfer(DeviceId(0), &exchange(&[1], &[2, 3]), 10).moving, 2.0);
        // By hand, one limb after the other.
        let hands = Group::threads(4, 4096.0, 0.5);
        let transfer = hands.transfer(DeviceId(0), &exchange(&[1, 2, 1], &[3]), 10);
        assert_eq!(transfer, Transfer { moving: 0.0, gives: 3.0, takes: 1.0, ..expected });
        assert_eq!(group.transfer(DeviceId(0), &exchange(&[], &[]), 10), Transfer::default());
    }

    #[test]
    fn other_nodes_are_reached_over_the_network() {
        let group = Group::new(4, 2, link(4096.0, 0.5), link(1024.0, 2.0));
        let transfer = group.transfer(DeviceId(1), &exchange(&[0, 0, 2], &[]), 10);
        assert_eq!((transfer.sent, transfer.sent_far), (3 * 4096, 4096));
        assert_eq!((transfer.latency, transfer.moving, transfer.peers), (2.0, 4.0, vec![0, 2]));
        // Eight limbs to the other device of the node take longer than one to another node.
        assert_eq!(group.transfer(DeviceId(1), &exchange(&[0, 0, 0, 0, 0, 0, 0, 0, 2], &[]), 10).moving, 8.0);
    }

    #[test]
    fn an_all_reduce_sends_a_share_and_the_sum_of_another() {
        let limbs = vec![(PrimeIndex(0), Operand::Local(0)); 8];
        let sum = Movement::AllReduce { limbs };
        // Of 8 limbs, 4 devices send three shares of two, and their own sum to three.
        let group = Group::new(4, 1, link(4096.0, 0.5), link(1.0, 9.0));
        let transfer = group.transfer(DeviceId(2), &sum, 10);
        assert_eq!((transfer.sent, transfer.sent_far), (12 * 4096, 0));
        assert_eq!((transfer.latency, transfer.moving, transfer.peers), (1.0, 12.0, vec![0, 1, 3]));
        // By hand, the parts are given; taken are other parts, and sums are given and taken.
        let transfer = Group::threads(4, 4096.0, 0.5).transfer(DeviceId(2), &sum, 10);
        assert_eq!((transfer.gives, transfer.takes, transfer.moving), (6.0, 18.0, 0.0));
        // In two nodes: half of the limbs and half of the sums within the node, then half of a share of four twice.
        let group = Group::new(4, 2, link(4096.0, 0.5), link(1024.0, 2.0));
        let transfer = group.transfer(DeviceId(2), &sum, 10);
        assert_eq!((transfer.sent, transfer.sent_far), (12 * 4096, 4 * 4096));
        assert_eq!((transfer.latency, transfer.moving), (4.0, 16.0));
    }
}
