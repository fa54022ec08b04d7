//! Tensors `[tokens, features]` over several ciphertexts, and linear layers between them.
//!
//! The packing is token-major: with a width `w`, a power of two, feature `f` of token `t` is in ciphertext `f / w` and slot
//! `w t + f % w`. A layer does the same to every token, so its diagonals repeat with period `w` and their plaintexts take
//! `2 w` words a limb instead of N.
//!
//! A block of `w` outputs by `w` inputs is the sum over offsets `k < w` of a diagonal times the input rotated by `k` *within
//! each token*. A rotation of the slots brings the first `k` features of the next token where the last `k` outputs want
//! those of their own. Both are at hand in one complex vector: with `v = x + i rotate(x, -w)`,
//!
//! ```text
//! rotate(v, k)[w t + f] = x[w t + f + k] + i x[w t + f + k - w]
//! ```
//!
//! holds in one of its parts the feature `(f + k) % w` of token `t` itself, and the real part of a product takes it from there
//! if the weight is real where `f + k < w`, and `-i` times as large where it wraps around ([`Recipe::Diagonal`]). So the layer is a plain
//! transform of `w` diagonals, no more than if every token had a ciphertext of its own, and the real part costs a conjugation
//! for each ciphertext of the result: neither products with masks nor a level.
//!
//! Offsets are split in baby and giant steps: inputs are rotated by all baby steps once for all outputs, giant steps rotate
//! sums over all inputs. Both are functions of the program, called for every ciphertext of the inputs or outputs with other
//! weights, by all layers of a width.
//!
//! [`Recipe::Diagonal`]: cerium_artifact::Recipe::Diagonal

use super::diagonals::Cost;
use crate::tensor::{Tensor, element_count};
use cerium_artifact::{MatrixBlock, NO_ELEMENT};
use cerium_compiler::dsl::{Ct, Func, Packing, Program, TensorRef, Weight};
use std::collections::HashMap;

/// Most ciphertexts of the input whose products are summed up in one call: a longer sum is made of several, so that the size
/// of a compiled layer does not grow with its inputs.
const INPUTS_A_CALL: usize = 16;

/// A tensor or layer that does not suit the packing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// The tokens do not fit.
    #[error(
        "{tokens} tokens with {width} features in a ciphertext need {needed} slots, but a ciphertext of this parameter set has \
         {slots}; take fewer features in a ciphertext (a power of two), or a set with a larger ring"
    )]
    TooLarge {
        /// Tokens.
        tokens: usize,
        /// Features in a ciphertext.
        width: usize,
        /// Slots that they take.
        needed: usize,
        /// Slots of a ciphertext.
        slots: usize,
    },
    /// A width that is no power of two, or a tensor without elements.
    #[error(
        "a tensor of {tokens} tokens with {features} features, {width} in a ciphertext, cannot be packed: none may be 0, \
         and the width is a power of two"
    )]
    Shape {
        /// Tokens.
        tokens: usize,
        /// Features of a token.
        features: usize,
        /// Features in a ciphertext.
        width: usize,
    },
    /// Weights that do not fit the input or the bias.
    #[error(
        "the weights `{weight}` of shape {shape:?} do not fit {inputs} inputs and a bias of {bias:?} values"
    )]
    Weights {
        /// Name of the weights.
        weight: String,
        /// Their shape.
        shape: Vec<usize>,
        /// Features of the input.
        inputs: usize,
        /// Length of the bias.
        bias: Option<usize>,
    },
}

/// Where the elements of a tensor `[tokens, features]` lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLayout {
    tokens: usize,
    features: usize,
    width: usize,
}

impl TokenLayout {
    /// The layout with `width` features of every token in a ciphertext of `slots` slots.
    ///
    /// # Errors
    /// If the tokens do not fit into a ciphertext, or the shape is impossible.
    pub fn new(tokens: usize, features: usize, width: usize, slots: usize) -> Result<Self, TokenError> {
        let shape = TokenError::Shape { tokens, features, width };
        if tokens == 0 || features == 0 || !width.is_power_of_two() {
            return Err(shape);
        }
        let needed = tokens.checked_next_power_of_two().and_then(|tokens| tokens.checked_mul(width));
        let needed = needed.ok_or(shape)?;
        if needed > slots {
            return Err(TokenError::TooLarge { tokens, width, needed, slots });
        }
        Ok(Self { tokens, features, width })
    }

    /// Number of ciphertexts.
    pub fn ciphertexts(&self) -> usize {
        self.features.div_ceil(self.width)
    }

    /// Features of a token.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Features of every token in a ciphertext.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of slots after which a ciphertext repeats.
    pub fn period(&self) -> usize {
        self.width * self.tokens.next_power_of_two()
    }

    /// The same tokens with another number of features.
    pub fn with_features(self, features: usize) -> Self {
        Self { features, ..self }
    }

    /// How many features are in a ciphertext: `width`, or fewer in the last one.
    fn features_in(&self, ciphertext: usize) -> usize {
        (self.features - ciphertext * self.width).min(self.width)
    }

