//! Indices of the RNS: primes, sets of primes, levels and scales.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Index of a prime in the pool of a parameter set: first the primes of Q in window order (terminal primes,
/// then main primes), then the primes of P. Prints as `p7`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PrimeIndex(pub u8);

impl PrimeIndex {
    /// The index as a `usize`, for slices over the pool.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PrimeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Debug for PrimeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// A basis: a set of primes of the pool, ordered by index. At most [`Basis::MAX_PRIMES`] primes.
///
/// Limbs of a polynomial are stored in this order. Prints as ranges, `{0-5,12-14}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Basis(u128);

impl Basis {
    /// Largest pool a parameter set can have.
    pub const MAX_PRIMES: usize = 128;
    /// The basis without primes.
    pub const EMPTY: Basis = Basis(0);

    /// The primes with indices `start..end`; `end` is at most [`Basis::MAX_PRIMES`].
    pub fn range(start: usize, end: usize) -> Basis {
        assert!(start <= end && end <= Self::MAX_PRIMES, "prime range {start}..{end} is outside the pool");
        (start..end).map(|i| PrimeIndex(i as u8)).collect()
    }

    /// Number of primes.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is no prime.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `prime` is in the basis.
    pub fn contains(self, prime: PrimeIndex) -> bool {
        prime.index() < Self::MAX_PRIMES && self.0 >> prime.0 & 1 == 1
    }

    /// Whether every prime of `self` is in `other`.
    pub fn is_subset(self, other: Basis) -> bool {
        self.0 & !other.0 == 0
    }

    /// Primes in either basis.
    pub fn union(self, other: Basis) -> Basis {
        Basis(self.0 | other.0)
    }

    /// Primes in both.
    pub fn intersection(self, other: Basis) -> Basis {
        Basis(self.0 & other.0)
    }

    /// Primes of `self` that are not in `other`.
    pub fn minus(self, other: Basis) -> Basis {
        Basis(self.0 & !other.0)
    }

    /// Position of `prime` among the limbs of this basis.
    pub fn position(self, prime: PrimeIndex) -> Option<usize> {
        self.contains(prime).then(|| (self.0 & ((1u128 << prime.0) - 1)).count_ones() as usize)
    }

    /// The primes in increasing order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PrimeIndex> + Clone {
        (0..Self::MAX_PRIMES as u8).map(PrimeIndex).filter(move |&p| self.contains(p))
    }

    /// The largest index in the basis, if any.
    pub fn last(self) -> Option<PrimeIndex> {
        (!self.is_empty()).then(|| PrimeIndex(127 - self.0.leading_zeros() as u8))
    }
}

impl FromIterator<PrimeIndex> for Basis {
    fn from_iter<I: IntoIterator<Item = PrimeIndex>>(primes: I) -> Basis {
        Basis(primes.into_iter().fold(0, |set, p| set | 1u128 << p.0))
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        let mut first = true;
        let mut primes = self.iter().map(|p| p.0).peekable();
        while let Some(start) = primes.next() {
            let mut end = start;
            while primes.peek() == Some(&(end + 1)) {
                end += 1;
                primes.next();
            }
            if !first {
                f.write_str(",")?;
            }
            first = false;
            if start == end { write!(f, "{start}")? } else { write!(f, "{start}-{end}")? }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of rescalings still possible. Not the number of limbs: a level is a *set* of primes. Prints as `L3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Level(pub u8);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// The factor Delta by which a message is multiplied before rounding: finite and at least 1.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize, Deserialize)]
pub struct Scale(pub f64);

impl Scale {
    /// Base-2 logarithm.
    pub fn log2(self) -> f64 {
        self.0.log2()
    }

    /// Whether two scales agree closely enough to add messages: within 2^-40 relative, far below any noise.
    pub fn matches(self, other: Scale) -> bool {
        (self.0 / other.0 - 1.0).abs() < 1e-12
    }
}
