//! A description and its weights to a graph.

use super::{Block, Description, Layer, Pair, PoolLayer, Residual, SubsampleLayer};
use crate::activation::Activation;
use crate::graph::{AveragePool, Conv, Dense, Graph, NodeId, Op, Window};
use crate::import::affine::{Affine, Statistics};
use crate::import::selection::{self, Selection};
use crate::import::{ImportError, safetensors};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// Most layers, counted once for each use of a block: a small file must not ask for a large network.
const MAX_LAYERS: usize = 1 << 12;
/// Counters that PyTorch keeps with batch normalizations; no network needs them.
const COUNTER: &str = ".num_batches_tracked";

pub(super) fn build(
    description: &Description,
    mut weights: safetensors::Tensors,
) -> Result<Graph, ImportError> {
    if description.layers.is_empty() {
        return Err(ImportError::Description("it has no layers".into()));
    }
    weights.retain(|name, _| !name.ends_with(COUNTER));
    let graph = Graph::new("input", description.input.shape.clone())?;
    let x = Value { id: graph.output(), is_shared: true };
    let mut builder = Builder {
        description,
        graph,
        weights,
        names: HashMap::new(),
        layers: 0,
        selecting: selection::MAX_WEIGHTS,
        taken: HashSet::new(),
    };
    let out = builder.sequence(&description.layers, "", x)?;
    let Builder { mut graph, weights, .. } = builder;
    if !weights.is_empty() {
        let names: Vec<&str> = weights.keys().take(8).map(String::as_str).collect();
        return Err(ImportError::Description(format!(
            "no layer reads {} of the tensors: {}{}; describe the layers they belong to, or take them out of the weights",
            weights.len(),
            names.join(", "),
            if weights.len() > names.len() { ", .." } else { "" }
        )));
    }
    graph.set_output(out.id);
    graph.live().ok_or_else(|| ImportError::Description("its output does not depend on the input".into()))
}

/// A value on its way through the layers.
#[derive(Clone, Copy)]
struct Value {
    id: NodeId,
    /// Whether something else reads it too, so that the layer that makes it must stay as it is.
    is_shared: bool,
}

struct Builder<'a> {
    description: &'a Description,
    graph: Graph,
    /// Those that no layer has read yet.
    weights: safetensors::Tensors,
    /// How many layers have each name.
    names: HashMap<String, usize>,
    layers: usize,
    /// Weights of selections that may still be made.
    selecting: usize,
    /// Tensors that a layer has read.
    taken: HashSet<String>,
}

