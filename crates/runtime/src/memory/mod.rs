//! Memory: the pool of limb slots and the resident encoded plaintexts.

mod plaintexts;
mod pool;

pub use plaintexts::{PlaintextError, PlaintextId, PlaintextPlan, Plaintexts};
pub(crate) use pool::{Pages, Pool};
