//! `cerium compile`: a model file to a program.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cerium_artifact::MAX_DEVICES;
use cerium_compiler::ir::Trace;
use cerium_compiler::limb::devices::{DeviceOptions, Link};
use cerium_models::approximation::ApproximationOptions;
use cerium_models::budget::{Budget, Samples};
use cerium_models::graph::Op;
use cerium_models::lower::{Plan, Realization};
use cerium_models::packing::Batch;
use serde_json::{Value, json};

use super::model::ModelArgs;
use crate::figures::{self, row};
use crate::network::{Activations, Choice, Compiled, Polynomials, Server, compile_network};
use crate::prediction::Prediction;
use crate::program::Program;
use crate::progress::Progress;
use crate::speed::Speed;

/// Compile a network into a program on encrypted data.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cerium compile models/mnist/mnist.onnx --calibrate models/mnist/calibration -o mnist.cerium\n  \
    cerium compile models/mnist/mnist.onnx --calibrate models/mnist/calibration --batch 4 -o mnist4.cerium"
)]
pub(crate) struct Compile {
    #[command(flatten)]
    model: ModelArgs,
    /// Sample inputs, from which the ranges of the activations are taken: an IDX pair, a folder with one, CIFAR-10
    /// batches (.bin) or safetensors.
    #[arg(long, value_name = "DATA")]
    calibrate: PathBuf,
    /// Where the program goes.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    choices: Choices,
    /// Memory that the evaluation keys may take on the server, such as `4GB` or `500MB`; where they would take more, the
    /// program makes do with fewer keys and takes more time.
    #[arg(long, value_name = "SIZE")]
    key_memory: Option<String>,
    /// Devices that run the program together: the limbs of every ciphertext are spread over them, and each keeps only the keys
    /// and weights that it reads.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_DEVICES as i64))]
    devices: u16,
    /// What joins the devices, by which it is weighed what they send and what they rather compute: `memory` of one machine for
    /// CPUs, `nvlink` or `pcie` for GPUs, `network` between machines.
    #[arg(long, default_value = Link::Memory.name(), value_name = "LINK")]
    link: Link,
    /// Show what each pass of the compiler did, and its time.
    #[arg(long)]
    trace: bool,
    /// Show the program before and after this pass (`all` for every one); may be given more than once.
    #[arg(long, value_name = "PASS")]
    dump: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What decides the program besides the network.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Choices {
    /// Parameter set; `auto` takes the smallest secure one that fits.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    params: String,
    /// Allow parameter sets without security, for tests.
    #[arg(long)]
    insecure: bool,
    /// Inputs in one ciphertext: they are computed at once, in about the time that one takes.
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Calibrate with at most this many samples.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(super) samples: usize,
    /// Points of accuracy that polynomials in the place of activations may lose: the cheapest ones are taken that are expected
    /// to lose no more on the samples.
    #[arg(long, default_value_t = Budget::default().points, value_name = "POINTS", conflicts_with = "degree")]
    accuracy: f64,
    /// Polynomials of this degree for all activations, whatever they lose.
    #[arg(long, value_name = "D")]
    degree: Option<usize>,
    /// How much wider than in the samples the ranges of activations are taken; 1.5 with --degree, else 2.
    #[arg(long, value_name = "FACTOR")]
    margin: Option<f64>,
}

impl Choices {
    pub(super) fn choice(&self) -> Result<Choice> {
        Choice::parse(&self.params, self.insecure)
    }

    pub(super) fn batch(&self) -> Batch {
        Batch::new(self.batch as usize)
    }

    pub(super) fn activations(&self) -> Result<Activations> {
        if let Some(margin) = self.margin.filter(|margin| !(1.0..=100.0).contains(margin)) {
            bail!("--margin {margin} is out of range; choose 1 to 100");
        }
        let with_margin = |options: ApproximationOptions| ApproximationOptions {
            margin: self.margin.unwrap_or(options.margin),
            ..options
        };
        match self.degree {
            Some(degree @ 1..=127) => {
                let options = with_margin(ApproximationOptions::default());
                Ok(Activations::Degree(ApproximationOptions { degree, ..options }))
            }
            Some(degree) => bail!("--degree {degree} is out of range; choose 1 to 127, best 3, 7, 15 or 31"),
            None if self.accuracy > 0.0 && self.accuracy <= 100.0 => {
                let options = with_margin(Budget::default().options);
                Ok(Activations::Accuracy(Budget { points: self.accuracy, options }))
            }
            None => bail!("--accuracy {} is out of range; choose up to 100, best 0.1 to 2", self.accuracy),
        }
    }
}

impl Compile {
    pub(crate) fn run(self) -> Result<()> {
        let (choice, activations) = (self.choices.choice()?, self.choices.activations()?);
        let batch = self.choices.batch();
        let key_memory = self.key_memory.as_deref().map(figures::parse_bytes).transpose()?;
        let network = self.model.read()?;
        let data = network.data(&self.calibrate)?;
        let samples = network.inputs(&data, self.choices.samples)?;
        let what = format!("compiling {}", self.model.model.display());
        let progress = Progress::new();
        let polynomials = Polynomials::choose(
            &network,
            &Samples { inputs: &samples, labels: data.labels(samples.len()).as_deref() },
            &activations,
            &progress,
        )?;
        let compiled = progress.work(&what, || {
            compile_network(
                &network,
                &polynomials.substitution,
                &samples,
                &choice,
                batch,
                &Server { key_memory, devices: self.devices() },
                &self.dump,
            )
        })?;
        let Compiled { plan, artifact, trace, .. } = compiled;
        unknown_passes(&self.dump, &trace)?;
        artifact.write(&self.output)?;
        let program = Program::new(artifact)?;
        let speed = Speed::measure(&program.params, 1);
        let time = Prediction::new(&program.artifact, &program.params, &speed).total();
        if self.json {
            return figures::print_json(&self.summary(&program, &plan, &polynomials, &trace, time));
        }
        let mut text = String::new();
        for dump in &trace.dumps {
            text += &format!("before {}:\n{}\nafter {0}:\n{}\n", dump.pass, dump.before, dump.after);
        }
        if self.trace {
            text += &show_trace(&trace);
        }
        figures::print(&(text + &self.show(&program, &plan, &polynomials, time)))
    }

