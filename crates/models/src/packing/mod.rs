//! From tensors to slots: where every value lies, and linear layers as generalized diagonals.

mod batch;
mod choose;
mod diagonals;
mod layout;
mod tokens;

pub use batch::Batch;
pub use choose::{PackingError, choose};
pub(crate) use diagonals::cost;
use diagonals::shortest;
pub use diagonals::{Cost, Diagonal, Transform};
pub use layout::Layout;
pub use tokens::{TokenError, TokenLayers, TokenLayout, TokenLinear, WeightOrder, token_cost};
