//! The stages as the harness calls them: fresh processes that share files only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cerium_artifact::Artifact;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};
use cerium_models::approximation::ApproximationOptions;
use cerium_models::calibrate::Calibration;
use cerium_models::data::Dataset;
use cerium_models::import;
use cerium_models::lower::Plan;
use cerium_models::packing::Batch;
use tempfile::TempDir;

/// The stages that the harness calls by name.
const STAGES: [&str; 7] = [
    "client_key_generation",
    "server_preprocess_model",
    "client_preprocess_input",
    "client_encode_encrypt_input",
    "server_encrypted_compute",
    "client_decrypt_decode",
    "client_postprocess",
];

/// The harness's directories, with the demo network as a submission.
struct Harness {
    root: TempDir,
}

impl Harness {
    fn new() -> Harness {
        let harness = Harness { root: TempDir::new().expect("a temporary folder") };
        let build = harness.path("submissions/mnist/build");
        fs::create_dir_all(&build).unwrap();
        network().write(&build.join("network.cerium")).unwrap();
        for stage in STAGES {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fhe-benchmarking"), build.join(stage)).unwrap();
        }
        harness
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Writes pictures as the harness does.
    fn write_pictures(&self, instance: &str, pictures: &[&[f32]]) {
        let folder = self.path("datasets").join(instance).join("intermediate");
        fs::create_dir_all(&folder).unwrap();
        let line = |picture: &&[f32]| {
            let pixels: Vec<String> = picture.iter().map(|pixel| format!("{pixel:.6}")).collect();
            pixels.join(" ") + "\n"
        };
        fs::write(folder.join("test_pixels.txt"), pictures.iter().map(line).collect::<String>()).unwrap();
    }

    fn call(&self, stage: &str, arguments: &[&str]) -> Output {
        let stage = Path::new("submissions/mnist/build").join(stage);
        let mut command = Command::new(self.root.path().join(&stage));
        command.args(arguments).current_dir(self.root.path()).output().expect("the stage starts")
    }

    fn run(&self, stage: &str, arguments: &[&str]) {
        let output = self.call(stage, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stage} {arguments:?}: {stderr}");
    }

    /// The message of a stage that is refused.
    fn refused(&self, stage: &str, arguments: &[&str]) -> String {
        let output = self.call(stage, arguments);
        assert!(!output.status.success(), "{stage} {arguments:?} should have been refused");
        String::from_utf8(output.stderr).unwrap()
    }

    fn lines(&self, path: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.lines().map(str::to_owned).collect()
    }
}

/// A file of the demo network.
fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist").join(name)
}

/// The demo network, two digits at a time, under a parameter set that is quick and protects nothing.
fn network() -> Artifact {
    let bytes = fs::read(model("mnist.onnx")).unwrap();
    let graph = import::parse(&bytes).unwrap();
    let samples = Dataset::open(&model("calibration")).unwrap();
    let calibration = Calibration::measure(&graph, &samples.inputs()).unwrap();
    let params = Params::new(ParamsSpec::insecure(13, 40, 9, 3).unwrap()).unwrap();
    let options = ApproximationOptions::default();
    let plan = Plan::new(&graph, &calibration, params.slots(), Batch::new(2), &options).unwrap();
    let source = plan.program("mnist", &params);
    let mut artifact = compile(&source, &CompileOptions::default(), &mut Trace::default()).unwrap();
    artifact.model = bytes;
    artifact
}

