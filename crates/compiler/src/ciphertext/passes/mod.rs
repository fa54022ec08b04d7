//! Passes on the ciphertext level, in the order in which [`crate::compile`] runs them.

mod expand_linear_transform;
mod expand_poly_eval;
mod fit_keys;
mod fold_adjustments;
mod merge_rotations;
mod needs;
mod place_bootstraps;
mod place_levels;

pub use expand_linear_transform::expand_linear_transform;
pub use expand_poly_eval::{expand_poly_eval, poly_depth};
pub use fit_keys::{FitError, fit_keys};
pub use fold_adjustments::fold_adjustments;
pub use merge_rotations::merge_rotations;
pub use place_bootstraps::{BootstrapPlan, MIN_COPIES, place_bootstraps};
pub use place_levels::{PlaceError, place_levels};
