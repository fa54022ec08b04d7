//! NCCL, NVIDIA's library of collectives, opened when it is asked for: the functions that are used here, of version 2.14 and later.
//!
//! It opens without a GPU. It comes with CUDA's packages, or as the Python packages `nvidia-nccl-cu12` and `nvidia-nccl-cu13`.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::cuda::cache::cache_folder;

/// The oldest version that serves: the first whose calls need not wait.
const OLDEST: c_int = 21_400;

/// Why NCCL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NcclError {
    /// There is no NCCL, or one that cannot be opened.
    #[error(
        "no NCCL (libnccl.so.2) in {searched}: {reason}; install it, or run `python3 -m pip install --no-deps --target {} \
         nvidia-nccl-cu13` (nvidia-nccl-cu12 for a driver of CUDA 12)", .install.display()
    )]
    Missing {
        /// Where it was looked for.
        searched: String,
        /// What the loader said last.
        reason: String,
        /// Where it would be found.
        install: PathBuf,
    },
    /// A library of this name has no such function.
    #[error("{} is not NCCL 2.14 or later: it has no {function}", .library.display())]
    Foreign {
        /// The library.
        library: PathBuf,
        /// What it lacks.
        function: &'static str,
    },
    /// NCCL moves limbs between GPUs.
    #[error(
        "NCCL moves limbs from GPU to GPU, and {device} is none; compute with `--device cuda` on all ranks"
    )]
    NotGpu {
        /// The device.
        device: String,
    },
    /// A call failed.
    #[error("NCCL failed {doing}: {reason}")]
    Call {
        /// As in "failed connecting GPUs".
        doing: &'static str,
        /// Its reason.
        reason: String,
    },
}

/// `ncclComm_t`
pub(super) type CommPointer = *mut c_void;
type Status = c_int;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; 128]);

/// `ncclConfig_t` as of version 2.14. Later versions know by its size and version what it lacks.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

impl Config {
    /// Calls return without waiting for other ranks.
    pub(super) const NON_BLOCKING: Config =
        Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: OLDEST as c_uint, blocking: 0 };
}

/// Results of calls.
pub(super) const SUCCESS: Status = 0;
pub(super) const IN_PROGRESS: Status = 7;
/// `ncclUint32`
pub(super) const UINT32: c_int = 3;
/// `ncclSum`
pub(super) const SUM: c_int = 0;

type Transfer<Pointer> =
    unsafe extern "C" fn(Pointer, usize, c_int, c_int, CommPointer, *mut c_void) -> Status;

/// The functions of NCCL.
pub(super) struct Functions {
    pub(super) get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    pub(super) get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
    pub(super) init_rank:
        unsafe extern "C" fn(*mut CommPointer, c_int, UniqueId, c_int, *mut Config) -> Status,
    pub(super) group_start: unsafe extern "C" fn() -> Status,
    pub(super) group_end: unsafe extern "C" fn() -> Status,
    pub(super) send: Transfer<*const c_void>,
    pub(super) recv: Transfer<*mut c_void>,
    pub(super) all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        CommPointer,
        *mut c_void,
    ) -> Status,
    pub(super) async_error: unsafe extern "C" fn(CommPointer, *mut Status) -> Status,
    pub(super) abort: unsafe extern "C" fn(CommPointer) -> Status,
    pub(super) finalize: unsafe extern "C" fn(CommPointer) -> Status,
    pub(super) destroy: unsafe extern "C" fn(CommPointer) -> Status,
    pub(super) error_string: unsafe extern "C" fn(Status) -> *const c_char,
    pub(super) last_error: unsafe extern "C" fn(CommPointer) -> *const c_char,
}

/// NCCL, opened.
pub struct Nccl {
    pub(super) functions: Functions,
    version: c_int,
    path: PathBuf,
    /// The functions stand in it.
    _library: Option<Library>,
}

impl Nccl {
    /// Opens NCCL. With a folder: the one in it, in its `lib64` or `lib`, or in the Python package under it
    /// (`nvidia/nccl/lib`). Without: what the system's loader finds, then the Python package under `cerium/nccl` of the user's
    /// cache folder, then `/usr/local/cuda`.
    pub fn load(folder: Option<&Path>) -> Result<Nccl, NcclError> {
        let install = cache_folder().unwrap_or_default().join("nccl");
        let mut paths = Vec::new();
        let searched = match folder {
            Some(folder) => {
                paths.extend(below(folder));
                folder.display().to_string()
            }
            None => {
                paths.push(PathBuf::from(NAME));
                paths.extend(below(&install));
                paths.extend(below(Path::new("/usr/local/cuda")));
                format!("the loader's path, {} and /usr/local/cuda", install.display())
            }
        };
        let mut reason = "no such file".to_string();
        for path in paths {
            if path.parent() != Some(Path::new("")) && !path.is_file() {
                continue;
            }
            // SAFETY: NVIDIA's library has no constructors that do more than register themselves.
            match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) } {
                Ok(library) => return Nccl::bind(path, library),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(NcclError::Missing { searched, reason, install })
    }

