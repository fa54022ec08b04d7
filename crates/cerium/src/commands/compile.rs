//! `cerium compile`: a model file to a program.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cerium_compiler::ir::Trace;
use cerium_models::approximation::ApproximationOptions;
use cerium_models::graph::Op;
use cerium_models::lower::{Plan, Realization};
use cerium_models::packing::Batch;
use serde_json::{Value, json};

use super::model::ModelArgs;
use crate::figures::{self, row};
use crate::network::{Choice, Compiled, compile_network};
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
    /// Largest degree of the polynomials that take the place of activations.
    #[arg(long, default_value_t = ApproximationOptions::default().degree, value_name = "D")]
    degree: usize,
    /// How much wider than in the samples the ranges of activations are taken.
    #[arg(long, default_value_t = ApproximationOptions::default().margin, value_name = "FACTOR")]
    margin: f64,
}

impl Choices {
    pub(super) fn choice(&self) -> Result<Choice> {
        Choice::parse(&self.params, self.insecure)
    }

    pub(super) fn batch(&self) -> Batch {
        Batch::new(self.batch as usize)
    }

    pub(super) fn approximation(&self) -> Result<ApproximationOptions> {
        if !(1..=127).contains(&self.degree) {
            bail!("--degree {} is out of range; choose 1 to 127, best 3, 7, 15 or 31", self.degree);
        }
        if !(1.0..=100.0).contains(&self.margin) {
            bail!("--margin {} is out of range; choose 1 to 100", self.margin);
        }
        Ok(ApproximationOptions {
            degree: self.degree,
            margin: self.margin,
            ..ApproximationOptions::default()
        })
    }
}

impl Compile {
    pub(crate) fn run(self) -> Result<()> {
        let (choice, options) = (self.choices.choice()?, self.choices.approximation()?);
        let batch = self.choices.batch();
        let key_memory = self.key_memory.as_deref().map(figures::parse_bytes).transpose()?;
        let network = self.model.read()?;
        let data = network.data(&self.calibrate)?;
        let samples = network.inputs(&data, self.choices.samples)?;
        let what = format!("compiling {}", self.model.model.display());
        let compiled = Progress::new().work(&what, || {
            compile_network(&network, &samples, &choice, batch, &options, key_memory, &self.dump)
        })?;
        let Compiled { plan, artifact, trace, .. } = compiled;
        unknown_passes(&self.dump, &trace)?;
        artifact.write(&self.output)?;
        let program = Program::new(artifact)?;
        let speed = Speed::measure(&program.params, 1);
        let time = Prediction::new(&program.artifact, &program.params, &speed).total();
        if self.json {
            return figures::print_json(&self.summary(&program, &plan, &trace, time));
        }
        let mut text = String::new();
        for dump in &trace.dumps {
            text += &format!("before {}:\n{}\nafter {0}:\n{}\n", dump.pass, dump.before, dump.after);
        }
        if self.trace {
            text += &show_trace(&trace);
        }
        figures::print(&(text + &self.show(&program, &plan, time)))
    }

    fn show(&self, program: &Program, plan: &Plan<'_>, time: f64) -> String {
        let mut rows = vec![row(["layer", "operation", "realized by", "largest error", "rms error"])];
        for (id, node) in plan.graph().nodes().filter(|(_, node)| !matches!(node.op, Op::Input | Op::Reshape))
        {
            let (realized, max, rms) = match &plan.step(id).realization {
                Realization::Polynomial(polynomial) => (
                    format!("degree {}", polynomial.polynomial.degree()),
                    format!("{:.4}", polynomial.max_error),
                    format!("{:.4}", polynomial.rms_error),
                ),
                Realization::Linear(cost) => {
                    (format!("{} diagonals", cost.diagonals), String::new(), String::new())
                }
                Realization::Input | Realization::Sum | Realization::Same => Default::default(),
            };
            rows.push(row([&node.name, &node.op.name(), &realized, &max, &rms]));
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
            "{}  Errors of polynomials are in units of the layer's calibrated range.\n\n\
             {path}: program `{}` for {}, {} evaluation keys of {}\n\
             bootstraps: {}; about {} a run{each}, on one thread of this machine\n\
             `cerium explain {path}` says what it costs, `cerium keygen {path} -o KEYS` makes its keys.\n",
            figures::table(&rows),
            program.artifact.name,
            program.params.name(),
            program.artifact.keys.len(),
            figures::bytes(program.key_bytes()),
            program.show_bootstraps(),
            figures::seconds(time),
        )
    }

    fn summary(&self, program: &Program, plan: &Plan<'_>, trace: &Trace, time: f64) -> Value {
        let layers = plan.graph().nodes().map(|(id, node)| {
            let mut layer = json!({ "name": node.name, "operation": node.op.name(), "shape": node.shape });
            if let Realization::Polynomial(polynomial) = &plan.step(id).realization {
                layer["degree"] = polynomial.polynomial.degree().into();
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
