//! The artifact file.
//!
//! Little endian; every section begins at a multiple of 64 bytes and the gaps are zero:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | magic `CERPROG\x1a` |
//! | 8..12 | format version |
//! | 12..16 | zero |
//! | 16..48 | length of the four sections: structure (bytes), gathers (words), tensors (words), model (bytes), `u64` each |
//! | 48..64 | zero |
//! | structure | everything but the tables' words, as `postcard` |
//! | gathers | the slot tables one after the other, `u32` |
//! | tensors | the words of the raw weights one after the other ([`Values`](crate::Values)), `u32` |
//! | model | the model file |
//! | last 32 | BLAKE3 of all bytes before |
//!
//! The checksum finds accidents, not malice: nobody signs it. Whatever was read is therefore validated before
//! it is handed out ([`Artifact::validate`]).

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::ParamsSpec;
use serde::{Deserialize, Serialize};

use crate::{
    Artifact, ArtifactError, CommunicationFigures, DeviceId, Element, Function, KeyPlan, Normalization,
    PassFigures, Port, Recipe, Stage, Tensor, Values,
};

const MAGIC: [u8; 8] = *b"CERPROG\x1a";
/// The format version that this build writes and reads.
pub const VERSION: u32 = 10;
const ALIGN: usize = 64;
const HEADER: usize = 64;
const CHECKSUM: usize = blake3::OUT_LEN;

/// The structured section: the artifact with its tables replaced by their lengths.
#[derive(Serialize, Deserialize)]
struct Structure<'a> {
    name: Cow<'a, str>,
    params: Cow<'a, ParamsSpec>,
    programs: Cow<'a, [Vec<Function>]>,
    homes: Cow<'a, [DeviceId]>,
    inputs: Cow<'a, [Port]>,
    outputs: Cow<'a, [Port]>,
    keys: Cow<'a, [KeyRequest]>,
    weights: Cow<'a, [Recipe]>,
    stages: Cow<'a, [Stage]>,
    passes: Cow<'a, [PassFigures]>,
    communication: Cow<'a, [CommunicationFigures]>,
    key_plan: Cow<'a, Option<KeyPlan>>,
    normalization: Cow<'a, Option<Normalization>>,
    gathers: Vec<u64>,
    tensors: Vec<(Cow<'a, str>, Element, u64)>,
}

impl Artifact {
    /// Writes the artifact to a temporary file beside `path`, then renames it: `path` holds the old file or
    /// the whole new one, whatever happens.
    pub fn write(&self, path: &Path) -> Result<(), ArtifactError> {
        let structure = self.encode_structure()?;
        replace(path, |file| self.write_sections(&structure, file).map(drop))
            .map_err(|source| ArtifactError::io("write", path, source))
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut bytes = Vec::new();
        self.write_sections(&self.encode_structure()?, &mut bytes).expect("a vector accepts all bytes");
        Ok(bytes)
    }

    /// Identity of the program: the checksum of its file. Ciphertexts carry it.
    pub fn digest(&self) -> Result<[u8; CHECKSUM], ArtifactError> {
        let structure = self.encode_structure()?;
        Ok(self.write_sections(&structure, &mut io::sink()).expect("a sink accepts all bytes"))
    }

    /// Reads and validates the file at `path`.
    pub fn read(path: &Path) -> Result<Artifact, ArtifactError> {
        Artifact::from_bytes(&std::fs::read(path).map_err(|e| ArtifactError::io("read", path, e))?)
    }

