//! `cerium bench bootstrap`: one bootstrap, as a program of its own.

use anyhow::{Result, anyhow, bail};
use cerium_artifact::StageId;
use cerium_ckks::basis::Level;
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::{BootstrapKind, Slots, noise};
use cerium_compiler::dsl::{Packing, Program, SourceProgram};
use cerium_compiler::limb::devices::Link;
use cerium_runtime::RankFigures;
use cerium_runtime::profile::{KernelClass, Profile};
use clap::ValueEnum;
use num_complex::Complex64;
use serde::Serialize;
use serde_json::Value;

use super::super::ReportArgs;
use super::super::device::DeviceArgs;
use super::super::ranks::{RankArgs, ranks_json, show_devices, total_memory};
use super::measure::{Prepared, Setup, Times, check_runs, cpu_time, peak_rss_bytes};
use crate::figures::{self, row};

/// Fewest slots that a bootstrap is measured for.
const MIN_SLOTS: usize = 1 << 8;

/// Measure a bootstrap: time, precision, what it leaves, memory.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  cerium bench bootstrap --params boot-40 --threads 1 --json")]
pub(super) struct Bootstrap {
    /// Parameter set with bootstrapping (`cerium params` lists them).
    #[arg(long, default_value = "boot-40")]
    params: String,
    /// Slots that hold a message, a power of two; without, all.
    #[arg(long)]
    slots: Option<usize>,
    /// What is refreshed.
    #[arg(long, value_enum, default_value_t = Kind::Complex)]
    kind: Kind,
    /// Bootstrap the error of the first bootstrap too, enlarged by two to this power: more precision for twice the time
    /// (Meta-BTS). With all slots only.
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(1..=30))]
    iterated: Option<u32>,
    /// Most memory for evaluation keys, in decimal units (`4GB`): fewer keys for more time.
    #[arg(long, value_name = "BYTES")]
    key_memory: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    /// What joins several devices: nvlink, pcie, network or memory.
    #[arg(long, default_value = "memory", value_name = "LINK", requires = "devices")]
    link: Link,
    /// Threads of the bootstrap, which several devices divide among them; 0 stands for one on each core. Keys are made on all.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measured bootstraps, each of a fresh message, after one that is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// One vector of complex numbers
    Complex,
    /// One vector of real numbers
    Real,
    /// Two vectors of real numbers, refreshed together
    RealPair,
}

/// What was measured. Precision is in bits of messages whose parts are uniform in [-1, 1]: `-log2` of the mean and of the
/// largest absolute error of a slot, over all runs; `of_parts`: of real and imaginary parts, of which a complex slot has
/// two.
#[derive(Serialize)]
struct Report {
    params: String,
    n: usize,
    slots: usize,
    kind: Kind,
    iterated_bits: Option<u32>,
    threads: usize,
    runs: usize,
    device: String,
    secret: String,
    secret_weight: usize,
    log_pq: f64,
    log_scale: f64,
    /// At which a ciphertext is bootstrapped, and that of the result.
    input_level: u8,
    output_level: u8,
    /// Multiplications between the two.
    levels_left: u8,
    /// Bits of modulus between the two: what programs can use.
    log_q_left: f64,
    /// Bits of modulus of the result.
    log_q_output: f64,
    #[serde(flatten)]
    times: Times,
    /// Median of the processor time of all threads.
    cpu_s: f64,
    samples_cpu_s: Vec<f64>,
    usable_bits_per_s: f64,
    usable_bits_per_cpu_s: f64,
    mean_precision_bits: f64,
    min_precision_bits: f64,
    mean_precision_bits_of_parts: f64,
    min_precision_bits_of_parts: f64,
    /// What the compiler promises of every slot.
    promised_precision_bits: f64,
    messages: &'static str,
    compile_s: f64,
    key_generation_s: f64,
    /// Evaluation keys, and their bytes: expanded in memory, and as files.
    keys: usize,
    key_bytes: u64,
    key_file_bytes: u64,
    plaintext_bytes: u64,
    pool_bytes: u64,
    /// Of the whole process, making of keys included.
    peak_rss_bytes: Option<u64>,
    /// Of the last bootstrap, on the first device.
    stages: Vec<Stage>,
    /// What each device has, and did with the others in the last bootstrap.
    ranks: Value,
}

/// Where the time went in one stage.
#[derive(Serialize)]
struct Stage {
    name: String,
    classes: Vec<Class>,
}

