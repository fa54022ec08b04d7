//! The host in place of a GPU: emitted text runs on this machine, so that it can be checked without a GPU.
//!
//! A C++ compiler of the machine makes shared objects of the emitted text and of `host/shim.hpp`, where the threads of a block
//! are fibers that switch at barriers. It is slow, and exact: [`CudaDevice::on`](super::CudaDevice::on) a [`HostGpu`] does all
//! that it does on a GPU.
//!
//! Errors of kernels are looked for: threads run in the [`Order`] that is asked for, fresh memory holds words that are no
//! residues, a barrier that not all threads reach is an error, and so is a write behind the end of an allocation.

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::{c_int, c_uint};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cerium_emit::cuda::Source;
use libloading::Library;
use rayon::prelude::*;

use super::CudaError;
use super::gpu::{Argument, Call, FunctionIndex, Gpu, GpuAddress, GraphIndex};

/// Makes a launch possible: fibers, barriers, what CUDA predefines.
const SHIM: &str = include_str!("host/shim.hpp");

/// C++ compilers that are tried, in this order.
const COMPILERS: [&str; 3] = ["g++", "clang++", "c++"];

/// Most sources of one shared object: the headers of the shim are read once then.
const SOURCES_PER_OBJECT: usize = 6;

/// Bytes to which memory is aligned, as on a GPU.
const ALIGNMENT: usize = 256;

/// Bytes behind each allocation that nobody may write.
const GUARD: usize = 4096;

/// What fresh memory and guards hold: as a word, above every prime.
const FILL: u8 = 0xee;

/// The order in which the threads of a block run between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By their index.
    Ascending,
    /// By their index, the last one first.
    Descending,
    /// Another order each time, from this seed.
    Shuffled(u64),
}

impl Order {
    /// What the shim is told: 0, 1, or something greater.
    fn seed(self) -> u64 {
        match self {
            Order::Ascending => 0,
            Order::Descending => 1,
            Order::Shuffled(seed) => seed | 2,
        }
    }
}

/// `shim_FUNCTION` of the shim: arguments, grid, threads of a block, first block and stride, seed of the order.
type Entry = unsafe extern "C" fn(*const u64, *const u32, c_uint, c_uint, c_uint, u64) -> c_int;

/// Functions that were compiled, by name, which says what their text is. They stay loaded: threads may keep memory of them.
static COMPILED: LazyLock<Mutex<HashMap<String, Entry>>> = LazyLock::new(Mutex::default);

fn compiled() -> MutexGuard<'static, HashMap<String, Entry>> {
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This machine as a GPU.
#[derive(Debug)]
pub struct HostGpu {
    compiler: &'static str,
    order: Order,
    memory: Vec<Allocation>,
    functions: Vec<(String, Entry)>,
    graphs: Vec<Vec<Call>>,
    marks: Vec<Instant>,
}

/// Memory with a guard behind it.
#[derive(Debug)]
struct Allocation {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its memory.
unsafe impl Send for Allocation {}

impl Allocation {
    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.checked_add(GUARD)?, ALIGNMENT).ok()
    }

    /// `None` if there is no room.
    fn new(bytes: usize) -> Option<Allocation> {
        let layout = Allocation::layout(bytes)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        // SAFETY: it was allocated with this size.
        unsafe { start.write_bytes(FILL, layout.size()) };
        Some(Allocation { start, bytes })
    }

    fn guard_is_whole(&self) -> bool {
        // SAFETY: the guard was written when the memory was allocated, and lies within it.
        let guard = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(self.bytes), GUARD) };
        guard.iter().all(|&byte| byte == FILL)
    }

    fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let layout = Allocation::layout(self.bytes).expect("it was allocated with this layout");
        // SAFETY: it was allocated with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
    }
}

