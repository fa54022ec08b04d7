//! The negacyclic number-theoretic transform, between the coefficient and the evaluation domain.
//!
//! For a ring `Z_q[X]/(X^N + 1)` and the primitive `2N`-th root `psi` of [`primitive_root`], the transform
//! of the coefficients `a` is `out[j] = a(psi^(2 * bitrev(j) + 1))`, where `bitrev` reverses the `log2(N)`
//! bits of an index: coefficients in natural order, evaluations in bit-reversed order, and no reordering
//! pass on either side (Longa and Naehrig, "Speeding up the number theoretic transform", 2016).
//!
//! [`naive`] states the definition, `portable` is the plain fast transform, and the `x86` modules vectorise
//! it. All give the same canonical words. Inside, values wander in `[0, 4q)` (Harvey, "Faster arithmetic
//! for number-theoretic transforms", 2014); `q < 2^30` makes that range fit a word.

mod memory;
pub mod naive;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use memory::TableMemory;

use self::memory::Lines;
use crate::isa::Isa;
use crate::modulus::{Modulus, Shoup};
use crate::primes::primitive_root;

/// A prime and a degree for which there is no transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NttError {
    /// The degree is outside the supported range.
    #[error("no NTT of degree 2^{0}: the degree must lie in 2^4..=2^17")]
    Degree(u32),
    /// The field has no root of unity of the needed order.
    #[error("no NTT of degree 2^{log_n} modulo {q}: the prime must be 1 modulo 2^{}", log_n + 1)]
    NoRoot {
        /// The prime.
        q: u32,
        /// Base-2 logarithm of the degree asked for.
        log_n: u32,
    },
}

/// The twiddle factors of all transforms of degree up to `N` modulo one prime: 16 N bytes.
///
/// Factors are in bit-reversed order: `w[m + i]` serves group `i` of the stage with `m` groups, so
/// the first `n` entries are exactly the factors of degree `n`.
#[derive(Debug)]
pub struct NttTable {
    q: Modulus,
    log_n: u32,
    forward: Twiddles,
    inverse: Twiddles,
}

/// Shoup factors split in two arrays, so that a vector of either is one load.
#[derive(Debug)]
struct Twiddles {
    w: Lines,
    w_shoup: Lines,
}

/// Lines of the factors of both directions for degree `2^log_n`.
fn table_lines(log_n: u32) -> usize {
    4 << (log_n - 4)
}

/// A cache line: vectors of factors are loaded from one each.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

impl Twiddles {
    /// `w[i] = root^bitrev(i)` for a primitive `2N`-th root, `N >= 16`.
    fn new(q: &Modulus, log_n: u32, root: u32, memory: &TableMemory) -> Self {
        let lines = || memory.take(1 << (log_n - 4));
        let mut twiddles = Self { w: lines(), w_shoup: lines() };
        let w: &mut [u32] = bytemuck::cast_slice_mut(&mut twiddles.w);
        w[0] = 1;
        for k in 0..log_n {
            // Entry 2^k has only bit k set, which reversed is bit log_n - 1 - k of the exponent; the entries
            // between it and the next power of two are products of it and an earlier one.
            let generator = q.shoup(q.pow(root, 1 << (log_n - 1 - k)));
            let (done, rest) = w.split_at_mut(1 << k);
            for (to, &from) in rest.iter_mut().zip(done.iter()) {
                *to = q.mul_shoup(from, generator);
            }
        }
        let w_shoup: &mut [u32] = bytemuck::cast_slice_mut(&mut twiddles.w_shoup);
        for (to, &from) in w_shoup.iter_mut().zip(w.iter()) {
            *to = q.shoup(from).w_shoup;
        }
        twiddles
    }

    #[inline(always)]
    fn at(&self, index: usize) -> Shoup {
        let (line, word) = (index / 16, index % 16);
        Shoup { w: self.w[line].0[word], w_shoup: self.w_shoup[line].0[word] }
    }
}

impl NttTable {
    /// Smallest supported `log2(N)`.
    pub const MIN_LOG_N: u32 = 4;
    /// Largest supported `log2(N)`.
    pub const MAX_LOG_N: u32 = 17;

    /// Computes the factors for degree `2^log_n`, `log_n` in `4..=17`.
    ///
    /// # Errors
    /// [`NttError`] when the degree is out of range or `q` is not 1 modulo `2^(log_n + 1)`.
    pub fn new(q: Modulus, log_n: u32) -> Result<Self, NttError> {
        let log_len = log_n.clamp(Self::MIN_LOG_N, Self::MAX_LOG_N);
        Self::within(&TableMemory::new(1, log_len), q, log_n)
    }

