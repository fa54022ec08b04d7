//! The programs of `examples/`, small.

// Each example uses all of what they share; a test does not.
#[allow(dead_code)]
#[path = "../examples/deep_iteration/iteration.rs"]
mod iteration;
#[path = "../examples/token_linear/layer.rs"]
mod layer;
#[allow(dead_code)]
#[path = "../examples/parties/mod.rs"]
mod parties;
#[path = "../examples/logistic_regression/table.rs"]
mod table;
#[allow(dead_code)]
#[path = "../examples/logistic_regression/training.rs"]
mod training;

use std::path::Path;

use cerium::ckks::basis::Level;
use cerium::ckks::params::{Params, ParamsSpec};
use cerium::compiler::ciphertext::Slots;
use cerium::compiler::dsl::SourceProgram;
use cerium::runtime::SessionOptions;
use layer::{Layer, largest_error, pack};
use parties::{run_clear, run_encrypted};
use table::Table;

fn read(name: &str) -> Table {
    Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/breast-cancer").join(name)).unwrap()
}

fn largest_difference(a: &Slots, b: &Slots) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
}

/// Trains on clear slots; the weights and the share of test rows that they get right.
fn train(params: &Params, train: &Table, test: &Table, iterations: usize) -> (Vec<f64>, f64) {
    let source = training::program(params, train, iterations);
    let slots = run_clear(&source, &[training::input(params, train)]).remove(0);
    let weights = training::weights(train, &slots);
    let accuracy = test.accuracy(&weights);
    (weights, accuracy)
}

#[test]
fn training_learns_what_the_sigmoid_itself_learns() {
    let params = Params::named_insecure("boot-40").unwrap();
    let (rows, test) = (read("train.csv"), read("test.csv"));
    assert_eq!((rows.rows.len(), test.rows.len(), rows.columns()), (455, 114, 31));
    let iterations = 12;
    let exact = training::train_exactly(&rows, iterations);
    let (weights, accuracy) = train(&params, &rows, &test, iterations);
    let away = weights.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("accuracy {accuracy:.3}, exactly {:.3}, weights differ by {away:.3}", test.accuracy(&exact));
    assert!(accuracy >= 0.95 && (accuracy - test.accuracy(&exact)).abs() < 0.01);
    assert!(away > 1e-4 && away < 0.2, "an approximation of the sigmoid leaves a difference, not {away}");
    // One step from zero needs no sigmoid.
    let (first, _) = train(&params, &rows, &test, 1);
    let exact = training::train_exactly(&rows, 1);
    assert!(first.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-9), "{first:?} {exact:?}");
}

/// A small ring with the levels of `boot-40`.
fn boot() -> Params {
    Params::new(ParamsSpec::insecure_boot(9, 40).unwrap()).unwrap()
}

/// Runs a program encrypted and checks the first `count` slots of its output against the clear run and the promise.
fn check(source: &SourceProgram, params: &Params, input: Slots, count: usize) {
    let input = vec![input];
    let clear = run_clear(source, &input);
    let encrypted = run_encrypted(source, params, &input, &options(None)).unwrap();
    let (error, promise) = (encrypted.error(0, &clear[0], count), encrypted.promises[0]);
    println!("error {error:.2e}, promised {promise:.2e}");
    assert!(error <= promise, "an error of {error:.2e} exceeds the promised {promise:.2e}");
    assert!(promise < 1e-4, "a promise of {promise:.2e} says little");
    assert!(error > 0.0, "encryption adds noise");
    assert!(encrypted.bootstraps > 0, "the program is deeper than the levels");
}

#[test]
fn encrypted_training_matches_the_clear_run() {
    let params = boot();
    let rows = read("train.csv").cut(training::capacity(&params, 8), 7);
    // More iterations than levels allow without bootstraps.
    let source = training::program(&params, &rows, 5);
    check(&source, &params, training::input(&params, &rows), rows.columns());
}

#[test]
fn two_hundred_multiplications_encrypted_match_the_clear_run() {
    let params = boot();
    check(&iteration::program(&params, 200), &params, iteration::input(&params), params.slots());
}

#[test]
fn deep_iterations_are_what_they_say() {
    let params = boot();
    let input = iteration::input(&params);
    let clear = run_clear(&iteration::program(&params, 200), std::slice::from_ref(&input));
    assert!(largest_difference(&clear[0], &iteration::expected(&input, 200)) < 1e-9);
    assert!(clear[0].iter().all(|z| z.norm() < 0.61), "the iteration stays small");
}

