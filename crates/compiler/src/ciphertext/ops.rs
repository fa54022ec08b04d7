//! Operations of the ciphertext level.

use cerium_ckks::basis::Level;

use crate::ir::{Attribute, Number, Symbol};

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
        /// `steps` says how it is split into rotations.
        LinearTransform "linear_transform" (x; ..diagonals) { offsets: Vec<i64>, steps: Steps },
        /// The Chebyshev series `sum_k coefficients[k] * T_k(x)`, for slots of x in [-1, 1].
        PolyEval "poly_eval" (x) { coefficients: Vec<Number> },
        /// Calls a function; arguments are ciphertexts and plaintexts.
        Call "call" (; ..args) { function: Symbol },
        /// Unplaced only: down to level `to`, pinned by hand; the message is unchanged.
        Lower "lower" (a) { to: Level },
        /// One or two values whose slots are within `[-bound, bound]` (of each part), refreshed: ideally
        /// the identity, at the output level of the parameter set. Slots repeat with period `2^log_slots`.
        Bootstrap "bootstrap" (; ..xs) { kind: BootstrapKind, log_slots: u32, bound: Number },
        /// From level 0 to the top: `a * scale / Q_0` plus the slots of a polynomial with small random integer
        /// coefficients, by which the raised ciphertext exceeds its message.
        ModRaise "mod_raise" (a) {},
        /// `a * factor` at no cost: the scale is divided by the factor.
        Reinterpret "reinterpret" (a) { factor: Number },
        /// Placed only: a plaintext encoded at a level and a scale.
        Encode "encode" (p) { level: Level, scale: Number },
        /// Placed only: one level down, the scale divided by the level's primes.
        Rescale "rescale" (a) {},
        /// Placed only: from three polynomials back to two.
        Relinearize "relinearize" (a) {},
        /// Placed only: down to level `to` and to its canonical scale, message unchanged: drops primes, multiplies by
        /// a constant and rescales once.
        Adjust "adjust" (a) { to: Level },
        /// Placed only: forgets the primes that level `to` does not have; the scale stays. All primes of `to` are among
        /// those of the operand.
        DropLevel "drop_level" (a) { to: Level },
    }
}

/// What a bootstrap may rely on, and what it makes: `real`, `complex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootstrapKind {
    /// Slots are real; one value, or two that share one bootstrap.
    Real,
    /// Slots are complex; one value.
    Complex,
}

impl Attribute for BootstrapKind {
    fn write(&self, out: &mut String) {
        out.push_str(match self {
            BootstrapKind::Real => "real",
            BootstrapKind::Complex => "complex",
        });
    }
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "real" => Ok(BootstrapKind::Real),
            "complex" => Ok(BootstrapKind::Complex),
            _ => Err(format!("`{text}` is not a kind of bootstrap: real, complex")),
        }
    }
}

/// How a `linear_transform` is split into rotations of its input (baby steps, by offsets modulo a stride) and of sums of
/// products (giant steps, by multiples of the stride). Prints as `auto`, `stride:8`, `chain:8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Steps {
    /// By the stride that takes the least time.
    #[default]
    Auto,
    /// By this stride: one key for each baby step and each giant step. Baby steps share their `mod_up`.
    Stride(i64),
    /// By this stride, every step by a rotation of the step before it: one key for all baby steps, one for all giant steps,
    /// and one more if the lowest offset is not 0. More key switches for fewer keys (min-KS; Kim et al., ARK, MICRO 2022).
    Chain(i64),
}

impl Attribute for Steps {
    fn write(&self, out: &mut String) {
        match self {
            Steps::Auto => out.push_str("auto"),
            Steps::Stride(stride) => out.push_str(&format!("stride:{stride}")),
            Steps::Chain(stride) => out.push_str(&format!("chain:{stride}")),
        }
    }
    fn read(text: &str) -> Result<Self, String> {
        let stride = |text: &str| text.parse().ok().filter(|&stride: &i64| stride > 0);
        let steps = match text.split_once(':') {
            None if text == "auto" => Some(Steps::Auto),
            Some(("stride", n)) => stride(n).map(Steps::Stride),
            Some(("chain", n)) => stride(n).map(Steps::Chain),
            _ => None,
        };
        steps.ok_or_else(|| format!("`{text}` is not a split: auto, stride:<n>, chain:<n>"))
    }
}
