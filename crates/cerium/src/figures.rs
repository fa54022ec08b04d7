//! How figures and reports are shown.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

/// Writes a report to standard output. A reader that has seen enough (`cerium explain P.cerium | head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes one JSON object to standard output.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

/// Bytes in decimal units with three digits: `1.31 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => three(bytes as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => three(bytes as f64 / 1e6, "MB"),
        _ => three(bytes as f64 / 1e9, "GB"),
    }
}

/// Reads a number of bytes with or without a decimal unit: `4GB`, `1.5 MB`, `100000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64> {
    let error = || anyhow!("`{text}` is not a size; write a number with B, kB, MB, GB or TB, such as 4GB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(error()),
    };
    let bytes = number.parse::<f64>().map_err(|_| error())? * factor;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(error()) }
}

/// A duration with three digits: `8.23 ms`.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s >= 1.0 => three(s, "s"),
        s if s >= 1e-3 => three(s * 1e3, "ms"),
        s => three(s * 1e6, "us"),
    }
}

/// As [`duration`], of seconds that are no less than 0.
pub(crate) fn seconds(seconds: f64) -> String {
    duration(Duration::from_secs_f64(seconds))
}

fn three(value: f64, unit: &str) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A small number in scientific form, zero as `0`.
pub(crate) fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// Rows of cells as aligned columns: the first one to the left, the others to the right; every line begins with
/// two spaces.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    columns(rows, 1)
}

/// As [`table`], with the first `left` columns to the left.
pub(crate) fn columns(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += if index == 0 { " " } else { "  " };
            line += &if index < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// A row of a [`table`].
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// A grey picture (row-major, values in `[0, 1]`, bright is ink) as text: two rows of pixels a line, in half blocks.
pub(crate) fn picture(pixels: &[f32], width: usize) -> String {
    // Shown where there is ink, so that it reads the same on dark and light terminals.
    let ink = |row: Option<&[f32]>, x: usize| row.is_some_and(|row| row[x] > 0.35);
    let rows: Vec<&[f32]> = pixels.chunks_exact(width).collect();
    let mut text = String::new();
    for pair in rows.chunks(2) {
        let line: String = (0..width)
            .map(|x| match (ink(Some(pair[0]), x), ink(pair.get(1).copied(), x)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            })
            .collect();
        text += line.trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("4GB").unwrap(), 4_000_000_000);
        assert_eq!(parse_bytes("1.5 mb").unwrap(), 1_500_000);
        assert_eq!(parse_bytes("700").unwrap(), 700);
        for wrong in ["", "GB", "4 pigs", "-1GB", "1.2.3", "0", "9999999999999TB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [0, 999, 1000, 65_536, 131_900_000, 7_000_000_000].map(bytes),
            ["0 B", "999 B", "1.00 kB", "65.5 kB", "132 MB", "7.00 GB"]
        );
        let shown = |micros| duration(Duration::from_micros(micros));
        assert_eq!([4, 8230, 812_000, 1_250_000].map(shown), ["4.00 us", "8.23 ms", "812 ms", "1.25 s"]);
        assert_eq!([small(0.0), small(0.000_12)], ["0", "1.2e-4"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [row(["stage", "time"]), row(["a", "1 s"]), row(["long name"])];
        assert_eq!(table(&rows), "  stage      time\n  a           1 s\n  long name\n");
    }

    #[test]
    fn pictures_are_half_blocks() {
        let pixels = [1.0, 0.0, 1.0, 0.0, /**/ 0.0, 1.0, 1.0, 0.0, /**/ 1.0, 0.0, 0.0, 0.0];
        assert_eq!(picture(&pixels, 4), "▀▄█\n▀\n");
    }
}
