//! From raw weights to encoded plaintexts.

use cerium_artifact::{Artifact, Recipe, Tensor};
use cerium_ckks::basis::{Basis, Scale};
use cerium_ckks::encoding::{Encoder, EncodingError, Slots};
use cerium_ckks::params::Params;
use rayon::prelude::*;

use super::Pages;
use super::plaintexts::{Encoding, Form, PlaintextError, PlaintextId, PlaintextPlan, Plaintexts};
use super::residency::Residency;
use crate::preparation_pool;
use crate::progress::{Counter, Progress};

/// Makes the encodings of a plan: the recipes, the raw weights and the encoder. It shares the weights with the artifact.
#[derive(Clone, Debug)]
pub struct PlaintextEncoder {
    params: Params,
    encoder: Encoder,
    weights: Vec<Recipe>,
    tensors: Vec<Tensor>,
    gathers: Vec<Vec<u32>>,
    encodings: Vec<Encoding>,
}

impl PlaintextEncoder {
    /// The encoder of a validated artifact.
    pub fn new(artifact: &Artifact, plan: &PlaintextPlan, params: &Params) -> PlaintextEncoder {
        PlaintextEncoder {
            params: params.clone(),
            encoder: Encoder::new(params),
            weights: artifact.weights.clone(),
            tensors: artifact.tensors.clone(),
            gathers: artifact.gathers.clone(),
            encodings: plan.encodings().to_vec(),
        }
    }

    /// The encoder of slots.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The raw weights.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The slot tables.
    pub fn gathers(&self) -> &[Vec<u32>] {
        &self.gathers
    }

    /// What an encoding is of, and its recipe.
    pub fn encoding(&self, id: PlaintextId) -> (&Encoding, &Recipe) {
        let encoding = &self.encodings[id.index()];
        (encoding, &self.weights[encoding.weight.0 as usize])
    }

    /// Encodes a plaintext into the words of a form: compact limbs one behind the other, or integers. `slots` is only memory.
    ///
    /// # Errors
    /// [`PlaintextError::Encoding`]
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn encode(
        &self,
        id: PlaintextId,
        form: Form,
        slots: &mut Slots,
        out: &mut [u32],
    ) -> Result<(), PlaintextError> {
        let (&Encoding { basis, modulus, scale, rotation, .. }, recipe) = self.encoding(id);
        slots.clear();
        recipe.extend(&self.tensors, &self.gathers, rotation, slots);
        let encoded = match form {
            Form::Limbs => self.encoder.encode_compact(&self.params, slots, basis, modulus, scale, out),
            Form::Integers => self.encoder.encode_integers(&self.params, slots, modulus, scale, out),
        };
        encoded.map_err(|source| self.error(id, source))
    }

    fn error(&self, id: PlaintextId, source: EncodingError) -> PlaintextError {
        let (&Encoding { modulus: basis, scale, .. }, recipe) = self.encoding(id);
        PlaintextError::Encoding { weight: recipe.describe(&self.tensors), basis, scale, source }
    }

    /// Makes sure that [`encode`](Self::encode) succeeds for those that are not resident, mostly without doing it: no
    /// coefficient is larger than the largest slot.
    ///
    /// # Errors
    /// [`PlaintextError::Encoding`]
    pub fn check(&self, residency: &Residency) -> Result<(), PlaintextError> {
        if residency.moving().next().is_none() {
            return Ok(());
        }
        let largest = LargestWeights::of(&self.tensors);
        for id in residency.moving() {
            let (encoding, recipe) = self.encoding(id);
            if !largest.fits(recipe, encoding.scale, self.room(encoding.modulus)) {
                self.encode(id, Form::Limbs, &mut Slots::new(), &mut vec![0; encoding.words()])?;
            }
        }
        Ok(())
    }

    /// Bits of the largest coefficient with its sign.
    fn room(&self, modulus: Basis) -> f64 {
        self.params.log_product(modulus).min(126.0)
    }

    /// Encodes what is resident, with `threads` threads (0: one for each core), and makes room for the rest.
    ///
    /// # Errors
    /// [`PlaintextError::Encoding`] of any of the plan, and [`PlaintextError::OutOfMemory`].
    pub fn encode_resident(
        &self,
        plan: &PlaintextPlan,
        residency: &Residency,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Plaintexts, PlaintextError> {
        let out_of_memory = |_| PlaintextError::OutOfMemory { bytes: 4 * residency.words() as u64 };
        let mut pages = Pages::new(residency.words()).map_err(out_of_memory)?;
        let entries = residency.entries(plan);
        let mut jobs = Vec::with_capacity(plan.len());
        let mut rest = pages.words_mut();
        for id in residency.residents(plan) {
            let (own, others) = rest.split_at_mut(entries[id.index()].words());
            jobs.push((id, own));
            rest = others;
        }
        let counter = Counter::new(progress, "encoding weights", jobs.len());
        let encode = |slots: &mut Slots, (id, out): (PlaintextId, &mut [u32])| {
            self.encode(id, entries[id.index()].form(), slots, out)?;
            counter.step();
            Ok(())
        };
        let result: Result<(), PlaintextError> = match preparation_pool(threads) {
            Some(pool) => pool.install(|| jobs.into_par_iter().try_for_each_init(Slots::new, encode)),
            None => {
                let mut slots = Slots::new();
                jobs.into_iter().try_for_each(|job| encode(&mut slots, job))
            }
        };
        result?;
        self.check(residency)?;
        Ok(Plaintexts::new(pages, entries))
    }
}

/// The largest value of each tensor by size: what bounds the coefficients of encodings without making them.
#[derive(Debug)]
pub(super) struct LargestWeights(Vec<f32>);

impl LargestWeights {
    pub(super) fn of(tensors: &[Tensor]) -> LargestWeights {
        let largest = |tensor: &Tensor| tensor.values.iter().fold(0f32, |most, value| most.max(value.abs()));
        LargestWeights(tensors.iter().map(largest).collect())
    }

    /// Whether all coefficients certainly have at most so many bits, signs included. False for what is not made of weights.
    pub(super) fn fits(&self, recipe: &Recipe, scale: Scale, bits: f64) -> bool {
        let (Recipe::Gather { tensor, factor, .. } | Recipe::Diagonal { tensor, factor, .. }) = *recipe
        else {
            return false;
        };
        // No coefficient is larger than the largest slot.
        let bound = f64::from(self.0[tensor.0 as usize]) * factor.abs() * scale.0;
        // A bit for the sign, and one for all rounding.
        !bound.is_nan() && bound.log2() + 2.0 < bits
    }
}
