//! Raw weights: tensors of 16-bit or 32-bit floats.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Raw weights, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Where it came from, as in the model file.
    pub name: String,
    /// Values; every one is finite.
    pub values: Values,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Element {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl Element {
    /// Values in a word of 32 bits.
    pub fn per_word(self) -> usize {
        match self {
            Element::F32 => 1,
            Element::F16 | Element::Bf16 => 2,
        }
    }

    /// The value that the lowest bits of `bits` stand for, exactly.
    fn decode(self, bits: u32) -> f32 {
        match self {
            Element::F32 => f32::from_bits(bits),
            Element::F16 => f16::from_bits(bits as u16).to_f32(),
            Element::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        }
    }

    /// The bits of a value, or `None` if it is not exactly one of this kind.
    fn encode(self, value: f32) -> Option<u32> {
        let bits = match self {
            Element::F32 => value.to_bits(),
            Element::F16 => f16::from_f32(value).to_bits().into(),
            Element::Bf16 => bf16::from_f32(value).to_bits().into(),
        };
        // By their bits: zeros have signs.
        (self.decode(bits).to_bits() == value.to_bits()).then_some(bits)
    }
}

/// The values of a tensor, in words as they are stored in files and on devices: 16-bit values lie two in a word, the first in
/// the lower half, and what is left of the last word is zero. Clones share them.
#[derive(Clone, PartialEq)]
pub struct Values {
    element: Element,
    len: usize,
    words: Arc<[u32]>,
}

impl Values {
    /// Values that are stored as `element`; `None` if there are not as many words as `len` values take, or what is left
    /// of the last one is not zero.
    pub fn from_words(element: Element, len: usize, words: Vec<u32>) -> Option<Values> {
        let per_word = element.per_word();
        let rest = if len.is_multiple_of(per_word) { 0 } else { words.last()? >> 16 };
        let fits = words.len() == len.div_ceil(per_word) && rest == 0;
        fits.then(|| Values { element, len, words: words.into() })
    }

    fn try_encode(values: &[f32], element: Element) -> Option<Values> {
        let bits = values.iter().map(|&value| element.encode(value)).collect::<Option<Vec<u32>>>()?;
        // The first is the lowest.
        let word = |values: &[u32]| values.iter().rev().fold(0, |word, bits| word << 16 | bits);
        let words = bits.chunks(element.per_word()).map(word).collect();
        Some(Values { element, len: values.len(), words })
    }

    /// How they are stored.
    pub fn element(&self) -> Element {
        self.element
    }

    /// How they lie in memory.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the words.
    pub fn bytes(&self) -> u64 {
        4 * self.words.len() as u64
    }

    /// The value with this index. Panics if there is none.
    pub fn get(&self, index: usize) -> f32 {
        assert!(index < self.len, "value {index} of {}", self.len);
        // Without a division by what is only known here: plaintexts are made of millions of values.
        let bits = match self.element {
            Element::F32 => self.words[index],
            Element::F16 | Element::Bf16 => self.words[index / 2] >> (16 * (index % 2)),
        };
        self.element.decode(bits)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = f32> + '_ {
        (0..self.len).map(|index| self.get(index))
    }
}

impl From<Vec<f32>> for Values {
    /// In 16 bits if all of them are exact in one of the formats, as those of a file in half precision are.
    fn from(values: Vec<f32>) -> Values {
        let short = [Element::Bf16, Element::F16].into_iter().find_map(|e| Values::try_encode(&values, e));
        short.unwrap_or_else(|| Values {
            element: Element::F32,
            len: values.len(),
            words: values.into_iter().map(f32::to_bits).collect(),
        })
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.element)?;
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_shortest_exact_form() {
        let cases = [
            (vec![], Element::Bf16),
            (vec![1.0, -0.0, 1.5 * 2f32.powi(127)], Element::Bf16),
            (vec![1.0, 1.0 + 1.0 / 1024.0, -6.0e-8], Element::F32),
            (vec![1.0, 1.0 + 1.0 / 1024.0, 2f32.powi(-24), -65504.0], Element::F16),
            (vec![0.1], Element::F32),
            (vec![1.0, f32::INFINITY], Element::Bf16),
        ];
        for (values, element) in cases {
            let stored = Values::from(values.clone());
            assert_eq!(stored.element(), element, "{values:?}");
            assert_eq!(stored.bytes() as usize, 4 * values.len().div_ceil(element.per_word()));
            let bits = |values: &mut dyn Iterator<Item = f32>| values.map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(&mut stored.iter()), bits(&mut values.into_iter()));
            let again = Values::from_words(element, stored.len(), stored.words().to_vec());
            assert_eq!(again, Some(stored));
        }
    }

    #[test]
    fn words_that_are_no_values_are_refused() {
        assert_eq!(Values::from_words(Element::F32, 2, vec![0]), None);
        assert_eq!(Values::from_words(Element::F16, 3, vec![0; 3]), None);
        assert_eq!(Values::from_words(Element::F16, 1, vec![]), None);
        assert_eq!(Values::from_words(Element::Bf16, 1, vec![1 << 16]), None);
        assert!(Values::from_words(Element::Bf16, 2, vec![1 << 16]).is_some());
    }
}
