//! Cerium beside other libraries, measured in one run, interleaved, on one thread.
//!
//! ```text
//! cargo run --release            # from benchmarks/peers
//! ```
//!
//! The result is printed, and written as JSON into `benchmarks/runs/<date>-<machine>/peers.json`. A peer that
//! cannot be built or run here is skipped with a word why; the rest still counts.

mod measure;
mod ntt;
mod operations;
mod record;

use anyhow::Result;
use record::{Comparison, Record};

fn main() -> Result<()> {
    let mut comparisons: Vec<Comparison> = vec![ntt::compare()?];
    comparisons.extend(operations::compare());
    for comparison in &comparisons {
        println!("{comparison}");
    }
    let path = Record::new(comparisons).write()?;
    println!("written to {}", path.display());
    Ok(())
}
