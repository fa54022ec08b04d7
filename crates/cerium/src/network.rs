//! A model file on its way to a program.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use cerium_artifact::Artifact;
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::passes::PlaceError;
use cerium_compiler::ir::Trace;
use cerium_compiler::limb::devices::DeviceOptions;
use cerium_compiler::{CompileError, CompileOptions, compile};
use cerium_models::approximation::ApproximationOptions;
use cerium_models::budget::{self, Budget, Samples};
use cerium_models::calibrate::Calibration;
use cerium_models::data::Dataset;
use cerium_models::graph::Graph;
use cerium_models::import::{ImportError, Model};
use cerium_models::lower::Plan;
use cerium_models::normalization::{self, Normalization};
use cerium_models::packing::Batch;
use cerium_models::substitution::Substitution;

use crate::progress::Progress;

/// Runs from which the noise estimate takes magnitudes, each of a batch of samples.
const NOISE_SAMPLES: usize = 4;

/// A network as imported, with the file it came from.
#[derive(Debug)]
pub(crate) struct Network {
    /// Name for the program.
    pub(crate) name: String,
    /// Bytes of a model file that needs no other.
    pub(crate) bytes: Vec<u8>,
    /// What is in it.
    pub(crate) graph: Graph,
    /// What pixels become before the network sees them; as is usual for the data set where nothing is said.
    pub(crate) normalization: Option<Normalization>,
}

impl Network {
    /// Reads a model file; `weights` stands for the file of weights that a network description names.
    pub(crate) fn read(path: &Path, weights: Option<&Path>) -> Result<Network> {
        let name =
            path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        match Model::read(path, weights) {
            Ok(model) => Ok(Network::new(name, model)),
            Err(error @ (ImportError::Missing { .. } | ImportError::Read { .. })) => Err(error.into()),
            Err(error) => Err(error).with_context(|| format!("cannot use the model {}", path.display())),
        }
    }

    /// The network in the bytes of a model file that needs no other.
    pub(crate) fn parse(name: String, bytes: Vec<u8>) -> Result<Network> {
        Ok(Network::new(name, Model::parse(bytes)?))
    }

    fn new(name: String, Model { graph, normalization, bytes }: Model) -> Network {
        Network { name, bytes, graph, normalization }
    }

    /// Takes what `--normalize` says in the place of what the model says.
    pub(crate) fn normalize(&mut self, form: &str) -> Result<()> {
        let normalization = normalization::parse(form, self.graph.input().channels());
        self.normalization = Some(normalization.map_err(|problem| anyhow!("--normalize {form}: {problem}"))?);
        Ok(())
    }

    /// A data set as the network takes it.
    pub(crate) fn data(&self, path: &Path) -> Result<Dataset> {
        Ok(Dataset::open_with(path, self.normalization.as_ref())?)
    }

    /// Inputs `0..count` of a data set, after a check that they fit the network.
    pub(crate) fn inputs<'d>(&self, data: &'d Dataset, count: usize) -> Result<Vec<&'d [f32]>> {
        let wanted = &self.graph.input().shape;
        if data.shape().iter().product::<usize>() != wanted.iter().product::<usize>() {
            bail!("the data have inputs of shape {:?}, the network takes {wanted:?}", data.shape());
        }
        let mut inputs = data.inputs();
        inputs.truncate(count);
        Ok(inputs)
    }
}

/// Which parameter set a program gets.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// The smallest secure one that fits, one with bootstrapping where none is deep enough.
    Auto,
    /// This one.
    Named(Params),
}

impl Choice {
    /// Reads `--params` and `--insecure`.
    pub(crate) fn parse(name: &str, insecure: bool) -> Result<Choice> {
        Ok(match (name, insecure) {
            ("auto", _) => Choice::Auto,
            (name, false) => Choice::Named(Params::named(name)?),
            (name, true) => Choice::Named(Params::named_insecure(name)?),
        })
    }

    /// The sets to try, smallest first.
    fn candidates(&self) -> Result<Vec<Params>> {
        if let Choice::Named(params) = self {
            return Ok(vec![params.clone()]);
        }
        let mut names: Vec<&str> =
            Params::names().into_iter().filter(|name| name.starts_with("leveled")).collect();
        names.sort_unstable();
        names.push("boot-40"); // any depth
        names.into_iter().map(|name| Ok(Params::named(name)?)).collect()
    }
}

/// What takes the place of activations.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Activations {
    /// Polynomials of one degree.
    Degree(ApproximationOptions),
    /// What an accuracy budget allows.
    Accuracy(Budget),
}

