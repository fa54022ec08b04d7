//! Programs of several devices, run by ranks that are threads: the same words as the naive interpreter of all devices.

use std::time::Duration;

use cerium_artifact::{DeviceId, StageId};
use cerium_runtime::collectives::threads::threads;
use cerium_runtime::collectives::{Collectives, Patience};
use cerium_runtime::device::Device;
use cerium_runtime::key_store::KeyPart;
use cerium_runtime::null::measure_within;
use cerium_runtime::progress::silent;
use cerium_runtime::suite::{Case, below};
use cerium_runtime::{CpuDevice, KeyStore, Member, Ranks, SessionError, SessionOptions};

use crate::fresh_rng;
use crate::naive::Naive;

const PATIENCE: Patience = Patience { wait: Duration::from_secs(60), silence: Duration::from_secs(60) };

/// Each rank with its part of the keys and a device of its own.
fn members(case: &Case, device: impl Fn(usize) -> Box<dyn Device>) -> Vec<Member> {
    let Case { artifact, params, keys, .. } = case;
    let parts = KeyPart::all(artifact, params);
    let stores = KeyStore::parts_of_keys(params, &artifact.keys, keys.clone(), &parts, 1, &silent).unwrap();
    let ranks = threads(parts.len(), PATIENCE).into_iter().zip(stores);
    let member = |(collectives, keys): (_, KeyStore)| {
        let device = device(Collectives::rank(&collectives));
        Member { keys, device, collectives: Box::new(collectives) }
    };
    ranks.map(member).collect()
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
