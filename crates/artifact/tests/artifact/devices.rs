//! Programs of two devices: what the devices owe each other, rule by rule.

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;

use crate::sample::{rejected, sample};

fn copy(limbs: Vec<(PrimeIndex, Operand, Operand)>) -> Step {
    let block = |(prime, load, store)| Block {
        prime,
        loads: vec![load],
        stores: vec![store],
        scalars: vec![],
        galois: vec![],
    };
    let program = Program { instructions: vec![Instruction::Load(0)], results: vec![0] };
    let body = Body::Elementwise { program, blocks: limbs.into_iter().map(block).collect() };
    Step::Launch(Kernel { stage: StageId(0), body })
}

/// The first prime at home on a device.
fn first(device: u16) -> PrimeIndex {
    PrimeIndex(device as u8)
}

/// The identity on two devices, which have the primes by turns. In `share`, which `main` calls for each polynomial, they give
/// each other their first limb, return their arguments meanwhile, and add up two copies of the first limb of d0.
fn pair() -> Artifact {
    let mut artifact = sample();
    let params = Params::new(artifact.params.clone()).unwrap();
    artifact.homes = (0..params.moduli().len()).map(|prime| DeviceId(prime as u16 % 2)).collect();
    artifact.keys.clear();
    artifact.weights.clear();
    let level = params.max_level();
    let program = |device: u16| {
        let own = |prime: &PrimeIndex| artifact.homes[prime.index()] == DeviceId(device);
        let primes: Vec<PrimeIndex> = params.basis(level).iter().filter(own).collect();
        let other = 1 - device;
        let collective = |movement| Step::Start(Collective { stage: StageId(0), movement });
        let mut copies: Vec<_> =
            (0..).zip(&primes).map(|(i, &prime)| (prime, Operand::Arg(i), Operand::Result(i))).collect();
        let mut part = Operand::Local(0);
        if device == 0 {
            part = Operand::Local(1);
            copies.push((first(0), Operand::Arg(0), part));
        }
        let share = Function {
            name: "share".into(),
            args: primes.clone(),
            results: primes.clone(),
            weight_params: 0,
            plaintexts: vec![],
            frame: 2 - u32::from(device),
            steps: vec![
                collective(Movement::Exchange {
                    sends: vec![Outgoing {
                        to: DeviceId(other),
                        prime: first(device),
                        limb: Operand::Arg(0),
                    }],
                    receives: vec![Incoming {
                        from: DeviceId(other),
                        prime: first(other),
                        limb: Operand::Local(0),
                    }],
                }),
                copy(copies),
                Step::Finish(0),
                collective(Movement::AllReduce { limbs: vec![(first(0), part)] }),
                Step::Finish(1),
            ],
        };
        let count = primes.len() as u32;
        let call = |poly: u32| Step::Call {
            stage: StageId(0),
            function: FunctionId(0),
            args: (0..count).map(|i| Operand::Arg(poly * count + i)).collect(),
            results: (0..count).map(|i| Operand::Result(poly * count + i)).collect(),
            weights: vec![],
        };
        let main = Function {
            name: "main".into(),
            args: [&primes[..], &primes[..]].concat(),
            results: [&primes[..], &primes[..]].concat(),
            frame: 0,
            steps: vec![call(0), call(1)],
            ..share.clone()
        };
        vec![share, main]
    };
    artifact.programs = vec![program(0), program(1)];
    artifact
}

#[test]
fn the_pair_is_valid_and_survives_its_file() {
    let artifact = pair();
    artifact.validate().unwrap();
    assert_eq!(artifact.devices().collect::<Vec<_>>(), [DeviceId(0), DeviceId(1)]);
    assert_eq!([0, 1, 2].map(|prime| artifact.home(PrimeIndex(prime)).0), [0, 1, 0]);
    let read = Artifact::from_bytes(&artifact.to_bytes().unwrap()).unwrap();
    assert_eq!(read, artifact);
    assert_ne!(read.digest().unwrap(), sample().digest().unwrap());
}

#[test]
fn traffic_is_counted_with_calls() {
    let artifact = pair();
    for device in artifact.devices() {
        let traffic = cost::program_traffic(artifact.functions(device), 2, 5);
        // Of each polynomial one limb of 32 words is sent, and as much for the sum of one.
        assert_eq!(traffic, cost::Traffic { collectives: 4, bytes: 2 * 2 * 4 * 32 });
    }
}

/// The steps of `share` on a device.
fn share(artifact: &mut Artifact, device: usize) -> &mut Vec<Step> {
    &mut artifact.programs[device][0].steps
}