/// What the kernels of one class did in a stage.
#[derive(Serialize)]
struct Class {
    class: &'static str,
    blocks: u64,
    /// Summed over threads.
    busy_s: f64,
}

impl Stage {
    fn all(profile: &Profile) -> Vec<Stage> {
        let class = |stage: usize, class: KernelClass| {
            let usage = profile.usage.get(StageId(stage as u16), class);
            Class { class: class.name(), blocks: usage.blocks, busy_s: usage.busy.as_secs_f64() }
        };
        let stage = |(index, name): (usize, &String)| Stage {
            name: name.clone(),
            classes: KernelClass::ALL.into_iter().map(|kind| class(index, kind)).collect(),
        };
        profile.stages.iter().enumerate().map(stage).collect()
    }
}

impl Bootstrap {
    pub(super) fn run(self) -> Result<()> {
        check_runs(self.runs)?;
        let mut setup = Setup::new(&self.params, &self.device, self.threads)?;
        (setup.ranks, setup.link) = (self.ranks, self.link);
        setup.key_memory = self.key_memory.as_deref().map(figures::parse_bytes).transpose()?;
        if setup.params.bootstrap().is_none() {
            bail!("{} has no levels for bootstrapping; boot-40 and its like do", setup.params.name());
        }
        let slots = self.slots.unwrap_or(setup.params.slots());
        if !slots.is_power_of_two()
            || slots > setup.params.slots()
            || slots < MIN_SLOTS.min(setup.params.slots())
        {
            let most = setup.params.slots();
            bail!("--slots must be a power of two from {MIN_SLOTS} to {most}, not {slots}");
        }
        let source = match self.iterated {
            None => self.kind.program(&setup.params, slots)?,
            Some(_) if self.kind == Kind::RealPair || slots < setup.params.slots() => {
                bail!("--iterated is for one vector with all slots");
            }
            Some(bits) => self.kind.iterated(&setup.params, bits),
        };
        let vectors = source.inputs.len();
        let samples = vec![self.kind.message(&setup.params, slots, vectors)?];
        let mut prepared = setup.prepare(&source, samples)?;
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        let mut errors = Errors::default();
        let mut profiles = Vec::new();
        for run in 0..=self.runs {
            let message = self.kind.message(&setup.params, slots, vectors)?;
            let inputs = prepared.encrypt(&message)?;
            let begin = cpu_time();
            let (outputs, of_ranks) = prepared.ranks.run(&inputs)?;
            let spent = cpu_time().saturating_sub(begin);
            if run > 0 {
                wall.push(of_ranks[0].wall);
                cpu.push(spent);
                errors.add(&prepared.decrypt(&outputs)?, &message, self.kind);
            }
            profiles = of_ranks;
        }
        let times = (Times::new(&wall), Times::new(&cpu));
        let ranks = prepared.ranks.figures(&profiles)?;
        let figures = self.figures(&setup.params, (&prepared, &ranks), slots, times, &errors);
        let report = Report { stages: Stage::all(&profiles[0]), ..figures };
        self.report.give(&serde_json::to_value(&report)?, || report.show())
    }

