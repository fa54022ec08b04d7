//! Recipes: how the slots of a plaintext are made, so that an artifact stores neither slots nor encoded polynomials.

use cerium_ckks::encoding::dft::DftFactor;
use num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::{GatherId, NO_ELEMENT, Tensor, TensorId};

/// How the slots of a plaintext are made. Slots are complex; those of weights are real.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Recipe {
    /// Raw weights: `slot[i] = factor * tensors[tensor].values[gathers[gather][i % period]]`, zero where the entry is
    /// [`NO_ELEMENT`]. The period is the length of the gather table, a power of two of at most N/2.
    Gather {
        /// The tensor it reads.
        tensor: TensorId,
        /// Which element goes to which slot.
        gather: GatherId,
        /// Constant factor; finite.
        factor: f64,
    },
    /// `re + i im` in every slot: a period of 1.
    Constant {
        /// Real part; finite.
        re: f64,
        /// Imaginary part; finite.
        im: f64,
    },
    /// A diagonal of a factor of the encoder's transform: `slot[i] = scale * factor.diagonal(offset)[i % period]`, with
    /// the factor's period.
    Dft {
        /// The factor; of at most N/2 slots.
        factor: DftFactor,
        /// Which diagonal: one of [`DftFactor::offsets`].
        offset: i64,
        /// Constant factor; finite.
        scale: f64,
    },
}

impl Recipe {
    /// Base-2 logarithm of the period of its slots, or `None` if the recipe reads a slot table that `gathers` does not
    /// have. Of a validated artifact, at most `log_n - 1`.
    ///
    /// # Panics
    /// If it is of a factor that [is not valid](DftFactor::is_valid).
    pub fn log_period(&self, gathers: &[Vec<u32>]) -> Option<u32> {
        match *self {
            Recipe::Gather { gather, .. } => {
                gathers.get(gather.0 as usize).map(|gather| gather.len().trailing_zeros())
            }
            Recipe::Constant { .. } => Some(0),
            Recipe::Dft { factor, .. } => Some(factor.period().trailing_zeros()),
        }
    }

    /// The slots over one period.
    ///
    /// # Panics
    /// If the recipe does not fit the tables, or is of a factor that is not valid; those of a validated artifact do.
    pub fn slots(&self, tensors: &[Tensor], gathers: &[Vec<u32>]) -> Vec<Complex64> {
        match *self {
            Recipe::Gather { tensor, gather, factor } => {
                let values = &tensors[tensor.0 as usize].values;
                let slot = |&element: &u32| match element {
                    NO_ELEMENT => Complex64::ZERO,
                    element => Complex64::from(f64::from(values[element as usize]) * factor),
                };
                gathers[gather.0 as usize].iter().map(slot).collect()
            }
            Recipe::Constant { re, im } => vec![Complex64 { re, im }],
            Recipe::Dft { factor, offset, scale } => {
                let mut slots = factor.diagonal(offset);
                slots.iter_mut().for_each(|slot| *slot *= scale);
                slots
            }
        }
    }

    /// What it makes, in words for an error: ``a weight of tensor `conv1` ``.
    ///
    /// # Panics
    /// As [`slots`](Self::slots).
    pub fn describe(&self, tensors: &[Tensor]) -> String {
        match *self {
            Recipe::Gather { tensor, .. } => {
                format!("a weight of tensor `{}`", tensors[tensor.0 as usize].name)
            }
            Recipe::Constant { re, im } => format!("the constant {}", Complex64 { re, im }),
            Recipe::Dft { factor, offset, .. } => {
                let (last, log_slots) = (factor.first + factor.stages - 1, factor.log_slots);
                let stages = format!("stages {} to {last}", factor.first);
                format!("diagonal {offset} of {stages} of the transform of 2^{log_slots} slots")
            }
        }
    }
}