#[test]
fn pictures_become_predictions_and_the_server_needs_no_secret() {
    let harness = Harness::new();
    let digits = Dataset::open(&model("sample")).unwrap();
    let inputs = digits.inputs();
    harness.run("client_key_generation", &["1", "--insecure"]);
    // The client's files are elsewhere while the server works.
    let private = ["datasets", "io/small/secret_key", "io/small/intermediate"];
    let without_private = |stage: &str, arguments: &[&str]| {
        let there: Vec<_> = private.iter().filter(|path| harness.path(path).exists()).collect();
        let elsewhere = |path: &&&str| harness.path(&format!("elsewhere-{}", path.replace('/', "-")));
        there.iter().for_each(|path| fs::rename(harness.path(path), elsewhere(path)).unwrap());
        harness.run(stage, arguments);
        there.iter().for_each(|path| fs::rename(elsewhere(path), harness.path(path)).unwrap());
    };
    without_private("server_preprocess_model", &[]);
    // The harness repeats what follows for each run, with other pictures and perhaps fewer.
    for run in [&inputs[..3], &inputs[3..5]] {
        harness.write_pictures("small", run);
        harness.run("client_preprocess_input", &["1"]);
        harness.run("client_encode_encrypt_input", &["1"]);
        without_private("server_encrypted_compute", &["1"]);
        // Older harnesses do not tell the size here.
        harness.run("client_decrypt_decode", if run.len() == 3 { &["1"] } else { &[] });
        harness.run("client_postprocess", &["1"]);

        let predictions = harness.lines("io/small/encrypted_model_predictions.txt");
        let first = if run.len() == 3 { 0 } else { 3 };
        let labels = (first..first + run.len()).map(|index| digits.label(index).unwrap().to_string());
        assert_eq!(predictions, labels.collect::<Vec<_>>());
        let answers = fs::read_dir(harness.path("io/small/ciphertexts_download")).unwrap().count();
        assert_eq!(answers, run.len().div_ceil(2));
        let steps = fs::read(harness.path("io/small/server_reported_steps.json")).unwrap();
        let steps: serde_json::Value = serde_json::from_slice(&steps).unwrap();
        assert!(steps["Encrypted computation"].as_f64().unwrap() < steps["Total"].as_f64().unwrap());
        clear_network_agrees(&harness);
    }

    // What goes wrong is said with the stage that would put it right.
    assert!(harness.refused("server_encrypted_compute", &["0"]).contains("client_key_generation"));
    assert!(harness.refused("client_postprocess", &["0"]).contains("client_decrypt_decode"));
    assert!(harness.refused("client_postprocess", &["4"]).contains("3 (large)"));
    harness.write_pictures("small", &[&[0.5; 3072]]);
    assert!(harness.refused("client_preprocess_input", &["1"]).contains("3072 pixels"));
    // Keys made anew open nothing that was encrypted before.
    harness.run("client_key_generation", &["1", "--insecure"]);
    assert!(harness.refused("client_decrypt_decode", &["1"]).contains("does not decrypt"));
}

/// The encrypted scores are those of the network in the clear but for the activations, which are polynomials.
fn clear_network_agrees(harness: &Harness) {
    let executable = Command::new(env!("CARGO_BIN_EXE_fhe-benchmarking"))
        .args(["cleartext_impl", "--submission", "submissions/mnist/build"])
        .args(["datasets/small/intermediate/test_pixels.txt", "clear.txt", "clear_scores.txt"])
        .current_dir(harness.root.path())
        .output()
        .unwrap();
    assert!(executable.status.success(), "{}", String::from_utf8_lossy(&executable.stderr));
    assert_eq!(harness.lines("clear.txt"), harness.lines("io/small/encrypted_model_predictions.txt"));
    let scores = |path: &str| {
        let parse = |line: String| line.split(' ').map(|score| score.parse().unwrap()).collect::<Vec<f64>>();
        harness.lines(path).into_iter().map(parse).collect::<Vec<_>>()
    };
    let (clear, encrypted) = (scores("clear_scores.txt"), scores("io/small/intermediate/model_scores.txt"));
    for (clear, encrypted) in clear.iter().zip(&encrypted) {
        assert_eq!(clear.len(), 10);
        assert!(clear.iter().zip(encrypted).all(|(a, b)| (a - b).abs() < 3.0), "{clear:?} {encrypted:?}");
    }
}
