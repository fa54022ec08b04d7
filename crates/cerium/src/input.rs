//! Inputs of a program from files: a picture, elements of a data set, or numbers.

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use cerium_models::data::Dataset;
use cerium_models::import::safetensors;
use cerium_models::normalization::Normalization;
use serde_json::Value;

use crate::files;

/// What `--input` accepts.
pub(crate) const FORMS: &str = "a picture (digit.png), an element of a data set (images-idx3-ubyte:17, folder:17, \
    batch.bin:17, data.safetensors:17) or several of them (folder:0..8), a tensor (x.safetensors), or numbers (x.json, x.csv)";

/// Reads the values of an input, or of each of a range of a data set, row by row, with pixels normalized as the program wants
/// them (see [`Dataset::open_with`]).
pub(crate) fn read(source: &str, normalization: Option<&Normalization>) -> Result<Vec<Vec<f32>>> {
    let Some((path, range)) = split_range(source) else { return Ok(vec![read_one(source, normalization)?]) };
    let data = Dataset::open_with(Path::new(path), normalization)?;
    if range.is_empty() {
        bail!("{source} names no input; folder:0..8 are the first eight of a data set");
    }
    if range.end > data.len() {
        bail!("{path} has {} inputs, counted from 0; there is no {}", data.len(), range.end - 1);
    }
    Ok(range.map(|index| data.input(index).to_vec()).collect())
}

/// The values of a file with one input.
fn read_one(source: &str, normalization: Option<&Normalization>) -> Result<Vec<f32>> {
    let path = Path::new(source);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    match extension.to_ascii_lowercase().as_str() {
        "png" => Ok(Dataset::open_with(path, normalization)?.input(0).to_vec()),
        "safetensors" => tensor(path),
        "json" => {
            let json =
                serde_json::from_slice(&bytes(path)?).with_context(|| format!("{source} is no JSON"))?;
            let mut values = Vec::new();
            flatten(&json, &mut values).with_context(|| format!("cannot use {source}"))?;
            Ok(values)
        }
        "csv" | "txt" => {
            let text = String::from_utf8(bytes(path)?).with_context(|| format!("{source} is no text"))?;
            numbers(&text).with_context(|| format!("cannot use {source}"))
        }
        _ => bail!("cannot tell what {source} is; an input is {FORMS}"),
    }
}

/// `path:17` or `path:0..8` as path and indices.
fn split_range(source: &str) -> Option<(&str, Range<usize>)> {
    let (path, indices) = source.rsplit_once(':')?;
    let range = match indices.split_once("..") {
        Some((first, end)) => first.parse().ok()?..end.parse().ok()?,
        None => {
            let index: usize = indices.parse().ok()?;
            index..index.checked_add(1)?
        }
    };
    Some((path, range))
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    files::read(path, "input", &format!("an input is {FORMS}"))
}

fn tensor(path: &Path) -> Result<Vec<f32>> {
    let tensors =
        safetensors::parse(&bytes(path)?).with_context(|| format!("cannot use {}", path.display()))?;
    let count = tensors.len();
    match tensors.into_values().next() {
        Some(tensor) if count == 1 => Ok(tensor.values),
        _ => bail!(
            "{} has {count} tensors where one is expected; a data set is named {0}:INDEX",
            path.display()
        ),
    }
}

fn flatten(json: &Value, values: &mut Vec<f32>) -> Result<()> {
    match json {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, values)),
        Value::Number(number) => {
            values.push(number.as_f64().ok_or_else(|| anyhow!("{number} is out of range"))? as f32);
            Ok(())
        }
        other => bail!("{other} is no number; an input is an array of numbers, or of arrays of them"),
    }
}

/// Numbers between commas, semicolons or white space.
fn numbers(text: &str) -> Result<Vec<f32>> {
    let separator = |c: char| c.is_whitespace() || c == ',' || c == ';';
    let fields = text.split(separator).filter(|field| !field.is_empty()).enumerate();
    fields
        .map(|(index, field)| {
            f32::from_str(field).map_err(|_| anyhow!("value {index}, {field:?}, is no number"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_numbers() {
        assert_eq!(numbers("1, 2.5;-3e1\n 4\r\n").unwrap(), [1.0, 2.5, -30.0, 4.0]);
        assert!(numbers("nan").unwrap()[0].is_nan());
        assert_eq!(numbers("1,two").unwrap_err().to_string(), "value 1, \"two\", is no number");
        let mut values = Vec::new();
        flatten(&serde_json::json!([[1, 2.5], [-3]]), &mut values).unwrap();
        assert_eq!(values, [1.0, 2.5, -3.0]);
        assert!(flatten(&serde_json::json!(["x"]), &mut values).is_err());
        assert_eq!(split_range("a/b:17"), Some(("a/b", 17..18)));
        assert_eq!(split_range("a/b:2..10"), Some(("a/b", 2..10)));
        for one in ["C:\\x.png", "a..b", "a:2..x", "a:18446744073709551615"] {
            assert_eq!(split_range(one), None);
        }
    }
}
