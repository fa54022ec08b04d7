//! `cerium bench device`: whether a device computes the same words as the CPU, bit for bit.

use anyhow::{Context, Result, anyhow, bail};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::isa::Isa;
use cerium_compiler::ciphertext::Slots;
use cerium_compiler::dsl::SourceProgram;
use cerium_runtime::suite::Case;
use cerium_runtime::{CpuDevice, KernelClass, Session, device};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::ReportArgs;
use super::super::device::DeviceArgs;
use super::bootstrap::Kind;
use super::measure::Setup;
use crate::figures::{self, row};
use crate::progress::Progress;

/// Base-2 logarithms of the degrees at which random programs are made: from the smallest, where everything has an edge, to that
/// of the sets that people use.
const LOG_DEGREES: [u8; 7] = [4, 5, 8, 11, 12, 13, 16];
/// Random programs of each degree, unless another number is given.
pub(super) const ROUNDS: usize = 2;
/// The small ring of the bootstrap.
const BOOTSTRAP: &str = "insecure-boot-40";

/// Compare a device with the CPU, word for word: random programs with kernels of every class and shape, and a bootstrap in a
/// small ring. The CPU computes without vector instructions, so that `--device cpu` is compared as well.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  cerium bench device --device cuda")]
pub(super) struct Device {
    #[command(flatten)]
    device: DeviceArgs,
    /// Seed of the programs; without, a fresh one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Random programs of each degree.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Leave the bootstrap out.
    #[arg(long)]
    no_bootstrap: bool,
    #[command(flatten)]
    report: ReportArgs,
}

/// One program on both devices.
#[derive(Debug, Serialize)]
struct Comparison {
    program: String,
    n: usize,
    launches: u64,
    /// Words of the results.
    words: usize,
    /// Those that differ, in the worst of two runs.
    different: usize,
    /// Where the first of them stands.
    first: Option<Position>,
}

/// A word of a result.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Position {
    ciphertext: usize,
    limb: usize,
    word: usize,
}

impl Device {
    pub(super) fn run(self) -> Result<()> {
        let fresh = || getrandom::u64().map_err(|e| anyhow!("the operating system gives no randomness: {e}"));
        let seed = self.seed.map_or_else(fresh, Ok)?;
        let mut suite = Suite {
            device: &self.device,
            name: self.device.open(0)?.name(),
            progress: Progress::new(),
            comparisons: Vec::new(),
            launches: [0; KernelClass::ALL.len()],
        };
        suite.random_programs(seed, self.rounds)?;
        if !self.no_bootstrap {
            suite.bootstrap()?;
        }
        suite.progress.clear();
        let different = suite.comparisons.iter().filter(|comparison| comparison.different > 0).count();
        let classes = KernelClass::ALL.into_iter().zip(suite.launches);
        let launches: Map<String, Value> =
            classes.map(|(class, launches)| (class.name().to_owned(), launches.into())).collect();
        let report = json!({
            "device": suite.name,
            "seed": seed,
            "equal": different == 0,
            "launches": launches,
            "programs": suite.comparisons,
        });
        self.report.give(&report, || suite.show(seed))?;
        if different > 0 {
            let (name, of) = (&suite.name, suite.comparisons.len());
            bail!("{name} computes other words than the CPU in {different} of {of} programs (seed {seed})");
        }
        Ok(())
    }
}

struct Suite<'a> {
    device: &'a DeviceArgs,
    name: String,
    progress: Progress,
    comparisons: Vec<Comparison>,
    /// Kernels of the programs, by class.
    launches: [u64; KernelClass::ALL.len()],
}

/// What devices are compared with: the CPU without vector instructions, on all cores.
fn reference() -> Result<Box<dyn device::Device>, device::DeviceError> {
    let device = CpuDevice::with_isa(0, Isa::Portable)?;
    Ok(Box::new(device))
}

/// Random programs, `rounds` of each degree; the same for the same seed.
pub(super) fn cases(seed: u64, rounds: usize) -> impl Iterator<Item = Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let degrees = LOG_DEGREES.into_iter().flat_map(move |log_n| std::iter::repeat_n(log_n, rounds));
    degrees.map(move |log_n| Case::random(&mut rng, log_n))
}

/// The bootstrap of all slots of a small ring, with a fresh secret key, and a message for it.
pub(super) fn bootstrap(device: &DeviceArgs) -> Result<(Setup, SourceProgram, Vec<Slots>)> {
    let setup = Setup::new(BOOTSTRAP, device, 0)?;
    let slots = setup.params.slots();
    let message = Kind::Complex.message(&setup.params, slots, 1)?;
    let source = Kind::Complex.program(&setup.params, slots)?;
    Ok((setup, source, message))
}

