//! Collectives through the memory of the hosts: limbs become messages, messages become limbs, sums are made by adding.
//!
//! Sums are made in two steps. The words of all limbs, one behind the other, are cut into as many shares as there are ranks;
//! each rank gets all parts of its share, adds them modulo the primes, and gives the sums to all. A rank sends and receives
//! `2 (D - 1) / D` times the bytes of the limbs, whatever their number.

mod notices;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::news::{Carrier, Failure, Message, News, Part, Tag};
use super::shares::{segments, share};
use super::wire::{pack, unpack};
use super::{CollectiveError, Collectives, Exchange, Patience, Started, Sum};
use crate::device::{Address, Device};

/// Collectives whose messages a carrier takes from host to host.
pub struct HostCollectives {
    rank: usize,
    size: usize,
    patience: Patience,
    carrier: Box<dyn Carrier>,
    news: Receiver<News>,
    /// Collectives started so far.
    count: u64,
    pending: BTreeMap<u64, Arc<Pending>>,
    /// Collectives that are finished, notices of which have not all come.
    retired: Vec<u64>,
    /// Messages that nobody has asked for yet, by sender.
    arrived: Vec<BTreeMap<Tag, Vec<u32>>>,
    /// Ranks that have ended in good order.
    left: Vec<bool>,
    /// For whom ranks wait that have lost patience.
    waits: Vec<Option<usize>>,
    failure: Option<Failure>,
}

/// A collective that is not finished.
enum Pending {
    /// The slots that take limbs from each rank.
    Exchange { receives: Vec<Vec<Address>>, limb_words: usize },
    /// Sums and the share of this rank.
    Sums { sums: Vec<Sum>, limb_words: usize, share: Vec<u32> },
    /// Bytes of any length from every other rank.
    Gather,
}

impl Pending {
    /// The words that `from` sends to `rank` in a part, `None` if it sends no such part; `Some(None)` for any number.
    fn expects(&self, part: Part, from: usize, rank: usize, size: usize) -> Option<Option<usize>> {
        match (self, part) {
            (Pending::Exchange { receives, limb_words }, Part::Limbs) => {
                Some(Some(receives[from].len() * limb_words)).filter(|words| *words != Some(0))
            }
            (Pending::Sums { sums, limb_words, .. }, Part::Summands | Part::Sums) => {
                let owner = if part == Part::Sums { from } else { rank };
                Some(Some(share(sums.len() * limb_words, owner, size).len()))
            }
            (Pending::Gather, Part::Bytes) => Some(None),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Pending::Exchange { .. } => "an exchange",
            Pending::Sums { .. } => "sums",
            Pending::Gather => "bytes of all ranks",
        }
    }
}

/// Adds canonical summands to a share whose first word is word `start` of all limbs.
fn add(share: &mut [u32], summands: &[u32], start: usize, sums: &[Sum], limb_words: usize) {
    for segment in segments(start..start + share.len(), limb_words) {
        let (q, words) = (sums[segment.limb].q, segment.start..segment.start + segment.words);
        for (sum, &summand) in share[words.clone()].iter_mut().zip(&summands[words]) {
            let added = *sum + summand; // below 2^31
            *sum = if added >= q { added - q } else { added };
        }
    }
}

/// Slots by the rank with which they are exchanged. Panics if that is `rank` itself, or none of `size`.
fn peers(limbs: &[(usize, Address)], rank: usize, size: usize) -> Vec<Vec<Address>> {
    let mut slots = vec![Vec::new(); size];
    for &(peer, slot) in limbs {
        assert!(peer < size && peer != rank, "rank {rank} of {size} exchanges a limb with rank {peer}");
        slots[peer].push(slot);
    }
    slots
}

