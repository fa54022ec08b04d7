//! Models of every form, and what is said about those that cannot be used.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::{data, json, ok, refused, text};

/// A folder with a model in it.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

/// The bytes of a message field in a protobuf file.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 1 << 14, "two bytes hold the length");
    let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8];
    [&[number << 3 | 2][..], &length, bytes].concat()
}

/// A number field.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// A node of an ONNX graph, from its operator, operands and result.
fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| field(1, name.as_bytes())).collect();
    let name = format!("{operator}_1");
    [inputs, field(2, output.as_bytes()), field(3, name.as_bytes()), field(4, operator.as_bytes())].concat()
}

/// The weight `w` `[1, 1, 1, 1]`; `data` are the fields of its data.
fn weight(data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = (0..4).flat_map(|_| number(1, 1)).collect();
    [dims, number(2, 1), field(8, b"w"), data.to_vec()].concat()
}

/// An ONNX model from `x` `[1, 1, height, 2]` to `y`, with a symbol for a height of 0.
fn onnx(height: u8, nodes: &[Vec<u8>], weights: &[Vec<u8>]) -> Vec<u8> {
    let dims = [1, 1, height, 2].map(|extent| match extent {
        0 => field(1, &field(2, b"rows")),
        extent => field(1, &number(1, extent)),
    });
    let tensor = [number(1, 1), field(2, &dims.concat())].concat();
    let input = [field(1, b"x"), field(2, &field(1, &tensor))].concat();
    let nodes: Vec<u8> = nodes.iter().flat_map(|node| field(1, node)).collect();
    let weights: Vec<u8> = weights.iter().flat_map(|tensor| field(5, tensor)).collect();
    field(7, &[nodes, weights, field(11, &input), field(12, &field(1, b"y"))].concat())
}

/// A network description's weights: `d.weight` `[2, 3072]`.
fn weights() -> Vec<u8> {
    let values = (0..2 * 3072).map(|i| if i < 3072 { 0.001f32 } else { -0.001 });
    let header = r#"{"d.weight":{"dtype":"F32","shape":[2,3072],"data_offsets":[0,24576]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(values.flat_map(f32::to_le_bytes));
    bytes
}

/// Errors of ONNX files, each of which names the node and says what to do.
#[test]
fn onnx_files_that_cannot_be_used() {
    let place = Place::new();
    let out = place.path("p.cerium");
    let conv = || vec![node("Conv", &["x", "w"], "y")];
    let good = weight(&field(9, &1.0f32.to_le_bytes()));
    let check = |bytes: Vec<u8>, parts: &[&str]| {
        let model = place.write("net.onnx", bytes);
        let parts = [&["cannot use the model", "net.onnx"], parts].concat();
        refused(&["compile", &model, "--calibrate", &data("calibration"), "-o", &out], &parts);
        refused(&["simulate", &model, "--data", &data("sample")], &parts);
    };
    let unknown = vec![node("LSTM", &["x"], "y")];
    check(
        onnx(2, &unknown, &[]),
        &["node LSTM_1: operator LSTM is not known", "leave it out", "Add, AveragePool"],
    );
    let pool = vec![node("MaxPool", &["x"], "y")];
    check(onnx(2, &pool, &[]), &["node MaxPool_1: MaxPool", "use AveragePool"]);
    check(onnx(0, &conv(), &[good]), &["input x: dimension 2 is dynamic (rows)", "with fixed shapes"]);
    check(
        onnx(2, &conv(), &[]),
        &["node Conv_1 reads \"w\"", "saved without its weights", "export it again"],
    );
    let nan = weight(&field(9, &f32::NAN.to_le_bytes()));
    check(onnx(2, &conv(), &[nan]), &["node Conv_1: tensor w: element 0 is NaN", "must be finite"]);
    let location = field(13, &[field(1, b"location"), field(2, b"net.onnx.data")].concat());
    let elsewhere = weight(&[location, number(14, 1)].concat());
    check(
        onnx(2, &conv(), &[elsewhere]),
        &["node Conv_1", "no file with the data of tensor w", "net.onnx.data", "put it beside the model"],
    );
    assert!(!fs::exists(&out).unwrap(), "nothing is written");
}

#[test]
fn a_described_network_and_its_pictures() {
    let place = Place::new();
    let pictures: Vec<u8> =
        (0..2).flat_map(|label| [vec![label], vec![51; 1024], vec![102; 2048]].concat()).collect();
    let pictures = place.write("pictures.bin", pictures);
    let input = json!({ "shape": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "deviation": [0.01, 0.5, 0.5] });
    let mut description = json!({ "weights": "net.safetensors", "input": input, "layers": ["flatten", { "dense": { "name": "d" } }] });
    let model = place.write("net.json", description.to_string());
    let program = place.path("p.cerium");
    let compile = ["compile", &model, "--calibrate", &pictures, "-o", &program];
    refused(&compile, &["no file of weights at", "net.safetensors", "--weights FILE"]);
    let weights = place.write("elsewhere", weights());
    let compile = [&compile[..], &["--weights", &weights]].concat();
    refused(
        &[&compile[..], &["--normalize", "1/2"]].concat(),
        &["--normalize 1/2: it is for 1 channels", "input has 3"],
    );
    ok(&compile);

    // The margin of calibration is 2: pictures reach as far as those it was calibrated on, (0.2 - 0.1) / 0.01.
    let keys = place.path("keys");
    ok(&["keygen", &program, "-o", &keys]);
    let encrypt = |program: &str, input: &str| {
        let out = place.path("in.ct");
        let report = json(&["encrypt", program, "--keys", &keys, "--input", input, "-o", &out]);
        report["range_used"].as_f64().unwrap()
    };
    let share = encrypt(&program, &format!("{pictures}:1"));
    assert!((share - 1.0 / 2.0).abs() < 1e-6, "{share}");
    // Numbers are what the network takes.
    let numbers = place.write("x.csv", format!("{}5", "5,".repeat(3071)));
    assert!((encrypt(&program, &numbers) - share / 2.0).abs() < 1e-6);
    // The program holds the network, though not the files that it came from.
    fs::remove_file(&weights).unwrap();
    let report = json(&["eval", &program, "--data", &pictures, "--keys", &keys]);
    assert_eq!((&report["count"], &report["agreements"]), (&json!(2), &json!(2)));
    assert!(report["max_error"].as_f64().unwrap() < 1e-2, "{report}");

    description["layers"][1]["dense"]["name"] = json!("e");
    let model = place.write("net.json", description.to_string());
    let weights = place.write("net.safetensors", self::weights());
    let compile = ["compile", &model, "--calibrate", &pictures, "-o", &program];
    refused(&compile, &["cannot use the model", "layer e: the weights have no tensor e.weight", "d.weight"]);
    let onnx = data("mnist.onnx");
    let compile = ["compile", &onnx, "--weights", &weights, "--calibrate", &pictures, "-o", &program];
    refused(&compile, &["--weights is for network descriptions"]);
}
