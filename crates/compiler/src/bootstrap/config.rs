//! The choices of a bootstrap.

use cerium_ckks::params::Params;

use super::EvalMod;

/// Integers up to this size are taken off: with a sparse secret of weight 32 one in 2^85 is larger.
const RANGE: u32 = 14;

/// Double angles of the sine.
const DOUBLINGS: u32 = 3;

/// How a bootstrap is done. [`BootstrapConfig::new`] chooses; fields can be changed before use.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapConfig {
    /// Base-2 logarithm of the number of slots that repeat.
    pub log_slots: u8,
    /// Butterfly stages in each factor of slots-to-coefficients, in the order of application; they add up to `log_slots`.
    pub slots_to_coeffs: Vec<u8>,
    /// The same for coefficients-to-slots.
    pub coeffs_to_slots: Vec<u8>,
    /// The sine.
    pub eval_mod: EvalMod,
}

impl BootstrapConfig {
    /// The choice for a parameter set and `2^log_slots` slots; `None` if the set has no levels for bootstrapping.
    ///
    /// # Panics
    /// If there is one slot, or there are more than the set has.
    pub fn new(params: &Params, log_slots: u32) -> Option<BootstrapConfig> {
        assert!((1..params.log_n()).contains(&log_slots), "2^{log_slots} slots");
        let levels = params.spec().bootstrap.as_ref()?;
        let ratio = params.bootstrap()?.ratio;
        // Precision beyond the rounding errors of the output's scale is of no use: a slot's error is about
        // sqrt(N * N/2 / 12) units.
        let n = params.n() as f64;
        let floor = n / 24f64.sqrt() / params.scale(params.program_level()).0;
        let depth = u32::from(levels.eval_mod).checked_sub(1 + DOUBLINGS)?;
        let most = (1usize << depth) - 1;
        let degrees = (most / 2 + 1..=most).map(|degree| EvalMod::new(RANGE, DOUBLINGS, degree, ratio));
        let good_enough = |eval: &EvalMod| ratio / std::f64::consts::TAU * eval.error < 0.5 * floor;
        let mut eval_mod = None;
        for eval in degrees {
            let done = good_enough(&eval);
            eval_mod = Some(eval);
            if done {
                break;
            }
        }
        let log_slots = log_slots as u8;
        Some(BootstrapConfig {
            log_slots,
            slots_to_coeffs: even_split(log_slots, levels.slots_to_coeffs),
            coeffs_to_slots: {
                // The first factor has the largest spans, where offsets to the left and to the right are the same.
                let mut split = even_split(log_slots, levels.coeffs_to_slots);
                split.reverse();
                split
            },
            eval_mod: eval_mod?,
        })
    }
}

/// `total` in `parts` nearly equal parts, the larger ones last; parts of zero are left out.
fn even_split(total: u8, parts: u8) -> Vec<u8> {
    let (size, larger) = (total / parts, total % parts);
    let split = (0..parts).map(|i| if i >= parts - larger { size + 1 } else { size });
    split.filter(|&stages| stages > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        assert_eq!(even_split(15, 4), [3, 4, 4, 4]);
        assert_eq!(even_split(15, 3), [5, 5, 5]);
        assert_eq!(even_split(2, 3), [1, 1]);
    }
}
