//! The thread that makes all calls of MPI.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::MpiError;
use super::library::{Lane, Mpi, Transfer};
use crate::collectives::Patience;
use crate::collectives::news::{Failure, FailureKind, News};
use crate::collectives::wire::{ALIVE, Header, decode, following, is_last};

/// Signs of life in the time of silence after which a rank counts as lost.
const SIGNS: u32 = 6;
/// For so long after something happened, MPI is asked without a pause.
const BUSY: Duration = Duration::from_micros(100);
/// Then with pauses of this length: the most by which a message is late.
const PAUSE: Duration = Duration::from_micros(50);
/// A rank that has failed goes on for so long after it has told the others: what MPI has sent is not always on its way.
const LINGER: Duration = Duration::from_millis(100);
/// How long a rank that has failed tries to tell the others.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the pump is asked for.
pub(super) enum Command {
    /// Send this.
    Say { to: usize, header: Header, words: Vec<u32> },
    /// The computation has failed: there is nothing to wait for in the end.
    Fail,
    /// End when everything is sent and, unless the computation has failed, all others have left.
    Leave,
}

/// What is known of another rank.
struct Peer<'a> {
    rank: usize,
    /// Takes the next header, until the last has come.
    header: Option<Transfer<'a>>,
    /// Headers that have come, with the words that follow them.
    incoming: VecDeque<(Header, Option<Transfer<'a>>)>,
    /// What is on its way to it.
    outgoing: Vec<Transfer<'a>>,
    heard: Instant,
    spoken: Instant,
    /// Nothing more is said to it.
    taken_leave: bool,
}

/// What goes on between this rank and the others.
struct Traffic<'a> {
    mpi: &'a Mpi,
    patience: Patience,
    news: &'a Sender<News>,
    peers: Vec<Peer<'a>>,
    failed: bool,
    leaving: Option<Instant>,
}

/// Works until it is told to leave. MPI is ended in good order, together with all others, or not at all.
pub(super) fn pump(mpi: Mpi, patience: Patience, commands: &Receiver<Command>, news: &Sender<News>) {
    let mut traffic = Traffic::new(&mpi, patience, news);
    traffic.run(commands);
    let failed = traffic.failed;
    drop(traffic);
    if !failed {
        // At the end nobody listens who could do something about an error.
        let _ = mpi.finalize();
    }
}

