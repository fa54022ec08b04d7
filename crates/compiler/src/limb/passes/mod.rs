//! Passes on the limb level, in the order in which [`crate::compile`] runs them.

mod cancel_transforms;
mod fold_scalars;
mod form_dots;

pub use cancel_transforms::cancel_transforms;
pub use fold_scalars::fold_scalars;
pub use form_dots::form_dots;
