//! `cerium simulate`: the program on clear slots, against the network.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use cerium_models::budget::Samples;
use cerium_models::simulate::{Budget, Simulation, largest, simulate};
use serde_json::{Value, json};

use super::compile::Choices;
use super::model::ModelArgs;
use crate::figures::{self, row};
use crate::network::{Polynomials, plan_network};
use crate::progress::Progress;

/// Run the packed and approximated program on clear slots: what encryption would compute, but for its noise. Reports
/// range and error of each layer, and the first one over budget.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cerium simulate models/mnist/mnist.onnx --calibrate models/mnist/calibration \
    --data models/mnist/sample"
)]
pub(crate) struct Simulate {
    #[command(flatten)]
    model: ModelArgs,
    /// Inputs, with labels if there are any.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// At most this many inputs.
    #[arg(long, default_value_t = 100, value_name = "N")]
    count: usize,
    /// Sample inputs for calibration; without them the simulated inputs themselves are taken, which flatters the result.
    #[arg(long, value_name = "DATA")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    choices: Choices,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Simulate {
    pub(crate) fn run(self) -> Result<()> {
        let (choice, activations) = (self.choices.choice()?, self.choices.activations()?);
        let network = self.model.read()?;
        let data = network.data(&self.data)?;
        let inputs = network.inputs(&data, self.count)?;
        let calibration = self.calibrate.as_deref().map(|path| network.data(path)).transpose()?;
        let samples = network.inputs(
            calibration.as_ref().unwrap_or(&data),
            match calibration {
                Some(_) => self.choices.samples,
                None => self.count.min(self.choices.samples),
            },
        )?;
        let start = Instant::now();
        let progress = Progress::new();
        let labels = calibration.as_ref().unwrap_or(&data).labels(samples.len());
        let samples = Samples { inputs: &samples, labels: labels.as_deref() };
        let polynomials = Polynomials::choose(&network, &samples, &activations, &progress)?;
        let (params, plan) = progress.work("packing", || {
            plan_network(&network, &polynomials.substitution, &choice, self.choices.batch())
        })?;
        let step = |done, total| progress.step("simulating", done, total);
        let simulation = simulate(&plan, &params, &inputs, &Budget::default(), &step)
            .with_context(|| format!("{}", self.data.display()))?;
        progress.clear();
        let count = simulation.clear.len();
        let labels = data.labels(count);
        let accuracy = |outputs: &[Vec<f64>]| {
            let labels = labels.as_ref().filter(|_| count > 0)?;
            let right =
                outputs.iter().zip(labels).filter(|(output, label)| largest(output) == **label).count();
            Some(right as f64 / count as f64)
        };
        let (clear, packed) = (accuracy(&simulation.clear), accuracy(&simulation.packed));
        if self.json {
            return figures::print_json(&json!({
                "count": count,
                "slots": params.slots(),
                "batch": self.choices.batch().pictures(),
                "clear_accuracy": clear,
                "simulated_accuracy": packed,
                "agreements": simulation.agreements(),
                "first_over_budget": simulation.first_over_budget().map(|layer| &layer.name),
                "largest_output_error": simulation.largest_error(),
                "outputs": simulation.packed,
                "expected_loss_points": polynomials.loss.map(|[loss, _]| loss),
                "layers": layers_json(&simulation),
                "seconds": start.elapsed().as_secs_f64(),
            }));
        }
        let mut text = show_layers(&simulation) + "\n" + &polynomials.show_loss();
        text += &format!("{} of {count} answers are those of the original network", simulation.agreements());
        if let (Some(clear), Some(packed)) = (clear, packed) {
            text += &format!("; accuracy {:.2}%, originally {:.2}%", 100.0 * packed, 100.0 * clear);
        }
        text += &format!("; largest error of an output {:.3}", simulation.largest_error());
        if self.calibrate.is_none() {
            text += "\ncalibrated on these inputs themselves; --calibrate DATA takes others";
        }
        text += &match simulation.first_over_budget() {
            Some(layer) => {
                let why = layer.over_budget.as_deref().unwrap_or_default();
                format!("\nfirst layer over budget: {} ({}): {why}\n", layer.name, layer.operation)
            }
            None => "\nno layer is over budget\n".into(),
        };
        figures::print(&text)
    }
}

fn show_layers(simulation: &Simulation) -> String {
    let mut rows = vec![row([
        "layer",
        "operation",
        "realized by",
        "smallest",
        "largest",
        "of range",
        "rms error",
        "relative",
        "budget",
    ])];
    for layer in &simulation.layers {
        rows.push(row([
            &layer.name,
            &layer.operation,
            &layer.realized_by,
            &format!("{:.3}", layer.min),
            &format!("{:.3}", layer.max),
            &format!("{:.2}", layer.largest_slot),
            &format!("{:.4}", layer.rms_error),
            &format!("{:.4}", layer.relative_error),
            if layer.over_budget.is_some() { "OVER" } else { "ok" },
        ]));
    }
    figures::table(&rows)
}

fn layers_json(simulation: &Simulation) -> Value {
    let layer = |layer: &cerium_models::simulate::LayerReport| {
        json!({
            "name": layer.name,
            "operation": layer.operation,
            "realized_by": layer.realized_by,
            "min": layer.min,
            "max": layer.max,
            "largest_slot": layer.largest_slot,
            "max_error": layer.max_error,
            "rms_error": layer.rms_error,
            "relative_error": layer.relative_error,
            "over_budget": layer.over_budget,
        })
    };
    simulation.layers.iter().map(layer).collect()
}
