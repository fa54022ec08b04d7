//! Open MPI: the dozen functions that are used here, and transfers that keep their words.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::MpiError;

/// The library of Open MPI 4 and 5.
const LIBRARY: &str = "libmpi.so.40";
/// All calls are made by the thread that called `MPI_Init_thread`.
const THREAD_FUNNELED: c_int = 1;
/// Room that `MPI_Error_string` wants (`MPI_MAX_ERROR_STRING`).
const ERROR_STRING: usize = 256;

/// Communicators, datatypes and error handlers of Open MPI are addresses of variables in its library.
type Handle = *mut c_void;
type Request = *mut c_void;

/// What transfers are for, so that headers and what follows them are not taken for each other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    Headers = 0,
    Words = 1,
}

/// MPI, begun. Stays on the thread that began it.
pub(super) struct Mpi {
    functions: Functions,
    world: Handle,
    word: Handle,
    rank: usize,
    size: usize,
    /// Transfers that are not done: MPI must not be ended before they are.
    underway: Cell<usize>,
}

/// Functions of MPI; zero stands for success.
struct Functions {
    init: unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int,
    initialized: unsafe extern "C" fn(*mut c_int) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    comm_rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    comm_size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    comm_set_errhandler: unsafe extern "C" fn(Handle, Handle) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int,
    isend: unsafe extern "C" fn(*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Request) -> c_int,
    irecv: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Request) -> c_int,
    test: unsafe extern "C" fn(*mut Request, *mut c_int, *mut c_void) -> c_int,
}

