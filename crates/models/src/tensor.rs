//! A dense tensor of raw weights.

/// Row-major values in single precision. `values.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Where it came from, as in the model file.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Values; finite once imported.
    pub values: Vec<f32>,
}

impl Tensor {
    /// A tensor of the given shape.
    ///
    /// # Panics
    /// If `values.len()` is not the product of `shape`: callers check what comes from outside.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let name = name.into();
        assert_eq!(element_count(&shape), Some(values.len()), "tensor {name}: values do not fill its shape");
        Self { name, shape, values }
    }

    /// The first value that is NaN or infinite, and its index.
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        self.values.iter().copied().enumerate().find(|(_, value)| !value.is_finite())
    }
}

/// The product of the extents, or `None` where it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))
}
