//! The invariants of ARCHITECTURE.md that can be read off manifests and sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which workspace crates each crate may depend on: the arrows of ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cerium-ckks", &[]),
    ("cerium-artifact", &["cerium-ckks"]),
    ("cerium-client", &["cerium-ckks", "cerium-artifact"]),
    ("cerium-emit", &["cerium-ckks", "cerium-artifact"]),
    ("cerium-compiler", &["cerium-ckks", "cerium-artifact", "cerium-emit"]),
    ("cerium-runtime", &["cerium-ckks", "cerium-artifact", "cerium-emit"]),
    ("cerium-models", &["cerium-ckks", "cerium-artifact", "cerium-compiler"]),
    (
        "cerium",
        &[
            "cerium-ckks",
            "cerium-artifact",
            "cerium-client",
            "cerium-emit",
            "cerium-compiler",
            "cerium-runtime",
            "cerium-models",
        ],
    ),
    // Stage programs of a benchmark: clients and servers, but neither compiler nor command line.
    (
        "cerium-fhe-benchmarking",
        &["cerium-ckks", "cerium-artifact", "cerium-client", "cerium-runtime", "cerium-models"],
    ),
];

#[test]
fn crates_depend_only_along_the_arrows() {
    let dependencies = workspace_dependencies(&["normal", "build"]);
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        dependencies.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        known,
        "a crate was added or removed: draw its arrows here and in ARCHITECTURE.md"
    );
    for (name, allowed) in ALLOWED {
        for dependency in &dependencies[*name] {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn nothing_below_the_client_depends_on_it_even_in_tests() {
    let dev = workspace_dependencies(&["dev"]);
    for name in ["cerium-ckks", "cerium-artifact", "cerium-emit"] {
        assert!(!dev[name].contains("cerium-client"), "{name} must not know the client");
    }
    // The client can be built and tested without the compiler and the runtime.
    for name in ["cerium-compiler", "cerium-runtime", "cerium-models"] {
        assert!(!dev["cerium-client"].contains(name), "the client must not know {name}");
    }
    assert!(!dev["cerium-runtime"].contains("cerium-compiler"), "the runtime must not know the compiler");
}

#[test]
fn only_the_client_names_the_secret_key() {
    for folder in ["ckks", "artifact", "emit", "compiler", "runtime", "models"] {
        for file in sources(&root().join("crates").join(folder).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("SecretKey"), "{} names SecretKey", file.display());
        }
    }
}

#[test]
fn no_cuda_feature_and_no_build_script() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let features = package["features"].as_object().unwrap();
        assert!(
            features.keys().all(|f| !f.contains("cuda")),
            "{name} has a CUDA feature; CUDA is loaded at run time"
        );
        let targets = package["targets"].as_array().unwrap();
        let builds =
            targets.iter().any(|t| t["kind"].as_array().unwrap().contains(&Value::from("custom-build")));
        assert!(!builds, "{name} has a build script");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Workspace crates that each crate depends on, by dependencies of these kinds.
fn workspace_dependencies(kinds: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let of = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let wanted = dependencies.filter(|d| kinds.contains(&d["kind"].as_str().unwrap_or("normal")));
        wanted.map(|d| d["name"].as_str().unwrap().to_string()).filter(|n| n.starts_with("cerium")).collect()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap().to_string(), of(p))).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}