impl HostGpu {
    /// This machine with the first C++ compiler that it has, of g++, clang++ and c++; `None` if it has none.
    pub fn new(order: Order) -> Option<HostGpu> {
        let answers = |compiler: &&str| {
            Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success())
        };
        let compiler = COMPILERS.into_iter().find(answers)?;
        let (memory, functions, graphs, marks) = Default::default();
        Some(HostGpu { compiler, order, memory, functions, graphs, marks })
    }

    /// Checks that `bytes` at `address` lie within one allocation, and returns where.
    fn place(&self, address: GpuAddress, bytes: u64) -> Result<*mut u8, CudaError> {
        let inside = |allocation: &&Allocation| {
            let start = allocation.address();
            start <= address.0 && address.0 + bytes <= start + allocation.bytes as u64
        };
        let Some(allocation) = self.memory.iter().find(inside) else {
            return Err(CudaError::Host(format!("{bytes} bytes at {:#x} were not allocated", address.0)));
        };
        // SAFETY: the offset lies within the allocation.
        Ok(unsafe { allocation.start.as_ptr().add((address.0 - allocation.address()) as usize) })
    }

    /// Compiles what is not compiled yet, side by side.
    fn compile(&self, sources: &[&Source]) -> Result<(), CudaError> {
        let mut missing: Vec<&Source> = sources.to_vec();
        missing.retain(|source| !compiled().contains_key(&source.entry));
        missing.sort_by(|a, b| a.entry.cmp(&b.entry));
        missing.dedup_by(|a, b| a.entry == b.entry);
        let chunk = missing.len().div_ceil(rayon::current_num_threads()).clamp(1, SOURCES_PER_OBJECT);
        let objects: Result<Vec<Vec<(String, Entry)>>, CudaError> =
            missing.par_chunks(chunk).map(|sources| object(self.compiler, sources)).collect();
        compiled().extend(objects?.into_iter().flatten());
        Ok(())
    }
}

/// Compiles sources into one shared object and loads it.
fn object(compiler: &str, sources: &[&Source]) -> Result<Vec<(String, Entry)>, CudaError> {
    let failed = |doing: &str, error: &dyn std::fmt::Display| CudaError::Host(format!("{doing}: {error}"));
    let folder = tempfile::tempdir().map_err(|error| failed("no folder for its output", &error))?;
    let mut text = SHIM.to_string();
    for (index, source) in sources.iter().enumerate() {
        let Source { entry, text: body } = source;
        let _ =
            write!(text, "\nnamespace source_{index} {{\n{body}\n}}\nSHIM_ENTRY(source_{index}, {entry})\n");
    }
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("kernels.cpp"), text)
        .map_err(|error| failed("its input cannot be written", &error))?;
    compile(compiler, &path("kernels.cpp"), &path("kernels.so"))?;
    // SAFETY: the initialisers of the shared object are those of the shim, which only clear memory.
    let library = unsafe { Library::new(path("kernels.so")) };
    let library = library.map_err(|error| failed("its output cannot be loaded", &error))?;
    let entry = |source: &&Source| {
        let name = format!("shim_{}", source.entry);
        // SAFETY: `SHIM_ENTRY` defines the symbol with this type.
        let entry = unsafe { library.get::<Entry>(name.as_bytes()) };
        Ok((source.entry.clone(), *entry.map_err(|error| failed("its output lacks a function", &error))?))
    };
    let entries = sources.iter().map(entry).collect();
    std::mem::forget(library);
    entries
}

fn compile(compiler: &str, from: &Path, to: &Path) -> Result<(), CudaError> {
    let mut command = Command::new(compiler);
    // Hidden, so that a function called like one of libc (`bind`) is not taken for it. Doubles are rounded one by one, as the
    // intrinsics do that stand in their place on a GPU.
    command
        .args([
            "-std=c++20",
            "-O1",
            "-w",
            "-ffp-contract=off",
            "-fPIC",
            "-fvisibility=hidden",
            "-shared",
            "-o",
        ])
        .arg(to)
        .arg(from);
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said: Vec<&str> =
                std::str::from_utf8(&output.stderr).unwrap_or("").lines().take(20).collect();
            Err(CudaError::Host(format!("{compiler} refuses a kernel: {}", said.join("\n"))))
        }
        Err(error) => Err(CudaError::Host(format!("{compiler} cannot be started: {error}"))),
    }
}

impl Gpu for HostGpu {
    fn name(&self) -> String {
        format!("the host, by {}", self.compiler)
    }

    fn memory(&mut self) -> Result<(u64, u64), CudaError> {
        // Nobody knows what the system would give: as much as was never refused.
        let used: usize = self.memory.iter().map(|allocation| allocation.bytes).sum();
        Ok((0, used as u64))
    }

