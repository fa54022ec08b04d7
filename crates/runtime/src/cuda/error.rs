//! What can go wrong on the way to a GPU.

use std::fmt;

use super::nvrtc::NvrtcError;

/// Oldest driver that serves: that of CUDA 12.0.
pub const OLDEST_DRIVER: DriverVersion = DriverVersion(12_000);

/// Version of CUDA that a driver speaks, as it counts it: 12040 for 12.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverVersion(pub i32);

impl DriverVersion {
    /// The first number.
    pub fn major(self) -> u32 {
        (self.0 / 1000).unsigned_abs()
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// Why a GPU cannot be used, or stopped working.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// No library of the driver.
    #[error(
        "there is no NVIDIA driver on this machine (libcuda.so.1 was not found); install one for CUDA {OLDEST_DRIVER} or \
         later, or compute with `--device cpu`"
    )]
    NoDriver,
    /// A driver without the functions that are used here.
    #[error(
        "the NVIDIA driver is too old: it speaks CUDA {found}, and {OLDEST_DRIVER} is needed; update it, or compute with \
         `--device cpu`"
    )]
    OldDriver {
        /// What it speaks.
        found: DriverVersion,
    },
    /// A driver without a GPU.
    #[error(
        "the NVIDIA driver finds no GPU ({reason}); see what `nvidia-smi` says and whether CUDA_VISIBLE_DEVICES hides it, \
         or compute with `--device cpu`"
    )]
    NoGpu {
        /// The driver's reason.
        reason: String,
    },
    /// Fewer GPUs than that.
    #[error("there is no GPU {ordinal}: this machine has {count}, counted from 0")]
    NoSuchGpu {
        /// Which was asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// Its memory is too small for the program, or used by others.
    #[error(
        "{gpu} has {} of {} free for this program, which needs {}: {needs}; stop other programs on it (`nvidia-smi` lists \
         them), or use a larger GPU or `--device cpu`",
        Bytes(*free), Bytes(*total), Bytes(needs.total())
    )]
    OutOfMemory {
        /// Name of the GPU.
        gpu: String,
        /// What the program needs, as far as it is known by now.
        needs: MemoryNeeds,
        /// Bytes that are free or that the program has taken already.
        free: u64,
        /// Bytes of the whole memory.
        total: u64,
    },
    /// No machine code for a kernel.
    #[error(transparent)]
    Nvrtc(#[from] NvrtcError),
    /// The host cannot do what a GPU does ([`super::host`]), or an emitted kernel is wrong.
    #[error("the host cannot stand in for a GPU: {0}")]
    Host(String),
    /// The driver refused something that it should have done.
    #[error("the NVIDIA driver failed {doing}: {reason}")]
    Driver {
        /// As in "failed copying into the memory of the GPU".
        doing: &'static str,
        /// Name of its error, and what it says of it.
        reason: String,
    },
}

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Limb slots: inputs, outputs and frames.
    Pool,
    /// Evaluation keys.
    Keys,
    /// Encoded plaintexts.
    Plaintexts,
    /// Raw weights, for plaintexts that are encoded while the program runs.
    Weights,
    /// Tables of transforms, and what launches read besides limbs.
    Tables,
    /// Limbs within a launch.
    Scratch,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Pool => "working memory",
            Purpose::Keys => "evaluation keys",
            Purpose::Plaintexts => "encoded weights",
            Purpose::Weights => "raw weights",
            Purpose::Tables => "tables",
            Purpose::Scratch => "scratch memory",
        })
    }
}

/// Memory that a program needs on a GPU, by purpose, in the order in which it became known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryNeeds(pub Vec<(Purpose, u64)>);

impl MemoryNeeds {
    /// Adds to a purpose.
    pub fn add(&mut self, purpose: Purpose, bytes: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == purpose) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => self.0.push((purpose, bytes)),
        }
    }

    /// Bytes of everything.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl fmt::Display for MemoryNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (purpose, bytes)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} for {purpose}", Bytes(*bytes))?;
        }
        Ok(())
    }
}

/// A number of bytes, in a unit that suits it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 10 << 10 => write!(f, "{bytes} bytes"),
            bytes if bytes < 10 << 20 => write!(f, "{:.1} KiB", bytes as f64 / 1024.0),
            bytes if bytes < 10 << 30 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes => write!(f, "{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_names_every_figure() {
        let mut needs = MemoryNeeds::default();
        needs.add(Purpose::Pool, 3 << 30);
        needs.add(Purpose::Tables, 5000);
        needs.add(Purpose::Keys, 200 << 30);
        needs.add(Purpose::Tables, 1000);
        let gpu = "NVIDIA H200".to_string();
        let error = CudaError::OutOfMemory { gpu, needs, free: 130 << 30, total: 139 << 30 };
        assert_eq!(
            error.to_string(),
            "NVIDIA H200 has 130.0 GiB of 139.0 GiB free for this program, which needs 203.0 GiB: 3072.0 MiB for working \
             memory, 6000 bytes for tables, 200.0 GiB for evaluation keys; stop other programs on it (`nvidia-smi` lists \
             them), or use a larger GPU or `--device cpu`"
        );
    }

    #[test]
    fn versions_print_as_people_write_them() {
        assert_eq!(DriverVersion(12_040).to_string(), "12.4");
        assert_eq!(
            CudaError::OldDriver { found: DriverVersion(11_080) }.to_string().matches("11.8").count(),
            1
        );
        assert_eq!(OLDEST_DRIVER.major(), 12);
    }
}
