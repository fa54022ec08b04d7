//! The butterflies on vectors.

use crate::lanes::{Factor, Lanes, ModulusLanes};
use crate::modulus::Shoup;
use crate::ntt::Twiddles;

/// Vectors with a transform of blocks of a few of them, in which the stride is less than a vector.
pub(super) trait Tail: Lanes {
    /// Base-2 logarithm of the words in a block.
    const LOG_TAIL: u32;

    /// The last `LOG_TAIL` stages on `count` blocks of `2^LOG_TAIL` words at `start`, from `[0, 4q)` to
    /// canonical. `first` is the index of the factor of the first block in the first of these stages.
    ///
    /// # Safety
    /// As for [`Lanes`]; the blocks and factors exist, and `count` is a power of two.
    unsafe fn forward_tails(q: &ModulusLanes<Self>, w: &Factors, start: *mut u32, first: usize, count: usize);
    /// The first `LOG_TAIL` stages of the inverse, from canonical to `[0, 2q)`.
    ///
    /// # Safety
    /// As for [`forward_tails`](Self::forward_tails).
    unsafe fn inverse_tails(q: &ModulusLanes<Self>, w: &Factors, start: *mut u32, first: usize, count: usize);
}

/// Pointers to the twiddle factors of a table, whose index is bounded by the number of groups.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) w: *const u32,
    pub(super) w_shoup: *const u32,
}

impl Factors {
    pub(super) fn of(twiddles: &Twiddles) -> Self {
        Self { w: twiddles.w.as_ptr().cast(), w_shoup: twiddles.w_shoup.as_ptr().cast() }
    }

    /// Factor `index` in every lane.
    ///
    /// # Safety
    /// As for [`Lanes`]; the index must be within the table.
    #[inline(always)]
    pub(super) unsafe fn splat<V: Lanes>(&self, index: usize) -> Factor<V> {
        // SAFETY: the caller keeps the index within the table.
        unsafe { Factor::splat(Shoup { w: *self.w.add(index), w_shoup: *self.w_shoup.add(index) }) }
    }
}

/// # Safety
/// All as for [`Lanes`].
impl<V: Lanes> ModulusLanes<V> {
    /// `(x + w y, x - w y)`. In and out `[0, 4q)`.
    #[inline(always)]
    pub(super) unsafe fn butterfly(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let sum = self.below_2q(*x);
            let t = self.mul_factor_lazy(*y, f);
            *x = sum.add(t);
            *y = sum.add(self.twice).sub(t);
        }
    }

    /// [`butterfly`](Self::butterfly) with canonical results.
    #[inline(always)]
    pub(super) unsafe fn butterfly_canonical(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let sum = self.canonical(self.below_2q(*x));
            let t = self.mul_factor(*y, f);
            *x = self.add(sum, t);
            *y = self.sub(sum, t);
        }
    }

    /// `(x + y, w (x - y))`. In and out `[0, 2q)`.
    #[inline(always)]
    pub(super) unsafe fn inverse_butterfly(&self, x: &mut V, y: &mut V, f: Factor<V>) {
        // SAFETY: forwarded to the caller.
        unsafe {
            let difference = x.add(self.twice).sub(*y);
            *x = self.below_2q(x.add(*y));
            *y = self.mul_factor_lazy(difference, f);
        }
    }
}
