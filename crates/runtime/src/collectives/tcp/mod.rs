//! Ranks that are processes and meet over TCP, without any library: for `torchrun` and `srun`, and beside NCCL.
//!
//! Every two ranks have a connection. Its end tells at once that a rank is gone; signs of life tell of hosts that vanish. Hosts
//! are little-endian.

mod meeting;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::news::{Carrier, Failure, FailureKind, Message, News};
use super::wire::{ALIVE, Header, decode, encode, following, is_last};
use super::{CollectiveError, HostCollectives, Patience};
pub use meeting::{Meeting, MeetingError};

/// Signs of life in the time of silence after which a rank counts as lost.
const SIGNS: u32 = 6;
/// Words for which room is made at once: more only when so many have come, whatever a header says.
const STEP: usize = 8 << 20;
/// How long a rank that has failed waits for others to hear it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Joins the other ranks at the meeting point, where rank 0 listens; returns when all have come.
pub fn join(
    meeting: &Meeting,
    rank: usize,
    size: usize,
    patience: Patience,
) -> Result<HostCollectives, CollectiveError> {
    let streams = meeting::meet(meeting, rank, size, patience.wait)?;
    let connected = Connections::new(rank, streams, patience);
    let (carrier, news) = connected.map_err(|error| MeetingError::io("configuring a connection", error))?;
    Ok(HostCollectives::new(rank, size, patience, Box::new(carrier), news))
}

/// A header and the words that follow it.
type Said = (Header, Vec<u32>);

/// The connections to all other ranks, each with a thread that reads and one that writes.
struct Connections {
    rank: usize,
    patience: Patience,
    /// What the writers write, by rank; none for this one.
    writers: Vec<Option<Sender<Said>>>,
    /// Closed when all threads have ended.
    ended: Receiver<()>,
}

impl Connections {
    fn new(
        rank: usize,
        streams: Vec<Option<TcpStream>>,
        patience: Patience,
    ) -> io::Result<(Connections, Receiver<News>)> {
        let (teller, news) = channel();
        let (running, ended) = channel();
        let mut writers = Vec::new();
        for (peer, stream) in streams.into_iter().enumerate() {
            let Some(stream) = stream else {
                writers.push(None);
                continue;
            };
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience.silence))?;
            stream.set_write_timeout(Some(patience.silence))?;
            let (writer, to_write) = channel();
            writers.push(Some(writer));
            let (reading, running_too) = (stream.try_clone()?, running.clone());
            thread::Builder::new().name("tcp write".into()).spawn(move || {
                write(stream, &to_write, patience.silence / SIGNS);
                drop(running_too);
            })?;
            let (teller, running_too) = (teller.clone(), running.clone());
            thread::Builder::new().name("tcp read".into()).spawn(move || {
                read(reading, peer, &teller, patience.silence);
                drop(running_too);
            })?;
        }
        Ok((Connections { rank, patience, writers, ended }, news))
    }

    /// Lets the writers end, and waits until they have and the others have closed their sides: a connection that is closed
    /// before everything was read from it takes with it what was written to it.
    fn end(&mut self, wait: Duration) {
        self.writers.clear();
        let _ = self.ended.recv_timeout(wait);
    }
}

impl Carrier for Connections {
    fn send(&mut self, to: usize, message: Message) {
        if let Some(writer) = &self.writers[to] {
            // A writer that has ended lost its rank, which the reader tells.
            let _ = writer.send(encode(News::Message { from: self.rank, message }));
        }
    }

    fn tell(&mut self, news: &News) {
        for writer in self.writers.iter().flatten() {
            let _ = writer.send(encode(news.clone()));
        }
    }

    fn leave(&mut self) {
        self.end(self.patience.wait);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // After leaving, nothing is left to wait for.
        self.end(LAST_WORDS);
    }
}

/// Writes what it is given, and a sign of life when that is nothing; at the end closes this side of the connection.
fn write(mut stream: TcpStream, to_write: &Receiver<Said>, pause: Duration) {
    loop {
        let (header, words) = match to_write.recv_timeout(pause) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => (ALIVE, Vec::new()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let written = stream
            .write_all(bytemuck::cast_slice(&header))
            .and_then(|()| stream.write_all(bytemuck::cast_slice(&words)));
        if written.is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Tells what a rank says until the connection ends, and that it ended if the rank has not taken leave.
fn read(mut stream: TcpStream, from: usize, teller: &Sender<News>, silence: Duration) {
    let mut ended = false;
    loop {
        match read_one(&mut stream, from) {
            Ok((header, news)) => {
                ended |= is_last(&header) || matches!(news, Some(News::Failed(_)));
                // When nobody listens any more, reading goes on: see `Connections::end`.
                let _ = news.map(|news| teller.send(news));
            }
            Err(error) => {
                if !ended {
                    let reason = match error.kind() {
                        io::ErrorKind::UnexpectedEof => "its connection ended".to_string(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                            format!("nothing was heard of it for {} s", silence.as_secs_f32())
                        }
                        _ => format!("its connection ended ({error})"),
                    };
                    let failure = Failure { rank: from, kind: FailureKind::Lost, reason };
                    let _ = teller.send(News::Failed(failure));
                }
                return;
            }
        }
    }
}

fn read_one(stream: &mut TcpStream, from: usize) -> io::Result<(Header, Option<News>)> {
    let mut header = Header::default();
    stream.read_exact(bytemuck::cast_slice_mut(&mut header))?;
    let (mut words, count) = (Vec::<u32>::new(), following(&header));
    while words.len() < count {
        let start = words.len();
        words.resize(count.min(start + STEP), 0);
        stream.read_exact(bytemuck::cast_slice_mut(&mut words[start..]))?;
    }
    Ok((header, decode(from, &header, words)))
}
