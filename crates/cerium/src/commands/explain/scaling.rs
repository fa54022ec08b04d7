//! How the time of a program shrinks with devices, and what keeps it from shrinking further.

use anyhow::{Result, bail};
use cerium_compiler::limb::devices::Link;
use cerium_emit::cost::{Bound, Gpu, Group, GroupPrediction, Prediction, Spent, predict, predict_group};
use serde_json::{Value, json};

use super::devices::{joined, spent_json};
use super::layers::printable;
use crate::figures::{self, row, seconds};
use crate::program::Program;

/// Devices and nodes that are predicted, and the link of the devices of a node and for which the program is compiled.
pub(super) const GROUPS: [(usize, usize, Link); 8] = [
    (1, 1, Link::Nvlink),
    (2, 1, Link::Nvlink),
    (4, 1, Link::Nvlink),
    (8, 1, Link::Nvlink),
    (2, 1, Link::Pcie),
    (4, 1, Link::Pcie),
    (8, 1, Link::Pcie),
    (16, 2, Link::Network),
];

/// A program for as many devices as it is compiled for.
pub(super) struct Scaled {
    pub(super) program: Program,
    pub(super) nodes: usize,
    /// What joins the devices: PCIe if it says so, else NVLink, and a network between nodes.
    pub(super) link: Link,
}

/// One prediction.
struct Point {
    gpu: &'static Gpu,
    group: Group,
    seconds: f64,
    /// Seconds of one device.
    alone: f64,
    /// The device that ends last.
    spent: Spent,
    limit: String,
}

/// The predicted time of a program on more and more devices.
pub(super) struct Scaling {
    name: String,
    points: Vec<Point>,
}

impl Scaling {
    /// Predicts a program in several forms, the first of them for one device, on these GPUs.
    pub(super) fn new(programs: &[Scaled], gpus: &[&'static Gpu]) -> Result<Scaling> {
        let first = &programs[0].program;
        let name = &first.artifact.name;
        if let Some(other) = programs.iter().find(|other| other.program.artifact.name != *name) {
            bail!("`{}` and `{name}` are different programs", other.program.artifact.name);
        }
        if first.artifact.programs.len() != 1 {
            bail!("speedups are over one device: name the program that is compiled for one first");
        }
        let mut points = Vec::new();
        for &gpu in gpus {
            let alone = predict(&first.artifact, &first.params, gpu);
            for Scaled { program, nodes, link } in programs {
                let link = if *link == Link::Pcie { gpu.pcie } else { gpu.nvlink };
                let group = Group::new(program.artifact.programs.len(), *nodes, link, gpu.network);
                let prediction = predict_group(&program.artifact, &program.params, gpu, &group);
                points.push(Point::new(gpu, group, &prediction, &alone));
            }
        }
        Ok(Scaling { name: name.clone(), points })
    }

    pub(super) fn text(&self) -> String {
        let heads = [
            "GPU",
            "devices",
            "joined by",
            "predicted",
            "speedup",
            "efficiency",
            "kernels",
            "link",
            "latency",
            "late",
            "sent",
            "limited by",
        ];
        let mut rows = vec![row(heads)];
        rows.extend(self.points.iter().map(|point| {
            let share = |seconds: f64| format!("{:.0}%", 100.0 * seconds / point.seconds);
            row([
                point.gpu.name,
                &point.group.devices.to_string(),
                &point.joined(),
                &seconds(point.seconds),
                &format!("{:.2}", point.speedup()),
                &format!("{:.0}%", 100.0 * point.speedup() / point.group.devices as f64),
                &share(point.spent.kernels),
                &share(point.spent.link),
                &share(point.spent.latency),
                &share(point.spent.peers),
                &figures::bytes(point.spent.sent),
                &point.limit,
            ])
        }));
        format!(
            "program `{}`\n{}  Shares of the time, bytes sent and limits are those of the device that ends last; efficiency is \
             speedup over devices.\n  Limited by: what keeps the time most from that of one device over the number of devices.\n",
            printable(&self.name),
            figures::columns(&rows, 3)
        )
    }

    pub(super) fn to_json(&self) -> Value {
        let point = |point: &Point| {
            let mut json = spent_json(point.spent);
            json["gpu"] = point.gpu.name.into();
            json["devices"] = point.group.devices.into();
            json["nodes"] = point.group.nodes().into();
            json["link"] = point.joined().into();
            json["predicted_seconds"] = point.seconds.into();
            json["speedup"] = point.speedup().into();
            json["limited_by"] = point.limit.clone().into();
            json
        };
        json!({ "name": self.name, "points": self.points.iter().map(point).collect::<Vec<_>>() })
    }
}

impl Point {
    fn new(gpu: &'static Gpu, group: Group, prediction: &GroupPrediction, alone: &Prediction) -> Point {
        let spent = prediction.timeline.devices[prediction.timeline.last()].total();
        Point {
            gpu,
            group,
            seconds: prediction.seconds(),
            alone: alone.seconds(),
            spent,
            limit: limit(prediction.last(), alone, spent, group.devices as f64),
        }
    }

