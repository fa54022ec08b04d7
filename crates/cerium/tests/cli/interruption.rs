//! Making keys is interrupted without warning, and goes on when the same command is run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::{Fixture, json, refused, text};

/// Files of a folder by name, without folders in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    paths.map(|path| (text(Path::new(path.file_name().unwrap())), fs::read(&path).unwrap())).collect()
}

#[test]
fn keygen_goes_on_where_it_was_killed() {
    let program = Fixture::get().path("p.cerium");
    let place = TempDir::new().unwrap();
    // A machine in a hurry may be done before it is killed; the next attempt is killed earlier.
    let interrupted = (1..=10).rev().find_map(|keys| {
        let folder = place.path().join(format!("keys-{keys}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_cerium"))
            .args(["keygen", &program, "--threads", "1", "-o", &text(&folder)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let evaluation = folder.join("evaluation");
        while child.try_wait().unwrap().is_none()
            && fs::read_dir(&evaluation).map_or(0, |entries| entries.count()) < keys
        {
            thread::sleep(Duration::from_micros(200));
        }
        // A signal that cannot be caught.
        child.kill().expect("it is ours");
        child.wait().unwrap();
        (!folder.join("public.key").exists()).then_some(folder)
    });
    let folder = interrupted.expect("one of ten attempts is interrupted");
    let kept = files(&folder.join("evaluation"));
    assert!(!kept.is_empty() && kept.keys().all(|name| name.ends_with(".key")), "{:?}", kept.keys());
    let secret = fs::read(folder.join("secret.key")).unwrap();

    let keygen = ["keygen", &program, "-o", &text(&folder)];
    let report = json(&keygen);
    assert_eq!(report["resumed"], true);
    let all = files(&folder.join("evaluation"));
    assert_eq!(all.len() as u64, report["evaluation_keys"].as_u64().unwrap());
    assert!(kept.iter().all(|(name, bytes)| all[name] == *bytes), "finished keys are kept");
    let bytes = |files: &BTreeMap<String, Vec<u8>>| files.values().map(|file| file.len() as u64).sum::<u64>();
    assert_eq!(report["bytes_written"], bytes(&all) - bytes(&kept));
    assert_eq!(files(&folder).into_keys().collect::<Vec<_>>(), ["public.key", "secret.key"]);
    assert_eq!(fs::read(folder.join("secret.key")).unwrap(), secret);

    // Now it is finished: all keys are there, whole and of this secret, and the same command is refused.
    assert_eq!(json(&[&keygen[..], &["--add"]].concat())["bytes_written"], 0);
    refused(&keygen, &["secret.key exists and is not overwritten"]);
}
