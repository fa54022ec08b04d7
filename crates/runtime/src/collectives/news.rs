//! What ranks hear of each other: messages, and how ranks end.

/// What a message is for. Ranks count their collectives, so that a message says to which one it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag {
    /// The collective, counted from 0.
    pub(super) collective: u64,
    /// What it carries.
    pub(super) part: Part,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    /// Limbs of an exchange.
    Limbs,
    /// Parts of sums, for the rank that adds them.
    Summands,
    /// Sums, from the rank that added them.
    Sums,
    /// Bytes that are gathered.
    Bytes,
}

/// Words for another rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) tag: Tag,
    pub(super) words: Vec<u32>,
}

/// How a rank failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It ended, or cannot be reached any more.
    Lost,
    /// It said that it cannot go on.
    GaveUp,
}

/// A rank failed, and with it the computation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which rank.
    pub rank: usize,
    /// How.
    pub kind: FailureKind,
    /// What was noticed, or what it said.
    pub reason: String,
}

/// What a rank hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A message. Those of one rank come in the order in which it sent them.
    Message {
        /// Who sent it.
        from: usize,
        message: Message,
    },
    /// A rank has ended in good order: nothing more comes from it.
    Left {
        /// Which rank.
        rank: usize,
    },
    /// The computation failed.
    Failed(Failure),
    /// A rank has waited for another as long as its patience lasts, and will give up soon.
    Waits {
        /// Which rank.
        rank: usize,
        /// For whom.
        on: usize,
    },
}

/// Carries what a rank says to others. What it hears comes through a channel, which the carrier's own threads fill.
pub(super) trait Carrier: Send {
    /// Sends a message, without waiting. What goes wrong with it is news.
    fn send(&mut self, to: usize, message: Message);

    /// Tells all others something that is no message, as far as they can be reached.
    fn tell(&mut self, news: &News);

    /// Ends in good order, when everything sent and told is delivered.
    fn leave(&mut self);
}