impl<'a> Traffic<'a> {
    fn new(mpi: &'a Mpi, patience: Patience, news: &'a Sender<News>) -> Traffic<'a> {
        let now = Instant::now();
        let peer = |rank| Peer {
            rank,
            header: None,
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            heard: now,
            spoken: now,
            taken_leave: false,
        };
        let peers = (0..mpi.size()).filter(|&rank| rank != mpi.rank()).map(peer).collect();
        let mut traffic = Traffic { mpi, patience, news, peers, failed: false, leaving: None };
        for index in 0..traffic.peers.len() {
            let listened = traffic.peers[index].listen(mpi);
            traffic.note(index, listened);
        }
        traffic
    }

    fn run(&mut self, commands: &Receiver<Command>) {
        let mut last = Instant::now();
        while !self.is_over() {
            let mut active = false;
            for index in 0..self.peers.len() {
                let moved = self.peers[index].progress(self.mpi);
                let heard = self.note(index, moved).unwrap_or_default();
                active |= !heard.is_empty();
                for news in heard {
                    self.failed |= matches!(news, News::Failed(_));
                    let _ = self.news.send(news);
                }
            }
            self.watch();
            // What is under way moves on only when MPI is asked.
            let underway = |peer: &Peer<'_>| !peer.outgoing.is_empty() || !peer.incoming.is_empty();
            if active || self.peers.iter().any(underway) {
                last = Instant::now();
            }
            let pause = if last.elapsed() < BUSY { Duration::ZERO } else { PAUSE };
            match commands.recv_timeout(pause) {
                Ok(command) => {
                    self.obey(command);
                    last = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => thread::yield_now(),
                Err(RecvTimeoutError::Disconnected) => self.obey(Command::Leave),
            }
        }
    }

    /// The computation has failed, as this rank noticed.
    fn fail(&mut self, rank: usize, reason: String) {
        if !self.failed {
            self.failed = true;
            let _ = self.news.send(News::Failed(Failure { rank, kind: FailureKind::Lost, reason }));
        }
    }

    /// Takes a failed call for the loss of the peer with which it was made.
    fn note<T>(&mut self, index: usize, result: Result<T, MpiError>) -> Option<T> {
        result.map_err(|error| self.fail(self.peers[index].rank, error.to_string())).ok()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Say { to, header, words } => {
                let index = if to < self.mpi.rank() { to } else { to - 1 };
                let said = self.peers[index].say(self.mpi, header, words);
                self.note(index, said);
            }
            Command::Fail => self.failed = true,
            Command::Leave => self.leaving = self.leaving.or_else(|| Some(Instant::now())),
        }
    }

    /// Says that this rank is alive, and notices who is not.
    fn watch(&mut self) {
        if self.failed {
            return;
        }
        let Patience { silence, .. } = self.patience;
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            if !peer.taken_leave && peer.spoken.elapsed() > silence / SIGNS {
                let said = peer.say(self.mpi, ALIVE, Vec::new());
                self.note(index, said);
            }
            let peer = &self.peers[index];
            if peer.header.is_some() && peer.heard.elapsed() > silence {
                let reason = format!("nothing was heard of it for {} s", silence.as_secs_f32());
                self.fail(peer.rank, reason);
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let Some(leaving) = self.leaving else { return false };
        let sent = self.peers.iter().all(|peer| peer.outgoing.is_empty());
        if self.failed {
            let elapsed = leaving.elapsed();
            return (sent && elapsed > LINGER) || elapsed > LAST_WORDS;
        }
        let heard = self.peers.iter().all(|peer| peer.header.is_none() && peer.incoming.is_empty());
        // Who is alive and does not leave for so long is not worth waiting for.
        self.failed = leaving.elapsed() > self.patience.wait;
        self.failed || (sent && heard)
    }
}

impl<'a> Peer<'a> {
    /// Begins to wait for a header.
    fn listen(&mut self, mpi: &'a Mpi) -> Result<(), MpiError> {
        self.header = Some(mpi.receive(ALIVE.len(), self.rank, Lane::Headers)?);
        Ok(())
    }

    fn say(&mut self, mpi: &'a Mpi, header: Header, words: Vec<u32>) -> Result<(), MpiError> {
        self.spoken = Instant::now();
        self.taken_leave |= is_last(&header);
        self.outgoing.push(mpi.send(header.to_vec(), self.rank, Lane::Headers)?);
        if !words.is_empty() {
            self.outgoing.push(mpi.send(words, self.rank, Lane::Words)?);
        }
        Ok(())
    }

    /// Sees what is done; returns what was heard, in order.
    fn progress(&mut self, mpi: &'a Mpi) -> Result<Vec<News>, MpiError> {
        let mut underway = Vec::with_capacity(self.outgoing.len());
        for mut transfer in self.outgoing.drain(..) {
            if !transfer.is_done()? {
                underway.push(transfer);
            }
        }
        self.outgoing = underway;
        while let Some(mut transfer) = self.header.take() {
            if !transfer.is_done()? {
                self.header = Some(transfer);
                break;
            }
            self.heard = Instant::now();
            let words = transfer.into_words();
            let header: Header = words.try_into().expect("as many words as were asked for");
            let words = match following(&header) {
                0 => None,
                count => Some(mpi.receive(count, self.rank, Lane::Words)?),
            };
            self.incoming.push_back((header, words));
            if !is_last(&header) {
                self.listen(mpi)?;
            }
        }
        let mut news = Vec::new();
        while let Some((header, words)) = self.incoming.front_mut() {
            if let Some(words) = words
                && !words.is_done()?
            {
                break;
            }
            let header = *header;
            let (_, words) = self.incoming.pop_front().expect("there is a first");
            news.extend(decode(self.rank, &header, words.map(Transfer::into_words).unwrap_or_default()));
        }
        Ok(news)
    }
}