    /// The packing of every ciphertext of an input or output whose slots are within `[-bound, bound]`.
    pub fn packings(&self, bound: f64) -> Vec<Packing> {
        let element = |ciphertext: usize, slot: usize| {
            let (token, feature) = (slot / self.width, slot % self.width);
            match token < self.tokens && feature < self.features_in(ciphertext) {
                true => (token * self.features + ciphertext * self.width + feature) as u32,
                false => NO_ELEMENT,
            }
        };
        let packing = |ciphertext: usize| Packing {
            shape: vec![self.tokens as u32, self.features as u32],
            batch: 1,
            gather: (0..self.period()).map(|slot| element(ciphertext, slot)).collect(),
            factor: 1.0,
            bound,
        };
        (0..self.ciphertexts()).map(packing).collect()
    }
}

/// Which axis of a matrix of weights comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightOrder {
    /// `[outputs, inputs]`, as linear layers are stored in safetensors files and by ONNX `Gemm` with `transB`.
    OutputsFirst,
    /// `[inputs, outputs]`, as ONNX `MatMul` takes them.
    InputsFirst,
}

/// A linear layer `y = W x + b` on the features of every token.
#[derive(Clone, Copy, Debug)]
pub struct TokenLinear<'a> {
    weight: &'a Tensor,
    order: WeightOrder,
    bias: Option<&'a Tensor>,
    inputs: usize,
    outputs: usize,
}

impl<'a> TokenLinear<'a> {
    /// A layer with these weights and this bias, of one value for each output.
    ///
    /// # Errors
    /// If the weights are not a matrix, or the bias does not fit them.
    pub fn new(weight: &'a Tensor, order: WeightOrder, bias: Option<&'a Tensor>) -> Result<Self, TokenError> {
        let [inputs, outputs] = match (&weight.shape[..], order) {
            (&[outputs, inputs], WeightOrder::OutputsFirst) => [inputs, outputs],
            (&[inputs, outputs], WeightOrder::InputsFirst) => [inputs, outputs],
            _ => [0, 0],
        };
        let layer = Self { weight, order, bias, inputs, outputs };
        let fits = bias.is_none_or(|bias| bias.values.len() == outputs);
        // Slots name elements by 32 bits.
        let countable =
            element_count(&weight.shape).is_some_and(|count| 0 < count && count < NO_ELEMENT as usize);
        if fits && countable && inputs > 0 { Ok(layer) } else { Err(layer.misfit(inputs)) }
    }

    /// Features of its output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    fn misfit(&self, inputs: usize) -> TokenError {
        let (weight, shape) = (self.weight.name.clone(), self.weight.shape.clone());
        TokenError::Weights { weight, shape, inputs, bias: self.bias.map(|bias| bias.values.len()) }
    }

    /// The weights from a ciphertext of the input to one of the output.
    fn block(&self, from: &TokenLayout, input: usize, to: &TokenLayout, output: usize) -> MatrixBlock {
        let strides = match self.order {
            WeightOrder::OutputsFirst => [self.inputs, 1],
            WeightOrder::InputsFirst => [1, self.outputs],
        };
        let first = output * to.width * strides[0] + input * from.width * strides[1];
        MatrixBlock {
            first: first as u32,
            strides: strides.map(|stride| stride as u32),
            extents: [to.features_in(output) as u32, from.features_in(input) as u32],
            log_period: to.width.trailing_zeros(),
        }
    }
}

/// How a layer is computed: numbers of ciphertexts and the split of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    width: usize,
    /// Ciphertexts of the input and of the output.
    inputs: usize,
    outputs: usize,
    /// Baby steps are `0..stride`, giant steps its multiples below the width.
    stride: usize,
}

impl Shape {
    /// The shape with the cheapest split.
    fn new(from: &TokenLayout, to: &TokenLayout) -> Self {
        let (width, inputs, outputs) = (to.width, from.ciphertexts(), to.ciphertexts());
        let strides = (0..=width.trailing_zeros()).map(|log| 1 << log);
        let shapes = strides.map(|stride| Self { width, inputs, outputs, stride });
        let best = shapes.min_by(|a, b| a.cost().time().total_cmp(&b.cost().time()));
        best.expect("a width is at least 1")
    }

    /// Lengths of the sums over inputs that are made in one call each.
    fn groups(&self) -> Vec<usize> {
        let calls = self.inputs.div_ceil(INPUTS_A_CALL);
        (0..calls).map(|call| self.inputs * (call + 1) / calls - self.inputs * call / calls).collect()
    }

    fn cost(&self) -> Cost {
        // A call rotates by all giant steps but 0, and conjugates.
        let calls = self.outputs * self.inputs.div_ceil(INPUTS_A_CALL);
        Cost {
            diagonals: self.width * self.inputs * self.outputs,
            babies: self.inputs * self.stride,
            giants: calls * (self.width / self.stride),
        }
    }
}

/// Rotations and products of a layer between two layouts of one width. Of the baby steps one for each ciphertext of the input
/// brings the token before; the giant steps include the conjugations.
pub fn token_cost(from: &TokenLayout, to: &TokenLayout) -> Cost {
    Shape::new(from, to).cost()
}

