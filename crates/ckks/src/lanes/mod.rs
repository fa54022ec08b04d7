//! Vectors of words, and arithmetic modulo a prime on them: what every vector kernel is written in.
//!
//! A kernel is one generic function over [`Lanes`]; [`dispatch!`](crate::dispatch) compiles it for each
//! instruction set and calls the right one. A single word is a vector too, so the portable version is the
//! same text, and all versions give the same bits.

#![expect(clippy::missing_safety_doc, reason = "stated once for each block of functions")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod word;

use crate::modulus::{Modulus, Shoup};

/// A vector of [`LANES`](Lanes::LANES) words with wrapping arithmetic.
///
/// # Safety
/// Every method may be called only from a function compiled with the features of the vector type, and is
/// inlined into it: functions generic over `Lanes` are `unsafe` and `#[inline(always)]`, without closures
/// around vector code (LLVM may refuse to inline those). Pointers must be valid for `LANES` words; no
/// alignment is needed.
pub trait Lanes: Copy {
    /// Words in a vector.
    const LANES: usize;
    /// As many double words, in an order of their own.
    type Wide: Copy;

    /// The words at `from`.
    unsafe fn load(from: *const u32) -> Self;
    /// Runs of `2^log_run` equal words: lane i is the word at `from + (i >> log_run)`, for runs of 2 to `LANES / 2` words. It
    /// reads `LANES >> log_run` words and no more.
    unsafe fn load_runs(from: *const u32, log_run: u32) -> Self;
    /// Writes the words to `to`.
    unsafe fn store(self, to: *mut u32);
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(address: *const u32);
    /// The same word in every lane.
    unsafe fn splat(word: u32) -> Self;
    /// `self + other mod 2^32`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other mod 2^32`.
    unsafe fn sub(self, other: Self) -> Self;
    /// The smaller of the two, unsigned.
    unsafe fn min(self, other: Self) -> Self;
    /// The low words of the products.
    unsafe fn mul_low(self, other: Self) -> Self;
    /// The high words of the products with a factor in the form of [`Factor`]: in `even` only the even lanes
    /// count, and `odd` holds the odd lanes' factors, one lane lower.
    unsafe fn mul_high(self, even: Self, odd: Self) -> Self;
    /// Each odd lane copied one lane lower, as [`mul_high`](Lanes::mul_high) wants its second factor.
    unsafe fn odd_lanes(self) -> Self;

    /// Zero in every double word.
    unsafe fn wide_zero() -> Self::Wide;
    /// The products, given the odd lanes of both factors (see [`odd_lanes`](Lanes::odd_lanes)) too.
    unsafe fn wide_mul(self, odd: Self, other: Self, other_odd: Self) -> Self::Wide;
    /// `a + b mod 2^64`.
    unsafe fn wide_add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// `a - b mod 2^64`.
    unsafe fn wide_sub(a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// The same double words, all of them computed before anything that needs one.
    ///
    /// This is no arithmetic but a hint about order: a row of multiplications followed by a row of additions keeps more
    /// units of a processor busy than the two in turn, into which LLVM would sort them.
    #[inline(always)]
    unsafe fn wide_settle(a: [Self::Wide; 4]) -> [Self::Wide; 4] {
        a
    }
    /// `a >> BITS`.
    unsafe fn wide_shift_right<const BITS: u32>(a: Self::Wide) -> Self::Wide;
    /// `a << BITS mod 2^64`.
    unsafe fn wide_shift_left<const BITS: u32>(a: Self::Wide) -> Self::Wide;
    /// The low words as [`wide_mul`](Lanes::wide_mul) takes a factor: even lanes, and odd lanes one lane lower.
    unsafe fn wide_low(a: Self::Wide) -> (Self, Self);
    /// The high words, in the order of the lanes.
    unsafe fn wide_high(a: Self::Wide) -> Self;
}

/// For runs of 2, 4 and 8 equal words, the word that each lane takes; see [`Lanes::load_runs`].
#[cfg(target_arch = "x86_64")]
const RUNS: [[u32; 16]; 3] = [
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7],
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3],
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
];

/// A constant factor for each lane, with Shoup's quotient; see [`Shoup`].
#[derive(Clone, Copy, Debug)]
pub struct Factor<V> {
    /// The factors, canonical.
    pub w: V,
    /// Their quotients; only the even lanes count.
    pub even: V,
    /// The quotients of the odd lanes, one lane lower.
    pub odd: V,
}

impl<V: Lanes> Factor<V> {
    /// One factor in every lane.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    pub unsafe fn splat(factor: Shoup) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe {
            let even = V::splat(factor.w_shoup);
            Self { w: V::splat(factor.w), even, odd: even }
        }
    }
}

/// A [`Modulus`] in every lane.
#[derive(Clone, Copy, Debug)]
pub struct ModulusLanes<V> {
    /// The prime `q`.
    pub q: V,
    /// `2q`.
    pub twice: V,
    /// `q^-1 mod 2^32`.
    inverse: V,
    /// `2^32 mod q`.
    montgomery_one: Factor<V>,
}

