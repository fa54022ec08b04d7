//! Encoded plaintexts: which ones a program needs, and their words.
//!
//! A function's plaintexts name weights, or weight parameters that every call binds. [`PlaintextPlan`] follows the
//! bindings from the entry down, so that each combination of weight, rotation, basis and scale that can occur is encoded
//! exactly once, however many functions or calls share it.

use std::collections::{BTreeSet, HashMap};

use cerium_artifact::{
    Artifact, GatherId, MatrixBlock, Plaintext, Recipe, Step, TensorId, WeightId, WeightRef,
};
use cerium_ckks::basis::{Basis, Scale};
use cerium_ckks::encoding::dft::DftFactor;
use cerium_ckks::encoding::{Encoder, EncodingError};
use cerium_ckks::params::Params;
use rayon::prelude::*;

use super::Pages;
use crate::preparation_pool;
use crate::progress::{Counter, Progress};

/// Most pairs of a weight parameter and a weight that is bound to it. Their number is not bounded by the size of an
/// artifact, since functions pass their parameters on.
const MAX_BINDINGS: usize = 1 << 22;

/// Why the weights of a program could not be made resident.
#[derive(Debug, thiserror::Error)]
pub enum PlaintextError {
    /// A weight does not fit its encoding.
    #[error("{weight} cannot be encoded at scale 2^{:.2} in {basis}", scale.log2())]
    Encoding {
        /// What it is, as in ``a weight of tensor `conv1` ``.
        weight: String,
        /// Basis of the encoding.
        basis: Basis,
        /// Its scale.
        scale: Scale,
        /// The reason.
        source: EncodingError,
    },
    /// Calls bind more weights to parameters than those of any real program.
    #[error(
        "the program binds more than {MAX_BINDINGS} weights to parameters of its functions; it cannot be run"
    )]
    TooMany,
    /// There is not enough memory.
    #[error(
        "{bytes} bytes of encoded weights do not fit into memory; use a larger machine or a smaller model"
    )]
    OutOfMemory {
        /// What they need.
        bytes: u64,
    },
}

/// An encoded plaintext: index into [`Plaintexts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaintextId(u32);

impl PlaintextId {
    /// The index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One encoding.
#[derive(Clone, Copy, Debug)]
struct Encoding {
    weight: WeightId,
    basis: Basis,
    scale: Scale,
    rotation: u32,
    log_period: u32,
}

impl Encoding {
    /// Words of a limb.
    fn limb_words(&self) -> usize {
        2 << self.log_period
    }

    fn words(&self) -> usize {
        self.limb_words() * self.basis.len()
    }
}

/// A recipe, with reals compared by their bits.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Gather(TensorId, GatherId, u64),
    Diagonal(TensorId, MatrixBlock, u32, u64),
    Constant(u64, u64),
    Dft(DftFactor, i64, u64),
}

impl Identity {
    fn of(recipe: &Recipe) -> Identity {
        match *recipe {
            Recipe::Gather { tensor, gather, factor } => Identity::Gather(tensor, gather, factor.to_bits()),
            Recipe::Diagonal { tensor, block, offset, factor } => {
                Identity::Diagonal(tensor, block, offset, factor.to_bits())
            }
            Recipe::Constant { re, im } => Identity::Constant(re.to_bits(), im.to_bits()),
            Recipe::Dft { factor, offset, scale } => Identity::Dft(factor, offset, scale.to_bits()),
        }
    }
}

/// The encodings that a program needs.
#[derive(Clone, Debug)]
pub struct PlaintextPlan {
    encodings: Vec<Encoding>,
    /// For each function and each of its plaintexts, the encoding for each weight that can be bound.
    ids: Vec<Vec<HashMap<WeightId, PlaintextId>>>,
}

impl PlaintextPlan {
    /// The plan for a validated artifact.
    ///
    /// # Errors
    /// [`PlaintextError::TooMany`].
    pub fn new(artifact: &Artifact) -> Result<PlaintextPlan, PlaintextError> {
        let mut first: HashMap<Identity, WeightId> = HashMap::new();
        let representative: Vec<WeightId> = artifact
            .weights
            .iter()
            .enumerate()
            .map(|(index, recipe)| *first.entry(Identity::of(recipe)).or_insert(WeightId(index as u32)))
            .collect();
        let bound = bindings(artifact).ok_or(PlaintextError::TooMany)?;
        let mut encodings = Vec::new();
        let mut known: HashMap<(WeightId, Basis, u64, u32), PlaintextId> = HashMap::new();
        let mut encode = |weight: WeightId, plaintext: &Plaintext| {
            let &Plaintext { basis, scale, rotation, log_period, .. } = plaintext;
            let weight = representative[weight.0 as usize];
            *known.entry((weight, basis, scale.0.to_bits(), rotation)).or_insert_with(|| {
                encodings.push(Encoding { weight, basis, scale, rotation, log_period });
                PlaintextId(encodings.len() as u32 - 1)
            })
        };
        let mut ids = Vec::with_capacity(artifact.functions.len());
        for (function, bound) in artifact.functions.iter().zip(&bound) {
            let Some(bound) = bound else {
                ids.push(Vec::new()); // never called
                continue;
            };
            let of_plaintext = |plaintext: &Plaintext| match plaintext.weight {
                WeightRef::Weight(id) => HashMap::from([(id, encode(id, plaintext))]),
                WeightRef::Param(index) => {
                    bound[index as usize].iter().map(|&id| (id, encode(id, plaintext))).collect()
                }
            };
            ids.push(function.plaintexts.iter().map(of_plaintext).collect());
        }
        Ok(PlaintextPlan { encodings, ids })
    }

