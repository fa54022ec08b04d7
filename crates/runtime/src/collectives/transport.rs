//! Which way limbs go, chosen by all ranks together.

use std::collections::HashSet;
use std::path::Path;

use super::nccl::{Nccl, NcclCollectives};
use super::{CollectiveError, Collectives, HostCollectives};
use crate::device::Device;

/// How ranks give limbs to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// By NCCL if each rank has a GPU of its own and finds NCCL, else through the memory of hosts.
    #[default]
    Auto,
    /// Through the memory of hosts.
    Host,
    /// From GPU to GPU, by NCCL.
    Nccl,
}

/// Decides on the way of limbs between ranks that have joined on the way of `side`; all ranks do this together, with the same
/// `transport`. `device` is the one that all calls will be given. NCCL is looked for in `folder`, or in the usual places.
///
/// # Errors
/// [`CollectiveError::Nccl`] if NCCL is wanted and cannot be had; others are told.
pub fn connect(
    mut side: HostCollectives,
    device: &mut dyn Device,
    transport: Transport,
    folder: Option<&Path>,
) -> Result<Box<dyn Collectives>, CollectiveError> {
    let nccl = match transport {
        Transport::Host => None,
        Transport::Nccl => match Nccl::load(folder) {
            Ok(nccl) => Some(nccl),
            Err(error) => {
                side.abort(&error.to_string());
                return Err(error.into());
            }
        },
        Transport::Auto => {
            let gpu = device.cuda().and_then(|device| device.uuid());
            let nccl = gpu.and_then(|_| Nccl::load(folder).ok());
            let offer = gpu.filter(|_| nccl.is_some()).map_or(Vec::new(), |gpu| gpu.to_vec());
            // All ranks ask, whatever they have themselves.
            let offers = side.gather(&offer)?;
            nccl.filter(|_| are_apart(&offers))
        }
    };
    match nccl {
        Some(nccl) => Ok(Box::new(NcclCollectives::join(side, device, nccl)?)),
        None => Ok(Box::new(side)),
    }
}

/// Whether each rank offers a GPU that no other has.
fn are_apart(offers: &[Vec<u8>]) -> bool {
    let mut known = HashSet::new();
    offers.iter().all(|offer| !offer.is_empty() && known.insert(offer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_needs_a_gpu_of_its_own() {
        let [none, one, other] = [vec![], vec![1; 16], vec![2; 16]];
        assert!(are_apart(&[one.clone(), other.clone()]));
        assert!(!are_apart(&[one.clone(), other, one.clone()]));
        assert!(!are_apart(&[one, none.clone()]));
        assert!(!are_apart(&[none]));
    }
}
