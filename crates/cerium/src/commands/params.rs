//! `cerium params`: the parameter sets, and what a program costs under its own.

use std::path::Path;

use anyhow::{Context, Result};
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params as ParameterSet, max_log_pq};
use cerium_client::KeyFolder;
use cerium_compiler::ciphertext::BootstrapKind;
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, bootstrap, compile};
use cerium_runtime::null::{Measurement, measure_within};
use serde_json::{Value, json};

use crate::figures::{self, row};
use crate::program::Program;
use crate::progress::Progress;

/// List the parameter sets, or show one: security, levels, sizes of keys and ciphertexts. Of a program, also the disk
/// and memory that its keys and running it take; of a set with bootstrapping, those of a bootstrap.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cerium params leveled-14\n  cerium params mnist.cerium")]
pub(crate) struct Params {
    /// A set, or a program; without one, all sets are listed.
    #[arg(value_name = "NAME|PROGRAM")]
    name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Params {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(name) = &self.name {
            return self.show_one(name);
        }
        let sets = ParameterSet::names().into_iter().map(ParameterSet::named_insecure);
        let sets: Vec<ParameterSet> = sets.collect::<Result<_, _>>()?;
        if self.json {
            let sets: Vec<Value> = sets.iter().map(summary).collect();
            return figures::print_json(&json!({ "sets": sets }));
        }
        let mut rows = vec![row([
            "set",
            "security",
            "N",
            "slots",
            "log PQ",
            "levels",
            "bootstrapping",
            "scale",
            "ciphertext",
            "evaluation key",
        ])];
        for set in &sets {
            rows.push(row([
                set.name(),
                security(set),
                &format!("2^{}", set.log_n()),
                &set.slots().to_string(),
                &format!("{:.0}", set.log_pq()),
                &set.program_level().0.to_string(),
                &set.bootstrap().map_or_else(String::new, |b| format!("{} -> {}", b.input.0, b.output.0)),
                &format!("2^{:.0}", set.scale(Level(0)).log2()),
                &figures::bytes(ciphertext_bytes(set, set.max_level())),
                &figures::bytes(key_bytes(set)),
            ]));
        }
        let note = "\n  Levels are those for programs; bootstrapping takes a ciphertext of one level to another, for programs of \
                    any depth. Sizes\n  are at the top level; a fresh ciphertext and a key are stored with a seed for \
                    their uniform half.\n";
        figures::print(&(figures::table(&rows) + note))
    }
}

impl Params {
    fn show_one(&self, name: &str) -> Result<()> {
        let path = Path::new(name);
        let is_set = ParameterSet::names().contains(&name);
        if !is_set && (path.is_file() || path.extension().is_some_and(|extension| extension == "cerium")) {
            let demand = Demand::new(Program::read(path)?)?;
            let mut object = summary(&demand.program.params);
            if self.json {
                object["program"] = demand.to_json();
                return figures::print_json(&object);
            }
            let heading = format!("\nprogram `{}`\n", demand.program.artifact.name);
            return figures::print(&(show(&demand.program.params) + &heading + &demand.to_text()));
        }
        let set = ParameterSet::named_insecure(name)?;
        let bootstrap = set.bootstrap().map(|_| Demand::of_bootstrap(&set)).transpose()?;
        if self.json {
            let mut object = summary(&set);
            object["level_table"] = set.levels().map(|level| level_summary(&set, level)).collect();
            if let Some(demand) = bootstrap {
                object["bootstrap"]["program"] = demand.to_json();
            }
            return figures::print_json(&object);
        }
        let mut text = show(&set) + "\n" + &show_levels(&set);
        if let Some(demand) = bootstrap {
            text += &format!("\na bootstrap of {} complex slots\n{}", set.slots(), demand.to_text());
        }
        figures::print(&text)
    }
}

fn security(set: &ParameterSet) -> &'static str {
    match set.security_bits() {
        Some(_) if !set.is_insecure() => "128 bits",
        _ => "none, for tests",
    }
}

/// Bytes of the two halves of a ciphertext.
fn ciphertext_bytes(set: &ParameterSet, level: Level) -> u64 {
    8 * (set.basis(level).len() * set.n()) as u64
}

/// Bytes of the stored half of an evaluation key of the top level.
fn key_bytes(set: &ParameterSet) -> u64 {
    4 * top_key(set).words(set) as u64
}

fn top_key(set: &ParameterSet) -> KeyRequest {
    KeyRequest { kind: KeyKind::Relinearization, level: set.max_level() }
}

/// Base-2 logarithm of the modulus under which the sparse secret of bootstrapping is used.
fn sparse_log_qp(set: &ParameterSet) -> f64 {
    set.log_q(Level(0)) + set.log_product(set.sparse_p_basis())
}

fn public_key_bytes(set: &ParameterSet) -> u64 {
    4 * (set.q_basis().len() * set.n()) as u64
}

fn summary(set: &ParameterSet) -> Value {
    json!({
        "name": set.name(),
        "digest": set.digest().to_string(),
        "insecure": set.is_insecure(),
        "security_bits": set.security_bits().filter(|_| !set.is_insecure()),
        "n": set.n(),
        "slots": set.slots(),
        "log_pq": set.log_pq(),
        "log_pq_bound_128": max_log_pq(set.log_n()),
        "log_q": set.log_q(set.max_level()),
        "log_p": set.log_p(),
        "levels": set.program_level().0,
        "top_level": set.max_level().0,
        "bootstrap": set.bootstrap().map(|bootstrap| json!({
            "input_level": bootstrap.input.0,
            "output_level": bootstrap.output.0,
            "log_ratio": bootstrap.ratio.log2(),
            "sparse_log_qp": sparse_log_qp(set),
        })),
        "log_scale": set.scale(Level(0)).log2(),
        "primes_q": set.q_basis().len(),
        "primes_p": set.p_basis().len(),
        "digits": set.digits().len(),
        "ciphertext_bytes": ciphertext_bytes(set, set.max_level()),
        "seeded_ciphertext_bytes": ciphertext_bytes(set, set.max_level()) / 2,
        "public_key_bytes": public_key_bytes(set),
        "evaluation_key_bytes": key_bytes(set),
        "keygen_memory_bytes": KeyFolder::memory(set, &[top_key(set)]),
    })
}

