//! What the device asks of a GPU: memory, copies, launches. The driver stands behind it ([`super::driver`]); in tests it is
//! the host, which runs the same text.
//!
//! Everything happens in the order of the calls, as on one stream.

use cerium_emit::cuda::Source;

use super::CudaError;

/// Address in the memory of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuAddress(pub u64);

impl GpuAddress {
    /// The address so many bytes further.
    pub fn offset(self, bytes: u64) -> GpuAddress {
        GpuAddress(self.0 + bytes)
    }
}

/// A function that was loaded: as many were before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionIndex(pub usize);

/// Launches that were recorded: as many were before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphIndex(pub usize);

/// The second stream of a GPU, as its driver's `CUstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHandle(pub usize);

/// A mark on the second stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchMark(pub usize);

/// One launch of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is launched.
    pub function: FunctionIndex,
    /// Blocks of threads in x and y.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Its arguments, in order.
    pub arguments: Vec<Argument>,
}

/// An argument of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A pointer.
    Address(GpuAddress),
    /// `u32`
    Word(u32),
}

/// A GPU with everything in one order, but for what other libraries put on its second stream.
pub trait Gpu: Send {
    /// Name for reports, for example `NVIDIA H200`.
    fn name(&self) -> String;

    /// What tells it from all other GPUs; `None` if it is none.
    fn uuid(&self) -> Option<[u8; 16]> {
        None
    }

    /// Bytes of its memory that are free, and all of them.
    fn memory(&mut self) -> Result<(u64, u64), CudaError>;

    /// Allocates memory, aligned to 256 bytes; `None` if it is not there. Contents are undefined.
    fn allocate(&mut self, bytes: u64) -> Result<Option<GpuAddress>, CudaError>;

    /// Waits, and gives everything back: memory, functions and recorded launches.
    fn reset(&mut self) -> Result<(), CudaError>;

    /// Copies into its memory. The caller may change `bytes` at once.
    fn write(&mut self, to: GpuAddress, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies out of its memory, and waits for it.
    fn read(&mut self, from: GpuAddress, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Copies within its memory.
    fn copy(&mut self, to: GpuAddress, from: GpuAddress, bytes: u64) -> Result<(), CudaError>;

    /// Makes the functions of sources ready, side by side where it can. `shared_bytes` is the most dynamic shared memory
    /// that a launch of each will ask for.
    fn load(&mut self, sources: &[(Source, u32)]) -> Result<Vec<FunctionIndex>, CudaError>;

    /// Launches a function.
    fn call(&mut self, call: &Call) -> Result<(), CudaError>;

    /// Records launches that will be launched together, in this order.
    fn record(&mut self, calls: &[Call]) -> Result<GraphIndex, CudaError>;

    /// Launches what was recorded.
    fn replay(&mut self, graph: GraphIndex) -> Result<(), CudaError>;

    /// Takes the time when all that was launched so far is done. The number of the mark counts from the last
    /// [`elapsed`](Self::elapsed).
    fn mark(&mut self) -> Result<usize, CudaError>;

    /// Waits for everything launched; returns the seconds from each mark to the next, and forgets them.
    fn elapsed(&mut self) -> Result<Vec<f64>, CudaError>;

    /// Waits for everything launched.
    fn synchronise(&mut self) -> Result<(), CudaError>;

    /// A second stream, for a library that works beside what is launched here. What is put on it from now on comes after
    /// everything launched so far. The GPU is current to this thread. Where every call returns when it is done there is no such
    /// stream, and a library that stands in for one on a GPU does the same.
    fn branch(&mut self) -> Result<StreamHandle, CudaError> {
        Ok(StreamHandle(0))
    }

    /// Launches a function on the second stream.
    fn call_branch(&mut self, call: &Call) -> Result<(), CudaError> {
        self.call(call)
    }

    /// Marks the end of what is on the second stream.
    fn mark_branch(&mut self) -> Result<BranchMark, CudaError> {
        Ok(BranchMark(0))
    }

    /// Is everything before the mark done, so that what is launched now finds it done? The mark is forgotten then.
    fn is_passed(&mut self, _: BranchMark) -> Result<bool, CudaError> {
        Ok(true)
    }
}
