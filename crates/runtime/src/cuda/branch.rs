//! The second stream of a GPU, for libraries that work beside what is launched.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUresult};

use super::gpu::{BranchMark, StreamHandle};

/// A stream, and marks on it. The context is current in all calls.
pub(super) struct Branch {
    stream: sys::CUstream,
    /// Recorded on the first stream; this one waits for it.
    begin: sys::CUevent,
    /// Events of marks, and those whose marks are passed.
    marks: Vec<sys::CUevent>,
    free: Vec<usize>,
}

fn event() -> Result<sys::CUevent, DriverError> {
    result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
}

impl Branch {
    pub(super) fn new() -> Result<Branch, DriverError> {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok(Branch { stream, begin: event()?, marks: Vec::new(), free: Vec::new() })
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Makes what follows wait for everything that is on the first stream.
    pub(super) fn follow(&mut self, first: sys::CUstream) -> Result<StreamHandle, DriverError> {
        // SAFETY: streams and event live.
        unsafe {
            result::event::record(self.begin, first)?;
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(self.stream, self.begin, flags)?;
        }
        Ok(StreamHandle(self.stream.expose_provenance()))
    }

    pub(super) fn mark(&mut self) -> Result<BranchMark, DriverError> {
        let mark = match self.free.pop() {
            Some(mark) => mark,
            None => {
                self.marks.push(event()?);
                self.marks.len() - 1
            }
        };
        // SAFETY: event and stream live.
        unsafe { result::event::record(self.marks[mark], self.stream) }?;
        Ok(BranchMark(mark))
    }

    pub(super) fn is_passed(&mut self, mark: BranchMark) -> Result<bool, DriverError> {
        // SAFETY: the event was recorded.
        match unsafe { result::event::query(self.marks[mark.0]) } {
            Ok(()) => {
                self.free.push(mark.0);
                Ok(true)
            }
            Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        // SAFETY: everything was made once and is not used again. Nothing can be done about errors.
        unsafe {
            let _ = result::stream::destroy(self.stream);
            for &event in self.marks.iter().chain([&self.begin]) {
                let _ = result::event::destroy(event);
            }
        }
    }
}
