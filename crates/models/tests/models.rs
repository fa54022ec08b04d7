//! The networks at hand, in the clear.

use cerium_models::data::Dataset;
use cerium_models::graph::{AveragePool, Conv, Graph, Op, Window};
use cerium_models::import::{Model, onnx, safetensors};
use cerium_models::reference;
use cerium_models::tensor::Tensor;
use std::path::{Path, PathBuf};

/// A path of the project.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A path of the shared data, or `None` with a printed word.
fn shared(path: &str) -> Option<PathBuf> {
    let found = project("../shared/data").join(path);
    if !found.exists() {
        println!("skipped: {} is absent", found.display());
        return None;
    }
    Some(found)
}

fn class(logits: &[f64]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("a network has outputs") as u32
}

/// How many of the first `count` pictures are classified as labelled.
fn right(graph: &Graph, data: &Dataset, count: usize) -> usize {
    (0..count)
        .filter(|&i| {
            let logits = reference::run(graph, data.input(i)).expect("the shapes fit");
            Some(class(&logits)) == data.label(i)
        })
        .count()
}

#[test]
fn the_demo_network_reads_its_sample_digits() {
    let graph = onnx::read(&project("models/mnist/mnist.onnx")).expect("a valid model");
    let samples = Dataset::open(&project("models/mnist/sample")).expect("valid data");
    assert_eq!((samples.len(), samples.shape()), (20, &[1, 28, 28][..]));
    assert!(right(&graph, &samples, 20) >= 19);
    let calibration =
        Dataset::open(&project("models/mnist/calibration-images-idx3-ubyte")).expect("valid data");
    assert!(right(&graph, &calibration, 200) >= 195);
}

#[test]
fn both_weight_files_of_the_demo_network_agree() {
    let graph = onnx::read(&project("models/mnist/mnist.onnx")).expect("a valid model");
    let tensors = safetensors::read(&project("models/mnist/mnist.safetensors")).expect("valid weights");
    let mut compared = 0;
    for (_, node) in graph.nodes() {
        if let Op::Conv(Conv { weight, bias, .. }) | Op::Dense(cerium_models::graph::Dense { weight, bias }) =
            &node.op
        {
            assert_eq!(weight, &tensors[&weight.name]);
            assert_eq!(bias, &tensors[&weight.name.replace("weight", "bias")].values);
            compared += 2;
        }
    }
    assert_eq!(compared, tensors.len());
}

#[test]
fn the_demo_network_on_the_mnist_test_set() {
    let Some(path) = shared("mnist") else { return };
    let graph = onnx::read(&project("models/mnist/mnist.onnx")).expect("a valid model");
    let data = Dataset::open(&path).expect("valid data");
    assert_eq!(data.len(), 5000);
    // As measured by the training script.
    assert_eq!(right(&graph, &data, 1000), 985);
}

/// Two ResNet-20 of different origin: what they have in common.
fn check_resnet_20(graph: &Graph) {
    let activations = graph.nodes().filter(|(_, node)| matches!(node.op, Op::Activation(_))).count();
    assert_eq!((activations, graph[graph.output()].shape.as_slice()), (19, &[10][..]));
}

#[test]
fn resnet_20_in_the_clear() {
    let (Some(model), Some(data)) =
        (shared("resnet20-cifar10/resnet20_cifar10_pre.onnx"), shared("cifar10/test_first1000.bin"))
    else {
        return;
    };
    let model = Model::read(&model, None).expect("a valid model");
    check_resnet_20(&model.graph);
    let data = Dataset::open_with(&data, model.normalization.as_ref()).expect("valid data");
    // Of all 1000, 914 are right (checked once); a few keep the test short.
    let found = right(&model.graph, &data, 12);
    assert!(found >= 10, "{found} of 12");
}

#[test]
fn the_described_resnet_20_gives_the_logits_of_its_authors_code() {
    let (Some(weights), Some(logits), Some(data)) = (
        shared("resnet20-cifar10/resnet20.safetensors"),
        shared("resnet20-cifar10/ref_logits_first1000.safetensors"),
        shared("cifar10/test_first1000.bin"),
    ) else {
        return;
    };
    let description = project("models/resnet20/akamaster.json");
    let model = Model::read(&description, Some(&weights)).expect("a valid model");
    check_resnet_20(&model.graph);
    let data = Dataset::open_with(&data, model.normalization.as_ref()).expect("valid data");
    let wanted = &safetensors::read(&logits).expect("valid logits")["logits"];
    // Of all 1000, 915 are right, and no logit is off by more than 1e-4 (checked once); a few keep the test short.
    for index in (0..1000).step_by(40) {
        let found = reference::run(&model.graph, data.input(index)).expect("the shapes fit");
        for (found, wanted) in found.iter().zip(&wanted.values[10 * index..]) {
            assert!((found - f64::from(*wanted)).abs() < 1e-4, "picture {index}: {found}, not {wanted}");
        }
    }
}

