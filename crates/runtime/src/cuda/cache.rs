//! The cache of compiled kernels: `<folder>/<architecture>/<version of NVRTC>/<hash of the text>.cubin`.
//!
//! A name says all that the content depends on, so an entry never grows old; and the folder of one machine can be copied to
//! another, which then needs no NVRTC. Entries appear whole or not at all, and carry a checksum: what is damaged counts as
//! missing and is written anew. Without a folder, or with a full disk, everything works and kernels are compiled again.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Arch;
use super::nvrtc::{Compiled, Version};

/// First bytes of an entry; the number counts changes of the format.
const MAGIC: &[u8; 8] = b"cecubin1";
const CHECKSUM: usize = 32;

/// The folder `cerium` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`); `None` if the user has no home.
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(folder.join("cerium"))
}

/// Compiled kernels in a folder.
#[derive(Clone, Debug)]
pub struct CubinCache {
    folder: Option<PathBuf>,
}

impl CubinCache {
    /// The user's: the folder `cubins` in [`cache_folder`].
    pub fn of_user() -> CubinCache {
        CubinCache { folder: cache_folder().map(|folder| folder.join("cubins")) }
    }

    /// In a given folder, which is made when something is stored.
    pub fn at(folder: &Path) -> CubinCache {
        CubinCache { folder: Some(folder.to_path_buf()) }
    }

    /// The kernels of a text for an architecture, with the version of NVRTC that made them: the newest that `accept`s and
    /// is undamaged.
    pub fn find(
        &self,
        text: &str,
        arch: Arch,
        accept: impl Fn(Version) -> bool,
    ) -> Option<(Version, Compiled)> {
        let folder = self.folder.as_ref()?.join(arch.to_string());
        let entries = fs::read_dir(folder).ok()?.flatten();
        let versions = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut versions: Vec<Version> = versions.filter(|&version| accept(version)).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.into_iter().find_map(|version| {
            let key = Key { text: blake3::hash(text.as_bytes()), arch, version };
            Some((version, key.decode(&fs::read(self.path(&key)?).ok()?)?))
        })
    }

    /// Keeps the kernels of a text. The error is for those who want to know; nothing depends on it.
    pub fn store(&self, text: &str, arch: Arch, version: Version, compiled: &Compiled) -> io::Result<()> {
        let key = Key { text: blake3::hash(text.as_bytes()), arch, version };
        let Some(path) = self.path(&key) else { return Ok(()) };
        let folder = path.parent().expect("an entry stands in a folder");
        fs::create_dir_all(folder)?;
        // Others see the whole entry or none; a file that could not be written is removed.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&key.encode(compiled))?;
        file.persist(path)?;
        Ok(())
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        let Key { text, arch, version } = key;
        let folder = self.folder.as_ref()?.join(arch.to_string()).join(version.to_string());
        Some(folder.join(format!("{}.cubin", text.to_hex())))
    }
}

/// What an entry depends on.
struct Key {
    text: blake3::Hash,
    arch: Arch,
    version: Version,
}

impl Key {
    /// Magic, checksum, content.
    fn encode(&self, compiled: &Compiled) -> Vec<u8> {
        let content = postcard::to_allocvec(compiled).expect("plain data can be written into memory");
        [&MAGIC[..], self.checksum(&content).as_bytes(), &content].concat()
    }

    fn decode(&self, bytes: &[u8]) -> Option<Compiled> {
        let (checksum, content) = bytes.strip_prefix(MAGIC)?.split_at_checked(CHECKSUM)?;
        (checksum == self.checksum(content).as_bytes()).then(|| postcard::from_bytes(content).ok())?
    }

    /// Covers the key as well, so that an entry under a wrong name is a damaged one.
    fn checksum(&self, content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.text.as_bytes());
        hasher.update(format!("{} {}", self.arch, self.version).as_bytes());
        hasher.update(content).finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::nvrtc::Resources;

    const VERSION: Version = Version { major: 13, minor: 0 };

    fn compiled(byte: u8) -> Compiled {
        let resources = Resources { entry: "f".to_string(), registers: 40, ..Resources::default() };
        Compiled { cubin: vec![byte; 1000], resources: vec![resources] }
    }

    /// All files below a folder.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn what_was_stored_is_found_by_text_architecture_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::at(&folder.path().join("not yet there"));
        assert_eq!(cache.find("text", Arch::SM_90, |_| true), None);
        let older = Version { major: 12, minor: 9 };
        cache.store("text", Arch::SM_90, VERSION, &compiled(1)).unwrap();
        cache.store("text", Arch::SM_90, older, &compiled(2)).unwrap();
        assert_eq!(cache.find("text", Arch::SM_90, |_| true), Some((VERSION, compiled(1))));
        assert_eq!(cache.find("text", Arch::SM_90, |v| v.major <= 12), Some((older, compiled(2))));
        assert_eq!(cache.find("text", Arch::SM_90, |v| v.major <= 11), None);
        assert_eq!(cache.find("text", Arch::SM_80, |_| true), None);
        assert_eq!(cache.find("other text", Arch::SM_90, |_| true), None);
        assert_eq!(files(folder.path()).len(), 2, "nothing but the entries is left");
    }

    #[test]
    fn damaged_entries_are_missing_and_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CubinCache::at(folder.path());
        cache.store("text", Arch::SM_90, VERSION, &compiled(1)).unwrap();
        let [path] = &files(folder.path())[..] else { panic!("one file") };
        let whole = fs::read(path).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1 << (position % 8);
            fs::write(path, &damaged).unwrap();
            assert_eq!(cache.find("text", Arch::SM_90, |_| true), None, "byte {position}");
        }
        for length in 0..whole.len() {
            fs::write(path, &whole[..length]).unwrap();
            assert_eq!(cache.find("text", Arch::SM_90, |_| true), None, "length {length}");
        }
        // An older version that is whole still serves.
        let older = Version { major: 12, minor: 8 };
        cache.store("text", Arch::SM_90, older, &compiled(2)).unwrap();
        assert_eq!(cache.find("text", Arch::SM_90, |_| true), Some((older, compiled(2))));
        cache.store("text", Arch::SM_90, VERSION, &compiled(1)).unwrap();
        assert_eq!(cache.find("text", Arch::SM_90, |_| true), Some((VERSION, compiled(1))));
        // An entry under another's name.
        cache.store("other text", Arch::SM_90, VERSION, &compiled(3)).unwrap();
        let others = files(folder.path());
        let other = others.iter().find(|file| file.parent() == path.parent() && *file != path).unwrap();
        fs::copy(other, path).unwrap();
        assert_eq!(cache.find("text", Arch::SM_90, |version| version == VERSION), None);
    }

    #[test]
    fn without_a_place_to_write_nothing_is_kept() {
        let nowhere = CubinCache { folder: None };
        nowhere.store("text", Arch::SM_90, VERSION, &compiled(1)).unwrap();
        assert_eq!(nowhere.find("text", Arch::SM_90, |_| true), None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"in the way").unwrap();
        let blocked = CubinCache::at(&file);
        assert!(blocked.store("text", Arch::SM_90, VERSION, &compiled(1)).is_err());
        assert_eq!(blocked.find("text", Arch::SM_90, |_| true), None);
    }
}
