//! The artifact: the contract between the compiler, which makes it, the runtime, which executes it, and the
//! client, which reads its packing and key manifest.
//!
//! A compiled program is a list of [`Function`]s over *limbs* (residue polynomials modulo one prime, N words of
//! 32 bits). A function is a fixed list of [`Step`]s: kernel launches and calls. Memory is planned: every limb
//! has a slot in its function's frame, and a call places the callee's frame behind the caller's.

pub mod cost;
mod error;
mod file;
pub mod kernel;
mod normalization;
mod recipe;
mod tensor;
mod validate;

use std::fmt;

use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::ParamsSpec;
use serde::{Deserialize, Serialize};

pub use cost::{Cost, Traffic};
pub use error::ArtifactError;
pub use file::VERSION;
pub use kernel::{Kernel, Operand};
pub use normalization::Normalization;
pub use recipe::{MatrixBlock, Recipe};
pub use tensor::{Element, Tensor, Values};
pub use validate::{MAX_CALL_DEPTH, MAX_CONVERT_SOURCES, MAX_DEVICES};

/// A compiled program: everything that client and server need but keys and data.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Name of the program.
    pub name: String,
    /// The parameter set, from which both sides rebuild the same primes.
    pub params: ParamsSpec,
    /// The functions of each device that runs a part of the program, one list or more: callees before callers, the last one
    /// the entry. Function ids are the same in all lists.
    pub programs: Vec<Vec<Function>>,
    /// The device on which limbs of each prime are between functions, by [`PrimeIndex`]: a function takes and returns the
    /// limbs of its own device. Empty for one device.
    pub homes: Vec<DeviceId>,
    /// Inputs in the order of the entry's arguments.
    pub inputs: Vec<Port>,
    /// Outputs in the order of the entry's results.
    pub outputs: Vec<Port>,
    /// The evaluation keys that the client must make, no more and no less; [`Operand::Key`] indexes this list.
    pub keys: Vec<KeyRequest>,
    /// Plaintext weights; [`WeightRef::Weight`] indexes this list.
    pub weights: Vec<Recipe>,
    /// Slot tables of recipes and ports; [`GatherId`] indexes this list.
    pub gathers: Vec<Vec<u32>>,
    /// Raw weights; [`TensorId`] indexes this list.
    pub tensors: Vec<Tensor>,
    /// Names and compile-time figures of the stages (layers) of the program; [`StageId`] indexes this list.
    pub stages: Vec<Stage>,
    /// What a run costs after each pass of the kernel level, the last one being what the program is; may be empty.
    pub passes: Vec<PassFigures>,
    /// What all devices together send in a run after each communication pass, the last one being what the program is; empty for
    /// one device.
    pub communication: Vec<CommunicationFigures>,
    /// What was done to keep the keys within a budget, if anything was.
    pub key_plan: Option<KeyPlan>,
    /// How the pixels of pictures become the values of the first input; where it is `None`, as is usual for the data set that
    /// they come from.
    pub normalization: Option<Normalization>,
    /// The model file that the program was made from, so that encrypted results can be held against the network in
    /// the clear; may be empty. Nothing here looks into it.
    pub model: Vec<u8>,
}

/// A device among those that run a program together: index into [`Artifact::programs`]. Prints as `d3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// The index as a `usize`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// Index into a list of [`Artifact::programs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionId(pub u32);
/// Index into [`Artifact::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WeightId(pub u32);
/// Index into [`Artifact::gathers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatherId(pub u32);
/// Index into [`Artifact::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorId(pub u32);
/// Index into [`Artifact::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct StageId(pub u16);

/// A gather entry that stands for the value zero (in a recipe or an input), or for a slot without meaning
/// (in an output).
pub const NO_ELEMENT: u32 = u32::MAX;

/// A program input or output: one tensor, or a batch of tensors of one shape, and the ciphertexts that hold them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name, for example `image`.
    pub name: String,
    /// Shape of a tensor in the clear, for example `[1, 28, 28]`.
    pub shape: Vec<u32>,
    /// Number of tensors that lie in the ciphertexts side by side; at least 1. Slot tables count through the elements of
    /// all of them, tensor by tensor.
    pub batch: u32,
    /// The ciphertexts, in order of the entry's arguments (results).
    pub ciphertexts: Vec<PackedCiphertext>,
}

impl Port {
    /// Number of elements of one tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().map(|&extent| extent as usize).product()
    }
}

/// One ciphertext of a port. Input: `slot[i] = factor * elements[gather[i % period]]`.
/// Output: `elements[gather[i]] = factor * slot[i]` for every entry that is not [`NO_ELEMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackedCiphertext {
    /// Level at which it enters or leaves.
    pub level: Level,
    /// Its exact scale.
    pub scale: Scale,
    /// Slot table.
    pub gather: GatherId,
    /// Constant factor between slots and elements; finite, not zero.
    pub factor: f64,
    /// Predicted standard deviation of the error of an element, in units of the tensor (0 for inputs).
    pub error: f64,
}

/// A stage (layer) of the program with what the ciphertext level knows about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Name, for example `conv1`.
    pub name: String,
    /// Highest level among the values it reads.
    pub level_in: Level,
    /// Lowest level among the values it makes.
    pub level_out: Level,
    /// How often each ciphertext operation occurs, by mnemonic, sorted by name.
    pub operations: Vec<(String, u64)>,
    /// Predicted error (standard deviation in a slot) of its last value.
    pub error: f64,
}

