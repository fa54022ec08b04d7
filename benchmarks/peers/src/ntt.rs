//! The forward NTT of 2^16 words modulo a 30-bit prime, beside the crate `tfhe-ntt`.

use crate::measure::interleaved;
use crate::record::Comparison;
use anyhow::{Context, Result, ensure};
use cerium_ckks::isa::Isa;
use cerium_ckks::ntt::NttTable;
use cerium_ckks::primes::ntt_primes_below;
use serde_json::json;

const LOG_N: u32 = 16;
const WARM_UP: usize = 50;
const REPETITIONS: usize = 1000;

/// Both transforms in place, over and over on their own output, whose words are as good as random.
pub fn compare() -> Result<Comparison> {
    let n = 1usize << LOG_N;
    let q = ntt_primes_below(LOG_N, 1 << 30).next().context("there are 30-bit primes for this degree")?;
    let isa = Isa::detect();
    let table = NttTable::new(q, LOG_N)?;
    let plan =
        tfhe_ntt::prime32::Plan::try_new(n, q.value()).context("tfhe-ntt has no plan for this prime")?;

    let start: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % q.value()).collect();
    let (mut ours, mut theirs) = (start.clone(), start.clone());
    let (ours, theirs) = (aligned(&mut ours, &start), aligned(&mut theirs, &start));
    // The two use different roots of unity, so their outputs cannot be compared word by word; that both are
    // transforms modulo the same prime can: each must come back from its inverse.
    table.forward(isa, ours);
    table.inverse(isa, ours);
    plan.fwd(theirs);
    plan.inv(theirs);
    plan.normalize(theirs);
    ensure!(*ours == start[..] && *theirs == start[..], "a transform does not come back from its inverse");

    let mut forward = || table.forward(isa, ours);
    let mut forward_tfhe = || plan.fwd(theirs);
    let times = interleaved(
        WARM_UP,
        REPETITIONS,
        &mut [(&format!("cerium ({isa})"), &mut forward), ("tfhe-ntt 0.7 prime32", &mut forward_tfhe)],
    );
    Ok(Comparison {
        work: "forward NTT".into(),
        parameters: json!({ "n": n, "prime": q.value() }),
        warm_up: WARM_UP,
        repetitions: REPETITIONS,
        times,
        skipped: vec![],
    })
}

/// A copy of `words` at a cache line's boundary in `buffer`, as the limbs of a program are.
fn aligned<'a>(buffer: &'a mut Vec<u32>, words: &[u32]) -> &'a mut [u32] {
    buffer.resize(words.len() + 16, 0);
    let offset = buffer.as_ptr().align_offset(64).min(16);
    let copy = &mut buffer[offset..offset + words.len()];
    copy.copy_from_slice(words);
    copy
}
