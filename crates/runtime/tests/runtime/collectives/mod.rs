//! Collectives: random scripts against what they must do, and every way in which ranks fail.

mod hosts;
mod mpi;
mod script;
mod tcp;
mod threads;

use cerium_runtime::collectives::{CollectiveError, Collectives, Exchange, HostCollectives};
use cerium_runtime::device::{Address, Device};

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
    let mut device = script::device(4, 2);
    for _ in 0..count {
        ring_once(ranks, &mut device).unwrap();
    }
}

/// Rings until something fails.
fn ring_until_failure(ranks: &mut HostCollectives) -> CollectiveError {
    let mut device = script::device(4, 2);
    loop {
        if let Err(error) = ring_once(ranks, &mut device) {
            return error;
        }
    }
}
