//! Which plaintexts stay encoded, and which are encoded when a run needs them.
//!
//! Encoded plaintexts can take more memory than there is: a weight is 2 or 4 bytes, its encoding four bytes for each prime
//! and each of the two coefficients of a slot. Then as many stay *resident* as fit, those first that a run of the program reads most often,
//! and the others are made from the raw weights into a *working buffer* before each run of kernels that reads them. Runs are
//! cut where theirs would exceed the buffer. Diagonals of the encoder's transform are not made from weights and always stay.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use cerium_artifact::{Artifact, Function, FunctionId, Operand, Recipe, Step, WeightId};

use super::plaintexts::{Entry, PlaintextError, PlaintextId, PlaintextPlan};

/// Base-2 logarithm of the longest period of a plaintext that is encoded when a run needs it: a device makes it within the
/// fast memory of one of its processors. Longer ones are few in a program whose weights are many.
pub const MAX_LOG_PERIOD: u32 = 11;

/// Bytes of plaintexts that are kept without asking: what encoding needs besides is not much less.
const FEW: u64 = 64 << 20;

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
    /// For each encoding whether it is resident.
    resident: Vec<bool>,
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
        let spans = spans(artifact, |_, _| 0, usize::MAX);
        Residency {
            resident: vec![true; plan.len()],
            slots: Vec::new(),
            spans: spans
                .into_iter()
                .map(|(function, steps, _)| RunSpan { function, steps, encoded: vec![] })
                .collect(),
            resident_words: plan.ids().map(|id| plan.shape(id).words()).sum(),
            working_words: 0,
        }
    }

    /// At most `budget` bytes of encoded plaintexts at any time, the working buffer included.
    ///
    /// # Errors
    /// [`PlaintextError::Budget`] if what must stay and the plaintexts of one kernel take more.
    ///
    /// # Panics
    /// If the plan is of another artifact.
    pub fn within(
        artifact: &Artifact,
        plan: &PlaintextPlan,
        budget: u64,
    ) -> Result<Residency, PlaintextError> {
        if plan.bytes() <= budget {
            return Ok(Residency::all(artifact, plan));
        }
        let budget = usize::try_from(budget / 4).unwrap_or(usize::MAX);
        let movable: Vec<bool> = plan.ids().map(|id| is_movable(artifact, plan, id)).collect();
        let fixed: usize =
            plan.ids().filter(|id| !movable[id.index()]).map(|id| plan.shape(id).words()).sum();
        // Words of a function's plaintext in the working buffer; 0 if all weights bound to it must stay.
        let words = |function: usize, plaintext: usize| {
            let movable = plan.bound(function, plaintext).filter(|id| movable[id.index()]);
            movable.map(|id| plan.shape(id).words()).max().unwrap_or(0)
        };
        let least = spans(artifact, words, 0).iter().map(|span| total(&span.2)).max().unwrap_or(0);
        let needed = aligned(fixed) + least;
        if needed > budget {
            return Err(PlaintextError::Budget { budget: 4 * budget as u64, needed: 4 * needed as u64 });
        }
        // Half of what is left is enough for the buffer; where a run takes less, it becomes less.
        let spans = spans(artifact, words, least.max((budget - aligned(fixed)) / 2));
        let working = spans.iter().map(|span| total(&span.2)).max().unwrap_or(0);
        let uses = uses(artifact, plan, &spans);
        let mut order: Vec<PlaintextId> = plan.ids().filter(|id| movable[id.index()]).collect();
        order.sort_by_key(|id| std::cmp::Reverse(uses[id.index()]));
        let mut resident: Vec<bool> = movable.iter().map(|movable| !movable).collect();
        let mut resident_words = fixed;
        for id in order {
            let words = plan.shape(id).words();
            if aligned(resident_words + words) + working <= budget {
                resident[id.index()] = true;
                resident_words += words;
            }
        }
        let mut residency =
            Residency { resident, slots: Vec::new(), spans: Vec::new(), resident_words, working_words: 0 };
        for (function, steps, plaintexts) in spans {
            let encoded = residency.place(plan, function, plaintexts.into_keys());
            residency.spans.push(RunSpan { function, steps, encoded });
        }
        Ok(residency)
    }

    /// What suits a device that has `room` bytes for plaintexts and raw weights together: everything where there is room
    /// for it, little of it, or no other way, so that the device will say what is missing.
    ///
    /// # Panics
    /// If the plan is of another artifact.
    pub fn in_room(artifact: &Artifact, plan: &PlaintextPlan, room: u64) -> Residency {
        let raw: u64 = artifact.tensors.iter().map(|tensor| tensor.values.bytes()).sum();
        if plan.bytes() <= room.max(FEW) {
            return Residency::all(artifact, plan);
        }
        let within = Residency::within(artifact, plan, room.saturating_sub(raw));
        within.unwrap_or_else(|_| Residency::all(artifact, plan))
    }

    /// Gives each plaintext of a span that can be bound to an encoding that is not resident its place.
    fn place(
        &mut self,
        plan: &PlaintextPlan,
        function: FunctionId,
        plaintexts: impl Iterator<Item = usize>,
    ) -> Vec<(usize, PlaintextId)> {
        let (mut offset, mut encoded) = (0, Vec::new());
        for plaintext in plaintexts {
            let Some(id) = plan.bound(function.0 as usize, plaintext).find(|id| !self.resident[id.index()])
            else {
                continue;
            };
            // All weights bound to a plaintext have its period and its primes.
            let slot = plan.shape(id).at(aligned(self.resident_words) + offset);
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

    /// Whether an encoding stays.
    pub fn is_resident(&self, id: PlaintextId) -> bool {
        self.resident[id.index()]
    }

    /// Whether all do.
    pub fn is_complete(&self) -> bool {
        self.slots.is_empty()
    }

    /// The encodings that do not stay.
    pub fn moving(&self) -> impl Iterator<Item = PlaintextId> + '_ {
        let moving = self.resident.iter().enumerate().filter(|(_, resident)| !**resident);
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
        ids.sort_by_key(|&id| !plan.shape(id).is_aligned());
        ids
    }

    /// Where the words of every id are: resident encodings one behind the other, then the places in the working buffer.
    /// Encodings that are not resident are nowhere.
    pub(super) fn entries(&self, plan: &PlaintextPlan) -> Vec<Entry> {
        let mut entries = vec![Entry::default(); plan.len()];
        let mut offset = 0;
        for id in self.residents(plan) {
            entries[id.index()] = plan.shape(id).at(offset);
            offset += plan.shape(id).words();
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

/// Whether an encoding can be made by a device. Single numbers are not worth it.
fn is_movable(artifact: &Artifact, plan: &PlaintextPlan, id: PlaintextId) -> bool {
    match artifact.weights[plan.weight(id).0 as usize] {
        Recipe::Gather { .. } | Recipe::Diagonal { .. } => {
            (1..=MAX_LOG_PERIOD).contains(&plan.log_period(id))
        }
        Recipe::Constant { .. } | Recipe::Dft { .. } => false,
    }
}

/// Base-2 logarithms of the periods of encodings that a device may have to make.
pub(crate) fn movable_periods(artifact: &Artifact, plan: &PlaintextPlan) -> BTreeSet<u32> {
    plan.ids().filter(|&id| is_movable(artifact, plan, id)).map(|id| plan.log_period(id)).collect()
}

/// A span of steps and the words of each of its plaintexts.
type Span = (FunctionId, Range<usize>, BTreeMap<usize, usize>);

fn total(plaintexts: &BTreeMap<usize, usize>) -> usize {
    plaintexts.values().sum()
}

/// Splits all functions at their calls, and where the plaintexts of a span would take more than `limit` words (those of a
/// single kernel may). `words` tells what a plaintext of a function takes.
fn spans(artifact: &Artifact, words: impl Fn(usize, usize) -> usize, limit: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (index, function) in artifact.functions.iter().enumerate() {
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

/// The plaintexts that a step reads; `None` for a call.
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

/// How often each encoding would be made in one run of the program, if it did not stay.
fn uses(artifact: &Artifact, plan: &PlaintextPlan, spans: &[Span]) -> Vec<u64> {
    let mut uses = vec![0u64; plan.len()];
    let mut read: Vec<Vec<usize>> = vec![Vec::new(); artifact.functions.len()];
    for (function, _, plaintexts) in spans {
        read[function.0 as usize].extend(plaintexts.keys());
    }
    let mut open: Vec<(usize, Vec<WeightId>)> = vec![(artifact.functions.len() - 1, Vec::new())];
    while let Some((index, bound)) = open.pop() {
        let function = &artifact.functions[index];
        for &plaintext in &read[index] {
            let weight = function.plaintexts[plaintext].weight.resolve(&bound);
            let id = plan.id(index, plaintext, weight);
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