    fn speedup(&self) -> f64 {
        self.alone / self.seconds
    }

    fn joined(&self) -> String {
        if self.group.devices == 1 { "-".into() } else { joined(&self.group) }
    }
}

/// What the largest part is of the time beyond that of one device over the number of devices: waiting of a kind, or kernels, then
/// with what bounds those that shrink least. For one device, what bounds most of its time.
fn limit(last: &Prediction, alone: &Prediction, spent: Spent, devices: f64) -> String {
    let excess = |bound: Bound| last.bound(bound) - alone.bound(bound) / devices;
    let of_kernels = |value: &dyn Fn(Bound) -> f64| {
        let largest = Bound::ALL.into_iter().max_by(|&a, &b| value(a).total_cmp(&value(b)));
        format!("kernels: {}", largest.expect("there are bounds"))
    };
    if devices == 1.0 {
        return of_kernels(&|bound| last.bound(bound));
    }
    let waiting = [("link", spent.link), ("latency", spent.latency), ("late devices", spent.peers)];
    let (name, most) = waiting.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are three");
    match spent.kernels - alone.seconds() / devices > most {
        true => of_kernels(&excess),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cerium_artifact::{FunctionId, StageId};
    use cerium_emit::cost::{PredictedLaunch, Time};

    #[test]
    fn what_shrinks_least_limits() {
        let launches = |all: &[(Bound, f64)]| Prediction {
            launches: all
                .iter()
                .map(|&(bound, seconds)| PredictedLaunch {
                    function: FunctionId(0),
                    step: 0,
                    part: 0,
                    entry: "ntt_0".into(),
                    stage: StageId(0),
                    calls: 1,
                    limbs: 1,
                    time: Time { seconds, apart: seconds, bound, dram_bytes: 0, l2_bytes: 0 },
                })
                .collect(),
        };
        let alone = launches(&[(Bound::Dram, 8.0), (Bound::Launch, 2.0)]);
        // A quarter of memory's time, but all of the launches: 1.5 seconds too much.
        let last = launches(&[(Bound::Dram, 2.0), (Bound::Launch, 2.0)]);
        let spent = |link, latency, peers| Spent { kernels: 4.0, link, latency, peers, ..Spent::default() };
        let of = |spent: Spent| limit(&last, &alone, spent, 4.0);
        assert_eq!(of(spent(1.0, 1.4, 0.1)), "kernels: launch");
        assert_eq!(of(spent(1.6, 1.4, 0.1)), "link");
        assert_eq!(of(spent(1.6, 1.4, 3.0)), "late devices");
        assert_eq!(
            limit(&alone, &alone, Spent { kernels: 10.0, ..Spent::default() }, 1.0),
            "kernels: memory"
        );
    }
}
