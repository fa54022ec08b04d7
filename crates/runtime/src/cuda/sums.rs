//! Sums of parts that other GPUs gave, and memory that takes such parts.

use cerium_emit::cuda::{SUM_THREADS, sum_source};

use super::error::Purpose;
use super::gpu::{Argument, Call, FunctionIndex, GpuAddress};
use super::{CudaDevice, CudaError};

/// What there is for sums, since the device was prepared.
#[derive(Debug, Default)]
pub(super) struct Sums {
    function: Option<FunctionIndex>,
    /// Memory that nobody uses, and its bytes.
    free: Vec<(GpuAddress, u64)>,
}

/// Parts of sums in the memory of a GPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// The first.
    pub(crate) start: GpuAddress,
    /// How many.
    pub(crate) count: u32,
    /// Words from one to the next.
    pub(crate) stride: u32,
}

impl CudaDevice {
    /// Adds canonical parts of `words` words to sums in `[0, 4q)`, which become canonical modulo `q`: a launch on the second
    /// stream.
    pub(crate) fn add_parts(
        &mut self,
        sums: GpuAddress,
        parts: Parts,
        words: u32,
        q: u32,
    ) -> Result<(), CudaError> {
        let function = self.sum_function()?;
        let numbers = [words, parts.count, parts.stride, q].map(Argument::Word);
        let addresses = [sums, parts.start].map(Argument::Address);
        self.gpu().call_branch(&Call {
            function,
            grid: [words.div_ceil(SUM_THREADS), 1],
            block: SUM_THREADS,
            shared_bytes: 0,
            arguments: addresses.into_iter().chain(numbers).collect(),
        })
    }

    /// The function that adds parts. Loading it may wait for the GPU: it is asked for before there is something to wait for.
    pub(crate) fn sum_function(&mut self) -> Result<FunctionIndex, CudaError> {
        if let Some(function) = self.sums.function {
            return Ok(function);
        }
        let function = self.gpu().load(&[(sum_source(), 0)])?[0];
        self.sums.function = Some(function);
        Ok(function)
    }

    /// Memory for parts, until it is given back.
    pub(crate) fn lend(&mut self, bytes: u64) -> Result<(GpuAddress, u64), CudaError> {
        match self.sums.free.iter().position(|&(_, free)| free >= bytes) {
            Some(fitting) => Ok(self.sums.free.swap_remove(fitting)),
            None => Ok((self.allocate(Purpose::Scratch, bytes)?, bytes)),
        }
    }

    /// Takes lent memory back, when everything that uses it is done.
    pub(crate) fn give_back(&mut self, memory: (GpuAddress, u64)) {
        self.sums.free.push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Arch;
    use crate::cuda::nvrtc::Nvrtc;

    #[test]
    fn the_kernel_compiles_without_spills() {
        let nvrtc = match Nvrtc::load(None) {
            Ok(nvrtc) => nvrtc,
            Err(error) => {
                println!("skipped: {error}");
                return;
            }
        };
        let source = sum_source();
        for arch in [Arch::SM_80, Arch::SM_90, Arch::SM_100] {
            let compiled = nvrtc.compile(&source.entry, &source.text, arch).unwrap();
            let [resources] = &compiled.resources[..] else { panic!("there is one kernel") };
            println!("{arch}: {resources:?}");
            assert_eq!((resources.spill_store_bytes, resources.stack_bytes), (0, 0));
        }
    }
}
