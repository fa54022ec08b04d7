//! Operations of the ciphertext level.

use cerium_ckks::basis::Level;

use crate::ir::{Number, Symbol};

crate::op_table! {
    /// An operation on ciphertexts (`a`, `b`, `x`) and plaintexts (`p`).
    pub enum Op {
        /// Slotwise `a + b`.
        Add "add" (a, b) {},
        /// Slotwise `a - b`.
        Sub "sub" (a, b) {},
        /// Slotwise `-a`.
        Neg "neg" (a) {},
        /// Slotwise `a * b`; placed, the result has three polynomials until it is relinearized.
        Mul "mul" (a, b) {},
        /// Slotwise `a + p`.
        AddPlain "add_plain" (a, p) {},
        /// Slotwise `a * p`.
        MulPlain "mul_plain" (a, p) {},
        /// `a + value` in every slot.
        AddConst "add_const" (a) { value: Number },
        /// `a * value` in every slot. Placed, `scale` is the scale at which the constant is rounded to an integer.
        MulConst "mul_const" (a) { value: Number, scale: Option<Number> },
        /// Slots rotated to the left: `out[i] = a[i + by]`.
        Rotate "rotate" (a) { by: i64 },
        /// Complex conjugate of every slot.
        Conjugate "conjugate" (a) {},
        /// The weight of the program with this index.
        Weight "weight" () { index: u32 },
        /// The slots of a plaintext rotated to the left: `out[i] = p[i + by]`.
        RotatePlain "rotate_plain" (p) { by: i64 },
        /// A product with a plaintext matrix given by generalized diagonals: `sum_k diagonals[k] * rotate(x, offsets[k])`.
        LinearTransform "linear_transform" (x; ..diagonals) { offsets: Vec<i64> },
        /// The Chebyshev series `sum_k coefficients[k] * T_k(x)`, for slots of x in [-1, 1].
        PolyEval "poly_eval" (x) { coefficients: Vec<Number> },
        /// Calls a function; arguments are ciphertexts and plaintexts.
        Call "call" (; ..args) { function: Symbol },
        /// Placed only: a plaintext encoded at a level and a scale.
        Encode "encode" (p) { level: Level, scale: Number },
        /// Placed only: one level down, the scale divided by the level's primes.
        Rescale "rescale" (a) {},
        /// Placed only: from three polynomials back to two.
        Relinearize "relinearize" (a) {},
        /// Placed only: down to level `to` and to its canonical scale, message unchanged: drops primes, multiplies by
        /// a constant and rescales once.
        Adjust "adjust" (a) { to: Level },
    }
}
