//! Ranks that are threads.

use std::thread;
use std::time::{Duration, Instant};

use cerium_runtime::collectives::threads::threads;
use cerium_runtime::collectives::{CollectiveError, Collectives, Exchange, HostCollectives, Patience, Sum};
use cerium_runtime::device::Address;
use rand_core::RngCore;

use super::{device, play_on_cpu, ring, ring_until_failure};
use crate::fresh_rng;

const PATIENT: Patience = Patience { wait: Duration::from_secs(120), silence: Duration::from_secs(120) };
const HASTY: Patience = Patience { wait: Duration::from_millis(400), silence: Duration::from_secs(120) };

/// Runs something as every rank, each a thread; returns what each returns, or `None` if it panicked.
fn on_all<T: Send>(ranks: Vec<HostCollectives>, act: impl Fn(HostCollectives) -> T + Sync) -> Vec<Option<T>> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(move || act(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

#[test]
fn random_scripts_do_what_they_must() {
    let mut rng = fresh_rng();
    for size in [1, 2, 3, 4, 8] {
        for log_n in [4, 9] {
            let seed = rng.next_u64();
            let done = on_all(threads(size, PATIENT), |mut ranks| play_on_cpu(&mut ranks, log_n, seed, 200));
            assert!(done.iter().all(Option::is_some), "{size} ranks, limbs of 2^{log_n} words");
        }
    }
}

#[test]
fn a_rank_that_panics_is_named_at_once_on_all_others() {
    for lost in 0..4 {
        let start = Instant::now();
        let errors = on_all(threads(4, PATIENT), |mut ranks| {
            if ranks.rank() == lost {
                ranks.gather(&[]).unwrap();
                panic!("this panic is part of the test");
            }
            ranks.gather(&[]).unwrap();
            let error = ring_until_failure(&mut ranks).to_string();
            // It does not go away.
            assert_eq!(ranks.gather(&[]).unwrap_err().to_string(), error);
            error
        });
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(errors[lost].is_none());
        for error in errors.into_iter().flatten() {
            assert_eq!(error, format!("rank {lost} gave up: its thread panicked"));
        }
    }
}

#[test]
fn a_rank_that_ends_early_is_named() {
    let errors = on_all(threads(3, PATIENT), |mut ranks| {
        if ranks.rank() == 1 { None } else { Some(ring_until_failure(&mut ranks).to_string()) }
    });
    for error in errors.into_iter().filter_map(Option::unwrap) {
        assert!(error.starts_with("rank 1 was lost: it ended before it sent the limbs of"), "{error}");
    }
}

#[test]
fn what_a_rank_sent_before_it_ended_still_comes() {
    let done = on_all(threads(3, PATIENT), |mut ranks| {
        let (mut device, exchange) = (device(4), ring(&ranks));
        let started = ranks.start(&exchange, &mut device).unwrap();
        if ranks.rank() != 2 {
            thread::sleep(Duration::from_millis(50));
            ranks.finish(started, &mut device).unwrap();
        }
    });
    assert_eq!(done, [Some(()); 3]);
}

#[test]
fn an_abort_reaches_all_others_with_its_reason() {
    let errors = on_all(threads(4, PATIENT), |mut ranks| {
        if ranks.rank() == 2 {
            ranks.abort("its keys are others");
            // Only the first reason counts.
            ranks.abort("nothing");
        }
        ring_until_failure(&mut ranks).to_string()
    });
    assert!(errors.iter().all(|error| error.as_deref() == Some("rank 2 gave up: its keys are others")));
}

#[test]
fn a_rank_that_sends_nothing_is_named_after_the_timeout() {
    let errors = on_all(threads(3, HASTY), |mut ranks| {
        if ranks.rank() == 1 {
            thread::sleep(Duration::from_secs(2));
        }
        ring_until_failure(&mut ranks).to_string()
    });
    for error in errors.into_iter().map(Option::unwrap) {
        assert!(
            error.contains("rank 1 has not sent") || error.contains("it waits for rank 1 itself"),
            "{error}"
        );
    }
}

#[test]
fn ranks_out_of_step_are_named() {
    /// What rank 1 does while the others start an exchange of one limb.
    type Deed = fn(&mut HostCollectives) -> Result<(), CollectiveError>;
    let deeds: [(Deed, &str); 5] = [
        (|ranks| ranks.gather(&[]).map(drop), "it sent the bytes of collective 0 (2 words) where"),
        (
            |ranks| {
                let mut device = device(4);
                let started = ranks.start_sums(&[Sum { slot: Address(0), q: 65_537 }], &mut device)?;
                ranks.finish(started, &mut device)
            },
            "it sent the summands of collective 0",
        ),
        (
            |ranks| {
                let mut exchange = ring(ranks);
                exchange.sends.push(exchange.sends[0]);
                ranks.start(&exchange, &mut device(4)).map(drop)
            },
            "it sent the limbs of collective 0 (32 words) where this rank expects 16 words",
        ),
        (
            |ranks| {
                let mut exchange = ring(ranks);
                exchange.sends[0].0 = 0;
                ranks.start(&exchange, &mut device(4)).map(drop)
            },
            "it sent the limbs of collective 0 (16 words) where this rank expects no",
        ),
        (
            |ranks| {
                let mut device = device(4);
                let nothing = Exchange::default();
                let first = ranks.start(&nothing, &mut device)?;
                let exchange = ring(ranks);
                let second = ranks.start(&exchange, &mut device)?;
                ranks.finish(second, &mut device)?;
                ranks.finish(first, &mut device)
            },
            "it sent the limbs of collective 1 where this rank expects the limbs of collective 0",
        ),
    ];
    for (deed, message) in deeds {
        let errors = on_all(threads(3, PATIENT), |mut ranks| {
            if ranks.rank() == 1 {
                // What it notices itself is not asked for; it stays until it hears of the others.
                let _ = deed(&mut ranks);
            }
            ring_until_failure(&mut ranks).to_string()
        });
        let errors: Vec<String> = errors.into_iter().map(Option::unwrap).collect();
        println!("{errors:#?}");
        assert!(
            errors.iter().all(|error| error.contains("rank 1") || error.contains("gave up")),
            "{errors:#?}"
        );
        assert!(errors.iter().any(|error| error.contains(message)), "{message}: {errors:#?}");
    }
}
