//! Rows of numbers as text, which stages pass from one to the next: a row a line, spaces between numbers.

use std::fmt::{Display, Write as _};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};

/// The rows of a file one by one, at least one, all of the same length and of finite numbers; `stage` writes the file.
pub(crate) fn read(path: &Path, stage: &str) -> Result<impl Iterator<Item = Result<Vec<f32>>> + use<>> {
    let unreadable = || format!("cannot read {}, which {stage} writes", path.display());
    let mut file = BufReader::new(File::open(path).with_context(unreadable)?);
    if file.fill_buf().with_context(unreadable)?.is_empty() {
        bail!("{} has no pictures; {stage} writes it", path.display());
    }
    let path = path.to_owned();
    let mut columns = None;
    let rows = file.lines().enumerate().map(move |(index, line)| {
        let row = line.map_err(anyhow::Error::from).and_then(|line| parse(&line));
        let row = row.with_context(|| format!("{}, line {}", path.display(), index + 1))?;
        let expected = *columns.get_or_insert(row.len());
        if row.len() != expected {
            bail!(
                "{}, line {}: {} numbers, the lines before have {expected}",
                path.display(),
                index + 1,
                row.len()
            );
        }
        Ok(row)
    });
    Ok(rows)
}

fn parse(line: &str) -> Result<Vec<f32>> {
    let numbers = line.split_ascii_whitespace().map(|field| {
        let number = f32::from_str(field).ok().filter(|number| number.is_finite());
        number.ok_or_else(|| anyhow!("{field:?} is no finite number"))
    });
    let row: Vec<f32> = numbers.collect::<Result<_>>()?;
    if row.is_empty() { Err(anyhow!("there are no numbers in it")) } else { Ok(row) }
}

/// A file that rows are written to, one by one; it gets its name when it is finished.
pub(crate) struct RowWriter {
    file: BufWriter<File>,
    unfinished: PathBuf,
    path: PathBuf,
    line: String,
}

impl RowWriter {
    /// Makes the file, and its folder if there is none.
    pub(crate) fn create(path: &Path) -> Result<RowWriter> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let unfinished = path.with_extension("unfinished");
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&unfinished));
        let file = file.with_context(|| format!("cannot create {}", unfinished.display()))?;
        Ok(RowWriter { file: BufWriter::new(file), unfinished, path: path.to_owned(), line: String::new() })
    }

    /// Writes numbers so that they are read back as they are.
    pub(crate) fn write<T: Display>(&mut self, row: &[T]) -> Result<()> {
        self.line.clear();
        for (index, number) in row.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(self.line, "{space}{number}").expect("a string takes what is written to it");
        }
        self.line.push('\n');
        self.file
            .write_all(self.line.as_bytes())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        let finished = self.file.flush().and_then(|()| fs::rename(&self.unfinished, &self.path));
        finished.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_pictures() {
        assert_eq!(parse(" 0.5 1  -2e-3 ").unwrap(), [0.5, 1.0, -0.002]);
        assert_eq!(parse("0.5 x").unwrap_err().to_string(), "\"x\" is no finite number");
        assert_eq!(parse("0.5 nan").unwrap_err().to_string(), "\"nan\" is no finite number");
        assert!(parse("  ").unwrap_err().to_string().contains("no numbers"));
    }
}
