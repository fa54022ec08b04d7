//! The levels that bootstrapping uses, and the modulus of its sparse secret.
//!
//! Bootstrapping begins with slots_to_coeffs: from its input level down to level 0, where the message is
//! raised to the top modulus; coeffs_to_slots and eval_mod bring it down from there to the output level. So
//! the levels of a set are, from the bottom:
//!
//! ```text
//! 0 .. input     slots_to_coeffs, at the scale of the set
//! .. output      levels for programs, at the scale of the set
//! .. then        eval_mod, at its own scale
//! .. top         coeffs_to_slots
//! ```

use serde::{Deserialize, Serialize};

use super::{Params, ParamsError, ParamsSpec};
use crate::basis::{Basis, Level};

/// How many levels the parts of bootstrapping use: a part of [`ParamsSpec`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootstrapSpec {
    /// Levels of slots_to_coeffs, from level 0 up.
    pub slots_to_coeffs: u8,
    /// Levels of eval_mod, below those of coeffs_to_slots.
    pub eval_mod: u8,
    /// Levels of coeffs_to_slots, from the top down.
    pub coeffs_to_slots: u8,
    /// Base-2 logarithm of the modulus of level 0 over the scale that messages have there. The sine that
    /// stands for the remainder modulo that modulus misses a message of size x by about
    /// x^3 (2 pi / 2^`log_ratio`)^2 / 6.
    pub log_ratio: u8,
}

/// What bootstrapping does to levels and scales under a parameter set: [`Params::bootstrap`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bootstrap {
    /// The level at which it takes a ciphertext: just what slots_to_coeffs uses.
    pub input: Level,
    /// The level at which it returns one, the highest for programs.
    pub output: Level,
    /// The modulus of level 0 over the scale of a message there.
    pub ratio: f64,
    /// `ratio / 2 pi`: what eval_mod's sine is multiplied by to be a message. As this number is a part of the
    /// scale, it costs nothing ([`Params::scale`]).
    pub gain: f64,
}

/// Hamming weight of the sparse secret t of bootstrapping (ternary), under which a ciphertext (c_0, c_1) is
/// raised from level 0 to the top.
///
/// With coefficients centered, c_0 + c_1 t = m + Q_0 I over the integers, where m is the message: raised, a
/// ciphertext decrypts to that. A coefficient of c_1 t / Q_0 is the sum of 32 independent numbers uniform in
/// (-1/2, 1/2), and that of I, but for its sign, the integer nearest to it: of variance 33/12, at most 16, and
/// beyond 14, by the volume of two corners of the cube, with probability below 2 * 1.5^32 / 32! < 2^-97. So all
/// 2^16 coefficients of a ciphertext are within 14 but once in 2^81 bootstraps.
pub const SPARSE_WEIGHT: usize = 32;

/// Most bits of the modulus under which the sparse secret, of Hamming weight 32, may be used at N = 2^16 for
/// 128 bits of security. Source: Bossuat, Troncoso-Pastoriza and Hubaux, Bootstrapping for Approximate
/// Homomorphic Encryption with Negligible Failure-Probability by Using Sparse-Secret Encapsulation, 2022,
/// section 3: the dense secret protects the large modulus, the sparse one is seen only under this small one.
pub(super) const MAX_SPARSE_LOG_QP: f64 = 120.0;

impl BootstrapSpec {
    /// The levels that follow, in a set whose top level is `top`. `None` if there are too few.
    pub(super) fn levels(self, top: Level) -> Option<Bootstrap> {
        let output = top.0.checked_sub(self.coeffs_to_slots)?.checked_sub(self.eval_mod)?;
        let ratio = f64::from(self.log_ratio).exp2();
        let (input, output) = (Level(self.slots_to_coeffs), Level(output));
        (input < output).then_some(Bootstrap { input, output, ratio, gain: ratio / std::f64::consts::TAU })
    }
}

impl ParamsSpec {
    /// Checks the levels of bootstrapping, if there are any.
    pub(super) fn check_bootstrap(&self) -> Result<Option<Bootstrap>, ParamsError> {
        let Some(spec) = self.bootstrap else { return Ok(None) };
        if [spec.slots_to_coeffs, spec.eval_mod, spec.coeffs_to_slots].contains(&0) {
            return Err(ParamsError::Bootstrap("every part of it needs at least one level"));
        }
        if !(1..=30).contains(&spec.log_ratio) {
            return Err(ParamsError::Bootstrap("its ratio must be 2^1 to 2^30"));
        }
        let top = Level((self.levels.len() as u8).saturating_sub(1));
        let levels = spec.levels(top);
        levels.map(Some).ok_or(ParamsError::Bootstrap("its parts leave no level for programs"))
    }
}

impl Params {
    /// What bootstrapping does under this set; `None` where the set has no levels for it.
    pub fn bootstrap(&self) -> Option<Bootstrap> {
        self.0.bootstrap
    }

    /// The highest level for programs: where bootstrapping returns ciphertexts, or else the top level.
    pub fn program_level(&self) -> Level {
        self.bootstrap().map_or(self.max_level(), |bootstrap| bootstrap.output)
    }

    /// The auxiliary primes for switching to the sparse secret at level 0: the first primes of P with a
    /// product of at least the modulus of that level, or all of P. Few, because the sparse secret is safe only
    /// under a small modulus.
    pub fn sparse_p_basis(&self) -> Basis {
        let log_q = self.log_q(Level(0));
        let mut basis = Basis::EMPTY;
        for prime in self.p_basis().iter() {
            if self.log_product(basis) >= log_q {
                break;
            }
            basis = basis.union(std::iter::once(prime).collect());
        }
        basis
    }

    /// Checks that the sparse secret is safe, in a set that claims to be, and that its digit is within P'.
    pub(super) fn check_sparse(&self) -> Result<(), ParamsError> {
        if self.bootstrap().is_none() {
            return Ok(());
        }
        let (log_q, log_p) = (self.log_q(Level(0)), self.log_product(self.sparse_p_basis()));
        if log_p < log_q {
            return Err(ParamsError::Bootstrap("P is smaller than the modulus of level 0"));
        }
        let (bits, bound, log_n) = (log_q + log_p, MAX_SPARSE_LOG_QP, self.log_n());
        if !self.is_insecure() && (log_n < 16 || bits > bound) {
            return Err(ParamsError::SparseModulus { name: self.name().to_owned(), log_n, bits, bound });
        }
        Ok(())
    }
}