/// The collectives of `share` on a device.
fn collective(artifact: &mut Artifact, device: usize, number: usize) -> &mut Collective {
    let collectives = share(artifact, device).iter_mut().filter_map(|step| match step {
        Step::Start(collective) => Some(collective),
        _ => None,
    });
    collectives.into_iter().nth(number).expect("there are two collectives")
}

fn exchange(artifact: &mut Artifact, device: usize) -> (&mut Vec<Outgoing>, &mut Vec<Incoming>) {
    match &mut collective(artifact, device, 0).movement {
        Movement::Exchange { sends, receives } => (sends, receives),
        Movement::AllReduce { .. } => panic!("the first collective is an exchange"),
    }
}

fn sum(artifact: &mut Artifact, device: usize) -> &mut Vec<(PrimeIndex, Operand)> {
    match &mut collective(artifact, device, 1).movement {
        Movement::AllReduce { limbs } => limbs,
        Movement::Exchange { .. } => panic!("the second collective is a sum"),
    }
}

/// Kernels come first, and d0 also sends its copy of its first limb.
fn send_a_copy(artifact: &mut Artifact) {
    for device in 0..2 {
        share(artifact, device).swap(0, 1);
    }
    let prime = first(0);
    exchange(artifact, 0).0.push(Outgoing { to: DeviceId(1), prime, limb: Operand::Local(1) });
    artifact.programs[1][0].frame = 2;
    exchange(artifact, 1).1.push(Incoming { from: DeviceId(0), prime, limb: Operand::Local(1) });
}

#[test]
fn a_copy_may_be_sent() {
    let mut artifact = pair();
    send_a_copy(&mut artifact);
    artifact.validate().unwrap();
}

