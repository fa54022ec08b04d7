//! Devices: what executes kernels.
//!
//! A device allocates, copies, launches and synchronises, and knows nothing of functions, ports or keys on disk.
//! Its memory is one pool of limb slots, addressed by number; the executor places frames in it and binds the
//! operands of a function to slots. The unit of launching is a [`Run`]: the kernels between two calls, a fixed
//! list whose blocks the device may reorder as far as their operands allow, or turn into one graph.

use std::sync::Arc;

use cerium_artifact::{Function, Kernel, Operand, StageId};
use cerium_ckks::params::Params;

use crate::cuda::{CudaDevice, CudaError};
use crate::key_store::KeyStore;
use crate::memory::{OnTheWay, PlaintextEncoder, PlaintextId, Plaintexts, Residency};
use crate::profile::UsageTables;

/// A limb slot of a device's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u32);

/// A run of the program: index into the list given to [`Device::prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// Consecutive kernels of a function, without calls between them.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The function that they belong to, validated.
    pub function: &'a Function,
    /// The kernels in order.
    pub kernels: Vec<&'a Kernel>,
}

/// Where the operands of a function are, for one activation of it. Made by the executor only, from a validated
/// artifact: devices rely on it.
#[derive(Clone, Debug)]
pub struct Bindings {
    /// The stage of the entry that called the function, itself or through others; `None` in the entry.
    pub(crate) caller: Option<StageId>,
    pub(crate) frame: Address,
    pub(crate) args: Vec<Address>,
    pub(crate) results: Vec<Address>,
    /// The encoding of each plaintext of the function.
    pub(crate) encodings: Vec<PlaintextId>,
    /// Where its words are while the run that reads it is under way.
    pub(crate) plaintexts: Vec<PlaintextId>,
}

/// A plaintext to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeJob {
    /// Which one.
    pub encoding: PlaintextId,
    /// The place in the working buffer that takes it.
    pub place: PlaintextId,
}

impl Bindings {
    /// The slot of a pool operand. Panics on other operands, and on indices that the function does not have.
    pub(crate) fn slot(&self, operand: Operand) -> Address {
        match operand {
            Operand::Local(index) => Address(self.frame.0 + index),
            Operand::Arg(index) => self.args[index as usize],
            Operand::Result(index) => self.results[index as usize],
            Operand::Plain { .. } | Operand::Key { .. } => unreachable!("{operand:?} is not in the pool"),
        }
    }
}

/// Why a device could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The pool does not fit.
    #[error("{device} cannot provide {bytes} bytes for {what}; close other programs or use a larger machine")]
    OutOfMemory {
        /// Name of the device.
        device: String,
        /// What was asked for.
        bytes: u64,
        /// Purpose.
        what: &'static str,
    },
    /// Threads could not be started.
    #[error("{device} cannot start its threads: {reason}")]
    Threads {
        /// Name of the device.
        device: String,
        /// The system's reason.
        reason: String,
    },
    /// Something of CUDA failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

/// An executor of kernels.
pub trait Device: Send {
    /// Its name, for reports.
    fn name(&self) -> String;

    /// Takes over a program: makes the tables of its runs and allocates a pool of `limbs` slots. `stages` is the
    /// number of stages that the kernels name.
    fn prepare(
        &mut self,
        params: &Params,
        runs: &[Run<'_>],
        limbs: u64,
        stages: usize,
    ) -> Result<(), DeviceError>;

    /// Makes the encoded plaintexts available to kernels, with room for those that are encoded while the program runs.
    fn load_plaintexts(&mut self, plaintexts: Plaintexts) -> Result<(), DeviceError>;

    /// What [`encode`](Self::encode) makes.
    fn on_the_way(&self) -> OnTheWay;

    /// Makes raw weights available to [`encode`](Self::encode), for the encodings that are not resident. Not called when
    /// there is none.
    fn load_weights(
        &mut self,
        encoder: Arc<PlaintextEncoder>,
        residency: &Residency,
    ) -> Result<(), DeviceError>;

    /// Encodes plaintexts, after everything launched before, each in the form of its place: words are those of
    /// [`PlaintextEncoder::encode`] on every device. Places follow each other.
    fn encode(&mut self, jobs: &[EncodeJob]) -> Result<(), DeviceError>;

    /// Makes the evaluation keys available to kernels, in the order of the artifact's manifest.
    fn load_keys(&mut self, keys: Arc<KeyStore>) -> Result<(), DeviceError>;

    /// The GPU that it is, for what works in the memory of GPUs; `None` if it is none.
    fn cuda(&mut self) -> Option<&mut CudaDevice> {
        None
    }

    /// Words of a slot: N of the parameters that it was prepared with.
    fn limb_words(&self) -> usize;

    /// Copies a limb of N canonical words into a slot.
    fn upload(&mut self, to: Address, words: &[u32]) -> Result<(), DeviceError>;

    /// Copies a slot out; waits for the launches that write it.
    fn download(&mut self, from: Address, words: &mut [u32]) -> Result<(), DeviceError>;

    /// Launches a run after everything launched before.
    fn launch(&mut self, run: RunId, bindings: &Bindings) -> Result<(), DeviceError>;

    /// Waits for everything launched.
    fn synchronise(&mut self) -> Result<(), DeviceError>;

    /// Number of threads (streams) that work side by side.
    fn threads(&self) -> usize;

    /// Bytes of its pool.
    fn pool_bytes(&self) -> u64;

    /// Bytes that it has for encoded plaintexts and raw weights beside a pool of `pool` bytes and keys of `keys` bytes, or
    /// `None` if it cannot tell. As many as `neighbours` other sessions of this host want the same.
    fn room(&mut self, pool: u64, keys: u64, neighbours: u64) -> Option<u64>;

    /// What was used since this was last asked.
    fn take_usage(&mut self) -> UsageTables;
}
