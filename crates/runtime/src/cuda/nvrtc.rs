//! NVRTC, NVIDIA's compiler of CUDA C++ as a library: text in, machine code for one architecture out.
//!
//! The library is opened when it is asked for, and only the functions that are used here are looked up, which all versions
//! of CUDA 12 and 13 have. It needs no GPU and no driver. It comes with the CUDA toolkit, or alone as the Python package
//! `nvidia-cuda-nvrtc` (32 MB packed).

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;
use std::str::FromStr;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use serde::{Deserialize, Serialize};

use super::Arch;
use super::cache::cache_folder;

/// Why no machine code was made.
#[derive(Debug, thiserror::Error)]
pub enum NvrtcError {
    /// There is no NVRTC, or one that cannot be opened.
    #[error(
        "no NVRTC (libnvrtc.so.12 or later, up to .{newest}) in {searched}: {reason}; install CUDA 12 or 13, or run `python3 -m pip install \
         --target {} nvidia-cuda-nvrtc`", .install.display()
    )]
    Missing {
        /// The newest version of CUDA that would serve.
        newest: u32,
        /// Where it was looked for.
        searched: String,
        /// What the loader said last.
        reason: String,
        /// Where it would be found.
        install: PathBuf,
    },
    /// A library of this name has no such function.
    #[error("{} is not NVRTC of CUDA 12 or 13: it has no function {function}", .library.display())]
    Foreign {
        /// The library.
        library: PathBuf,
        /// What it lacks.
        function: &'static str,
    },
    /// The text has errors, or the architecture is not known to this version.
    #[error("NVRTC {version} cannot compile `{name}` for {arch} ({reason}):\n{log}")]
    Compile {
        /// Name of the text.
        name: String,
        /// For what it was compiled.
        arch: Arch,
        /// Version of NVRTC.
        version: Version,
        /// NVRTC's name of the error.
        reason: String,
        /// What the compiler wrote.
        log: String,
    },
}

/// Version of NVRTC, that of the CUDA toolkit to which it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 12 or 13.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text is not a version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of NVRTC; write it as in 13.0")]
pub struct ParseVersionError(String);

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Version, ParseVersionError> {
        let parts =
            text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version = parts.map(|(major, minor)| Version { major, minor });
        version
            .filter(|version| version.to_string() == text)
            .ok_or_else(|| ParseVersionError(text.to_string()))
    }
}

/// What the compiler made of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// An ELF file with the machine code of all kernels of the text.
    pub cubin: Vec<u8>,
    /// What each kernel takes, by name.
    pub resources: Vec<Resources>,
}

/// What a compiled kernel takes, as its assembler reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Name of the kernel.
    pub entry: String,
    /// 32-bit registers a thread, 255 at most.
    pub registers: u32,
    /// Bytes of a thread's stack in local memory.
    pub stack_bytes: u32,
    /// Bytes of code's stores of registers for which there was no room.
    pub spill_store_bytes: u32,
    /// Bytes of code's loads of them.
    pub spill_load_bytes: u32,
    /// Static shared memory a block, in bytes; what a launch asks for comes on top.
    pub shared_bytes: u32,
}

type Program = *mut c_void;

/// The functions of NVRTC; zero stands for success, except in `error_string`.
struct Functions {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: Size,
    log: Bytes,
    cubin_size: Size,
    cubin: Bytes,
}

type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Bytes = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// NVRTC, opened. Threads may compile side by side.
pub struct Nvrtc {
    functions: Functions,
    version: Version,
    path: PathBuf,
    /// The functions stand in them.
    _libraries: Vec<Library>,
}

impl Nvrtc {
    /// Opens NVRTC. With a folder: the one in it, in its `lib64` or `lib`, or in the Python package under it
    /// (`nvidia/cu13/lib`, `nvidia/cuda_nvrtc/lib`). Without: what the system's loader finds, then the Python package under
    /// `cerium/nvrtc` of the user's cache folder, then `/usr/local/cuda`.
    pub fn load(folder: Option<&Path>) -> Result<Nvrtc, NvrtcError> {
        Nvrtc::load_up_to(folder, 13)
    }