impl Builder<'_> {
    fn sequence(&mut self, layers: &[Layer], prefix: &str, x: Value) -> Result<Value, ImportError> {
        layers.iter().try_fold(x, |x, layer| self.layer(layer, prefix, x))
    }

    fn layer(&mut self, layer: &Layer, prefix: &str, x: Value) -> Result<Value, ImportError> {
        self.layers += 1;
        if self.layers > MAX_LAYERS {
            let problem =
                format!("it has more than {MAX_LAYERS} layers, counting those of a block at each prefix");
            return Err(ImportError::Description(problem));
        }
        let activation = match layer {
            Layer::Conv(layer) => {
                let name = join(prefix, &layer.name);
                let weight = self.tensor(&name, "weight")?;
                let window = window(layer.stride, layer.padding, layer.dilation);
                let bias = self.bias(&name, &weight)?;
                return self.push(name, Op::Conv(Conv { weight, bias, window, groups: layer.groups }), x);
            }
            Layer::Dense(layer) => {
                let name = join(prefix, &layer.name);
                let weight = self.tensor(&name, "weight")?;
                let bias = self.bias(&name, &weight)?;
                return self.push(name, Op::Dense(Dense { weight, bias }), x);
            }
            Layer::BatchNorm(layer) => {
                return self.batch_norm(join(prefix, &layer.name), layer.epsilon, x);
            }
            Layer::AveragePool(PoolLayer { kernel, stride, padding, count_padding }) => {
                let window = window(stride.unwrap_or(*kernel), *padding, Pair([1, 1]));
                let pool = AveragePool { kernel: kernel.0, window, count_padding: *count_padding };
                let name = self.unnamed(prefix, "average_pool");
                return self.push(name, Op::AveragePool(pool), x);
            }
            Layer::GlobalAveragePool => {
                let name = self.unnamed(prefix, "global_average_pool");
                let [_, height, width] = self.picture(&name, x)?;
                let pool =
                    AveragePool { kernel: [height, width], window: Window::default(), count_padding: false };
                return self.push(name, Op::AveragePool(pool), x);
            }
            Layer::Flatten => {
                let name = self.unnamed(prefix, "flatten");
                let elements = self.graph[x.id].elements();
                let id = self.graph.reshape(name, x.id, vec![elements])?;
                return Ok(Value { id, is_shared: false });
            }
            Layer::Subsample(layer) => return self.subsample(layer, prefix, x),
            Layer::Residual(Residual { main, shortcut }) => {
                let shared = Value { is_shared: true, ..x };
                let main = self.sequence(main, prefix, shared)?;
                let shortcut = self.sequence(shortcut, prefix, shared)?;
                let name = self.unnamed(prefix, "add");
                let id = self.graph.push(name, Op::Add, vec![main.id, shortcut.id])?;
                return Ok(Value { id, is_shared: false });
            }
            Layer::Block(block) => return self.block(block, prefix, x),
            Layer::Relu => Activation::Relu,
            Layer::LeakyRelu { slope } => Activation::LeakyRelu { slope: *slope },
            Layer::Gelu => Activation::Gelu,
            Layer::GeluTanh => Activation::GeluTanh,
            Layer::Silu => Activation::Silu,
            Layer::Sigmoid => Activation::Sigmoid,
            Layer::Tanh => Activation::Tanh,
            Layer::Softplus => Activation::Softplus,
            Layer::Square => Activation::Square,
        };
        let operator = match activation {
            Activation::LeakyRelu { .. } => "leaky_relu".into(),
            other => other.to_string(),
        };
        let name = self.unnamed(prefix, &operator);
        self.push(name, Op::Activation(activation), x)
    }

    fn block(&mut self, block: &Block, prefix: &str, mut x: Value) -> Result<Value, ImportError> {
        let Some(layers) = self.description.blocks.get(&block.name) else {
            let known: Vec<&str> = self.description.blocks.keys().map(String::as_str).collect();
            let problem = format!("there is no block {:?}; the blocks are {known:?}", block.name);
            return Err(ImportError::Description(problem));
        };
        // Blocks within blocks could make a large network, or an endless one, of a small file.
        if !prefix.is_empty() {
            let problem = format!("block {prefix} holds a block; write its layers out");
            return Err(ImportError::Description(problem));
        }
        for prefix in &block.at {
            if prefix.is_empty() {
                return Err(ImportError::Description(format!("a prefix of block {:?} is empty", block.name)));
            }
            x = self.sequence(layers, prefix, x)?;
        }
        Ok(x)
    }

    fn batch_norm(&mut self, name: String, epsilon: f32, x: Value) -> Result<Value, ImportError> {
        let channels = self.graph[x.id].channels();
        let mut parameters = Vec::with_capacity(4);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let tensor = self.tensor(&name, part)?;
            if tensor.shape != [channels] {
                let Tensor { name: tensor, shape, .. } = tensor;
                return Err(layer(
                    &name,
                    format!("{tensor} has shape {shape:?}, but there are {channels} channels"),
                ));
            }
            parameters.push(tensor.values);
        }
        let [scale, bias, mean, variance] = &parameters[..] else { unreachable!("four were read") };
        let statistics = Statistics { scale, bias, mean, variance };
        let affine = Affine::batch_normalization(&statistics, epsilon)
            .map_err(|channel| layer(&name, format!("the variance of channel {channel} is not positive")))?;
        affine.check(&name)?;
        if !x.is_shared && affine.absorb(self.graph.op_mut(x.id))? {
            return Ok(x);
        }
        let id = affine.push(&mut self.graph, &name, x.id)?;
        Ok(Value { id, is_shared: false })
    }

    fn subsample(
        &mut self,
        subsample: &SubsampleLayer,
        prefix: &str,
        x: Value,
    ) -> Result<Value, ImportError> {
        let name = self.unnamed(prefix, "subsample");
        let [channels, _, _] = self.picture(&name, x)?;
        let selection =
            Selection { stride: subsample.stride.0, padding: [0; 4], zero_channels: subsample.zero_channels };
        let Some(conv) = selection.conv(&name, channels, &mut self.selecting) else {
            let [before, after] = selection.zero_channels;
            return Err(layer(&name, format!("{before} and {after} zero channels are too many")));
        };
        self.push(name, Op::Conv(conv), x)
    }

    fn push(&mut self, name: String, op: Op, x: Value) -> Result<Value, ImportError> {
        let id = self.graph.push(name, op, vec![x.id])?;
        Ok(Value { id, is_shared: false })
    }

    /// The tensor of a layer, which no other layer may read.
    fn tensor(&mut self, name: &str, part: &str) -> Result<Tensor, ImportError> {
        let tensor = format!("{name}.{part}");
        if let Some(found) = self.weights.remove(&tensor) {
            self.taken.insert(tensor);
            return Ok(found);
        }
        if self.taken.contains(&tensor) {
            return Err(layer(
                name,
                format!("another layer has read tensor {tensor}; layers do not share weights"),
            ));
        }
        let like: Vec<&str> =
            self.weights.keys().filter(|known| known.ends_with(part)).take(4).map(String::as_str).collect();
        let hint = if like.is_empty() {
            "none like it is left".into()
        } else {
            format!("left are {}, ..", like.join(", "))
        };
        Err(layer(name, format!("the weights have no tensor {tensor}; {hint}")))
    }

    fn bias(&mut self, name: &str, weight: &Tensor) -> Result<Vec<f32>, ImportError> {
        let Some(bias) = self.weights.remove(&format!("{name}.bias")) else {
            return Ok(vec![0.0; weight.shape.first().copied().unwrap_or(0)]);
        };
        Ok(bias.values)
    }

    fn picture(&self, name: &str, x: Value) -> Result<[usize; 3], ImportError> {
        let shape = &self.graph[x.id].shape;
        let picture = shape.as_slice().try_into();
        picture.map_err(|_| layer(name, format!("it takes [channels, height, width], not {shape:?}")))
    }

    /// A name for a layer that has none: its operation, and a number from the second one on.
    fn unnamed(&mut self, prefix: &str, operation: &str) -> String {
        let name = join(prefix, operation);
        let count = self.names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{count}") }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}.{name}") }
}

fn layer(name: &str, problem: String) -> ImportError {
    ImportError::Description(format!("layer {name}: {problem}"))
}

fn window(stride: Pair, padding: Pair, dilation: Pair) -> Window {
    let Pair([vertical, horizontal]) = padding;
    Window { stride: stride.0, padding: [vertical, horizontal, vertical, horizontal], dilation: dilation.0 }
}
