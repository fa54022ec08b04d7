//! A vector of one word.

use super::Lanes;

impl Lanes for u32 {
    const LANES: usize = 1;
    type Wide = u64;

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn load_runs(from: *const u32, _log_run: u32) -> Self {
        // SAFETY: forwarded to the caller.
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: forwarded to the caller.
        unsafe { *to = self }
    }
    #[inline(always)]
    unsafe fn prefetch(_address: *const u32) {}
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        word
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }
    #[inline(always)]
    unsafe fn mul_low(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    #[inline(always)]
    unsafe fn mul_high(self, even: Self, _odd: Self) -> Self {
        ((u64::from(self) * u64::from(even)) >> 32) as u32
    }
    #[inline(always)]
    unsafe fn odd_lanes(self) -> Self {
        // There are none, and nobody looks.
        0
    }

    #[inline(always)]
    unsafe fn wide_zero() -> u64 {
        0
    }
    #[inline(always)]
    unsafe fn wide_mul(self, _odd: Self, other: Self, _other_odd: Self) -> u64 {
        u64::from(self) * u64::from(other)
    }
    #[inline(always)]
    unsafe fn wide_add(a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    unsafe fn wide_sub(a: u64, b: u64) -> u64 {
        a.wrapping_sub(b)
    }
    #[inline(always)]
    unsafe fn wide_shift_right<const BITS: u32>(a: u64) -> u64 {
        a >> BITS
    }
    #[inline(always)]
    unsafe fn wide_shift_left<const BITS: u32>(a: u64) -> u64 {
        a << BITS
    }
    #[inline(always)]
    unsafe fn wide_low(a: u64) -> (Self, Self) {
        (a as u32, 0)
    }
    #[inline(always)]
    unsafe fn wide_high(a: u64) -> Self {
        (a >> 32) as u32
    }
}
