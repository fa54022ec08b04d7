//! Ranks that are threads of one process: each has a mailbox, and the others have its slot.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::Patience;
use super::host::HostCollectives;
use super::news::{Carrier, Message, News};

/// The collectives of `size` ranks of one process, by rank; each goes to a thread of its own. Of `patience`, only `wait`
/// matters: that a thread ended is seen at once.
///
/// # Panics
/// If `size` is 0.
pub fn threads(size: usize, patience: Patience) -> Vec<HostCollectives> {
    assert!(size > 0, "there is at least one rank");
    let (slots, mailboxes): (Vec<Sender<News>>, Vec<Receiver<News>>) = (0..size).map(|_| channel()).unzip();
    let rank = |(rank, news)| {
        let carrier = Neighbours { rank, slots: slots.clone() };
        HostCollectives::new(rank, size, patience, Box::new(carrier), news)
    };
    mailboxes.into_iter().enumerate().map(rank).collect()
}

/// The mailboxes of all ranks.
struct Neighbours {
    rank: usize,
    slots: Vec<Sender<News>>,
}

impl Carrier for Neighbours {
    fn send(&mut self, to: usize, message: Message) {
        // If the rank has ended, it has said so.
        let _ = self.slots[to].send(News::Message { from: self.rank, message });
    }

    fn tell(&mut self, news: &News) {
        let others = self.slots.iter().enumerate().filter(|(rank, _)| *rank != self.rank);
        for (_, slot) in others {
            // A rank that has ended need not know.
            let _ = slot.send(news.clone());
        }
    }

    /// What is in a mailbox is delivered.
    fn leave(&mut self) {}
}
