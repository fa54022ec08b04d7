//! What is refused, and what the message says to do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Fixture, check_refusal, data, json, model, ok, refused, sample, text};
use tempfile::TempDir;

/// A folder of one test.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path().join(name))
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// The bytes of a file with one bit in its middle flipped.
fn damaged(path: &str) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    bytes
}

/// A copy of the shared evaluation keys, by hard links.
fn linked_keys(place: &Place) -> String {
    fs::create_dir_all(place.path("keys/evaluation")).unwrap();
    for entry in fs::read_dir(Fixture::get().path("keys/evaluation")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        fs::hard_link(entry.path(), place.0.path().join("keys/evaluation").join(name)).unwrap();
    }
    place.path("keys")
}

#[test]
fn a_damaged_artifact() {
    let (shared, place) = (Fixture::get(), Place::new());
    let program = place.write("p.cerium", damaged(&shared.path("p.cerium")));
    refused(&["explain", &program], &["p.cerium cannot be used", "damaged", "copy or compile it again"]);
    let whole = fs::read(shared.path("p.cerium")).unwrap();
    let short = place.write("short.cerium", &whole[..whole.len() / 2]);
    refused(&["keygen", &short, "-o", &place.path("keys")], &["short.cerium", "damaged"]);
    refused(&["explain", &shared.path("in.ct")], &["not a Cerium artifact", "compile the model first"]);
    refused(
        &["explain", "/nowhere/p.cerium"],
        &["there is no artifact at /nowhere/p.cerium", "cerium compile"],
    );
}