    /// The same, of a version of CUDA up to `newest` (12 or 13): drivers refuse what a newer one made.
    pub fn load_up_to(folder: Option<&Path>, newest: u32) -> Result<Nvrtc, NvrtcError> {
        let install = cache_folder().unwrap_or_default().join("nvrtc");
        let mut folders: Vec<Option<PathBuf>> = Vec::new();
        let searched = match folder {
            Some(folder) => {
                folders.extend(library_folders(folder).map(Some));
                folder.display().to_string()
            }
            None => {
                folders.push(None);
                folders.extend(library_folders(&install).map(Some));
                folders.extend(library_folders(Path::new("/usr/local/cuda")).map(Some));
                format!("the loader's path, {} and /usr/local/cuda", install.display())
            }
        };
        let mut reason = "no such file".to_string();
        for folder in &folders {
            for major in (12..=newest.min(13)).rev() {
                let name = PathBuf::from(format!("libnvrtc.so.{major}"));
                let path = folder.as_ref().map_or_else(|| name.clone(), |folder| folder.join(&name));
                if folder.is_some() && !path.is_file() {
                    continue;
                }
                match Nvrtc::open(&path) {
                    Ok(nvrtc) => return nvrtc,
                    Err(error) => reason = error.source().map_or(error.to_string(), ToString::to_string),
                }
            }
        }
        Err(NvrtcError::Missing { newest, searched, reason, install })
    }

    /// Opens a library; the outer error is the loader's.
    fn open(path: &Path) -> Result<Result<Nvrtc, NvrtcError>, libloading::Error> {
        let mut libraries = Vec::new();
        // NVRTC opens its builtins by name and finds them only if they are open already or on the loader's path.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            for builtins in builtins(folder) {
                // SAFETY: NVIDIA's library has no constructors that do more than register themselves.
                libraries.push(unsafe { Library::open(Some(builtins), RTLD_NOW | RTLD_GLOBAL) }?);
            }
        }
        // SAFETY: as above.
        libraries.push(unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }?);
        Ok(Nvrtc::bind(path, libraries))
    }

    /// Looks the functions up in the last of the libraries.
    fn bind(path: &Path, libraries: Vec<Library>) -> Result<Nvrtc, NvrtcError> {
        let library = libraries.last().expect("NVRTC was opened");
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the signatures are those of nvrtc.h, the same in all versions from 11 to 13.
                match unsafe { library.get(concat!($name, "\0").as_bytes()) } {
                    Ok(symbol) => *symbol,
                    Err(_) => {
                        return Err(NvrtcError::Foreign { library: path.to_path_buf(), function: $name });
                    }
                }
            };
        }
        let functions = Functions {
            error_string: function!("nvrtcGetErrorString"),
            version: function!("nvrtcVersion"),
            create: function!("nvrtcCreateProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            compile: function!("nvrtcCompileProgram"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            cubin_size: function!("nvrtcGetCUBINSize"),
            cubin: function!("nvrtcGetCUBIN"),
        };
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two valid pointers.
        unsafe { (functions.version)(&mut major, &mut minor) };
        let version = Version { major: major as u32, minor: minor as u32 };
        Ok(Nvrtc { functions, version, path: path.to_path_buf(), _libraries: libraries })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The library: a path, or a bare name if the system's loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles CUDA C++ (C++17; there are no include paths) for one architecture. `name` is what messages call the text.
    /// The same text gives the same bytes.
    ///
    /// # Panics
    /// If the text or its name has a zero byte.
    pub fn compile(&self, name: &str, text: &str, arch: Arch) -> Result<Compiled, NvrtcError> {
        let c_name = CString::new(name).expect("a name without zero bytes");
        let c_text = CString::new(text).expect("a text without zero bytes");
        let options = [
            format!("--gpu-architecture={arch}"),
            "--std=c++17".to_string(),
            // Write the resources of each kernel into the log.
            "--ptxas-options=-v".to_string(),
        ];
        let options = options.map(|option| CString::new(option).expect("an option without zero bytes"));
        let options = options.each_ref().map(|option| option.as_ptr());
        let functions = &self.functions;
        let mut program: Program = ptr::null_mut();
        // SAFETY: the strings live until the calls return; no headers are given.
        let status = unsafe {
            (functions.create)(&mut program, c_text.as_ptr(), c_name.as_ptr(), 0, ptr::null(), ptr::null())
        };
        let error = |status: c_int, log: String| NvrtcError::Compile {
            name: name.to_string(),
            arch,
            version: self.version,
            reason: self.error_name(status),
            log,
        };
        if status != 0 {
            return Err(error(status, String::new()));
        }
        let program = OpenProgram { program, functions };
        // SAFETY: the program is open, the options live until the call returns.
        let status =
            unsafe { (functions.compile)(program.program, options.len() as c_int, options.as_ptr()) };
        let log = program.bytes(functions.log_size, functions.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
        if status != 0 {
            return Err(error(status, log));
        }
        match program.bytes(functions.cubin_size, functions.cubin) {
            Ok(cubin) => Ok(Compiled { cubin, resources: parse_resources(&log) }),
            Err(status) => Err(error(status, log)),
        }
    }

    fn error_name(&self, status: c_int) -> String {
        // SAFETY: returns a static string for every number.
        unsafe { CStr::from_ptr((self.functions.error_string)(status)) }.to_string_lossy().into_owned()
    }
}

/// A program that is destroyed at the end.
struct OpenProgram<'a> {
    program: Program,
    functions: &'a Functions,
}

