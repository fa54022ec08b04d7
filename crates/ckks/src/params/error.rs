//! What can be wrong with a parameter set.

use super::Params;
use crate::modulus::ModulusError;

/// What is wrong with a parameter set, or with the name of one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// No set has this name.
    #[error("there is no parameter set `{name}`; the sets are {}", Params::names().join(", "))]
    UnknownName {
        /// The name asked for.
        name: String,
    },
    /// A set without 128-bit security was asked for where only secure ones are allowed.
    #[error(
        "parameter set `{name}` is insecure and meant for tests only; if that is what you want, opt in \
         explicitly (`Params::named_insecure`, `--insecure`)"
    )]
    InsecureNotAllowed {
        /// Name of the set.
        name: String,
    },
    /// The set does not claim to be insecure, yet its modulus is too large for 128 bits of security.
    #[error(
        "parameter set `{name}` has log2(PQ) = {log_pq:.1}, but 128-bit security allows at most {bound:.0} \
         at N = 2^{log_n}; use a larger ring or fewer levels"
    )]
    Insecure {
        /// Name of the set.
        name: String,
        /// Base-2 logarithm of the ring degree.
        log_n: u32,
        /// Base-2 logarithm of the product of all primes.
        log_pq: f64,
        /// The bound of the table, 0 where the degree is too small for any modulus.
        bound: f64,
    },
    /// The name and the insecure flag disagree.
    #[error("parameter set `{name}`: a name starts with `insecure` exactly when the set is marked insecure")]
    InsecureName {
        /// Name of the set.
        name: String,
    },
    /// The name is empty, too long or not printable ASCII without spaces.
    #[error("{name:?} cannot name a parameter set: use 1 to 64 printable ASCII characters without spaces")]
    BadName {
        /// The name.
        name: String,
    },
    /// The ring degree is outside the supported range.
    #[error("ring degree 2^{log_n} is not supported; N is 2^4 to 2^17")]
    RingDegree {
        /// Base-2 logarithm of the ring degree.
        log_n: u32,
    },
    /// A number in the pool is no prime of the size the kernels take.
    #[error("prime {index} of the pool: {source}")]
    Modulus {
        /// Position in the pool.
        index: usize,
        /// What is wrong with it.
        source: ModulusError,
    },
    /// A prime does not split the cyclotomic polynomial.
    #[error("prime {index} of the pool, {prime}, is not 1 modulo 2N, so it has no NTT")]
    NotNttPrime {
        /// Position in the pool.
        index: usize,
        /// The prime.
        prime: u32,
    },
    /// A prime occurs twice.
    #[error("prime {prime} is twice in the pool")]
    RepeatedPrime {
        /// The prime.
        prime: u32,
    },
    /// Numbers of primes, levels or digits are out of bounds or do not fit each other.
    #[error("parameter set is malformed: {0}")]
    Malformed(&'static str),
    /// A level is not between its neighbours or not near its scale.
    #[error("level {level}: {reason}")]
    Level {
        /// The level.
        level: u8,
        /// What is wrong.
        reason: &'static str,
    },
    /// A key-switching digit is larger than P, which would let its noise dominate.
    #[error(
        "digit {digit} has {bits:.1} bits, more than the {log_p:.1} bits of P; use more digits or more \
         primes in P"
    )]
    Digit {
        /// Position of the digit.
        digit: usize,
        /// Base-2 logarithm of its product.
        bits: f64,
        /// Base-2 logarithm of P.
        log_p: f64,
    },
    /// The levels of bootstrapping do not fit the levels of the set.
    #[error("bootstrapping: {0}")]
    Bootstrap(&'static str),
    /// The modulus under which the sparse secret of bootstrapping is used is too large for 128 bits.
    #[error(
        "parameter set `{name}` switches to a sparse secret under a modulus of {bits:.1} bits at N = 2^{log_n}; \
         128-bit security asks for N of at least 2^16 and at most {bound:.0} bits"
    )]
    SparseModulus {
        /// Name of the set.
        name: String,
        /// Base-2 logarithm of the ring degree.
        log_n: u32,
        /// Bits of the modulus.
        bits: f64,
        /// The most allowed.
        bound: f64,
    },
    /// The search found no primes for the wish.
    #[error(
        "no choice of 32-bit primes gives the {levels} levels asked for, at scale 2^{log_scale} and N = 2^{log_n}"
    )]
    Unreachable {
        /// Base-2 logarithm of the ring degree.
        log_n: u32,
        /// Base-2 logarithm of the scale.
        log_scale: u32,
        /// Levels asked for.
        levels: u32,
    },
}
