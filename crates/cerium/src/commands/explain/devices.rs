//! What is reported of a program on several devices: memory, communication and waiting.

use cerium_artifact::{StageId, Traffic};
use cerium_emit::cost::{Group, Link, Spent, Timeline};
use cerium_runtime::null::Measurement;
use serde_json::{Value, json};

use super::layers::printable;
use super::report::{Report, Section, memory};
use crate::figures::{self, row, seconds};

/// A program on several devices.
pub(super) struct Devices<'a> {
    pub(super) report: &'a Report,
    pub(super) group: &'a Group,
    pub(super) timeline: &'a Timeline,
}

/// How devices are joined: `NVLink 4`, or `NVLink 4, 2 nodes over InfiniBand NDR`.
pub(super) fn joined(group: &Group) -> String {
    match group.nodes() {
        1 => group.link.title.into(),
        nodes => format!("{}, {nodes} nodes over {}", group.link.title, group.network.title),
    }
}

impl Devices<'_> {
    pub(super) fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.devices(), self.communication(), self.passes()];
        // What was measured on the spot is said elsewhere.
        if self.group.hands.is_none() {
            sections.push(self.figures());
        }
        sections
    }

    fn each(&self) -> impl Iterator<Item = (usize, &Measurement, Spent, f64)> {
        let timelines = self.timeline.devices.iter();
        let each = self.report.devices.iter().zip(timelines).enumerate();
        each.map(|(device, (costs, timeline))| (device, costs, timeline.total(), timeline.end))
    }

    fn devices(&self) -> Section {
        let heads =
            ["device", "keys", "weights", "working", "memory", "sent", "kernels", "waiting", "ends after"];
        let mut rows = vec![row(heads)];
        rows.extend(self.each().map(|(device, costs, spent, end)| {
            row([
                &device.to_string(),
                &figures::bytes(costs.key_bytes),
                &figures::bytes(costs.plaintext_bytes + costs.raw_weight_bytes),
                &figures::bytes(costs.pool_bytes),
                &figures::bytes(memory(costs)),
                &figures::bytes(spent.sent),
                &seconds(spent.kernels),
                &seconds(spent.exposed()),
                &seconds(end),
            ])
        }));
        let note = "Keys and weights are where kernels read them. Waiting: for limbs to move, and for devices that are late.";
        Section { title: "Devices", rows, note: note.into() }
    }

    /// Stages with communication: their name, bytes that all devices send, and what the device spends that ends last.
    fn stages(&self) -> impl Iterator<Item = (&str, u64, Spent)> {
        let stages = self.report.program.artifact.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| {
            let id = StageId(index as u16);
            let devices = &self.timeline.devices;
            let sent = devices.iter().map(|device| device.stage(id).sent).sum();
            (stage.name.as_str(), sent, devices[self.timeline.last()].stage(id))
        });
        stages.filter(|(_, sent, spent)| *sent > 0 || spent.exposed() > 0.0)
    }

    fn communication(&self) -> Section {
        let heads =
            ["communication", "collectives", "sent by all", "kernels", "beside", "link", "latency", "late"];
        let mut rows = vec![row(heads)];
        let line = |name: &str, sent: u64, spent: Spent| {
            row([
                name,
                &spent.collectives.to_string(),
                &figures::bytes(sent),
                &seconds(spent.kernels),
                &seconds(spent.hidden()),
                &seconds(spent.link),
                &seconds(spent.latency),
                &seconds(spent.peers),
            ])
        };
        rows.extend(self.stages().map(|(name, sent, spent)| line(&printable(name), sent, spent)));
        let sent = self.each().map(|(_, _, spent, _)| spent.sent).sum();
        rows.push(line("all", sent, self.timeline.devices[self.timeline.last()].total()));
        let note = format!(
            "On the device that ends last, over {}, by the stages that kernels and collectives belong to. Beside: communication \
             while kernels run. Then waiting: while limbs move, before they do, and for devices that are late.",
            joined(self.group)
        );
        Section { title: "Communication", rows, note }
    }

    /// What is sent after each communication pass.
    fn passes(&self) -> Section {
        let mut rows = vec![row(["after", "collectives", "sent by all", "saved"])];
        let passes = &self.report.program.artifact.communication;
        let before = passes.first().map_or(0, |first| first.traffic.bytes);
        rows.extend(passes.iter().map(|figures| {
            let saved = 1.0 - figures.traffic.bytes as f64 / before.max(1) as f64;
            row([
                &figures.pass,
                &figures.traffic.collectives.to_string(),
                &figures::bytes(figures.traffic.bytes),
                &format!("{:.1}%", 100.0 * saved),
            ])
        }));
        let note = "Key switching: every key switch and every division receives what it needs for itself.";
        Section { title: "Communication passes", rows, note: note.into() }
    }

    fn links(&self) -> Vec<Link> {
        let mut links = vec![self.group.link];
        links.extend((self.group.nodes() > 1).then_some(self.group.network));
        links
    }

    fn figures(&self) -> Section {
        let mut rows = vec![row(["taken to be so", "figure", "source"])];
        let figures = self.links();
        let figures = figures.iter().flat_map(Link::figures);
        rows.extend(figures.map(|(what, value, source)| row([&what, &value, source])));
        Section { title: "What joins the devices", rows, note: String::new() }
    }

    pub(super) fn to_json(&self) -> Value {
        let each = self.each().map(|(_, costs, spent, end)| {
            let mut json = spent_json(spent);
            json["key_bytes"] = costs.key_bytes.into();
            json["weight_bytes"] = (costs.plaintext_bytes + costs.raw_weight_bytes).into();
            json["pool_bytes"] = costs.pool_bytes.into();
            json["memory_bytes"] = memory(costs).into();
            json["end_seconds"] = end.into();
            json
        });
        let stages = self.stages().map(|(name, sent, spent)| {
            let mut json = spent_json(spent);
            json["name"] = name.into();
            json["bytes_sent_by_all"] = sent.into();
            json
        });
        let figures = self.links();
        let figures = figures.iter().flat_map(Link::figures);
        let figures =
            figures.map(|(what, value, source)| json!({ "what": what, "value": value, "source": source }));
        let passes = self.report.program.artifact.communication.iter().map(|figures| {
            let Traffic { collectives, bytes } = figures.traffic;
            json!({ "pass": figures.pass, "collectives": collectives, "bytes_sent_by_all": bytes })
        });
        json!({
            "count": self.group.devices,
            "nodes": self.group.nodes(),
            "link": joined(self.group),
            "last": self.timeline.last(),
            "each": each.collect::<Vec<_>>(),
            "stages": stages.collect::<Vec<_>>(),
            "passes": passes.collect::<Vec<_>>(),
            "figures": figures.collect::<Vec<_>>(),
        })
    }
}

/// What a device spends.
pub(super) fn spent_json(spent: Spent) -> Value {
    json!({
        "collectives": spent.collectives,
        "bytes_sent": spent.sent,
        "bytes_sent_to_other_nodes": spent.sent_far,
        "kernel_seconds": spent.kernels,
        "communication_seconds_beside_kernels": spent.hidden(),
        "waiting_seconds_link": spent.link,
        "waiting_seconds_latency": spent.latency,
        "waiting_seconds_late_devices": spent.peers,
    })
}
