//! A bootstrap of `poulpy-ckks`, on its AVX-512 IFMA backend, by one of its presets.
//!
//! Prints one JSON object. Arguments: the preset, the number of threads, and the number of measured repetitions (one
//! more, the first, is not measured). Built with the nightly compiler and for the processor at hand, as the crate asks.

use anyhow::{Context, Result, ensure};
use poulpy_ckks::layouts::EvalModRing;
use poulpy_ckks::presets::bootstrapping::{BootstrappingPreset, all};
use poulpy_ckks::test_suite::presets::{BootstrappingPresetRun, CIBackend, preset_for_backend};
use poulpy_core::layouts::LWEInfos;
use poulpy_cpu_avx512::{NTT3x42Ifma, NTT3x42IfmaRayon};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::time::Instant;

/// Measures `$preset` on a backend. The backends share no trait that a function could name in a line.
macro_rules! measure {
    ($backend:ty, $preset:expr, $repetitions:expr) => {{
        let preset = preset_for_backend::<$backend, CIBackend<$backend>>($preset)?;
        let start = Instant::now();
        let mut run = match preset.plan().eval_mod_ring() {
            EvalModRing::Standard => BootstrappingPresetRun::<$backend>::setup(preset.clone()),
            _ => BootstrappingPresetRun::<$backend>::setup_ci(preset.clone()),
        };
        let setup = (start.elapsed().as_secs_f64(), peak_rss_bytes());
        // From here on the peak is that of bootstraps; where that is refused it stays that of the preparation.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let mut samples = Vec::with_capacity($repetitions);
        for _ in 0..$repetitions {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            run.bootstrap();
            samples.push((start.elapsed().as_secs_f64(), cpu_seconds() - cpu));
        }
        let (re, im) = run.precision();
        // Errors of the real and of the imaginary parts count as two samples of one size.
        let mean_error = (0.5f64.powf(re.avg_log2_prec) + 0.5f64.powf(im.avg_log2_prec)) / 2.0;
        let precision = (-mean_error.log2(), re.min_log2_prec.min(im.min_log2_prec));
        (preset, setup, samples, precision)
    }};
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, threads, repetitions] = &arguments[..] else {
        anyhow::bail!("arguments: preset, threads, measured repetitions");
    };
    let (threads, repetitions): (usize, usize) = (threads.parse()?, repetitions.parse()?);
    ensure!(threads > 0 && repetitions > 0, "there must be at least one thread and one repetition");
    let preset = all()?.into_iter().find(|preset| preset.name() == name).context("no preset of this name")?;
    let (preset, setup, samples, precision) = match threads {
        1 => measure!(NTT3x42Ifma, &preset, repetitions),
        _ => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
            measure!(NTT3x42IfmaRayon, &preset, repetitions)
        }
    };
    println!("{}", report(&preset, threads, setup, &samples, precision));
    Ok(())
}

fn report(
    preset: &BootstrappingPreset,
    threads: usize,
    (setup, setup_peak): (f64, Option<u64>),
    samples: &[(f64, f64)],
    (mean, min): (f64, f64),
) -> Value {
    // Keys are the widest objects under the dense secret.
    let keys = preset.keys_layout();
    let rotations = keys.rotation_key_layouts().into_iter().map(|key| key.k());
    let raise = keys.first_factor_key.iter().map(|key| key.k());
    let log_pq = rotations.chain(raise).chain([keys.tensor_key.k()]).map(|k| k.as_usize()).max();
    let usable = preset.output_k() - preset.input_k();
    json!({
        "params": preset.name(),
        "n": preset.n(),
        "slots": preset.n() / 2,
        "threads": threads,
        "secret": format!(
            "ternary of weight {}, encapsulated in one of weight {}",
            preset.dense_secret_hamming_weight(),
            preset.sparse_secret_hamming_weight()
        ),
        "secret_weight": preset.dense_secret_hamming_weight(),
        "log_pq": log_pq,
        "levels_left": usable / preset.log_delta(),
        "log_scale": preset.log_delta(),
        "log_q_left": usable,
        "mean_precision_bits_of_parts": mean,
        "min_precision_bits_of_parts": min,
        "messages": "cos + i sin, one turn over the slots",
        "setup_s": setup,
        "setup_peak_rss_bytes": setup_peak,
        "samples_s": samples.iter().map(|(wall, _)| wall).collect::<Vec<_>>(),
        "samples_cpu_s": samples.iter().map(|(_, cpu)| cpu).collect::<Vec<_>>(),
        "peak_rss_bytes": peak_rss_bytes(),
    })
}

/// Processor time of all threads of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The largest memory that the process occupied, where the system tells.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
