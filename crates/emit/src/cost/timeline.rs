//! When devices that run a program together do what: kernels of a device one after the other, its collectives beside them, also
//! one after the other.
//!
//! A collective is posted on a device when the kernels before its start are done. Limbs of a device move once it and all that it
//! sends to or receives from have posted the collective and are done with the one before: first nothing for the latency of the
//! link, then for as long as the bytes take of the one among these devices that has most. `Finish` waits for that. A collective
//! takes nothing from the kernels that run meanwhile, neither multiprocessors nor bandwidth of memory; where devices move limbs by
//! hand ([`Group::hands`]), they do it in place of kernels, at the start and at the end.
//!
//! Every call is walked with the devices as far apart as they are when they make it, so that waiting for a device that is late
//! anywhere shows where somebody waits for it.

use std::ops::AddAssign;

use cerium_artifact::{Artifact, Collective, DeviceId, Function, StageId, Step};

use super::interconnect::Group;

#[cfg(test)]
mod tests;

/// What a device spends on a stage, or on all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Seconds of its kernels.
    pub kernels: f64,
    /// Seconds without kernels in which its limbs move, or it moves them.
    pub link: f64,
    /// Seconds without kernels in which a collective has begun and no byte moves yet.
    pub latency: f64,
    /// Seconds without kernels in which other devices are not there yet.
    pub peers: f64,
    /// Seconds from the beginning of collectives to their end, whether kernels run meanwhile or not.
    pub moving: f64,
    /// Collectives in which it takes part.
    pub collectives: u64,
    /// Bytes that it sends.
    pub sent: u64,
    /// Bytes of these that go to other nodes.
    pub sent_far: u64,
}

impl Spent {
    /// Seconds with kernels and without.
    pub fn seconds(&self) -> f64 {
        self.kernels + self.exposed()
    }

    /// Seconds without kernels.
    pub fn exposed(&self) -> f64 {
        self.link + self.latency + self.peers
    }

    /// Seconds in which collectives go on beside kernels.
    pub fn hidden(&self) -> f64 {
        (self.moving - self.link - self.latency).max(0.0)
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Spent) {
        self.kernels += other.kernels;
        self.link += other.link;
        self.latency += other.latency;
        self.peers += other.peers;
        self.moving += other.moving;
        self.collectives += other.collectives;
        self.sent += other.sent;
        self.sent_far += other.sent_far;
    }
}

/// A run as one device sees it. Tables are by stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceTimeline {
    /// Seconds from the beginning of the run to the end of the device's last step.
    pub end: f64,
    /// Of the entry, by its stages.
    pub entry: Vec<Spent>,
    /// Of functions, by their stages.
    pub functions: Vec<Spent>,
    /// Of functions, by the stage of the entry that called them.
    pub called: Vec<Spent>,
}

impl DeviceTimeline {
    fn new(stages: usize) -> DeviceTimeline {
        let table = vec![Spent::default(); stages];
        DeviceTimeline { end: 0.0, entry: table.clone(), functions: table.clone(), called: table }
    }

    /// All that the device does.
    pub fn total(&self) -> Spent {
        let mut total = Spent::default();
        self.entry.iter().chain(&self.functions).for_each(|&spent| total += spent);
        total
    }

    /// A stage, wherever its kernels are: in the entry and in functions.
    pub fn stage(&self, stage: StageId) -> Spent {
        let mut sum = self.entry[usize::from(stage.0)];
        sum += self.functions[usize::from(stage.0)];
        sum
    }

    /// Adds what a step of `stage` spends, in the entry or in a function that is called on behalf of `caller`.
    fn add(&mut self, stage: StageId, caller: Option<StageId>, spent: Spent) {
        match caller {
            None => self.entry[usize::from(stage.0)] += spent,
            Some(caller) => {
                self.functions[usize::from(stage.0)] += spent;
                self.called[usize::from(caller.0)] += spent;
            }
        }
        self.end += spent.seconds();
    }
}

/// A run on several devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The run as each device sees it.
    pub devices: Vec<DeviceTimeline>,
}

impl Timeline {
    /// Walks a validated artifact on a group of its devices; `seconds` gives the time of each launch by device, function and
    /// step.
    ///
    /// # Panics
    /// If the group has another number of devices than the artifact.
    pub fn new(
        artifact: &Artifact,
        group: &Group,
        log_n: u32,
        seconds: impl Fn(DeviceId, usize, usize) -> f64,
    ) -> Timeline {
        assert_eq!(group.devices, artifact.programs.len(), "a program for each device");
        let devices = artifact.devices().map(|_| DeviceTimeline::new(artifact.stages.len())).collect();
        let mut walk = Walk { artifact, group, log_n, seconds, devices };
        if let Some(entry) = artifact.programs[0].len().checked_sub(1) {
            walk.function(entry, None);
        }
        Timeline { devices: walk.devices }
    }

    /// Seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.devices[self.last()].end
    }

    /// The device that ends last, the first of several: what it spends is the time of the run.
    pub fn last(&self) -> usize {
        let ends = self.devices.iter().enumerate().rev();
        ends.max_by(|a, b| a.1.end.total_cmp(&b.1.end)).map_or(0, |(device, _)| device)
    }
}