fn level_summary(set: &ParameterSet, level: Level) -> Value {
    json!({
        "level": level.0,
        "limbs": set.basis(level).len(),
        "log_q": set.log_q(level),
        "log_scale": set.scale(level).log2(),
        "ciphertext_bytes": ciphertext_bytes(set, level),
    })
}

fn show(set: &ParameterSet) -> String {
    let bound = max_log_pq(set.log_n()).map_or("none".into(), |bound| format!("{bound:.0}"));
    let top = set.max_level();
    let text = format!("{} ({})\n", set.name(), set.digest());
    let mut rows = vec![
        row(["security", security(set)]),
        row(["ring degree N", &format!("2^{}", set.log_n())]),
        row(["slots", &set.slots().to_string()]),
        row(["log PQ", &format!("{:.1}", set.log_pq())]),
        row(["largest log PQ for 128 bits", &bound]),
        row(["log Q, primes", &format!("{:.1}, {}", set.log_q(top), set.q_basis().len())]),
        row(["log P, primes", &format!("{:.1}, {}", set.log_p(), set.p_basis().len())]),
        row(["key-switching digits", &set.digits().len().to_string()]),
        row(["levels for programs", &set.program_level().0.to_string()]),
    ];
    if let Some(bootstrap) = set.bootstrap() {
        let levels = format!("{} -> {}, through {top}", bootstrap.input, bootstrap.output);
        rows.push(row(["bootstrapping", &levels]));
        rows.push(row(["log QP of its sparse secret", &format!("{:.1}", sparse_log_qp(set))]));
    }
    rows.extend([
        row(["ciphertext", &figures::bytes(ciphertext_bytes(set, top))]),
        row(["fresh ciphertext, seeded", &figures::bytes(ciphertext_bytes(set, top) / 2)]),
        row(["public key", &figures::bytes(public_key_bytes(set))]),
        row(["evaluation key", &figures::bytes(key_bytes(set))]),
        row(["memory to make keys", &figures::bytes(KeyFolder::memory(set, &[top_key(set)]))]),
    ]);
    text + &figures::table(&rows)
}

fn show_levels(set: &ParameterSet) -> String {
    let mut rows = vec![row(["level", "limbs", "log Q", "scale", "ciphertext"])];
    for level in set.levels().rev() {
        rows.push(row([
            &level.to_string(),
            &set.basis(level).len().to_string(),
            &format!("{:.1}", set.log_q(level)),
            &format!("2^{:.3}", set.scale(level).log2()),
            &figures::bytes(ciphertext_bytes(set, level)),
        ]));
    }
    figures::table(&rows)
}

/// Bytes of keys, encoded weights and working memory of a device.
fn memory(costs: &Measurement) -> u64 {
    costs.key_bytes + costs.plaintext_bytes + costs.pool_bytes
}

/// What a program asks of the machines of client and server.
struct Demand {
    program: Program,
    /// Of the device that needs most memory.
    costs: Measurement,
}

impl Demand {
    fn new(program: Program) -> Result<Demand> {
        let devices = program.artifact.devices();
        let costs = devices.map(|device| measure_within(&program.artifact, device, u64::MAX));
        let costs = costs.collect::<Result<Vec<_>, _>>()?;
        let costs = costs.into_iter().max_by_key(memory).context("the program is for no device")?;
        Ok(Demand { program, costs })
    }

    /// Of the program that is one bootstrap of as many complex slots as there are.
    fn of_bootstrap(set: &ParameterSet) -> Result<Demand> {
        let source = bootstrap::program(set, BootstrapKind::Complex, set.log_n() - 1);
        let compile = || compile(&source, &CompileOptions::default(), &mut Trace::default());
        Demand::new(Program::new(Progress::new().work("compiling a bootstrap", compile)?)?)
    }

    fn to_json(&self) -> Value {
        let Demand { program, costs } = self;
        json!({
            "name": program.artifact.name,
            "evaluation_keys": program.artifact.keys.len(),
            "key_bytes": program.key_bytes(),
            "devices": program.artifact.programs.len(),
            "key_memory_bytes": costs.key_bytes,
            "keygen_memory_bytes": program.keygen_memory(),
            "encoded_weight_bytes": costs.plaintext_bytes,
            "pool_bytes": costs.pool_bytes,
            "memory_bytes": memory(costs),
        })
    }

    fn to_text(&self) -> String {
        let Demand { program, costs } = self;
        let run = match program.artifact.programs.len() {
            1 => "memory to run it".to_string(),
            devices => format!("memory to run it, of each of {devices} devices"),
        };
        figures::table(&[
            row(["evaluation keys", &program.artifact.keys.len().to_string()]),
            row(["  as files", &figures::bytes(program.key_bytes())]),
            row(["  memory to make them", &figures::bytes(program.keygen_memory())]),
            row([&run, &figures::bytes(memory(costs))]),
            row(["  keys", &figures::bytes(costs.key_bytes)]),
            row(["  weights, encoded", &figures::bytes(costs.plaintext_bytes)]),
            row(["  working memory", &figures::bytes(costs.pool_bytes)]),
        ])
    }
}
