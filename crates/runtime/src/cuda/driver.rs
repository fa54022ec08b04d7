//! The driver of NVIDIA GPUs behind [`Gpu`]: as thin as it can be, because only a machine with a GPU can try it.
//!
//! Everything runs on one stream, so that copies and launches are done in the order in which they are asked for.

use std::ffi::{CString, c_void};

use cerium_emit::cuda::Source;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};

use super::branch::Branch;
use super::compile::KernelCompiler;
use super::error::{DriverVersion, OLDEST_DRIVER};
use super::gpu::{Argument, BranchMark, Call, FunctionIndex, Gpu, GpuAddress, GraphIndex, StreamHandle};
use super::{Arch, CudaError};

/// Pinned memory on each of the two sides of a [`Staging`].
const STAGING: usize = 8 << 20;
/// Dynamic shared memory that every function may ask for.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// A GPU of this machine.
pub(super) struct DriverGpu {
    name: String,
    arch: Arch,
    version: DriverVersion,
    compiler: KernelCompiler,
    /// Declared before the context, which must outlive it: fields are dropped in order.
    resources: Resources,
    context: Context,
}

/// The primary context of a GPU, held until the end.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

/// What is given back at the end. The context is current then.
struct Resources {
    context: sys::CUcontext,
    stream: sys::CUstream,
    upload: Staging,
    /// Pinned memory for reading.
    download: *mut c_void,
    allocations: Vec<sys::CUdeviceptr>,
    modules: Vec<sys::CUmodule>,
    functions: Vec<sys::CUfunction>,
    graphs: Vec<(sys::CUgraph, sys::CUgraphExec)>,
    events: Vec<sys::CUevent>,
    /// Events that are recorded.
    marks: usize,
    /// For other libraries, when one asked for it.
    branch: Option<Branch>,
}

/// Pinned memory for copies to the GPU: while one side is copied, the other is filled.
struct Staging {
    sides: [*mut c_void; 2],
    /// Recorded when a side is full: its last copy.
    copied: [sys::CUevent; 2],
    side: usize,
    used: usize,
}

// SAFETY: handles of the driver may be used by any thread to which the context is current, which every method of `Gpu` sees to;
// pinned memory is plain memory. Nothing here can be reached from two threads at a time.
unsafe impl Send for DriverGpu {}

fn failed(doing: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { doing, reason: reason(error) }
}

fn reason(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{:?}, {}", error.0, text.to_string_lossy()),
        Err(_) => format!("{:?}", error.0),
    }
}

impl DriverGpu {
    /// Opens GPU `ordinal` of this machine, counted from 0.
    pub(super) fn open(ordinal: u32, compiler: KernelCompiler) -> Result<DriverGpu, CudaError> {
        // SAFETY: looks for the library and opens it; without it every other call would panic.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let mut version = 0;
        // SAFETY: a valid pointer; this may be called before `cuInit`.
        let status = unsafe { sys::cuDriverGetVersion(&mut version) };
        status.result().map_err(failed("telling its version"))?;
        let version = DriverVersion(version);
        if version < OLDEST_DRIVER {
            return Err(CudaError::OldDriver { found: version });
        }
        let no_gpu = |error| CudaError::NoGpu { reason: reason(error) };
        result::init().map_err(no_gpu)?;
        let count = result::device::get_count().map_err(no_gpu)?.unsigned_abs();
        if count == 0 {
            return Err(CudaError::NoGpu { reason: "it counts none".to_string() });
        }
        if ordinal >= count {
            return Err(CudaError::NoSuchGpu { ordinal, count });
        }
        let device = result::device::get(ordinal as i32).map_err(no_gpu)?;
        let name = result::device::get_name(device).map_err(failed("naming the GPU"))?;
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let attribute = |attribute| {
            // SAFETY: the device is one of this machine.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value.map(i32::unsigned_abs).map_err(failed("telling the architecture of the GPU"))
        };
        let arch = Arch::new(attribute(MAJOR)?, attribute(MINOR)?);
        let context = Context::new(device)?;
        let resources = Resources::new(context.context)?;
        Ok(DriverGpu { name, arch, version, compiler, resources, context })
    }

    /// Makes the context current to this thread.
    fn enter(&self) -> Result<(), CudaError> {
        self.context.enter()
    }
}