    fn figures(
        &self,
        params: &Params,
        (prepared, ranks): (&Prepared<'_>, &[RankFigures]),
        slots: usize,
        (wall, cpu): (Times, Times),
        errors: &Errors,
    ) -> Report {
        let artifact = &prepared.program.artifact;
        let input = artifact.inputs[0].ciphertexts[0].level;
        let outputs = artifact.outputs.iter().flat_map(|port| &port.ciphertexts);
        let output = outputs.clone().map(|packed| packed.level).min().unwrap_or(input);
        let promise = noise::PROMISE * outputs.map(|packed| packed.error).fold(0.0, f64::max);
        let bits = params.log_q(output) - params.log_q(input);
        let memory = total_memory(ranks);
        Report {
            params: params.name().into(),
            n: params.n(),
            slots,
            kind: self.kind,
            iterated_bits: self.iterated,
            threads: self.threads,
            runs: self.runs,
            device: show_devices(ranks),
            secret: format!("ternary of weight {}, encapsulated in one of weight 32", params.n() / 2),
            secret_weight: params.n() / 2,
            log_pq: params.log_pq(),
            log_scale: params.scale(output).log2(),
            input_level: input.0,
            output_level: output.0,
            levels_left: output.0.saturating_sub(input.0),
            log_q_left: bits,
            log_q_output: params.log_q(output),
            usable_bits_per_s: bits / wall.median_s,
            usable_bits_per_cpu_s: bits / cpu.median_s,
            times: wall,
            cpu_s: cpu.median_s,
            samples_cpu_s: cpu.samples_s,
            mean_precision_bits: errors.slots.mean_bits(),
            min_precision_bits: errors.slots.least_bits(),
            mean_precision_bits_of_parts: errors.parts.mean_bits(),
            min_precision_bits_of_parts: errors.parts.least_bits(),
            promised_precision_bits: -promise.log2(),
            messages: "random, each part of a slot uniform in [-1, 1]",
            compile_s: prepared.compilation.as_secs_f64(),
            key_generation_s: prepared.key_generation.as_secs_f64(),
            keys: artifact.keys.len(),
            key_bytes: memory.keys,
            key_file_bytes: prepared.program.key_bytes(),
            plaintext_bytes: memory.plaintexts,
            pool_bytes: memory.pool,
            peak_rss_bytes: peak_rss_bytes(),
            stages: Vec::new(),
            ranks: ranks_json(ranks),
        }
    }
}

impl Kind {
    /// The program that bootstraps its inputs, unplaced.
    pub(super) fn program(self, params: &Params, slots: usize) -> Result<SourceProgram> {
        let (values, inputs, kind) = match self {
            Kind::Complex => ("%a", "%a: ct", "complex"),
            Kind::Real => ("%a", "%a: ct", "real"),
            Kind::RealPair => ("%a, %b", "%a: ct, %b: ct", "real"),
        };
        let results = values.replace('a', "c").replace('b', "d");
        let log_slots = slots.trailing_zeros();
        let text = format!(
            "func @main({inputs}) {{\n {results} = bootstrap({values}) {{kind={kind}, log_slots={log_slots}, bound=1.0}}\n \
             return {results}\n}}"
        );
        Ok(SourceProgram::from_text("bootstrap", params, &text)?)
    }

    /// The program that refreshes its input twice, unplaced.
    fn iterated(self, params: &Params, bits: u32) -> SourceProgram {
        let kind = if self == Kind::Complex { BootstrapKind::Complex } else { BootstrapKind::Real };
        let p = Program::new("bootstrap", params);
        let x = p.input("x", Packing::dense(params.slots()));
        // A product with a constant brings the two bootstraps together, a level below that of a bootstrap.
        let level = Level(params.program_level().0 - 1);
        p.output("y", Packing::dense(params.slots()), &x.bootstrap_iterated(kind, 1.0, bits).lower(level));
        p.finish()
    }

    /// A random message: so many vectors whose first `slots` slots repeat.
    pub(super) fn message(self, params: &Params, slots: usize, vectors: usize) -> Result<Vec<Slots>> {
        let part = |bytes: &[u8]| {
            let word = bytes.try_into().map_or(0, i32::from_le_bytes);
            f64::from(word) / 2f64.powi(31)
        };
        let vector = |_| {
            let mut bytes = vec![0; 8 * slots];
            getrandom::fill(&mut bytes)
                .map_err(|error| anyhow!("the operating system gives no randomness: {error}"))?;
            let slot = |bytes: &[u8]| {
                let im = if self == Kind::Complex { part(&bytes[4..]) } else { 0.0 };
                Complex64::new(part(&bytes[..4]), im)
            };
            let period: Slots = bytes.chunks_exact(8).map(slot).collect();
            Ok(period.iter().copied().cycle().take(params.slots()).collect())
        };
        (0..vectors).map(vector).collect()
    }
}

/// Absolute errors.
#[derive(Default)]
struct Absolute {
    sum: f64,
    count: usize,
    largest: f64,
}

impl Absolute {
    fn add(&mut self, error: f64) {
        self.sum += error;
        self.count += 1;
        self.largest = self.largest.max(error);
    }

    fn mean_bits(&self) -> f64 {
        -(self.sum / self.count as f64).log2()
    }

