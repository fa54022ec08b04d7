//! Ranks that are processes under `mpirun`: this test program, started again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use cerium_runtime::collectives::{Collectives, Patience, mpi};
use rand_core::RngCore;

use super::hosts::Hosts;
use super::{play_on_cpu, ring_until_failure, rings};
use crate::fresh_rng;

/// What the ranks of [`rank`] do, and where they write.
const DEED: &str = "CERIUM_TEST_DEED";
const FOLDER: &str = "CERIUM_TEST_FOLDER";

const PATIENCE: Patience = Patience { wait: Duration::from_secs(60), silence: Duration::from_secs(4) };

fn is_installed() -> bool {
    let installed = Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !installed {
        println!("skipped: there is no mpirun");
    }
    installed
}

/// `mpirun` for ranks that do something and write files into a folder; `None` if it is not installed.
fn mpirun(ranks: usize, deed: &str, folder: &Path) -> Option<Command> {
    if !is_installed() {
        return None;
    }
    // Whatever happens, the test ends.
    let mut command = Command::new("timeout");
    command.args(["120", "mpirun", "--oversubscribe", "--allow-run-as-root", "-np", &ranks.to_string()]);
    command.env(DEED, deed).env(FOLDER, folder);
    Some(command)
}

/// Makes the program of the ranks this one.
fn this_program(mut command: Command) -> Command {
    command.arg(env::current_exe().unwrap());
    command.args(["--exact", "collectives::mpi::rank", "--ignored", "--nocapture"]);
    command
}

/// One of the processes. It does what it is told to, and writes how that ended.
#[test]
#[ignore = "started by mpirun from other tests"]
fn rank() {
    let (Ok(deed), Ok(folder)) = (env::var(DEED), env::var(FOLDER)) else { return };
    let mut ranks = mpi::join(PATIENCE).unwrap();
    let (own, size) = (ranks.rank(), ranks.size());
    let deed: Vec<&str> = deed.split(' ').collect();
    let ended = match deed[..] {
        ["script", seed] => {
            let seed = seed.parse().unwrap();
            // Short messages, and such that a network takes in several steps.
            play_on_cpu(&mut ranks, 4, seed, 100);
            play_on_cpu(&mut ranks, 15, seed + 1, 40);
            "done".to_string()
        }
        ["killed", lost] => {
            if own == lost.parse().unwrap() {
                rings(&mut ranks, 100);
                Command::new("kill").args(["-9", &process::id().to_string()]).status().unwrap();
                thread::sleep(Duration::from_secs(60));
            }
            ring_until_failure(&mut ranks).to_string()
        }
        ["panics", lost] => {
            if own == lost.parse().unwrap() {
                rings(&mut ranks, 10);
                panic!("this panic is part of the test");
            }
            ring_until_failure(&mut ranks).to_string()
        }
        ["aborts", gone] => {
            if own == gone.parse().unwrap() {
                rings(&mut ranks, 10);
                ranks.abort("its keys are others");
            }
            ring_until_failure(&mut ranks).to_string()
        }
        _ => panic!("{deed:?} of {size}"),
    };
    fs::write(Path::new(&folder).join(own.to_string()), ended).unwrap();
}

/// What each rank wrote, if it did.
fn endings(folder: &Path, ranks: usize) -> Vec<Option<String>> {
    (0..ranks).map(|rank| fs::read_to_string(folder.join(rank.to_string())).ok()).collect()
}

#[test]
fn random_scripts_do_what_they_must() {
    let mut rng = fresh_rng();
    for ranks in [2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let deed = format!("script {}", rng.next_u32());
        let Some(command) = mpirun(ranks, &deed, folder.path()) else { return };
        let output = this_program(command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(endings(folder.path(), ranks).iter().all(|ending| ending.as_deref() == Some("done")));
    }
}

#[test]
fn random_scripts_do_what_they_must_on_two_hosts() {
    if !is_installed() {
        return;
    }
    let Some(hosts) = Hosts::new() else {
        println!("skipped: this user cannot make network namespaces");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let deed = format!("script {}", fresh_rng().next_u32());
    let variables = [(DEED, deed.as_str()), (FOLDER, folder.path().to_str().unwrap())];
    let output = this_program(hosts.mpirun(folder.path(), &variables)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(endings(folder.path(), 4).iter().all(|ending| ending.as_deref() == Some("done")));
    // Some limbs of 2^15 words went through the cable.
    assert!(hosts.sent() > 1 << 18, "{} bytes", hosts.sent());
}

/// Ranks that end are named on all others, not long after.
fn assert_named(deed: &str, lost: usize, error: &str) {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut command) = mpirun(4, &format!("{deed} {lost}"), folder.path()) else { return };
    // Without it, mpirun kills all when one dies.
    command.arg("--enable-recovery");
    let start = Instant::now();
    let output = this_program(command).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    for (rank, ending) in endings(folder.path(), 4).into_iter().enumerate().filter(|(rank, _)| *rank != lost)
    {
        let ending = ending.unwrap_or_else(|| panic!("rank {rank} did not end"));
        println!("rank {rank}: {ending}");
        assert!(ending.starts_with(error), "rank {rank}: {ending}");
    }
}

#[test]
fn a_killed_rank_is_named_on_all_others() {
    let lost = fresh_rng().next_u32() as usize % 4;
    assert_named("killed", lost, &format!("rank {lost} was lost: "));
}

#[test]
fn a_rank_that_panics_is_named_on_all_others() {
    assert_named("panics", 1, "rank 1 gave up: its thread panicked");
}

#[test]
fn an_abort_reaches_all_others() {
    assert_named("aborts", 3, "rank 3 gave up: its keys are others");
}