    /// Parses and validates the bytes of a file. They may be anything: the answer is an artifact that can be
    /// executed, or an error, and what is allocated on the way is proportional to `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
        let artifact = Artifact::parse(bytes)?;
        artifact.validate()?;
        Ok(artifact)
    }

    fn encode_structure(&self) -> Result<Vec<u8>, ArtifactError> {
        let header = |t: &'_ Tensor| (t.name.clone().into(), t.values.element(), t.values.len() as u64);
        let structure = Structure {
            name: (&self.name).into(),
            params: Cow::Borrowed(&self.params),
            programs: (&self.programs).into(),
            homes: (&self.homes).into(),
            inputs: (&self.inputs).into(),
            outputs: (&self.outputs).into(),
            keys: (&self.keys).into(),
            weights: (&self.weights).into(),
            stages: (&self.stages).into(),
            passes: Cow::Borrowed(&self.passes),
            communication: Cow::Borrowed(&self.communication),
            key_plan: Cow::Borrowed(&self.key_plan),
            normalization: Cow::Borrowed(&self.normalization),
            gathers: self.gathers.iter().map(|gather| gather.len() as u64).collect(),
            tensors: self.tensors.iter().map(header).collect(),
        };
        postcard::to_stdvec(&structure).map_err(|e| ArtifactError::Unstorable(e.to_string()))
    }

    /// Writes all sections and the checksum, and returns it.
    fn write_sections(&self, structure: &[u8], out: &mut impl Write) -> io::Result<[u8; CHECKSUM]> {
        let mut out = Hashing { out, hasher: blake3::Hasher::new(), written: 0 };
        let gathers: u64 = self.gathers.iter().map(|gather| gather.len() as u64).sum();
        let tensors: u64 = self.tensors.iter().map(|tensor| tensor.values.words().len() as u64).sum();
        out.put(&MAGIC)?;
        out.put(&VERSION.to_le_bytes())?;
        out.put(&[0; 4])?;
        for length in [structure.len() as u64, gathers, tensors, self.model.len() as u64] {
            out.put(&length.to_le_bytes())?;
        }
        out.align()?;
        out.put(structure)?;
        out.align()?;
        for gather in &self.gathers {
            out.put_words(gather.iter().copied())?;
        }
        out.align()?;
        for tensor in &self.tensors {
            out.put_words(tensor.values.words().iter().copied())?;
        }
        out.align()?;
        out.put(&self.model)?;
        out.align()?;
        let checksum = out.hasher.finalize();
        out.put(checksum.as_bytes())?;
        Ok(checksum.into())
    }

    fn parse(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
        let sections = Sections::find(bytes)?;
        let (structure, rest) = postcard::take_from_bytes::<Structure>(sections.structure)
            .map_err(|e| ArtifactError::Damaged(format!("its structure cannot be read ({e})")))?;
        if !rest.is_empty() {
            return Err(ArtifactError::Damaged(format!("its structure has {} bytes too many", rest.len())));
        }
        let mut gather_words = Words { bytes: sections.gathers, what: "gather tables" };
        let gathers = structure.gathers.iter().map(|&length| Ok(gather_words.take(length)?.collect()));
        let gathers = gathers.collect::<Result<_, ArtifactError>>()?;
        gather_words.finish()?;
        let mut tensor_words = Words { bytes: sections.tensors, what: "tensors" };
        let tensors = structure.tensors.into_iter().map(|(name, element, length)| {
            let words = tensor_words.take(length.div_ceil(element.per_word() as u64))?.collect();
            let values = Values::from_words(element, length as usize, words).ok_or_else(|| {
                ArtifactError::Damaged(format!("there are bits behind the last value of tensor `{name}`"))
            })?;
            Ok(Tensor { name: name.into_owned(), values })
        });
        let tensors = tensors.collect::<Result<_, ArtifactError>>()?;
        tensor_words.finish()?;
        Ok(Artifact {
            name: structure.name.into_owned(),
            params: structure.params.into_owned(),
            programs: structure.programs.into_owned(),
            homes: structure.homes.into_owned(),
            inputs: structure.inputs.into_owned(),
            outputs: structure.outputs.into_owned(),
            keys: structure.keys.into_owned(),
            weights: structure.weights.into_owned(),
            stages: structure.stages.into_owned(),
            passes: structure.passes.into_owned(),
            communication: structure.communication.into_owned(),
            key_plan: structure.key_plan.into_owned(),
            normalization: structure.normalization.into_owned(),
            gathers,
            tensors,
            model: sections.model.to_vec(),
        })
    }
}

/// Replaces the file at `path` by what `write` writes, or leaves everything as it was.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cerium-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask, as for any file
    }
    let mut file = builder.tempfile_in(directory)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The sections of a file, as found by its header; checksum and gaps are verified.
struct Sections<'a> {
    structure: &'a [u8],
    gathers: &'a [u8],
    tensors: &'a [u8],
    model: &'a [u8],
}

