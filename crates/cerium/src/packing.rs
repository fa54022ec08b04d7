//! Between tensors and slots, as the ports of an artifact say.

use anyhow::{Result, bail};
use cerium_artifact::{Artifact, NO_ELEMENT, Port};
use num_complex::Complex64;

/// A decryption whose slots are this many times farther from what they should be than predicted is none.
const ALIEN: f64 = 1e4;

/// The slots of each ciphertext of a batch of inputs: one period, `factor * elements[gather[i]]`. Where there are fewer inputs
/// than the program takes at once, they are repeated in turn: what else lies beside them must not leave the range of any
/// polynomial, or it would drown them.
///
/// # Errors
/// More inputs than the program takes, another number of values than the shape has, and values that are not finite.
///
/// # Panics
/// If there are no inputs.
pub(crate) fn pack(artifact: &Artifact, port: &Port, inputs: &[&[f32]]) -> Result<Vec<Vec<f64>>> {
    if inputs.len() > port.batch as usize {
        bail!(
            "there are {} inputs, but program `{}` takes {} at a time; encrypt the others by themselves, or compile the \
             model with a larger `--batch`",
            inputs.len(),
            artifact.name,
            port.batch
        );
    }
    let wanted = port.elements();
    for (index, values) in inputs.iter().enumerate() {
        let input = if inputs.len() == 1 { "the input".into() } else { format!("input {index}") };
        if values.len() != wanted {
            bail!(
                "{input} has {} values, but `{}` of program `{}` has shape {:?}, which is {wanted} values",
                values.len(),
                port.name,
                artifact.name,
                port.shape
            );
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            bail!("value {index} of {input} is {}; inputs must be finite numbers", values[index]);
        }
    }
    let slots = port.ciphertexts.iter().map(|packed| {
        let gather = &artifact.gathers[packed.gather.0 as usize];
        let slot = |&element: &u32| match element as usize {
            _ if element == NO_ELEMENT => 0.0,
            element => {
                let values = inputs[element / wanted % inputs.len()];
                packed.factor * f64::from(values[element % wanted])
            }
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

/// The tensors of an output, one for each of the batch, from the slots of its ciphertexts; `noise` is the deviation of what was added to the slots
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
) -> Result<Vec<Vec<f64>>> {
    let elements = port.elements();
    let mut values = vec![0.0; elements * port.batch as usize];
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
    Ok(values.chunks_exact(elements).map(<[f64]>::to_vec).collect())
}

/// Index of the largest value.
pub(crate) fn largest(values: &[f64]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
}
