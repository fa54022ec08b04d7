//! Several inputs in one ciphertext.

use std::fs;

use super::{data, json, label, model, ok, refused, sample, text};
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn a_batch_from_pictures_to_answers() {
    let folder = TempDir::new().unwrap();
    let [program, keys, input, answer] =
        ["p.cerium", "keys", "in.ct", "out.ct"].map(|name| text(&folder.path().join(name)));
    let (model, calibration, samples) = (model(), data("calibration"), data("sample"));
    let compile =
        ["compile", &model, "--calibrate", &calibration, "-o", &program, "--params", "leveled-14", "--batch"];
    refused(
        &[&compile[..], &["5"]].concat(),
        &["5 pictures do not fit", "8192 slots", "at most 4", "larger ring"],
    );
    assert!(!fs::exists(&program).unwrap(), "nothing is written");
    assert!(ok(&[&compile[..], &["3"]].concat()).contains("of 3 inputs"));
    // Three in the places of four.
    assert_eq!(json(&["explain", &program])["inputs"][0]["batch"], 3);
    assert!(ok(&["explain", &program]).contains("3 x [1, 28, 28]"));

    ok(&["keygen", &program, "-o", &keys]);
    let encrypt = ["encrypt", &program, "--keys", &keys, "-o", &input];
    let four = format!("{samples}:2..6");
    refused(&[&encrypt[..], &["--input", &four]].concat(), &["there are 4 inputs", "3 at a time", "--batch"]);
    refused(&[&encrypt[..], &["--input", &format!("{samples}:4..4")]].concat(), &["names no input"]);
    refused(&[&encrypt[..], &["--input", &format!("{samples}:18..21")]].concat(), &["there is no 20"]);
    let three = format!("{samples}:0..2");
    let report = json(&[&encrypt[..], &["--input", &three, "--input", &sample(7)]].concat());
    assert_eq!((&report["inputs"], &report["batch"]), (&json!(3), &json!(3)));
    let run = ["run", &program, "--keys", &keys, "--input", &input, "-o", &answer];
    let decrypt = ["decrypt", &program, "--keys", &keys, "--input", &answer];
    ok(&run);
    let full = json(&decrypt)["outputs"][0].clone();
    assert_eq!(full["largest"], json!([label(0), label(1), label(7)]));
    let values = |of: &Value| -> Vec<Vec<f64>> { serde_json::from_value(of["values"].clone()).unwrap() };
    assert_eq!(values(&full).iter().map(Vec::len).collect::<Vec<_>>(), [10; 3]);

    // Fewer inputs than places: the answers that count are those that they have beside others.
    let shown = ok(&[&encrypt[..], &["--input", &three]].concat());
    assert!(shown.contains("2 times 784 values") && shown.contains("--count 2"), "{shown}");
    ok(&run);
    let part = json(&[&decrypt[..], &["--count", "2"]].concat())["outputs"][0].clone();
    assert_eq!(part["largest"], json!([label(0), label(1)]));
    let bound = 20.0 * full["predicted_error"].as_f64().unwrap();
    for (a, b) in values(&part).concat().iter().zip(values(&full).concat()) {
        assert!((a - b).abs() < bound, "{part}\n{full}");
    }
    let shown = ok(&decrypt);
    assert!(shown.contains(&format!("of input 1: the largest value is number {}", label(1))), "{shown}");
    refused(&[&decrypt[..], &["--count", "4"]].concat(), &["--count 4", "at a time, which is 3"]);

    // Two runs, the last one with two inputs.
    let eval = json(&["eval", &program, "--data", &samples, "--count", "5", "--keys", &keys]);
    for (figure, value) in [("batch", 3), ("runs", 2), ("count", 5), ("agreements", 5)] {
        assert_eq!(eval[figure], value, "{figure}");
    }
    let seconds = |figure: &str| eval[figure].as_f64().unwrap();
    assert!((5.0 * seconds("seconds_per_input") / (2.0 * seconds("seconds_per_run")) - 1.0).abs() < 1e-9);
    assert_eq!(eval["encrypted_accuracy"], 1.0);
}

#[test]
fn a_batch_is_simulated() {
    let (model, calibration, samples) = (model(), data("calibration"), data("sample"));
    let simulate = ["simulate", &model, "--calibrate", &calibration, "--data", &samples, "--count", "7"];
    let [one, four] = ["1", "4"].map(|batch| json(&[&simulate[..], &["--batch", batch]].concat()));
    assert_eq!((&one["batch"], &four["batch"]), (&json!(1), &json!(4)));
    for figure in ["count", "agreements", "simulated_accuracy", "clear_accuracy", "first_over_budget"] {
        assert_eq!(one[figure], four[figure], "{figure}");
    }
    let batch = ["--batch", "100000"];
    refused(
        &[&simulate[..], &batch].concat(),
        &["100000 pictures do not fit", "choose a batch of at most 16"],
    );
    let compile = ["compile", &model, "--calibrate", &calibration, "-o", "none.cerium"];
    let parts = ["no secure parameter set fits", "100000 pictures do not fit"];
    refused(&[&compile[..], &batch].concat(), &parts);
    // Without `--batch` a program takes one input.
    let program = super::Fixture::get().path("p.cerium");
    let keys = super::Fixture::get().path("keys");
    let two = ["encrypt", &program, "--keys", &keys, "-o", "none.ct", "--input", &sample(0), "--input"];
    refused(&[&two[..], &[&sample(1)]].concat(), &["there are 2 inputs", "takes 1 at a time", "--batch"]);
}