impl Mpi {
    /// Opens Open MPI and begins it; returns when all ranks have.
    pub(super) fn init() -> Result<Mpi, MpiError> {
        // Its plugins look for its symbols among those of the process, and its threads outlive us: it is never closed.
        // SAFETY: its constructors only register themselves.
        let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) };
        let library =
            ManuallyDrop::new(library.map_err(|error| MpiError::Missing { reason: error.to_string() })?);
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: functions have the signatures of mpi.h of Open MPI 4 and 5; handles are addresses of variables.
                match unsafe { library.get(concat!($name, "\0").as_bytes()) } {
                    Ok(symbol) => *symbol,
                    Err(_) => return Err(MpiError::Foreign { symbol: $name }),
                }
            };
        }
        let functions = Functions {
            init: symbol!("MPI_Init_thread"),
            initialized: symbol!("MPI_Initialized"),
            finalize: symbol!("MPI_Finalize"),
            comm_rank: symbol!("MPI_Comm_rank"),
            comm_size: symbol!("MPI_Comm_size"),
            comm_set_errhandler: symbol!("MPI_Comm_set_errhandler"),
            error_string: symbol!("MPI_Error_string"),
            isend: symbol!("MPI_Isend"),
            irecv: symbol!("MPI_Irecv"),
            test: symbol!("MPI_Test"),
        };
        let (world, word): (Handle, Handle) = (symbol!("ompi_mpi_comm_world"), symbol!("ompi_mpi_uint32_t"));
        let errors_return: Handle = symbol!("ompi_mpi_errors_return");
        let mut mpi = Mpi { functions, world, word, rank: 0, size: 0, underway: Cell::new(0) };
        let mut begun = 0;
        // SAFETY: may be called at any time, with a valid pointer.
        let status = unsafe { (mpi.functions.initialized)(&mut begun) };
        mpi.check("MPI_Initialized", status)?;
        if begun != 0 {
            return Err(MpiError::Started);
        }
        let mut provided = 0;
        // SAFETY: MPI has not begun; it takes no arguments of the command line.
        let status =
            unsafe { (mpi.functions.init)(ptr::null_mut(), ptr::null_mut(), THREAD_FUNNELED, &mut provided) };
        mpi.check("MPI_Init_thread", status)?;
        // SAFETY: MPI has begun; both are its own.
        let status = unsafe { (mpi.functions.comm_set_errhandler)(world, errors_return) };
        mpi.check("MPI_Comm_set_errhandler", status)?;
        let (mut rank, mut size) = (0, 0);
        // SAFETY: valid pointers.
        let status = unsafe { (mpi.functions.comm_rank)(world, &mut rank) };
        mpi.check("MPI_Comm_rank", status)?;
        // SAFETY: as above.
        let status = unsafe { (mpi.functions.comm_size)(world, &mut size) };
        mpi.check("MPI_Comm_size", status)?;
        (mpi.rank, mpi.size) = (rank as usize, size as usize);
        Ok(mpi)
    }

    /// This rank.
    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<(), MpiError> {
        if status == 0 {
            return Ok(());
        }
        let (mut text, mut length) = ([0u8; ERROR_STRING], 0);
        // SAFETY: MPI writes at most that many bytes, the last of which is zero.
        let told = unsafe { (self.functions.error_string)(status, text.as_mut_ptr().cast(), &mut length) };
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
        let reason = if told == 0 { text.into_owned() } else { format!("error {status}") };
        Err(MpiError::Call { call, reason })
    }

    /// Begins to send words (fewer than 2^31) to a rank.
    pub(super) fn send(&self, words: Vec<u32>, to: usize, lane: Lane) -> Result<Transfer<'_>, MpiError> {
        let mut request = ptr::null_mut();
        // SAFETY: the transfer keeps the words where they are until the request is done.
        let status = unsafe {
            let (start, count) = (words.as_ptr().cast(), words.len() as c_int);
            (self.functions.isend)(
                start,
                count,
                self.word,
                to as c_int,
                lane as c_int,
                self.world,
                &mut request,
            )
        };
        self.check("MPI_Isend", status)?;
        Ok(Transfer::new(self, request, words))
    }

    /// Begins to receive `count` words (fewer than 2^31) from a rank.
    pub(super) fn receive(&self, count: usize, from: usize, lane: Lane) -> Result<Transfer<'_>, MpiError> {
        let mut words = vec![0; count];
        let mut request = ptr::null_mut();
        // SAFETY: as above, and nobody else sees the words before.
        let status = unsafe {
            let (start, count) = (words.as_mut_ptr().cast(), count as c_int);
            (self.functions.irecv)(
                start,
                count,
                self.word,
                from as c_int,
                lane as c_int,
                self.world,
                &mut request,
            )
        };
        self.check("MPI_Irecv", status)?;
        Ok(Transfer::new(self, request, words))
    }

    /// Ends MPI; returns when all ranks do.
    ///
    /// # Panics
    /// If a transfer is not done.
    pub(super) fn finalize(self) -> Result<(), MpiError> {
        assert_eq!(self.underway.get(), 0, "transfers are under way");
        // SAFETY: MPI has begun, and nothing is under way.
        let status = unsafe { (self.functions.finalize)() };
        if status == 0 {
            Ok(())
        } else {
            Err(MpiError::Call { call: "MPI_Finalize", reason: status.to_string() })
        }
    }
}

/// Words that MPI sends or fills. Dropped before it is done, they are never freed.
pub(super) struct Transfer<'a> {
    mpi: &'a Mpi,
    request: Request,
    words: ManuallyDrop<Vec<u32>>,
    done: bool,
}

impl Transfer<'_> {
    fn new(mpi: &Mpi, request: Request, words: Vec<u32>) -> Transfer<'_> {
        mpi.underway.set(mpi.underway.get() + 1);
        Transfer { mpi, request, words: ManuallyDrop::new(words), done: false }
    }

    /// Is it done? Does not wait.
    pub(super) fn is_done(&mut self) -> Result<bool, MpiError> {
        if !self.done {
            let mut flag = 0;
            // SAFETY: the request is under way; no status is asked for.
            let status = unsafe { (self.mpi.functions.test)(&mut self.request, &mut flag, ptr::null_mut()) };
            self.mpi.check("MPI_Test", status)?;
            self.done = flag != 0;
        }
        Ok(self.done)
    }

    /// The words of a transfer that is done.
    ///
    /// # Panics
    /// If it is not.
    pub(super) fn into_words(mut self) -> Vec<u32> {
        assert!(self.done, "a transfer is under way");
        std::mem::take(&mut *self.words)
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if self.done {
            self.mpi.underway.set(self.mpi.underway.get() - 1);
            drop(std::mem::take(&mut *self.words));
        }
    }
}
