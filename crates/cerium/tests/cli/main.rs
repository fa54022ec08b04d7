//! The command line as users meet it: separate processes that share only files.

mod batch;
mod bits;
mod chaos;
mod devices;
mod errors;
mod explain;
mod flow;
mod interruption;
mod models;
mod ranks;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a compiled program, keys, an encrypted input and an encrypted answer, made once for all tests; nobody
/// changes them.
struct Fixture {
    folder: TempDir,
}

impl Fixture {
    fn get() -> &'static Fixture {
        static FIXTURE: OnceLock<Fixture> = OnceLock::new();
        FIXTURE.get_or_init(|| {
            let fixture = Fixture { folder: TempDir::new().expect("a temporary folder") };
            let [program, keys, input, answer] =
                ["p.cerium", "keys", "in.ct", "out.ct"].map(|name| fixture.path(name));
            ok(&["compile", &model(), "--calibrate", &data("calibration"), "-o", &program]);
            ok(&["keygen", &program, "-o", &keys]);
            ok(&["encrypt", &program, "--keys", &keys, "--input", &sample(0), "-o", &input]);
            let profile = fixture.path("run.json");
            ok(&["run", &program, "--keys", &keys, "--input", &input, "-o", &answer, "--profile", &profile]);
            fixture
        })
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}

/// A file or prefix of the demo network's folder.
fn data(name: &str) -> String {
    text(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist").join(name))
}

fn model() -> String {
    data("mnist.onnx")
}

/// One of the 20 sample digits, as an input.
fn sample(index: usize) -> String {
    format!("{}:{index}", data("sample"))
}

fn label(index: usize) -> u64 {
    u64::from(std::fs::read(data("sample-labels-idx1-ubyte")).expect("the labels")[8 + index])
}

fn cerium(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cerium")).args(args).output().expect("the binary starts")
}

/// Runs a command that succeeds; its standard output.
fn ok(args: &[&str]) -> String {
    let output = cerium(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cerium {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

/// As [`ok`], with `--json`: exactly one object.
fn json(args: &[&str]) -> Value {
    let stdout = ok(&[args, &["--json"]].concat());
    let value: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stdout}"));
    assert!(value.is_object(), "{value}");
    value
}

/// Runs a command that is refused, and checks that its message says all of `parts`.
fn refused(args: &[&str], parts: &[&str]) {
    let output = cerium(args);
    check_refusal(&output, &format!("cerium {args:?}"), parts);
}

fn check_refusal(output: &Output, what: &str, parts: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {message}");
    assert!(message.contains("error: "), "{what}: {message}");
    for part in parts {
        assert!(message.contains(part), "{what}: no {part:?} in: {message}");
    }
    let mut lines: Vec<&str> = message.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), message.lines().count(), "{what} says something twice: {message}");
}
