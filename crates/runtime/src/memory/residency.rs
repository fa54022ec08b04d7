//! Which plaintexts stay encoded, and which are encoded when a run needs them.
//!
//! Encoded plaintexts can take more memory than there is: a weight is 2 or 4 bytes, its encoding four bytes for each prime
//! and each of the two coefficients of a slot. Then as many stay *resident* as fit, those first that a run of the program reads
//! most often, and the others are made from the raw weights into a *working buffer* before each run of kernels that reads them.
//! Runs are cut where theirs would exceed the buffer. Diagonals of the encoder's transform are not made from weights and always
//! stay.
//!
//! A CPU also works with *integers*: rounded coefficients, which take as much as two limbs, and of which it makes a limb when
//! one is read, in cache. That is most of the work of encoding, but less than it costs to be short of memory. So integers take
//! the place of encodings, as residents and in the working buffer; if those of all plaintexts fit, there is no such buffer, and
//! what room is left goes to encodings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cerium_artifact::{Artifact, Function, FunctionId, Operand, Recipe, Step, WeightId};

use super::encode::LargestWeights;
use super::plaintexts::{Encoding, Entry, Form, PlaintextError, PlaintextId, PlaintextPlan};

/// Bytes of plaintexts that are kept without asking: what encoding needs besides is not much less.
const FEW: u64 = 64 << 20;

/// What a device makes of raw weights while a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTheWay {
    /// Encodings of periods up to `2^max_log_period` slots; longer ones have to stay.
    Encodings {
        /// Base-2 logarithm of the longest period.
        max_log_period: u32,
    },
    /// Integers of any period, of which kernels make the limbs that they read.
    Integers,
}

/// Consecutive kernels of a function without calls between them, and what is encoded before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpan {
    /// The function.
    pub function: FunctionId,
    /// Its steps.
    pub steps: Range<usize>,
    /// Plaintexts of the function with the place in the working buffer where each is encoded, unless the weight that is bound
    /// to it is resident.
    pub encoded: Vec<(usize, PlaintextId)>,
}

/// What stays encoded, and where the rest is encoded.
#[derive(Clone, Debug)]
pub struct Residency {
    /// For each encoding how it is resident, if it is.
    resident: Vec<Option<Form>>,
    /// Places in the working buffer; their ids follow those of the encodings.
    slots: Vec<Entry>,
    spans: Vec<RunSpan>,
    resident_words: usize,
    working_words: usize,
}

impl Residency {
    /// Everything stays encoded.
    ///
    /// # Panics
    /// If the plan is of another artifact.
    pub fn all(artifact: &Artifact, plan: &PlaintextPlan) -> Residency {
        let spans = spans(artifact.functions(plan.device()), |_, _| 0, usize::MAX);
        Residency {
            resident: vec![Some(Form::Limbs); plan.len()],
            slots: Vec::new(),
            spans: spans
                .into_iter()
                .map(|(function, steps, _)| RunSpan { function, steps, encoded: vec![] })
                .collect(),
            resident_words: plan.ids().map(|id| plan.shape(id, Form::Limbs).words()).sum(),
            working_words: 0,
        }
    }

