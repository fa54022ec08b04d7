//! A program for two devices: in one process, and in two that meet over TCP or MPI.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::{Fixture, check_refusal, data, json, label, model, ok, refused, sample, text};

/// A folder with the program and an input; keys are those of the fixture, which serve any number of devices.
struct Pair {
    folder: TempDir,
    keys: String,
}

impl Pair {
    fn get() -> &'static Pair {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| {
            let pair = Pair { folder: TempDir::new().unwrap(), keys: Fixture::get().path("keys") };
            let (program, input) = (pair.path("p.cerium"), pair.path("in.ct"));
            ok(&["compile", &model(), "--calibrate", &data("calibration"), "--devices", "2", "-o", &program]);
            ok(&["encrypt", &program, "--keys", &pair.keys, "--input", &sample(4), "-o", &input]);
            pair
        })
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    /// The arguments of a run that writes `output`.
    fn run(&self, output: &str) -> Vec<String> {
        let paths = ["p.cerium", "in.ct", output].map(|name| self.path(name));
        let [program, input, output] = paths;
        let keys = self.keys.clone();
        ["run".into(), program, "--keys".into(), keys, "--input".into(), input, "-o".into(), output].into()
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// One of two processes that meet at a port, with the variables that `torchrun` sets.
fn start(rank: usize, port: u16, arguments: &[String]) -> Child {
    let rank = rank.to_string();
    let variables = [
        ("RANK", &rank[..]),
        ("LOCAL_RANK", &rank),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", &port.to_string()),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerium"));
    command.args(arguments).args(["--threads", "1", "--timeout", "30"]).envs(variables);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Both processes from beginning to end.
fn both(arguments: [&[String]; 2]) -> [Output; 2] {
    let port = free_port();
    let ranks = [0, 1].map(|rank| start(rank, port, arguments[rank]));
    ranks.map(|rank| rank.wait_with_output().unwrap())
}

#[test]
fn two_devices_give_one_answer_however_they_are_started() {
    let pair = Pair::get();
    let here = pair.run("here.ct");
    let report = json(&words(&here));
    let ranks = report["ranks"].as_array().unwrap();
    assert_eq!(ranks.len(), 2);
    for rank in ranks {
        assert!(rank["collectives"].as_u64().unwrap() > 0 && rank["bytes_sent"].as_u64().unwrap() > 0);
        assert!(rank["waiting_seconds"].as_f64().unwrap() > 0.0);
    }
    for kind in ["keys", "plaintexts", "pool"] {
        let sum: u64 = ranks.iter().map(|rank| rank["memory"][kind].as_u64().unwrap()).sum();
        assert_eq!(report["memory"][kind], sum);
    }
    // What they need is known before.
    let demand = json(&["params", &pair.path("p.cerium")]);
    assert!(
        ranks.iter().any(|rank| rank["memory"]["keys"] == demand["program"]["key_memory_bytes"]),
        "{demand}"
    );
    let expected = fs::read(pair.path("here.ct")).unwrap();
    let decrypt = ["decrypt", &pair.path("p.cerium"), "--keys", &pair.keys, "--input", &pair.path("here.ct")];
    assert_eq!(json(&decrypt)["outputs"][0]["largest"], label(4));
    // Two ranks are two lines of a table.
    let shown =
        ok(&words(&[&here[..], &["--devices".into(), "2".into(), "--threads".into(), "2".into()]].concat()));
    assert!(
        shown.contains("\n  0 ") && shown.contains("\n  1 ") && shown.contains("2 times cpu (1 thread"),
        "{shown}"
    );
    assert_eq!(fs::read(pair.path("here.ct")).unwrap(), expected);

    // Only the first of two processes prints and writes.
    let apart =
        [pair.run("first.ct"), pair.run("second.ct")].map(|run| [&run[..], &["--json".into()]].concat());
    let [first, second] = both([&apart[0], &apart[1]]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(second.status.success() && second.stdout.is_empty() && second.stderr.is_empty());
    let apart: Value = serde_json::from_slice(&first.stdout).unwrap();
    for (rank, other) in apart["ranks"].as_array().unwrap().iter().zip(ranks) {
        assert_eq!([&rank["bytes_sent"], &rank["memory"]], [&other["bytes_sent"], &other["memory"]]);
    }
    assert_eq!(fs::read(pair.path("first.ct")).unwrap(), expected);
    assert!(fs::metadata(pair.path("second.ct")).is_err());

    if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no mpirun");
        return;
    }
    let mut command = Command::new("timeout");
    command.args(["120", "mpirun", "--oversubscribe", "--allow-run-as-root", "-np", "2"]);
    command.arg(env!("CARGO_BIN_EXE_cerium")).args(pair.run("mpi.ct")).args(["--threads", "1"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(pair.path("mpi.ct")).unwrap(), expected);
}

#[test]
fn a_network_is_evaluated_on_two_devices() {
    let pair = Pair::get();
    let (program, samples) = (pair.path("p.cerium"), data("sample"));
    let report = json(&["eval", &program, "--data", &samples, "--count", "1", "--keys", &pair.keys]);
    assert_eq!(report["agreements"], 1);
    assert_eq!(report["ranks"].as_array().unwrap().len(), 2);
    assert!(report["device"].as_str().unwrap().contains("cpu ("));
}

#[test]
fn ranks_that_do_not_fit_are_refused() {
    let pair = Pair::get();
    let run = pair.run("never.ct");
    let three = [&run[..], &["--devices".into(), "3".into()]].concat();
    refused(&words(&three), &["compiled for 2 devices, it was to run on 3", "compile it with `--devices 3`"]);
    let shared = Fixture::get();
    let (program, input, output) = (shared.path("p.cerium"), shared.path("in.ct"), pair.path("never.ct"));
    let one = ["run", &program, "--keys", &pair.keys, "--input", &input, "-o", &output, "--devices", "2"];
    refused(&one, &["compiled for 1 device, it was to run on 2"]);

    // There may be no NCCL, and CPUs have no use for it.
    let nccl = [&run[..], &["--transport".into(), "nccl".into()]].concat();
    refused(&words(&nccl), &["NCCL"]);

    // Other keys for the same program.
    let other = pair.path("other");
    ok(&["keygen", &pair.path("p.cerium"), "-o", &other]);
    let mut strange = run.clone();
    let keys = strange.iter().position(|word| *word == pair.keys).unwrap();
    strange[keys] = other;
    for output in both([&run, &strange]) {
        check_refusal(&output, "with other keys", &["rank 1 has other evaluation keys than the others"]);
    }
    // What only one rank can know, the other hears.
    strange[keys] = pair.path("nowhere");
    let [first, second] = both([&run, &strange]);
    check_refusal(&second, "without keys", &["is missing in", "cerium keygen"]);
    check_refusal(&first, "beside a rank without keys", &["rank 1"]);
    assert!(fs::metadata(pair.path("never.ct")).is_err());
}
