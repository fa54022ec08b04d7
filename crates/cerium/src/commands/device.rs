//! Which device computes, for verbs that run programs.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use cerium_runtime::cuda::cache::CubinCache;
use cerium_runtime::cuda::compile::KernelCompiler;
use cerium_runtime::cuda::host::{HostGpu, Order};
use cerium_runtime::cuda::{CudaDevice, CudaError, CudaOptions};
use cerium_runtime::device::{Device, DeviceError};
use cerium_runtime::{CpuDevice, SessionOptions};

use crate::figures;
use crate::speed;

/// A device, and what a GPU needs besides.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// Where to compute: `cpu`, `cuda` (`cuda:1` for the second GPU), `auto` for a GPU if there is one. For tests `host` runs
    /// the kernels for GPUs through a C++ compiler, slowly.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: Choice,
    /// Folder of NVRTC, which compiles kernels for GPUs: a CUDA toolkit or a folder of Python packages. Without, the usual
    /// places.
    #[arg(long, value_name = "DIR")]
    nvrtc: Option<PathBuf>,
    /// Folder of NCCL, by which several GPUs give limbs to each other: a folder of Python packages. Without, the usual places.
    #[arg(long, value_name = "DIR")]
    nccl: Option<PathBuf>,
    /// Folder of compiled kernels. Without, `cerium/cubins` in the user's cache folder.
    #[arg(long, value_name = "DIR")]
    cubins: Option<PathBuf>,
    /// Memory that encoded weights may take, such as `4GB`; those beyond are kept in a shorter form, or encoded from the raw
    /// weights whenever they are needed. Without, what the device has, less a quarter of the machine's memory on a CPU.
    #[arg(long, value_name = "SIZE", value_parser = figures::parse_bytes)]
    plaintext_memory: Option<u64>,
    /// Take the time of each stage on a GPU, which makes the whole slower.
    #[arg(long)]
    pub(super) stage_times: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Cpu,
    Cuda(u32),
    /// The kernels for GPUs on the host, through a C++ compiler: slow, and no help to users.
    Host,
    Auto,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let ordinal = text.strip_prefix("cuda:").map(str::parse);
        match (text, ordinal) {
            ("cpu", _) => Ok(Choice::Cpu),
            ("cuda", _) => Ok(Choice::Cuda(0)),
            ("auto", _) => Ok(Choice::Auto),
            ("host", _) => Ok(Choice::Host),
            (_, Some(Ok(ordinal))) => Ok(Choice::Cuda(ordinal)),
            _ => Err("devices are cpu, cuda, cuda:1 and so on, auto, and host".to_string()),
        }
    }
}

impl DeviceArgs {
    /// How sessions are made, prepared by `threads` threads (0: one for each core).
    pub(super) fn session(&self, threads: usize) -> SessionOptions {
        SessionOptions { threads, plaintext_memory: self.plaintext_memory }
    }

    /// Opens the device; a CPU computes with `threads` threads (0: one for each core).
    pub(super) fn open(&self, threads: usize) -> Result<Box<dyn Device>> {
        self.open_for(0, threads)
    }

    /// Opens the device of one of several ranks of this machine: GPUs in order, the first ones again where there are fewer. A
    /// CPU computes with `threads` threads (0: one for each core).
    pub(super) fn open_for(&self, rank: usize, threads: usize) -> Result<Box<dyn Device>> {
        match self.open_cuda(rank)? {
            Some(device) => Ok(Box::new(device)),
            None => Ok(Box::new(CpuDevice::new(threads)?)),
        }
    }

    /// Bytes that copies within the memory of the device read and write in a second, measured on the spot.
    pub(super) fn copy_rate(&self, threads: usize) -> Result<f64> {
        match self.open_cuda(0)? {
            Some(mut device) => Ok(device.copy_rate()?),
            None => Ok(speed::copy_rate(threads)),
        }
    }

    /// The GPU of a rank of this machine, unless the CPU shall compute.
    fn open_cuda(&self, rank: usize) -> Result<Option<CudaDevice>> {
        match self.device {
            Choice::Cpu => Ok(None),
            Choice::Cuda(first) => Ok(Some(self.open_gpu(first, rank)?)),
            Choice::Host => match HostGpu::new(Order::Shuffled(1)) {
                Some(host) => Ok(Some(CudaDevice::on(Box::new(host), self.stage_times))),
                None => bail!(
                    "there is no C++ compiler (g++ or clang++) that runs the kernels for GPUs on the host"
                ),
            },
            Choice::Auto => match self.open_gpu(0, rank) {
                Err(DeviceError::Cuda(CudaError::NoDriver | CudaError::NoGpu { .. })) => Ok(None),
                device => Ok(Some(device?)),
            },
        }
    }

    /// The GPU for a rank, if rank 0 has GPU `first`. Where there are too few, ranks share them.
    fn open_gpu(&self, first: u32, rank: usize) -> Result<CudaDevice, DeviceError> {
        match CudaDevice::new(self.options(first + rank as u32)) {
            Err(DeviceError::Cuda(CudaError::NoSuchGpu { ordinal, count })) if rank > 0 => {
                CudaDevice::new(self.options(ordinal % count))
            }
            device => device,
        }
    }

    /// Where NCCL is looked for, if not in the usual places.
    pub(super) fn nccl(&self) -> Option<&Path> {
        self.nccl.as_deref()
    }

    /// What compiles kernels for GPUs.
    pub(super) fn compiler(&self) -> KernelCompiler {
        KernelCompiler { nvrtc: self.nvrtc.clone(), cache: self.cache() }
    }

    fn options(&self, ordinal: u32) -> CudaOptions {
        CudaOptions { ordinal, nvrtc: self.nvrtc.clone(), cache: self.cache(), profile: self.stage_times }
    }

    fn cache(&self) -> CubinCache {
        self.cubins.as_deref().map_or_else(CubinCache::of_user, CubinCache::at)
    }
}

/// Threads for one of several ranks of this machine: a fair share of `threads` (0: one for each core), at least one.
pub(super) fn share(threads: usize, rank: usize, ranks: usize) -> usize {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads => threads,
    };
    (threads / ranks + usize::from(rank < threads % ranks)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_divided() {
        let shares = |threads, ranks| (0..ranks).map(|rank| share(threads, rank, ranks)).collect::<Vec<_>>();
        assert_eq!(shares(8, 3), [3, 3, 2]);
        assert_eq!(shares(2, 4), [1; 4]);
        assert_eq!(shares(6, 1), [6]);
        assert!(shares(0, 2).iter().all(|&threads| threads > 0));
    }

    #[test]
    fn devices_are_named() {
        assert_eq!("cpu".parse(), Ok(Choice::Cpu));
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        assert_eq!("host".parse(), Ok(Choice::Host));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(3)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CUDA", "cpu:1"] {
            assert!(text.parse::<Choice>().unwrap_err().contains("cuda:1"), "{text}");
        }
    }
}
