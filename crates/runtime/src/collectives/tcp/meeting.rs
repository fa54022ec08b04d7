//! How ranks find each other: all come to rank 0, which tells each where the others listen.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::collectives::wire::{pack, unpack};

/// Begins everything that is said here.
const MAGIC: u32 = u32::from_le_bytes(*b"ceri");
/// How long a stranger may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Words of a reason that rank 0 may give.
const LONGEST_REASON: u32 = 1 << 12;
/// Between two looks whether somebody has come.
const LOOK: Duration = Duration::from_millis(5);

/// Where rank 0 listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// A name or address of its host.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why ranks did not find each other.
#[derive(Debug, thiserror::Error)]
pub enum MeetingError {
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen on port {port}: {reason}; choose another with MASTER_PORT")]
    Listen {
        /// The port.
        port: u16,
        /// The system's reason.
        reason: String,
    },
    /// Rank 0 does not answer.
    #[error(
        "rank 0 cannot be reached at {host}:{port} within {seconds} s: {reason}; is it started, and is MASTER_ADDR its host?"
    )]
    Unreachable {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// How long it was tried.
        seconds: u64,
        /// The last reason.
        reason: String,
    },
    /// Some ranks did not come.
    #[error("{ranks} did not come to the meeting point within {seconds} s: see whether all were started")]
    Absent {
        /// Which, as in "ranks 2, 3".
        ranks: String,
        /// How long they were waited for.
        seconds: u64,
    },
    /// Two processes claim to be the same rank, or ranks disagree on how many they are.
    #[error("a process came as rank {rank} of {size}, where {expected}; see how the ranks were started")]
    Claim {
        /// What it said.
        rank: u32,
        /// How many ranks it knows of.
        size: u32,
        /// What is known here.
        expected: String,
    },
    /// Rank 0 tells that ranks did not find each other.
    #[error("rank 0 gave up: {reason}")]
    GaveUp {
        /// What it said.
        reason: String,
    },
    /// A rank is gone already.
    #[error(
        "rank {rank} was lost while ranks met: {reason}; see what it wrote last, then start all ranks again"
    )]
    Lost {
        /// Which rank.
        rank: usize,
        /// The system's reason.
        reason: String,
    },
    /// Something failed on the way.
    #[error("{doing} failed: {reason}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        reason: String,
    },
}

impl MeetingError {
    pub(super) fn io(doing: &'static str, error: io::Error) -> MeetingError {
        MeetingError::Io { doing, reason: error.to_string() }
    }
}

/// Who somebody says to be: magic, number of ranks, rank, port where it listens.
type Introduction = [u32; 4];
/// What rank 0 answers when it knows: magic, and the words of its reason if it gave up; else places follow.
type Answer = [u32; 2];
/// Where a rank listens: an IPv6 address (IPv4 mapped into it), zero for the host of rank 0, and a port.
type Place = [u32; 5];

fn say(stream: &mut TcpStream, words: &[u32]) -> io::Result<()> {
    stream.write_all(bytemuck::cast_slice(words))
}

fn hear(stream: &mut TcpStream, words: &mut [u32]) -> io::Result<()> {
    stream.read_exact(bytemuck::cast_slice_mut(words))
}

/// Listens on all addresses of this host.
fn listen(port: u16) -> io::Result<TcpListener> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let listener = TcpListener::bind(&any.map(|address| SocketAddr::new(address, port))[..])?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection to every other rank, by rank. Returns when all have come.
pub(super) fn meet(
    meeting: &Meeting,
    rank: usize,
    size: usize,
    wait: Duration,
) -> Result<Vec<Option<TcpStream>>, MeetingError> {
    let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    let deadline = Instant::now() + wait;
    let listener = listen(if rank == 0 { meeting.port } else { 0 });
    let listener =
        listener.map_err(|e| MeetingError::Listen { port: meeting.port, reason: e.to_string() })?;
    if rank == 0 {
        let answered = answer(&listener, &mut streams, wait, deadline);
        if let Err(error) = answered {
            let reason = pack(error.to_string().as_bytes());
            for stream in streams.iter_mut().flatten() {
                // Whoever is gone does not need to know.
                let _ = say(stream, &[MAGIC, reason.len() as u32]).and_then(|()| say(stream, &reason));
            }
            return Err(error);
        }
        return Ok(streams);
    }
    let local = listener.local_addr().map_err(|e| MeetingError::io("asking for a port", e))?;
    let introduction: Introduction = [MAGIC, size as u32, rank as u32, u32::from(local.port())];
    let mut first = reach(meeting, wait, deadline)?;
    let places = introduce(&mut first, &introduction, size, wait)?;
    let host = first.peer_addr().map_err(|e| MeetingError::io("asking for an address", e))?.ip();
    streams[0] = Some(first);
    for peer in 1..rank {
        let stream = connect(address(&places[peer], host), deadline)
            .and_then(|mut stream| say(&mut stream, &introduction).map(|()| stream));
        let lost = |error: io::Error| MeetingError::Lost { rank: peer, reason: error.to_string() };
        streams[peer] = Some(stream.map_err(lost)?);
    }
    accept(&listener, &mut streams, rank + 1..size, wait, deadline)?;
    Ok(streams)
}

/// Waits for all other ranks as rank 0, and tells each where the others listen.
fn answer(
    listener: &TcpListener,
    streams: &mut [Option<TcpStream>],
    wait: Duration,
    deadline: Instant,
) -> Result<(), MeetingError> {
    let size = streams.len();
    let mut places = vec![Place::default(); size];
    let ports = accept(listener, streams, 1..size, wait, deadline)?;
    let lost = |rank, error: io::Error| MeetingError::Lost { rank, reason: error.to_string() };
    for (peer, stream) in streams.iter().enumerate() {
        if let Some(stream) = stream {
            let address = stream.peer_addr().map_err(|error| lost(peer, error))?;
            places[peer] = place(address.ip(), ports[peer]);
        }
    }
    for (peer, stream) in streams.iter_mut().enumerate() {
        if let Some(stream) = stream {
            let answer: Answer = [MAGIC, 0];
            let said = say(stream, &answer).and_then(|()| say(stream, places.as_flattened()));
            said.map_err(|error| lost(peer, error))?;
        }
    }
    Ok(())
}

