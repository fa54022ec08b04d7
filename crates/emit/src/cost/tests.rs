use cerium_artifact::kernel::{Block, Body, Half, Instruction, Program, Transform};
use cerium_artifact::{
    Artifact, Collective, DeviceId, Function, FunctionId, Incoming, Kernel, Movement, Operand, Outgoing,
    Stage, StageId, Step,
};
use cerium_ckks::basis::{Level, PrimeIndex};
use cerium_ckks::params::{Params, ParamsSpec};

use super::demand::{Demand, Work};
use super::roofline::time;
use super::{Bound, Gpu, Group, Prediction, predict, predict_group};

const LOG_N: u32 = 13;
const LIMB: u64 = 4 << LOG_N;
const PRIME: PrimeIndex = PrimeIndex(0);

fn h200() -> &'static Gpu {
    Gpu::named("h200").unwrap()
}

pub(super) fn near(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 1e-9
}

#[test]
fn a_launch_takes_as_long_as_the_slowest_of_what_it_does() {
    let gpu = h200();
    // Full waves: 132 multiprocessors with eight blocks each.
    let demand = |work| Demand { blocks: 8 * 132, threads: 256, work, accesses: Vec::new() };
    let words = 1e9;
    let rate = 132.0 * 64.0 * 1.98e9 * 0.8;
    let multiplying = Work { wide: words, ..Work::default() };
    for (bound, work, dram, l2, seconds) in [
        (Bound::Dram, Work::default(), 1_000_000_000, 0, 1e9 / (4.8e12 * 0.78)),
        (Bound::L2, Work::default(), 1_000_000, 1_000_000_000, 1e9 / 6.1e12),
        (Bound::Multiply, multiplying, 1_000_000, 1_000_000, 2.0 * words / rate),
        (Bound::Launch, Work::default(), 1000, 1000, 1000.0 / (4.8e12 * 0.78)),
    ] {
        let time = time(gpu, &demand(work), dram, l2);
        assert_eq!(time.bound, bound);
        assert!(near(time.seconds, gpu.launch.value + seconds), "{bound}: {time:?}");
        assert!(time.apart >= time.seconds);
    }
    // One block more than a full wave takes as long as the next full wave.
    let work = |blocks: u64| Demand { blocks, threads: 256, work: multiplying, accesses: Vec::new() };
    let of_block = |blocks: u64| (time(gpu, &work(blocks), 0, 0).seconds - gpu.launch.value) * blocks as f64;
    assert!(near(of_block(133), 2.0 * of_block(132)));
    // A single block cannot keep memory busy.
    let few = Demand { blocks: 1, threads: 256, work: Work::default(), accesses: Vec::new() };
    assert!(time(gpu, &few, 1_000_000, 0).seconds > 50e-6);
}

/// `store = load0 + load1` of one limb.
fn sum(loads: [Operand; 2], store: Operand) -> Step {
    let program = Program {
        instructions: vec![Instruction::Load(0), Instruction::Load(1), Instruction::Add(0, 1)],
        results: vec![2],
    };
    let block = Block {
        prime: PRIME,
        loads: loads.to_vec(),
        stores: vec![store],
        scalars: Vec::new(),
        galois: Vec::new(),
    };
    let body = Body::Elementwise { program, blocks: vec![block] };
    Step::Launch(Kernel { stage: StageId(0), body })
}

fn function(name: &str, args: usize, steps: Vec<Step>) -> Function {
    Function {
        name: name.into(),
        args: vec![PRIME; args],
        results: vec![PRIME],
        weight_params: 0,
        plaintexts: Vec::new(),
        frame: 2,
        steps,
    }
}

pub(super) fn artifact(programs: Vec<Vec<Function>>) -> (Artifact, Params) {
    let params = Params::new(ParamsSpec::insecure(LOG_N as u8, 40, 2, 3).unwrap()).unwrap();
    let artifact = Artifact {
        name: "test".into(),
        params: params.spec().clone(),
        programs,
        homes: Vec::new(),
        communication: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        keys: Vec::new(),
        weights: Vec::new(),
        gathers: Vec::new(),
        tensors: Vec::new(),
        stages: Vec::new(),
        passes: Vec::new(),
        key_plan: None,
        normalization: None,
        model: Vec::new(),
    };
    (artifact, params)
}

