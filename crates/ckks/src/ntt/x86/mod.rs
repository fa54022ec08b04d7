//! The transform on x86-64 vectors: 8 words with AVX2, 16 with AVX-512.
//!
//! The stages with a stride of whole vectors are the same for both and run several at a time in registers
//! (`passes`). The last stages, whose stride is less than a vector, need shuffles of their own
//! (`tail_avx2`, `tail_avx512`).

mod butterfly;
mod passes;
mod tail_avx2;
mod tail_avx512;

use self::butterfly::Tail;
use super::{NttTable, portable};
use crate::modulus::Shoup;
use std::arch::x86_64::{__m256i, __m512i};

/// A transform compiled for one vector type, for limbs of at least the tail's length.
macro_rules! transform {
    ($name:ident = $run:ident::<$vector:ty> with $features:literal; $limb:ident $(, $from:ident, $scale:ident)?) => {
        #[doc = concat!("See `portable::", stringify!($run), "`. Only for the `Isa` of the same name.")]
        pub(super) fn $name(table: &NttTable, $limb: &mut [u32] $(, $from: Option<&[u32]>, $scale: Shoup)?) {
            #[target_feature(enable = $features)]
            fn compiled(table: &NttTable, $limb: &mut [u32] $(, $from: Option<&[u32]>, $scale: Shoup)?) {
                // SAFETY: this function has the features of the vector; its caller has checked the length.
                unsafe { passes::$run::<$vector>(table, $limb $(, $from, $scale)?) }
            }
            if $limb.len() < 1 << <$vector>::LOG_TAIL {
                return portable::$run(table, $limb $(, $from, $scale)?);
            }
            // SAFETY: called for the `Isa` that exists only where the processor has these features.
            unsafe { compiled(table, $limb $(, $from, $scale)?) }
        }
    };
}

transform!(forward_avx2 = forward::<__m256i> with "avx2"; limb);
transform!(inverse_avx2 = inverse::<__m256i> with "avx2"; limb, from, scale);
transform!(forward_avx512 = forward::<__m512i> with "avx512f,avx512bw,avx512dq,avx512vl"; limb);
transform!(inverse_avx512 = inverse::<__m512i> with "avx512f,avx512bw,avx512dq,avx512vl"; limb, from, scale);
