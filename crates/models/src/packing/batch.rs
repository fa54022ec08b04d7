//! Several pictures in one ciphertext.
//!
//! The batch is the innermost dimension: slot `s` of picture `b` is slot `places * s + b` of the ciphertext, for a power of
//! two of places.
//!
//! ```text
//! one picture of 4 slots, a ciphertext of 16    a b c d a b c d a b c d a b c d
//! a batch of 4                                  a a'a"a‴b b'b"b‴c c'c"c‴d d'd"d‴
//! ```
//!
//! A rotation by `places * r` rotates the slots of every picture by `r`, and what leaves a picture at its end enters it at
//! its beginning, because the slots of a ciphertext are one cycle. So a program for one picture in `slots / places` slots is
//! one for the batch with rotations `places` times as long and plaintexts whose slots stand `places` times each: a batch
//! costs what a picture costs, as long as the layouts that it leaves room for are as good.
//!
//! Pictures one behind the other would have plaintexts of shorter periods, since weights do not depend on the picture. But
//! rotations would carry the end of a picture into the next one, so that diagonals that wrap around were cut in two: as many
//! bytes of plaintexts where values fill their room, and up to twice the products and rotations.

use super::shortest;
use cerium_artifact::NO_ELEMENT;

/// How many pictures a ciphertext holds, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pictures: usize,
}

impl Batch {
    /// One picture, whose slots repeat where it leaves room.
    pub const ONE: Self = Self { pictures: 1 };

    /// # Panics
    /// If there are no pictures.
    pub fn new(pictures: usize) -> Self {
        assert!(pictures > 0, "a batch has at least one picture");
        Self { pictures }
    }

    /// Number of pictures.
    pub fn pictures(self) -> usize {
        self.pictures
    }

    /// Places for pictures: the next power of two.
    pub fn places(self) -> usize {
        self.pictures.checked_next_power_of_two().unwrap_or(usize::MAX / 2 + 1)
    }

    /// Slots that each picture has of so many in a ciphertext; 0 if there are more places than slots.
    pub fn room(self, slots: usize) -> usize {
        slots / self.places()
    }

    /// The slot of a picture's slot.
    pub fn slot(self, picture: usize, slot: usize) -> usize {
        self.places() * slot + picture
    }

    /// By how much the ciphertext is rotated so that every picture is by `offset`.
    pub fn rotation(self, offset: i64) -> i64 {
        self.places() as i64 * offset
    }

    /// The table of a weight that is the same for all pictures, from that for one of them.
    pub fn spread(self, table: &[u32]) -> Vec<u32> {
        shortest(table.iter().flat_map(|&entry| std::iter::repeat_n(entry, self.places())).collect())
    }

    /// The table of an input of `count` elements a picture. Places behind the last picture hold the first ones again: what
    /// is there is no harm to the range of any polynomial, as zeros might be.
    pub fn input(self, elements: &[u32], count: usize) -> Vec<u32> {
        self.table(elements, |place, element| ((place % self.pictures) * count) as u32 + element)
    }

    /// The table of an output of `count` elements a picture; places behind the last picture mean nothing.
    pub fn output(self, elements: &[u32], count: usize) -> Vec<u32> {
        self.table(elements, |place, element| match place < self.pictures {
            true => (place * count) as u32 + element,
            false => NO_ELEMENT,
        })
    }

    fn table(self, elements: &[u32], of: impl Fn(usize, u32) -> u32) -> Vec<u32> {
        let entry = |place, element| if element == NO_ELEMENT { element } else { of(place, element) };
        let entries =
            elements.iter().flat_map(|&element| (0..self.places()).map(move |place| (place, element)));
        entries.map(|(place, element)| entry(place, element)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_the_innermost_dimension() {
        const NONE: u32 = NO_ELEMENT;
        let batch = Batch::new(3);
        assert_eq!((batch.places(), batch.room(32), batch.room(2)), (4, 8, 0));
        assert_eq!((batch.slot(2, 5), batch.rotation(-3)), (22, -12));
        assert_eq!(
            batch.input(&[1, NONE, 0, NONE], 2),
            [1, 3, 5, 1, NONE, NONE, NONE, NONE, 0, 2, 4, 0, NONE, NONE, NONE, NONE]
        );
        assert_eq!(batch.output(&[1, 0], 2), [1, 3, 5, NONE, 0, 2, 4, NONE]);
        assert_eq!(batch.spread(&[7, NONE]), [7, 7, 7, 7, NONE, NONE, NONE, NONE]);
        // What all slots share has no period to keep.
        assert_eq!(batch.spread(&[7]), [7]);
        assert_eq!(Batch::ONE.input(&[1, NONE, 0, NONE], 2), [1, NONE, 0, NONE]);
        assert_eq!(Batch::new(usize::MAX).room(1 << 15), 0);
    }
}
