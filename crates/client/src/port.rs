//! Between tensors and slots, as the ports of an artifact say.

use cerium_artifact::{Artifact, NO_ELEMENT, Port};
use num_complex::Complex64;

/// A decryption whose slots are this many times farther from what they should be than predicted is none.
const ALIEN: f64 = 1e4;

/// Why tensors and the ciphertexts of a port do not fit.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum PortError {
    /// More inputs than the program takes.
    #[error(
        "there are {given} inputs, but program `{program}` takes {batch} at a time; encrypt the others by themselves, or \
         compile the model with a larger `--batch`"
    )]
    Batch {
        /// Inputs given.
        given: usize,
        /// Inputs that the program takes.
        batch: u32,
        /// Name of the program.
        program: String,
    },
    /// Another number of values than the shape has.
    #[error(
        "{input} has {given} values, but `{port}` of program `{program}` has shape {shape:?}, which is {wanted} values"
    )]
    Count {
        /// Which input.
        input: String,
        /// Values given.
        given: usize,
        /// Values that the shape has.
        wanted: usize,
        /// Name of the port.
        port: String,
        /// Its shape.
        shape: Vec<u32>,
        /// Name of the program.
        program: String,
    },
    /// NaN or infinity.
    #[error("value {index} of {input} is {value}; inputs must be finite numbers")]
    NotFinite {
        /// Which input.
        input: String,
        /// Position of the value.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// Slots that cannot be a result.
    #[error(
        "`{port}` does not decrypt to a result: the secret key is not the one that belongs to the input and to the \
         evaluation keys; decrypt with the folder of keys that `cerium encrypt` and `cerium run` were given"
    )]
    Alien {
        /// Name of the port.
        port: String,
    },
}

/// The slots of each ciphertext of a batch of inputs: one period, `factor * elements[gather[i]]`. Where there are fewer inputs
/// than the program takes at once, they are repeated in turn: what else lies beside them must not leave the range of any
/// polynomial, or it would drown them.
///
/// # Errors
/// More inputs than the program takes, another number of values than the shape has, and values that are not finite.
///
/// # Panics
/// If there are no inputs.
pub fn pack(artifact: &Artifact, port: &Port, inputs: &[&[f32]]) -> Result<Vec<Vec<f64>>, PortError> {
    let program = || artifact.name.clone();
    if inputs.len() > port.batch as usize {
        return Err(PortError::Batch { given: inputs.len(), batch: port.batch, program: program() });
    }
    let wanted = port.elements();
    for (index, values) in inputs.iter().enumerate() {
        let input = || if inputs.len() == 1 { "the input".into() } else { format!("input {index}") };
        if values.len() != wanted {
            return Err(PortError::Count {
                input: input(),
                given: values.len(),
                wanted,
                port: port.name.clone(),
                shape: port.shape.clone(),
                program: program(),
            });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(PortError::NotFinite { input: input(), index, value: values[index] });
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
pub fn excess(slots: &[Vec<f64>]) -> f64 {
    slots.iter().flatten().fold(0.0, |most, slot| slot.abs().max(most))
}

/// The tensors of an output, one for each of the batch, from the slots of its ciphertexts; `noise` is the deviation of what
/// was added to the slots on purpose.
///
/// # Errors
/// Slots that cannot be a result: results are real, so what their imaginary parts hold is error, and the size of that
/// is predicted. Under another secret key than the one of the input everything is error.
pub fn unpack(
    artifact: &Artifact,
    port: &Port,
    slots: &[Vec<Complex64>],
    noise: f64,
) -> Result<Vec<Vec<f64>>, PortError> {
    let elements = port.elements();
    let mut values = vec![0.0; elements * port.batch as usize];
    for (packed, slots) in port.ciphertexts.iter().zip(slots) {
        let stray = (slots.iter().map(|slot| slot.im * slot.im).sum::<f64>() / slots.len() as f64).sqrt();
        let expected = packed.error.max(1e-12) / packed.factor.abs() + noise;
        if stray.is_nan() || stray > ALIEN * expected {
            return Err(PortError::Alien { port: port.name.clone() });
        }
        for (&element, slot) in artifact.gathers[packed.gather.0 as usize].iter().zip(slots) {
            if element != NO_ELEMENT {
                values[element as usize] = packed.factor * slot.re;
            }
        }
    }
    Ok(values.chunks_exact(elements).map(<[f64]>::to_vec).collect())
}
