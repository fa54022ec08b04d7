//! Where the elements of a value lie in the slots.

use cerium_artifact::NO_ELEMENT;

/// The slots of a value's elements over one period; the slots of a ciphertext repeat it.
///
/// A picture lies on a grid of `rows x pitch` slots, the same for a whole network. Where strides have thinned it out, the
/// gaps between its pixels take further channels (multiplexed packing, Lee et al. 2022, ePrint 2021/1688), and where those
/// do not suffice, further blocks of the grid do:
///
/// ```text
/// 4 channels of 2x2 pixels, gap 2, in one block      the same in two blocks (columns of the gap unused)
/// a b a b                                            a . a .   c . c .
/// c d c d                                            b . b .   d . d .
/// a b a b                                            a . a .   c . c .
/// c d c d                                            b . b .   d . d .
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Slot of each element, below the period.
    slots: Vec<u32>,
    /// Element of each slot or [`NO_ELEMENT`]; its length is the period, a power of two.
    elements: Vec<u32>,
}

/// The grid on which the pictures of a network lie; both extents are powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grid {
    pub(super) rows: usize,
    pub(super) pitch: usize,
}

impl Layout {
    /// Elements in the first slots, with the next power of two as the period.
    pub fn vector(elements: usize) -> Self {
        Self::from_slots((0..elements as u32).collect(), elements.next_power_of_two())
    }

    /// All layouts of a picture `[channels, height, width]` on the grid, pixels `gap` slots apart, with a period of at most
    /// `slots`: every choice of a rectangle of gap positions (counts and distances powers of two) for channels.
    pub(super) fn pictures(shape: [usize; 3], grid: Grid, gap: [usize; 2], slots: usize) -> Vec<Self> {
        let [channels, height, width] = shape;
        let area = grid.rows.saturating_mul(grid.pitch);
        // Counts and distances of the channels along one axis of the gap; behind the last pixel they end with the grid.
        let along = |gap: usize, extent: usize, limit: usize| {
            let powers =
                |limit: usize| (0..usize::BITS).map(|log| 1usize << log).take_while(move |&p| p <= limit);
            powers(gap)
                .flat_map(move |count| powers(gap / count).map(move |step| (count, step)))
                .filter(move |&(count, step)| count > 1 || step == 1)
                .filter(move |&(count, step)| {
                    (extent - 1).saturating_mul(gap).saturating_add((count - 1) * step) < limit
                })
        };
        let mut layouts = Vec::new();
        for (down, down_step) in along(gap[0], height, grid.rows) {
            for (right, right_step) in along(gap[1], width, grid.pitch) {
                let inside = down * right;
                let period = channels.div_ceil(inside).next_power_of_two().saturating_mul(area);
                // Gap positions beyond the channels would only stay empty.
                if period > slots || inside >= 2 * channels {
                    continue;
                }
                let mut places = Vec::with_capacity(channels * height * width);
                for channel in 0..channels {
                    let (block, within) = (channel / inside, channel % inside);
                    let (y0, x0) = (within / right * down_step, within % right * right_step);
                    for y in 0..height {
                        let row = block * area + (y * gap[0] + y0) * grid.pitch + x0;
                        places.extend((0..width).map(|x| (row + x * gap[1]) as u32));
                    }
                }
                layouts.push(Self::from_slots(places, period));
            }
        }
        layouts
    }

    /// # Panics
    /// If the period is no power of two or two elements share a slot.
    pub(super) fn from_slots(slots: Vec<u32>, period: usize) -> Self {
        assert!(period.is_power_of_two(), "a period is a power of two");
        let mut elements = vec![NO_ELEMENT; period];
        for (element, &slot) in slots.iter().enumerate() {
            let there = &mut elements[slot as usize];
            assert_eq!(*there, NO_ELEMENT, "two elements share slot {slot}");
            *there = element as u32;
        }
        Self { slots, elements }
    }

    /// Number of slots after which it repeats.
    pub fn period(&self) -> usize {
        self.elements.len()
    }

    /// The slot of an element in the first period.
    pub fn slot(&self, element: usize) -> usize {
        self.slots[element] as usize
    }

    /// The element in each slot of one period, or [`NO_ELEMENT`].
    pub fn elements(&self) -> &[u32] {
        &self.elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_take_channels() {
        let grid = Grid { rows: 4, pitch: 4 };
        let layouts = Layout::pictures([4, 2, 2], grid, [2, 2], 64);
        // One block with all four in the gaps; two blocks with two side by side or one above the other; four blocks.
        assert_eq!(layouts.iter().map(Layout::period).collect::<Vec<_>>(), [64, 32, 32, 16]);
        let full = &layouts[3];
        let channel = |element: &u32| element / 4;
        let channels: Vec<u32> = full.elements().iter().map(channel).collect();
        assert_eq!(channels, [0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3]);
        assert_eq!(Layout::pictures([4, 2, 2], grid, [2, 2], 16).len(), 1);
    }
}
