//! The `encode` kernel on the CPU: plaintexts from raw weights, side by side, by the encoder itself.

use cerium_ckks::encoding::Slots;
use rayon::prelude::*;

use super::CpuDevice;
use crate::device::EncodeJob;
use crate::memory::{Form, PlaintextId};

impl CpuDevice {
    /// Encodes plaintexts into their places.
    pub(super) fn encode_plaintexts(&mut self, jobs: &[EncodeJob]) {
        let encoder = self.encoder.as_ref().expect("raw weights are loaded before they are encoded");
        let places = self.plaintexts.places_mut(jobs.iter().map(|job| job.place));
        let encode = |slots: &mut Slots, (id, (form, out)): (PlaintextId, (Form, &mut [u32]))| {
            let encoded = encoder.encode(id, form, slots, out);
            encoded.expect("every encoding was checked when the session was made");
        };
        let jobs = jobs.iter().map(|job| job.encoding).zip(places);
        match &self.workers {
            Some(workers) => {
                let jobs: Vec<_> = jobs.collect();
                workers.install(|| jobs.into_par_iter().for_each_init(Slots::new, encode));
            }
            None => {
                let mut slots = Slots::new();
                jobs.for_each(|job| encode(&mut slots, job));
            }
        }
    }
}

/// Most bytes that are left to others.
const MOST_RESERVE: u64 = 16 << 30;

/// Bytes of memory that may still be taken, if the system tells: `MemAvailable` of Linux, less a quarter of the machine for
/// tables, tasks and scratch memory that are still to come, for files in use, and for others.
pub(super) fn available_memory() -> Option<u64> {
    available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    };
    let reserve = (bytes("MemTotal")? / 4).min(MOST_RESERVE);
    Some(bytes("MemAvailable")?.saturating_sub(reserve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_is_left_to_others() {
        let meminfo = |total: u64, available: u64| {
            format!(
                "MemTotal:       {total} kB\nMemFree:  1 kB\nMemAvailable:   {available} kB\nBuffers: 7 kB\n"
            )
        };
        assert_eq!(available(&meminfo(1000, 900)), Some(650 << 10));
        assert_eq!(available(&meminfo(1000, 100)), Some(0));
        assert_eq!(available(&meminfo(1 << 30, 1 << 30)), Some((1 << 40) - MOST_RESERVE));
        assert_eq!(available("MemTotal: 1000 kB\n"), None);
    }
}