    fn bind(path: PathBuf, library: Library) -> Result<Nccl, NcclError> {
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the signatures are those of nccl.h, the same in all versions from 2.14 on.
                match unsafe { library.get(concat!($name, "\0").as_bytes()) } {
                    Ok(symbol) => *symbol,
                    Err(_) => return Err(NcclError::Foreign { library: path, function: $name }),
                }
            };
        }
        let functions = Functions {
            get_version: function!("ncclGetVersion"),
            get_unique_id: function!("ncclGetUniqueId"),
            init_rank: function!("ncclCommInitRankConfig"),
            group_start: function!("ncclGroupStart"),
            group_end: function!("ncclGroupEnd"),
            send: function!("ncclSend"),
            recv: function!("ncclRecv"),
            all_reduce: function!("ncclAllReduce"),
            async_error: function!("ncclCommGetAsyncError"),
            abort: function!("ncclCommAbort"),
            finalize: function!("ncclCommFinalize"),
            destroy: function!("ncclCommDestroy"),
            error_string: function!("ncclGetErrorString"),
            last_error: function!("ncclGetLastError"),
        };
        Nccl::with(functions, path, Some(library))
    }

    /// NCCL of functions that stand in `library`, or in this program.
    pub(super) fn with(
        functions: Functions,
        path: PathBuf,
        library: Option<Library>,
    ) -> Result<Nccl, NcclError> {
        let mut version = 0;
        // SAFETY: a valid pointer.
        unsafe { (functions.get_version)(&mut version) };
        if version < OLDEST {
            return Err(NcclError::Foreign { library: path, function: "version of these" });
        }
        Ok(Nccl { functions, version, path, _library: library })
    }

    /// Its version, as in 2.32.3.
    pub fn version(&self) -> String {
        format!("{}.{}.{}", self.version / 10_000, self.version / 100 % 100, self.version % 100)
    }

    /// The library: a path, or a bare name if the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error of a call, unless it succeeded or goes on.
    pub(super) fn check(&self, doing: &'static str, status: Status) -> Result<(), NcclError> {
        if matches!(status, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        let text = |text: *const c_char| {
            // SAFETY: NCCL returns static or thread-local strings for every status.
            let known = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
            known.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        // SAFETY: takes any status; the communicator is not looked at.
        let (name, last) = unsafe {
            let name = text((self.functions.error_string)(status));
            (name, text((self.functions.last_error)(std::ptr::null_mut())))
        };
        let reason = if last.is_empty() { name } else { format!("{name}: {last}") };
        Err(NcclError::Call { doing, reason })
    }

    /// An id that rank 0 makes and all ranks give when they connect.
    pub fn unique_id(&self) -> Result<[u8; 128], NcclError> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: a valid pointer.
        let status = unsafe { (self.functions.get_unique_id)(&mut id) };
        self.check("making an id", status)?;
        Ok(id.0)
    }
}

/// The library's name, which is the same for CUDA 12 and 13.
const NAME: &str = "libnccl.so.2";

/// Where it may be below a folder that a user names.
fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "lib64", "lib", "nvidia/nccl/lib"].into_iter().map(|below| folder.join(below).join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_opens_without_a_gpu() {
        let nccl = match Nccl::load(None) {
            Ok(nccl) => nccl,
            Err(error @ NcclError::Missing { .. }) => {
                println!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        println!("NCCL {} of {}", nccl.version(), nccl.path().display());
        assert!(nccl.version().starts_with("2."));
        let id = nccl.unique_id().unwrap();
        assert_ne!(id, nccl.unique_id().unwrap());
    }

    #[test]
    fn a_folder_without_it_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Nccl::load(Some(folder.path())).err().unwrap().to_string();
        assert!(
            error.contains(&folder.path().display().to_string()) && error.contains("pip install"),
            "{error}"
        );
        std::fs::write(folder.path().join(NAME), b"no library").unwrap();
        let error = Nccl::load(Some(folder.path())).err().unwrap().to_string();
        assert!(error.contains("libnccl.so.2"), "{error}");
    }

    #[test]
    fn the_oldest_configuration_is_as_its_header_says() {
        assert_eq!((size_of::<Config>(), size_of::<UniqueId>()), (24, 128));
    }
}