    /// At most `budget` bytes of plaintexts at any time, the working buffer included.
    ///
    /// # Errors
    /// [`PlaintextError::Budget`] if what must stay and the plaintexts of one kernel take more.
    ///
    /// # Panics
    /// If the plan is of another artifact.
    pub fn within(
        artifact: &Artifact,
        plan: &PlaintextPlan,
        on_the_way: OnTheWay,
        budget: u64,
    ) -> Result<Residency, PlaintextError> {
        if plan.bytes() <= budget {
            return Ok(Residency::all(artifact, plan));
        }
        let budget = usize::try_from(budget / 4).unwrap_or(usize::MAX);
        // The form in which each may be made on the way; none if it must stay.
        let moving = moving_forms(artifact, plan, on_the_way);
        let size = |id: PlaintextId| plan.shape(id, moving[id.index()].unwrap_or_default()).words();
        let fixed: usize = plan.ids().filter(|id| moving[id.index()].is_none()).map(size).sum();
        // Words of a function's plaintext in the working buffer; 0 if all weights bound to it must stay.
        let words = |function: usize, plaintext: usize| {
            let movable = plan.bound(function, plaintext).filter(|id| moving[id.index()].is_some());
            movable.map(size).max().unwrap_or(0)
        };
        let functions = artifact.functions(plan.device());
        let least = spans(functions, words, 0).iter().map(|span| total(&span.2)).max().unwrap_or(0);
        let all: usize = plan.ids().map(size).sum();
        let needed = (aligned(fixed) + least).min(all);
        if needed > budget {
            return Err(PlaintextError::Budget { budget: 4 * budget as u64, needed: 4 * needed as u64 });
        }
        // Half of what is left is enough for the buffer; where a run takes less, it becomes less.
        let spans = match all <= budget {
            true => spans(artifact.functions(plan.device()), |_, _| 0, usize::MAX),
            false => spans(functions, words, least.max((budget - aligned(fixed)) / 2)),
        };
        let working = spans.iter().map(|span| total(&span.2)).max().unwrap_or(0);
        let mut residency = Residency {
            resident: moving.iter().map(|form| form.is_none().then_some(Form::Limbs)).collect(),
            slots: Vec::new(),
            spans: Vec::new(),
            resident_words: fixed,
            working_words: 0,
        };
        let uses = uses(artifact, plan);
        let mut order: Vec<PlaintextId> = plan.ids().filter(|id| moving[id.index()].is_some()).collect();
        order.sort_by_key(|id| std::cmp::Reverse(uses[id.index()]));
        let mut settle = |id: PlaintextId, form: Form, before: usize| {
            let words = residency.resident_words - before + plan.shape(id, form).words();
            if aligned(words) + working <= budget {
                residency.resident[id.index()] = Some(form);
                residency.resident_words = words;
            }
        };
        for &id in &order {
            settle(id, moving[id.index()].unwrap_or_default(), 0);
        }
        if all <= budget {
            for &id in &order {
                settle(id, Form::Limbs, size(id));
            }
        }
        for (function, steps, plaintexts) in spans {
            let encoded = residency.place(plan, &moving, function, plaintexts.into_keys());
            residency.spans.push(RunSpan { function, steps, encoded });
        }
        Ok(residency)
    }

    /// What suits a device that has `room` bytes for plaintexts and raw weights together: everything where there is room
    /// for it, or little of it, and else what fits.
    ///
    /// # Errors
    /// As [`within`](Self::within).
    ///
    /// # Panics
    /// If the plan is of another artifact.
    pub fn in_room(
        artifact: &Artifact,
        plan: &PlaintextPlan,
        on_the_way: OnTheWay,
        room: u64,
    ) -> Result<Residency, PlaintextError> {
        if plan.bytes() <= room.max(FEW) {
            return Ok(Residency::all(artifact, plan));
        }
        let raw: u64 = artifact.tensors.iter().map(|tensor| tensor.values.bytes()).sum();
        Residency::within(artifact, plan, on_the_way, room.saturating_sub(raw))
    }

    /// Gives each plaintext of a span that can be bound to an encoding that is not resident its place.
    fn place(
        &mut self,
        plan: &PlaintextPlan,
        moving: &[Option<Form>],
        function: FunctionId,
        plaintexts: impl Iterator<Item = usize>,
    ) -> Vec<(usize, PlaintextId)> {
        let (mut offset, mut encoded) = (0, Vec::new());
        for plaintext in plaintexts {
            let Some(id) = plan.bound(function.0 as usize, plaintext).find(|&id| !self.is_resident(id))
            else {
                continue;
            };
            // All weights bound to a plaintext have its period and its primes, and so one form.
            let form = moving[id.index()].unwrap_or_default();
            let slot = plan.shape(id, form).at(aligned(self.resident_words) + offset);
            encoded.push((plaintext, PlaintextId::new(plan.len() + self.slots.len())));
            offset += slot.words();
            self.slots.push(slot);
        }
        self.working_words = self.working_words.max(offset);
        encoded
    }

