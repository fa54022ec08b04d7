//! Which instruction set the vector kernels may use, decided once at run time.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set for which kernels are written.
///
/// A value is a proof: the variants other than [`Isa::Portable`] cannot be constructed outside this
/// crate and come only from [`Isa::detect`] and [`Isa::available`], which ask the processor first. So
/// a kernel given `Isa::Avx512` may execute AVX-512 without asking again. (Match the vector variants
/// from other crates as `Isa::Avx512 { .. }`.)
///
/// All kernels give the same bits on every instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust; runs everywhere and is what the others are compared with.
    Portable,
    /// x86-64 with AVX2: 8 words a vector.
    #[non_exhaustive]
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: 16 words a vector.
    #[non_exhaustive]
    Avx512,
}

impl Isa {
    /// The widest instruction set of this processor. Asked once, then remembered.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().into_iter().max().unwrap_or(Isa::Portable))
    }

    /// All instruction sets of this processor, narrowest first; the first is [`Isa::Portable`].
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only x86-64 has more than one")]
        let mut isas = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                isas.push(Isa::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                isas.push(Isa::Avx512);
            }
        }
        isas
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detect_is_the_widest_available() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Portable);
        assert!(available.is_sorted());
        assert_eq!(Some(&Isa::detect()), available.last());
    }
}
