//! Slots on their way into an encoding.

use num_complex::Complex64;

/// One period of slots to encode, real and imaginary parts apart, and what encoding them needs besides: who encodes many
/// messages keeps one and fills it again.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    re: Vec<f64>,
    im: Vec<f64>,
    /// Words of integers, between the steps of an encoding.
    pub(super) integers: Vec<u32>,
}

impl Slots {
    /// None.
    pub fn new() -> Slots {
        Slots::default()
    }

    /// Forgets all slots, but keeps the memory.
    pub fn clear(&mut self) {
        self.re.clear();
        self.im.clear();
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.re.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.re.is_empty()
    }

    /// Appends slots that are real.
    pub fn extend_real(&mut self, slots: impl IntoIterator<Item = f64>) {
        self.re.extend(slots);
        self.im.resize(self.re.len(), 0.0);
    }

    /// At least the size of every slot; NaN or infinite if a slot is not finite.
    pub(super) fn bound(&self) -> f64 {
        // Bits of positive doubles are ordered as the doubles, with NaN behind all.
        let bits = |part: &[f64]| part.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
        f64::from_bits(bits(&self.re)) + f64::from_bits(bits(&self.im))
    }

    /// Real and imaginary parts.
    pub(super) fn parts(&mut self) -> [&mut [f64]; 2] {
        [&mut self.re, &mut self.im]
    }

    pub(super) fn to_complex(&self) -> Vec<Complex64> {
        self.re.iter().zip(&self.im).map(|(&re, &im)| Complex64 { re, im }).collect()
    }
}

impl<T: Into<Complex64>> Extend<T> for Slots {
    fn extend<I: IntoIterator<Item = T>>(&mut self, slots: I) {
        for slot in slots {
            let Complex64 { re, im } = slot.into();
            self.re.push(re);
            self.im.push(im);
        }
    }
}

impl<T: Into<Complex64>> FromIterator<T> for Slots {
    fn from_iter<I: IntoIterator<Item = T>>(slots: I) -> Slots {
        let mut all = Slots::new();
        all.extend(slots);
        all
    }
}
