//! Operations of the limb level.

use cerium_artifact::DeviceId;
use cerium_ckks::basis::PrimeIndex;

use super::types::Arrival;
use crate::ir::{Number, Symbol};
use crate::polynomial::{HalfName, KeyName};

crate::op_table! {
    /// An operation on limbs. Unless said otherwise operands and result have one prime q and one domain, and words are
    /// in `[0, q)` and in normal (not Montgomery) form.
    pub enum Op {
        /// `a + b`.
        Add "add" (a, b) {},
        /// `a - b`.
        Sub "sub" (a, b) {},
        /// `-a`.
        Neg "neg" (a) {},
        /// `a * b` word by word.
        Mul "mul" (a, b) {},
        /// `a * k` with a plaintext or key limb, which is in Montgomery form: `a * k * 2^-32`.
        MulMontgomery "mul_montgomery" (a, k) {},
        /// A plaintext limb as an ordinary one: `p * 2^-32`.
        FromMontgomery "from_montgomery" (p) {},
        /// `a * scalar`.
        MulScalar "mul_scalar" (a) { scalar: u32 },
        /// `a + scalar` in every word.
        AddScalar "add_scalar" (a) { scalar: u32 },
        /// `sum_i terms[2i] * terms[2i+1] * 2^-32`: limbs alternate with plaintext or key limbs.
        Dot "dot" (; ..terms) {},
        /// Coefficient domain -> evaluation domain.
        Ntt "ntt" (a) {},
        /// Evaluation domain -> coefficient domain, times `factor`.
        Intt "intt" (a) { factor: u32 },
        /// Automorphism `X -> X^galois` in the evaluation domain.
        Permute "permute" (a) { galois: u32 },
        /// One limb of a centered base conversion; coefficient domain. Sources are multiplied by `(Q/q_i)^-1` before.
        BaseConvert "base_convert" (; ..sources) { to: PrimeIndex },
        /// The weight of the program with this index.
        Weight "weight" () { index: u32 },
        /// One limb of an encoded weight, compact and in Montgomery form.
        Plain "plain" (w) { prime: PrimeIndex, scale: Number, rotation: u32 },
        /// One limb of an evaluation key; `digit` counts the digits of the parameter set.
        Key "key" () { key: KeyName, half: HalfName, digit: u32, prime: PrimeIndex },
        /// Calls a function; arguments are limbs and weights.
        Call "call" (; ..args) { function: Symbol },
        /// Limbs to and from other devices: each of `sent` goes to the device in `to`, and `from` says what comes, in order for
        /// each pair of devices. All devices do the exchanges of a function in one order.
        Exchange "exchange" (; ..sent) { to: Vec<DeviceId>, from: Vec<Arrival> },
        /// The sums over all devices of parts that each has.
        AllReduce "all_reduce" (; ..parts) {},
    }
}
