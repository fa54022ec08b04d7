//! A linear layer of a transformer: the same matrix for every token.

use cerium::artifact::NO_ELEMENT;
use cerium::ckks::params::Params;
use cerium::compiler::ciphertext::Slots;
use cerium::compiler::dsl::{Program, SourceProgram};
use cerium::models::packing::{TokenError, TokenLayers, TokenLayout, TokenLinear, WeightOrder};
use cerium::models::tensor::Tensor;

/// `y = W x + b` for every token, W stored as `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) tokens: usize,
    /// Features of a token in a ciphertext.
    pub(crate) width: usize,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Layer {
    /// A layer whose weights look random: of size `1 / sqrt(inputs)`, so that results are about as large as inputs.
    pub(crate) fn random(tokens: usize, inputs: usize, outputs: usize, width: usize) -> Self {
        let mut numbers = Numbers(1);
        let size = (inputs as f64).sqrt().recip();
        let weight = (0..inputs * outputs).map(|_| (size * numbers.next()) as f32).collect();
        let bias = (0..outputs).map(|_| (0.1 * numbers.next()) as f32).collect();
        Self {
            tokens,
            width,
            weight: Tensor::new("weight", vec![outputs, inputs], weight),
            bias: Tensor::new("bias", vec![outputs], bias),
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.weight.shape[0]
    }

    pub(crate) fn inputs(&self) -> usize {
        self.weight.shape[1]
    }

    /// The program from a tensor `[tokens, inputs]` to one of `[tokens, outputs]`.
    pub(crate) fn program(&self, params: &Params) -> Result<SourceProgram, TokenError> {
        let from = TokenLayout::new(self.tokens, self.inputs(), self.width, params.slots())?;
        let layer = TokenLinear::new(&self.weight, WeightOrder::OutputsFirst, Some(&self.bias))?;
        let program = Program::new("token linear", params);
        let x = program.input_parts("x", from.packings(1.0));
        let (to, y) = TokenLayers::new(&program).linear(&layer, &from, &x)?;
        program.output_parts("y", to.packings(1.0), &y);
        Ok(program.finish())
    }

    /// Inputs in [-1, 1].
    pub(crate) fn input(&self) -> Vec<f64> {
        let mut numbers = Numbers(2);
        (0..self.tokens * self.inputs()).map(|_| numbers.next()).collect()
    }

    /// The result without the library.
    pub(crate) fn expected(&self, x: &[f64]) -> Vec<f64> {
        let mut y = Vec::with_capacity(self.tokens * self.outputs());
        for token in x.chunks(self.inputs()) {
            for (row, &bias) in self.weight.values.chunks(self.inputs()).zip(&self.bias.values) {
                let products = row.iter().zip(token).map(|(&w, x)| f64::from(w) * x);
                y.push(products.sum::<f64>() + f64::from(bias));
            }
        }
        y
    }
}

/// All slots of the program's inputs.
pub(crate) fn pack(source: &SourceProgram, values: &[f64], params: &Params) -> Vec<Slots> {
    let slot = |&element: &u32| values.get(element as usize).copied().unwrap_or(0.0).into();
    let packings = source.inputs.iter().flat_map(|port| &port.packings);
    packings.map(|packing| packing.gather.iter().cycle().take(params.slots()).map(slot).collect()).collect()
}

/// The largest distance of an element of the output from `expected`.
pub(crate) fn largest_error(source: &SourceProgram, slots: &[Slots], expected: &[f64]) -> f64 {
    let packings = source.outputs.iter().flat_map(|port| &port.packings);
    let mut errors = vec![f64::INFINITY; expected.len()];
    for (packing, slots) in packings.zip(slots) {
        for (&element, slot) in packing.gather.iter().zip(slots) {
            if element != NO_ELEMENT {
                errors[element as usize] = (slot - expected[element as usize]).norm();
            }
        }
    }
    errors.into_iter().fold(0.0, f64::max)
}

/// Numbers in [-1, 1) without order.
struct Numbers(u64);

impl Numbers {
    /// SplitMix64.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}