#[test]
fn keys_that_do_not_fit() {
    let (shared, place) = (Fixture::get(), Place::new());
    let (program, input, out) = (shared.path("p.cerium"), shared.path("in.ct"), place.path("out"));
    let keys = linked_keys(&place);
    let run = ["run", &program, "--keys", &keys, "--input", &input, "-o", &out];
    let mut names: Vec<PathBuf> =
        fs::read_dir(place.path("keys/evaluation")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let (first, second) = (text(&names[0]), text(&names[1]));
    let replace = |bytes: Vec<u8>| {
        fs::remove_file(&first).unwrap();
        fs::write(&first, bytes).unwrap();
    };

    let good = fs::read(&first).unwrap();
    replace(damaged(&second));
    refused(&run, &[&first, "damaged", "cerium keygen"]);
    replace(fs::read(&second).unwrap());
    refused(&run, &[&first, "holds the key", "cerium keygen"]);
    replace(good[..good.len() - 64].to_vec());
    refused(&run, &[&first, "end early"]);
    fs::remove_file(&first).unwrap();
    refused(&run, &["evaluation key", "is missing", "cerium keygen"]);

    // Of other parameters.
    let other = place.path("other.cerium");
    let (model, calibration) = (model(), data("calibration"));
    let compile = ["compile", &model, "--calibrate", &calibration, "--params", "insecure-test", "-o", &other];
    refused(&compile, &["insecure", "opt in", "--insecure"]);
    ok(&[&compile[..], &["--insecure"]].concat());
    let other_keys = place.path("other");
    refused(&["keygen", &other, "-o", &other_keys], &["insecure", "--insecure"]);
    ok(&["keygen", &other, "-o", &other_keys, "--insecure"]);
    let foreign = fs::read_dir(place.path("other/evaluation")).unwrap().next().unwrap().unwrap().path();
    fs::write(&first, fs::read(foreign).unwrap()).unwrap();
    refused(&run, &[&first, "of other parameters", "cerium keygen"]);
    let encrypt = ["encrypt", &program, "--keys", &other_keys, "--input", &sample(0), "-o", &out];
    refused(&encrypt, &["secret.key", "of other parameters"]);
    // A ciphertext of other parameters.
    let foreign = place.path("foreign.ct");
    ok(&["encrypt", &other, "--keys", &other_keys, "--input", &sample(0), "-o", &foreign]);
    let keys = shared.path("keys");
    refused(
        &["run", &program, "--keys", &keys, "--input", &foreign, "-o", &out],
        &["foreign.ct", "of other parameters"],
    );
    assert!(!fs::exists(&out).unwrap(), "nothing is written");
}

#[test]
fn ciphertexts_that_do_not_fit() {
    let (shared, place) = (Fixture::get(), Place::new());
    let (program, keys, out) = (shared.path("p.cerium"), shared.path("keys"), place.path("out"));
    // The same parameters, another program.
    let other = place.path("other.cerium");
    let compile = ["compile", &model(), "--calibrate", &data("calibration"), "--degree", "3", "-o", &other];
    ok(&[&compile[..], &["--params", "leveled-14"]].concat());
    let run = |program: &str, input: &str, parts: &[&str]| {
        refused(&["run", program, "--keys", &keys, "--input", input, "-o", &out], parts);
    };
    run(&other, &shared.path("in.ct"), &["in.ct", "for another program", "cerium encrypt"]);
    let decrypt = |program: &str, input: &str, parts: &[&str]| {
        refused(&["decrypt", program, "--keys", &keys, "--input", input], parts);
    };
    decrypt(&other, &shared.path("out.ct"), &["out.ct", "for another program"]);
    // Question and answer swapped.
    run(&program, &shared.path("out.ct"), &["has level", "encrypt it again"]);
    decrypt(&program, &shared.path("in.ct"), &["not an answer", "cerium run"]);
    run(&program, &place.write("damaged.ct", damaged(&shared.path("in.ct"))), &["damaged.ct", "checksum"]);
    run(&program, &shared.path("p.cerium"), &["not Cerium's bytes"]);
    run(&program, &shared.path("keys/public.key"), &["this is a public key", "list of ciphertexts"]);
    run(&program, "/nowhere/in.ct", &["there is no ciphertext at /nowhere/in.ct", "cerium encrypt"]);
    assert!(!fs::exists(&out).unwrap(), "nothing is written");
}

#[test]
fn inputs_that_do_not_fit() {
    let (shared, place) = (Fixture::get(), Place::new());
    let (program, keys, out) = (shared.path("p.cerium"), shared.path("keys"), place.path("out"));
    let encrypt = |input: &str, parts: &[&str]| {
        refused(&["encrypt", &program, "--keys", &keys, "--input", input, "-o", &out], parts);
    };
    let numbers = |count: usize, last: &str| format!("{}{last}", "0.5,".repeat(count - 1));
    encrypt(&place.write("short.csv", numbers(100, "1")), &["100 values", "[1, 28, 28]", "784 values"]);
    encrypt(&place.write("nan.csv", numbers(784, "nan")), &["value 783", "NaN", "finite"]);
    encrypt(&place.write("inf.csv", numbers(784, "inf")), &["value 783", "inf", "finite"]);
    encrypt(&place.write("words.csv", "one two"), &["value 0", "is no number"]);
    encrypt(&place.write("x.json", "{\"a\": 1}"), &["array of numbers"]);
    encrypt(&place.write("x.png", "no picture"), &["x.png", "PNG"]);
    encrypt(&place.write("x.jpg", "no picture"), &["cannot tell what", "digit.png"]);
    encrypt("/nowhere/x.png", &["/nowhere/x.png", "cannot read"]);
    encrypt("/nowhere/x.csv", &["there is no input at /nowhere/x.csv"]);
    encrypt(&sample(20), &["20 inputs", "there is no 20"]);
    assert!(!fs::exists(&out).unwrap(), "nothing is written");
    // The other way round: as a number of the right kind it works.
    ok(&[
        "encrypt",
        &program,
        "--keys",
        &keys,
        "--input",
        &place.write("x.csv", numbers(784, "1")),
        "-o",
        &out,
    ]);

    let nan: Vec<f32> = (0..784).map(|i| if i == 5 { f32::NAN } else { 0.0 }).collect();
    let file = place.write("nan.safetensors", safetensors(&nan, &[1, 784]));
    refused(&["eval", &program, "--data", &file, "--count", "1"], &["images", "element 5", "NaN"]);
    let file = place.write("shape.safetensors", safetensors(&[0.0; 50], &[1, 50]));
    refused(&["eval", &program, "--data", &file, "--count", "1"], &["[50]", "[1, 28, 28]"]);
}

/// A safetensors file with the tensor `images`.
fn safetensors(values: &[f32], shape: &[usize]) -> Vec<u8> {
    let header = format!(
        r#"{{"images":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,{}]}}}}"#,
        4 * values.len()
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[test]
fn models_and_data_that_do_not_fit() {
    let place = Place::new();
    let (out, calibration) = (place.path("p.cerium"), data("calibration"));
    let compile = |model: &str, calibration: &str, more: &[&str], parts: &[&str]| {
        refused(&[&["compile", model, "--calibrate", calibration, "-o", &out], more].concat(), parts);
    };
    compile("/nowhere/m.onnx", &calibration, &[], &["there is no model at /nowhere/m.onnx", "ONNX"]);
    compile(
        &data("mnist.safetensors"),
        &calibration,
        &[],
        &["mnist.safetensors", "export the model as ONNX"],
    );
    compile(&place.write("m.onnx", "no model"), &calibration, &[], &["m.onnx", "not a readable ONNX file"]);
    compile(&model(), "/nowhere/data", &[], &["/nowhere/data", "check the path"]);
    compile(&model(), &model(), &[], &["is no data set"]);
    compile(
        &model(),
        &calibration,
        &["--params", "leveled-99"],
        &["no parameter set `leveled-99`", "leveled-14"],
    );
    compile(&model(), &calibration, &["--params", "leveled-13"], &["leveled-13", "choose a set"]);
    compile(&model(), &calibration, &["--degree", "0"], &["--degree 0 is out of range"]);
    compile(&model(), &calibration, &["--dump", "no_pass"], &["no_pass", "the passes are", "place_levels"]);
    compile(&model(), &calibration, &["--samples", "0"], &["no sample inputs were given"]);
    assert!(!fs::exists(&out).unwrap(), "nothing is written");
}

#[test]
fn secret_keys_are_guarded() {
    let (shared, place) = (Fixture::get(), Place::new());
    let program = shared.path("p.cerium");
    refused(&["keygen", &program, "-o", &shared.path("keys")], &["secret.key exists and is not overwritten"]);
    // Nothing is missing, so nothing is made.
    let added = json(&["keygen", &program, "-o", &shared.path("keys"), "--add"]);
    assert_eq!(added["bytes_written"], 0);

    fs::create_dir(place.path("keys")).unwrap();
    let decrypt = ["decrypt", &program, "--keys", &place.path("keys"), "--input", &shared.path("out.ct")];
    refused(&decrypt, &["secret.key is missing", "cerium keygen"]);
    let stranger = place.path("stranger");
    // The keys of somebody else; the evaluation keys play no part in decryption.
    ok(&["keygen", &program, "-o", &stranger]);
    fs::copy(place.path("stranger/secret.key"), place.path("keys/secret.key")).unwrap();
    refused(&decrypt, &["does not decrypt to a result", "the secret key is not the one"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::copy(shared.path("keys/secret.key"), place.path("keys/secret.key")).unwrap();
        ok(&decrypt);
        fs::set_permissions(place.path("keys/secret.key"), fs::Permissions::from_mode(0o644)).unwrap();
        refused(&decrypt, &["can be read by others", "chmod 600"]);
    }
}

/// A file size limit stands for a full disk where no small disk can be mounted: the same path through the program.
#[test]
#[cfg(unix)]
fn a_full_disk() {
    let (shared, place) = (Fixture::get(), Place::new());
    let (program, keys) = (shared.path("p.cerium"), shared.path("keys"));
    let binary = env!("CARGO_BIN_EXE_cerium");
    let can_mount =
        Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|output| output.status.success());
    println!("small disks can be mounted: {can_mount}");
    let limits: &[(&str, &str)] = &[
        ("trap '' XFSZ; ulimit -f 64; cd \"$1\"; shift", ""),
        ("mount -t tmpfs -o size=64k small \"$1\"; cd \"$1\"; shift", "unshare -rm "),
    ];
    for (limit, prefix) in &limits[..if can_mount { 2 } else { 1 }] {
        let attempt = |args: &[&str]| {
            let script = format!("{limit}; \"$@\"; code=$?; ls -A . >&3; exit $code");
            let listing = place.path("listing");
            let mut words = prefix.split_whitespace().chain(["sh", "-c"]);
            let mut command = Command::new(words.next().expect("a shell"));
            command
                .args(words)
                .arg(format!("exec 3>'{listing}'; {script}"))
                .arg("sh")
                .arg(place.path("disk"));
            fs::create_dir_all(place.path("disk")).unwrap();
            let output = command.arg(binary).args(args).output().unwrap();
            check_refusal(&output, &format!("{args:?}"), &["write", "free some space"]);
            fs::read_to_string(listing).unwrap()
        };
        let left = attempt(&["compile", &model(), "--calibrate", &data("calibration"), "-o", "p.cerium"]);
        assert_eq!(left, "", "no half-written program");
        let left = attempt(&["encrypt", &program, "--keys", &keys, "--input", &sample(0), "-o", "in.ct"]);
        assert_eq!(left, "", "no half-written ciphertext");
        let left =
            attempt(&["run", &program, "--keys", &keys, "--input", &shared.path("in.ct"), "-o", "out.ct"]);
        assert_eq!(left, "", "no half-written answer");
        let left = attempt(&["keygen", &program, "-o", "keys"]);
        assert_eq!(left, "keys\n", "only a folder");
        fs::remove_dir_all(place.path("disk")).unwrap();
    }
    assert!(place.files().iter().all(|file| !text(file).contains(".cerium-")), "no temporary files");
}