impl Suite<'_> {
    fn random_programs(&mut self, seed: u64, rounds: usize) -> Result<()> {
        let total = LOG_DEGREES.len() * rounds;
        for (index, case) in cases(seed, rounds).enumerate() {
            self.progress.step("comparing random programs", index, total);
            let mut expected = case.session(reference()?)?;
            let mut session = case.session(self.device.open(0)?)?;
            let name = format!("random {}", index % rounds + 1);
            self.compare(name, &mut expected, &mut session, &case.inputs)?;
        }
        Ok(())
    }

    fn bootstrap(&mut self) -> Result<()> {
        let (setup, source, message) = bootstrap(self.device)?;
        let program = setup.compile(&source, vec![message.clone()])?;
        let keys = setup.keys(&program)?;
        let mut expected = setup.session(&program, keys.clone(), reference()?)?;
        let mut session = setup.session(&program, keys, self.device.open(0)?)?;
        let inputs = setup.encrypt(&program, &message)?;
        self.compare("bootstrap".to_owned(), &mut expected, &mut session, &inputs)
    }

    /// Runs a program on both devices, on the second one twice: nothing of the first run may show in the second.
    fn compare(
        &mut self,
        program: String,
        expected: &mut Session,
        session: &mut Session,
        inputs: &[Ciphertext],
    ) -> Result<()> {
        let (n, reference) = (session.params().n(), expected.device());
        let (expected, profile) = expected.run(inputs)?;
        for (count, class) in self.launches.iter_mut().zip(KernelClass::ALL) {
            *count += profile.usage.class(class).launches;
        }
        let mut comparison = Comparison {
            n,
            launches: profile.usage.total().launches,
            words: expected.iter().map(|ciphertext| ciphertext.words().len()).sum(),
            different: 0,
            first: None,
            program,
        };
        for _ in 0..2 {
            let (outputs, profile) = session.run(inputs).with_context(|| comparison.program.clone())?;
            if profile.usage.total().launches != comparison.launches {
                bail!("{} and {reference} count other launches in {}", self.name, comparison.program);
            }
            comparison.add(&expected, &outputs);
        }
        self.comparisons.push(comparison);
        Ok(())
    }

    fn show(&self, seed: u64) -> String {
        let mut rows = vec![row(["program", "N", "launches", "words", "different", "first"])];
        rows.extend(self.comparisons.iter().map(|comparison| {
            let first = comparison.first.as_ref().map_or(String::new(), |first| {
                let Position { ciphertext, limb, word } = first;
                format!("ciphertext {ciphertext}, limb {limb}, word {word}")
            });
            row([
                &comparison.program,
                &comparison.n.to_string(),
                &comparison.launches.to_string(),
                &comparison.words.to_string(),
                &comparison.different.to_string(),
                &first,
            ])
        }));
        let classes = KernelClass::ALL.into_iter().zip(self.launches);
        let classes: Vec<String> =
            classes.map(|(class, launches)| format!("{launches} {}", class.name())).collect();
        let (table, classes) = (figures::table(&rows), classes.join(", "));
        format!("{} beside the CPU, seed {seed}\n{table}  kernels: {classes}\n", self.name)
    }
}

impl Comparison {
    /// Counts the words in which a run differs.
    fn add(&mut self, expected: &[Ciphertext], outputs: &[Ciphertext]) {
        let mut different = 0;
        for (ciphertext, (expected, output)) in expected.iter().zip(outputs).enumerate() {
            for (at, _) in
                expected.words().iter().zip(output.words()).enumerate().filter(|(_, (a, b))| a != b)
            {
                different += 1;
                let position = Position { ciphertext, limb: at / self.n, word: at % self.n };
                self.first.get_or_insert(position);
            }
        }
        self.different = self.different.max(different);
    }
}

#[cfg(test)]
mod tests {
    use cerium_ckks::params::Params;

    use super::*;

    #[test]
    fn every_word_that_differs_is_counted() {
        let params = Params::named_insecure("insecure-test").unwrap();
        let level = params.max_level();
        let words = vec![1; 2 * params.basis(level).len() * params.n()];
        let ciphertext = |words| Ciphertext::new(&params, level, params.scale(level), 2, words).unwrap();
        let expected = [ciphertext(words.clone()), ciphertext(words.clone())];
        let mut comparison = Comparison {
            program: String::new(),
            n: params.n(),
            launches: 0,
            words: 0,
            different: 0,
            first: None,
        };
        comparison.add(&expected, &expected);
        assert_eq!((comparison.different, &comparison.first), (0, &None));
        let mut wrong = words.clone();
        (wrong[params.n() + 7], wrong[2 * params.n()]) = (0, 2);
        comparison.add(&expected, &[ciphertext(words), ciphertext(wrong)]);
        comparison.add(&expected, &expected);
        let first = Position { ciphertext: 1, limb: 1, word: 7 };
        assert_eq!((comparison.different, comparison.first), (2, Some(first)));
    }
}