/// A layer of 30 x 70 over 12 tokens: two ciphertexts of 16 features to five.
#[test]
fn an_encrypted_token_layer_gives_the_matrix_product() {
    let params = Params::new(ParamsSpec::insecure(10, 40, 2, 2).unwrap()).unwrap();
    let layer = Layer::random(12, 30, 70, 16);
    let source = layer.program(&params).unwrap();
    let values = layer.input();
    let (inputs, expected) = (pack(&source, &values, &params), layer.expected(&values));
    assert!(largest_error(&source, &run_clear(&source, &inputs), &expected) < 1e-12);
    let encrypted = run_encrypted(&source, &params, &inputs, &options(None)).unwrap();
    let promise = encrypted.promises.iter().copied().fold(0.0, f64::max);
    let error = largest_error(&source, &encrypted.outputs, &expected);
    println!("error {error:.2e}, promised {promise:.2e}");
    assert!(0.0 < error && error <= promise && promise < 1e-5);
    // A period of 16 slots takes 32 words of 1024; that of the constant i is 1.
    let weights = encrypted.weights;
    assert!(32 * weights.sparse <= weights.dense && weights.dense < 33 * weights.sparse, "{weights:?}");
    // With less memory for them.
    let tight = run_encrypted(&source, &params, &inputs, &options(Some(weights.sparse / 4))).unwrap();
    assert!(
        4 * tight.memory.plaintexts <= weights.sparse && tight.memory.raw_weights > 0,
        "{:?}",
        tight.memory
    );
    assert!(largest_error(&source, &tight.outputs, &expected) <= promise);
}

/// The first layer of a feed-forward block of BERT-Base, 768 x 3072, over 128 tokens, at 128-bit security: as sparse plaintexts its
/// weights take less than 1/90 of dense ones, and encoded when they are needed their raw values and a working buffer.
#[test]
fn a_layer_of_bert_base_encrypted() {
    let params = Params::named("leveled-16").unwrap();
    let layer = Layer::random(128, 768, 3072, 256);
    let source = layer.program(&params).unwrap();
    let values = layer.input();
    let (inputs, expected) = (pack(&source, &values, &params), layer.expected(&values));
    // One of the twelve ciphertexts of the result at a time.
    let encrypted = run_encrypted(&source, &params, &inputs, &options(Some(7_000_000))).unwrap();
    println!("{}\n{:?}", encrypted.summary(), encrypted.weights);
    let (error, memory) = (largest_error(&source, &encrypted.outputs, &expected), encrypted.memory);
    let promise = encrypted.promises.iter().copied().fold(0.0, f64::max);
    assert!(error <= promise && promise < 1e-5, "error {error:.2e}, promised {promise:.2e}");
    let raw = 4 * (768 * 3072 + 3072);
    // 512 words for each prime and each of 256 diagonals of 36 blocks.
    let limbs = params.basis(Level(1)).len() as u64;
    let sparse = 4 * 512 * (limbs * 256 * 36) + 4 * 512 * 12 * params.basis(Level(0)).len() as u64;
    let weights = encrypted.weights;
    assert!(weights.sparse - sparse < 4 * 2 * limbs + 1, "{weights:?}, counted by hand {sparse}");
    assert!(90 * weights.sparse < weights.dense, "{weights:?}");
    assert!(memory.raw_weights <= raw && memory.plaintexts <= 7_000_000, "{memory:?}");
    assert!(10 * memory.plaintexts < weights.sparse, "{memory:?}");
}

fn options(plaintext_memory: Option<u64>) -> SessionOptions {
    SessionOptions { threads: 2, plaintext_memory }
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let refused = |text: &str, part: &str| {
        let error = format!("{:#}", Table::parse(text).unwrap_err());
        assert!(error.contains(part), "{error}");
    };
    refused("label,x\n", "no examples");
    refused("label,x\n1,0.5\n2,0.5\n", "line 3: a label");
    refused("label,x\n1,0.5\n0,1.5\n", "line 3: features must be in [-1, 1]");
    refused("label,x\n1,0.5\n0,0.5,0.1\n", "line 3: other lines");
    refused("label,x\n1,half\n", "line 2");
    let table = Table::parse("label,x,y\n1,0.5,0.25\n0,-0.5,1\n").unwrap();
    assert_eq!((table.columns(), &table.labels[..]), (3, &[1.0, -1.0][..]));
    assert_eq!((table.accuracy(&[0.0, 1.0, 0.0]), table.accuracy(&[1.0, 0.0, 0.0])), (1.0, 0.5));
    let cut = table.cut(1, 2);
    assert_eq!(cut.rows, [[1.0, 0.5]]);
}