/// How the compiler kept the evaluation keys within a budget of memory: linear transforms became chains of equal rotations,
/// which need fewer keys and more time. Bytes are those of both halves of all keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyPlan {
    /// Bytes that the keys may take.
    pub budget: u64,
    /// Number of keys without chains.
    pub keys_before: u32,
    /// Their bytes.
    pub bytes_before: u64,
    /// Number of keys with them.
    pub keys: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Key switches of a run without chains.
    pub switches_before: u64,
    /// Key switches of a run with them.
    pub switches: u64,
    /// The transforms that became chains.
    pub chains: Vec<ChainedTransform>,
}

/// A linear transform that became a chain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainedTransform {
    /// Where it is.
    pub stage: StageId,
    /// Number of its diagonals.
    pub diagonals: u32,
    /// By how many slots a giant step rotates.
    pub stride: i64,
    /// Key switches before, most of which shared a `mod_up`.
    pub switches_before: u32,
    /// Key switches of the chain.
    pub switches: u32,
}

/// What a run of the program costs after a pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassFigures {
    /// The pass; `unfused` before any.
    pub pass: String,
    /// Launches, bytes and multiplications.
    pub cost: Cost,
    /// Limbs of the pool: inputs, outputs and the deepest stack of frames.
    pub pool_limbs: u64,
}

/// What moves between devices in a run of the program after a pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommunicationFigures {
    /// The pass; `key_switching` before any.
    pub pass: String,
    /// Collectives, and bytes that all devices send.
    pub traffic: Traffic,
}

/// A compiled function over limbs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// Name, unique in the artifact.
    pub name: String,
    /// The prime of every argument limb.
    pub args: Vec<PrimeIndex>,
    /// The prime of every result limb.
    pub results: Vec<PrimeIndex>,
    /// Number of weight parameters, bound by each call.
    pub weight_params: u32,
    /// Encoded plaintexts that the function reads; [`Operand::Plain`] indexes this list.
    pub plaintexts: Vec<Plaintext>,
    /// Limb slots of the function's own frame (its callees' frames excluded).
    pub frame: u32,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// A weight as a function sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WeightRef {
    /// A weight of the program.
    Weight(WeightId),
    /// The function's own weight parameter with this index.
    Param(u32),
}

impl WeightRef {
    /// The weight, for an activation of the function whose parameters are bound so.
    ///
    /// # Panics
    /// If it is a parameter that is not bound.
    pub fn resolve(self, bound: &[WeightId]) -> WeightId {
        match self {
            WeightRef::Weight(id) => id,
            WeightRef::Param(index) => bound[index as usize],
        }
    }
}

/// An encoding of a weight: evaluation domain, Montgomery form, compact by the recipe's period.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plaintext {
    /// The weight.
    pub weight: WeightRef,
    /// Its primes, in limb order: any of Q and of P.
    pub basis: Basis,
    /// Its primes on all devices: their product has room for its coefficients.
    pub modulus: Basis,
    /// The scale at which it is encoded.
    pub scale: Scale,
    /// Its slots are rotated to the left by this (below the period) before encoding: `slot[i] = recipe[i + rotation]`.
    pub rotation: u32,
    /// Base-2 logarithm of the period of its slots, equal to that of every recipe bound to it.
    pub log_period: u32,
}

/// One step of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Launch a kernel.
    Launch(Kernel),
    /// Call a function that stands before this one in the artifact.
    Call {
        /// The stage on whose behalf: what kernels of the callee cost is its cost, whatever stages they belong to.
        stage: StageId,
        /// The callee.
        function: FunctionId,
        /// One operand for each of its argument limbs ([`Operand::Local`], [`Operand::Arg`] or [`Operand::Result`]).
        args: Vec<Operand>,
        /// One operand for each of its result limbs ([`Operand::Local`] or [`Operand::Result`]).
        results: Vec<Operand>,
        /// One binding for each of its weight parameters.
        weights: Vec<WeightRef>,
    },
    /// Begin to move limbs between devices. All devices start the collectives of a function in the same order.
    Start(Collective),
    /// Wait for the collective of this function with this number, counted from 0; once for each, in order, and before any
    /// call.
    Finish(u32),
}

/// Limbs that move between devices, while kernels run that neither write what is sent nor touch what is received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collective {
    /// The stage it belongs to.
    pub stage: StageId,
    /// What moves.
    pub movement: Movement,
}

/// What a collective moves, as one of the devices sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Movement {
    /// Limbs go from device to device. What one sends to another stands in the same order in the list of the receiver.
    Exchange {
        /// Limbs that others get.
        sends: Vec<Outgoing>,
        /// Limbs that others give.
        receives: Vec<Incoming>,
    },
    /// Every device has a part of each limb, and afterwards its sum modulo the prime, canonical as ever.
    AllReduce {
        /// The primes, and the slots of the frame that hold the parts before and the sums afterwards.
        limbs: Vec<(PrimeIndex, Operand)>,
    },
}

/// A limb that another device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Who gets it.
    pub to: DeviceId,
    /// Its prime.
    pub prime: PrimeIndex,
    /// The limb: [`Operand::Local`], [`Operand::Arg`] or [`Operand::Result`].
    pub limb: Operand,
}

/// A limb that another device gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Who gives it.
    pub from: DeviceId,
    /// Its prime.
    pub prime: PrimeIndex,
    /// Where it goes: [`Operand::Local`] or [`Operand::Result`].
    pub limb: Operand,
}
