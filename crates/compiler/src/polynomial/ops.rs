//! Operations of the polynomial level.

use cerium_artifact::kernel::Half;
use cerium_ckks::basis::Basis;
use cerium_ckks::evaluation_key::KeyKind;

use crate::ir::{Attribute, Number, Symbol};

crate::op_table! {
    /// An operation on polynomials. Unless said otherwise operands and result have one basis and one domain.
    pub enum Op {
        /// `a + b`.
        Add "add" (a, b) {},
        /// `a - b`.
        Sub "sub" (a, b) {},
        /// `-a`.
        Neg "neg" (a) {},
        /// `a * b` in the evaluation domain.
        Mul "mul" (a, b) {},
        /// `a * p` with an encoded plaintext, in the evaluation domain; the plaintext's basis contains that of `a`.
        MulPlain "mul_plain" (a, p) {},
        /// `a + p * product(times)` with an encoded plaintext, in the evaluation domain; the plaintext's basis contains
        /// that of `a` but for `times`.
        AddPlain "add_plain" (a, p) { times: Basis },
        /// `a * scalar`.
        MulScalar "mul_scalar" (a) { scalar: Scalar },
        /// `a * (product of primes)`; the primes need not be in the basis of `a`.
        MulPrimes "mul_primes" (a) { primes: Basis },
        /// `a + scalar * product(times)` as a constant polynomial, in the evaluation domain.
        AddScalar "add_scalar" (a) { scalar: Scalar, times: Basis },
        /// `a + c * product(times)`, where `c` has the primes of `a` but for `times`, modulo which the product is zero.
        AddExtended "add_extended" (a, c) { times: Basis },
        /// Coefficient domain -> evaluation domain.
        Ntt "ntt" (a) {},
        /// Evaluation domain -> coefficient domain.
        Intt "intt" (a) {},
        /// `a(X^galois)` in the evaluation domain; galois is odd.
        Automorphism "automorphism" (a) { galois: u32 },
        /// Forgets the limbs outside `basis`.
        Restrict "restrict" (a) { basis: Basis },
        /// Limbs of `a` and `b`, whose bases are disjoint.
        Join "join" (a, b) {},
        /// The integer polynomial that `a` stands for, coefficients centered, in another basis; coefficient domain.
        BaseConvert "base_convert" (a) { to: Basis },
        /// `a * product(times) / product(by)` rounded to the nearest integer, on the primes of `a` without `by` and with
        /// `times`, in the evaluation domain: `mod_down` and rescaling, before they are expanded into transforms.
        DivideRound "divide_round" (a) { by: Basis, times: Basis },
        /// `(a * product(times) - c) / product(by)` on the basis of `c`; limbs that `a` lacks count as zero.
        Divide "divide" (a, c) { by: Basis, times: Basis },
        /// `sum_i digits[i] * key.half[i]` in the evaluation domain: the inner product of key switching. Operand i meets
        /// the i-th digit of the parameter set that has a prime in the operands' part of Q.
        KeyProduct "key_product" (; ..digits) { key: KeyName, half: HalfName },
        /// The weight of the program with this index.
        Weight "weight" () { index: u32 },
        /// A weight, its slots rotated to the left by `rotation` (below its period), encoded at a scale: evaluation
        /// domain, Montgomery form.
        Encode "encode" (p) { basis: Basis, scale: Number, rotation: u32 },
        /// Calls a function; arguments are polynomials and weights.
        Call "call" (; ..args) { function: Symbol },
    }
}

/// An integer constant of at most 126 bits.
pub type Scalar = i128;

impl Attribute for Scalar {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not an integer"))
    }
}

/// Which evaluation key: `relinearization`, `rotation:25`, `conjugation`, `to_sparse`, `from_sparse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(pub KeyKind);

impl Attribute for KeyName {
    fn write(&self, out: &mut String) {
        match self.0 {
            KeyKind::Relinearization => out.push_str("relinearization"),
            KeyKind::Rotation(galois) => out.push_str(&format!("rotation:{galois}")),
            KeyKind::Conjugation => out.push_str("conjugation"),
            KeyKind::ToSparse => out.push_str("to_sparse"),
            KeyKind::FromSparse => out.push_str("from_sparse"),
        }
    }
    fn read(text: &str) -> Result<Self, String> {
        let kind = match text.split_once(':') {
            None if text == "relinearization" => Some(KeyKind::Relinearization),
            None if text == "conjugation" => Some(KeyKind::Conjugation),
            None if text == "to_sparse" => Some(KeyKind::ToSparse),
            None if text == "from_sparse" => Some(KeyKind::FromSparse),
            Some(("rotation", galois)) => galois.parse().ok().map(KeyKind::Rotation),
            _ => None,
        };
        kind.map(KeyName).ok_or_else(|| {
            format!(
                "`{text}` is not a key: relinearization, rotation:<galois element>, conjugation, to_sparse, \
                 from_sparse"
            )
        })
    }
}

/// Which half of an evaluation key: `b` or `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfName(pub Half);

impl Attribute for HalfName {
    fn write(&self, out: &mut String) {
        out.push(match self.0 {
            Half::B => 'b',
            Half::A => 'a',
        });
    }
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "b" => Ok(HalfName(Half::B)),
            "a" => Ok(HalfName(Half::A)),
            _ => Err(format!("`{text}` is not a half of a key: a, b")),
        }
    }
}