impl HostCollectives {
    /// Rank `rank` of `size`, whose news come from `news`.
    pub(super) fn new(
        rank: usize,
        size: usize,
        patience: Patience,
        carrier: Box<dyn Carrier>,
        news: Receiver<News>,
    ) -> HostCollectives {
        HostCollectives {
            rank,
            size,
            patience,
            carrier,
            news,
            count: 0,
            pending: BTreeMap::new(),
            retired: Vec::new(),
            arrived: vec![BTreeMap::new(); size],
            left: vec![false; size],
            waits: vec![None; size],
            failure: None,
        }
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank, self.size);
        (0..size).filter(move |&other| other != rank)
    }

    /// How long it waits.
    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The failure of the computation.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Keeps the failure and tells the others.
    pub(super) fn fail(&mut self, error: CollectiveError) -> CollectiveError {
        if self.failure.is_none() {
            let failure = error.failure(self.rank);
            self.carrier.tell(&News::Failed(failure.clone()));
            self.failure = Some(failure);
        }
        error
    }

    /// Does something unless the computation has failed; after an error it has.
    fn unless_failed<T>(
        &mut self,
        act: impl FnOnce(&mut HostCollectives) -> Result<T, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        match &self.failure {
            Some(failure) => Err(failure.clone().into()),
            None => act(self).map_err(|error| self.fail(error)),
        }
    }

    /// Registers a collective.
    fn begin(&mut self, pending: Pending) -> Result<u64, CollectiveError> {
        let collective = self.count;
        self.count += 1;
        for from in self.others() {
            let early = self.arrived[from].iter().filter(|(tag, _)| tag.collective == collective);
            for (tag, words) in early {
                self.check(&pending, *tag, from, words.len())?;
            }
        }
        self.pending.insert(collective, Arc::new(pending));
        Ok(collective)
    }

    /// Is this what `from` sends in a pending collective?
    fn check(&self, pending: &Pending, tag: Tag, from: usize, words: usize) -> Result<(), CollectiveError> {
        let expected = match pending.expects(tag.part, from, self.rank, self.size) {
            Some(None) => return Ok(()),
            Some(Some(expected)) if expected == words => return Ok(()),
            Some(Some(expected)) => format!("{expected} words"),
            None => format!("no such message, in {}", pending.name()),
        };
        let found = format!("{} ({words} words)", describe(tag));
        Err(CollectiveError::OutOfStep { rank: from, expected, found })
    }

    /// Takes news in.
    fn hear(&mut self, news: News) -> Result<(), CollectiveError> {
        match news {
            News::Left { rank } => self.left[rank] = true,
            News::Failed(failure) => return Err(failure.into()),
            News::Waits { rank, on } => self.waits[rank] = Some(on),
            News::Message { from, message: Message { tag, words } } => {
                match self.pending.get(&tag.collective) {
                    Some(pending) => self.check(&pending.clone(), tag, from, words.len())?,
                    None if tag.collective >= self.count => {}
                    None => {
                        let expected = format!("nothing more of collective {}", tag.collective);
                        let found = format!("{} ({} words)", describe(tag), words.len());
                        return Err(CollectiveError::OutOfStep { rank: from, expected, found });
                    }
                }
                self.waits[from] = None;
                self.arrived[from].insert(tag, words);
            }
        }
        Ok(())
    }

    /// Waits for a message.
    fn wait_for(&mut self, from: usize, tag: Tag) -> Result<Vec<u32>, CollectiveError> {
        let start = Instant::now();
        let what = || describe(tag);
        loop {
            if let Some(words) = self.arrived[from].remove(&tag) {
                self.waits[self.rank] = None;
                return Ok(words);
            }
            // Sums are sent when a collective is finished, everything else when it is started, in order.
            let later = |other: &Tag| other.collective > tag.collective && other.part != Part::Sums;
            if let Some(other) = self.arrived[from].keys().find(|other| later(other))
                && tag.part != Part::Sums
            {
                let (expected, found) = (what(), describe(*other));
                return Err(CollectiveError::OutOfStep { rank: from, expected, found });
            }
            if self.left[from] {
                let reason = format!("it ended before it sent {}", what());
                return Err(CollectiveError::Lost { rank: from, reason });
            }
            let rest = match self.waits[self.rank] {
                None => self.patience.wait.saturating_sub(start.elapsed()),
                Some(_) => (self.patience.wait + self.grace()).saturating_sub(start.elapsed()),
            };
            match self.news.recv_timeout(rest) {
                Ok(news) => self.hear(news)?,
                Err(RecvTimeoutError::Timeout) if self.waits[self.rank].is_none() => {
                    self.waits[self.rank] = Some(from);
                    self.carrier.tell(&News::Waits { rank: self.rank, on: from });
                }
                Err(RecvTimeoutError::Timeout) => {
                    let (waited, behind) = (self.patience.wait, self.behind(from));
                    return Err(CollectiveError::Timeout { rank: from, what: what(), waited, behind });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "nothing carries messages from it any more".to_string();
                    return Err(CollectiveError::Lost { rank: from, reason });
                }
            }
        }
    }

    /// How long a rank whose patience is over listens to for whom others wait: ranks that wait for each other lose patience at
    /// about the same time, and only together do they know who keeps them all waiting.
    fn grace(&self) -> Duration {
        (self.patience.wait / 10).clamp(Duration::from_millis(200), Duration::from_secs(5))
    }

    /// The rank that keeps `rank` waiting and waits for nobody as far as is known, if there is one.
    fn behind(&self, rank: usize) -> Option<usize> {
        let next = |rank: &usize| self.waits[*rank];
        // Ranks that wait in a circle are behind nobody.
        let chain: Vec<usize> = std::iter::successors(Some(rank), next).take(self.size).collect();
        chain.last().copied().filter(|&last| last != rank && self.waits[last].is_none())
    }

    fn send(&mut self, to: usize, collective: u64, part: Part, words: Vec<u32>) {
        self.carrier.send(to, Message { tag: Tag { collective, part }, words });
    }

    fn start_exchange(
        &mut self,
        exchange: &Exchange,
        device: &mut dyn Device,
    ) -> Result<u64, CollectiveError> {
        let limb_words = device.limb_words();
        let receives = peers(&exchange.receives, self.rank, self.size);
        let sends = peers(&exchange.sends, self.rank, self.size);
        let collective = self.begin(Pending::Exchange { receives, limb_words })?;
        for (to, limbs) in sends.into_iter().enumerate().filter(|(_, limbs)| !limbs.is_empty()) {
            let mut words = vec![0; limbs.len() * limb_words];
            for (&limb, words) in limbs.iter().zip(words.chunks_exact_mut(limb_words)) {
                device.download(limb, words)?;
            }
            self.send(to, collective, Part::Limbs, words);
        }
        Ok(collective)
    }

    fn start_addition(&mut self, sums: &[Sum], device: &mut dyn Device) -> Result<u64, CollectiveError> {
        let limb_words = device.limb_words();
        let mut words = vec![0; sums.len() * limb_words];
        for (sum, words) in sums.iter().zip(words.chunks_exact_mut(limb_words)) {
            device.download(sum.slot, words)?;
        }
        let (count, size) = (words.len(), self.size);
        let own = words[share(count, self.rank, size)].to_vec();
        let collective = self.begin(Pending::Sums { sums: sums.to_vec(), limb_words, share: own })?;
        for other in self.others() {
            let summands = words[share(count, other, size)].to_vec();
            self.send(other, collective, Part::Summands, summands);
        }
        Ok(collective)
    }

    fn finish_pending(&mut self, collective: u64, device: &mut dyn Device) -> Result<(), CollectiveError> {
        let pending = self.pending.get(&collective).cloned();
        match pending.as_deref() {
            Some(Pending::Exchange { receives, limb_words }) => {
                self.finish_exchange(collective, receives, *limb_words, device)?;
            }
            Some(Pending::Sums { sums, limb_words, share }) => {
                self.finish_addition(collective, sums, *limb_words, share.clone(), device)?;
            }
            Some(Pending::Gather) | None => panic!("collective {collective} was not started"),
        }
        self.pending.remove(&collective);
        Ok(())
    }

    fn finish_exchange(
        &mut self,
        collective: u64,
        receives: &[Vec<Address>],
        limb_words: usize,
        device: &mut dyn Device,
    ) -> Result<(), CollectiveError> {
        for (from, slots) in receives.iter().enumerate().filter(|(_, slots)| !slots.is_empty()) {
            let words = self.wait_for(from, Tag { collective, part: Part::Limbs })?;
            for (&slot, words) in slots.iter().zip(words.chunks_exact(limb_words)) {
                device.upload(slot, words)?;
            }
        }
        Ok(())
    }

    fn finish_addition(
        &mut self,
        collective: u64,
        sums: &[Sum],
        limb_words: usize,
        mut own: Vec<u32>,
        device: &mut dyn Device,
    ) -> Result<(), CollectiveError> {
        let (rank, size, words) = (self.rank, self.size, sums.len() * limb_words);
        for from in self.others() {
            let summands = self.wait_for(from, Tag { collective, part: Part::Summands })?;
            add(&mut own, &summands, share(words, rank, size).start, sums, limb_words);
        }
        let mut all = vec![0; words];
        for to in self.others() {
            self.send(to, collective, Part::Sums, own.clone());
        }
        all[share(words, rank, size)].copy_from_slice(&own);
        for from in self.others() {
            let added = self.wait_for(from, Tag { collective, part: Part::Sums })?;
            all[share(words, from, size)].copy_from_slice(&added);
        }
        for (sum, words) in sums.iter().zip(all.chunks_exact(limb_words)) {
            device.upload(sum.slot, words)?;
        }
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let collective = self.begin(Pending::Gather)?;
        let words = pack(bytes);
        for to in self.others() {
            self.send(to, collective, Part::Bytes, words.clone());
        }
        let mut gathered = vec![bytes.to_vec(); self.size];
        for from in self.others() {
            let words = self.wait_for(from, Tag { collective, part: Part::Bytes })?;
            gathered[from] = unpack(&words).ok_or_else(|| CollectiveError::OutOfStep {
                rank: from,
                expected: "bytes".to_string(),
                found: format!("{} words that are none", words.len()),
            })?;
        }
        self.pending.remove(&collective);
        Ok(gathered)
    }
}

