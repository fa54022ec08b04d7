//! Linear layers over tokens: the packed program on clear slots gives the matrix product.

use cerium_artifact::NO_ELEMENT;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ciphertext::{Interpreter, Slots};
use cerium_compiler::dsl::{Program, SourceProgram};
use cerium_models::packing::{TokenError, TokenLayers, TokenLayout, TokenLinear, WeightOrder, token_cost};
use cerium_models::tensor::Tensor;

/// splitmix64 from a printed seed.
struct Draw(u64);

impl Draw {
    fn fresh() -> Self {
        let seed = getrandom::u64().expect("the system has randomness");
        println!("seed {seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    fn tensor(&mut self, name: &str, shape: Vec<usize>) -> Tensor {
        let count = shape.iter().product();
        let values = (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
        Tensor::new(name, shape, values)
    }
}

fn params() -> Params {
    Params::new(ParamsSpec::insecure(10, 40, 3, 2).expect("a valid set")).expect("a valid set")
}

fn pack(source: &SourceProgram, values: &[f32], slots: usize) -> Vec<Slots> {
    let packings = source.inputs.iter().flat_map(|port| &port.packings);
    packings.map(|packing| packing.slots(&[values], slots)).collect()
}

fn unpack(source: &SourceProgram, slots: &[Slots], elements: usize) -> Vec<f64> {
    let mut values = vec![f64::NAN; elements];
    for (packing, slots) in source.outputs[0].packings.iter().zip(slots) {
        for (&element, slot) in packing.gather.iter().cycle().zip(slots) {
            assert!(slot.im.abs() < 1e-12, "a result is real, not {slot}");
            if element != NO_ELEMENT {
                values[element as usize] = slot.re;
            }
        }
    }
    values
}

/// `y[t][o] = sum_i w[o][i] x[t][i] + b[o]`.
fn product(x: &[f64], inputs: usize, weight: &Tensor, order: WeightOrder, bias: Option<&Tensor>) -> Vec<f64> {
    let outputs = weight.values.len() / inputs;
    let at = |o: usize, i: usize| match order {
        WeightOrder::OutputsFirst => weight.values[o * inputs + i],
        WeightOrder::InputsFirst => weight.values[i * outputs + o],
    };
    let row = |x: &[f64], o: usize| {
        let sum: f64 = x.iter().enumerate().map(|(i, x)| x * f64::from(at(o, i))).sum();
        sum + bias.map_or(0.0, |bias| bias.values[o].into())
    };
    x.chunks(inputs).flat_map(|x| (0..outputs).map(move |o| row(x, o))).collect()
}

#[test]
fn random_layers_give_the_matrix_product() {
    let params = params();
    let mut draw = Draw::fresh();
    for _ in 0..12 {
        let width = 1 << draw.between(0, 5);
        let tokens = draw.between(1, (params.slots() / width).min(40));
        let [inputs, middle, outputs] = [(); 3].map(|()| draw.between(1, 20 * width.min(4)));
        let orders = [WeightOrder::OutputsFirst, WeightOrder::InputsFirst];
        let order = orders[draw.between(0, 1)];
        println!("{tokens} tokens, width {width}, {inputs} -> {middle} -> {outputs}, {order:?}");
        let shape = |inputs: usize, outputs: usize| match order {
            WeightOrder::OutputsFirst => vec![outputs, inputs],
            WeightOrder::InputsFirst => vec![inputs, outputs],
        };
        let first = draw.tensor("first", shape(inputs, middle));
        let second = draw.tensor("second", shape(middle, outputs));
        let bias = draw.tensor("bias", vec![middle]);
        let bias = (draw.between(0, 2) > 0).then_some(&bias);

        let from = TokenLayout::new(tokens, inputs, width, params.slots()).expect("it fits");
        let program = Program::new("layers", &params);
        let x = program.input_parts("x", from.packings(1.0));
        let mut layers = TokenLayers::new(&program);
        let layer = TokenLinear::new(&first, order, bias).expect("a matrix");
        let (between, y) = layers.linear(&layer, &from, &x).expect("it fits");
        let layer = TokenLinear::new(&second, order, None).expect("a matrix");
        let (to, z) = layers.linear(&layer, &between, &y).expect("it fits");
        program.output_parts("z", to.packings(1.0), &z);
        let source = program.finish();
        assert_eq!(z.len(), outputs.div_ceil(width));

        let values = draw.tensor("x", vec![tokens, inputs]).values;
        let slots = Interpreter::new(&source.module).run(&pack(&source, &values, params.slots()));
        let clear: Vec<f64> = values.iter().map(|&v| v.into()).collect();
        let expected = product(&clear, inputs, &first, order, bias);
        let expected = product(&expected, middle, &second, order, None);
        for (i, (a, b)) in unpack(&source, &slots, tokens * outputs).iter().zip(&expected).enumerate() {
            assert!((a - b).abs() < 1e-9 * (inputs * middle) as f64, "element {i}: {a}, not {b}");
        }
    }
}

/// The counts of the module's documentation: as many products as if tokens were alone, functions for each shape.
#[test]
fn layers_share_functions_and_rotations() {
    let slots = 1 << 15;
    let from = TokenLayout::new(128, 768, 256, slots).expect("it fits");
    let to = from.with_features(3072);
    assert_eq!((from.ciphertexts(), to.ciphertexts(), from.period()), (3, 12, slots));
    let cost = token_cost(&from, &to);
    println!("{cost:?}");
    assert_eq!(cost.diagonals, 256 * 3 * 12);
    assert!(cost.babies + cost.giants < 250, "{cost:?}");

    let params = params();
    let mut draw = Draw::fresh();
    let from = TokenLayout::new(8, 40, 16, params.slots()).expect("it fits");
    let program = Program::new("layers", &params);
    let mut layers = TokenLayers::new(&program);
    let mut x = program.input_parts("x", from.packings(1.0));
    for name in ["a", "b", "c"] {
        let weight = draw.tensor(name, vec![40, 40]);
        let layer = TokenLinear::new(&weight, WeightOrder::OutputsFirst, None).expect("a matrix");
        x = layers.linear(&layer, &from, &x).expect("it fits").1;
    }
    program.output_parts("y", from.packings(1.0), &x);
    assert_eq!(program.finish().module.functions.len(), 3, "two functions and the program");
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |result: Result<TokenLayout, TokenError>, part: &str| {
        let error = result.expect_err("it does not fit").to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(
        TokenLayout::new(129, 10, 256, 1 << 15),
        "129 tokens with 256 features in a ciphertext need 65536 slots",
    );
    refused(TokenLayout::new(4, 10, 12, 1 << 15), "12 in a ciphertext, cannot be packed");
    refused(TokenLayout::new(0, 10, 16, 1 << 15), "0 tokens");
    refused(TokenLayout::new(usize::MAX, 10, 16, 1 << 15), "cannot be packed");
    let matrix = Tensor::new("w", vec![2, 3], vec![0.5; 6]);
    let bias = Tensor::new("b", vec![3], vec![0.5; 3]);
    let misfit =
        |result: Result<TokenLinear<'_>, TokenError>| result.expect_err("it does not fit").to_string();
    assert!(
        misfit(TokenLinear::new(&matrix, WeightOrder::OutputsFirst, Some(&bias))).contains("bias of Some(3)")
    );
    assert!(misfit(TokenLinear::new(&bias, WeightOrder::OutputsFirst, None)).contains("`b` of shape [3]"));
    let layer = TokenLinear::new(&matrix, WeightOrder::InputsFirst, Some(&bias)).expect("a matrix");
    let params = params();
    let program = Program::new("layer", &params);
    let from = TokenLayout::new(2, 3, 4, params.slots()).expect("it fits");
    let x = program.input_parts("x", from.packings(1.0));
    let error = TokenLayers::new(&program).linear(&layer, &from, &x).expect_err("it takes two features");
    assert!(error.to_string().contains("do not fit 3 inputs"), "{error}");
}
