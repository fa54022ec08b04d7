//! Between tensors and slots, as the ports of an artifact say.

use anyhow::{Result, bail};
use cerium_artifact::{Artifact, NO_ELEMENT, Port};
use num_complex::Complex64;

/// A decryption whose slots are this many times farther from what they should be than predicted is none.
const ALIEN: f64 = 1e4;

/// The slots of each ciphertext of an input: one period, `factor * values[gather[i]]`.
///
/// # Errors
/// Another number of values than the shape has, and values that are not finite.
pub(crate) fn pack(artifact: &Artifact, port: &Port, values: &[f32]) -> Result<Vec<Vec<f64>>> {
    let wanted: u64 = port.shape.iter().map(|&extent| u64::from(extent)).product();
    if values.len() as u64 != wanted {
        bail!(
            "the input has {} values, but `{}` of program `{}` has shape {:?}, which is {wanted} values",
            values.len(),
            port.name,
            artifact.name,
            port.shape
        );
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        bail!("value {index} of the input is {}; inputs must be finite numbers", values[index]);
    }
    let slots = port.ciphertexts.iter().map(|packed| {
        let gather = &artifact.gathers[packed.gather.0 as usize];
        let slot = |&element: &u32| match element {
            NO_ELEMENT => 0.0,
            element => packed.factor * f64::from(values[element as usize]),
        };
        gather.iter().map(slot).collect()
    });
    Ok(slots.collect())
}

/// How far a packed input leaves the range that the program was calibrated for, in units of that range; at most 1
/// is within.
pub(crate) fn excess(slots: &[Vec<f64>]) -> f64 {
    slots.iter().flatten().fold(0.0, |most, slot| slot.abs().max(most))
}

/// The tensor of an output, from the slots of its ciphertexts; `noise` is the deviation of what was added to the slots
/// on purpose.
///
/// # Errors
/// Slots that cannot be a result: results are real, so what their imaginary parts hold is error, and the size of that
/// is predicted. Under another secret key than the one of the input everything is error.
pub(crate) fn unpack(
    artifact: &Artifact,
    port: &Port,
    slots: &[Vec<Complex64>],
    noise: f64,
) -> Result<Vec<f64>> {
    let elements: usize = port.shape.iter().map(|&extent| extent as usize).product();
    let mut values = vec![0.0; elements];
    for (packed, slots) in port.ciphertexts.iter().zip(slots) {
        let stray = (slots.iter().map(|slot| slot.im * slot.im).sum::<f64>() / slots.len() as f64).sqrt();
        let expected = packed.error.max(1e-12) / packed.factor.abs() + noise;
        if stray.is_nan() || stray > ALIEN * expected {
            bail!(
                "`{}` does not decrypt to a result: the secret key is not the one that belongs to the input and to the \
                 evaluation keys; decrypt with the folder of keys that `cerium encrypt` and `cerium run` were given",
                port.name
            );
        }
        for (&element, slot) in artifact.gathers[packed.gather.0 as usize].iter().zip(slots) {
            if element != NO_ELEMENT {
                values[element as usize] = packed.factor * slot.re;
            }
        }
    }
    Ok(values)
}

/// Index of the largest value.
pub(crate) fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}
