//! The artifact's file format and validation, tried on a small artifact made by hand.

mod devices;
mod file;
mod sample;
mod validation;
