//! Checks of a description, from its primes up to the scales that follow from them.

use super::{Bootstrap, MAX_DIGIT, ParamsError, ParamsSpec};
use crate::basis::{Basis, Scale};
use crate::modulus::Modulus;

pub(super) fn check_primes(spec: &ParamsSpec) -> Result<Vec<Modulus>, ParamsError> {
    let mut moduli: Vec<Modulus> = Vec::new();
    for (index, &prime) in spec.q.iter().chain(&spec.p).enumerate() {
        let modulus = Modulus::new(prime).map_err(|source| ParamsError::Modulus { index, source })?;
        if prime % (2 << spec.log_n) != 1 {
            return Err(ParamsError::NotNttPrime { index, prime });
        }
        if moduli.iter().any(|m| m.value() == prime) {
            return Err(ParamsError::RepeatedPrime { prime });
        }
        moduli.push(modulus);
    }
    Ok(moduli)
}

pub(super) fn check_levels(spec: &ParamsSpec, moduli: &[Modulus]) -> Result<Vec<Basis>, ParamsError> {
    let Some(&top) = spec.levels.last() else {
        return Err(ParamsError::Malformed("there is no level"));
    };
    if spec.levels.len() > 128 {
        return Err(ParamsError::Malformed("there are more than 128 levels"));
    }
    if (top.start, usize::from(top.end)) != (0, spec.q.len()) {
        return Err(ParamsError::Malformed("the top level must be all of Q"));
    }
    let mut levels: Vec<Basis> = Vec::new();
    for (level, window) in spec.levels.iter().enumerate() {
        let fail = |reason| Err(ParamsError::Level { level: level as u8, reason });
        if window.start >= window.end || usize::from(window.end) > spec.q.len() {
            return fail("its window is empty or reaches beyond Q");
        }
        let basis = Basis::range(window.start.into(), window.end.into());
        if levels
            .last()
            .is_some_and(|below| basis.minus(*below).len() > MAX_DIGIT || ratio(moduli, basis, *below) <= 1.0)
        {
            return fail("its modulus must exceed that of the level below, by at most 16 primes");
        }
        levels.push(basis);
    }
    Ok(levels)
}

pub(super) fn check_scales(
    spec: &ParamsSpec,
    moduli: &[Modulus],
    levels: &[Basis],
    bootstrap: Option<Bootstrap>,
) -> Result<Vec<Scale>, ParamsError> {
    let base = f64::from(1 << spec.log_scale.min(30)) * f64::from(1 << spec.log_scale.saturating_sub(30));
    if product(moduli, levels[0]) <= base {
        return Err(ParamsError::Level { level: 0, reason: "its modulus leaves no room above the scale" });
    }
    let output = bootstrap.map_or(usize::MAX, |b| usize::from(b.output.0));
    let mut scales = vec![Scale(base)];
    for (level, pair) in levels.windows(2).enumerate() {
        let gain = bootstrap.filter(|_| level == output).map_or(1.0, |b| b.gain);
        // Additions, divisions and roots of IEEE numbers in a fixed order: the same on every machine.
        let scale = (scales[level].0 * gain * ratio(moduli, pair[1], pair[0])).sqrt();
        let miss = scale.log2() - f64::from(spec.log_scale);
        let most = match level {
            // Bootstrapping has levels of its own lengths; its scales stay those of single words.
            _ if level >= output => 32.0,
            _ if level + 2 == levels.len() => 12.0,
            _ => 1.0,
        };
        if !(-1.0..=most).contains(&miss) {
            let reason = "its primes miss the scale by more than a bit";
            return Err(ParamsError::Level { level: level as u8 + 1, reason });
        }
        scales.push(Scale(scale));
    }
    Ok(scales)
}

/// Product of a basis divided by that of another, from the primes in which they differ.
fn ratio(moduli: &[Modulus], numerator: Basis, denominator: Basis) -> f64 {
    product(moduli, numerator.minus(denominator)) / product(moduli, denominator.minus(numerator))
}

fn product(moduli: &[Modulus], basis: Basis) -> f64 {
    basis.iter().map(|p| f64::from(moduli[p.index()].value())).product()
}
