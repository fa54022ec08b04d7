//! Progress of what takes more than a moment.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Called, from any thread, with what is being done, how many steps are done and how many there are.
pub type Progress<'a> = &'a (dyn Fn(&'static str, usize, usize) + Sync);

/// Reports nothing.
pub fn silent(_: &'static str, _: usize, _: usize) {}

/// Counts the steps of one piece of work that several threads share.
pub(crate) struct Counter<'a> {
    report: Progress<'a>,
    what: &'static str,
    total: usize,
    done: AtomicUsize,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(report: Progress<'a>, what: &'static str, total: usize) -> Counter<'a> {
        report(what, 0, total);
        Counter { report, what, total, done: AtomicUsize::new(0) }
    }

    /// One more step is done.
    pub(crate) fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        (self.report)(self.what, done, self.total);
    }
}