/// A collective on a device.
#[derive(Clone, Copy, Debug, Default)]
struct Move {
    stage: StageId,
    /// When the device and all that it sends to or receives from have posted it and are done with the one before.
    begin: f64,
    /// When bytes begin to move.
    moves: f64,
    end: f64,
    /// Seconds to take in what is received.
    takes: f64,
}

impl Move {
    /// What a device spends that waits from `now` until the end, with no earlier collective to wait for.
    fn waits_from(&self, now: f64) -> Spent {
        let within = |from: f64, to: f64| (to - from.max(now)).max(0.0);
        Spent {
            link: within(self.moves, self.end) + self.takes,
            latency: within(self.begin, self.moves),
            peers: within(now, self.begin),
            ..Spent::default()
        }
    }
}

struct Walk<'a, F> {
    artifact: &'a Artifact,
    group: &'a Group,
    log_n: u32,
    seconds: F,
    devices: Vec<DeviceTimeline>,
}

impl<'a, F: Fn(DeviceId, usize, usize) -> f64> Walk<'a, F> {
    /// One activation of a function, called on behalf of a stage of the entry. All devices make the same calls and collectives
    /// in the same order, so they are taken from one to the next.
    fn function(&mut self, index: usize, caller: Option<StageId>) {
        let artifact = self.artifact;
        let mut next = vec![0; self.devices.len()];
        let mut moves: Vec<Vec<Move>> = vec![Vec::new(); self.devices.len()];
        loop {
            for device in artifact.devices() {
                let at = &mut next[device.index()];
                *at = self.advance(device, index, *at, &moves[device.index()], caller);
            }
            let function = |device: DeviceId| -> &'a Function { &artifact.functions(device)[index] };
            match function(DeviceId::default()).steps.get(next[0]) {
                None => break,
                Some(&Step::Call { stage, function: callee, .. }) => {
                    self.function(callee.0 as usize, caller.or(Some(stage)));
                }
                Some(_) => {
                    let collective = |device: DeviceId| match &function(device).steps[next[device.index()]] {
                        Step::Start(collective) => collective,
                        _ => panic!("the devices of a validated artifact do the same in the same order"),
                    };
                    let started: Vec<&Collective> = artifact.devices().map(collective).collect();
                    self.collective(&started, caller, &mut moves);
                }
            }
            next.iter_mut().for_each(|at| *at += 1);
        }
    }

    /// Takes a device from step `at` to its next call or collective, or to the end of the function.
    fn advance(
        &mut self,
        device: DeviceId,
        index: usize,
        mut at: usize,
        moves: &[Move],
        caller: Option<StageId>,
    ) -> usize {
        let timeline = &mut self.devices[device.index()];
        for step in &self.artifact.functions(device)[index].steps[at..] {
            match step {
                Step::Launch(kernel) => {
                    let kernels = (self.seconds)(device, index, at);
                    timeline.add(kernel.stage, caller, Spent { kernels, ..Spent::default() });
                }
                Step::Finish(collective) => {
                    let finished = moves[*collective as usize];
                    timeline.add(finished.stage, caller, finished.waits_from(timeline.end));
                }
                Step::Call { .. } | Step::Start(_) => break,
            }
            at += 1;
        }
        at
    }

    /// A collective that all devices have reached.
    fn collective(&mut self, started: &[&Collective], caller: Option<StageId>, moves: &mut [Vec<Move>]) {
        let transfers: Vec<_> = self
            .artifact
            .devices()
            .zip(started)
            .map(|(device, collective)| self.group.transfer(device, &collective.movement, self.log_n))
            .collect();
        for ((device, own), collective) in self.devices.iter_mut().zip(&transfers).zip(started) {
            let given = Spent { link: own.gives, moving: own.gives + own.takes, ..Spent::default() };
            device.add(collective.stage, caller, given);
        }
        let ready: Vec<f64> = self
            .devices
            .iter()
            .zip(moves.iter())
            .map(|(device, moves)| moves.last().map_or(device.end, |before| before.end.max(device.end)))
            .collect();
        for (device, own) in transfers.iter().enumerate() {
            let stage = started[device].stage;
            if own.peers.is_empty() {
                let end = ready[device];
                moves[device].push(Move { stage, begin: end, moves: end, end, takes: 0.0 });
                continue;
            }
            let with = || own.peers.iter().copied().chain([device]);
            let begin = with().map(|peer| ready[peer]).fold(0.0, f64::max);
            let bytes_move = with().map(|peer| transfers[peer].moving).fold(0.0, f64::max);
            let from = begin + own.latency;
            let moved = Move { stage, begin, moves: from, end: from + bytes_move, takes: own.takes };
            moves[device].push(moved);
            let spent = Spent {
                moving: moved.end - begin,
                collectives: 1,
                sent: own.sent,
                sent_far: own.sent_far,
                ..Spent::default()
            };
            self.devices[device].add(stage, caller, spent);
        }
    }
}
