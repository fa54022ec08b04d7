//! Programs of several devices, run by ranks that are threads: the same words as the naive interpreter of all devices.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cerium_artifact::{Artifact, DeviceId, StageId};
use cerium_runtime::collectives::threads::threads;
use cerium_runtime::collectives::{CollectiveError, HostCollectives, Patience, Transport, connect};
use cerium_runtime::cuda::CudaDevice;
use cerium_runtime::cuda::host::{HostGpu, Order};
use cerium_runtime::device::Device;
use cerium_runtime::key_store::KeyPart;
use cerium_runtime::null::measure_within;
use cerium_runtime::progress::silent;
use cerium_runtime::ranks::Common;
use cerium_runtime::suite::{Case, below, random_key};
use cerium_runtime::{CpuDevice, KeyStore, Member, Ranks, Session, SessionError, SessionOptions};
use rand_core::RngCore;

use crate::failing::{Failing, Failure, REASON};
use crate::fresh_rng;
use crate::naive::Naive;

const PATIENCE: Patience = Patience { wait: Duration::from_secs(60), silence: Duration::from_secs(60) };

/// Each rank with its part of the keys and a device of its own.
fn members(case: &Case, device: impl Fn(usize) -> Box<dyn Device>) -> Vec<Member> {
    let Case { artifact, params, keys, .. } = case;
    let parts = KeyPart::all(artifact, params);
    let stores = KeyStore::parts_of_keys(params, &artifact.keys, keys.clone(), &parts, 1, &silent).unwrap();
    let devices: Vec<_> = (0..parts.len()).map(device).collect();
    // No GPU is one that tells its name, so limbs go through the memory of the host.
    thread::scope(|scope| {
        let ranks = threads(parts.len(), PATIENCE).into_iter().zip(stores).zip(devices);
        let member = |((side, keys), mut device): ((HostCollectives, KeyStore), Box<dyn Device>)| {
            let collectives = connect(side, device.as_mut(), Transport::Auto, None).unwrap();
            Member { keys, device, collectives }
        };
        let ranks: Vec<_> = ranks.map(|rank| scope.spawn(move || member(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn cpu(threads: usize) -> Box<dyn Device> {
    Box::new(CpuDevice::new(threads).unwrap())
}

fn open(case: &Case, members: Vec<Member>) -> Result<Ranks, SessionError> {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Ranks::open(&case.artifact, members, &options, &silent)
}

#[test]
fn ranks_agree_with_the_naive_interpreter_of_all_devices() {
    let mut rng = fresh_rng();
    let (mut sent, mut added) = (0, 0);
    for devices in [1, 2, 3, 4, 8] {
        for (log_n, rounds) in [(4, 8), (5, 4), (10, 1)] {
            for _ in 0..rounds {
                let case = Case::random_on(&mut rng, log_n, devices);
                let Case { artifact, params, keys, inputs } = &case;
                let limbs: Vec<Vec<u32>> =
                    inputs[0].words().chunks(params.n()).map(<[u32]>::to_vec).collect();
                let mut naive = Naive::new(artifact, params, keys);
                let expected = naive.run(&limbs).concat();
                (sent, added) = (sent + naive.sent.iter().sum::<u64>(), added + naive.added);

                let threads: Vec<usize> = (0..devices).map(|_| 1 + below(&mut rng, 2)).collect();
                let mut ranks = open(&case, members(&case, |rank| cpu(threads[rank]))).unwrap();
                let parts = KeyPart::all(artifact, params);
                // Twice: nothing of the first run may show in the second.
                for _ in 0..2 {
                    let (outputs, profiles) = ranks.run(inputs).unwrap();
                    assert_eq!(outputs.len(), 1);
                    assert!(outputs[0].words() == expected, "{devices} devices, ring 2^{log_n}");
                    for (rank, profile) in profiles.iter().enumerate() {
                        assert_eq!(profile.usage.total().launches, naive.launches[rank]);
                        for (stage, launches) in naive.called[rank].iter().enumerate() {
                            let stage = StageId(stage as u16);
                            assert_eq!(profile.usage.called.stage(stage).launches, *launches);
                        }
                        let communication = &profile.communication;
                        let total = communication.total();
                        assert_eq!(total.collectives, naive.collectives);
                        assert!(total.bytes_sent >= 4 * (naive.sent[rank] << log_n));
                        let waiting: Duration =
                            (0..3).map(|stage| communication.stage(StageId(stage)).waiting).sum();
                        assert_eq!(waiting, total.waiting);
                        let figures = &ranks.figures(&profiles).unwrap()[rank];
                        assert_eq!(figures.memory.keys, parts[rank].bytes(params));
                        assert!(figures.device.starts_with(&format!("cpu ({} thread", threads[rank])));
                        assert_eq!(figures.communication, total);
                        // Counted without doing it.
                        let counted = measure_within(artifact, DeviceId(rank as u16), u64::MAX).unwrap();
                        let counted = counted.communication.total();
                        assert_eq!(counted.collectives, total.collectives);
                        assert_eq!(counted.bytes_sent, total.bytes_sent);
                    }
                }
            }
        }
    }
    assert!(sent > 100 && added > 100, "{sent} limbs were sent, {added} added: the programs are too simple");
}

/// What each rank says when it joins the others on its own, with an artifact of its own.
fn join_alone(artifacts: Vec<Artifact>, members: Vec<Member>) -> Vec<Result<Session, SessionError>> {
    thread::scope(|scope| {
        let ranks = artifacts.iter().zip(members).map(|(artifact, member)| {
            scope.spawn(|| Session::join(artifact, member, &SessionOptions::default(), &silent))
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    })
}

#[test]
fn an_odd_rank_is_named_on_all() {
    let mut rng = fresh_rng();
    let case = Case::random_on(&mut rng, 4, 3);
    let odd = below(&mut rng, 3);
    let all_say = |results: Vec<Result<Session, SessionError>>, what: Common| {
        for error in results.into_iter().map(|result| result.err().expect("no rank is ready")) {
            let named =
                matches!(error, SessionError::Odd { rank, what: found } if rank == odd && found == what);
            assert!(named, "{error}");
            assert!(error.to_string().starts_with(&format!("rank {odd} has {}", what.other())), "{error}");
        }
    };
    let mut artifacts = vec![case.artifact.clone(); 3];
    artifacts[odd].name = "another".into();
    all_say(join_alone(artifacts, members(&case, |_| cpu(1))), Common::Program);

    let other = case.artifact.keys.iter().map(|&request| random_key(&mut rng, &case.params, request));
    let keys = other.collect();
    let other = Case { artifact: case.artifact.clone(), params: case.params.clone(), keys, inputs: vec![] };
    let mut strangers = members(&other, |_| cpu(1));
    let mut members = members(&case, |_| cpu(1));
    std::mem::swap(&mut members[odd].keys, &mut strangers[odd].keys);
    all_say(join_alone(vec![case.artifact.clone(); 3], members), Common::Keys);
}

#[test]
fn as_many_ranks_as_devices_are_needed() {
    let case = Case::random_on(&mut fresh_rng(), 4, 2);
    let error = case.session(cpu(1)).err().unwrap();
    assert!(matches!(error, SessionError::Devices { devices: 2, ranks: 1 }), "{error}");
    let message = "the program is compiled for 2 devices, it was to run on 1; run it on 2, or compile it with \
                   `--devices 1`";
    assert_eq!(error.to_string(), message);
    let stranger = |collectives| {
        let keys = case.keys.clone();
        let keys = KeyStore::from_keys(&case.params, &case.artifact.keys, keys, 1, &silent).unwrap();
        Member { keys, device: cpu(1), collectives: Box::new(collectives) }
    };
    let strangers = threads(3, PATIENCE).into_iter().map(stranger).collect();
    for result in join_alone(vec![case.artifact.clone(); 3], strangers) {
        let error = result.err().expect("no rank is ready");
        assert!(matches!(error, SessionError::Devices { devices: 2, ranks: 3 }), "{error}");
    }
}

/// A rank that fails at any point of a run ends it for all, with its reason; the next attempt is as good as the first.
#[test]
fn a_rank_that_fails_ends_all() {
    let mut rng = fresh_rng();
    let case = Case::random_on(&mut rng, 4, 3);
    // How many runs of kernels each rank computes.
    let enough = 1 << 30;
    let counters = [(); 3].map(|()| Arc::new(AtomicUsize::new(enough)));
    let failing = |rest, failure| Failing { cpu: CpuDevice::new(1).unwrap(), rest, failure };
    let device =
        |rank: usize| -> Box<dyn Device> { Box::new(failing(counters[rank].clone(), Failure::Panic)) };
    let expected = open(&case, members(&case, device)).unwrap().run(&case.inputs).unwrap().0;
    let runs = counters.map(|rest| enough - rest.load(Ordering::Relaxed));
    for round in 0..12 {
        let failure = if round % 2 == 0 { Failure::Error } else { Failure::Panic };
        let odd = below(&mut rng, 3);
        let rest = below(&mut rng, runs[odd]);
        let failing = || failing(Arc::new(AtomicUsize::new(rest)), failure);
        let device = |rank| -> Box<dyn Device> { if rank == odd { Box::new(failing()) } else { cpu(1) } };
        println!("round {round}: rank {odd} fails after {rest} runs of kernels: {failure:?}");
        let mut ranks = open(&case, members(&case, device)).unwrap();
        // Inputs that do not fit harm nobody.
        assert!(matches!(ranks.run(&[]), Err(SessionError::Count { given: 0, expected: 1, .. })));
        let ended = catch_unwind(AssertUnwindSafe(|| ranks.run(&case.inputs).map(|_| ())));
        match (failure, ended) {
            (Failure::Error, Ok(Err(SessionError::Device(error)))) => {
                assert!(error.to_string().contains(REASON), "{error}");
                // Nobody goes on with half a computation.
                let again = ranks.run(&case.inputs).unwrap_err();
                assert!(again.to_string().contains(&format!("rank {odd} gave up")), "{again}");
            }
            (Failure::Panic, Err(payload)) => {
                assert!(payload.downcast_ref::<String>().is_some_and(|reason| reason == REASON));
            }
            (_, ended) => panic!("{ended:?}"),
        }
        // What the others hear.
        let heard = thread::scope(|scope| {
            let sessions = join_alone(vec![case.artifact.clone(); 3], members(&case, device)).into_iter();
            let run = |(rank, session): (usize, Result<Session, SessionError>)| {
                let inputs = if rank == 0 { &case.inputs[..] } else { &[] };
                scope.spawn(move || session.unwrap().run(inputs).map(|_| ()))
            };
            let ranks: Vec<_> = sessions.enumerate().map(run).collect();
            ranks.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for (rank, end) in heard.into_iter().enumerate().filter(|(rank, _)| *rank != odd) {
            let error = end.expect("only one rank panics").expect_err("no rank comes to an end");
            let by_odd = match &error {
                SessionError::Collective(CollectiveError::GaveUp { rank, reason }) => {
                    *rank == odd && (failure == Failure::Panic || reason.contains(REASON))
                }
                _ => false,
            };
            assert!(by_odd, "rank {rank}: {error}");
        }
    }
    let outputs = open(&case, members(&case, |_| cpu(1))).unwrap().run(&case.inputs).unwrap().0;
    assert!(outputs[0].words() == expected[0].words());
}

#[test]
fn ranks_on_emulated_gpus_give_the_words_of_cpus() {
    let mut rng = fresh_rng();
    let case = Case::random_on(&mut rng, 4, 2);
    let expected = open(&case, members(&case, |_| cpu(1))).unwrap().run(&case.inputs).unwrap().0;
    let order = rng.next_u64();
    if HostGpu::new(Order::Shuffled(order)).is_none() {
        println!("skipped: there is no C++ compiler");
        return;
    }
    let device = |_| -> Box<dyn Device> {
        let host = HostGpu::new(Order::Shuffled(order)).expect("there is a compiler");
        Box::new(CudaDevice::on(Box::new(host), false))
    };
    let mut ranks = open(&case, members(&case, device)).unwrap();
    for _ in 0..2 {
        assert!(ranks.run(&case.inputs).unwrap().0[0].words() == expected[0].words());
    }
}
