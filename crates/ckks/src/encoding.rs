//! The encoder: vectors of slots to polynomials and back.
//!
//! A message of N/2 complex slots is the polynomial that takes the value z_k at exp(i pi 5^k / N); multiplied
//! by a scale and rounded, it is what CKKS computes on (Cheon, Kim, Kim and Song, Homomorphic Encryption for
//! Arithmetic of Approximate Numbers, 2017, section 3.2). Rotating slots to the left by r is X -> X^(5^r);
//! conjugating is X -> X^-1.
//!
//! A message whose slots repeat with period p is a polynomial in X^(N/2p), of 2p coefficients. It is encoded
//! in the ring of degree 2p, and its evaluation at N points is only its evaluation at 2p points, every word
//! repeated N/2p times: that is the *compact* form, which is never expanded in memory.
//!
//! Encodings are the same bits on every machine, and on devices that encode by themselves: each sum, difference and product of
//! the transform is rounded to f64 by itself, in the order of `fft::inverse` (`(a + bi)(c - di)` is `ac + bd` and
//! `bc - ad`, never fused); then each part is divided by the number of slots, which is exact, multiplied by the
//! scale, and rounded to the nearest integer, ties to even. From there on everything is exact.

pub mod dft;
mod fft;
mod residues;
mod rounded;
mod slots;

use num_complex::Complex64;

use crate::basis::{Basis, PrimeIndex, Scale};
use crate::isa::Isa;
use crate::params::Params;
use crate::rns::{Domain, Poly};
use residues::Integers;
use rounded::Roots;
pub use slots::Slots;

/// Why a message cannot be encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodingError {
    /// A slot is not a finite number.
    #[error("slot {slot} is {value:?}; only finite numbers can be encoded")]
    NotFinite {
        /// Position.
        slot: usize,
        /// What is there.
        value: Complex64,
    },
    /// The number of slots is not a possible period.
    #[error("{len} slots cannot be encoded: their number must be a power of two of at most {slots}")]
    Period {
        /// Slots given.
        len: usize,
        /// Slots of the parameter set.
        slots: usize,
    },
    /// The scale is no finite number of at least 1.
    #[error("cannot encode at scale {0}; scales are finite and at least 1")]
    Scale(f64),
    /// The message is too large for the modulus.
    #[error(
        "the message times its scale of 2^{log_scale:.1} needs {bits:.1} bits, but the modulus has room for \
         {room:.1}; scale the message down or encode it at a higher level"
    )]
    Overflow {
        /// Base-2 logarithm of the scale.
        log_scale: f64,
        /// Bits of the largest coefficient.
        bits: f64,
        /// Bits that there are.
        room: f64,
    },
}

/// Encodes and decodes messages for one ring degree. Building one takes some milliseconds; it is read-only
/// after.
#[derive(Clone, Debug)]
pub struct Encoder {
    log_n: u32,
    roots: Vec<Complex64>,
    split: Roots,
}

impl Encoder {
    /// The encoder of a parameter set.
    pub fn new(params: &Params) -> Encoder {
        Encoder::of_degree(params.log_n())
    }

    fn of_degree(log_n: u32) -> Encoder {
        let roots = fft::roots(log_n - 1);
        Encoder { log_n, split: Roots::new(&roots), roots }
    }

    /// Factors of the transform of up to `2^log_slots` slots: entry `len/2 + k` is exp(i pi 5^k / 2 len), for the stage of
    /// length `len`.
    ///
    /// # Panics
    /// If there are more slots than those of a full message.
    pub fn roots(&self, log_slots: u32) -> &[Complex64] {
        &self.roots[..1 << log_slots]
    }

    /// Number of slots of a full message, N/2.
    pub fn slots(&self) -> usize {
        1 << (self.log_n - 1)
    }

