//! Networks as programs on clear slots, against the network itself.

use cerium_ckks::params::Params;
use cerium_models::activation::Activation;
use cerium_models::approximation::ApproximationOptions;
use cerium_models::calibrate::Calibration;
use cerium_models::data::Dataset;
use cerium_models::graph::{Conv, Dense, Graph, NodeId, Op, Window};
use cerium_models::import;
use cerium_models::lower::{Plan, Realization};
use cerium_models::packing::{Batch, PackingError};
use cerium_models::reference;
use cerium_models::simplify::simplify;
use cerium_models::simulate::{Budget, Simulation, largest, simulate};
use cerium_models::tensor::Tensor;
use std::path::{Path, PathBuf};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A file of the demo network.
fn model(name: &str) -> Vec<u8> {
    std::fs::read(project("models/mnist").join(name)).expect("the demo network is part of the project")
}

fn params() -> Params {
    Params::named("leveled-14").expect("a named set")
}

/// Outputs of the network with the plan's polynomials in the place of its activations, unpacked.
fn approximated(plan: &Plan<'_>, input: &[f32]) -> Vec<f64> {
    let graph = plan.graph();
    let mut output = Vec::new();
    let polynomial = |id: NodeId, values: &mut [[f64; 8]]| {
        let Realization::Polynomial(p) = &plan.step(id).realization else { panic!("{id} is no polynomial") };
        for (element, lanes) in values.iter_mut().enumerate() {
            let x = &mut lanes[0];
            let scale = plan.step(id).scale.of(element);
            *x = if p.activation.is_homogeneous() {
                scale * p.form.evaluate(*x / scale)
            } else {
                p.form.evaluate(*x / p.range)
            };
        }
    };
    reference::walk(graph, &[input], polynomial, |id, value| {
        if id == graph.output() {
            output = value.iter().map(|lanes| lanes[0]).collect();
        }
    });
    output
}

/// The program computes what the approximated network computes: packing loses nothing.
fn check_packing(plan: &Plan<'_>, inputs: &[&[f32]], simulation: &Simulation) {
    for (input, packed) in inputs.iter().zip(&simulation.packed) {
        let wanted = &approximated(plan, input);
        let size = wanted.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        for (a, b) in packed.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-5 * size, "{packed:?}\nis not\n{wanted:?}");
        }
    }
}

#[test]
fn the_demo_network() {
    let graph = import::parse(&model("mnist.onnx")).expect("a valid model");
    let calibration = Dataset::open(&project("models/mnist/calibration")).expect("valid data");
    let calibration = Calibration::measure(&graph, &calibration.inputs()).expect("the shapes fit");
    let params = params();
    let options = ApproximationOptions::default();
    let plan = Plan::new(&graph, &calibration, params.slots(), Batch::ONE, &options).expect("it fits");
    println!("{plan}");
    let rotations = graph.nodes().map(|(id, _)| match &plan.step(id).realization {
        Realization::Linear(cost) => cost.babies + cost.giants,
        _ => 0,
    });
    let rotations: usize = rotations.sum();
    assert!(plan.to_string().contains("25 diagonals"));
    // One key each at most.
    assert!(rotations <= 55, "{rotations} rotations");

    let samples = Dataset::open(&project("models/mnist/sample")).expect("valid data");
    let simulation =
        simulate(&plan, &params, &samples.inputs(), &Budget::default(), &|_, _| {}).expect("the shapes fit");
    for layer in &simulation.layers {
        println!(
            "{:24} slot {:.3} error {:.4} relative {:.4}",
            layer.operation, layer.largest_slot, layer.max_error, layer.relative_error
        );
    }
    check_packing(&plan, &samples.inputs(), &simulation);
    assert_eq!(simulation.first_over_budget(), None);
    assert!(simulation.agreements() >= 19);
}

/// Accuracy of the approximated network (which the packed program equals) on the test set.
#[test]
fn the_demo_network_keeps_its_accuracy() {
    let path = project("../shared/data/mnist");
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return;
    }
    let graph = import::parse(&model("mnist.onnx")).expect("a valid model");
    let calibration = Dataset::open(&project("models/mnist/calibration")).expect("valid data");
    let calibration = Calibration::measure(&graph, &calibration.inputs()).expect("the shapes fit");
    let plan = Plan::new(&graph, &calibration, 1 << 13, Batch::ONE, &ApproximationOptions::default())
        .expect("it fits");
    let data = Dataset::open(&path).expect("valid data");
    let (mut clear, mut packed) = (0, 0);
    for i in 0..1000 {
        let label = data.label(i).expect("labelled") as usize;
        clear += usize::from(largest(&reference::run(&graph, data.input(i)).expect("valid")) == label);
        packed += usize::from(largest(&approximated(&plan, data.input(i))) == label);
    }
    println!("{clear} and {packed} of 1000");
    assert!(clear >= 980 && clear.abs_diff(packed) <= 3, "{clear} and {packed} of 1000");
}