    /// The runs of kernels, by function and step.
    pub fn spans(&self) -> &[RunSpan] {
        &self.spans
    }

    /// Whether an encoding stays, in whatever form.
    pub fn is_resident(&self, id: PlaintextId) -> bool {
        self.resident[id.index()].is_some()
    }

    /// Whether all do.
    pub fn is_complete(&self) -> bool {
        self.slots.is_empty()
    }

    /// The encodings that do not stay.
    pub fn moving(&self) -> impl Iterator<Item = PlaintextId> + '_ {
        let moving = self.resident.iter().enumerate().filter(|(_, resident)| resident.is_none());
        moving.map(|(index, _)| PlaintextId::new(index))
    }

    /// Bytes of the resident plaintexts.
    pub fn resident_bytes(&self) -> u64 {
        4 * self.resident_words as u64
    }

    /// Bytes of the working buffer.
    pub fn working_bytes(&self) -> u64 {
        4 * self.working_words as u64
    }

    /// Bytes of the raw weights that have to be at hand.
    pub fn raw_bytes(&self, artifact: &Artifact, plan: &PlaintextPlan) -> u64 {
        let tensor = |id| match artifact.weights[plan.weight(id).0 as usize] {
            Recipe::Gather { tensor, .. } | Recipe::Diagonal { tensor, .. } => Some(tensor),
            Recipe::Constant { .. } | Recipe::Dft { .. } => None,
        };
        let tensors: BTreeSet<_> = self.moving().filter_map(tensor).collect();
        tensors.iter().map(|tensor| artifact.tensors[tensor.0 as usize].values.bytes()).sum()
    }

    /// The resident encodings in the order in which they lie in memory: those that devices want aligned come first.
    pub(super) fn residents(&self, plan: &PlaintextPlan) -> Vec<PlaintextId> {
        let mut ids: Vec<PlaintextId> = plan.ids().filter(|&id| self.is_resident(id)).collect();
        ids.sort_by_key(|&id| !plan.shape(id, Form::Limbs).is_aligned());
        ids
    }

    /// Where the words of every id are: resident encodings one behind the other, then the places in the working buffer.
    /// Encodings that are not resident are nowhere.
    pub(super) fn entries(&self, plan: &PlaintextPlan) -> Vec<Entry> {
        let mut entries = vec![Entry::default(); plan.len()];
        let mut offset = 0;
        for id in self.residents(plan) {
            let entry = plan.shape(id, self.resident[id.index()].unwrap_or_default()).at(offset);
            entries[id.index()] = entry;
            offset += entry.words();
        }
        entries.extend(&self.slots);
        entries
    }

    /// Words of everything.
    pub(super) fn words(&self) -> usize {
        match self.working_words {
            0 => self.resident_words,
            working => aligned(self.resident_words) + working,
        }
    }
}

/// Where something that is aligned to 16 bytes can begin.
fn aligned(words: usize) -> usize {
    words.next_multiple_of(4)
}

/// Least limbs of a plaintext of which integers are kept: they take two.
const LEAST_LIMBS: usize = 3;

/// Most bits of an integer.
const INTEGER_BITS: f64 = 61.0;

/// For each encoding the form in which it can be made while a program runs; none if it has to stay, as single numbers do,
/// which are not worth it.
fn moving_forms(artifact: &Artifact, plan: &PlaintextPlan, on_the_way: OnTheWay) -> Vec<Option<Form>> {
    let largest = LargestWeights::of(&artifact.tensors);
    let form = |encoding: &Encoding| {
        let recipe = &artifact.weights[encoding.weight.0 as usize];
        if encoding.log_period == 0 || !matches!(recipe, Recipe::Gather { .. } | Recipe::Diagonal { .. }) {
            return None;
        }
        match on_the_way {
            OnTheWay::Encodings { max_log_period } => {
                (encoding.log_period <= max_log_period).then_some(Form::Limbs)
            }
            OnTheWay::Integers if encoding.basis.len() < LEAST_LIMBS => Some(Form::Limbs),
            OnTheWay::Integers => {
                largest.fits(recipe, encoding.scale, INTEGER_BITS).then_some(Form::Integers)
            }
        }
    };
    plan.encodings().iter().map(form).collect()
}