    /// The 2p integer coefficients of the polynomial in X^(N/2p) with slots `scale * slots[k % p]`, p =
    /// `slots.len()` a power of two of at most N/2. Each is the real coefficient rounded to the nearest
    /// integer (ties to even), computed in f64: exact but for about 2^-50 of the largest slot.
    ///
    /// # Errors
    /// NaN, infinities, an impossible period or scale, and coefficients of 2^126 or more.
    pub fn coefficients<T: Copy + Into<Complex64>>(
        &self,
        slots: &[T],
        scale: Scale,
    ) -> Result<Vec<i128>, EncodingError> {
        let p = slots.len();
        if !p.is_power_of_two() || p > self.slots() {
            return Err(EncodingError::Period { len: p, slots: self.slots() });
        }
        if !(scale.0.is_finite() && scale.0 >= 1.0) {
            return Err(EncodingError::Scale(scale.0));
        }
        let mut values: Vec<Complex64> = slots.iter().map(|&z| z.into()).collect();
        if let Some(slot) = values.iter().position(|z| !(z.re.is_finite() && z.im.is_finite())) {
            return Err(EncodingError::NotFinite { slot, value: values[slot] });
        }
        fft::inverse(&self.roots, &mut values);
        let scaled = values.iter().map(|u| u.re).chain(values.iter().map(|u| u.im)).map(|c| c * scale.0);
        scaled
            .map(|c| {
                // NaN, from an overflow within the FFT, fails this too.
                if c.abs() < 2f64.powi(126) {
                    Ok(c.round_ties_even() as i128)
                } else {
                    Err(EncodingError::Overflow {
                        log_scale: scale.log2(),
                        bits: c.abs().log2() + 1.0,
                        room: 127.0,
                    })
                }
            })
            .collect()
    }

    /// Encodes slots of period p = `slots.len()` as a plaintext operand: compact evaluation domain,
    /// Montgomery form, canonical, written to `out` as `[prime of the basis][2p]`. Word i of a full limb is word
    /// `i / (N/2p)` of the compact one. What is left in `slots` is unspecified. The primes of `modulus` are those that the
    /// coefficients must be below the product of; `basis` may be a part of them.
    ///
    /// # Errors
    /// As [`coefficients`](Self::coefficients), and messages too large for the modulus.
    ///
    /// # Panics
    /// If `params` has another ring degree than the encoder, or `out` is not of 2p words a prime.
    pub fn encode_compact(
        &self,
        params: &Params,
        slots: &mut Slots,
        basis: Basis,
        modulus: Basis,
        scale: Scale,
        out: &mut [u32],
    ) -> Result<(), EncodingError> {
        let len = 2 * slots.len();
        assert_eq!(out.len(), len * basis.len(), "two words a slot and prime");
        let mut integers = std::mem::take(&mut slots.integers);
        integers.resize(2 * len, 0);
        let wide = self.round(params, slots, modulus, scale, &mut integers)?;
        let isa = Isa::detect();
        for (prime, limb) in basis.iter().zip(out.chunks_exact_mut(len)) {
            match &wide {
                None => integers_to_limb(params, isa, prime, &integers, limb),
                Some(coefficients) => {
                    let q = params.modulus(prime);
                    let words = limb.iter_mut().zip(coefficients);
                    words.for_each(|(word, &c)| *word = q.to_mont(q.reduce_i128(c)));
                    params.ntt(prime).forward_len(isa, limb);
                }
            }
        }
        slots.integers = integers;
        Ok(())
    }

    /// Encodes as [`encode_compact`](Self::encode_compact), but for the last step, which [`integers_to_limb`]
    /// does prime by prime: `out` takes two words for each of the 2p coefficients.
    ///
    /// # Errors
    /// As [`encode_compact`](Self::encode_compact), and messages with coefficients of more than 64 bits.
    ///
    /// # Panics
    /// If `params` has another ring degree than the encoder, or `out` is not of 4p words.
    pub fn encode_integers(
        &self,
        params: &Params,
        slots: &mut Slots,
        modulus: Basis,
        scale: Scale,
        out: &mut [u32],
    ) -> Result<(), EncodingError> {
        match self.round(params, slots, modulus, scale, out)? {
            None => Ok(()),
            Some(wide) => Err(EncodingError::Overflow {
                log_scale: scale.log2(),
                bits: bits(largest(&wide)),
                room: 64.0,
            }),
        }
    }

    /// Writes the words of all coefficients to `out`; or gives the coefficients if some have more than 64 bits.
    fn round(
        &self,
        params: &Params,
        slots: &mut Slots,
        modulus: Basis,
        scale: Scale,
        out: &mut [u32],
    ) -> Result<Option<Vec<i128>>, EncodingError> {
        assert_eq!(params.log_n(), self.log_n, "an encoder is for one ring degree");
        assert_eq!(out.len(), 4 * slots.len(), "two words a coefficient");
        let len = slots.len();
        let is_usual = (rounded::SHORTEST..=self.slots()).contains(&len) && len.is_power_of_two();
        // No coefficient is larger than the largest slot. Anything unusual, NaN included, takes the long way.
        if is_usual && scale.0.is_finite() && scale.0 >= 1.0 && slots.bound() * scale.0 < rounded::LIMIT / 2.0
        {
            let largest = rounded::inverse(Isa::detect(), &self.split, slots.parts(), scale.0, out);
            check_room(params, modulus, scale, largest)?;
            return Ok(None);
        }
        let coefficients = self.checked_coefficients(params, &slots.to_complex(), modulus, scale)?;
        match Integers::words(&coefficients) {
            Some(words) => {
                out.copy_from_slice(&words);
                Ok(None)
            }
            None => Ok(Some(coefficients)),
        }
    }

