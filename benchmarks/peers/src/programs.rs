//! The programs of the contestants: built here, run as processes of their own.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The wheel that is measured, and the interpreter it is for.
const OPENFHE: &str = "openfhe==1.6.1.0.22.4";
const PYTHON: &str = "python3.10";

/// Builds the command line of Cerium.
pub fn cerium() -> Result<PathBuf> {
    build("../..", "cerium", &["build", "--release"], &[])
}

/// Builds a program of the workspace `poulpy`.
pub fn poulpy(program: &str) -> Result<PathBuf> {
    build("poulpy", program, &["+nightly", "build", "--release"], &[("RUSTFLAGS", "-C target-cpu=native")])
}

/// A Python interpreter with OpenFHE, in a virtual environment of its own among the built files.
pub fn openfhe() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here().join("target"), PathBuf::from);
    let environment = target.join("openfhe");
    let python = environment.join("bin/python");
    if !python.exists() {
        println!("installing {OPENFHE} ...");
        let made = interpreters()
            .any(|found| run(Command::new(found).args(["-m", "venv"]).arg(&environment)).is_ok());
        if !made {
            bail!("its wheel is for {PYTHON}, which is not here");
        }
    }
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", OPENFHE]))?;
    Ok(python)
}

/// Where the interpreter may be: on the search path, or among the versions of pyenv.
fn interpreters() -> impl Iterator<Item = PathBuf> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(std::env::home_dir()?.join(".pyenv")));
    let versions = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let pyenv =
        versions.into_iter().flatten().flatten().map(|version| version.path().join("bin").join(PYTHON));
    std::iter::once(PathBuf::from(PYTHON)).chain(pyenv.filter(|path| path.exists()))
}

/// The folder of this package.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds a program in `folder`, relative to this package, and says where it is.
fn build(folder: &str, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<PathBuf> {
    println!("building {program} ...");
    let mut cargo = Command::new("cargo");
    // The toolchain of this run must not decide that of others.
    cargo.args(arguments).arg("--message-format=json-render-diagnostics").current_dir(here().join(folder));
    cargo.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").envs(environment.iter().copied());
    if !environment.is_empty() {
        // Other flags make other files: keep them apart where a target folder is shared.
        if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
            cargo.env("CARGO_TARGET_DIR", Path::new(&target).join(folder));
        }
    }
    let built = cargo.output().context("cannot run cargo")?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr);
        let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or("no reason given");
        bail!("it does not build here: {first}");
    }
    json_objects(&built.stdout)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.file_stem() == Some(OsStr::new(program)))
        .with_context(|| format!("cargo built no program {program}"))
}

/// The JSON objects that a program prints.
pub fn output(program: &mut Command) -> Result<Vec<Value>> {
    Ok(json_objects(&run(program)?.stdout).collect())
}

fn run(program: &mut Command) -> Result<Output> {
    let printed = program.output().context("cannot run it")?;
    if !printed.status.success() {
        let errors = String::from_utf8_lossy(&printed.stderr);
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        bail!("it fails here ({}): {last}", printed.status);
    }
    Ok(printed)
}

fn json_objects(bytes: &[u8]) -> impl Iterator<Item = Value> {
    serde_json::Deserializer::from_slice(bytes).into_iter().map_while(Result::ok)
}
