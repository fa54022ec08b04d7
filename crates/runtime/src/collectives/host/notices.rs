//! Notices: where a library of a GPU's maker carries limbs, ranks still tell each other of what they start. So a rank that is
//! out of step, or not there, has a name.

use super::{HostCollectives, Pending, peers};
use crate::collectives::news::{Part, Tag};
use crate::collectives::shares::share;
use crate::collectives::{CollectiveError, Exchange, Sum};

/// Of a limb there is one word in a notice.
const LIMB_WORDS: usize = 1;

impl HostCollectives {
    /// Tells those that get limbs that this rank starts an exchange; returns its number.
    pub(in crate::collectives) fn announce_exchange(
        &mut self,
        exchange: &Exchange,
    ) -> Result<u64, CollectiveError> {
        let sends = peers(&exchange.sends, self.rank, self.size);
        let receives = peers(&exchange.receives, self.rank, self.size);
        let collective = self.begin(Pending::Exchange { receives, limb_words: LIMB_WORDS })?;
        for (to, limbs) in sends.iter().enumerate().filter(|(_, limbs)| !limbs.is_empty()) {
            self.send(to, collective, Part::Limbs, vec![0; limbs.len() * LIMB_WORDS]);
        }
        Ok(collective)
    }

    /// Tells all others that this rank starts sums; returns their number.
    pub(in crate::collectives) fn announce_sums(&mut self, sums: &[Sum]) -> Result<u64, CollectiveError> {
        let pending = Pending::Sums { sums: sums.to_vec(), limb_words: LIMB_WORDS, share: Vec::new() };
        let collective = self.begin(pending)?;
        for to in self.others() {
            let words = share(sums.len() * LIMB_WORDS, to, self.size).len();
            self.send(to, collective, Part::Summands, vec![0; words]);
        }
        Ok(collective)
    }

    /// Hears what has come, without waiting.
    pub(in crate::collectives) fn listen(&mut self) -> Result<(), CollectiveError> {
        while let Ok(news) = self.news.try_recv() {
            self.hear(news)?;
        }
        let retired = std::mem::take(&mut self.retired);
        self.retired = retired.into_iter().filter(|&collective| !self.settle(collective)).collect();
        Ok(())
    }

    /// A rank that has not told that it started a collective that this one takes part in.
    pub(in crate::collectives) fn absent(&self, collective: u64) -> Option<usize> {
        let tag = |part| Tag { collective, part };
        let pending = self.pending.get(&collective)?;
        let has_told = |&from: &usize| {
            [Part::Limbs, Part::Summands].into_iter().all(|part| {
                let expected = pending.expects(part, from, self.rank, self.size);
                expected.is_none() || self.arrived[from].contains_key(&tag(part))
            })
        };
        self.others().find(|from| !has_told(from))
    }

    /// The collective is finished. Notices of it may come later than what they tell of.
    pub(in crate::collectives) fn retire(&mut self, collective: u64) {
        if !self.settle(collective) {
            self.retired.push(collective);
        }
    }

    /// Forgets a finished collective if all notices of it have come.
    fn settle(&mut self, collective: u64) -> bool {
        let settled = self.absent(collective).is_none();
        if settled {
            self.pending.remove(&collective);
            for arrived in &mut self.arrived {
                arrived.retain(|tag, _| tag.collective != collective);
            }
        }
        settled
    }
}