    fn devices(&self) -> DeviceOptions {
        DeviceOptions { devices: self.devices.into(), link: self.link, ..DeviceOptions::default() }
    }

    fn show(&self, program: &Program, plan: &Plan<'_>, polynomials: &Polynomials, time: f64) -> String {
        let mut rows =
            vec![row(["layer", "operation", "realized by", "levels", "range", "largest error", "rms error"])];
        for (id, node) in plan.graph().nodes().filter(|(_, node)| !matches!(node.op, Op::Input | Op::Reshape))
        {
            let (realized, rest) = match &plan.step(id).realization {
                Realization::Polynomial(p) => {
                    let range = plan.step(node.inputs[0]).scale.largest();
                    let errors = [p.max_error, p.rms_error].map(|error| format!("{error:.4}"));
                    let [max, rms] = errors;
                    (p.shape.to_string(), [p.shape.depth().to_string(), format!("{range:.3}"), max, rms])
                }
                Realization::Linear(cost) => (format!("{} diagonals", cost.diagonals), Default::default()),
                Realization::Input | Realization::Sum | Realization::Same => Default::default(),
            };
            let [levels, range, max, rms] = &rest;
            rows.push(row([&node.name, &node.op.name(), &realized, levels, range, max, rms]));
        }
        let path = self.output.display();
        let each = match plan.batch().pictures() {
            1 => String::new(),
            batch => {
                let time = figures::seconds(time / batch as f64);
                format!(" of {batch} inputs, {time} for each")
            }
        };
        format!(
            "{}  A range is that of the widest channel, with its margin; errors are in units of the channel's range.\n\
             {}\n\
             {path}: program `{}` for {}, {} evaluation keys of {}\n\
             bootstraps: {}; about {} a run{each}, on one thread of this machine\n\
             `cerium explain {path}` says what it costs, `cerium keygen {path} -o KEYS` makes its keys.\n",
            figures::table(&rows),
            polynomials.show_loss(),
            program.artifact.name,
            program.params.name(),
            program.artifact.keys.len(),
            figures::bytes(program.key_bytes()),
            program.show_bootstraps(),
            figures::seconds(time),
        )
    }

    fn summary(
        &self,
        program: &Program,
        plan: &Plan<'_>,
        polynomials: &Polynomials,
        trace: &Trace,
        time: f64,
    ) -> Value {
        let layers = plan.graph().nodes().map(|(id, node)| {
            let mut layer = json!({ "name": node.name, "operation": node.op.name(), "shape": node.shape });
            if let Realization::Polynomial(polynomial) = &plan.step(id).realization {
                layer["range"] = plan.step(node.inputs[0]).scale.largest().into();
                layer["degrees"] = polynomial.shape.degrees().into();
                layer["levels"] = polynomial.shape.depth().into();
                layer["max_error"] = polynomial.max_error.into();
                layer["rms_error"] = polynomial.rms_error.into();
            }
            layer
        });
        let passes = trace.passes.iter().map(|pass| {
            json!({
                "level": pass.level,
                "pass": pass.pass,
                "seconds": pass.time.as_secs_f64(),
                "operations_before": pass.operations.0,
                "operations_after": pass.operations.1,
            })
        });
        json!({
            "program": self.output,
            "name": program.artifact.name,
            "digest": format!("{:?}", program.digest),
            "params": program.params.name(),
            "insecure": program.params.is_insecure(),
            "keys": program.artifact.keys.len(),
            "key_bytes": program.key_bytes(),
            "batch": plan.batch().pictures(),
            "bootstraps": program.bootstraps(),
            "expected_loss_points": polynomials.loss.map(|[loss, _]| loss),
            "predicted_seconds_one_thread": time,
            "layers": layers.collect::<Vec<_>>(),
            "passes": passes.collect::<Vec<_>>(),
        })
    }
}

/// A pass that is asked for and does not exist is a slip of the pen.
fn unknown_passes(dump: &[String], trace: &Trace) -> Result<()> {
    let known = |name: &String| name == "all" || trace.dumps.iter().any(|dump| dump.pass == *name);
    if let Some(name) = dump.iter().find(|name| !known(name)) {
        let mut passes: Vec<&str> = Vec::new();
        for record in &trace.passes {
            if !passes.contains(&record.pass) {
                passes.push(record.pass);
            }
        }
        bail!("there is no dump of a pass `{name}`; the passes are {}", passes.join(", "));
    }
    Ok(())
}

fn show_trace(trace: &Trace) -> String {
    let mut rows = vec![row(["level", "pass", "time", "operations", "after"])];
    for pass in &trace.passes {
        rows.push(row([
            pass.level,
            pass.pass,
            &figures::duration(pass.time),
            &pass.operations.0.to_string(),
            &pass.operations.1.to_string(),
        ]));
    }
    figures::table(&rows) + "\n"
}
