//! Passes on the limb level, in the order in which [`crate::compile`] runs them.

mod cancel_transforms;
mod fold_scalars;
mod form_dots;
mod order_by_prime;

pub use cancel_transforms::cancel_transforms;
pub use fold_scalars::fold_scalars;
pub use form_dots::form_dots;
pub use order_by_prime::order_by_prime;