    fn allocate(&mut self, bytes: u64) -> Result<Option<GpuAddress>, CudaError> {
        let Some(allocation) = usize::try_from(bytes).ok().and_then(Allocation::new) else { return Ok(None) };
        let address = GpuAddress(allocation.address());
        self.memory.push(allocation);
        Ok(Some(address))
    }

    fn reset(&mut self) -> Result<(), CudaError> {
        self.synchronise()?;
        self.memory.clear();
        self.functions.clear();
        self.graphs.clear();
        self.marks.clear();
        Ok(())
    }

    fn write(&mut self, to: GpuAddress, bytes: &[u8]) -> Result<(), CudaError> {
        let to = self.place(to, bytes.len() as u64)?;
        // SAFETY: `place` checked the destination, which is this device's own memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: GpuAddress, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.synchronise()?;
        let from = self.place(from, bytes.len() as u64)?;
        // SAFETY: `place` checked the source, which is this device's own memory.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, to: GpuAddress, from: GpuAddress, bytes: u64) -> Result<(), CudaError> {
        let (to, from) = (self.place(to, bytes)?, self.place(from, bytes)?);
        // SAFETY: `place` checked both.
        unsafe { std::ptr::copy(from, to, bytes as usize) };
        Ok(())
    }

    fn load(&mut self, sources: &[(Source, u32)]) -> Result<Vec<FunctionIndex>, CudaError> {
        let texts: Vec<&Source> = sources.iter().map(|(source, _)| source).collect();
        self.compile(&texts)?;
        let compiled = compiled();
        let first = self.functions.len();
        self.functions.extend(texts.iter().map(|source| (source.entry.clone(), compiled[&source.entry])));
        Ok((first..self.functions.len()).map(FunctionIndex).collect())
    }

    fn call(&mut self, call: &Call) -> Result<(), CudaError> {
        let (name, entry) = &self.functions[call.function.0];
        let argument = |argument: &Argument| match argument {
            Argument::Address(address) => address.0,
            Argument::Word(word) => u64::from(*word),
        };
        let arguments: Vec<u64> = call.arguments.iter().map(argument).collect();
        let blocks = call.grid[0] * call.grid[1];
        let stride = blocks.min(rayon::current_num_threads() as u32);
        let part = |first: u32| {
            // SAFETY: the function belongs to text that was emitted for these arguments, which point to memory of this device.
            // Blocks of a launch do not touch what others write.
            unsafe {
                entry(arguments.as_ptr(), call.grid.as_ptr(), call.block, first, stride, self.order.seed())
            }
        };
        match (0..stride).into_par_iter().map(part).find_any(|&outcome| outcome != 0) {
            None => Ok(()),
            Some(1) => Err(CudaError::Host(format!("only some threads of {name} reach a barrier"))),
            Some(_) => Err(CudaError::Host(format!("a thread of {name} needs more stack than there is"))),
        }
    }

    fn record(&mut self, calls: &[Call]) -> Result<GraphIndex, CudaError> {
        self.graphs.push(calls.to_vec());
        Ok(GraphIndex(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphIndex) -> Result<(), CudaError> {
        let calls = std::mem::take(&mut self.graphs[graph.0]);
        let outcome = calls.iter().try_for_each(|call| self.call(call));
        self.graphs[graph.0] = calls;
        outcome
    }

    fn mark(&mut self) -> Result<usize, CudaError> {
        self.marks.push(Instant::now());
        Ok(self.marks.len() - 1)
    }

    fn elapsed(&mut self) -> Result<Vec<f64>, CudaError> {
        let marks = std::mem::take(&mut self.marks);
        Ok(marks.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect())
    }

    fn synchronise(&mut self) -> Result<(), CudaError> {
        match self.memory.iter().find(|allocation| !allocation.guard_is_whole()) {
            None => Ok(()),
            Some(allocation) => {
                let bytes = allocation.bytes;
                Err(CudaError::Host(format!("a kernel wrote behind the end of {bytes} bytes")))
            }
        }
    }
}

#[cfg(test)]
#[path = "host/tests.rs"]
mod tests;