/// Base-2 logarithms of the periods of encodings that a device may have to make.
pub(crate) fn movable_periods(
    artifact: &Artifact,
    plan: &PlaintextPlan,
    on_the_way: OnTheWay,
) -> BTreeSet<u32> {
    let forms = moving_forms(artifact, plan, on_the_way).into_iter().zip(plan.encodings());
    forms.filter(|(form, _)| form.is_some()).map(|(_, encoding)| encoding.log_period).collect()
}

/// A span of steps and the words of each of its plaintexts.
type Span = (FunctionId, Range<usize>, BTreeMap<usize, usize>);

fn total(plaintexts: &BTreeMap<usize, usize>) -> usize {
    plaintexts.values().sum()
}

/// Splits all functions at their calls, and where the plaintexts of a span would take more than `limit` words (those of a
/// single kernel may). `words` tells what a plaintext of a function takes.
fn spans(functions: &[Function], words: impl Fn(usize, usize) -> usize, limit: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let id = FunctionId(index as u32);
        let mut open = false;
        for (at, step) in function.steps.iter().enumerate() {
            let Some(plaintexts) = plaintexts(step, function) else {
                open = false;
                continue;
            };
            let own: BTreeMap<usize, usize> = plaintexts
                .into_iter()
                .map(|plaintext| (plaintext, words(index, plaintext)))
                .filter(|&(_, words)| words > 0)
                .collect();
            match spans.last_mut().filter(|_| open) {
                Some((_, steps, known)) => {
                    let more: usize = own
                        .iter()
                        .filter(|(plaintext, _)| !known.contains_key(plaintext))
                        .map(|(_, w)| w)
                        .sum();
                    if more == 0 || total(known) + more <= limit {
                        steps.end = at + 1;
                        known.extend(own);
                    } else {
                        spans.push((id, at..at + 1, own));
                    }
                }
                None => spans.push((id, at..at + 1, own)),
            }
            open = true;
        }
    }
    spans
}

/// The plaintexts that a step reads; `None` for what ends a run of kernels: calls and collectives.
fn plaintexts(step: &Step, function: &Function) -> Option<BTreeSet<usize>> {
    let Step::Launch(kernel) = step else { return None };
    if function.plaintexts.is_empty() {
        return Some(BTreeSet::new());
    }
    let loads = kernel.body.blocks().flat_map(|block| &block.loads);
    let plaintext = |load: &Operand| match load {
        Operand::Plain { plaintext, .. } => Some(*plaintext as usize),
        _ => None,
    };
    Some(loads.filter_map(plaintext).collect())
}

/// How often a run of the program activates a function with each encoding bound to one of its plaintexts.
fn uses(artifact: &Artifact, plan: &PlaintextPlan) -> Vec<u64> {
    let functions = artifact.functions(plan.device());
    let mut uses = vec![0u64; plan.len()];
    let mut open: Vec<(usize, Vec<WeightId>)> = vec![(functions.len() - 1, Vec::new())];
    while let Some((index, bound)) = open.pop() {
        let function = &functions[index];
        for (plaintext, known) in function.plaintexts.iter().enumerate() {
            let id = plan.id(index, plaintext, known.weight.resolve(&bound));
            uses[id.index()] = uses[id.index()].saturating_add(1);
        }
        for step in &function.steps {
            if let Step::Call { function, weights, .. } = step {
                let weights = weights.iter().map(|weight| weight.resolve(&bound)).collect();
                open.push((function.0 as usize, weights));
            }
        }
    }
    uses
}
