//! Labelled rows of numbers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Rows of features in [-1, 1], each with a label.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// One row an example: an intercept of 1, then the features.
    pub(crate) rows: Vec<Vec<f64>>,
    /// 1 or -1.
    pub(crate) labels: Vec<f64>,
}

impl Table {
    /// Reads a file with a line of names, then a line an example: its label (0 or 1) and its features.
    pub(crate) fn read(path: &Path) -> Result<Table> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Table::parse(&text).with_context(|| format!("{} is no table of examples", path.display()))
    }

    /// The table in a text.
    pub(crate) fn parse(text: &str) -> Result<Table> {
        let mut table = Table { rows: Vec::new(), labels: Vec::new() };
        for (line, words) in text.lines().enumerate().skip(1) {
            let numbers = words.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>();
            let numbers = numbers.with_context(|| format!("line {}", line + 1))?;
            let [label, features @ ..] = &numbers[..] else { continue };
            ensure!([0.0, 1.0].contains(label), "line {}: a label must be 0 or 1", line + 1);
            ensure!(
                features.iter().all(|x| x.abs() <= 1.0),
                "line {}: features must be in [-1, 1]",
                line + 1
            );
            let row: Vec<f64> = [1.0].iter().chain(features).copied().collect();
            ensure!(
                table.rows.first().is_none_or(|first| first.len() == row.len()),
                "line {}: other lines have more or fewer features",
                line + 1
            );
            table.labels.push(2.0 * label - 1.0);
            table.rows.push(row);
        }
        ensure!(!table.rows.is_empty(), "it has no examples");
        Ok(table)
    }

    /// Numbers of a row, the intercept included.
    pub(crate) fn columns(&self) -> usize {
        self.rows[0].len()
    }

    /// The first rows and, of each, the first numbers; at least one of both.
    pub(crate) fn cut(mut self, rows: usize, columns: usize) -> Table {
        self.rows.truncate(rows.max(1));
        self.labels.truncate(rows.max(1));
        self.rows.iter_mut().for_each(|row| row.truncate(columns.max(1)));
        self
    }

    /// The share of rows on whose side of the plane their label is.
    pub(crate) fn accuracy(&self, weights: &[f64]) -> f64 {
        let margin = |row: &Vec<f64>| row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>();
        let right = self.rows.iter().zip(&self.labels).filter(|(row, label)| margin(row) * **label > 0.0);
        right.count() as f64 / self.rows.len() as f64
    }
}
