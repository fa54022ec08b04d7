//! The secret half of the scheme: keys, encryption, decryption, the folder of keys, and the way between tensors and the
//! slots of a program's ports.
//!
//! This is the only crate that knows a secret key. Secrets come from the randomness of the operating system,
//! are wiped from memory when dropped, and are never printed. Sampling the error and the secret does not
//! branch on what it samples, apart from the shuffle of the secret's positions, which is for the machine of
//! its owner.

mod decrypt;
mod encrypt;
mod error;
mod key_folder;
mod keygen;
mod port;
mod random;
mod sampling;
mod secret_key;

pub use decrypt::{decrypt, decrypt_for_sharing};
pub use encrypt::{encrypt_with_public_key, encrypt_with_secret_key};
pub use error::ClientError;
pub use key_folder::{KeyFolder, KeyProgress};
pub use keygen::{evaluation_key, public_key};
pub use port::{PortError, excess, pack, unpack};
pub use sampling::{ERROR_BOUND, ERROR_DEVIATION};
pub use secret_key::SecretKey;

#[cfg(test)]
mod tests;
