//! Which rank this process is: what `mpirun`, `torchrun` and `srun` say in variables of the environment.
//!
//! | launcher | rank, size, rank on this host | meeting point |
//! |---|---|---|
//! | `mpirun` (Open MPI) | `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK` | none: MPI knows |
//! | `torchrun` | `RANK`, `WORLD_SIZE`, `LOCAL_RANK` | `MASTER_ADDR`, `MASTER_PORT` |
//! | `srun` | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID` | the first of `SLURM_STEP_NODELIST` |
//!
//! Where several are set, the first of the table has started the process: `mpirun` and `torchrun` run below `srun`. Whoever sets the
//! variables of `torchrun` by hand needs no launcher.

use std::fmt;

use super::tcp::{self, Meeting};
use super::{CollectiveError, HostCollectives, Patience, mpi};

/// The port of the meeting point under `srun` is this and the last digits of the job's number.
const SRUN_PORT: u32 = 20_000;

/// What has started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    Mpirun,
    /// `torchrun`, or somebody who sets the same variables.
    Torchrun,
    /// `srun` of Slurm.
    Srun,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Mpirun => "mpirun",
            Launcher::Torchrun => "torchrun",
            Launcher::Srun => "srun",
        })
    }
}

/// This process among those that were started together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Who started them.
    pub launcher: Launcher,
    /// This rank, below `size`.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// Number of this rank among those of its host: which GPU it takes.
    pub local_rank: usize,
    /// Where ranks meet over TCP; `None` under `mpirun`.
    pub meeting: Option<Meeting>,
}

/// The variables of a launcher do not fit together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Some are set, others are not.
    #[error("{set} is set as by {launcher}, but {missing} is not; set both, or unset {set} to run alone")]
    Missing {
        /// The launcher.
        launcher: Launcher,
        /// One that is set.
        set: &'static str,
        /// One that is not.
        missing: &'static str,
    },
    /// One is no number, or too large.
    #[error("{variable} is `{value}`, which is not {expected}")]
    Value {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
}

impl Launch {
    /// What the environment says; `None` if this process was started alone.
    pub fn from_environment() -> Result<Option<Launch>, LaunchError> {
        Launch::from_variables(|name| std::env::var(name).ok())
    }

    /// The same, of variables from elsewhere.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>, LaunchError> {
        let get = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let mpirun = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"];
        let torchrun = ["RANK", "WORLD_SIZE", "LOCAL_RANK"];
        // A batch script has SLURM_PROCID, but is not started by srun.
        let srun = ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"];
        if let Some(set) = mpirun.into_iter().find(|name| get(name).is_some()) {
            let [rank, size, local_rank] = mpirun;
            return launch(Launcher::Mpirun, set, [rank, size, local_rank], get).map(Some);
        }
        if let Some(set) = torchrun.into_iter().find(|name| get(name).is_some()) {
            let launch = launch(Launcher::Torchrun, set, torchrun, get)?;
            let host = require(Launcher::Torchrun, set, "MASTER_ADDR", get)?;
            let port = require(Launcher::Torchrun, set, "MASTER_PORT", get)?;
            let port: u16 = number("MASTER_PORT", port)?;
            // The store of torchrun's own agent listens there.
            let taken = get("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
            let port = if taken { port.wrapping_add(1).max(1024) } else { port };
            return Ok(Some(Launch { meeting: Some(Meeting { host, port }), ..launch }));
        }
        if get(srun[0]).is_some() {
            let [size, rank, local_rank] = srun;
            let launch = launch(Launcher::Srun, size, [rank, size, local_rank], get)?;
            let host = match get("MASTER_ADDR") {
                Some(host) => host,
                None => first_host(&require(Launcher::Srun, size, "SLURM_STEP_NODELIST", get)?),
            };
            let port = match get("MASTER_PORT") {
                Some(port) => number("MASTER_PORT", port)?,
                None => {
                    let job: u32 =
                        number("SLURM_JOB_ID", require(Launcher::Srun, size, "SLURM_JOB_ID", get)?)?;
                    (SRUN_PORT + job % 10_000) as u16
                }
            };
            return Ok(Some(Launch { meeting: Some(Meeting { host, port }), ..launch }));
        }
        Ok(None)
    }

    /// Joins the other ranks; returns when all have come.
    pub fn join(&self, patience: Patience) -> Result<HostCollectives, CollectiveError> {
        match &self.meeting {
            Some(meeting) => tcp::join(meeting, self.rank, self.size, patience),
            None => mpi::join(patience),
        }
    }
}

