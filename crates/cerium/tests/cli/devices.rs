//! Devices, as users choose them.

use std::path::Path;

use crate::{Fixture, cerium, json, ok, refused};

#[test]
fn the_suite_compares_devices_word_for_word() {
    let suite = ["bench", "device", "--rounds", "1"];
    let report = json(&suite);
    assert_eq!(report["equal"], true, "{report}");
    for class in ["elementwise", "ntt", "intt", "base_convert"] {
        assert!(report["launches"][class].as_u64().unwrap() > 0, "{class} in {report}");
    }
    let programs = report["programs"].as_array().unwrap();
    assert!(programs.iter().all(|program| program["different"] == 0 && program["words"].as_u64() > Some(0)));
    assert_eq!(programs.last().unwrap()["program"], "bootstrap");
    // The seed is the whole of the randomness of the other programs.
    let seed = report["seed"].to_string();
    let again = json(&[&suite[..], &["--no-bootstrap", "--seed", &seed]].concat());
    assert_eq!(again["programs"].as_array().unwrap()[..], programs[..programs.len() - 1]);
    assert!(ok(&[&suite[..], &["--no-bootstrap", "--seed", &seed]].concat()).contains(&seed));
}

#[test]
fn a_machine_without_a_gpu_says_what_to_do() {
    if Path::new("/dev/nvidiactl").exists() {
        println!("skipped: this machine has the driver of a GPU");
        return;
    }
    let fixture = Fixture::get();
    let [program, keys, input, out] = ["p.cerium", "keys", "in.ct", "gpu.ct"].map(|name| fixture.path(name));
    let run = ["run", &program, "--keys", &keys, "--input", &input, "-o", &out, "--device"];
    for device in ["cuda", "cuda:1"] {
        refused(&[&run[..], &[device]].concat(), &["no NVIDIA driver", "--device cpu"]);
    }
    assert!(!Path::new(&out).exists());
    refused(&["bench", "device", "--device", "cuda"], &["no NVIDIA driver"]);
    // `auto` takes what there is.
    let report = json(&["bench", "ops", "--params", "insecure-test", "--runs", "1", "--device", "auto"]);
    assert!(report["device"].as_str().unwrap().starts_with("cpu"), "{report}");
    let wrong = cerium(&[&run[..], &["gpu"]].concat());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("devices are cpu, cuda"));
}

#[test]
fn kernels_are_compiled_without_a_gpu() {
    let fixture = Fixture::get();
    let folder = tempfile::tempdir().unwrap();
    let cubins = folder.path().to_str().unwrap();
    let compile = ["bench", "kernels", &fixture.path("p.cerium"), "--arch", "sm_90", "--cubins", cubins];
    // Without NVRTC the error says how to get it.
    let nowhere = [&compile[..], &["--nvrtc", cubins]].concat();
    refused(&nowhere, &["no NVRTC", "pip install"]);
    let output = cerium(&[&compile[..], &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("no NVRTC") {
        println!("skipped: {stderr}");
        return;
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&stderr);
    let kernels = report["kernels"].as_array().unwrap();
    assert_eq!(report["sources"], kernels.len());
    assert!(kernels.iter().any(|kernel| kernel["entry"].as_str().unwrap().starts_with("ntt_")), "{report}");
    assert!(kernels.iter().all(|kernel| kernel["registers"].as_u64() > Some(4)), "{report}");
    // What is there once needs no NVRTC any more.
    assert_eq!(json(&nowhere), report);
}
