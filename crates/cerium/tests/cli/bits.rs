//! A small network gives the same ciphertext, bit by bit, on 1, 2, 3, 4 and 8 devices, and on 2 and 4 processes under MPI.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cerium::artifact::Artifact;
use cerium::ckks::ciphertext::Ciphertext;
use cerium::ckks::params::Params;
use cerium::ckks::wire::{ProgramDigest, decode_ciphertexts, encode_ciphertexts};
use tempfile::TempDir;

use super::{Fixture, data, model, ok, text};

/// The parameters of a program and what ciphertexts for it carry.
fn program(path: &str) -> (Params, ProgramDigest) {
    let artifact = Artifact::read(Path::new(path)).unwrap();
    (artifact.validate().unwrap(), ProgramDigest(artifact.digest().unwrap()))
}

fn read(params: &Params, path: &str) -> Vec<Ciphertext> {
    decode_ciphertexts(params, &fs::read(path).unwrap()).unwrap().1
}

#[test]
fn a_network_gives_the_bits_of_one_device() {
    let fixture = Fixture::get();
    let (params, _) = program(&fixture.path("p.cerium"));
    let input = read(&params, &fixture.path("in.ct"));
    let expected = read(&params, &fixture.path("out.ct"));
    let folder = TempDir::new().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let has_mpi = Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_mpi {
        println!("skipped under MPI: there is no mpirun");
    }
    for (devices, link) in [("2", "network"), ("3", "memory"), ("4", "nvlink"), ("8", "pcie")] {
        let [compiled, input_file, output] = ["p.cerium", "in.ct", "out.ct"].map(path);
        let target = ["--devices", devices, "--link", link, "-o", &compiled];
        ok(&[&["compile", &model(), "--calibrate", &data("calibration")][..], &target].concat());
        let (params, digest) = program(&compiled);
        fs::write(&input_file, encode_ciphertexts(&params, digest, &input)).unwrap();
        let run = ["run", &compiled, "--keys", &fixture.path("keys"), "--input", &input_file, "-o", &output];
        ok(&run);
        assert!(read(&params, &output) == expected, "{devices} devices give other words");
        if has_mpi && ["2", "4"].contains(&devices) {
            fs::remove_file(&output).unwrap();
            let mut command = Command::new("timeout");
            command.args(["240", "mpirun", "--oversubscribe", "--allow-run-as-root", "-np", devices]);
            command.arg(env!("CARGO_BIN_EXE_cerium")).args(run).args(["--threads", "1"]);
            let ended = command.output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            assert!(read(&params, &output) == expected, "{devices} processes give other words");
        }
    }
}