/// Residues are canonical unless a range is given.
///
/// # Safety
/// All as for [`Lanes`].
impl<V: Lanes> ModulusLanes<V> {
    /// The constants of `q` in every lane.
    #[inline(always)]
    pub unsafe fn new(q: &Modulus) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe {
            Self {
                q: V::splat(q.value()),
                twice: V::splat(2 * q.value()),
                inverse: V::splat(q.inverse_mod_word()),
                montgomery_one: Factor::splat(q.shoup(q.montgomery_one())),
            }
        }
    }

    /// From `[0, 4q)` to `[0, 2q)`: a negative difference wraps and is then the larger of the two.
    #[inline(always)]
    pub unsafe fn below_2q(&self, x: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { x.min(x.sub(self.twice)) }
    }

    /// From `[0, 2q)` to canonical.
    #[inline(always)]
    pub unsafe fn canonical(&self, x: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { x.min(x.sub(self.q)) }
    }

    /// From `(-q, q)`, negative numbers wrapped, to canonical.
    #[inline(always)]
    pub unsafe fn lift(&self, x: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { x.min(x.add(self.q)) }
    }

    /// `a + b`.
    #[inline(always)]
    pub unsafe fn add(&self, a: V, b: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.canonical(a.add(b)) }
    }

    /// `a - b`.
    #[inline(always)]
    pub unsafe fn sub(&self, a: V, b: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.lift(a.sub(b)) }
    }

    /// `-a`.
    #[inline(always)]
    pub unsafe fn neg(&self, a: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.sub(V::splat(0), a) }
    }

    /// `a * b * 2^-32`.
    #[inline(always)]
    pub unsafe fn mont_mul(&self, a: V, b: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.mont_reduce(a.wide_mul(a.odd_lanes(), b, b.odd_lanes())) }
    }

    /// `a * b`.
    #[inline(always)]
    pub unsafe fn mul(&self, a: V, b: V) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.mont_mul(a, self.mul_factor_lazy(b, self.montgomery_one)) }
    }

    /// A number in `[0, 2q)` congruent to `a * w`, for any words `a`.
    #[inline(always)]
    pub unsafe fn mul_factor_lazy(&self, a: V, factor: Factor<V>) -> V {
        // SAFETY: forwarded to the caller.
        unsafe {
            let quotient = a.mul_high(factor.even, factor.odd);
            a.mul_low(factor.w).sub(quotient.mul_low(self.q))
        }
    }

    /// `a * w` for any words `a`.
    #[inline(always)]
    pub unsafe fn mul_factor(&self, a: V, factor: Factor<V>) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.canonical(self.mul_factor_lazy(a, factor)) }
    }

    /// `x * 2^-32` for `x < q * 2^32`; see [`Modulus::mont_reduce`].
    #[inline(always)]
    pub unsafe fn mont_reduce(&self, x: V::Wide) -> V {
        // SAFETY: forwarded to the caller.
        unsafe { self.lift(V::wide_high(V::wide_sub(x, self.cancelling(x)))) }
    }

    /// `x * 2^-32` for `x < 4q * 2^32`, such as the sum of 16 products of canonical residues.
    #[inline(always)]
    pub unsafe fn mont_reduce_4q(&self, x: V::Wide) -> V {
        // SAFETY: forwarded to the caller.
        unsafe {
            let high = self.below_2q(V::wide_high(x));
            // In (-q, 2q): adding q to what is negative, only, leaves [0, 2q).
            self.canonical(self.lift(high.sub(V::wide_high(self.cancelling(x)))))
        }
    }

    /// The multiple of `q` below `q * 2^32` with the same low word as `x`.
    #[inline(always)]
    unsafe fn cancelling(&self, x: V::Wide) -> V::Wide {
        // SAFETY: forwarded to the caller.
        unsafe {
            let (even, odd) = V::wide_low(x);
            even.mul_low(self.inverse).wide_mul(odd.mul_low(self.inverse), self.q, self.q)
        }
    }
}

/// Compiles a function that is generic over [`Lanes`] for every instruction set and calls it for `isa`.
///
/// `dispatch!(isa, run(a: A, b: B))` calls `run::<V>(a, b)` with the variables `a` and `b` of the types given,
/// where `V` is the vector of `isa`. `run` must be `unsafe fn run<V: Lanes>(a: A, b: B)`, marked
/// `#[inline(always)]`, and safe but for the features of `V`.
#[macro_export]
macro_rules! dispatch {
    ($isa:expr, $run:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512($($argument: $type),*) {
            // SAFETY: this function has the features of the vector.
            unsafe { $run::<std::arch::x86_64::__m512i>($($argument),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn avx2($($argument: $type),*) {
            // SAFETY: this function has the features of the vector.
            unsafe { $run::<std::arch::x86_64::__m256i>($($argument),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value of this variant exists only where the processor has these features.
            $crate::isa::Isa::Avx512 { .. } => unsafe { avx512($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            $crate::isa::Isa::Avx2 { .. } => unsafe { avx2($($argument),*) },
            // SAFETY: a single word needs no features.
            _ => unsafe { $run::<u32>($($argument),*) },
        }
    }};
}
