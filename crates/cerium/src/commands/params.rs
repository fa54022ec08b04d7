//! `cerium params`: the parameter sets.

use anyhow::Result;
use cerium_ckks::basis::Level;
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params as ParameterSet, max_log_pq};
use serde_json::{Value, json};

use crate::figures::{self, row};

/// List the parameter sets, or show one: security, levels, sizes of keys and ciphertexts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cerium params leveled-14")]
pub(crate) struct Params {
    /// A set; without one, all are listed.
    name: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Params {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(name) = &self.name {
            let set = ParameterSet::named_insecure(name)?;
            let mut object = summary(&set);
            object["level_table"] = set.levels().map(|level| level_summary(&set, level)).collect();
            return if self.json { figures::print_json(&object) } else { figures::print(&show(&set)) };
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
                &set.max_level().0.to_string(),
                &format!("2^{:.0}", set.scale(Level(0)).log2()),
                &figures::bytes(ciphertext_bytes(set, set.max_level())),
                &figures::bytes(key_bytes(set)),
            ]));
        }
        let note = "\n  Sizes at the top level; a fresh ciphertext and a key are stored with a seed for their uniform half.\n";
        figures::print(&(figures::table(&rows) + note))
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
    4 * KeyRequest { kind: KeyKind::Relinearization, level: set.max_level() }.words(set) as u64
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
        "levels": set.max_level().0,
        "log_scale": set.scale(Level(0)).log2(),
        "primes_q": set.q_basis().len(),
        "primes_p": set.p_basis().len(),
        "digits": set.digits().len(),
        "ciphertext_bytes": ciphertext_bytes(set, set.max_level()),
        "seeded_ciphertext_bytes": ciphertext_bytes(set, set.max_level()) / 2,
        "public_key_bytes": public_key_bytes(set),
        "evaluation_key_bytes": key_bytes(set),
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
    let mut text = format!("{} ({})\n", set.name(), set.digest());
    text += &figures::table(&[
        row(["security", security(set)]),
        row(["ring degree N", &format!("2^{}", set.log_n())]),
        row(["slots", &set.slots().to_string()]),
        row(["log PQ", &format!("{:.1}", set.log_pq())]),
        row(["largest log PQ for 128 bits", &bound]),
        row(["log Q, primes", &format!("{:.1}, {}", set.log_q(top), set.q_basis().len())]),
        row(["log P, primes", &format!("{:.1}, {}", set.log_p(), set.p_basis().len())]),
        row(["key-switching digits", &set.digits().len().to_string()]),
        row(["levels", &top.0.to_string()]),
        row(["ciphertext", &figures::bytes(ciphertext_bytes(set, top))]),
        row(["fresh ciphertext, seeded", &figures::bytes(ciphertext_bytes(set, top) / 2)]),
        row(["public key", &figures::bytes(public_key_bytes(set))]),
        row(["evaluation key", &figures::bytes(key_bytes(set))]),
    ]);
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
    text + "\n" + &figures::table(&rows)
}
