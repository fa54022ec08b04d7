//! CUDA C++ from kernels.
//!
//! [`Emitter::emit`] turns one kernel of an artifact into [`Launch`]es of functions whose text it keeps: kernels of one shape
//! share a [`Source`]. What a source takes and what a launch means stands in [`abi`]. One file below for each class of
//! kernels; [`program`] writes the word-by-word programs that all classes share. The text of what every kernel needs
//! (arithmetic, loads) is in `device/words.cuh`.

pub mod abi;
pub mod encode;
pub mod program;

mod base_convert;
mod elementwise;
mod part;
mod sum;
mod transform;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use cerium_artifact::kernel::Body;
use cerium_artifact::{Function, Kernel};
use cerium_ckks::params::Params;

pub use abi::{Launch, Pointer, Source, SourceId};
pub use sum::{SUM_THREADS, sum_source};
pub use transform::tables;

/// Turns kernels into launches and collects the text that they need.
pub struct Emitter<'a> {
    params: &'a Params,
    sources: Vec<Source>,
    known: HashMap<String, SourceId>,
}

impl<'a> Emitter<'a> {
    /// An emitter for programs under `params`, without sources.
    pub fn new(params: &'a Params) -> Emitter<'a> {
        Emitter { params, sources: Vec::new(), known: HashMap::new() }
    }

    /// The launches that do what `kernel` of the validated `function` does, in order: each begins when the one before it
    /// is done. Their sources are added to [`sources`](Self::sources).
    pub fn emit(&mut self, function: &Function, kernel: &Kernel) -> Vec<Launch> {
        match &kernel.body {
            Body::Elementwise { program, blocks } => elementwise::emit(self, function, program, blocks),
            Body::Ntt(transform) => transform::forward(self, function, transform),
            Body::Intt(transform) => transform::inverse(self, function, transform),
            Body::BaseConvert { epilogue, blocks } => base_convert::emit(self, function, epilogue, blocks),
        }
    }

    /// The parameters.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// All sources so far; [`SourceId`] indexes this list.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The source with this text, added if it is new; see [`Source::new`].
    pub fn intern(&mut self, class: &str, body: &str) -> SourceId {
        let source = Source::new(class, body);
        *self.known.entry(source.entry.clone()).or_insert_with(|| {
            self.sources.push(source);
            SourceId(self.sources.len() as u32 - 1)
        })
    }
}
