//! Sets of input pictures with labels: MNIST's IDX pairs, CIFAR-10's binary batches, safetensors, PNG.

use crate::import::{ImportError, safetensors};
use crate::normalization::{self, Normalization};
use crate::picture::{self, PictureError};
use std::path::{Path, PathBuf};

/// Why a data set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path that names no data set.
    #[error(
        "{path} is no data set: {problem}. Known are IDX pairs (a directory with one *images* and one *labels* file, \
         one of these files, or their common prefix), CIFAR-10 binary batches (.bin), .safetensors with a tensor \
         `images` (and `labels`), and .png"
    )]
    Unknown {
        /// The path.
        path: PathBuf,
        /// What was found there.
        problem: String,
    },
    /// Bytes that contradict themselves.
    #[error("{path}: {problem}; the file may be damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A picture that cannot be used.
    #[error("{path}: {source}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PictureError,
    },
    /// Pictures that the network cannot take.
    #[error(
        "{path} has pictures of shape {shape:?}, but the network's normalization is for {channels} channels"
    )]
    Channels {
        /// The file.
        path: PathBuf,
        /// Shape of its pictures.
        shape: Vec<usize>,
        /// Channels of the normalization.
        channels: usize,
    },
    /// A safetensors file that cannot be used.
    #[error("{path}: {source}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ImportError>,
    },
}

/// Inputs of equal shape, in order, with labels where they are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    shape: Vec<usize>,
    values: Vec<f32>,
    labels: Vec<u32>,
}

/// What the values of a file are.
enum Content {
    /// What a network takes.
    Numbers,
    /// Pixels of digits.
    Digits,
    /// Pixels of CIFAR-10.
    Cifar10,
}

