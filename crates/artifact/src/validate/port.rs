//! Inputs and outputs: consistent with their tables and with the entry's signature.

use std::collections::HashSet;

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;

use super::{check_level, check_period};
use crate::error::{ensure, inconsistent};
use crate::{Artifact, ArtifactError, NO_ELEMENT, Port};

/// Polynomials of a ciphertext at a port.
const POLYNOMIALS: usize = 2;

pub(super) fn check(artifact: &Artifact, params: &Params) -> Result<(), ArtifactError> {
    for (side, ports) in [("input", &artifact.inputs), ("output", &artifact.outputs)] {
        ensure(!ports.is_empty(), || format!("{side}s"), || "there are none")?;
        let mut names = HashSet::new();
        for port in ports {
            let place = || format!("{side} `{}`", port.name);
            ensure(names.insert(&port.name), place, || "there is another one of this name")?;
            check_port(artifact, params, port, side == "output", place)?;
        }
    }
    for device in artifact.devices() {
        let entry = artifact.entry(device).ok_or_else(|| inconsistent("functions", "there are none"))?;
        ensure(
            entry.weight_params == 0,
            || format!("entry `{}`", entry.name),
            || "it has unbound weight parameters",
        )?;
        for (side, ports, limbs) in
            [("input", &artifact.inputs, &entry.args), ("output", &artifact.outputs, &entry.results)]
        {
            let expected = port_limbs(ports, params).filter(|&prime| artifact.home(prime) == device);
            let expected: Vec<PrimeIndex> = expected.collect();
            ensure(
                expected == *limbs,
                || format!("{side}s"),
                || {
                    let (ports, entry) = (expected.len(), limbs.len());
                    format!("their ciphertexts have {ports} limbs, which are not the entry's {entry}")
                },
            )?;
        }
    }
    Ok(())
}

/// The primes of all limbs of ports, in order; none of levels that the parameters do not have.
fn port_limbs<'a>(ports: &'a [Port], params: &'a Params) -> impl Iterator<Item = PrimeIndex> + 'a {
    let ciphertexts = ports.iter().flat_map(|port| &port.ciphertexts);
    let known = ciphertexts.filter(|ciphertext| ciphertext.level <= params.max_level());
    known.flat_map(|ciphertext| {
        let basis = params.basis(ciphertext.level);
        (0..POLYNOMIALS).flat_map(move |_| basis.iter())
    })
}

fn check_port(
    artifact: &Artifact,
    params: &Params,
    port: &Port,
    output: bool,
    place: impl Fn() -> String,
) -> Result<(), ArtifactError> {
    ensure(port.batch > 0, &place, || "it has no tensor")?;
    let extents = port.shape.iter().chain([&port.batch]);
    let elements = extents.copied().try_fold(1u32, u32::checked_mul);
    let elements = elements.filter(|&elements| elements != NO_ELEMENT).map(|elements| elements as usize);
    let elements = elements.ok_or_else(|| {
        inconsistent(place(), format!("its shape {:?}, {} times, is too large", port.shape, port.batch))
    })?;
    let mut entries = 0;
    for ciphertext in &port.ciphertexts {
        check_level(ciphertext.level, params, &place)?;
        let gather = artifact.gathers.get(ciphertext.gather.0 as usize);
        let gather =
            gather.ok_or_else(|| inconsistent(place(), "it reads a gather table that does not exist"))?;
        check_period(gather, params, &place)?;
        let bad = gather.iter().find(|&&entry| entry != NO_ELEMENT && entry as usize >= elements);
        ensure(bad.is_none(), &place, || {
            format!("entry {} is outside its {elements} elements", bad.unwrap_or(&0))
        })?;
        let scale = ciphertext.scale.0;
        ensure(scale.is_finite() && scale >= 1.0, &place, || {
            format!("scale {scale} is not a number from 1")
        })?;
        let factor = ciphertext.factor;
        ensure(factor.is_finite() && factor != 0.0, &place, || format!("factor {factor} is not usable"))?;
        let error = ciphertext.error;
        ensure(error.is_finite() && error >= 0.0, &place, || {
            format!("error {error} is not a finite number")
        })?;
        entries += gather.len();
    }
    if !output {
        return Ok(());
    }
    // The tables bound the size of the tensor before anyone allocates it.
    ensure(elements <= entries, &place, || format!("{elements} elements do not fit into {entries} slots"))?;
    let mut found = vec![false; elements];
    for ciphertext in &port.ciphertexts {
        let gather = &artifact.gathers[ciphertext.gather.0 as usize];
        gather.iter().filter(|&&entry| entry != NO_ELEMENT).for_each(|&entry| found[entry as usize] = true);
    }
    let missing = found.iter().position(|&found| !found);
    ensure(missing.is_none(), &place, || format!("element {} is in no slot", missing.unwrap_or_default()))
}
