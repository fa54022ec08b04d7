//! The `encode` kernel on the CPU: plaintexts from raw weights, side by side, by the encoder itself.

use rayon::prelude::*;

use super::CpuDevice;
use crate::device::EncodeJob;
use crate::memory::PlaintextId;

impl CpuDevice {
    /// Encodes plaintexts into their places.
    pub(super) fn encode_plaintexts(&mut self, jobs: &[EncodeJob]) {
        let encoder = self.encoder.as_ref().expect("raw weights are loaded before they are encoded");
        let places = self.plaintexts.places_mut(jobs.iter().map(|job| job.place));
        let encode = |(id, out): (PlaintextId, &mut [u32])| {
            encoder.encode(id, out).expect("every encoding was checked when the session was made");
        };
        let jobs = jobs.iter().map(|job| job.encoding).zip(places);
        match &self.workers {
            Some(workers) => {
                let jobs: Vec<_> = jobs.collect();
                workers.install(|| jobs.into_par_iter().for_each(encode));
            }
            None => jobs.for_each(encode),
        }
    }
}

/// Bytes of memory that the system can still give, if it tells: `MemAvailable` of Linux, less a tenth for others.
pub(super) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024 / 10 * 9)
}
