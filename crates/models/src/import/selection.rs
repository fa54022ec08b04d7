//! Some rows and columns of a picture, and zeros around them and around its channels.

use crate::graph::{Conv, Window};
use crate::tensor::Tensor;

/// Every `stride`-th row and column of a picture with `padding` around it, between `zero_channels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Which rows and columns of the padded picture stay, the first being one of them; at least 1.
    pub(super) stride: [usize; 2],
    /// Zeros at top, left, bottom, right; below 2^31.
    pub(super) padding: [usize; 4],
    /// Zero channels before and after those of the picture; below 2^31.
    pub(super) zero_channels: [usize; 2],
}

/// Most weights that the selections of a network may have together: they are not in the file, so its size does not bound
/// them.
pub(super) const MAX_WEIGHTS: usize = 1 << 22;

impl Selection {
    /// This one and `next` behind it as one; `None` where that is none.
    pub(super) fn then(&self, next: &Self) -> Option<Self> {
        let mut joined = *self;
        for axis in 0..2 {
            // Zeros that are put around what is left: as many strides before. At the end fewer could do, and where they
            // are more, rows of zeros more are left.
            if next.padding[axis + 2] > 0 && self.stride[axis] > 1 {
                return None;
            }
            let before = next.padding[axis].checked_mul(self.stride[axis])?;
            joined.padding[axis] = self.padding[axis].checked_add(before)?;
            joined.padding[axis + 2] = self.padding[axis + 2].checked_add(next.padding[axis + 2])?;
            joined.stride[axis] = self.stride[axis].checked_mul(next.stride[axis])?;
            joined.zero_channels[axis] = self.zero_channels[axis].checked_add(next.zero_channels[axis])?;
        }
        Some(joined)
    }

    /// Whether it only puts zeros around the picture, as the window of a convolution can.
    pub(super) fn is_padding(&self) -> bool {
        self.stride == [1, 1] && self.zero_channels == [0, 0]
    }

    /// A convolution of one tap that takes each channel from where it is, or from nowhere. All but one of the weights of an
    /// output are zero, and zeros cost nothing under encryption. Its weights are taken from `budget`; `None` where it does not suffice.
    pub(super) fn conv(&self, name: &str, channels: usize, budget: &mut usize) -> Option<Conv> {
        let [before, after] = self.zero_channels;
        let window = Window { stride: self.stride, padding: self.padding, ..Window::default() };
        let outputs = before.checked_add(channels)?.checked_add(after)?;
        let is_depthwise = self.zero_channels == [0, 0];
        let per_group = if is_depthwise { 1 } else { channels };
        let size = outputs.checked_mul(per_group)?;
        *budget = budget.checked_sub(size)?;
        if is_depthwise {
            let weight = Tensor::new(name, vec![channels, 1, 1, 1], vec![1.0; channels]);
            return Some(Conv { weight, bias: vec![0.0; channels], window, groups: channels });
        }
        let mut values = vec![0.0; size];
        (0..channels).for_each(|channel| values[(before + channel) * channels + channel] = 1.0);
        let weight = Tensor::new(name, vec![outputs, channels, 1, 1], values);
        Some(Conv { weight, bias: vec![0.0; outputs], window, groups: 1 })
    }
}
