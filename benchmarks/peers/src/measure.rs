//! Repeated timing, with the contestants taking turns.

use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The times of one contestant, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Who was measured.
    pub name: String,
    /// Median over all repetitions.
    pub median_us: f64,
    /// The fastest repetition.
    pub fastest_us: f64,
    /// First and last decile: the spread.
    pub deciles_us: [f64; 2],
}

impl Times {
    /// Sorts `samples`, which are in seconds and not empty.
    pub fn new(name: &str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize] * 1e6;
        Self { name: name.into(), median_us: at(0.5), fastest_us: at(0.0), deciles_us: [at(0.1), at(0.9)] }
    }
}

/// Runs the contestants in turn, `warm_up` times unmeasured and `repetitions` times measured, so that whatever
/// disturbs the machine disturbs all of them.
pub fn interleaved(
    warm_up: usize,
    repetitions: usize,
    contestants: &mut [(&str, &mut dyn FnMut())],
) -> Vec<Times> {
    let mut samples = vec![Vec::with_capacity(repetitions); contestants.len()];
    for round in 0..warm_up + repetitions {
        for ((_, run), samples) in contestants.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            run();
            let seconds = start.elapsed().as_secs_f64();
            if round >= warm_up {
                samples.push(seconds);
            }
        }
    }
    contestants.iter().zip(samples).map(|((name, _), samples)| Times::new(name, samples)).collect()
}