impl Dataset {
    /// Reads the data set at a path for a network that says nothing about normalization: see [`Dataset::open_with`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::open_with(path, None)
    }

    /// Reads the data set at a path; what it is shows from the names and contents there (see [`DataError::Unknown`]).
    ///
    /// Pixels of IDX files, PNG and CIFAR-10 become `[0, 1]` and are then normalized: as `normalization` says, or else as
    /// is usual for the data set (CIFAR-10 by [`normalization::CIFAR10`], digits not at all). Safetensors are taken as they
    /// are, `images [count, ...]` and `labels [count]`.
    pub fn open_with(path: &Path, normalization: Option<&Normalization>) -> Result<Self, DataError> {
        let (mut data, content) = Self::read(path)?;
        let usual = match content {
            Content::Numbers => return Ok(data),
            Content::Digits => None,
            Content::Cifar10 => Some(normalization::of(normalization::CIFAR10)),
        };
        let Some(normalization) = normalization.or(usual.as_ref()) else { return Ok(data) };
        let channels = normalization.channels();
        if data.shape[0] != channels {
            return Err(DataError::Channels { path: path.to_path_buf(), shape: data.shape, channels });
        }
        normalization.apply(&mut data.values, data.shape[1..].iter().product());
        Ok(data)
    }

    /// The data set at a path, with pixels in `[0, 1]`.
    fn read(path: &Path) -> Result<(Self, Content), DataError> {
        let digits = |data| (data, Content::Digits);
        if path.is_dir() {
            let images = only_file(path, "images")?;
            let labels = only_file(path, "labels")?;
            return Self::idx(&images, Some(&labels)).map(digits);
        }
        if !path.exists() {
            return Self::idx_by_prefix(path).map(digits);
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "bin" => Ok((Self::cifar10(path)?, Content::Cifar10)),
            "safetensors" => Ok((Self::safetensors(path)?, Content::Numbers)),
            "png" => {
                let digit = picture::read_digit(path)
                    .map_err(|source| DataError::Picture { path: path.to_path_buf(), source })?;
                Ok(digits(Self { shape: vec![1, 28, 28], values: digit, labels: Vec::new() }))
            }
            _ => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
                let labels = path.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
                if !name.contains("images") {
                    let problem = "its name ends in no known way and does not contain `images`".to_string();
                    return Err(DataError::Unknown { path: path.to_path_buf(), problem });
                }
                Self::idx(path, labels.exists().then_some(labels.as_path())).map(digits)
            }
        }
    }

    /// Inputs with their labels (none, or one for each input).
    ///
    /// # Panics
    /// If the lengths disagree.
    pub fn new(shape: Vec<usize>, values: Vec<f32>, labels: Vec<u32>) -> Self {
        let size: usize = shape.iter().product();
        assert!(
            size > 0 && values.len().is_multiple_of(size),
            "values do not fill inputs of shape {shape:?}"
        );
        assert!(labels.is_empty() || labels.len() == values.len() / size, "one label for each input");
        Self { shape, values, labels }
    }

    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.values.len() / self.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Shape of one input.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Input `index`, row-major.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn input(&self, index: usize) -> &[f32] {
        &self.values[index * self.size()..][..self.size()]
    }

    /// Its label, if the set has labels.
    pub fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    /// The labels of the first `count` inputs, if all of them have one.
    pub fn labels(&self, count: usize) -> Option<Vec<usize>> {
        self.labels.get(..count).map(|labels| labels.iter().map(|&label| label as usize).collect())
    }

    /// All inputs.
    pub fn inputs(&self) -> Vec<&[f32]> {
        self.values.chunks_exact(self.size()).collect()
    }

    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// An IDX pair: pictures (magic 0x803: count, height, width) and labels (magic 0x801: count), as on the page of
    /// the MNIST database.
    fn idx(images: &Path, labels: Option<&Path>) -> Result<Self, DataError> {
        let (extents, pixels) = read_idx(images, 3)?;
        let labels = match labels {
            None => Vec::new(),
            Some(path) => {
                let (count, labels) = read_idx(path, 1)?;
                if count[0] != extents[0] {
                    let problem = format!(
                        "it has {} labels, but {} has {} pictures",
                        count[0],
                        images.display(),
                        extents[0]
                    );
                    return Err(DataError::Damaged { path: path.to_path_buf(), problem });
                }
                labels.iter().map(|&label| label.into()).collect()
            }
        };
        let values = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
        Ok(Self { shape: vec![1, extents[1], extents[2]], values, labels })
    }

    /// The IDX pair whose files begin with the last part of `path`, as `mnist/t10k`.
    fn idx_by_prefix(path: &Path) -> Result<Self, DataError> {
        let missing = |source| DataError::Read { path: path.to_path_buf(), source };
        let absent = || missing(std::io::ErrorKind::NotFound.into());
        let (Some(parent), Some(prefix)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(absent());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let mut images = None;
        let mut labels = None;
        for entry in std::fs::read_dir(parent).map_err(missing)? {
            let found = entry.map_err(missing)?.path();
            let name = found.file_name().and_then(|name| name.to_str()).unwrap_or("");
            match name.strip_prefix(prefix) {
                Some(rest) if rest.contains("images") => images = Some(found),
                Some(rest) if rest.contains("labels") => labels = Some(found),
                _ => {}
            }
        }
        let images = images.ok_or_else(absent)?;
        Self::idx(&images, labels.as_deref())
    }

    /// CIFAR-10's binary layout: a label byte, then the planes red, green, blue of 32x32 pixels.
    fn cifar10(path: &Path) -> Result<Self, DataError> {
        const RECORD: usize = 1 + 3 * 32 * 32;
        let bytes = read(path)?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            let problem = format!("a CIFAR-10 batch is a multiple of {RECORD} bytes, it has {}", bytes.len());
            return Err(DataError::Damaged { path: path.to_path_buf(), problem });
        }
        let mut labels = Vec::with_capacity(bytes.len() / RECORD);
        let mut values = Vec::with_capacity(bytes.len());
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] > 9 {
                let problem = format!("record {index} has label {}, labels are below 10", record[0]);
                return Err(DataError::Damaged { path: path.to_path_buf(), problem });
            }
            labels.push(record[0].into());
            values.extend(record[1..].iter().map(|&pixel| f32::from(pixel) / 255.0));
        }
        Ok(Self { shape: vec![3, 32, 32], values, labels })
    }

    fn safetensors(path: &Path) -> Result<Self, DataError> {
        let mut tensors = safetensors::parse(&read(path)?)
            .map_err(|error| DataError::Tensors { path: path.to_path_buf(), source: Box::new(error) })?;
        let damaged = |problem: String| DataError::Damaged { path: path.to_path_buf(), problem };
        let Some(images) = tensors.remove("images") else {
            let names: Vec<_> = tensors.keys().take(8).map(String::as_str).collect();
            let problem = format!("it has no tensor `images`, only {}", names.join(", "));
            return Err(DataError::Unknown { path: path.to_path_buf(), problem });
        };
        let shape = match images.shape.split_first() {
            Some((_, shape)) if !shape.is_empty() && !images.values.is_empty() => shape.to_vec(),
            _ => return Err(damaged(format!("`images` has shape {:?}", images.shape))),
        };
        let labels = match tensors.remove("labels") {
            None => Vec::new(),
            Some(labels) if labels.shape == [images.shape[0]] => {
                let whole = |&v: &f32| (0.0..16_777_216.0).contains(&v) && v.fract() == 0.0;
                if !labels.values.iter().all(whole) {
                    return Err(damaged("`labels` holds something else than classes".into()));
                }
                labels.values.iter().map(|&value| value as u32).collect()
            }
            Some(labels) => {
                let problem = format!("`labels` has shape {:?}, `images` {:?}", labels.shape, images.shape);
                return Err(damaged(problem));
            }
        };
        Ok(Self { shape, values: images.values, labels })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::Read { path: path.to_path_buf(), source })
}

/// The one file of a directory with `part` in its name.
fn only_file(directory: &Path, part: &str) -> Result<PathBuf, DataError> {
    let failed = |source| DataError::Read { path: directory.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if name.contains(part) && path.is_file() {
            found.push(path);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (last, _) => Err(DataError::Unknown {
            path: directory.to_path_buf(),
            problem: format!(
                "the directory has {} files with `{part}` in their names where one was expected",
                found.len() + usize::from(last.is_some())
            ),
        }),
    }
}

/// Extents and bytes of an IDX file of unsigned bytes with `rank` dimensions; the sizes are checked against the
/// file's length.
fn read_idx(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let mut bytes = read(path)?;
    let damaged = |problem: String| DataError::Damaged { path: path.to_path_buf(), problem };
    let header = 4 + 4 * rank;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, rank as u8] {
        return Err(damaged(format!(
            "an IDX file of bytes with {rank} dimensions begins with 00 00 08 {rank:02x} and its extents"
        )));
    }
    let extents: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|word| word.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        .collect();
    let wanted = crate::tensor::element_count(&extents);
    if wanted != Some(bytes.len() - header) || wanted == Some(0) {
        return Err(damaged(format!("extents {extents:?} do not agree with {} bytes", bytes.len() - header)));
    }
    bytes.drain(..header);
    Ok((extents, bytes))
}
