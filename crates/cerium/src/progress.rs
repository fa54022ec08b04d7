//! Progress on standard error: a bar on a terminal, otherwise a plain line for what takes long.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What takes longer than this is announced where there is no terminal.
const LONG: Duration = Duration::from_secs(1);

/// Shows what is being done.
pub(crate) struct Progress {
    silent: bool,
    terminal: bool,
    current: Mutex<Option<Current>>,
}

struct Current {
    what: String,
    begun: Instant,
    announced: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Nothing is being done yet.
    pub(crate) fn new() -> Progress {
        Progress { silent: false, terminal: io::stderr().is_terminal(), current: Mutex::new(None) }
    }

    /// Shows nothing: another process does.
    pub(crate) fn silent() -> Progress {
        Progress { silent: true, terminal: false, current: Mutex::new(None) }
    }

    /// `done` of `total` steps of `what` are done. Called from any thread.
    pub(crate) fn step(&self, what: &str, done: usize, total: usize) {
        if self.silent {
            return;
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.what != what) {
            if let Some(bar) = current.take().and_then(|current| current.bar) {
                bar.finish_and_clear();
            }
            let bar = self.terminal.then(|| {
                let bar = ProgressBar::new(total as u64);
                let style = ProgressStyle::with_template("{msg:24} {bar:32} {pos}/{len} {elapsed}");
                bar.set_style(style.expect("a template with known keys"));
                bar.set_message(what.to_owned());
                bar
            });
            *current = Some(Current { what: what.to_owned(), begun: Instant::now(), announced: false, bar });
        }
        let Some(shown) = current.as_mut() else { return };
        match &shown.bar {
            Some(bar) => bar.set_position(done as u64),
            None if done < total && !shown.announced && shown.begun.elapsed() > LONG => {
                shown.announced = true;
                eprintln!("{what}: {done} of {total} ...");
            }
            None => {}
        }
    }

    /// Does `work`, which has no steps to count and may take over a second.
    pub(crate) fn work<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        self.clear();
        if self.silent {
            return work();
        }
        if !self.terminal {
            eprintln!("{what} ...");
            return work();
        }
        let spinner = ProgressBar::new_spinner();
        spinner.set_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        let result = work();
        spinner.finish_and_clear();
        result
    }

    /// Takes the bar away, so that a report can be printed.
    pub(crate) fn clear(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = current.take().and_then(|current| current.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
