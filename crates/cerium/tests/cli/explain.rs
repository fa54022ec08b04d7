//! What `explain` says, shows and writes.

use std::collections::HashMap;
use std::fs;

use cerium::artifact::Artifact;
use cerium::ckks::params::Params;
use cerium::compiler::dsl::{Packing, Program};
use cerium::compiler::ir::Trace;
use cerium::compiler::limb::devices::DeviceOptions;
use cerium::compiler::{CompileOptions, compile};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Fixture, json, ok, refused, text};

/// Layers add up to the whole.
fn assert_parts_are_all(report: &Value, figure: &str) {
    let layers = report["layers"].as_array().unwrap();
    let sum: f64 = layers.iter().map(|layer| layer[figure].as_f64().unwrap()).sum();
    let all = report[figure].as_f64().unwrap();
    assert!(all > 0.0 && (sum / all - 1.0).abs() < 1e-9, "{figure}: {sum} of {all}");
}

#[test]
fn explain_agrees_with_the_files() {
    let shared = Fixture::get();
    let program = shared.path("p.cerium");
    let report = json(&["explain", &program]);
    let files: Vec<_> = fs::read_dir(shared.path("keys/evaluation")).unwrap().map(Result::unwrap).collect();
    assert_eq!(report["keys"].as_array().unwrap().len(), files.len());
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(report["key_bytes"], bytes);
    assert_eq!(report["inputs"][0]["shape"], json!([1, 28, 28]));
    assert_eq!(report["outputs"][0]["shape"], json!([10]));
    assert_eq!(report["security_bits"], 128);
    for figure in ["rotations", "pool_bytes", "encoded_weight_bytes", "raw_weight_bytes", "predicted_seconds"]
    {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    // Levels only fall from layer to layer, and every kernel works for one.
    let layers = report["layers"].as_array().unwrap();
    for pair in layers.windows(2) {
        assert!(pair[0]["levels"]["out"].as_u64() >= pair[1]["levels"]["out"].as_u64());
    }
    for layer in layers {
        assert!(layer["levels"]["in"].as_u64() >= layer["levels"]["out"].as_u64(), "{layer}");
        assert!(layer["error_bits"].as_f64().unwrap() > 0.0, "{layer}");
        assert!(layer["rotations"].is_u64() && layer["products"].is_u64(), "{layer}");
        assert_eq!((&layer["bootstraps"], &layer["measured_seconds"]), (&json!(0), &Value::Null), "{layer}");
    }
    assert_eq!(layers[1]["reads"], json!(["/conv1/Conv"]));
    assert_eq!(report["functions"], json!([]));
    assert_parts_are_all(&report, "predicted_seconds");
    let launches: u64 = layers.iter().map(|stage| stage["usage"]["launches"].as_u64().unwrap()).sum();
    let by_class: u64 =
        report["kernels"].as_object().unwrap().values().map(|k| k["launches"].as_u64().unwrap()).sum();
    assert!(launches > 0 && launches == by_class);
    let shown = ok(&["explain", &program]);
    for part in ["128-bit secure", "evaluation keys", "base_convert", "working memory", "/conv1/Conv"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 140), "a line is too long: {shown}");
    assert!(!shown.contains("add_plain"), "{shown}");
    assert!(ok(&["explain", &program, "--operations"]).contains("add_plain"));
}

