//! Devices: homes of limbs, and that all devices do the same collectives and calls in the same order.

use cerium_ckks::params::Params;

use crate::error::{ensure, inconsistent};
use crate::{Artifact, ArtifactError, Collective, DeviceId, Function, FunctionId, Movement, Step};

/// Most devices of a program.
pub const MAX_DEVICES: usize = 64;

/// What all devices must agree on.
enum Event<'a> {
    Call(FunctionId),
    Start(&'a Collective),
}

fn events(function: &Function) -> Vec<Event<'_>> {
    let events = function.steps.iter().filter_map(|step| match step {
        Step::Call { function, .. } => Some(Event::Call(*function)),
        Step::Start(collective) => Some(Event::Start(collective)),
        Step::Launch(_) | Step::Finish(_) => None,
    });
    events.collect()
}

pub(super) fn check(artifact: &Artifact, params: &Params) -> Result<(), ArtifactError> {
    let (devices, homes) = (artifact.programs.len(), artifact.homes.len());
    ensure(
        (1..=MAX_DEVICES).contains(&devices),
        || "devices",
        || format!("there are {devices}; a program runs on 1 to {MAX_DEVICES}"),
    )?;
    let expected = if devices == 1 { 0 } else { params.moduli().len() };
    ensure(
        homes == expected,
        || "devices",
        || format!("there are {homes} primes with a home, {expected} are expected"),
    )?;
    let foreign = artifact.homes.iter().find(|home| home.index() >= devices);
    ensure(
        foreign.is_none(),
        || "devices",
        || format!("a prime is at home on {}, there are {devices}", foreign.copied().unwrap_or_default()),
    )?;
    let first = &artifact.programs[0];
    for (device, functions) in artifact.devices().zip(&artifact.programs) {
        let same = functions.len() == first.len()
            && functions.iter().zip(first).all(|(function, first)| {
                function.name == first.name && function.weight_params == first.weight_params
            });
        ensure(same, || format!("device {device}"), || "its functions are not those of the others")?;
        for function in functions {
            let mut primes = function.args.iter().chain(&function.results);
            let foreign = primes.find(|&&prime| artifact.home(prime) != device);
            ensure(
                foreign.is_none(),
                || format!("function `{}` of {device}", function.name),
                || "it takes or returns a limb of another device",
            )?;
        }
    }
    for index in 0..first.len() {
        check_function(artifact, index)?;
    }
    Ok(())
}

/// Holds the events of all devices in one function against each other.
fn check_function(artifact: &Artifact, index: usize) -> Result<(), ArtifactError> {
    let name = &artifact.programs[0][index].name;
    let all: Vec<Vec<Event<'_>>> = artifact.programs.iter().map(|program| events(&program[index])).collect();
    for (device, own) in artifact.devices().zip(&all) {
        ensure(
            own.len() == all[0].len(),
            || format!("function `{name}` of {device}"),
            || "it has another number of calls and collectives than on other devices",
        )?;
    }
    for event in 0..all[0].len() {
        let place = || format!("function `{name}`, call or collective {event}");
        let apart = || inconsistent(place(), "the devices do different things");
        match all[0][event] {
            Event::Call(callee) => {
                let same = |own: &Vec<Event<'_>>| matches!(own[event], Event::Call(other) if other == callee);
                ensure(all.iter().all(same), place, || "the devices do different things")?;
            }
            Event::Start(_) => {
                let started = all.iter().map(|own| match own[event] {
                    Event::Start(collective) => Ok(&collective.movement),
                    Event::Call(_) => Err(apart()),
                });
                let movements = started.collect::<Result<Vec<_>, _>>()?;
                ensure(agree(&movements), place, || "what is sent is not what is received")?;
            }
        }
    }
    Ok(())
}

/// Whether what each device sends to each other is what that one receives, or all add up the same limbs.
fn agree(movements: &[&Movement]) -> bool {
    if let Movement::AllReduce { limbs } = movements[0] {
        return movements.iter().all(|movement| match movement {
            Movement::AllReduce { limbs: others } => {
                others.iter().map(|limb| limb.0).eq(limbs.iter().map(|limb| limb.0))
            }
            Movement::Exchange { .. } => false,
        });
    }
    let devices = movements.len();
    // What goes from one to another, in order.
    let mut sent = vec![Vec::new(); devices * devices];
    let mut received = sent.clone();
    for (own, movement) in movements.iter().enumerate() {
        let Movement::Exchange { sends, receives } = movement else { return false };
        let known = |device: DeviceId| device.index() < devices && device.index() != own;
        if !sends.iter().all(|limb| known(limb.to)) || !receives.iter().all(|limb| known(limb.from)) {
            return false;
        }
        sends.iter().for_each(|limb| sent[own * devices + limb.to.index()].push(limb.prime));
        receives.iter().for_each(|limb| received[limb.from.index() * devices + own].push(limb.prime));
    }
    sent == received
}