impl<'a> Sections<'a> {
    fn find(bytes: &'a [u8]) -> Result<Sections<'a>, ArtifactError> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(ArtifactError::NotAnArtifact);
        }
        let truncated =
            || ArtifactError::Damaged(format!("it ends after {} bytes, within its header", bytes.len()));
        let version = bytes.get(8..12).ok_or_else(truncated)?;
        let version = u32::from_le_bytes(version.try_into().expect("four bytes"));
        if version != VERSION {
            return Err(ArtifactError::OtherVersion { found: version, expected: VERSION });
        }
        if bytes.len() < HEADER + CHECKSUM {
            return Err(truncated());
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        let field = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("eight bytes"));
        let lengths = [(field(16), 1), (field(24), 4), (field(32), 4), (field(40), 1)];
        let mut ranges = [(0, 0); 4];
        let mut end = HEADER as u64;
        for (range, (count, size)) in ranges.iter_mut().zip(lengths) {
            // 2^48 bytes are beyond any file; below, nothing here overflows.
            let length = count.checked_mul(size).filter(|&length| length < 1 << 48);
            let length = length.ok_or_else(|| {
                ArtifactError::Damaged(format!("its header names a section of {count} items"))
            })?;
            *range = (end, end + length);
            end = (end + length).next_multiple_of(ALIGN as u64);
        }
        if end != content.len() as u64 {
            let (found, expected) = (bytes.len(), end + CHECKSUM as u64);
            return Err(ArtifactError::Damaged(format!("it has {found} bytes, its header says {expected}")));
        }
        if blake3::hash(content).as_bytes() != checksum {
            return Err(ArtifactError::Damaged("its checksum does not match".into()));
        }
        let section = |(start, end): (u64, u64)| &content[start as usize..end as usize];
        let gap = |(_, end): (u64, u64)| {
            let end = end as usize;
            &content[end..end.next_multiple_of(ALIGN)]
        };
        let header = [&content[12..16], &content[48..HEADER]];
        if header.into_iter().chain(ranges.map(gap)).flatten().any(|&byte| byte != 0) {
            return Err(ArtifactError::Damaged("there are bytes between its sections".into()));
        }
        let [structure, gathers, tensors, model] = ranges.map(section);
        Ok(Sections { structure, gathers, tensors, model })
    }
}

/// Words of a raw section that are not yet taken.
struct Words<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Words<'a> {
    fn take(&mut self, words: u64) -> Result<impl Iterator<Item = u32> + use<'a>, ArtifactError> {
        let length = usize::try_from(words).ok().and_then(|words| words.checked_mul(4));
        let taken = length.and_then(|length| self.bytes.split_at_checked(length));
        let (taken, rest) = taken.ok_or_else(|| {
            ArtifactError::Damaged(format!("its {} are longer than their section", self.what))
        })?;
        self.bytes = rest;
        Ok(taken.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)))
    }

    fn finish(self) -> Result<(), ArtifactError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(ArtifactError::Damaged(format!("{} bytes follow its {}", self.bytes.len(), self.what)))
    }
}

/// A writer that hashes what passes through it.
struct Hashing<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
    written: usize,
}

impl<W: Write> Hashing<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn put_words(&mut self, words: impl Iterator<Item = u32>) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        for word in words {
            buffer.extend_from_slice(&word.to_le_bytes());
            if buffer.len() == buffer.capacity() {
                self.put(&buffer)?;
                buffer.clear();
            }
        }
        self.put(&buffer)
    }

    fn align(&mut self) -> io::Result<()> {
        let gap = self.written.next_multiple_of(ALIGN) - self.written;
        self.put(&[0; ALIGN][..gap])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_changes_nothing_and_says_so() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.cerium");
        std::fs::write(&path, b"old").expect("a small file");
        let full = |file: &mut BufWriter<&mut File>| {
            file.write_all(b"the first half of the new fi")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = ArtifactError::io("write", &path, replace(&path, full).expect_err("the disk is full"));
        assert!(matches!(error, ArtifactError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("x.cerium"), "{error}");
        assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), 1);
        replace(&path, |file| file.write_all(b"new")).expect("there is room again");
        assert_eq!(std::fs::read(&path).expect("the new file"), b"new");
    }
}