    /// The encoding of a function's plaintext when `weight` is bound to it.
    pub(crate) fn id(&self, function: usize, plaintext: usize, weight: WeightId) -> PlaintextId {
        self.ids[function][plaintext][&weight]
    }

    /// Number of encodings.
    pub fn len(&self) -> usize {
        self.encodings.len()
    }

    /// Whether the program has no plaintexts.
    pub fn is_empty(&self) -> bool {
        self.encodings.is_empty()
    }

    /// Bytes of all encodings.
    pub fn bytes(&self) -> u64 {
        self.encodings.iter().map(|encoding| 4 * encoding.words() as u64).sum()
    }

    /// Bytes that all encodings would take with N words a limb, whatever their periods.
    pub fn dense_bytes(&self, params: &Params) -> u64 {
        let limbs: usize = self.encodings.iter().map(|encoding| encoding.basis.len()).sum();
        4 * limbs as u64 * params.n() as u64
    }

    /// Encodes everything, with `threads` threads (0: one for each core).
    pub fn encode(
        &self,
        artifact: &Artifact,
        params: &Params,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Plaintexts, PlaintextError> {
        let out_of_memory = || PlaintextError::OutOfMemory { bytes: self.bytes() };
        let words = usize::try_from(self.bytes() / 4).map_err(|_| out_of_memory())?;
        let mut pages = Pages::new(words).map_err(|_| out_of_memory())?;
        let mut entries = Vec::with_capacity(self.encodings.len());
        let mut jobs = Vec::with_capacity(self.encodings.len());
        let mut rest = pages.words_mut();
        let mut offset = 0;
        for encoding in &self.encodings {
            let (own, others) = rest.split_at_mut(encoding.words());
            jobs.push((encoding, own));
            rest = others;
            entries.push(Entry { offset, limb_words: encoding.limb_words(), limbs: encoding.basis.len() });
            offset += encoding.words();
        }
        let counter = Counter::new(progress, "encoding weights", jobs.len());
        let encoder = Encoder::new(params);
        let encode = |(encoding, out): (&Encoding, &mut [u32])| {
            encode(encoding, artifact, params, &encoder, out)?;
            counter.step();
            Ok(())
        };
        let result: Result<(), PlaintextError> = match preparation_pool(threads) {
            Some(pool) => pool.install(|| jobs.into_par_iter().try_for_each(encode)),
            None => jobs.into_iter().try_for_each(encode),
        };
        result?;
        Ok(Plaintexts { pages, entries })
    }
}

fn encode(
    encoding: &Encoding,
    artifact: &Artifact,
    params: &Params,
    encoder: &Encoder,
    out: &mut [u32],
) -> Result<(), PlaintextError> {
    let recipe = &artifact.weights[encoding.weight.0 as usize];
    let mut slots = recipe.slots(&artifact.tensors, &artifact.gathers);
    slots.rotate_left(encoding.rotation as usize);
    let (basis, scale) = (encoding.basis, encoding.scale);
    let encoded = encoder.encode_compact(params, &slots, basis, scale, out);
    encoded.map_err(|source| PlaintextError::Encoding {
        weight: recipe.describe(&artifact.tensors),
        basis,
        scale,
        source,
    })
}

/// The weights bound to each weight parameter of a function.
type Bound = Vec<BTreeSet<WeightId>>;

/// The weights that calls can bind to the parameters of each function, `None` for functions that the entry does not
/// reach; or `None` if there are more than [`MAX_BINDINGS`].
fn bindings(artifact: &Artifact) -> Option<Vec<Option<Bound>>> {
    let mut bound: Vec<Option<Bound>> = vec![None; artifact.functions.len()];
    *bound.last_mut()? = Some(Vec::new());
    let mut count = 0;
    // Callers stand after their callees, so all bindings of a function are known when its turn comes.
    for index in (0..artifact.functions.len()).rev() {
        let (callees, own) = bound.split_at_mut(index);
        let Some(own) = &own[0] else { continue };
        for step in &artifact.functions[index].steps {
            let Step::Call { function, weights, .. } = step else { continue };
            let params =
                callees[function.0 as usize].get_or_insert_with(|| vec![BTreeSet::new(); weights.len()]);
            for (set, weight) in params.iter_mut().zip(weights) {
                let before = set.len();
                match *weight {
                    WeightRef::Weight(id) => drop(set.insert(id)),
                    WeightRef::Param(param) => set.extend(&own[param as usize]),
                }
                count += set.len() - before;
                if count > MAX_BINDINGS {
                    return None;
                }
            }
        }
    }
    Some(bound)
}

/// Encoded plaintexts in memory: evaluation domain, Montgomery form, compact.
#[derive(Debug, Default)]
pub struct Plaintexts {
    pages: Pages,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: usize,
    limb_words: usize,
    limbs: usize,
}

impl Plaintexts {
    /// The compact words of a limb. Panics if there is no such limb.
    pub fn limb(&self, id: PlaintextId, limb: usize) -> &[u32] {
        let Entry { offset, limb_words, limbs } = self.entries[id.0 as usize];
        assert!(limb < limbs, "limb {limb} of a plaintext of {limbs}");
        &self.pages.words()[offset + limb * limb_words..][..limb_words]
    }

    /// The words of each: its compact limbs one behind the other.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let words = |entry: &Entry| &self.pages.words()[entry.offset..][..entry.limb_words * entry.limbs];
        self.entries.iter().map(words)
    }

    /// Bytes that they occupy.
    pub fn bytes(&self) -> u64 {
        4 * self.pages.words().len() as u64
    }
}