/// Tells rank 0 who this is, and waits until it tells where the others listen.
fn introduce(
    first: &mut TcpStream,
    introduction: &Introduction,
    size: usize,
    wait: Duration,
) -> Result<Vec<Place>, MeetingError> {
    let mut places = vec![Place::default(); size];
    let mut heard = || -> io::Result<Option<String>> {
        first.set_read_timeout(Some(wait.max(LOOK)))?;
        say(first, introduction)?;
        let mut answer = Answer::default();
        hear(first, &mut answer)?;
        match answer {
            [MAGIC, 0] => hear(first, places.as_flattened_mut()).map(|()| None),
            [MAGIC, length] if length < LONGEST_REASON => {
                let mut reason = vec![0; length as usize];
                hear(first, &mut reason)?;
                let reason = unpack(&reason).unwrap_or_default();
                Ok(Some(String::from_utf8_lossy(&reason).into_owned()))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "who listens there is no rank")),
        }
    };
    match heard() {
        Ok(None) => Ok(places),
        Ok(Some(reason)) => Err(MeetingError::GaveUp { reason }),
        Err(error) => Err(MeetingError::Lost { rank: 0, reason: error.to_string() }),
    }
}

/// Waits for some ranks; returns the ports on which they listen, by rank.
fn accept(
    listener: &TcpListener,
    streams: &mut [Option<TcpStream>],
    expected: std::ops::Range<usize>,
    wait: Duration,
    deadline: Instant,
) -> Result<Vec<u16>, MeetingError> {
    let size = streams.len();
    let mut ports = vec![0; size];
    loop {
        let absent: Vec<String> =
            expected.clone().filter(|&rank| streams[rank].is_none()).map(|rank| rank.to_string()).collect();
        if absent.is_empty() {
            return Ok(ports);
        }
        let Ok((mut stream, _)) = listener.accept() else {
            if Instant::now() > deadline {
                let ranks = format!("rank{} {}", if absent.len() == 1 { "" } else { "s" }, absent.join(", "));
                return Err(MeetingError::Absent { ranks, seconds: wait.as_secs() });
            }
            thread::sleep(LOOK);
            continue;
        };
        let mut introduction = Introduction::default();
        let heard = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(INTRODUCTION)))
            .and_then(|()| hear(&mut stream, &mut introduction));
        let [magic, told, rank, port] = introduction;
        if heard.is_err() || magic != MAGIC {
            // Somebody who wants something else.
            continue;
        }
        let claim = |expected| MeetingError::Claim { rank, size: told, expected };
        if told as usize != size {
            return Err(claim(format!("{size} ranks were started")));
        }
        if !expected.contains(&(rank as usize)) {
            return Err(claim(format!("ranks {} to {} are expected", expected.start, expected.end - 1)));
        }
        if streams[rank as usize].is_some() {
            return Err(claim("that rank is there already".to_string()));
        }
        ports[rank as usize] = port as u16;
        streams[rank as usize] = Some(stream);
    }
}

/// Connects to rank 0, which may not listen yet.
fn reach(meeting: &Meeting, wait: Duration, deadline: Instant) -> Result<TcpStream, MeetingError> {
    loop {
        let tried = (meeting.host.as_str(), meeting.port).to_socket_addrs().and_then(|addresses| {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name of its host has no address");
            for address in addresses {
                match connect(address, deadline) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        match tried {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => {
                let (host, port, seconds) = (meeting.host.clone(), meeting.port, wait.as_secs());
                return Err(MeetingError::Unreachable { host, port, seconds, reason: error.to_string() });
            }
            Err(_) => thread::sleep(20 * LOOK),
        }
    }
}

fn connect(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let rest = deadline.saturating_duration_since(Instant::now()).max(LOOK);
    TcpStream::connect_timeout(&address, rest)
}

/// Where a rank that rank 0 sees at an address listens. One that comes over the loopback is on the same host, which has other
/// addresses for other hosts.
fn place(seen: IpAddr, port: u16) -> Place {
    let address = match seen.to_canonical() {
        address if address.is_loopback() => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut place = [0, 0, 0, 0, u32::from(port)];
    bytemuck::cast_slice_mut(&mut place[..4]).copy_from_slice(&address.octets());
    place
}

/// Where to connect to; `host` is the address at which this rank reaches rank 0.
fn address(place: &Place, host: IpAddr) -> SocketAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytemuck::cast_slice(&place[..4]));
    let address = Ipv6Addr::from(octets);
    let address = if address.is_unspecified() { host } else { IpAddr::V6(address).to_canonical() };
    SocketAddr::new(address, place[4] as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_the_way() {
        let host: IpAddr = "10.0.0.1".parse().unwrap();
        let reached = |seen: &str| address(&place(seen.parse().unwrap(), 4000), host).to_string();
        assert_eq!(reached("192.168.1.7"), "192.168.1.7:4000");
        assert_eq!(reached("::ffff:192.168.1.7"), "192.168.1.7:4000");
        assert_eq!(reached("2001:db8::1"), "[2001:db8::1]:4000");
        // On the host of rank 0.
        assert_eq!(reached("127.0.0.1"), "10.0.0.1:4000");
        assert_eq!(reached("::1"), "10.0.0.1:4000");
    }
}
