//! Encoded plaintexts: which ones a program needs, and their words.
//!
//! A function's plaintexts name weights, or weight parameters that every call binds. [`PlaintextPlan`] follows the
//! bindings from the entry down, so that each combination of weight, rotation, basis and scale that can occur is encoded
//! exactly once, however many functions or calls share it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use cerium_artifact::{
    Artifact, DeviceId, Function, GatherId, MatrixBlock, Plaintext, Recipe, Step, TensorId, WeightId,
    WeightRef,
};
use cerium_ckks::basis::{Basis, Scale};
use cerium_ckks::encoding::EncodingError;
use cerium_ckks::encoding::dft::DftFactor;
use cerium_ckks::params::Params;

use super::Pages;

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
    /// The budget is too small.
    #[error(
        "encoded weights need at least {needed} bytes (those that cannot be made while the program runs, and those of one \
         kernel), but may take {budget}; allow them more, or use a machine with more memory"
    )]
    Budget {
        /// Bytes that they may take.
        budget: u64,
        /// Bytes that they need.
        needed: u64,
    },
    /// The device has too little memory left.
    #[error(
        "encoded weights need at least {needed} bytes (those that cannot be made while the program runs, and those of one \
         kernel), but beside {keys} bytes of evaluation keys and {pool} of working memory there are only {room} for them; close \
         other programs, use a machine with more memory, or set how much they may take (`--plaintext-memory`)"
    )]
    Room {
        /// Bytes that they need.
        needed: u64,
        /// Bytes that are left for them.
        room: u64,
        /// Bytes of working memory.
        pool: u64,
        /// Bytes of evaluation keys.
        keys: u64,
    },
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
    pub(super) fn new(index: usize) -> PlaintextId {
        PlaintextId(index as u32)
    }

    /// The index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One encoding.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// Of which weight.
    pub weight: WeightId,
    /// Its primes.
    pub basis: Basis,
    /// The primes whose product has room for its coefficients, those that other devices have of it included.
    pub modulus: Basis,
    /// Its scale.
    pub scale: Scale,
    /// By how much the slots of the weight are rotated to the left.
    pub rotation: u32,
    /// Base-2 logarithm of the period of its slots.
    pub log_period: u32,
}

impl Encoding {
    /// Words of a limb.
    pub fn limb_words(&self) -> usize {
        2 << self.log_period
    }

