//! What works, and what it prints.

use std::fs;
use std::time::{Duration, Instant};

use super::{Fixture, cerium, data, json, label, model, ok, refused, sample};
use tempfile::TempDir;

#[test]
fn the_server_needs_no_secret_and_the_threads_do_not_matter() {
    let shared = Fixture::get();
    let server = TempDir::new().unwrap();
    let path = |name: &str| super::text(&server.path().join(name));
    // The server's folder has the evaluation keys and nothing else.
    fs::create_dir(path("evaluation")).unwrap();
    for entry in fs::read_dir(shared.path("keys/evaluation")).unwrap() {
        let entry = entry.unwrap();
        fs::hard_link(entry.path(), server.path().join("evaluation").join(entry.file_name())).unwrap();
    }
    let (program, input) = (shared.path("p.cerium"), shared.path("in.ct"));
    for threads in ["1", "2"] {
        let out = path(&format!("out{threads}"));
        let report = json(&[
            "run",
            &program,
            "--keys",
            &path(""),
            "--input",
            &input,
            "-o",
            &out,
            "--threads",
            threads,
        ]);
        assert!(report["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(report["bytes"], fs::metadata(&out).unwrap().len());
        assert_eq!(fs::read(&out).unwrap(), fs::read(shared.path("out.ct")).unwrap(), "{threads} threads");
    }
    let answer = json(&["decrypt", &program, "--keys", &shared.path("keys"), "--input", &path("out1")]);
    assert_eq!(answer["outputs"][0]["largest"], label(0));
    assert_eq!(answer["outputs"][0]["values"].as_array().unwrap().len(), 10);
}

#[test]
fn anyone_can_encrypt_with_the_public_key() {
    let shared = Fixture::get();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| super::text(&folder.path().join(name));
    // Whoever has only the public key encrypts with it unasked.
    fs::create_dir(path("public")).unwrap();
    fs::copy(shared.path("keys/public.key"), path("public/public.key")).unwrap();
    let (program, keys) = (shared.path("p.cerium"), shared.path("keys"));
    ok(&["encrypt", &program, "--keys", &path("public"), "--input", &sample(3), "-o", &path("in")]);
    let report =
        json(&["encrypt", &program, "--keys", &keys, "--public", "--input", &sample(3), "-o", &path("in2")]);
    assert_eq!(report["bytes"], fs::metadata(path("in")).unwrap().len());
    assert!(
        fs::metadata(path("in")).unwrap().len() > fs::metadata(shared.path("in.ct")).unwrap().len() * 19 / 10
    );
    ok(&["run", &program, "--keys", &keys, "--input", &path("in"), "-o", &path("out")]);
    let decrypt = ["decrypt", &program, "--keys", &keys, "--input", &path("out")];
    let exact = json(&decrypt);
    assert_eq!(exact["outputs"][0]["largest"], label(3));
    let shareable = json(&[&decrypt[..], &["--share-bits", "8"]].concat());
    assert_eq!(shareable["outputs"][0]["largest"], label(3));
    assert_ne!(shareable["outputs"][0]["values"], exact["outputs"][0]["values"]);
    assert!(ok(&decrypt).contains(&format!("the largest value is number {}", label(3))));
}

#[test]
#[cfg(unix)]
fn the_secret_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |name| fs::metadata(Fixture::get().path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("keys/secret.key"), 0o600);
    assert_eq!(mode("keys/public.key") & 0o600, 0o600);
}

#[test]
fn keys_fit_the_memory_they_may_take() {
    let shared = Fixture::get();
    let folder = TempDir::new().unwrap();
    let out = super::text(&folder.path().join("small.cerium"));
    let free = json(&["explain", &shared.path("p.cerium")]);
    assert_eq!(free["key_plan"], serde_json::Value::Null);
    let bytes = free["key_memory_bytes"].as_u64().unwrap();
    let budget = format!("{:.3}MB", bytes as f64 * 0.8 / 1e6);
    let (model, calibration) = (model(), data("calibration"));
    let compile = ["compile", &model, "--calibrate", &calibration, "-o", &out, "--key-memory"];
    ok(&[&compile[..], &[&budget]].concat());
    let report = json(&["explain", &out]);
    let plan = &report["key_plan"];
    assert_eq!(plan["key_memory_bytes"], report["key_memory_bytes"]);
    assert_eq!(plan["key_memory_bytes_without"], bytes);
    assert!(report["key_memory_bytes"].as_f64().unwrap() <= bytes as f64 * 0.8);
    assert!(ok(&["explain", &out]).contains("chains of rotations"));
    refused(&[&compile[..], &["1MB"]].concat(), &["the evaluation keys take at least", "allow them more"]);
    refused(&[&compile[..], &["plenty"]].concat(), &["`plenty` is not a size", "4GB"]);
}

#[test]
fn eval_puts_encrypted_beside_clear() {
    let shared = Fixture::get();
    let (program, data) = (shared.path("p.cerium"), data("sample"));
    let report = json(&["eval", &program, "--data", &data, "--count", "4", "--keys", &shared.path("keys")]);
    assert_eq!(report["count"], 4);
    assert_eq!(report["clear_accuracy"], 1.0);
    assert_eq!(report["encrypted_accuracy"], 1.0);
    assert_eq!(report["disagreements"], serde_json::json!([]));
    assert!(report["seconds_per_input"].as_f64().unwrap() > 0.0);
    assert_eq!(report["key_bytes"], json(&["explain", &program])["key_bytes"]);
    assert!(report["stages"].as_array().unwrap().len() >= 5);
    // With keys made for the occasion.
    assert!(ok(&["eval", &program, "--data", &data, "--count", "1"]).contains("accuracy, encrypted"));
}

#[test]
fn simulate_names_the_layers() {
    let arguments = ["simulate", &model(), "--calibrate", &data("calibration"), "--data", &data("sample")];
    let report = json(&[&arguments[..], &["--count", "5"]].concat());
    assert_eq!(report["count"], 5);
    assert_eq!(report["clear_accuracy"], 1.0);
    assert_eq!(report["simulated_accuracy"], 1.0);
    assert_eq!(report["first_over_budget"], serde_json::Value::Null);
    // A polynomial of degree 1 is no ReLU.
    let report = json(&[&arguments[..], &["--count", "5", "--degree", "1"]].concat());
    assert_eq!(report["first_over_budget"], "/Relu");
    let shown = ok(&[&arguments[..], &["--count", "5", "--degree", "1"]].concat());
    assert!(shown.contains("first layer over budget: /Relu"), "{shown}");
}

#[test]
fn compile_shows_its_passes() {
    let folder = TempDir::new().unwrap();
    let out = super::text(&folder.path().join("p.cerium"));
    let (model, calibration) = (model(), data("calibration"));
    let compile = ["compile", &model, "--calibrate", &calibration, "-o", &out];
    let shown = ok(&[&compile[..], &["--trace", "--dump", "place_levels"]].concat());
    for part in [
        "before place_levels:",
        "after place_levels:",
        "lower_to_limb",
        "degree ",
        "points of accuracy",
        "cerium keygen",
    ] {
        assert!(shown.contains(part), "no {part:?}");
    }
    let report = json(&compile);
    assert_eq!(report["params"], "leveled-14");
    assert_eq!(report["insecure"], false);
    // The same program again: compilation is reproducible.
    assert_eq!(fs::read(&out).unwrap(), fs::read(Fixture::get().path("p.cerium")).unwrap());
}

#[test]
fn params_state_their_security() {
    let sets = json(&["params"]);
    let sets = sets["sets"].as_array().unwrap();
    assert!(sets.len() >= 5);
    for set in sets {
        if set["insecure"] == false {
            assert_eq!(set["security_bits"], 128);
            assert!(set["log_pq"].as_f64() <= set["log_pq_bound_128"].as_f64(), "{set}");
        } else {
            assert_eq!(set["security_bits"], serde_json::Value::Null);
            assert!(set["name"].as_str().unwrap().starts_with("insecure"));
        }
    }
    let one = json(&["params", "leveled-14"]);
    assert_eq!(one["level_table"].as_array().unwrap().len() as u64, one["levels"].as_u64().unwrap() + 1);
    assert!(ok(&["params", "leveled-14"]).contains("128 bits"));

    // Of a set with bootstrapping: what a bootstrap takes.
    let boot = json(&["params", "insecure-boot-40"]);
    let (keys, demand) = (boot["evaluation_key_bytes"].as_u64().unwrap(), &boot["bootstrap"]["program"]);
    assert!((20..80).contains(&demand["evaluation_keys"].as_u64().unwrap()), "{demand}");
    assert!((10 * keys..60 * keys).contains(&demand["key_bytes"].as_u64().unwrap()), "{demand}");
    assert_eq!(boot["bootstrap"]["output_level"], boot["levels"]);
    assert!(boot["bootstrap"]["sparse_log_qp"].as_f64().unwrap() <= 120.0);
    assert!(ok(&["params"]).contains("3 -> 17"));

    // Of a program: what its keys take, as `keygen` and `explain` say it.
    let program = Fixture::get().path("p.cerium");
    let (demand, explained) = (json(&["params", &program]), json(&["explain", &program]));
    assert_eq!(demand["name"], "leveled-14");
    for key in ["key_bytes", "key_memory_bytes", "pool_bytes", "memory_bytes"] {
        assert_eq!(demand["program"][key], explained[key], "{key}");
    }
    assert!(demand["program"]["keygen_memory_bytes"].as_u64() > demand["evaluation_key_bytes"].as_u64());
    assert!(ok(&["params", &program]).contains("memory to make them"));
}

#[test]
fn the_demo_is_quick_and_right() {
    let start = Instant::now();
    let shown = ok(&["demo", "--digit", "7"]);
    let time = start.elapsed();
    assert!(time < Duration::from_secs(10), "{time:?}");
    for part in [
        "encrypted answer 7, in the clear 7, its label 7",
        "█",
        "client",
        "server",
        "largest error",
        "--image",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let report = json(&["demo"]);
    assert_eq!(report["answer"], report["clear_answer"]);
    // What encryption adds stays within what the compiler promises: seven predicted standard deviations.
    let (error, predicted) = (report["encryption_error"].as_f64(), report["predicted_error"].as_f64());
    assert!(error.unwrap() > 0.0 && error.unwrap() <= 7.0 * predicted.unwrap(), "{report}");
}

/// A one, drawn dark on light in an odd format, as a user would.
#[test]
fn the_demo_takes_a_png() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("my.png");
    let (width, height) = (90u32, 120u32);
    let stroke = |x: u32, y: u32| (40..52).contains(&x) && (15..105).contains(&y);
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| if stroke(x, y) { [20, 10, 60] } else { [240, 250, 245] }))
        .collect();
    let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    let report = json(&["demo", "--image", &super::text(&path)]);
    assert_eq!((&report["answer"], &report["clear_answer"]), (&1.into(), &1.into()), "{report}");
}

