//! Collectives: random scripts against what they must do, and every way in which ranks fail.

mod script;
mod threads;
