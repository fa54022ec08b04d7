//! Timelines of hand-made programs. Limbs have 4096 bytes, links move 4096 bytes a second, and latency is half a second unless
//! said otherwise.

use cerium_artifact::kernel::{Body, Program};
use cerium_artifact::{
    Artifact, Collective, DeviceId, Function, FunctionId, Incoming, Kernel, Movement, Operand, Outgoing,
    Stage, StageId, Step,
};
use cerium_ckks::basis::{Level, PrimeIndex};

use super::super::interconnect::{Group, Link, NVLINK_4};
use super::super::{Figure, tests::artifact};
use super::{Spent, Timeline};

const LOG_N: u32 = 10;
const LIMB: u64 = 4096;

fn link(latency: f64) -> Link {
    let figure = |value| Figure { value, source: "made up for a test" };
    Link { title: "test", rate: figure(LIMB as f64), share: figure(1.0), latency: figure(latency) }
}

/// A step of a device in a test: kernels take what is written here.
#[derive(Clone)]
enum Do {
    Kernel(f64),
    /// Sends and receives a limb for each device that is named.
    Start(&'static [u16], &'static [u16]),
    Finish(u32),
    Call(u32, u16),
}

use Do::{Call, Finish, Kernel as K, Start};

fn step(of: &Do, stage: u16) -> Step {
    let (prime, limb, stage) = (PrimeIndex(0), Operand::Local(0), StageId(stage));
    match of {
        K(_) => {
            let body = Body::Elementwise { program: Program::load(), blocks: Vec::new() };
            Step::Launch(Kernel { stage, body })
        }
        Start(to, from) => Step::Start(Collective {
            stage,
            movement: Movement::Exchange {
                sends: to.iter().map(|&to| Outgoing { to: DeviceId(to), prime, limb }).collect(),
                receives: from.iter().map(|&from| Incoming { from: DeviceId(from), prime, limb }).collect(),
            },
        }),
        Finish(collective) => Step::Finish(*collective),
        &Call(function, stage) => Step::Call {
            stage: StageId(stage),
            function: FunctionId(function),
            args: Vec::new(),
            results: Vec::new(),
            weights: Vec::new(),
        },
    }
}

/// Programs of several devices: for each its functions, whose steps belong to the stage of the function's number.
fn walk(programs: &[Vec<Vec<Do>>], latency: f64) -> Timeline {
    walk_in(programs, &Group::new(programs.len(), 1, link(latency), NVLINK_4))
}

fn walk_in(programs: &[Vec<Vec<Do>>], group: &Group) -> Timeline {
    let function = |(index, steps): (usize, &Vec<Do>)| Function {
        name: format!("f{index}"),
        args: Vec::new(),
        results: Vec::new(),
        weight_params: 0,
        plaintexts: Vec::new(),
        frame: 1,
        steps: steps.iter().map(|of| step(of, index as u16)).collect(),
    };
    let functions = programs.iter().map(|program| program.iter().enumerate().map(function).collect());
    let stage = |index: usize| Stage {
        name: format!("s{index}"),
        level_in: Level(0),
        level_out: Level(0),
        operations: Vec::new(),
        error: 0.0,
    };
    let stages = (0..4).map(stage).collect();
    let artifact = Artifact { stages, ..artifact(functions.collect()).0 };
    Timeline::new(&artifact, group, LOG_N, |device, function, step| {
        match programs[device.index()][function][step] {
            K(seconds) => seconds,
            _ => panic!("only kernels have a time"),
        }
    })
}

/// Programs of one function.
fn main(programs: &[&[Do]], latency: f64) -> Timeline {
    walk(&programs.iter().map(|steps| vec![steps.to_vec()]).collect::<Vec<_>>(), latency)
}

#[test]
fn kernels_hide_a_transfer() {
    // Posted at 1, over at 1 + 0.5 + 2: before the kernel beside it ends at 6.
    let send = [K(1.0), Start(&[1, 1], &[]), K(5.0), Finish(0), K(1.0)];
    let receive = [K(1.0), Start(&[], &[0, 0]), K(5.0), Finish(0), K(1.0)];
    let timeline = main(&[&send, &receive], 0.5);
    assert_eq!(timeline.seconds(), 7.0);
    let sent = Spent { kernels: 7.0, moving: 2.5, collectives: 1, sent: 2 * LIMB, ..Spent::default() };
    assert_eq!(timeline.devices[0].total(), sent);
    assert_eq!(timeline.devices[1].total(), Spent { sent: 0, ..sent });
    assert_eq!(sent.hidden(), 2.5);

    // A kernel of one second hides the latency and half a second of two.
    let send = [K(1.0), Start(&[1, 1], &[]), K(1.0), Finish(0), K(1.0)];
    let receive = [K(1.0), Start(&[], &[0, 0]), K(1.0), Finish(0), K(1.0)];
    let timeline = main(&[&send, &receive], 0.5);
    assert_eq!(timeline.seconds(), 4.5);
    let spent = timeline.devices[1].total();
    assert_eq!((spent.link, spent.latency, spent.peers, spent.hidden()), (1.5, 0.0, 0.0, 1.0));
}

#[test]
fn a_late_peer_is_waited_for() {
    let early = [K(1.0), Start(&[1], &[1]), Finish(0)];
    let late = [K(4.0), Start(&[0], &[0]), Finish(0)];
    let timeline = main(&[&early, &late], 0.5);
    let [early, late] = [0, 1].map(|device| timeline.devices[device].total());
    assert_eq!((early.peers, early.latency, early.link), (3.0, 0.5, 1.0));
    assert_eq!((late.peers, late.latency, late.link), (0.0, 0.5, 1.0));
    assert_eq!(timeline.devices.iter().map(|device| device.end).collect::<Vec<_>>(), [5.5, 5.5]);
}