    /// Words of all limbs.
    pub fn words(&self) -> usize {
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

/// The encodings that one device of a program needs.
#[derive(Clone, Debug)]
pub struct PlaintextPlan {
    device: DeviceId,
    encodings: Vec<Encoding>,
    /// For each function and each of its plaintexts, the encoding for each weight that can be bound.
    ids: Vec<Vec<HashMap<WeightId, PlaintextId>>>,
}

impl PlaintextPlan {
    /// The plan for a device of a validated artifact.
    ///
    /// # Errors
    /// [`PlaintextError::TooMany`].
    pub fn new(artifact: &Artifact, device: DeviceId) -> Result<PlaintextPlan, PlaintextError> {
        let functions = artifact.functions(device);
        let mut first: HashMap<Identity, WeightId> = HashMap::new();
        let representative: Vec<WeightId> = artifact
            .weights
            .iter()
            .enumerate()
            .map(|(index, recipe)| *first.entry(Identity::of(recipe)).or_insert(WeightId(index as u32)))
            .collect();
        let bound = bindings(functions).ok_or(PlaintextError::TooMany)?;
        let mut encodings = Vec::new();
        let mut known: HashMap<(WeightId, [Basis; 2], u64, u32), PlaintextId> = HashMap::new();
        let mut encode = |weight: WeightId, plaintext: &Plaintext| {
            let &Plaintext { basis, modulus, scale, rotation, log_period, .. } = plaintext;
            let weight = representative[weight.0 as usize];
            *known.entry((weight, [basis, modulus], scale.0.to_bits(), rotation)).or_insert_with(|| {
                encodings.push(Encoding { weight, basis, modulus, scale, rotation, log_period });
                PlaintextId(encodings.len() as u32 - 1)
            })
        };
        let mut ids = Vec::with_capacity(functions.len());
        for (function, bound) in functions.iter().zip(&bound) {
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
        Ok(PlaintextPlan { device, encodings, ids })
    }

    /// The device that it is for.
    pub fn device(&self) -> DeviceId {
        self.device
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

    /// All encodings in order.
    pub fn ids(&self) -> impl Iterator<Item = PlaintextId> + use<> {
        (0..self.encodings.len()).map(PlaintextId::new)
    }

    pub(super) fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// What an encoding takes in memory.
    pub(super) fn shape(&self, id: PlaintextId, form: Form) -> Entry {
        let encoding = &self.encodings[id.index()];
        Entry { offset: 0, limb_words: encoding.limb_words(), limbs: encoding.basis.len(), form }
    }

    /// The weight of an encoding.
    pub(super) fn weight(&self, id: PlaintextId) -> WeightId {
        self.encodings[id.index()].weight
    }

    /// The encodings that can be bound to a function's plaintext, in no order; none if the function is never called.
    pub(super) fn bound(&self, function: usize, plaintext: usize) -> impl Iterator<Item = PlaintextId> + '_ {
        self.ids[function].get(plaintext).into_iter().flat_map(|ids| ids.values().copied())
    }
}

/// The weights bound to each weight parameter of a function.
type Bound = Vec<BTreeSet<WeightId>>;

/// The weights that calls can bind to the parameters of each function, `None` for functions that the entry does not
/// reach; or `None` if there are more than [`MAX_BINDINGS`].
fn bindings(functions: &[Function]) -> Option<Vec<Option<Bound>>> {
    let mut bound: Vec<Option<Bound>> = vec![None; functions.len()];
    *bound.last_mut()? = Some(Vec::new());
    let mut count = 0;
    // Callers stand after their callees, so all bindings of a function are known when its turn comes.
    for index in (0..functions.len()).rev() {
        let (callees, own) = bound.split_at_mut(index);
        let Some(own) = &own[0] else { continue };
        for step in &functions[index].steps {
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

/// How a plaintext is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Encoded: compact limbs, evaluation domain, Montgomery form.
    #[default]
    Limbs,
    /// Rounded, two words a coefficient ([`cerium_ckks::encoding::Encoder::encode_integers`]), whatever the number of limbs,
    /// which are made when they are read.
    Integers,
}

/// Plaintexts in memory. Behind the resident ones is the working buffer, whose places have ids of their own.
#[derive(Debug, Default)]
pub struct Plaintexts {
    pages: Pages,
    entries: Vec<Entry>,
}

/// Where an encoding is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    offset: usize,
    limb_words: usize,
    limbs: usize,
    form: Form,
}

impl Entry {
    /// The same at another place.
    pub(super) fn at(self, offset: usize) -> Entry {
        Entry { offset, ..self }
    }

    /// Words of everything.
    pub(super) fn words(&self) -> usize {
        match self.form {
            Form::Limbs => self.limb_words * self.limbs,
            Form::Integers => 2 * self.limb_words,
        }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Whether devices want it aligned to 16 bytes: all but those of two words a limb, which stand behind the others.
    pub(super) fn is_aligned(&self) -> bool {
        self.limb_words >= 4
    }
}

impl Plaintexts {
    pub(super) fn new(pages: Pages, entries: Vec<Entry>) -> Plaintexts {
        Plaintexts { pages, entries }
    }

    /// How a plaintext is kept.
    pub fn form(&self, id: PlaintextId) -> Form {
        self.entries[id.index()].form
    }

    /// The compact words of a limb. Panics if there is no such limb.
    pub fn limb(&self, id: PlaintextId, limb: usize) -> &[u32] {
        let Entry { offset, limb_words, limbs, form } = self.entries[id.index()];
        assert!(form == Form::Limbs && limb < limbs, "limb {limb} of a plaintext of {limbs} {form:?}");
        &self.pages.words()[offset + limb * limb_words..][..limb_words]
    }

    /// The words of the coefficients of a plaintext. Panics if it is kept in another form.
    pub fn integers(&self, id: PlaintextId) -> &[u32] {
        let entry = self.entries[id.index()];
        assert_eq!(entry.form, Form::Integers, "the plaintext is kept in another form");
        &self.pages.words()[entry.offset..][..entry.words()]
    }

    /// Each with its position in [`words`](Self::words); empty for encodings that are not resident.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.entries.iter().map(|entry| entry.offset..entry.offset + entry.words())
    }

    /// All words, those of one plaintext behind those of the other.
    pub fn words(&self) -> &[u32] {
        self.pages.words()
    }

    /// The words of places in the working buffer that follow each other, as those of a run do, and their forms.
    ///
    /// # Panics
    /// If they overlap.
    pub fn places_mut(&mut self, ids: impl IntoIterator<Item = PlaintextId>) -> Vec<(Form, &mut [u32])> {
        let (mut rest, mut at) = (self.pages.words_mut(), 0);
        let mut places = Vec::new();
        for id in ids {
            let entry = self.entries[id.index()];
            let (own, behind) = rest[entry.offset - at..].split_at_mut(entry.words());
            places.push((entry.form, own));
            (rest, at) = (behind, entry.offset + entry.words());
        }
        places
    }

    /// Bytes that they occupy.
    pub fn bytes(&self) -> u64 {
        4 * self.pages.words().len() as u64
    }
}
