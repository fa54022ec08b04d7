//! Ranks over TCP: threads that could be processes, and processes.

use std::net::TcpListener;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use cerium_runtime::collectives::tcp::{Meeting, join};
use cerium_runtime::collectives::{CollectiveError, Collectives, HostCollectives, Launch, Patience};
use rand_core::RngCore;

use super::{play_on_cpu, ring_until_failure, rings};
use crate::fresh_rng;

const PATIENCE: Patience = Patience { wait: Duration::from_secs(60), silence: Duration::from_secs(20) };
const HASTY: Patience = Patience { wait: Duration::from_secs(1), silence: Duration::from_secs(1) };

/// Where nobody listens yet.
fn meeting() -> Meeting {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Meeting { host: "127.0.0.1".to_string(), port }
}

/// Does something as every rank, each a thread.
fn on_all<T: Send>(size: usize, act: impl Fn(HostCollectives) -> T + Sync) -> Vec<T> {
    let (meeting, act) = (&meeting(), &act);
    thread::scope(|scope| {
        let rank = |rank| scope.spawn(move || act(join(meeting, rank, size, PATIENCE).unwrap()));
        let threads: Vec<_> = (0..size).map(rank).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn random_scripts_do_what_they_must() {
    let mut rng = fresh_rng();
    for size in [1, 2, 3, 5] {
        let seed = rng.next_u64();
        on_all(size, |mut ranks| {
            play_on_cpu(&mut ranks, 4, seed, 100);
            play_on_cpu(&mut ranks, 14, seed ^ 1, 40);
        });
    }
}

#[test]
fn an_abort_reaches_all_others() {
    let errors = on_all(4, |mut ranks| {
        if ranks.rank() == 1 {
            rings(&mut ranks, 10);
            ranks.abort("its keys are others");
        }
        ring_until_failure(&mut ranks).to_string()
    });
    assert!(errors.iter().all(|error| error == "rank 1 gave up: its keys are others"), "{errors:?}");
}

/// One of the processes of the next test; which one is said as by torchrun.
#[test]
#[ignore = "started as a process from another test"]
fn rank() {
    let Some(launch) = Launch::from_environment().unwrap() else { return };
    let mut ranks = launch.join(PATIENCE).unwrap();
    println!("{}", ring_until_failure(&mut ranks));
}

#[test]
fn a_killed_rank_is_named_on_all_others_at_once() {
    let (size, meeting) = (4, meeting());
    let lost = fresh_rng().next_u32() as usize % size;
    let start = |rank: usize| -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "collectives::tcp::rank", "--ignored", "--nocapture"]);
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
        command.env("WORLD_SIZE", size.to_string());
        command.env("MASTER_ADDR", &meeting.host).env("MASTER_PORT", meeting.port.to_string());
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (0..size).map(start).collect();
    thread::sleep(Duration::from_millis(500));
    let killed = Instant::now();
    children[lost].kill().unwrap();
    let outputs: Vec<process::Output> =
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(killed.elapsed() < PATIENCE.silence, "only silence told that it was lost");
    for (rank, output) in outputs.iter().enumerate().filter(|(rank, _)| *rank != lost) {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("rank {lost} was lost: its connection ended")), "rank {rank}: {text}");
    }
}

/// The error with which a rank comes to a meeting where nobody does what it expects.
fn error_of(meeting: &Meeting, rank: usize, size: usize) -> String {
    join(meeting, rank, size, HASTY).map(drop).unwrap_err().to_string()
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let text = error_of(&meeting(), 1, 3);
    assert!(text.contains("rank 0 cannot be reached at 127.0.0.1:"), "{text}");
    let meeting = meeting();
    thread::scope(|scope| {
        let first = scope.spawn(|| error_of(&meeting, 0, 4));
        let second = scope.spawn(|| error_of(&meeting, 2, 4));
        let text = first.join().unwrap();
        assert!(text.starts_with("ranks 1, 3 did not come to the meeting point within 1 s"), "{text}");
        let text = second.join().unwrap();
        assert!(text.starts_with("rank 0 gave up: ranks 1, 3 did not come"), "{text}");
    });
}

#[test]
fn ranks_that_disagree_are_named() {
    for (rank, size, message) in
        [(1, 3, "came as rank 1 of 3, where 2 ranks were started"), (0, 2, "rank 0 cannot listen on port")]
    {
        let meeting = meeting();
        thread::scope(|scope| {
            let first = scope.spawn(|| error_of(&meeting, 0, 2));
            let second = scope.spawn(|| error_of(&meeting, rank, size));
            let texts = [first.join().unwrap(), second.join().unwrap()];
            assert!(texts.iter().any(|text| text.contains(message)), "{texts:?}");
        });
    }
}

#[test]
fn a_stranger_is_sent_away() {
    let meeting = meeting();
    thread::scope(|scope| {
        let first = scope.spawn(|| join(&meeting, 0, 2, PATIENCE).map(drop));
        let address = format!("{}:{}", meeting.host, meeting.port);
        let mut stranger = loop {
            if let Ok(stream) = std::net::TcpStream::connect(&address) {
                break stream;
            }
            thread::sleep(Duration::from_millis(5));
        };
        std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let second = scope.spawn(|| join(&meeting, 1, 2, PATIENCE).map(drop));
        let joined: [Result<(), CollectiveError>; 2] = [first.join().unwrap(), second.join().unwrap()];
        assert!(joined.iter().all(Result::is_ok), "{joined:?}");
    });
}