impl Collectives for HostCollectives {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn start(&mut self, exchange: &Exchange, device: &mut dyn Device) -> Result<Started, CollectiveError> {
        self.unless_failed(|this| this.start_exchange(exchange, device)).map(Started)
    }

    fn start_sums(&mut self, sums: &[Sum], device: &mut dyn Device) -> Result<Started, CollectiveError> {
        self.unless_failed(|this| this.start_addition(sums, device)).map(Started)
    }

    fn finish(&mut self, started: Started, device: &mut dyn Device) -> Result<(), CollectiveError> {
        self.unless_failed(|this| this.finish_pending(started.0, device))
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.unless_failed(|this| this.gather_bytes(bytes))
    }

    fn abort(&mut self, reason: &str) {
        if self.failure.is_none() {
            let error = CollectiveError::GaveUp { rank: self.rank, reason: reason.to_string() };
            self.fail(error);
        }
    }
}

impl Drop for HostCollectives {
    fn drop(&mut self) {
        if thread::panicking() {
            self.abort("its thread panicked");
        }
        if self.failure.is_none() {
            self.carrier.tell(&News::Left { rank: self.rank });
            self.carrier.leave();
        }
    }
}

fn describe(tag: Tag) -> String {
    let part = match tag.part {
        Part::Limbs => "the limbs",
        Part::Summands => "the summands",
        Part::Sums => "the sums",
        Part::Bytes => "the bytes",
    };
    format!("{part} of collective {}", tag.collective)
}
