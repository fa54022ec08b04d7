//! Memory: the pool of limb slots, and encoded plaintexts, resident or made when they are needed.

mod encode;
mod plaintexts;
mod pool;
mod residency;

pub use encode::PlaintextEncoder;
pub use plaintexts::{Encoding, Form, PlaintextError, PlaintextId, PlaintextPlan, Plaintexts};
pub(crate) use pool::{Pages, Pool};
pub(crate) use residency::movable_periods;
pub use residency::{OnTheWay, Residency, RunSpan};