/// All pictures, for a change of the importer: `cargo test --release -p cerium-models -- --ignored all_pictures`.
#[test]
#[ignore = "takes minutes"]
fn both_resnet_20_on_all_pictures() {
    let (Some(onnx), Some(weights), Some(logits), Some(data)) = (
        shared("resnet20-cifar10/resnet20_cifar10_pre.onnx"),
        shared("resnet20-cifar10/resnet20.safetensors"),
        shared("resnet20-cifar10/ref_logits_first1000.safetensors"),
        shared("cifar10/test_first1000.bin"),
    ) else {
        return;
    };
    let model = Model::read(&onnx, None).expect("a valid model");
    let pictures = Dataset::open_with(&data, model.normalization.as_ref()).expect("valid data");
    assert_eq!(right(&model.graph, &pictures, 1000), 914);
    let model =
        Model::read(&project("models/resnet20/akamaster.json"), Some(&weights)).expect("a valid model");
    let pictures = Dataset::open_with(&data, model.normalization.as_ref()).expect("valid data");
    let wanted = &safetensors::read(&logits).expect("valid logits")["logits"];
    let (mut right, mut worst) = (0, 0.0f64);
    for (index, wanted) in wanted.values.chunks_exact(10).enumerate() {
        let found = reference::run(&model.graph, pictures.input(index)).expect("the shapes fit");
        right += usize::from(Some(class(&found)) == pictures.label(index));
        let errors = found.iter().zip(wanted).map(|(found, wanted)| (found - f64::from(*wanted)).abs());
        worst = errors.fold(worst, f64::max);
    }
    println!("largest difference of a logit {worst:.1e}");
    assert!(right == 915 && worst < 1e-4, "{right} right, worst {worst}");
}

/// Draws numbers from a printed seed.
struct Draw(u64);

impl Draw {
    fn fresh() -> Self {
        let seed = getrandom::u64().expect("the system has randomness");
        println!("seed {seed}");
        Self(seed)
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn window(&mut self) -> Window {
        Window {
            stride: [1 + self.below(3), 1 + self.below(3)],
            padding: [self.below(4), self.below(4), self.below(4), self.below(4)],
            dilation: [1 + self.below(2), 1 + self.below(2)],
        }
    }
}

/// Convolutions and pools against their definition, element by element, on random windows.
#[test]
fn windows_agree_with_their_definition() {
    let mut draw = Draw::fresh();
    let mut checked = 0;
    while checked < 40 {
        let groups = 1 + draw.below(2);
        let (per_group, outputs) = (1 + draw.below(2), groups * (1 + draw.below(3)));
        let [h, w, kh, kw] = [1 + draw.below(9), 1 + draw.below(9), 1 + draw.below(5), 1 + draw.below(5)];
        let window = draw.window();
        let weight =
            Tensor::new("w", vec![outputs, per_group, kh, kw], draw.values(outputs * per_group * kh * kw));
        let conv = Conv { weight, bias: draw.values(outputs), window, groups };
        let pool = AveragePool { kernel: [kh, kw], window, count_padding: draw.below(2) == 0 };
        let channels = per_group * groups;
        let x = draw.values(channels * h * w);
        // What lies at (row, column) of the padded picture, and whether it is padding.
        let at = |c: usize, row: usize, column: usize| {
            let (y, x_) = (row as i64 - window.padding[0] as i64, column as i64 - window.padding[1] as i64);
            let inside = (0..h as i64).contains(&y) && (0..w as i64).contains(&x_);
            if inside { (f64::from(x[(c * h + y as usize) * w + x_ as usize]), true) } else { (0.0, false) }
        };
        let taps = |row: usize, column: usize| {
            (0..kh).flat_map(move |dy| {
                (0..kw).map(move |dx| {
                    let y = row * window.stride[0] + dy * window.dilation[0];
                    (dy, dx, y, column * window.stride[1] + dx * window.dilation[1])
                })
            })
        };
        for op in [Op::Conv(conv.clone()), Op::AveragePool(pool)] {
            let mut graph = Graph::new("x", vec![channels, h, w]).expect("valid");
            let input = graph.output();
            let Ok(out) = graph.push("op", op.clone(), vec![input]) else { continue };
            let shape = graph[out].shape.clone();
            let values = reference::run(&graph, &x).expect("valid");
            for (index, value) in values.into_iter().enumerate() {
                let (o, row, column) =
                    (index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]);
                let wanted = match &op {
                    Op::Conv(conv) => {
                        let group = o / (outputs / groups);
                        let mut sum = f64::from(conv.bias[o]);
                        for i in 0..per_group {
                            for (dy, dx, y, x_) in taps(row, column) {
                                let w = conv.weight.values[((o * per_group + i) * kh + dy) * kw + dx];
                                sum += f64::from(w) * at(group * per_group + i, y, x_).0;
                            }
                        }
                        sum
                    }
                    _ => {
                        let all: Vec<_> = taps(row, column).map(|(_, _, y, x_)| at(o, y, x_)).collect();
                        let inside = all.iter().filter(|(_, inside)| *inside).count();
                        let divisor = if pool.count_padding { kh * kw } else { inside.max(1) };
                        all.iter().map(|(value, _)| value).sum::<f64>() / divisor as f64
                    }
                };
                assert!((value - wanted).abs() < 1e-9, "{op:?} at {index}: {value}, not {wanted}");
            }
            checked += 1;
        }
    }
}
