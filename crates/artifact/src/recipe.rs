//! Recipes: how the slots of a plaintext are made, so that an artifact stores neither slots nor encoded polynomials.

use cerium_ckks::encoding::Slots;
use cerium_ckks::encoding::dft::DftFactor;
use num_complex::Complex64;
use serde::{Deserialize, Serialize};

use crate::{GatherId, NO_ELEMENT, Tensor, TensorId};

/// How the slots of a plaintext are made. Slots are complex.
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
    /// A generalized diagonal of a rectangle of a matrix of raw weights: with `p` the period of the rectangle and
    /// `j = (i + offset) % p`,
    ///
    /// ```text
    /// slot[i] = factor * values[first + i * strides[0] + j * strides[1]]  * (1 if i + offset < p, -i otherwise)
    /// ```
    ///
    /// and zero where `i` or `j` is outside the rectangle. What wraps around is an imaginary weight: applied to
    /// `x + i x'`, the real part of the product takes it from `x'`, the slots one period before.
    Diagonal {
        /// The tensor it reads.
        tensor: TensorId,
        /// The rectangle.
        block: MatrixBlock,
        /// Which diagonal; below the period.
        offset: u32,
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

/// A rectangle of a matrix that lies in a tensor: element `(i, j)` is `values[first + i * strides[0] + j * strides[1]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatrixBlock {
    /// Index of the first element.
    pub first: u32,
    /// Distances of neighbouring rows and of neighbouring columns.
    pub strides: [u32; 2],
    /// Rows and columns, each of at least 1 and at most the period.
    pub extents: [u32; 2],
    /// Base-2 logarithm of the period of the slots.
    pub log_period: u32,
}

impl MatrixBlock {
    /// The period of the slots.
    pub fn period(&self) -> u32 {
        1 << self.log_period
    }

    /// The largest index that is read.
    pub fn last(&self) -> u64 {
        let far = |axis: usize| u64::from(self.extents[axis] - 1) * u64::from(self.strides[axis]);
        u64::from(self.first) + far(0) + far(1)
    }

    /// The index of the weight in slot `i` of the diagonal `offset` (both below the period), `None` outside the rectangle,
    /// and whether it wrapped around.
    pub fn diagonal(&self, offset: u32, i: u32) -> Option<(usize, bool)> {
        let wrapped = i + offset >= self.period();
        let j = if wrapped { i + offset - self.period() } else { i + offset };
        let inside = i < self.extents[0] && j < self.extents[1];
        let at = |index: u32, axis: usize| index as usize * self.strides[axis] as usize;
        inside.then(|| (self.first as usize + at(i, 0) + at(j, 1), wrapped))
    }
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
            Recipe::Diagonal { block, .. } => Some(block.log_period),
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
                    element => Complex64::from(f64::from(values.get(element as usize)) * factor),
                };
                gathers[gather.0 as usize].iter().map(slot).collect()
            }
            Recipe::Diagonal { tensor, block, offset, factor } => {
                let values = &tensors[tensor.0 as usize].values;
                let slot = |i| match block.diagonal(offset, i) {
                    None => Complex64::ZERO,
                    Some((index, false)) => Complex64::new(f64::from(values.get(index)) * factor, 0.0),
                    Some((index, true)) => Complex64::new(0.0, -(f64::from(values.get(index)) * factor)),
                };
                (0..block.period()).map(slot).collect()
            }
            Recipe::Constant { re, im } => vec![Complex64 { re, im }],
            Recipe::Dft { factor, offset, scale } => {
                let mut slots = factor.diagonal(offset);
                slots.iter_mut().for_each(|slot| *slot *= scale);
                slots
            }
        }
    }

    /// Appends one period of the slots to `out`, rotated to the left by `rotation`, which is below the period.
    ///
    /// # Panics
    /// As [`slots`](Self::slots).
    pub fn extend(&self, tensors: &[Tensor], gathers: &[Vec<u32>], rotation: u32, out: &mut Slots) {
        match *self {
            // Most weights by far, and real: without a vector of their own.
            Recipe::Gather { tensor, gather, factor } => {
                let values = &tensors[tensor.0 as usize].values;
                let slot = |&element: &u32| match element {
                    NO_ELEMENT => 0.0,
                    element => f64::from(values.get(element as usize)) * factor,
                };
                let (last, first) = gathers[gather.0 as usize].split_at(rotation as usize);
                out.extend_real(first.iter().map(slot));
                out.extend_real(last.iter().map(slot));
            }
            _ => {
                let mut slots = self.slots(tensors, gathers);
                slots.rotate_left(rotation as usize);
                out.extend(slots);
            }
        }
    }

    /// What it makes, in words for an error: ``a weight of tensor `conv1` ``.
    ///
    /// # Panics
    /// As [`slots`](Self::slots).
    pub fn describe(&self, tensors: &[Tensor]) -> String {
        match *self {
            Recipe::Gather { tensor, .. } | Recipe::Diagonal { tensor, .. } => {
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
