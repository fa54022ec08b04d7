//! Cerium: neural networks on encrypted data.
//!
//! One name for the crates of the workspace, for programs that use it as a library:
//!
//! | module | what |
//! |---|---|
//! | [`models`] | model files to programs |
//! | [`compiler`] | the DSL, and programs to artifacts |
//! | [`artifact`] | the compiled program |
//! | [`client`] | keys, encryption, decryption |
//! | [`runtime`] | artifact, evaluation keys and ciphertexts to ciphertexts |
//! | [`ckks`] | the public half of the scheme |
//!
//! The binary `cerium` is the same as a command line.

pub use cerium_artifact as artifact;
pub use cerium_ckks as ckks;
pub use cerium_client as client;
pub use cerium_compiler as compiler;
pub use cerium_models as models;
pub use cerium_runtime as runtime;
