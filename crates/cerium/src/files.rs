//! Files that one command writes and another reads.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// Reads a file; `what` it is and `hint`, where one comes from, are for the error.
pub(crate) fn read(path: &Path, what: &str, hint: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no {what} at {}; {hint}", path.display()),
        _ => anyhow::Error::new(error).context(format!("cannot read the {what} {}", path.display())),
    })
}

/// Writes a file whole or not at all: to a temporary one beside it, made durable, then renamed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".cerium-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666)); // less the umask, as for any file
        }
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok::<(), std::io::Error>(())
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}
