//! The public half of the CKKS scheme in residue number system form: parameters, arithmetic, encoding,
//! ciphertexts, evaluation keys and their bytes. No secrets, no input or output, no devices.

pub mod basis;
pub mod params;

pub mod isa;
pub mod lanes;
pub mod modulus;
pub mod primes;

pub mod automorphism;
pub mod ntt;

pub mod rns;

pub mod encoding;

pub mod ciphertext;
pub mod evaluation_key;
pub mod uniform;
pub mod wire;

#[cfg(test)]
mod testing;