    /// Encodes slots of period `slots.len()` as a whole polynomial in the coefficient domain, normal form: a
    /// message to encrypt.
    ///
    /// # Errors
    /// As [`encode_compact`](Self::encode_compact).
    ///
    /// # Panics
    /// If `params` has another ring degree than the encoder.
    pub fn encode<T: Copy + Into<Complex64>>(
        &self,
        params: &Params,
        slots: &[T],
        basis: Basis,
        scale: Scale,
    ) -> Result<Poly, EncodingError> {
        assert_eq!(params.log_n(), self.log_n, "an encoder is for one ring degree");
        let coefficients = self.checked_coefficients(params, slots, basis, scale)?;
        let stride = params.n() / coefficients.len();
        let limbs = basis.iter().map(|prime| {
            let mut limb = vec![0; params.n()];
            for (word, &c) in limb.iter_mut().step_by(stride).zip(&coefficients) {
                *word = params.modulus(prime).reduce_i128(c);
            }
            limb
        });
        Ok(Poly::from_limbs(basis, Domain::Coefficient, limbs.collect()))
    }

    /// The N/2 slots of a polynomial in the coefficient domain, divided by `scale`.
    ///
    /// # Panics
    /// If `params` has another ring degree than the encoder, or the polynomial is in the evaluation domain.
    pub fn decode(&self, params: &Params, message: &Poly, scale: Scale) -> Vec<Complex64> {
        assert_eq!(params.log_n(), self.log_n, "an encoder is for one ring degree");
        let slots = self.evaluate(&message.to_floats(params));
        slots.iter().map(|z| Complex64 { re: z.re / scale.0, im: z.im / scale.0 }).collect()
    }

    /// The N/2 slots of the real polynomial with these N coefficients.
    ///
    /// # Panics
    /// If there are not N.
    pub fn evaluate(&self, coefficients: &[f64]) -> Vec<Complex64> {
        assert_eq!(coefficients.len(), 2 * self.slots(), "one coefficient for each power of X");
        let (first, second) = coefficients.split_at(self.slots());
        let mut values: Vec<Complex64> =
            first.iter().zip(second).map(|(&re, &im)| Complex64 { re, im }).collect();
        fft::forward(&self.roots, &mut values);
        values
    }

    fn checked_coefficients<T: Copy + Into<Complex64>>(
        &self,
        params: &Params,
        slots: &[T],
        basis: Basis,
        scale: Scale,
    ) -> Result<Vec<i128>, EncodingError> {
        let coefficients = self.coefficients(slots, scale)?;
        check_room(params, basis, scale, largest(&coefficients))?;
        Ok(coefficients)
    }
}

/// The limb of [`Encoder::encode_compact`] for a prime, from what [`Encoder::encode_integers`] made.
///
/// # Panics
/// If `integers` is not twice as long as `out`, or `out` no limb of a plaintext of these parameters.
pub fn integers_to_limb(params: &Params, isa: Isa, prime: PrimeIndex, integers: &[u32], out: &mut [u32]) {
    Integers::of(integers).to_mont(isa, params.modulus(prime), out);
    params.ntt(prime).forward_len(isa, out);
}

/// The size of the largest coefficient.
fn largest(coefficients: &[i128]) -> f64 {
    coefficients.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0) as f64
}

/// Bits of an integer of that size with its sign.
fn bits(largest: f64) -> f64 {
    largest.log2() + 1.0
}

/// Whether the modulus has room for coefficients of up to this size.
fn check_room(params: &Params, basis: Basis, scale: Scale, largest: f64) -> Result<(), EncodingError> {
    let (bits, room) = (bits(largest), params.log_product(basis));
    if bits >= room {
        return Err(EncodingError::Overflow { log_scale: scale.log2(), bits, room });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
