//! A rank of a run is killed, at any time: every other rank ends with an error that names it, and another run succeeds.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::{data, label, model, ok, sample};

const RANKS: usize = 3;
/// Seconds that ranks wait for each other.
const TIMEOUT: u64 = 12;

/// A program for several devices with its keys and an encrypted digit.
struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Job {
        let job = Job { folder: tempfile::tempdir().unwrap() };
        let [program, keys, input] = ["p.cerium", "keys", "in.ct"].map(|name| job.path(name));
        let devices = RANKS.to_string();
        ok(&[
            "compile",
            &model(),
            "--calibrate",
            &data("calibration"),
            "--devices",
            &devices,
            "-o",
            &program,
        ]);
        ok(&["keygen", &program, "-o", &keys]);
        ok(&["encrypt", &program, "--keys", &keys, "--input", &sample(0), "-o", &input]);
        job
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A shell that starts a rank, and leaves behind its process number, what it says of errors, and its exit status.
    fn rank(&self, rank_variable: &str) -> Vec<String> {
        let [program, keys, input, output] =
            ["p.cerium", "keys", "in.ct", "out.ct"].map(|name| self.path(name));
        let cerium = env!("CARGO_BIN_EXE_cerium");
        let rank = self.path(&format!("${rank_variable}"));
        let script = format!(
            "{cerium} run {program} --keys {keys} --input {input} -o {output} --threads 1 --timeout {TIMEOUT} 2> {rank}.err &
             echo $! > {rank}.new; mv {rank}.new {rank}.pid; wait $!; echo $? > {rank}.status"
        );
        ["sh", "-c", &script].map(str::to_owned).to_vec()
    }

    /// Forgets what ranks wrote.
    fn clear(&self) {
        for rank in 0..RANKS {
            let files = ["pid", "err", "status"].map(|end| self.path(&format!("{rank}.{end}")));
            files.iter().for_each(|file| drop(fs::remove_file(file)));
        }
        let _ = fs::remove_file(self.path("out.ct"));
    }

    /// Runs until the end, or kills a rank when all ranks have run for so long; how long it took until then and in all.
    fn run(&self, start: &dyn Fn(&Job) -> Vec<Command>, kill: Option<(usize, Duration)>) -> Run {
        self.clear();
        let children: Vec<_> = start(self)
            .into_iter()
            .map(|mut command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
            .collect();
        let pid = |rank: usize| fs::read_to_string(self.path(&format!("{rank}.pid"))).ok();
        let begin = Instant::now();
        while (0..RANKS).any(|rank| pid(rank).is_none()) {
            assert!(begin.elapsed() < Duration::from_secs(60), "the ranks were not started");
            thread::sleep(Duration::from_millis(1));
        }
        let begin = Instant::now();
        if let Some((lost, after)) = kill {
            thread::sleep(after);
            // It may have ended already.
            let _ = Command::new("kill").args(["-9", pid(lost).unwrap().trim()]).output().unwrap();
        }
        children.into_iter().for_each(|child| drop(child.wait_with_output().unwrap()));
        let took = begin.elapsed();
        let read = |rank: usize, end: &str| fs::read_to_string(self.path(&format!("{rank}.{end}"))).unwrap();
        let endings = (0..RANKS)
            .map(|rank| Ending { succeeded: read(rank, "status").trim() == "0", error: read(rank, "err") });
        Run { took, endings: endings.collect() }
    }

    fn has_answer(&self) -> bool {
        Path::new(&self.path("out.ct")).is_file()
    }

    fn assert_right(&self, run: &Run) {
        assert!(run.endings.iter().all(|ending| ending.succeeded), "{:#?}", run.endings);
        let [program, keys, output] = ["p.cerium", "keys", "out.ct"].map(|name| self.path(name));
        let decrypt = ["decrypt", &program, "--keys", &keys, "--input", &output, "--json"];
        let answer: serde_json::Value = serde_json::from_str(&ok(&decrypt)).unwrap();
        assert_eq!(answer["outputs"][0]["largest"], label(0), "{answer}");
    }
}

struct Run {
    took: Duration,
    endings: Vec<Ending>,
}

#[derive(Debug)]
struct Ending {
    succeeded: bool,
    error: String,
}

/// Kills random ranks at random times of runs that `start` starts; `excused` are other errors that may come of it.
fn chaos(start: &dyn Fn(&Job) -> Vec<Command>, rounds: usize, excused: &[&str]) {
    let job = Job::new();
    let whole = job.run(start, None);
    job.assert_right(&whole);
    let mut killed = 0;
    for _ in 0..rounds {
        let random = getrandom::u64().unwrap();
        let lost = random as usize % RANKS;
        // The first run is slower than the others.
        let after = whole.took.mul_f64(0.7 * (random >> 32) as f64 / 2f64.powi(32));
        let run = job.run(start, Some((lost, after)));
        println!("rank {lost} killed after {after:?} of {:?}, over after {:?}", whole.took, run.took);
        assert!(run.took < after + Duration::from_secs(2 * TIMEOUT) + whole.took, "{:#?}", run.endings);
        if job.has_answer() {
            println!("the kill came too late");
            continue;
        }
        killed += 1;
        for (rank, Ending { succeeded, error }) in run.endings.iter().enumerate() {
            // When only rank 0 is left with something to do, the others may have ended well.
            let has_ended = *succeeded && lost == 0;
            let named = !succeeded && error.contains("rror: ") && error.contains(&format!("rank {lost}"));
            let is_excused = excused.iter().any(|excuse| error.contains(excuse));
            let right = rank == lost || has_ended || named || is_excused;
            assert!(right, "rank {rank}, rank {lost} killed after {after:?}: {succeeded} {error}");
        }
    }
    println!("{killed} of {rounds} rounds had an error");
    job.assert_right(&job.run(start, None));
}

#[test]
fn a_killed_rank_is_named_under_mpirun() {
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("skipped: there is no mpirun");
        return;
    }
    let start = |job: &Job| {
        let mut command = Command::new("timeout");
        command.args(["100", "mpirun", "--allow-run-as-root", "--oversubscribe", "--enable-recovery"]);
        command.args(["-np", &RANKS.to_string()]).args(job.rank("OMPI_COMM_WORLD_RANK"));
        vec![command]
    };
    // Before ranks know each other, MPI names nobody.
    chaos(&start, 1, &["MPI_Init has not returned"]);
}

#[test]
fn a_killed_rank_is_named_over_tcp() {
    let start = |job: &Job| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let rank = |rank: usize| {
            let shell = job.rank("RANK");
            let mut command = Command::new(&shell[0]);
            command.args(&shell[1..]).env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
            command.env("WORLD_SIZE", RANKS.to_string());
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port);
            command
        };
        (0..RANKS).map(rank).collect()
    };
    chaos(&start, 3, &[]);
}
