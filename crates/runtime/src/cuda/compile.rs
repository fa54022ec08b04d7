//! From emitted text to machine code: out of the cache, else by NVRTC.

use std::path::{Path, PathBuf};

use cerium_emit::cuda::Source;
use rayon::prelude::*;

use super::Arch;
use super::cache::CubinCache;
use super::nvrtc::{Compiled, Nvrtc, NvrtcError};
use crate::preparation_pool;

/// Makes machine code, with what it needs for that.
#[derive(Clone, Debug)]
pub struct KernelCompiler {
    /// Where NVRTC is; `None` for the usual places ([`Nvrtc::load`]).
    pub nvrtc: Option<PathBuf>,
    /// Where kernels are kept.
    pub cache: CubinCache,
}

impl KernelCompiler {
    /// NVRTC from a folder or the usual places, the cache of the user.
    pub fn of_user(nvrtc: Option<&Path>) -> KernelCompiler {
        KernelCompiler { nvrtc: nvrtc.map(Path::to_path_buf), cache: CubinCache::of_user() }
    }

    /// The machine code of every source for one architecture, for drivers that speak CUDA up to `newest` (12 or 13).
    ///
    /// NVRTC is opened when something is not in the cache, and compiles on all cores. Where there is none, code for an
    /// earlier architecture of the same generation serves, if it is in the cache.
    pub fn compile(&self, sources: &[&Source], arch: Arch, newest: u32) -> Result<Vec<Compiled>, NvrtcError> {
        let kept = |source: &Source, arch: Arch| {
            let found = self.cache.find(&source.text, arch, |version| version.major <= newest);
            found.map(|(_, compiled)| compiled)
        };
        let mut compiled: Vec<Option<Compiled>> = sources.iter().map(|source| kept(source, arch)).collect();
        let missing = compiled.iter_mut().zip(sources).filter(|(compiled, _)| compiled.is_none());
        let missing: Vec<(&mut Option<Compiled>, &&Source)> = missing.collect();
        if !missing.is_empty() {
            match Nvrtc::load_up_to(self.nvrtc.as_deref(), newest) {
                Ok(nvrtc) => {
                    let make = |(compiled, source): (&mut Option<Compiled>, &&Source)| {
                        *compiled = Some(self.make(&nvrtc, source, arch)?);
                        Ok(())
                    };
                    let made: Result<(), NvrtcError> = match preparation_pool(0) {
                        Some(pool) => pool.install(|| missing.into_par_iter().try_for_each(make)),
                        None => missing.into_iter().try_for_each(make),
                    };
                    made?;
                }
                Err(error) => {
                    for (compiled, source) in missing {
                        *compiled = arch.earlier().find_map(|arch| kept(source, arch));
                        if compiled.is_none() {
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(compiled.into_iter().map(|compiled| compiled.expect("every source was compiled")).collect())
    }

    fn make(&self, nvrtc: &Nvrtc, source: &Source, arch: Arch) -> Result<Compiled, NvrtcError> {
        let compiled = nvrtc.compile(&source.entry, &source.text, arch)?;
        // A cache that cannot be written costs time at the next start, and nothing else.
        let _ = self.cache.store(&source.text, arch, nvrtc.version(), &compiled);
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::nvrtc::Version;

    fn source(number: u32) -> Source {
        let text = format!("extern \"C\" __global__ void f(unsigned *x) {{ x[threadIdx.x] += {number}; }}");
        Source { entry: "f".to_string(), text }
    }

    fn fake(byte: u8) -> Compiled {
        Compiled { cubin: vec![byte; 8], resources: Vec::new() }
    }

    /// A compiler whose NVRTC is in an empty folder.
    fn without_nvrtc(folder: &Path) -> KernelCompiler {
        let cache = CubinCache::at(&folder.join("cubins"));
        KernelCompiler { nvrtc: Some(folder.to_path_buf()), cache }
    }

    #[test]
    fn what_is_in_the_cache_needs_no_nvrtc() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = without_nvrtc(folder.path());
        let (a, b) = (source(1), source(2));
        let version = Version { major: 12, minor: 9 };
        compiler.cache.store(&a.text, Arch::SM_80, version, &fake(1)).unwrap();
        compiler.cache.store(&b.text, Arch::SM_80, version, &fake(2)).unwrap();
        let sources = [&b, &a];
        assert_eq!(compiler.compile(&sources, Arch::SM_80, 12).unwrap(), [fake(2), fake(1)]);
        // A later GPU of the same generation takes them too.
        assert_eq!(compiler.compile(&sources, Arch::new(8, 9), 12).unwrap(), [fake(2), fake(1)]);
        // Another generation and an older driver do not.
        for (arch, newest) in [(Arch::SM_90, 12), (Arch::SM_80, 11)] {
            assert!(matches!(compiler.compile(&sources, arch, newest), Err(NvrtcError::Missing { .. })));
        }
        let missing = compiler.compile(&[&a, &source(3)], Arch::SM_80, 13);
        assert!(matches!(missing, Err(NvrtcError::Missing { .. })));
    }

    #[test]
    fn what_is_missing_or_damaged_is_compiled_and_kept() {
        if let Err(error) = Nvrtc::load(None) {
            println!("skipped: {error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::at(folder.path());
        let compiler = KernelCompiler { nvrtc: None, cache: cache.clone() };
        let sources = [source(1), source(2), source(3)];
        let sources = sources.each_ref();
        let first = compiler.compile(&sources, Arch::SM_90, 13).unwrap();
        assert_eq!(first.iter().map(|c| &c.resources[0].entry[..]).collect::<Vec<_>>(), ["f"; 3]);
        let offline = KernelCompiler { nvrtc: Some(folder.path().to_path_buf()), cache };
        assert_eq!(offline.compile(&sources, Arch::SM_90, 13).unwrap(), first);
        // A cache that cannot be written is no error.
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, b"in the way").unwrap();
        let compiler = KernelCompiler { nvrtc: None, cache: CubinCache::at(&blocked) };
        assert_eq!(compiler.compile(&sources, Arch::SM_90, 13).unwrap(), first);
    }
}