#[test]
fn what_was_just_made_is_read_from_the_cache() {
    let key = Operand::Key { key: 0, digit: 0, half: Half::A, prime: PRIME };
    let steps = vec![
        sum([Operand::Arg(0), key], Operand::Local(0)),
        sum([Operand::Local(0), Operand::Arg(0)], Operand::Local(1)),
        sum([Operand::Local(1), key], Operand::Result(0)),
    ];
    let (artifact, params) = artifact(vec![vec![function("main", 1, steps)]]);
    let prediction = predict(&artifact, &params, h200());
    assert_eq!(prediction.count(), 3);
    assert_eq!(prediction.dram_bytes(), 2 * LIMB, "the argument and the key, once each");
    assert_eq!(prediction.l2_bytes(), 9 * LIMB);
    assert!(prediction.launches.iter().all(|launch| launch.class() == "elementwise"));

    let small = Gpu { l2: super::Figure { value: 2.0 * LIMB as f64, ..h200().l2 }, ..*h200() };
    assert!(predict(&artifact, &params, &small).dram_bytes() > 5 * LIMB, "with a cache of a limb");
}

#[test]
fn functions_count_as_often_as_they_are_called() {
    let body = vec![sum([Operand::Arg(0), Operand::Arg(0)], Operand::Result(0))];
    let call = |from: Operand, to: Operand| Step::Call {
        stage: StageId(0),
        function: FunctionId(0),
        args: vec![from],
        results: vec![to],
        weights: Vec::new(),
    };
    let calls = vec![
        call(Operand::Arg(0), Operand::Local(0)),
        call(Operand::Local(0), Operand::Local(1)),
        call(Operand::Local(1), Operand::Result(0)),
    ];
    let (artifact, params) = artifact(vec![vec![function("double", 1, body), function("main", 1, calls)]]);
    let prediction = predict(&artifact, &params, h200());
    assert_eq!((prediction.launches.len(), prediction.count()), (1, 3));
    let one = prediction.launches[0].time.seconds;
    assert!(near(prediction.seconds(), 3.0 * one) && near(prediction.stage(StageId(0)), 3.0 * one));
    let kernels = prediction.kernels();
    assert_eq!((kernels.len(), kernels[0].launches, kernels[0].limbs), (1, 3, 3));
}

#[test]
fn a_large_transform_is_two_launches_that_exchange_in_the_cache() {
    let block = Block {
        prime: PRIME,
        loads: vec![Operand::Arg(0)],
        stores: vec![Operand::Result(0)],
        scalars: Vec::new(),
        galois: Vec::new(),
    };
    let body = Body::Ntt(Transform {
        prologue: Program::load(),
        input: 0,
        epilogue: Program::input(),
        blocks: vec![block],
    });
    let step = Step::Launch(Kernel { stage: StageId(0), body });
    let (artifact, params) = artifact(vec![vec![function("main", 1, vec![step])]]);
    let prediction = predict(&artifact, &params, h200());
    assert_eq!(prediction.count(), 2);
    let factors = 1 << LOG_N;
    assert_eq!(prediction.dram_bytes(), LIMB + factors, "the limb and the factors come from memory");
    assert_eq!(prediction.l2_bytes(), 4 * LIMB + factors);
}

/// Two devices that add, exchange their sums beside another sum, and add what they got.
#[test]
fn devices_exchange_while_kernels_run() {
    let program = |peer: u16| {
        let (own, got, peer) = (Operand::Local(0), Operand::Local(1), DeviceId(peer));
        let movement = Movement::Exchange {
            sends: vec![Outgoing { to: peer, prime: PRIME, limb: own }],
            receives: vec![Incoming { from: peer, prime: PRIME, limb: got }],
        };
        let steps = vec![
            sum([Operand::Arg(0), Operand::Arg(0)], own),
            Step::Start(Collective { stage: StageId(0), movement }),
            sum([own, Operand::Arg(0)], Operand::Result(0)),
            Step::Finish(0),
            sum([own, got], Operand::Result(0)),
        ];
        vec![function("main", 1, steps)]
    };
    let (mut artifact, params) = artifact(vec![program(1), program(0)]);
    let stage = Stage {
        name: "sum".into(),
        level_in: Level(0),
        level_out: Level(0),
        operations: Vec::new(),
        error: 0.0,
    };
    artifact.stages.push(stage);
    let gpu = h200();
    let prediction = predict_group(&artifact, &params, gpu, &Group::new(2, 1, gpu.nvlink, gpu.network));
    // The argument and what was received come from memory.
    assert_eq!(prediction.devices.iter().map(Prediction::dram_bytes).collect::<Vec<_>>(), [2 * LIMB; 2]);
    let [first, beside, last] = [0, 1, 2].map(|launch| prediction.devices[0].launches[launch].time.seconds);
    // Over NVLink a limb takes longer than the sum that is beside it.
    let transfer = 10.5e-6 + LIMB as f64 / (4.5e11 * 0.75);
    assert!(transfer > beside);
    assert!(near(prediction.seconds(), first + transfer + last), "{prediction:?}");
    assert!(near(prediction.timeline.devices[1].total().exposed(), transfer - beside));
}