fn tensor(name: &str, shape: &[usize], phase: f32) -> Tensor {
    let count = shape.iter().product::<usize>();
    let scale = (shape[1..].iter().product::<usize>() as f32).sqrt().recip();
    let values = (0..count).map(|i| (i as f32 * 1.618 + phase).sin() * scale).collect();
    Tensor::new(name, shape.to_vec(), values)
}

fn conv(name: &str, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Op {
    let weight = tensor(name, &[outputs, inputs, kernel, kernel], name.len() as f32);
    let pad = kernel / 2;
    let window = Window { stride: [stride; 2], padding: [pad; 4], dilation: [1, 1] };
    let bias = (0..outputs).map(|i| 0.1 * i as f32).collect();
    Op::Conv(Conv { weight, bias, window, groups: 1 })
}

/// A residual network with a strided shortcut, an identity shortcut, a smooth activation, a pool and a dense layer.
fn residual() -> Graph {
    let mut g = Graph::new("x", vec![2, 9, 8]).expect("valid");
    let relu = || Op::Activation(Activation::Relu);
    let mut push = |name: &str, op, inputs| g.push(name, op, inputs).expect("valid");
    let stem = push("stem", conv("stem", 2, 4, 3, 1), vec![NodeId::INPUT]);
    let a = push("stem relu", relu(), vec![stem]);
    let b = push("c1", conv("c1", 4, 4, 3, 1), vec![a]);
    let b = push("c1 silu", Op::Activation(Activation::Silu), vec![b]);
    let b = push("c2", conv("conv2", 4, 4, 3, 1), vec![b]);
    let b = push("add 1", Op::Add, vec![b, a]);
    let b = push("add 1 relu", relu(), vec![b]);
    let c = push("down", conv("down", 4, 6, 3, 2), vec![b]);
    let d = push("shortcut", conv("shortcut", 4, 6, 1, 2), vec![b]);
    let c = push("add 2", Op::Add, vec![c, d]);
    let c = push("square", Op::Activation(Activation::Square), vec![c]);
    let pool = cerium_models::graph::AveragePool {
        kernel: [2, 2],
        window: Window { stride: [2, 2], ..Window::default() },
        count_padding: false,
    };
    let c = push("pool", Op::AveragePool(pool), vec![c]);
    let features = g[c].elements();
    let flat = g.reshape("flat", c, vec![features]).expect("same elements");
    let head = Dense { weight: tensor("head", &[5, features], 0.5), bias: vec![1.0, -1.0, 0.0, 0.0, 2.0] };
    let head = g.push("head", Op::Dense(head), vec![flat]).expect("valid");
    let h = g.push("tanh", Op::Activation(Activation::Tanh), vec![head]).expect("valid");
    let last = Dense { weight: tensor("last", &[40, 5], 0.1), bias: vec![0.0; 40] };
    g.push("last", Op::Dense(last), vec![h]).expect("valid");
    g
}

#[test]
fn a_residual_network_of_all_operations() {
    let seed = getrandom::u64().expect("the system has randomness");
    println!("seed {seed}");
    let input = |index: u64| -> Vec<f32> {
        let phase = (seed % 1000 + index) as f32;
        (0..144).map(|i| (i as f32 * (0.37 + phase * 1e-3) + phase).sin()).collect()
    };
    let samples: Vec<Vec<f32>> = (0..24).map(input).collect();
    let samples: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
    let params = params();
    for graph in [residual(), simplify(&residual())] {
        let calibration = Calibration::measure(&graph, &samples).expect("the shapes fit");
        let options = ApproximationOptions { degree: 15, margin: 1.1, floor: 0.5 };
        let plan = Plan::new(&graph, &calibration, params.slots(), Batch::ONE, &options).expect("it fits");
        let simulation =
            simulate(&plan, &params, &samples[..4], &Budget::default(), &|_, _| {}).expect("the shapes fit");
        check_packing(&plan, &samples, &simulation);
        for layer in &simulation.layers {
            assert!(layer.largest_slot <= 1.05, "{}: {}", layer.name, layer.largest_slot);
            assert!(layer.relative_error < 0.25, "{}: {}", layer.name, layer.relative_error);
        }
    }
}

/// Every picture of a batch gets what it would get alone, up to how many pictures fit.
#[test]
fn pictures_of_a_batch_do_not_meet() {
    let seed = getrandom::u64().expect("the system has randomness");
    println!("seed {seed}");
    let input = |index: u64| -> Vec<f32> {
        let phase = (seed % 1000 + index) as f32;
        (0..144).map(|i| (i as f32 * (0.41 + phase * 1e-3) + phase).sin()).collect()
    };
    let samples: Vec<Vec<f32>> = (0..10).map(input).collect();
    let samples: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
    let (params, graph) = (params(), simplify(&residual()));
    let calibration = Calibration::measure(&graph, &samples).expect("the shapes fit");
    let options = ApproximationOptions { degree: 7, margin: 1.1, floor: 0.5 };
    let plan = |pictures| Plan::new(&graph, &calibration, params.slots(), Batch::new(pictures), &options);
    let error = plan(1 << 20).expect_err("more than slots");
    let PackingError::Batch { largest, needed, .. } = error else { panic!("{error}") };
    assert_eq!(largest * needed, params.slots());
    assert!(
        plan(largest + 1).expect_err("one too many").to_string().contains(&format!("at most {largest},"))
    );
    // Batches that are full, that leave places empty, and the largest one; the last run of each takes the rest.
    for pictures in [4, 3, largest] {
        let plan = plan(pictures).expect("it fits");
        let simulation =
            simulate(&plan, &params, &samples, &Budget::default(), &|_, _| {}).expect("the shapes fit");
        assert_eq!(simulation.packed.len(), samples.len());
        check_packing(&plan, &samples, &simulation);
    }
    let plan = plan(4).expect("it fits");
    let error = simulate(&plan, &params, &[samples[0], samples[1], &[0.0]], &Budget::default(), &|_, _| {});
    let error = error.expect_err("a value is missing");
    assert!(error.to_string().starts_with("input 2: the input has 1 elements"), "{error}");
}

#[test]
fn the_first_layer_over_budget_is_named() {
    let graph = residual();
    let quiet = vec![1e-3f32; 144];
    let loud: Vec<f32> = (0..144).map(|i| (i as f32).sin()).collect();
    let calibration = Calibration::measure(&graph, &[&quiet]).expect("the shapes fit");
    let params = params();
    let plan = Plan::new(&graph, &calibration, params.slots(), Batch::ONE, &ApproximationOptions::default())
        .expect("it fits");
    let simulation =
        simulate(&plan, &params, &[&loud], &Budget::default(), &|_, _| {}).expect("the shapes fit");
    let layer = simulation.first_over_budget().expect("ranges are exceeded");
    assert_eq!(layer.name, "stem");
    assert!(layer.over_budget.as_deref().is_some_and(|why| why.contains("calibrate with more samples")));
    let error = simulate(&plan, &params, &[&loud, &loud[1..]], &Budget::default(), &|_, _| {})
        .expect_err("one value is missing");
    assert!(error.to_string().starts_with("input 1: the input has 143 elements"), "{error}");
}

#[test]
fn a_network_that_does_not_fit_is_refused() {
    let mut graph = Graph::new("x", vec![1, 32, 32]).expect("valid");
    graph.push("wide", conv("wide", 1, 9, 3, 1), vec![NodeId::INPUT]).expect("valid");
    let input = vec![0.5; 1024];
    let calibration = Calibration::measure(&graph, &[&input]).expect("the shapes fit");
    let error = Plan::new(&graph, &calibration, 1 << 13, Batch::ONE, &ApproximationOptions::default())
        .expect_err("too large");
    let PackingError::TooLarge { node, needed, slots, .. } = &error else { panic!("{error}") };
    assert_eq!((node.as_str(), *needed, *slots), ("wide", 1 << 14, 1 << 13));
    assert!(error.to_string().contains("larger ring"));

    // Strides far beyond any ciphertext, which leave one pixel or push two apart.
    let mut graph = Graph::new("x", vec![1, 5, 5]).expect("valid");
    for (index, padding) in [1 << 30, 1 << 30, 1 << 30, 0].into_iter().enumerate() {
        let weight = tensor("far", &[1, 1, 1, 1], 1.0);
        let window =
            Window { stride: [(1 << 31) - 1; 2], padding: [0, padding, 0, padding], dilation: [1, 1] };
        let conv = Conv { weight, bias: vec![0.5], window, groups: 1 };
        graph.push(format!("far {index}"), Op::Conv(conv), vec![graph.output()]).expect("valid");
    }
    let calibration = Calibration::measure(&graph, &[&[0.5; 25]]).expect("the shapes fit");
    let plan = Plan::new(&graph, &calibration, 1 << 13, Batch::ONE, &ApproximationOptions::default());
    assert!(matches!(plan, Err(PackingError::TooLarge { .. })));
}

#[test]
fn a_drawn_digit_is_read() {
    let graph = import::parse(&model("mnist.onnx")).expect("a valid model");
    let digit = Dataset::open(&project("models/mnist/four.png")).expect("a picture of a digit");
    assert_eq!(largest(&reference::run(&graph, digit.input(0)).expect("28x28")), 4);
}

#[test]
fn weights_alone_are_no_model() {
    let error = import::parse(&model("mnist.safetensors")).expect_err("weights only");
    assert!(error.to_string().contains("export the model as ONNX"), "{error}");
}
