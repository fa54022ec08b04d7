//! Keys on disk: what is written, who can read it, and what happens to damaged, foreign and existing files.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_ckks::wire::{self, Kind, WireError};
use cerium_client::{ClientError, KeyFolder, SecretKey};
use tempfile::TempDir;

fn params() -> Params {
    Params::new(ParamsSpec::insecure(6, 40, 3, 2).unwrap()).unwrap()
}

fn requests(params: &Params) -> Vec<KeyRequest> {
    let rotation = |r| KeyKind::Rotation(galois_element(params.log_n(), r));
    vec![
        KeyRequest { kind: KeyKind::Relinearization, level: Level(3) },
        KeyRequest { kind: rotation(1), level: Level(2) },
        KeyRequest { kind: rotation(-4), level: Level(1) },
        KeyRequest { kind: KeyKind::Conjugation, level: Level(0) },
    ]
}

fn created(params: &Params) -> (TempDir, KeyFolder, SecretKey) {
    let dir = tempfile::tempdir().unwrap();
    let folder = KeyFolder::new(dir.path().join("keys"));
    let secret = SecretKey::generate_insecure(params).unwrap();
    folder.create(params, &secret, &requests(params), &|_, _| ()).unwrap();
    (dir, folder, secret)
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn exactly_the_keys_asked_for_are_written() {
    let (params, dir) = (params(), tempfile::tempdir().unwrap());
    let folder = KeyFolder::new(dir.path());
    let secret = SecretKey::generate_insecure(&params).unwrap();
    let steps = Mutex::new(Vec::new());
    let requests = requests(&params);
    let bytes = folder
        .create(&params, &secret, &requests, &|done, of| steps.lock().unwrap().push((done, of)))
        .unwrap();
    assert_eq!(*steps.lock().unwrap(), (0..=4).map(|done| (done, 4)).collect::<Vec<_>>());

    let names = |dir: &std::path::Path| -> BTreeSet<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let expected: Vec<String> = requests.iter().map(|r| r.file_name()).collect();
    assert_eq!(names(&dir.path().join("evaluation")), expected.into_iter().collect());
    assert_eq!(names(dir.path()), ["evaluation", "public.key", "secret.key"].map(String::from).into());

    let mut total = 0;
    for request in requests {
        let path = folder.evaluation_key_path(request);
        let bytes = fs::read(&path).unwrap();
        let key = wire::decode_evaluation_key(&params, &bytes).unwrap();
        assert_eq!(key.request(), request);
        assert_eq!(mode(&path) & 0o444, 0o444, "the server can read it");
        total += bytes.len() as u64;
    }
    assert_eq!(bytes, total);
    assert_eq!(mode(&folder.secret_key_path()), 0o600);

    // The keys read back are those written: their files would be the same again.
    let read = folder.secret_key(&params).unwrap();
    let copy = KeyFolder::new(dir.path().join("copy"));
    copy.create(&params, &read, &[], &|_, _| ()).unwrap();
    assert_eq!(fs::read(copy.secret_key_path()).unwrap(), fs::read(folder.secret_key_path()).unwrap());
    folder.public_key(&params).unwrap();
}

#[test]
fn nothing_is_overwritten() {
    let params = params();
    let (_dir, folder, secret) = created(&params);
    let before = fs::read(folder.secret_key_path()).unwrap();
    let other = SecretKey::generate_insecure(&params).unwrap();
    let error = folder.create(&params, &other, &[], &|_, _| ()).unwrap_err();
    assert!(matches!(&error, ClientError::Exists { path } if *path == folder.secret_key_path()), "{error}");
    assert_eq!(fs::read(folder.secret_key_path()).unwrap(), before);

    // Evaluation keys of a secret that is gone are not taken for those of a new one.
    fs::remove_file(folder.secret_key_path()).unwrap();
    fs::remove_file(folder.public_key_path()).unwrap();
    let error = folder.create(&params, &other, &requests(&params), &|_, _| ()).unwrap_err();
    assert!(matches!(error, ClientError::Exists { .. }), "{error}");

    // Under the same secret, keys can be added, and those that are there stay.
    let folder = KeyFolder::new(folder.public_key_path().with_file_name("more"));
    folder.create(&params, &secret, &requests(&params)[..1], &|_, _| ()).unwrap();
    let first = fs::read(folder.evaluation_key_path(requests(&params)[0])).unwrap();
    assert!(folder.add(&params, &secret, &requests(&params), &|_, _| ()).unwrap() > 0);
    assert_eq!(fs::read(folder.evaluation_key_path(requests(&params)[0])).unwrap(), first);
    assert_eq!(folder.add(&params, &secret, &requests(&params), &|_, _| ()).unwrap(), 0);
}

/// What an interruption leaves, at any point: the rest is made, and what was there stays.
#[test]
fn an_unfinished_folder_is_completed() {
    let params = params();
    let requests = requests(&params);
    for kept in 0..=requests.len() {
        let (_dir, folder, secret) = created(&params);
        assert!(!folder.is_unfinished());
        fs::remove_file(folder.public_key_path()).unwrap();
        let paths: Vec<_> = requests.iter().map(|&r| folder.evaluation_key_path(r)).collect();
        paths[kept..].iter().for_each(|path| fs::remove_file(path).unwrap());
        let left = folder.secret_key_path().with_file_name(".cerium-abcdef");
        fs::write(&left, "half a key").unwrap();
        let before: Vec<_> = paths[..kept].iter().map(|path| fs::read(path).unwrap()).collect();

        assert!(folder.is_unfinished());
        // A new secret key would make those that are there worthless.
        let other = SecretKey::generate_insecure(&params).unwrap();
        let error = folder.create(&params, &other, &requests, &|_, _| ()).unwrap_err();
        assert!(matches!(error, ClientError::Exists { .. }), "{error}");
        let steps = Mutex::new(Vec::new());
        let progress = |done, of| steps.lock().unwrap().push((done, of));
        let written = folder.resume(&params, &secret, &requests, &progress).unwrap();
        assert_eq!(*steps.lock().unwrap(), (0..=4).map(|done| (done, 4)).collect::<Vec<_>>());

        assert!(!folder.is_unfinished() && !left.exists());
        folder.public_key(&params).unwrap();
        let sizes = paths[kept..].iter().map(|path| fs::metadata(path).unwrap().len());
        assert_eq!(written, sizes.sum::<u64>());
        for (path, before) in paths.iter().zip(before) {
            assert_eq!(fs::read(path).unwrap(), before, "a finished key is kept");
        }
    }
}

#[test]
fn keys_that_are_there_are_checked() {
    let params = params();
    let requests = requests(&params);
    let (_dir, folder, secret) = created(&params);
    let (_other_dir, other, _) = created(&params);
    let add = || folder.add(&params, &secret, &requests, &|_, _| ());
    assert_eq!(add().unwrap(), 0);
    for &request in &requests {
        let path = folder.evaluation_key_path(request);
        let good = fs::read(&path).unwrap();
        // Of another secret, and another key of this one.
        let another = requests.iter().find(|&&r| r != request).unwrap();
        for foreign in [other.evaluation_key_path(request), folder.evaluation_key_path(*another)] {
            fs::copy(foreign, &path).unwrap();
            let error = add().unwrap_err();
            assert!(matches!(&error, ClientError::OtherKey { path: p } if *p == path), "{error}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        let error = add().unwrap_err();
        assert!(
            matches!(&error, ClientError::File { path: p, source: WireError::Truncated { .. } } if *p == path),
            "{error}"
        );
        fs::write(&path, &good).unwrap();
    }
    // Another process, as it were, is at work.
    let lock = fs::File::open(folder.secret_key_path()).unwrap();
    lock.lock().unwrap();
    assert!(matches!(add(), Err(ClientError::Busy { .. })));
    drop(lock);
    assert_eq!(add().unwrap(), 0);
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let params = params();
    let (_dir, folder, _) = created(&params);
    for bits in [0o640, 0o604, 0o660] {
        fs::set_permissions(folder.secret_key_path(), fs::Permissions::from_mode(bits)).unwrap();
        let error = folder.secret_key(&params).unwrap_err();
        assert!(matches!(error, ClientError::Permissions { mode, .. } if mode == bits), "{error}");
    }
    fs::set_permissions(folder.secret_key_path(), fs::Permissions::from_mode(0o400)).unwrap();
    folder.secret_key(&params).unwrap();
}

#[test]
fn files_that_hold_something_else_are_refused() {
    let params = params();
    let (_dir, folder, _) = created(&params);
    let path = folder.secret_key_path();
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match folder.secret_key(&params) {
            Err(ClientError::File { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    for position in (0..good.len()).step_by(3) {
        let mut changed = good.clone();
        changed[position] ^= 0x10;
        refused(&changed);
    }
    for len in 0..good.len() {
        assert!(matches!(refused(&good[..len]), WireError::Truncated { .. }));
    }
    assert!(matches!(refused(&[&good[..], b"x"].concat()), WireError::TrailingBytes { extra: 1 }));

    // Well framed, and yet no secret key: a coefficient of 2, one of them missing, one weight too many.
    let reseal =
        |payload: &[u8]| [&wire::header(Kind::Secret, params.digest(), &[payload])[..], payload].concat();
    let payload = &good[wire::HEADER..];
    let mut changed = payload.to_vec();
    changed[0] = 2;
    assert!(matches!(refused(&reseal(&changed)), WireError::Malformed { .. }));
    assert!(matches!(refused(&reseal(&payload[1..])), WireError::Malformed { .. }));
    let mut changed = payload.to_vec();
    let zero = changed.iter().position(|&c| c == 0).unwrap();
    changed[zero] = 1;
    assert!(matches!(refused(&reseal(&changed)), WireError::Malformed { .. }));

    let public = fs::read(folder.public_key_path()).unwrap();
    assert!(matches!(refused(&public), WireError::Kind { expected: Kind::Secret, .. }));
    fs::write(&path, &good).unwrap();
    let other = Params::new(ParamsSpec::insecure(6, 40, 4, 2).unwrap()).unwrap();
    let error = folder.secret_key(&other).unwrap_err();
    assert!(matches!(error, ClientError::File { source: WireError::OtherParameters { .. }, .. }), "{error}");
    folder.secret_key(&params).unwrap();
}

#[test]
fn missing_files_and_impossible_folders() {
    let (params, dir) = (params(), tempfile::tempdir().unwrap());
    let folder = KeyFolder::new(dir.path());
    assert!(matches!(folder.secret_key(&params), Err(ClientError::Missing { .. })));
    assert!(matches!(folder.public_key(&params), Err(ClientError::Missing { .. })));
    let secret = SecretKey::generate_insecure(&params).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = KeyFolder::new(file.join("keys")).create(&params, &secret, &[], &|_, _| ()).unwrap_err();
    assert!(matches!(error, ClientError::Io { .. }), "{error}");
    // A request that makes no sense is found before any key is written.
    let bad = KeyRequest { kind: KeyKind::Rotation(3), level: Level(0) };
    assert!(matches!(folder.create(&params, &secret, &[bad], &|_, _| ()), Err(ClientError::Key(_))));
    assert!(!folder.secret_key_path().exists());
}

/// Every byte changed, every length cut and grown: as it is (the checksum notices), and with the frame made anew around
/// the damaged payload (what is in it must notice, or it is another good key).
#[test]
fn a_damaged_secret_key_is_an_error() {
    let params = params();
    let (_dir, folder, _) = created(&params);
    let path = folder.secret_key_path();
    let good = fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        folder.secret_key(&params)
    };
    read(&good).unwrap();
    let payload = &good[wire::HEADER..];
    let framed = |payload: &[u8]| {
        let mut bytes = wire::header(Kind::Secret, params.digest(), &[payload]).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    };
    assert_eq!(framed(payload), good);
    for at in 0..good.len() {
        for bit in [0, 3, 7] {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << bit;
            assert!(matches!(read(&damaged), Err(ClientError::File { .. })), "bit {bit} of byte {at}");
        }
        assert!(read(&good[..at]).is_err(), "cut to {at} bytes");
    }
    assert!(read(&[&good[..], &[0]].concat()).is_err(), "a byte more");
    for at in 0..payload.len() {
        for byte in [0, 1, 2, 127, 128, 254, 255] {
            let mut damaged = payload.to_vec();
            damaged[at] = byte;
            // Swapping 1 and -1 leaves a key of the right weight; everything else is refused.
            let sign_only = matches!((payload[at], byte), (1, 255) | (255, 1)) || payload[at] == byte;
            assert_eq!(read(&framed(&damaged)).is_ok(), sign_only, "coefficient {at} is {byte}");
        }
        assert!(read(&framed(&payload[..at])).is_err(), "{at} coefficients");
    }
}
