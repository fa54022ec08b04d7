//! The record of a compilation: each pass with its time, and dumps of the program before and after it on request.

use std::time::{Duration, Instant};

use super::{Dialect, Module, text};

/// What a pass did, as far as `--trace` shows it.
#[derive(Clone, Debug)]
pub struct PassRecord {
    /// Level it worked on.
    pub level: &'static str,
    /// Name of the pass, which is the name of its file.
    pub pass: &'static str,
    /// Time it took, verification excluded.
    pub time: Duration,
    /// Operations before and after, over all functions; of the noise estimate those of the program and those that were run.
    pub operations: (usize, usize),
}

/// A dump of the program around a pass that was asked for.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Name of the pass.
    pub pass: &'static str,
    /// Text form before it.
    pub before: String,
    /// Text form after it.
    pub after: String,
}

/// Collects [`PassRecord`]s and [`Dump`]s.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Passes whose program is dumped; `all` stands for every one.
    pub dump: Vec<String>,
    /// Passes in order.
    pub passes: Vec<PassRecord>,
    /// Dumps in order.
    pub dumps: Vec<Dump>,
}

impl Trace {
    /// Runs a pass that rewrites `module`, times it, verifies the result, and dumps if asked.
    ///
    /// # Panics
    /// If the pass leaves a module that does not verify: that is an error of the compiler.
    pub fn pass<D: Dialect, E>(
        &mut self,
        pass: &'static str,
        module: &mut Module<D>,
        run: impl FnOnce(&mut Module<D>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = count(module);
        let text_before = self.wants(pass).then(|| text::write(module));
        let start = Instant::now();
        run(module)?;
        let time = start.elapsed();
        if let Err(message) = module.verify() {
            panic!("pass {pass} left an invalid {} program: {message}", D::NAME);
        }
        self.record(D::NAME, pass, time, (before, count(module)));
        if let Some(before) = text_before {
            self.dumps.push(Dump { pass, before, after: text::write(module) });
        }
        Ok(())
    }

    /// Runs a pass that makes a program of the next level.
    ///
    /// # Panics
    /// As [`Trace::pass`].
    pub fn lower<A: Dialect, B: Dialect, E>(
        &mut self,
        pass: &'static str,
        module: &Module<A>,
        run: impl FnOnce(&Module<A>) -> Result<Module<B>, E>,
    ) -> Result<Module<B>, E> {
        let start = Instant::now();
        let lowered = run(module)?;
        let time = start.elapsed();
        if let Err(message) = lowered.verify() {
            panic!("pass {pass} made an invalid {} program: {message}", B::NAME);
        }
        self.record(B::NAME, pass, time, (count(module), count(&lowered)));
        if self.wants(pass) {
            self.dumps.push(Dump { pass, before: text::write(module), after: text::write(&lowered) });
        }
        Ok(lowered)
    }

    /// Adds a record of a pass that was timed elsewhere.
    pub fn record(
        &mut self,
        level: &'static str,
        pass: &'static str,
        time: Duration,
        operations: (usize, usize),
    ) {
        self.passes.push(PassRecord { level, pass, time, operations });
    }

    fn wants(&self, pass: &str) -> bool {
        self.dump.iter().any(|name| name == pass || name == "all")
    }
}

fn count<D: Dialect>(module: &Module<D>) -> usize {
    module.functions.iter().map(|f| f.nodes.len()).sum()
}
