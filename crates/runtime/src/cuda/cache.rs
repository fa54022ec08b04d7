//! Where compiled kernels are kept.

use std::env;
use std::path::PathBuf;

/// The folder `cerium` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`); `None` if the user has no home.
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(folder.join("cerium"))
}