/// Linear layers over tokens in one program. Layers of one shape share their functions, and parts of layers that are
/// alike do.
#[derive(Debug)]
pub struct TokenLayers<'p> {
    program: &'p Program,
    functions: HashMap<String, Func>,
}

impl<'p> TokenLayers<'p> {
    /// No layers yet.
    pub fn new(program: &'p Program) -> Self {
        Self { program, functions: HashMap::new() }
    }

    /// Applies a layer to the ciphertexts of a tensor, whose slots are real; the ciphertexts of the result, and their
    /// layout. Takes one level.
    ///
    /// # Errors
    /// If the layer takes another number of features.
    ///
    /// # Panics
    /// If there are not as many ciphertexts as the layout says.
    pub fn linear(
        &mut self,
        layer: &TokenLinear<'_>,
        from: &TokenLayout,
        x: &[Ct],
    ) -> Result<(TokenLayout, Vec<Ct>), TokenError> {
        assert_eq!(x.len(), from.ciphertexts(), "one ciphertext for each part of the input");
        if layer.inputs != from.features {
            return Err(layer.misfit(from.features));
        }
        let to = from.with_features(layer.outputs);
        let shape = Shape::new(from, &to);
        let program = self.program;
        let rotations = self.rotations(&shape);
        let rotated: Vec<Vec<Ct>> = x.iter().map(|x| program.call(&rotations, &[x], &[])).collect();
        let weights = program.tensor(&layer.weight.name, layer.weight.values.clone());
        let bias = layer.bias.map(|bias| program.tensor(&bias.name, bias.values.clone()));
        let mut results = Vec::with_capacity(shape.outputs);
        for output in 0..shape.outputs {
            let mut sum: Option<Ct> = None;
            let mut first = 0;
            for inputs in shape.groups() {
                let columns = self.columns(&shape, inputs);
                let own = first..first + inputs;
                let diagonals: Vec<Weight> = own
                    .clone()
                    .flat_map(|input| {
                        let block = layer.block(from, input, &to, output);
                        // The real part is half the sum with the conjugate.
                        (0..shape.width as u32)
                            .map(move |offset| program.diagonal(weights, block, offset, 0.5))
                    })
                    .collect();
                let babies: Vec<&Ct> = rotated[own].iter().flatten().collect();
                let part = program.call(&columns, &babies, &diagonals.iter().collect::<Vec<_>>()).remove(0);
                sum = Some(sum.map_or(part.clone(), |sum| sum + part));
                first += inputs;
            }
            let y = sum.expect("a layer has inputs");
            results.push(bias.map_or(y.clone(), |bias| y.add_weight(&self.bias(bias, &to, output))));
        }
        Ok((to, results))
    }

    fn bias(&self, bias: TensorRef, to: &TokenLayout, output: usize) -> Weight {
        let features = to.features_in(output) as u32;
        let (first, log_period) = ((output * to.width) as u32, to.width.trailing_zeros());
        let block = MatrixBlock { first, strides: [1, 0], extents: [features; 2], log_period };
        self.program.diagonal(bias, block, 0, 1.0)
    }

    /// `x -> rotate(x + i rotate(x, -width), b)` for all baby steps b.
    fn rotations(&mut self, shape: &Shape) -> Func {
        let Shape { width, stride, .. } = *shape;
        let program = self.program;
        self.function(format!("tokens{width}.rotations{stride}"), |name| {
            program.function(name, 1, &[], |_, x, _| {
                let both = &x[0] + x[0].rotate(-(width as i64)).mul_i();
                let rotated = (1..stride as i64).map(|by| both.rotate(by));
                std::iter::once(both.clone()).chain(rotated).collect()
            })
        })
    }

    /// The real part of the transforms of `inputs` rotated inputs: twice that of their weights.
    fn columns(&mut self, shape: &Shape, inputs: usize) -> Func {
        let Shape { width, stride, .. } = *shape;
        let program = self.program;
        self.function(format!("tokens{width}.columns{stride}x{inputs}"), |name| {
            program.function(
                name,
                inputs * stride,
                &vec![width; inputs * width],
                |scope, rotated, weights| {
                    let products = |giant: usize| {
                        let terms = (0..inputs * stride).map(|i| {
                            let (input, baby) = (i / stride, i % stride);
                            let weight = &weights[input * width + giant + baby];
                            match giant {
                                0 => rotated[i].mul_weight(weight),
                                _ => rotated[i].mul_weight(&scope.rotate_weight(weight, -(giant as i64))),
                            }
                        });
                        let sum = terms.reduce(|sum, term| sum + term).expect("at least one input");
                        if giant == 0 { sum } else { sum.rotate(giant as i64) }
                    };
                    let sum = (0..width).step_by(stride).map(products).reduce(|sum, part| sum + part);
                    let sum = sum.expect("at least one giant step");
                    vec![&sum + sum.conjugate()]
                },
            )
        })
    }

    /// The function of this name, made if it is new.
    fn function(&mut self, name: String, make: impl FnOnce(&str) -> Func) -> Func {
        let func = self.functions.entry(name).or_insert_with_key(|name| make(name));
        func.clone()
    }
}