impl Context {
    fn new(device: sys::CUdevice) -> Result<Context, CudaError> {
        // SAFETY: the device is one of this machine; the context is released once, by `drop`.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = Context { device, context: context.map_err(failed("making a context on the GPU"))? };
        context.enter()?;
        Ok(context)
    }

    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is held.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("making its context current"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and everything in it has been given back. Nothing can be done about an error.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

impl Staging {
    /// Two sides without events: `Resources` fills it in.
    const EMPTY: Staging =
        Staging { sides: [std::ptr::null_mut(); 2], copied: [std::ptr::null_mut(); 2], side: 0, used: 0 };

    /// Room for up to `wanted` bytes that no copy reads any more: where, and how much.
    fn room(&mut self, wanted: usize, stream: sys::CUstream) -> Result<(*mut u8, usize), DriverError> {
        if self.used == STAGING {
            // SAFETY: stream and events live.
            unsafe {
                result::event::record(self.copied[self.side], stream)?;
                self.side = 1 - self.side;
                // An event that was never recorded is done.
                result::event::synchronize(self.copied[self.side])?;
            }
            self.used = 0;
        }
        let length = wanted.min(STAGING - self.used);
        // SAFETY: `used` is below the length of the side.
        let room = unsafe { self.sides[self.side].cast::<u8>().add(self.used) };
        // Copies begin at multiples of 16 bytes.
        self.used = (self.used + length).next_multiple_of(16);
        Ok((room, length))
    }
}

impl Resources {
    fn new(context: sys::CUcontext) -> Result<Resources, CudaError> {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let mut resources = Resources {
            context,
            stream: stream.map_err(failed("making a stream"))?,
            upload: Staging::EMPTY,
            download: std::ptr::null_mut(),
            allocations: Vec::new(),
            modules: Vec::new(),
            functions: Vec::new(),
            graphs: Vec::new(),
            events: Vec::new(),
            marks: 0,
            branch: None,
        };
        // What is made here is given back by `drop` even when a later step fails.
        // SAFETY: the context is current; the memory is freed once.
        let pinned =
            || unsafe { result::malloc_host(STAGING, 0) }.map_err(failed("allocating pinned memory"));
        for side in &mut resources.upload.sides {
            *side = pinned()?;
        }
        resources.download = pinned()?;
        for event in &mut resources.upload.copied {
            let made = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
            *event = made.map_err(failed("making an event"))?;
        }
        Ok(resources)
    }

    fn launch(&self, call: &Call, stream: sys::CUstream) -> Result<(), DriverError> {
        // A word is the first half of eight bytes: GPUs and their hosts are little-endian.
        let mut values: Vec<u64> = call
            .arguments
            .iter()
            .map(|argument| match *argument {
                Argument::Address(address) => address.0,
                Argument::Word(word) => u64::from(word),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        // SAFETY: the function was loaded and its arguments are those of its contract; the driver copies them.
        unsafe {
            result::launch_kernel(
                self.functions[call.function.0],
                (call.grid[0], call.grid[1], 1),
                (call.block, 1, 1),
                call.shared_bytes,
                stream,
                &mut pointers,
            )
        }
    }

    fn load(&mut self, entry: &str, cubin: &[u8], shared_bytes: u32) -> Result<FunctionIndex, DriverError> {
        use sys::CUfunction_attribute::{
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED,
            CU_FUNC_ATTRIBUTE_NUM_REGS as REGISTERS,
        };
        let entry = CString::new(entry).expect("the name of a function has no zero byte");
        // SAFETY: the cubin is whole (it carries a checksum in the cache) and lives during the call.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }?;
        self.modules.push(module);
        // SAFETY: the module was just loaded.
        let function = unsafe { result::module::get_function(module, entry) }?;
        // SAFETY: the function lives as long as its module.
        unsafe {
            if shared_bytes > SHARED_WITHOUT_ASKING {
                result::function::set_function_attribute(function, SHARED, shared_bytes as i32)?;
            }
            // The driver may load code when it is first used, which must not be while launches are recorded.
            result::function::get_function_attribute(function, REGISTERS)?;
        }
        self.functions.push(function);
        Ok(FunctionIndex(self.functions.len() - 1))
    }

    fn capture(&self, calls: &[Call]) -> Result<sys::CUgraph, DriverError> {
        // SAFETY: the stream lives, and this thread ends what it begins.
        unsafe {
            result::stream::begin_capture(
                self.stream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
            )?;
            let launched = calls.iter().try_for_each(|call| self.launch(call, self.stream));
            let graph = result::stream::end_capture(self.stream);
            launched?;
            graph
        }
    }

    /// Waits, and gives back everything that a program has. The context is current.
    fn give_back(&mut self) -> Result<(), DriverError> {
        // SAFETY: everything was made once and is used no more once the stream is done.
        unsafe {
            let mut done = result::stream::synchronize(self.stream);
            for (graph, executable) in self.graphs.drain(..) {
                done = done.and(result::graph::exec_destroy(executable)).and(result::graph::destroy(graph));
            }
            self.functions.clear();
            for module in self.modules.drain(..) {
                done = done.and(result::module::unload(module));
            }
            for allocation in self.allocations.drain(..) {
                done = done.and(result::free_sync(allocation));
            }
            done
        }
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        // SAFETY: everything was made once and is not used again. Nothing can be done about errors.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = self.give_back();
            let events = self.events.iter().chain(&self.upload.copied);
            for &event in events.filter(|event| !event.is_null()) {
                let _ = result::event::destroy(event);
            }
            self.branch = None;
            let pinned = self.upload.sides.iter().chain([&self.download]);
            for &memory in pinned.filter(|memory| !memory.is_null()) {
                let _ = result::free_host(memory);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}

impl Gpu for DriverGpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        let uuid = result::device::get_uuid(self.context.device).ok()?;
        Some(uuid.bytes.map(|byte| byte as u8))
    }

    fn memory(&mut self) -> Result<(u64, u64), CudaError> {
        self.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("telling how much memory is free"))?;
        Ok((free as u64, total as u64))
    }

    fn allocate(&mut self, bytes: u64) -> Result<Option<GpuAddress>, CudaError> {
        self.enter()?;
        // The driver refuses to allocate nothing.
        // SAFETY: the context is current; `drop` frees what is not freed before.
        match unsafe { result::malloc_sync(bytes.max(1) as usize) } {
            Ok(address) => {
                self.resources.allocations.push(address);
                Ok(Some(GpuAddress(address)))
            }
            Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            Err(error) => Err(failed("allocating memory of the GPU")(error)),
        }
    }

    fn reset(&mut self) -> Result<(), CudaError> {
        self.enter()?;
        self.resources.give_back().map_err(failed("giving memory of the GPU back"))
    }

    fn write(&mut self, to: GpuAddress, bytes: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        let stream = self.resources.stream;
        let failed = failed("copying into the memory of the GPU");
        let (mut to, mut rest) = (to.0, bytes);
        while !rest.is_empty() {
            let (room, length) = self.resources.upload.room(rest.len(), stream).map_err(&failed)?;
            let (now, later) = rest.split_at(length);
            // SAFETY: `room` is for `length` bytes which no copy reads, and stays so until this copy is done.
            unsafe {
                std::ptr::copy_nonoverlapping(now.as_ptr(), room, length);
                let staged = std::slice::from_raw_parts(room, length);
                result::memcpy_htod_async(to, staged, stream).map_err(&failed)?;
            }
            (to, rest) = (to + length as u64, later);
        }
        Ok(())
    }

    fn read(&mut self, from: GpuAddress, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.enter()?;
        let Resources { stream, download, .. } = self.resources;
        let failed = failed("copying out of the memory of the GPU");
        let mut from = from.0;
        for part in bytes.chunks_mut(STAGING) {
            // SAFETY: nobody else uses this memory, and it is read when the copy is done.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(download.cast::<u8>(), part.len());
                result::memcpy_dtoh_async(staged, from, stream).map_err(&failed)?;
                result::stream::synchronize(stream).map_err(&failed)?;
                part.copy_from_slice(staged);
            }
            from += part.len() as u64;
        }
        Ok(())
    }

    fn copy(&mut self, to: GpuAddress, from: GpuAddress, bytes: u64) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the caller names memory that it allocated.
        let copied =
            unsafe { result::memcpy_dtod_async(to.0, from.0, bytes as usize, self.resources.stream) };
        copied.map_err(failed("copying within the memory of the GPU"))
    }

    fn load(&mut self, sources: &[(Source, u32)]) -> Result<Vec<FunctionIndex>, CudaError> {
        let texts: Vec<&Source> = sources.iter().map(|(source, _)| source).collect();
        let compiled = self.compiler.compile(&texts, self.arch, self.version.major())?;
        self.enter()?;
        let mut functions = Vec::with_capacity(sources.len());
        for ((source, shared_bytes), compiled) in sources.iter().zip(&compiled) {
            let loaded = self.resources.load(&source.entry, &compiled.cubin, *shared_bytes);
            functions.push(loaded.map_err(failed("loading the machine code of a kernel"))?);
        }
        Ok(functions)
    }

    fn call(&mut self, call: &Call) -> Result<(), CudaError> {
        self.enter()?;
        self.resources.launch(call, self.resources.stream).map_err(failed("launching a kernel"))
    }

    fn record(&mut self, calls: &[Call]) -> Result<GraphIndex, CudaError> {
        self.enter()?;
        let failed = failed("recording launches");
        let graph = self.resources.capture(calls).map_err(&failed)?;
        // SAFETY: the graph was just captured.
        let executable = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        let executable = executable.map_err(|error| {
            // SAFETY: nothing was made of the graph.
            let _ = unsafe { result::graph::destroy(graph) };
            failed(error)
        })?;
        self.resources.graphs.push((graph, executable));
        // SAFETY: graph and stream live.
        unsafe { result::graph::upload(executable, self.resources.stream) }.map_err(&failed)?;
        Ok(GraphIndex(self.resources.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphIndex) -> Result<(), CudaError> {
        self.enter()?;
        let (_, executable) = self.resources.graphs[graph.0];
        // SAFETY: graph and stream live.
        unsafe { result::graph::launch(executable, self.resources.stream) }
            .map_err(failed("launching kernels"))
    }

    fn mark(&mut self) -> Result<usize, CudaError> {
        self.enter()?;
        let failed = failed("taking the time");
        let Resources { events, marks, stream, .. } = &mut self.resources;
        if *marks == events.len() {
            events.push(result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(&failed)?);
        }
        // SAFETY: event and stream live.
        unsafe { result::event::record(events[*marks], *stream) }.map_err(&failed)?;
        *marks += 1;
        Ok(*marks - 1)
    }

    fn elapsed(&mut self) -> Result<Vec<f64>, CudaError> {
        self.synchronise()?;
        let Resources { events, marks, .. } = &mut self.resources;
        let recorded = &events[..std::mem::take(marks)];
        // SAFETY: all of them were recorded on the stream, and it is done.
        let times = recorded.windows(2).map(|pair| unsafe { result::event::elapsed(pair[0], pair[1]) });
        let times: Result<Vec<f32>, DriverError> = times.collect();
        let times = times.map_err(failed("taking the time"))?;
        Ok(times.into_iter().map(|milliseconds| f64::from(milliseconds) / 1e3).collect())
    }

    fn synchronise(&mut self) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: the stream lives.
        unsafe { result::stream::synchronize(self.resources.stream) }.map_err(failed("executing kernels"))
    }

    fn branch(&mut self) -> Result<StreamHandle, CudaError> {
        self.enter()?;
        let failed = failed("beginning a second stream");
        let Resources { branch, stream, .. } = &mut self.resources;
        let branch = match branch {
            Some(branch) => branch,
            None => branch.insert(Branch::new().map_err(&failed)?),
        };
        branch.follow(*stream).map_err(failed)
    }

    fn call_branch(&mut self, call: &Call) -> Result<(), CudaError> {
        self.enter()?;
        let stream = self.resources.branch.as_ref().expect("there is a second stream").stream();
        self.resources.launch(call, stream).map_err(failed("launching a kernel"))
    }

    fn mark_branch(&mut self) -> Result<BranchMark, CudaError> {
        self.enter()?;
        let branch = self.resources.branch.as_mut().expect("there is a second stream");
        branch.mark().map_err(failed("marking the second stream"))
    }

    fn is_passed(&mut self, mark: BranchMark) -> Result<bool, CudaError> {
        self.enter()?;
        let branch = self.resources.branch.as_mut().expect("there is a second stream");
        branch.is_passed(mark).map_err(failed("working on the second stream"))
    }
}