    /// [`new`](Self::new) in memory for several tables of this degree, or a higher one.
    pub(crate) fn within(memory: &TableMemory, q: Modulus, log_n: u32) -> Result<Self, NttError> {
        if !(Self::MIN_LOG_N..=Self::MAX_LOG_N).contains(&log_n) {
            return Err(NttError::Degree(log_n));
        }
        let no_root = NttError::NoRoot { q: q.value(), log_n };
        let root = primitive_root(&q, log_n).ok_or(no_root)?;
        let root_inverse = q.inv(root).ok_or(no_root)?;
        let forward = Twiddles::new(&q, log_n, root, memory);
        let inverse = Twiddles::new(&q, log_n, root_inverse, memory);
        Ok(Self { q, log_n, forward, inverse })
    }

    /// The prime.
    pub fn modulus(&self) -> &Modulus {
        &self.q
    }

    /// Base-2 logarithm of the degree.
    pub fn log_n(&self) -> u32 {
        self.log_n
    }

    /// Coefficients to evaluations, in place. Canonical in, canonical out.
    ///
    /// # Panics
    /// Unless `limb` has `N` words.
    pub fn forward(&self, isa: Isa, limb: &mut [u32]) {
        assert_eq!(limb.len(), 1 << self.log_n, "a limb has N words");
        self.forward_len(isa, limb);
    }

    /// [`forward`](Self::forward) in the smaller ring of degree `n = limb.len()`, with the root
    /// `psi^(N/n)`. This is how a sparse plaintext, a polynomial in `X^(N/n)`, is transformed in compact form.
    ///
    /// # Panics
    /// Unless `limb.len()` is a power of two up to `N`.
    pub fn forward_len(&self, isa: Isa, limb: &mut [u32]) {
        self.check_len(limb.len());
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::forward_avx512(self, limb),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::forward_avx2(self, limb),
            _ => portable::forward(self, limb),
        }
    }

    /// Evaluations to coefficients, in place: the exact inverse of [`forward`](Self::forward).
    ///
    /// # Panics
    /// Unless `limb` has `N` words.
    pub fn inverse(&self, isa: Isa, limb: &mut [u32]) {
        self.inverse_scaled(isa, limb, 1);
    }

    /// [`inverse`](Self::inverse), with every coefficient multiplied by the canonical constant `c` at no
    /// cost: the transform multiplies by `1/N` anyway.
    ///
    /// # Panics
    /// Unless `limb` has `N` words.
    pub fn inverse_scaled(&self, isa: Isa, limb: &mut [u32], c: u32) {
        assert_eq!(limb.len(), 1 << self.log_n, "a limb has N words");
        self.inverse_len(isa, limb, c);
    }

    /// [`inverse_scaled`](Self::inverse_scaled) of the evaluations in `from`, with the coefficients in `limb`: faster than
    /// a copy before it.
    ///
    /// # Panics
    /// Unless both have `N` words.
    pub fn inverse_scaled_from(&self, isa: Isa, limb: &mut [u32], from: &[u32], c: u32) {
        assert_eq!(limb.len(), 1 << self.log_n, "a limb has N words");
        assert_eq!(from.len(), limb.len(), "both limbs have N words");
        self.inverse_of(isa, limb, Some(from), c);
    }

    /// [`inverse_scaled`](Self::inverse_scaled) in the smaller ring of degree `n = limb.len()`: the exact
    /// inverse of [`forward_len`](Self::forward_len), times `c`.
    ///
    /// # Panics
    /// Unless `limb.len()` is a power of two up to `N`.
    pub fn inverse_len(&self, isa: Isa, limb: &mut [u32], c: u32) {
        self.inverse_of(isa, limb, None, c);
    }

    /// [`inverse_len`](Self::inverse_len) of the evaluations in the limb, or those in `from`, which is as long.
    fn inverse_of(&self, isa: Isa, limb: &mut [u32], from: Option<&[u32]>, c: u32) {
        self.check_len(limb.len());
        // 1/n = ((q + 1) / 2)^log2(n).
        let n_inverse = self.q.pow(self.q.value().div_ceil(2), limb.len().ilog2().into());
        let scale = self.q.shoup(self.q.mul(n_inverse, c));
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::inverse_avx512(self, limb, from, scale),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::inverse_avx2(self, limb, from, scale),
            _ => portable::inverse(self, limb, from, scale),
        }
    }

    fn check_len(&self, len: usize) {
        assert!(
            len.is_power_of_two() && len <= 1 << self.log_n,
            "a transform of {len} words is not a power of two up to 2^{}",
            self.log_n
        );
    }
}
