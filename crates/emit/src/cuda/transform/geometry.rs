//! How a transform is cut into kernels and passes.

/// Words that a thread holds.
pub(super) const WORDS: u32 = 16;

/// Base-2 logarithm of the largest limb that one block of threads transforms alone, and of the words of its tiles of others.
const LOG_BLOCK: u32 = 12;

/// Base-2 logarithm of the neighbouring words of a tile in the first stages: those of a warp, 128 bytes.
const LOG_COLUMNS: u32 = 5;

/// Stages of the first kernel of two, at most: a tile has eight thousand words then.
const MOST_FIRST: u32 = 8;

/// Stages of one kernel, all blocks of which have a tile each (`struct Tile` on the device).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    /// The first stage; stage s has 2^s groups of words.
    pub(super) first: u32,
    /// Number of stages.
    pub(super) stages: u32,
    /// Base-2 logarithm of the words of a tile.
    pub(super) log_tile: u32,
    /// The passes in order of the forward transform: the number of stages before it in the phase, and its own, 1 to 4.
    pub(super) passes: Vec<(u32, u32)>,
}

impl Phase {
    fn new(first: u32, stages: u32, log_tile: u32) -> Phase {
        // Four stages in the first pass, so that each thread has one group of 16 words there; the rest evenly, longer ones last,
        // where factors are made rather than loaded.
        let mut passes = vec![(0, stages.min(4))];
        let mut done = stages.min(4);
        for left in (1..=(stages - done).div_ceil(4)).rev() {
            let radix = (stages - done) / left;
            passes.push((done, radix));
            done += radix;
        }
        Phase { first, stages, log_tile, passes }
    }

    /// Threads of a block.
    pub(super) fn threads(&self) -> u32 {
        (1 << self.log_tile) / WORDS
    }
}

/// The kernels of a forward transform of `2^log_n` words, in order; those of an inverse are the same in reverse.
///
/// A small limb is transformed in one kernel. Else the first kernel pairs words that are far apart, 32 columns a tile, and the
/// second works on stretches.
pub(super) fn phases(log_n: u32) -> Vec<Phase> {
    if log_n <= LOG_BLOCK {
        return vec![Phase::new(0, log_n, log_n)];
    }
    let first = (log_n - 8).min(MOST_FIRST);
    vec![Phase::new(0, first, first + LOG_COLUMNS), Phase::new(first, log_n - first, LOG_BLOCK)]
}

/// The last stages of a transform of `2^log_n` words whose factors are made on the fly: they have 7/8 of all factors. They are
/// within the last pass.
pub(super) fn made_stages(log_n: u32) -> u32 {
    let phases = phases(log_n);
    let (_, radix) = phases[phases.len() - 1].passes[phases[phases.len() - 1].passes.len() - 1];
    radix.min(3).min(log_n / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_all_stages_once() {
        for log_n in 4..=17 {
            let mut next = 0;
            for phase in phases(log_n) {
                assert_eq!(phase.first, next);
                let mut within = 0;
                for &(start, radix) in &phase.passes {
                    assert_eq!(start, within);
                    assert!((1..=4).contains(&radix), "2^{log_n}: {phase:?}");
                    within += radix;
                }
                assert_eq!(within, phase.stages);
                assert_eq!(phase.passes[0].1, 4, "one group of words a thread");
                assert!(phase.threads() <= 1024 && phase.log_tile <= log_n);
                next += phase.stages;
            }
            assert_eq!(next, log_n);
        }
    }
}