impl OpenProgram<'_> {
    fn bytes(&self, size: Size, get: Bytes) -> Result<Vec<u8>, c_int> {
        let mut length = 0;
        // SAFETY: the program is open.
        let status = unsafe { size(self.program, &mut length) };
        if status != 0 {
            return Err(status);
        }
        let mut bytes = vec![0u8; length];
        // SAFETY: NVRTC writes as many bytes as it said.
        let status = unsafe { get(self.program, bytes.as_mut_ptr().cast()) };
        if status != 0 { Err(status) } else { Ok(bytes) }
    }
}

impl Drop for OpenProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used again.
        unsafe { (self.functions.destroy)(&mut self.program) };
    }
}

/// Where NVRTC may be below a folder that a user names: itself, a CUDA toolkit, a folder of Python packages.
fn library_folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "lib64", "lib", "nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"]
        .into_iter()
        .map(|below| folder.join(below))
}

/// NVRTC's builtins in a folder, newest first.
fn builtins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so."))
        })
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

/// Reads what ptxas says of each kernel:
///
/// ```text
/// ptxas info    : Compiling entry function 'scale' for 'sm_90'
/// ptxas info    : Function properties for scale
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 12 registers, used 0 barriers, 1024 bytes smem
/// ```
///
/// Functions that were not inlined have properties of their own, which add to those of the kernel before them.
fn parse_resources(log: &str) -> Vec<Resources> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_string();
            kernels.push(Resources { entry, ..Resources::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        for part in line.rsplit("info    : ").next().unwrap_or_default().split(',') {
            let part = part.trim().trim_start_matches("Used ").trim_start_matches("used ");
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match what {
                "registers" => kernel.registers = number,
                "bytes stack frame" => kernel.stack_bytes += number,
                "bytes spill stores" => kernel.spill_store_bytes += number,
                "bytes spill loads" => kernel.spill_load_bytes += number,
                "bytes smem" => kernel.shared_bytes = number,
                _ => {}
            }
        }
    }
    kernels.sort_by(|a, b| a.entry.cmp(&b.entry));
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two kernels, the first with static shared memory, the second with too many live words for its registers.
    const TEXT: &str = r#"
        extern "C" __global__ void turn(unsigned *words) {
            __shared__ unsigned tile[256];
            tile[threadIdx.x] = words[threadIdx.x];
            __syncthreads();
            words[threadIdx.x] = tile[255 - threadIdx.x];
        }
        extern "C" __global__ void __launch_bounds__(1024, 2) crowd(unsigned *words) {
            unsigned w[64];
            for (int i = 0; i < 64; i++) w[i] = words[i * 1024 + threadIdx.x];
            __syncthreads();
            for (int i = 0; i < 64; i++) words[w[i] % 64 * 1024 + threadIdx.x] = w[(i * 7 + 5) % 64] * w[63 - i];
        }
    "#;

    /// NVRTC, or a word that the test did nothing.
    fn nvrtc() -> Option<Nvrtc> {
        Nvrtc::load(None).map_err(|error| println!("skipped: {error}")).ok()
    }

    #[test]
    fn texts_become_machine_code_and_figures() {
        let Some(nvrtc) = nvrtc() else { return };
        assert!(nvrtc.version().major >= 12);
        let compile = |arch| nvrtc.compile("two kernels", TEXT, arch).unwrap();
        let compiled = std::thread::scope(|scope| {
            let threads =
                [Arch::SM_80, Arch::SM_90, Arch::SM_100].map(|arch| scope.spawn(move || compile(arch)));
            threads.map(|thread| thread.join().unwrap())
        });
        for compiled in &compiled {
            assert_eq!(&compiled.cubin[..4], b"\x7fELF");
            let [crowd, turn] = &compiled.resources[..] else { panic!("{:?}", compiled.resources) };
            assert_eq!((turn.entry.as_str(), turn.shared_bytes, turn.spill_store_bytes), ("turn", 1024, 0));
            assert!((4..64).contains(&turn.registers), "{turn:?}");
            assert_eq!((crowd.entry.as_str(), crowd.registers), ("crowd", 32));
            assert!(crowd.spill_store_bytes > 0 && crowd.spill_load_bytes > 0, "{crowd:?}");
        }
        assert_ne!(compiled[0].cubin, compiled[1].cubin);
        assert_eq!(compiled[1], compile(Arch::SM_90), "the same text gives the same bytes");
    }

    #[test]
    fn errors_carry_the_log() {
        let Some(nvrtc) = nvrtc() else { return };
        let error =
            nvrtc.compile("wrong", "__global__ void f() { g(); }", Arch::SM_90).unwrap_err().to_string();
        assert!(
            error.contains("`wrong` for sm_90") && error.contains("identifier \"g\" is undefined"),
            "{error}"
        );
        let error = nvrtc.compile("wrong", TEXT, Arch::new(7, 9)).unwrap_err().to_string();
        assert!(error.contains("sm_79") && error.contains("gpu-architecture"), "{error}");
    }

    #[test]
    fn a_folder_without_nvrtc_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Nvrtc::load(Some(folder.path())).err().unwrap().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains("no such file") && error.contains("pip install --target"), "{error}");
        let damaged = folder.path().join("lib64");
        fs::create_dir(&damaged).unwrap();
        fs::write(damaged.join("libnvrtc.so.13"), b"not a library").unwrap();
        let error = Nvrtc::load(Some(folder.path())).err().unwrap().to_string();
        assert!(error.contains("lib64/libnvrtc.so.13") && !error.contains("no such file"), "{error}");
    }

    #[test]
    fn versions_parse_as_they_print() {
        let version = Version { major: 12, minor: 9 };
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in ["", "13", "13.", "13.0.88", "13.00", "+13.0", "sm_90"] {
            assert_eq!(text.parse::<Version>(), Err(ParseVersionError(text.to_string())));
        }
    }

    #[test]
    fn figures_are_read_from_the_log() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'scale' for 'sm_90'\n\
                   ptxas info    : Function properties for scale\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 12 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]\n\
                   ptxas info    : Compile time = 1.0 ms\n";
        let scale = Resources {
            entry: "scale".to_string(),
            registers: 12,
            stack_bytes: 8,
            spill_store_bytes: 4,
            spill_load_bytes: 12,
            shared_bytes: 1024,
        };
        assert_eq!(parse_resources(log), [scale]);
    }
}
