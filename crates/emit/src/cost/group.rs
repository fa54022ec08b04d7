//! The predicted time of a program on several devices of one kind.

use cerium_artifact::{Artifact, Function};
use cerium_ckks::params::Params;

use super::device::Gpu;
use super::interconnect::Group;
use super::timeline::Timeline;
use super::{Prediction, predict_device};

/// The predicted time of a program on several devices.
#[derive(Clone, Debug)]
pub struct GroupPrediction {
    /// The launches of each device.
    pub devices: Vec<Prediction>,
    /// When they are done, with the collectives between them.
    pub timeline: Timeline,
}

impl GroupPrediction {
    /// Seconds of a run.
    pub fn seconds(&self) -> f64 {
        self.timeline.seconds()
    }

    /// The launches of the device that ends last.
    pub fn last(&self) -> &Prediction {
        &self.devices[self.timeline.last()]
    }
}

/// Predicts the time of a run of a validated artifact on a group of as many GPUs as it is for. Every device has an L2 cache of its
/// own, and reads what it receives from memory.
///
/// # Panics
/// If the group has another number of devices than the artifact.
pub fn predict_group(artifact: &Artifact, params: &Params, gpu: &Gpu, group: &Group) -> GroupPrediction {
    let devices: Vec<Prediction> =
        artifact.devices().map(|device| predict_device(artifact, params, gpu, device)).collect();
    let none = |functions: &Vec<Function>| -> Vec<Vec<f64>> {
        functions.iter().map(|function| vec![0.0; function.steps.len()]).collect()
    };
    let mut seconds: Vec<Vec<Vec<f64>>> = artifact.programs.iter().map(none).collect();
    for (seconds, prediction) in seconds.iter_mut().zip(&devices) {
        for launch in &prediction.launches {
            seconds[launch.function.0 as usize][launch.step] += launch.time.seconds;
        }
    }
    let timeline = Timeline::new(artifact, group, params.log_n(), |device, function, step| {
        seconds[device.index()][function][step]
    });
    GroupPrediction { devices, timeline }
}
