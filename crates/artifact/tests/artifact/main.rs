//! The artifact's file format and validation, tried on a small artifact made by hand.

mod file;
mod sample;
mod validation;