#[test]
fn times_are_predicted_for_gpus_that_are_not_there() {
    let shared = Fixture::get();
    let report = json(&["explain", &shared.path("p.cerium"), "--device", "a100"]);
    assert_eq!(report["device"], "a100");
    assert_eq!(report["fused"]["predicted_ms"], report["predicted_ms"]);
    // Less fused programs are compiled from a source only, but counted always.
    assert_eq!(report["unfused"]["predicted_ms"], Value::Null);
    let bytes = |report: &Value, name: &str| report[name]["bytes"].as_u64().unwrap();
    assert!(bytes(&report, "unfused") > bytes(&report, "fused"));

    // A bootstrap of a parameter set needs no file.
    let report = json(&["explain", "insecure-boot-40", "--device", "h200"]);
    let [unfused, horizontal, fused] = ["unfused", "horizontal", "fused"].map(|name| {
        let figure = |figure: &str| report[name][figure].as_f64().unwrap();
        ["predicted_ms", "launches", "bytes"].map(figure)
    });
    for (before, after) in [(unfused, horizontal), (horizontal, fused)] {
        assert!(before.iter().zip(after).all(|(before, after)| after < *before), "{before:?} {after:?}");
    }
    let sum = |list: &str| -> f64 {
        report[list].as_array().unwrap().iter().map(|of| of["predicted_ms"].as_f64().unwrap()).sum()
    };
    for list in ["stages", "kernels"] {
        assert!((sum(list) / fused[0] - 1.0).abs() < 1e-9, "{list}");
    }
    // The bootstrap is a function of the library, which one layer calls.
    assert_parts_are_all(&report, "predicted_seconds");
    let seconds = |list: &str, figure: &str| -> f64 {
        report[list].as_array().unwrap().iter().map(|of| of[figure].as_f64().unwrap()).sum()
    };
    let called = seconds("layers", "predicted_seconds_in_functions");
    assert!((called / seconds("functions", "predicted_seconds") - 1.0).abs() < 1e-9);
    assert_eq!(report["layers"][0]["bootstraps"], 1);
    assert!(report["figures"].as_array().unwrap().iter().all(|figure| figure["source"].is_string()));
    let shown = ok(&["explain", &shared.path("p.cerium"), "--device", "h200"]);
    for part in ["NVIDIA H200", "bound by", "/conv1/Conv", "horizontal", "gpu-benches"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    refused(&["explain", "leveled-16", "--device", "h200"], &["leveled-16 has no levels for bootstrapping"]);
}

/// The figure of every device.
fn of_devices(report: &Value, figure: &str) -> Vec<f64> {
    let each = report["devices"]["each"].as_array().unwrap();
    each.iter().map(|device| device[figure].as_f64().unwrap()).collect()
}

#[test]
fn several_devices_wait_for_each_other() {
    let report = |more: &[&str]| json(&[&["explain", "insecure-boot-40", "--device", "h200"], more].concat());
    let alone = report(&[]);
    assert_eq!(alone["devices"], Value::Null);
    let nvlink = report(&["--devices", "4"]);
    assert_parts_are_all(&nvlink, "predicted_seconds");
    // What devices spend is the time until they end, and the last one's is that of the run.
    let parts =
        ["kernel_seconds", "waiting_seconds_link", "waiting_seconds_latency", "waiting_seconds_late_devices"];
    let ends = of_devices(&nvlink, "end_seconds");
    for (device, &end) in ends.iter().enumerate() {
        let sum: f64 = parts.iter().map(|part| of_devices(&nvlink, part)[device]).sum();
        assert!((sum / end - 1.0).abs() < 1e-9, "device {device}: {sum} of {end}");
    }
    let last = ends.iter().fold(0.0, |last: f64, &end| last.max(end));
    assert!((last / nvlink["predicted_seconds"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    // Stages send what devices send.
    let stages = nvlink["devices"]["stages"].as_array().unwrap();
    let by_stage: u64 = stages.iter().map(|stage| stage["bytes_sent_by_all"].as_u64().unwrap()).sum();
    assert_eq!(by_stage as f64, of_devices(&nvlink, "bytes_sent").iter().sum::<f64>());
    // Less is sent over a slower link.
    let pcie = report(&["--devices", "4", "--link", "pcie", "--nodes", "1"]);
    let sent = |report: &Value| of_devices(report, "bytes_sent").iter().sum::<f64>();
    assert!(sent(&pcie) < sent(&nvlink) && pcie["devices"]["link"] == "PCIe 5.0 x16");
    let nodes = report(&["--devices", "4", "--nodes", "2"]);
    assert!(of_devices(&nodes, "bytes_sent_to_other_nodes").iter().all(|&bytes| bytes > 0.0));
    refused(
        &["explain", "insecure-boot-40", "--device", "h200", "--devices", "2", "--nodes", "3"],
        &["2 devices cannot be in 3 nodes"],
    );
    let folder = TempDir::new().unwrap();
    let page = folder.path().join("devices.html").to_str().unwrap().to_string();
    let shown = ok(&["explain", "insecure-boot-40", "--devices", "2", "--html", &page]);
    for part in ["2 ranks of", "sent by all", "bootstrap eval_mod"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
        assert!(fs::read_to_string(&page).unwrap().contains(part), "no {part:?} on the page");
    }
}

/// Gigabytes of keys on every device, and a run that takes this machine seconds, but nothing of it is made: it is only walked.
#[test]
fn large_programs_are_walked_on_many_devices() {
    let report = json(&["explain", "boot-40", "--device", "h200", "--devices", "4"]);
    assert_eq!(report["devices"]["count"], 4);
    // Keys of 6.13 GB are spread.
    let keys = of_devices(&report, "key_bytes");
    assert!(keys.iter().all(|&part| part < 2e9) && keys.iter().sum::<f64>() < 6.5e9, "{keys:?}");
    let memory = of_devices(&report, "memory_bytes");
    assert!(memory.iter().zip(keys).all(|(&all, keys)| all > keys), "{memory:?}");
    assert!(of_devices(&report, "collectives").iter().all(|&count| count > 0.0));
}

/// The arguments that compare the first file with the others.
fn scaling<'a>(files: &[&'a str]) -> Vec<&'a str> {
    [&["explain", files[0], "--device", "b200", "--scaling"], &files[1..]].concat()
}

#[test]
fn a_program_is_compared_with_itself_on_more_devices() {
    let folder = TempDir::new().unwrap();
    let params = Params::named_insecure("insecure-test").unwrap();
    let program = |name: &str, devices: usize| {
        let program = Program::new(name, &params);
        let x = program.input("x", Packing::dense(8));
        program.output("y", Packing::dense(8), &(&x * &x));
        let devices = DeviceOptions { devices, ..DeviceOptions::default() };
        let options = CompileOptions { devices, ..CompileOptions::default() };
        let artifact = compile(&program.finish(), &options, &mut Trace::default()).unwrap();
        let path = folder.path().join(format!("{name}{}.cerium", artifact.programs.len()));
        artifact.write(&path).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (one, three, other) = (program("square", 1), program("square", 3), program("other", 3));
    let report = json(&scaling(&[&one, &three]));
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.iter().map(|point| point["devices"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((&points[0]["speedup"], &points[0]["bytes_sent"]), (&json!(1.0), &json!(0)));
    let seconds = |index: usize| points[index]["predicted_seconds"].as_f64().unwrap();
    assert_eq!(points[1]["speedup"].as_f64().unwrap(), seconds(0) / seconds(1));
    let shown = ok(&scaling(&[&one, &three]));
    for part in ["program `square`", "b200", "NVLink 5", "limited by"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    refused(&scaling(&[&one, &other]), &["`other` and `square` are different programs"]);
    refused(&scaling(&[&three, &one]), &["compiled for one first"]);
    refused(&["explain", &three, "--devices", "2"], &["compiled for 3 devices, not for 2"]);
    refused(&["explain", "insecure-boot-40", "--scaling", &one], &["is no file"]);
    refused(&["explain", &one, "--link", "pcie"], &["--device"]);
}

#[test]
fn a_measured_run_stands_beside_the_prediction() {
    let shared = Fixture::get();
    let [program, run] = ["p.cerium", "run.json"].map(|name| shared.path(name));
    let report = json(&["explain", &program, "--measured", &run]);
    assert_parts_are_all(&report, "measured_seconds");
    assert!(report["measured_run"]["seconds"].as_f64() >= report["measured_seconds"].as_f64());
    assert_eq!(report["threads"], report["measured_run"]["threads"]);
    for layer in report["layers"].as_array().unwrap() {
        assert!(layer["measured_seconds"].as_f64().unwrap() > 0.0, "{layer}");
    }
    let shown = ok(&["explain", &program, "--measured", &run]);
    assert!(shown.contains("measured") && shown.contains("ratio"), "{shown}");

    // Of another program, changed, or something else.
    let folder = TempDir::new().unwrap();
    let changed = text(&folder.path().join("changed.json"));
    let original: Value = serde_json::from_str(&fs::read_to_string(&run).unwrap()).unwrap();
    let refused_with = |change: &dyn Fn(&mut Value), parts: &[&str]| {
        let mut run = original.clone();
        change(&mut run);
        fs::write(&changed, run.to_string()).unwrap();
        refused(&["explain", &program, "--measured", &changed], parts);
    };
    refused_with(&|run| run["digest"] = "00".into(), &["another program", "cerium run --profile"]);
    refused_with(&|run| run["stages"][0]["name"] = "x".into(), &["were changed", "run the program again"]);
    refused_with(&|run| run["stages"][0]["entry_seconds"] = (-1.0).into(), &["were changed"]);
    refused_with(&|run| run["threads"] = 0.into(), &["were changed"]);
    refused_with(&|run| *run = json!([]), &["not what `cerium run --profile` writes"]);
    refused(&["explain", &program, "--measured", &program], &["not what `cerium run --profile` writes"]);
    refused(
        &["explain", &program, "--measured", "/nowhere/run.json"],
        &["no measured run", "cerium run --profile"],
    );
}

/// Writes the page of a program and checks that it is well-formed, loads and runs nothing, and has every layer once.
fn check_page(program: &str, more: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let path = text(&folder.path().join("page.html"));
    let report = json(&[&["explain", program, "--html", &path], more].concat());
    let page = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(&page, options).unwrap_or_else(|error| panic!("{error}: {page}"));
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object", "a"].contains(&name), "<{name}>");
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            assert!(!["src", "href", "action"].contains(&attribute.name()), "{attribute:?}");
        }
    }
    // Names as they are shown: without control characters.
    let mut wanted: HashMap<String, i64> = HashMap::new();
    for layer in report["layers"].as_array().unwrap() {
        let name = layer["name"].as_str().unwrap();
        *wanted.entry(name.replace(char::is_control, "\u{fffd}")).or_default() += 1;
    }
    let network =
        document.descendants().find(|node| node.attribute("class") == Some("network")).expect("a network");
    for cell in network.descendants().filter(|node| node.attribute("scope") == Some("row")) {
        let name = cell.attribute("title").expect("a name").to_string();
        let shown: String =
            cell.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
        assert!(shown.starts_with(&name), "{shown:?}");
        *wanted.entry(name).or_default() -= 1;
    }
    // The input is no layer of the program.
    wanted.retain(|_, left| *left != 0);
    assert!(wanted.is_empty() || wanted == HashMap::from([("image".to_string(), -1)]), "{wanted:?}");
    page
}

#[test]
fn the_page_has_every_layer_once() {
    let shared = Fixture::get();
    let [program, run] = ["p.cerium", "run.json"].map(|name| shared.path(name));
    let page = check_page(&program, &["--measured", &run]);
    for part in ["<svg", "/conv1/Conv", "128-bit secure", "measured", "default-src 'none'"] {
        assert!(page.contains(part), "no {part:?}");
    }
    let page = check_page("insecure-boot-40", &["--device", "h200"]);
    for part in ["NVIDIA H200", "bootstrap eval_mod", "bound by", "gpu-benches"] {
        assert!(page.contains(part), "no {part:?}");
    }
    refused(&["explain", &program, "--html", "/nowhere/page.html"], &["cannot write /nowhere/page.html"]);
}

#[test]
fn hostile_names_are_only_names() {
    let shared = Fixture::get();
    let folder = TempDir::new().unwrap();
    let path = text(&folder.path().join("hostile.cerium"));
    // In the network's file and in the program: as many bytes as before.
    let (old, new) = ("/conv1/Conv", "<i>&\"'</i>\u{1b}");
    assert_eq!(old.len(), new.len());
    let mut artifact = Artifact::read(shared.path("p.cerium").as_ref()).unwrap();
    while let Some(at) = artifact.model.windows(old.len()).position(|bytes| bytes == old.as_bytes()) {
        artifact.model[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    for stage in &mut artifact.stages {
        stage.name = stage.name.replace(old, new);
    }
    artifact.name = "</title><script>alert(1)</script>{{network}}".into();
    artifact.inputs[0].name = "\u{1b}]0;input\u{7}".into();
    artifact.write(path.as_ref()).unwrap();
    let page = check_page(&path, &[]);
    assert!(page.contains("&lt;i&gt;&amp;&quot;&#39;&lt;/i&gt;\u{fffd}") && page.contains("<svg"), "{page}");
    let shown = ok(&["explain", &path, "--operations"]);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    assert!(shown.contains('●'), "the network is not drawn: {shown}");

    // A program without a network has its stages instead, and a file that is no network changes nothing.
    let params = Params::named_insecure("insecure-test").unwrap();
    let program = Program::new("a & b", &params);
    let x = program.input("x", Packing::dense(8));
    program.stage("<script>alert('square')</script>");
    let y = &x * &x;
    program.stage("]]>--><b onclick=\"x\">");
    program.output("y", Packing::dense(8), &(&y * &y));
    let mut artifact = compile(&program.finish(), &CompileOptions::default(), &mut Trace::default()).unwrap();
    for model in [vec![], vec![0xff; 100]] {
        artifact.model = model;
        artifact.write(path.as_ref()).unwrap();
        let page = check_page(&path, &[]);
        assert!(page.contains("&lt;script&gt;alert(&#39;square&#39;)") && !page.contains("<svg"), "{page}");
    }
}