/// Polynomials for the activations of a network.
pub(crate) struct Polynomials {
    pub(crate) substitution: Substitution,
    /// Points of accuracy that are expected to be lost, and how many may be, where there is a budget.
    pub(crate) loss: Option<[f64; 2]>,
}

impl Polynomials {
    /// Calibrates on the samples and chooses polynomials.
    pub(crate) fn choose(
        network: &Network,
        samples: &Samples<'_>,
        activations: &Activations,
        progress: &Progress,
    ) -> Result<Polynomials> {
        let graph = &network.graph;
        let calibration = progress
            .work("calibrating", || Calibration::measure(graph, samples.inputs))
            .context("cannot calibrate")?;
        Ok(match activations {
            Activations::Degree(options) => {
                Polynomials { substitution: Substitution::uniform(graph, &calibration, options), loss: None }
            }
            Activations::Accuracy(budget) => {
                let step = |done, total| progress.step("choosing polynomials", done, total);
                let choice = budget::choose(graph, &calibration, samples, budget, &step);
                progress.clear();
                Polynomials { loss: Some([choice.loss, budget.points]), substitution: choice.substitution }
            }
        })
    }

    /// What a budget made of them, in a line, or nothing.
    pub(crate) fn show_loss(&self) -> String {
        match self.loss {
            None => String::new(),
            Some([loss, points]) if loss <= points => {
                format!(
                    "Polynomials are expected to lose {loss:.2} points of accuracy, of {points} allowed.\n"
                )
            }
            Some([loss, points]) => format!(
                "Polynomials are expected to lose {loss:.2} points of accuracy, MORE than the {points} allowed: none of those \
                 tried loses less; a smaller --margin may help.\n"
            ),
        }
    }
}

/// A network with everything decided.
pub(crate) struct Compiled<'a> {
    pub(crate) params: Params,
    pub(crate) plan: Plan<'a>,
    pub(crate) artifact: Artifact,
    pub(crate) trace: Trace,
}

/// What a program is compiled for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Server {
    /// Bytes that the evaluation keys may take.
    pub(crate) key_memory: Option<u64>,
    /// The devices that run it together.
    pub(crate) devices: DeviceOptions,
}

/// Compiles a network for a batch of inputs under the first parameter set of `choice` that has room and levels for it.
pub(crate) fn compile_network<'a>(
    network: &'a Network,
    substitution: &Substitution,
    samples: &[&[f32]],
    choice: &Choice,
    batch: Batch,
    server: &Server,
    dump: &[String],
) -> Result<Compiled<'a>> {
    let mut refusal = None;
    for params in choice.candidates()? {
        let plan = match Plan::with(&network.graph, substitution, params.slots(), batch) {
            Ok(plan) => plan,
            // A larger ring may have the room.
            Err(error) => {
                refusal = Some(anyhow::Error::new(error));
                continue;
            }
        };
        let source = plan.program(&network.name, &params);
        let slots = |samples: &[&[f32]]| {
            let packings = source.inputs.iter().flat_map(|port| &port.packings);
            packings.map(|packing| packing.slots(samples, params.slots())).collect()
        };
        let samples = samples.chunks(batch.pictures()).take(NOISE_SAMPLES).map(slots).collect();
        let mut trace = Trace { dump: dump.to_vec(), ..Trace::default() };
        let Server { key_memory, devices } = *server;
        let compile_options = CompileOptions { samples, key_memory, devices, ..CompileOptions::default() };
        match compile(&source, &compile_options, &mut trace) {
            Ok(mut artifact) => {
                artifact.normalization = network.normalization.clone();
                artifact.model = network.bytes.clone();
                return Ok(Compiled { params, plan, artifact, trace });
            }
            Err(error @ CompileError::Place(PlaceError::TooDeep { .. })) => refusal = Some(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    let refusal = refusal.context("there is no parameter set to try")?;
    Err(match choice {
        Choice::Auto => refusal.context("no secure parameter set fits the network"),
        Choice::Named(_) => refusal,
    })
}

/// The smallest secure set in whose slots the network fits, or the set of `choice`; levels are not looked at.
pub(crate) fn plan_network<'a>(
    network: &'a Network,
    substitution: &Substitution,
    choice: &Choice,
    batch: Batch,
) -> Result<(Params, Plan<'a>)> {
    let mut refusal = None;
    for params in choice.candidates()? {
        match Plan::with(&network.graph, substitution, params.slots(), batch) {
            Ok(plan) => return Ok((params, plan)),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.context("there is no parameter set to try")?.into())
}
