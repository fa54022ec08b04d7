//! Who adds what: the words of all limbs of a sum, one behind the other, are cut into a share for each rank.

use std::ops::Range;

/// The words that a rank adds, of `words` words in all.
pub(super) fn share(words: usize, rank: usize, size: usize) -> Range<usize> {
    words * rank / size..words * (rank + 1) / size
}

/// A part of a share that lies in one limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Which limb.
    pub(super) limb: usize,
    /// Its first word there.
    pub(super) offset: usize,
    /// Its first word in the share.
    pub(super) start: usize,
    /// Number of words.
    pub(super) words: usize,
}

/// A share, limb by limb.
pub(super) fn segments(share: Range<usize>, limb_words: usize) -> impl Iterator<Item = Segment> {
    let mut next = share.start;
    std::iter::from_fn(move || {
        let (limb, offset) = (next / limb_words, next % limb_words);
        let words = (share.end - next).min(limb_words - offset);
        let segment = Segment { limb, offset, start: next - share.start, words };
        next += words;
        (words > 0).then_some(segment)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_words_once() {
        for (limbs, limb_words, size) in [(0, 4, 3), (1, 4, 3), (5, 8, 3), (3, 16, 8), (2, 2, 8)] {
            let mut words = Vec::new();
            for rank in 0..size {
                let range = share(limbs * limb_words, rank, size);
                let mut start = 0;
                for segment in segments(range.clone(), limb_words) {
                    assert_eq!(segment.start, start);
                    assert!(segment.words > 0 && segment.offset + segment.words <= limb_words);
                    words.extend((0..segment.words).map(|i| segment.limb * limb_words + segment.offset + i));
                    start += segment.words;
                }
                assert_eq!(start, range.len());
            }
            assert_eq!(words, (0..limbs * limb_words).collect::<Vec<_>>());
        }
    }
}