/// The launch without a meeting point; `names` are those of rank, size and local rank.
fn launch(
    launcher: Launcher,
    set: &'static str,
    names: [&'static str; 3],
    get: impl Fn(&'static str) -> Option<String> + Copy,
) -> Result<Launch, LaunchError> {
    let mut numbers = [0usize; 3];
    for (number_of, name) in numbers.iter_mut().zip(names) {
        *number_of = number(name, require(launcher, set, name, get)?)?;
    }
    let [rank, size, local_rank] = numbers;
    for (name, value) in [(names[0], rank), (names[2], local_rank)] {
        if value >= size {
            let expected = format!("below {} = {size}", names[1]);
            return Err(LaunchError::Value { variable: name, value: value.to_string(), expected });
        }
    }
    Ok(Launch { launcher, rank, size, local_rank, meeting: None })
}

fn require(
    launcher: Launcher,
    set: &'static str,
    name: &'static str,
    get: impl Fn(&'static str) -> Option<String>,
) -> Result<String, LaunchError> {
    get(name).ok_or(LaunchError::Missing { launcher, set, missing: name })
}

fn number<T: std::str::FromStr>(variable: &'static str, value: String) -> Result<T, LaunchError> {
    value.trim().parse().map_err(|_| LaunchError::Value {
        variable,
        value,
        expected: "a number of the right size".to_string(),
    })
}

/// The first host of a list as Slurm writes it: `gpu[03-05,9],login1` begins with `gpu03`.
fn first_host(list: &str) -> String {
    let end = list.find(['[', ',']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    match rest.strip_prefix('[') {
        Some(numbers) => {
            let end = numbers.find([',', '-', ']']).unwrap_or(numbers.len());
            let suffix = numbers.split_once(']').map_or("", |(_, suffix)| suffix);
            let suffix = &suffix[..suffix.find([',', '[']).unwrap_or(suffix.len())];
            format!("{name}{}{suffix}", &numbers[..end])
        }
        None => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Launch>, LaunchError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Launch::from_variables(|name| find(name).map(|(_, value)| value.to_string()))
    }

    fn meeting(host: &str, port: u16) -> Option<Meeting> {
        Some(Meeting { host: host.to_string(), port })
    }

    const MPIRUN: [(&str, &str); 3] =
        [("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_LOCAL_RANK", "1")];
    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "2"),
        ("MASTER_ADDR", "gpu1"),
        ("MASTER_PORT", "29500"),
    ];
    const SRUN: [(&str, &str); 5] = [
        ("SLURM_PROCID", "1"),
        ("SLURM_STEP_NUM_TASKS", "2"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_STEP_NODELIST", "gpu[07-08]"),
        ("SLURM_JOB_ID", "123456"),
    ];

    #[test]
    fn every_launcher_is_understood() {
        assert_eq!(of(&[]), Ok(None));
        let launch = Launch { launcher: Launcher::Mpirun, rank: 3, size: 4, local_rank: 1, meeting: None };
        assert_eq!(of(&MPIRUN), Ok(Some(launch)));
        let (launcher, meeting_point) = (Launcher::Torchrun, meeting("gpu1", 29_500));
        let launch = Launch { launcher, rank: 5, size: 8, local_rank: 2, meeting: meeting_point };
        assert_eq!(of(&TORCHRUN), Ok(Some(launch)));
        let (launcher, meeting_point) = (Launcher::Srun, meeting("gpu07", 23_456));
        let launch = Launch { launcher, rank: 1, size: 2, local_rank: 0, meeting: meeting_point };
        assert_eq!(of(&SRUN), Ok(Some(launch)));
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let all = [&SRUN[..], &TORCHRUN, &MPIRUN].concat();
        assert_eq!(of(&all).unwrap().unwrap().launcher, Launcher::Mpirun);
        let two = [&SRUN[..], &TORCHRUN].concat();
        assert_eq!(of(&two).unwrap().unwrap().launcher, Launcher::Torchrun);
        // A batch script.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")]), Ok(None));
    }

    #[test]
    fn meeting_points_may_be_given() {
        let given = [&SRUN[..], &[("MASTER_ADDR", "10.0.0.7"), ("MASTER_PORT", "4000")]].concat();
        assert_eq!(of(&given).unwrap().unwrap().meeting, meeting("10.0.0.7", 4000));
        // The port is that of torchrun's store.
        let elastic = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(of(&elastic).unwrap().unwrap().meeting, meeting("gpu1", 29_501));
    }

    #[test]
    fn every_variable_that_is_missing_is_named() {
        for (launcher, all) in
            [(Launcher::Mpirun, &MPIRUN[..]), (Launcher::Torchrun, &TORCHRUN), (Launcher::Srun, &SRUN)]
        {
            for (missing, _) in all {
                let rest: Vec<_> = all.iter().copied().filter(|(name, _)| name != missing).collect();
                match of(&rest) {
                    Err(error @ LaunchError::Missing { .. }) => {
                        let text = error.to_string();
                        assert!(text.contains(missing) && text.contains(&launcher.to_string()), "{text}");
                    }
                    // Without its own count of tasks it is not srun.
                    other => assert_eq!((*missing, other), ("SLURM_STEP_NUM_TASKS", Ok(None))),
                }
            }
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        for (variable, value) in
            [("RANK", "x"), ("RANK", "8"), ("MASTER_PORT", "70000"), ("WORLD_SIZE", "-1")]
        {
            let changed: Vec<_> = TORCHRUN
                .iter()
                .map(|&(name, old)| (name, if name == variable { value } else { old }))
                .collect();
            let text = of(&changed).unwrap_err().to_string();
            assert!(text.contains(variable) && text.contains(value), "{text}");
        }
    }

    #[test]
    fn the_first_host_of_a_list() {
        let cases = [
            ("gpu1", "gpu1"),
            ("gpu1,gpu2", "gpu1"),
            ("gpu[03-05,9],login1", "gpu03"),
            ("rack[2,4]-node", "rack2-node"),
            ("gpu[7]", "gpu7"),
        ];
        for (list, first) in cases {
            assert_eq!(first_host(list), first);
        }
    }
}