rejected! {
    pair;
    no_device: |a| a.programs.clear() => "devices: there are 0; a program runs on 1 to 64";
    too_many_devices: |a| a.programs = vec![a.programs[0].clone(); 65] => "devices: there are 65";
    primes_without_a_home: |a| { a.homes.pop(); } => "primes with a home";
    homes_for_one_device: |a| { a.programs.pop(); } => "primes with a home, 0 are expected";
    home_on_no_device: |a| a.homes[0] = DeviceId(2) => "a prime is at home on d2, there are 2";
    fewer_functions: |a| { a.programs[1].remove(0); } => "device d1: its functions are not those of the others";
    other_function_name: |a| a.programs[1][0].name = "spare".into() => "device d1: its functions are not those";
    other_weight_params: |a| a.programs[1][0].weight_params = 1 => "device d1: its functions are not those";
    foreign_argument: |a| a.programs[0][0].args[0] = first(1) => "function `share` of d0: it takes or returns a limb of another";
    foreign_result: |a| a.programs[1][0].results[0] = first(0) => "function `share` of d1: it takes or returns a limb of another";
    another_input: |a| {
        let ciphertext = a.inputs[0].ciphertexts[0];
        a.inputs[0].ciphertexts.push(ciphertext);
    } => "inputs: their ciphertexts have";
    frame_of_the_second_device: |a| a.programs[1][0].frame = 9 => "its frame has 9 slots, it stores only 1 limbs";
    missing_collective: |a| { share(a, 1).drain(3..); } => "function `share` of d1: it has another number of calls";
    other_callee: |a| match &mut a.programs[1][1].steps[1] {
        Step::Call { function, .. } => *function = FunctionId(1),
        _ => panic!(),
    } => "function `main`, call or collective 1: the devices do different things";
    call_beside_collective: |a| {
        let collective = share(a, 0)[0].clone();
        a.programs[0][1].steps[0] = collective;
    } => "function `main`, call or collective 0: the devices do different things";
    collective_beside_call: |a| {
        let collective = share(a, 1)[0].clone();
        a.programs[1][1].steps[0] = collective;
    } => "function `main`, call or collective 0: the devices do different things";
    exchange_beside_sum: |a| share(a, 1).swap(0, 3) => "call or collective 0: what is sent is not what is received";
    sum_beside_exchange: |a| share(a, 0).swap(0, 3) => "call or collective 0: what is sent is not what is received";
    sum_of_other_primes: |a| sum(a, 1)[0].0 = first(1) => "call or collective 1: what is sent is not what is received";
    sum_of_fewer_limbs: |a| sum(a, 1).clear() => "call or collective 1: what is sent is not what is received";
    sent_to_nobody: |a| exchange(a, 0).0[0].to = DeviceId(2) => "what is sent is not what is received";
    sent_to_itself: |a| {
        exchange(a, 0).0[0].to = DeviceId(0);
        exchange(a, 0).1.push(Incoming { from: DeviceId(0), prime: first(0), limb: Operand::Local(1) });
        exchange(a, 1).1.clear();
    } => "what is sent is not what is received";
    received_from_nobody: |a| exchange(a, 1).1[0].from = DeviceId(7) => "what is sent is not what is received";
    sent_and_not_received: |a| exchange(a, 1).1.clear() => "what is sent is not what is received";
    received_and_not_sent: |a| exchange(a, 1).0.clear() => "what is sent is not what is received";
    received_as_another_prime: |a| exchange(a, 1).1[0].prime = PrimeIndex(2) => "what is sent is not what is received";
    received_in_another_order: |a| {
        let limb = exchange(a, 0).0[0];
        exchange(a, 0).0.push(Outgoing { prime: PrimeIndex(2), limb: Operand::Arg(1), ..limb });
        a.programs[1][0].frame = 2;
        let limb = exchange(a, 1).1[0];
        exchange(a, 1).1.insert(0, Incoming { prime: PrimeIndex(2), limb: Operand::Local(1), ..limb });
    } => "what is sent is not what is received";
    stage_of_a_collective: |a| collective(a, 0, 1).stage = StageId(1) => "function `share` step 3: its stage is not one of 1";
    sent_before_it_is_written: |a| exchange(a, 0).0[0].limb = Operand::Local(1) => "step 0: Local(1) is read before it is written";
    sent_plaintext: |a| {
        exchange(a, 0).0[0].limb = Operand::Plain { plaintext: 0, limb: 0 };
    } => "cannot be read here";
    received_as_argument: |a| {
        exchange(a, 1).1[0].limb = Operand::Arg(0);
        a.programs[1][0].frame = 0;
    } => "step 0: Arg(0) cannot be written";
    received_twice_in_one_slot: |a| {
        let limb = exchange(a, 0).0[0];
        exchange(a, 0).0.push(limb);
        let limb = exchange(a, 1).1[0];
        exchange(a, 1).1.push(limb);
    } => "step 0: Local(0) is written while a collective is under way";
    read_while_it_is_received: |a| {
        share(a, 0)[1] = copy(vec![(first(1), Operand::Local(0), Operand::Local(1))]);
    } => "step 1 block 0: Local(0) is read before it is written";
    written_while_it_is_received: |a| {
        share(a, 0)[1] = copy(vec![(first(0), Operand::Arg(0), Operand::Local(0))]);
    } => "step 1 block 0: Local(0) is written while a collective is under way that uses it";
    written_while_it_is_sent: |a| {
        send_a_copy(a);
        share(a, 0).insert(2, copy(vec![(first(0), Operand::Arg(0), Operand::Local(1))]));
    } => "step 2 block 0: Local(1) is written while a collective is under way that uses it";
    sum_of_nothing: |a| {
        sum(a, 1)[0].1 = Operand::Local(1);
        a.programs[1][0].frame = 2;
        share(a, 1).push(copy(vec![(first(1), Operand::Arg(0), Operand::Local(1))]));
    } => "step 3: Local(1) is read before it is written";
    sum_of_an_argument: |a| sum(a, 0)[0].1 = Operand::Arg(0) => "step 3: Arg(0) cannot be written";
    sum_of_one_slot_twice: |a| (0..2).for_each(|device| {
        let limb = sum(a, device)[0];
        sum(a, device).push(limb);
    }) => "step 3: Local(1) is read before it is written";
    sum_read_while_it_is_made: |a| {
        share(a, 0).insert(4, copy(vec![(first(0), Operand::Local(1), Operand::Local(0))]));
    } => "step 4 block 0: Local(1) is read before it is written";
    finished_before_it_starts: |a| share(a, 0)[2] = Step::Finish(1) => "step 2: it waits for collective 1, which is not the next";
    finished_twice: |a| share(a, 0)[4] = Step::Finish(0) => "step 4: it waits for collective 0, which is not the next";
    never_finished: |a| { share(a, 0).pop(); } => "step 4: collective 1 is not waited for";
    under_way_at_a_call: |a| (0..2).for_each(|device| {
        let collective = share(a, device)[0].clone();
        let main = &mut a.programs[device][1];
        main.frame = 1;
        main.steps.insert(0, collective);
        main.steps.push(Step::Finish(0));
    }) => "function `main` step 1: collective 0 is not waited for";
}