    fn least_bits(&self) -> f64 {
        -self.largest.log2()
    }
}

/// Errors of slots, and of their parts.
#[derive(Default)]
struct Errors {
    slots: Absolute,
    parts: Absolute,
}

impl Errors {
    fn add(&mut self, decrypted: &[Slots], message: &[Slots], kind: Kind) {
        for (got, wanted) in decrypted.iter().flatten().zip(message.iter().flatten()) {
            let error = got - wanted;
            self.parts.add(error.re.abs());
            if kind == Kind::Complex {
                self.parts.add(error.im.abs());
                self.slots.add(error.norm_sqr().sqrt());
            } else {
                // The reader of real slots takes real parts.
                self.slots.add(error.re.abs());
            }
        }
    }
}

impl Report {
    fn show(&self) -> String {
        let s = |seconds: f64| format!("{seconds:.3} s");
        let bits = |bits: f64| format!("{bits:.1} bits");
        let [low, high] = self.times.spread_s;
        let peak = self.peak_rss_bytes.map_or("unknown".into(), figures::bytes);
        let table = figures::table(&[
            row(["time, median", &s(self.times.median_s)]),
            row(["first to last decile", &format!("{} to {}", s(low), s(high))]),
            row(["processor time, median", &s(self.cpu_s)]),
            row(["levels left", &format!("{} of 2^{:.1}", self.levels_left, self.log_scale)]),
            row(["log Q left", &bits(self.log_q_left)]),
            row(["usable bits a second of processor time", &format!("{:.1}", self.usable_bits_per_cpu_s)]),
            row(["precision, mean", &bits(self.mean_precision_bits)]),
            row(["precision, least", &bits(self.min_precision_bits)]),
            row(["precision, promised", &bits(self.promised_precision_bits)]),
            row(["keys", &self.keys.to_string()]),
            row(["keys in memory", &figures::bytes(self.key_bytes)]),
            row(["keys as files", &figures::bytes(self.key_file_bytes)]),
            row(["encoded constants", &figures::bytes(self.plaintext_bytes)]),
            row(["working memory", &figures::bytes(self.pool_bytes)]),
            row(["peak memory of the process", &peak]),
        ]);
        let heads = std::iter::once("stage").chain(KernelClass::ALL.map(KernelClass::name)).chain(["all"]);
        let stage_row = |stage: &Stage| {
            let busy = stage.classes.iter().map(|class| class.busy_s);
            let cells = busy.clone().chain([busy.sum()]).map(|busy| format!("{:.1} ms", 1e3 * busy));
            std::iter::once(stage.name.clone()).chain(cells).collect()
        };
        let rows: Vec<Vec<String>> = std::iter::once(heads.map(String::from).collect())
            .chain(self.stages.iter().map(stage_row))
            .collect();
        let stages = figures::table(&rows);
        format!(
            "{}: N = {}, log PQ = {:.0}, {} slots ({}), secret {}; {} bootstraps on {}\n{table}\n{stages}\
             Busy times of threads in the last bootstrap.\n",
            self.params,
            self.n,
            self.log_pq,
            self.slots,
            self.kind.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned()),
            self.secret,
            self.runs,
            self.device,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_errors() {
        let mut errors = Errors::default();
        let at = |re: f64, im: f64| vec![vec![Complex64::new(re, im)]];
        errors.add(&at(0.75, 1.0), &at(0.0, 0.0), Kind::Complex);
        errors.add(&at(0.25, 0.0), &at(0.0, 0.0), Kind::Complex);
        assert_eq!(errors.slots.mean_bits(), -0.75f64.log2());
        assert_eq!(errors.slots.least_bits(), -1.25f64.log2());
        assert_eq!(errors.parts.mean_bits(), 1.0);
        assert_eq!(errors.parts.least_bits(), 0.0);
        let mut errors = Errors::default();
        errors.add(&at(0.5, 9.0), &at(0.0, 0.0), Kind::RealPair);
        assert_eq!((errors.slots.mean_bits(), errors.parts.least_bits()), (1.0, 1.0));
    }

    #[test]
    fn programs_and_messages_have_their_shape() {
        let params = Params::named_insecure("insecure-test").unwrap();
        for (kind, vectors) in [(Kind::Complex, 1), (Kind::Real, 1), (Kind::RealPair, 2)] {
            let source = kind.program(&params, 256).unwrap();
            assert_eq!((source.inputs.len(), source.outputs.len()), (vectors, vectors));
            let message = kind.message(&params, 256, vectors).unwrap();
            assert_eq!(message.len(), vectors);
            for slots in &message {
                assert_eq!(slots.len(), params.slots());
                assert!(slots.iter().zip(&slots[256..]).all(|(a, b)| a == b), "slots repeat");
                assert!(slots.iter().all(|slot| slot.re.abs() <= 1.0 && slot.im.abs() <= 1.0));
                assert_eq!(slots.iter().any(|slot| slot.im != 0.0), kind == Kind::Complex);
            }
        }
    }
}
