//! Collectives: random scripts against what they must do, and every way in which ranks fail.

mod hosts;
mod mpi;
mod tcp;
mod threads;

use cerium_runtime::CpuDevice;
use cerium_runtime::collectives::{CollectiveError, Collectives, Exchange, HostCollectives};
use cerium_runtime::device::{Address, Device};
use cerium_runtime::suite::collectives::{play, prepare};

/// A device for limbs of 2^`log_n` words.
fn device(log_n: u8) -> CpuDevice {
    let mut device = CpuDevice::new(1).unwrap();
    prepare(&mut device, log_n).unwrap();
    device
}

/// Plays a random script as one rank on limbs of 2^`log_n` words.
fn play_on_cpu(ranks: &mut HostCollectives, log_n: u8, seed: u64, steps: usize) {
    play(ranks, &mut device(log_n), seed, steps);
}

/// Gives slot 0 to the next rank and takes slot 1 from the one before.
fn ring(ranks: &HostCollectives) -> Exchange {
    let (rank, size) = (ranks.rank(), ranks.size());
    let sends = vec![((rank + 1) % size, Address(0))];
    Exchange { sends, receives: vec![((rank + size - 1) % size, Address(1))] }
}

fn ring_once(ranks: &mut HostCollectives, device: &mut dyn Device) -> Result<(), CollectiveError> {
    let started = ranks.start(&ring(ranks), device)?;
    ranks.finish(started, device)
}

/// Rings that must not fail.
fn rings(ranks: &mut HostCollectives, count: usize) {
    let mut device = device(4);
    for _ in 0..count {
        ring_once(ranks, &mut device).unwrap();
    }
}

/// Rings until something fails.
fn ring_until_failure(ranks: &mut HostCollectives) -> CollectiveError {
    let mut device = device(4);
    loop {
        if let Err(error) = ring_once(ranks, &mut device) {
            return error;
        }
    }
}