#[test]
fn who_takes_no_part_does_not_wait() {
    let sends = [K(1.0), Start(&[1], &[]), Finish(0)];
    let receives = [K(3.0), Start(&[], &[0]), Finish(0)];
    let other = [K(0.5), Start(&[], &[]), Finish(0), K(0.25)];
    let timeline = main(&[&sends, &receives, &other], 0.5);
    assert_eq!(timeline.devices.iter().map(|device| device.end).collect::<Vec<_>>(), [4.5, 4.5, 0.75]);
    assert_eq!(timeline.devices[2].total(), Spent { kernels: 0.75, ..Spent::default() });
    assert_eq!(timeline.last(), 0, "the first of those that end last");
}

#[test]
fn many_small_collectives_are_bound_by_latency() {
    let steps: Vec<Do> = (0..8).flat_map(|index| [Start(&[1], &[1]), K(0.25), Finish(index)]).collect();
    let peer: Vec<Do> = (0..8).flat_map(|index| [Start(&[0], &[0]), K(0.25), Finish(index)]).collect();
    let timeline = main(&[&steps, &peer], 10.0);
    assert_eq!(timeline.seconds(), 8.0 * 11.0);
    let spent = timeline.devices[0].total();
    assert_eq!((spent.latency, spent.link, spent.kernels), (8.0 * 9.75, 8.0, 2.0));
}

#[test]
fn collectives_of_a_device_go_one_after_the_other() {
    // 0.5 + 3 seconds for the first, 0.5 + 2 for the second, which begins when the first has ended.
    let one = [Start(&[1, 1, 1], &[1]), Start(&[1], &[1, 1]), K(1.0), Finish(0), Finish(1)];
    let other = [Start(&[0], &[0, 0, 0]), Start(&[0, 0], &[0]), K(1.0), Finish(0), Finish(1)];
    let timeline = main(&[&one, &other], 0.5);
    assert_eq!(timeline.seconds(), 6.0);
    let spent = timeline.devices[0].total();
    assert_eq!((spent.link, spent.latency, spent.moving), (4.5, 0.5, 6.0));
    assert_eq!((spent.collectives, spent.sent), (2, 4 * LIMB));
}

#[test]
fn a_device_that_receives_little_from_a_busy_one_waits_for_it() {
    // Device 0 sends a limb to each of three: all arrive after three seconds.
    let busy = [Start(&[1, 2, 3], &[]), Finish(0)];
    let receives = [Start(&[], &[0]), Finish(0)];
    let timeline = main(&[&busy, &receives, &receives, &receives], 0.5);
    assert!(timeline.devices.iter().all(|device| device.end == 3.5), "{timeline:?}");
}

#[test]
fn devices_without_copy_engines_copy_in_place_of_kernels() {
    // Two limbs are given in two seconds and taken in two, one limb in one.
    let one = vec![K(1.0), Start(&[1, 1], &[1]), K(5.0), Finish(0)];
    let other = vec![K(8.0), Start(&[0], &[0, 0]), Finish(0), K(1.0)];
    let timeline = walk_in(&[vec![one], vec![other]], &Group::threads(2, LIMB as f64, 0.5));
    // The first is at 8 when the second has given, at 9; both are awake at 9.5, and take.
    assert_eq!(timeline.devices.iter().map(|device| device.end).collect::<Vec<_>>(), [10.5, 12.5]);
    let spent = timeline.devices[0].total();
    assert_eq!((spent.kernels, spent.link, spent.latency, spent.peers), (6.0, 3.0, 0.5, 1.0));
    assert_eq!((spent.moving, spent.hidden()), (3.5, 0.0));
}

#[test]
fn calls_are_walked_with_the_devices_as_far_apart_as_they_are() {
    // Function 0 takes device 0 one second and device 1 two, and ends with an exchange of 1.5 seconds, after which both are at
    // the same time again. The entry, which is function 1, calls it for the stages 2 and 3.
    let inner = |seconds: f64, peer: &'static [u16]| vec![K(seconds), Start(peer, peer), Finish(0)];
    let entry = |seconds: f64| vec![Call(0, 2), K(seconds), Call(0, 3)];
    let timeline = walk(&[vec![inner(1.0, &[1]), entry(3.0)], vec![inner(2.0, &[0]), entry(1.0)]], 0.5);
    // Both at 3.5 after the first call, then at 6.5 and 4.5, and the second call begins its exchange at 7.5.
    assert_eq!(timeline.devices.iter().map(|device| device.end).collect::<Vec<_>>(), [9.0, 9.0]);
    let [first, second] = [&timeline.devices[0], &timeline.devices[1]];
    assert_eq!((first.called[2].peers, first.called[3].peers), (1.0, 0.0));
    assert_eq!((second.called[2].peers, second.called[3].peers), (0.0, 1.0));
    assert_eq!((first.entry[1].kernels, second.entry[1].kernels), (3.0, 1.0));
    assert_eq!(first.functions[0].seconds(), 6.0);
    assert_eq!(first.stage(StageId(0)).collectives, 2);
    for device in &timeline.devices {
        assert_eq!(device.total().seconds(), device.end);
        let sum = |table: &[Spent]| table.iter().map(Spent::seconds).sum::<f64>();
        assert_eq!(sum(&device.called), sum(&device.functions));
    }
}