#[test]
fn operations_are_measured_at_any_level() {
    let measure = ["bench", "ops", "--params", "insecure-test", "--runs", "2", "--levels", "1, 0"];
    let report = json(&measure);
    let operations = report["operations"].as_array().unwrap();
    let of = |level: u64| operations.iter().filter(|row| row["level"] == level).collect::<Vec<_>>();
    // At level 0 nothing can be rescaled.
    assert_eq!((of(1).len(), of(0).len()), (8, 6), "{report}");
    for row in operations {
        let [low, high] = [0, 1].map(|i| row["spread_s"][i].as_f64().unwrap());
        let median = row["median_s"].as_f64().unwrap();
        assert!(0.0 < low && low <= median && median <= high, "{row}");
        let keyed = !["ntt", "intt", "add", "rescale"].contains(&row["op"].as_str().unwrap());
        assert_eq!(row["key_bytes"].as_u64().unwrap() > 0, keyed, "{row}");
        let rate = row["bytes"].as_f64().unwrap() / median;
        assert!((row["bytes_per_s"].as_f64().unwrap() / rate - 1.0).abs() < 1e-6, "{row}");
    }
    assert!(report["copy_bytes_per_s"].as_f64().unwrap() > 1e8, "{report}");
    let keys: u64 = of(1)[1..]
        .iter()
        .filter(|row| row["op"] != "multiply_relinearize_rescale")
        .map(|row| row["key_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(report["key_bytes"], keys);
    assert!(ok(&measure).contains("rotate"));
    refused(&["bench", "ops", "--params", "insecure-test", "--levels", "99"], &["`99` is no level", "`all`"]);
}

#[test]
fn a_bootstrap_is_measured_where_there_is_one() {
    let bench = ["bench", "bootstrap", "--params"];
    refused(&[&bench[..], &["insecure-test"]].concat(), &["no levels for bootstrapping", "boot-40"]);
    let slots = [&bench[..], &["insecure-boot-40", "--slots", "300"]].concat();
    refused(&slots, &["power of two from 256 to 2048", "300"]);

    let iterated = [&slots[..5], &["256", "--iterated", "10"]].concat();
    refused(&iterated, &["--iterated is for one vector with all slots"]);

    let sparse = ["insecure-boot-40", "--slots", "256", "--runs", "1", "--kind", "real-pair"];
    let report = json(&[&bench[..], &sparse].concat());
    let number = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("no {field} in {report}"));
    assert_eq!((number("slots"), number("threads"), number("runs")), (256.0, 1.0, 1.0));
    assert!(number("levels_left") >= 12.0 && number("log_q_left") > 39.0 * number("levels_left"), "{report}");
    assert!(number("log_pq") <= 1747.0 && number("median_s") > 0.0 && number("cpu_s") > 0.0, "{report}");
    let precision = ["mean_precision_bits", "min_precision_bits", "promised_precision_bits"].map(number);
    assert!(precision.is_sorted_by(|a, b| a > b) && precision[2] > 15.0, "{precision:?}");
    assert!(number("peak_rss_bytes") > number("key_bytes") && number("key_bytes") > 1e6, "{report}");
    let budget = number("key_bytes") * 0.85;
    let frugal = json(&[&bench[..], &sparse, &["--key-memory", &format!("{}kB", budget / 1e3)]].concat());
    assert!(frugal["key_bytes"].as_f64().unwrap() <= budget, "{frugal}");

    let shared = json(&[&bench[..], &sparse, &["--devices", "2"]].concat());
    let ranks = shared["ranks"].as_array().unwrap();
    assert_eq!((ranks.len(), report["ranks"].as_array().unwrap().len()), (2, 1), "{shared}");
    assert!(ranks.iter().all(|rank| rank["bytes_sent"].as_u64() > Some(0)), "{shared}");
    assert!(shared["min_precision_bits"].as_f64().unwrap() > 15.0, "{shared}");
}

#[test]
fn every_verb_has_help_with_an_example() {
    let help = ok(&["--help"]);
    let verbs =
        ["demo", "params", "compile", "explain", "keygen", "encrypt", "run", "decrypt", "simulate", "eval"];
    for verb in verbs {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} in {help}");
        let help = ok(&[verb, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("cerium {verb}")), "{help}");
        assert!(help.contains("--json"), "{help}");
    }
    for what in ["bootstrap", "device", "kernels", "ops"] {
        let help = ok(&["bench", what, "--help"]);
        assert!(help.contains(&format!("cerium bench {what}")) && help.contains("--json"), "{help}");
    }
    // Wrong usage is not a failure of the work: another exit code.
    assert_eq!(cerium(&["decrypt"]).status.code(), Some(2));
    assert_eq!(cerium(&["demo", "--digit", "12"]).status.code(), Some(2));
}
