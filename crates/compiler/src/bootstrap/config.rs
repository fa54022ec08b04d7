//! The choices of a bootstrap.

use cerium_ckks::basis::Level;
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::params::Params;

use super::EvalMod;
use crate::ciphertext::cost::CostModel;

/// Integers up to this size are taken off: with a sparse secret of weight 32 one in 2^85 is larger.
const RANGE: u32 = 14;

/// Double angles of the sine.
const DOUBLINGS: u32 = 3;

/// How a bootstrap is done. [`BootstrapConfig::new`] chooses, [`BootstrapPins`] pin.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapConfig {
    /// Base-2 logarithm of the number of slots that repeat.
    pub log_slots: u8,
    /// Butterfly stages in each factor of slots-to-coefficients, in the order of application; they add up to `log_slots`.
    pub slots_to_coeffs: Vec<u8>,
    /// The same for coefficients-to-slots.
    pub coeffs_to_slots: Vec<u8>,
    /// Baby steps of each factor; `None` leaves the split to the cost of each transform.
    pub baby_steps: Option<u32>,
    /// The sine.
    pub eval_mod: EvalMod,
}

/// Base-2 logarithm of a bound on the probability that a bootstrap under these parameters fails because an integer is out of
/// the range of [`eval_mod`](super::eval_mod): the result is then useless. Every other error is within the promise of the
/// noise estimate.
pub fn log_failure(params: &Params) -> f64 {
    super::eval_mod::log_failure(RANGE, params.n())
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
        let (log_slots, cost) = (log_slots as u8, CostModel::new(params));
        let split = |direction, factors, first| best_split(&cost, direction, log_slots, factors, first);
        Some(BootstrapConfig {
            log_slots,
            slots_to_coeffs: split(
                Direction::SlotsToCoeffs,
                levels.slots_to_coeffs,
                params.bootstrap()?.input,
            ),
            coeffs_to_slots: split(Direction::CoeffsToSlots, levels.coeffs_to_slots, params.max_level()),
            baby_steps: None,
            eval_mod: eval_mod?,
        })
    }

    /// Replaces what is pinned; a sentence if that is not possible.
    pub(super) fn pin(mut self, params: &Params, pins: &BootstrapPins) -> Result<BootstrapConfig, String> {
        let Some(levels) = params.spec().bootstrap else { return Ok(self) };
        let log_slots = self.log_slots;
        let check = |name: &str, stages: &[u8], most: u8| {
            let total: usize = stages.iter().map(|&s| usize::from(s)).sum();
            if total != usize::from(log_slots) || stages.contains(&0) {
                return Err(format!("the factors {stages:?} of {name} have {total} stages, not {log_slots}"));
            }
            if stages.len() > most.into() {
                return Err(format!(
                    "{name} has {} factors, but the parameter set {most} levels",
                    stages.len()
                ));
            }
            Ok(stages.to_vec())
        };
        if let Some(stages) = &pins.slots_to_coeffs {
            self.slots_to_coeffs = check("slots_to_coeffs", stages, levels.slots_to_coeffs)?;
        }
        if let Some(stages) = &pins.coeffs_to_slots {
            self.coeffs_to_slots = check("coeffs_to_slots", stages, levels.coeffs_to_slots)?;
        }
        if pins.baby_steps == Some(0) {
            return Err("a transform has at least one baby step".into());
        }
        self.baby_steps = pins.baby_steps;
        if let Some(degree) = pins.degree {
            let most = (1 << levels.eval_mod.saturating_sub(1 + DOUBLINGS as u8)) - 1;
            if !(1..=most).contains(&degree) {
                return Err(format!(
                    "a degree of {degree} does not fit the levels of eval_mod, which take 1 to {most}"
                ));
            }
            let ratio = f64::from(levels.log_ratio).exp2();
            self.eval_mod = EvalMod::new(self.eval_mod.range, self.eval_mod.doublings, degree, ratio);
        }
        Ok(self)
    }
}

/// Choices of a bootstrap that are pinned by hand; without, the cost model and the precision of the parameter set choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapPins {
    /// Butterfly stages in each factor of slots-to-coefficients.
    pub slots_to_coeffs: Option<Vec<u8>>,
    /// Butterfly stages in each factor of coefficients-to-slots.
    pub coeffs_to_slots: Option<Vec<u8>>,
    /// Baby steps of each factor.
    pub baby_steps: Option<u32>,
    /// Degree of the polynomial of eval_mod.
    pub degree: Option<usize>,
}

/// The split of all stages into at most `factors` factors, the first applied at level `first`, that takes the least time.
fn best_split(cost: &CostModel, direction: Direction, log_slots: u8, factors: u8, first: Level) -> Vec<u8> {
    let time = |stages: &[u8]| -> f64 {
        let factor = |(i, factor): (usize, DftFactor)| {
            let level = Level(first.0 - i as u8);
            cost.linear_transform(level, factor.offsets().len()) + cost.rescale(level, 2)
        };
        DftFactor::split(direction, log_slots, stages).into_iter().enumerate().map(factor).sum()
    };
    let splits = (1..=factors).flat_map(|factors| compositions(log_slots, factors));
    let best = splits.map(|stages| (time(&stages), stages)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.expect("there is one factor at least").1
}

/// All ways of writing `total` as a sum of so many positive numbers.
fn compositions(total: u8, parts: u8) -> Vec<Vec<u8>> {
    if parts == 1 {
        return if total > 0 { vec![vec![total]] } else { Vec::new() };
    }
    let rest = |first: u8| {
        compositions(total - first, parts - 1).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (1..total).flat_map(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        assert_eq!(compositions(4, 3), [[1, 1, 2], [1, 2, 1], [2, 1, 1]]);
        assert_eq!(compositions(14, 4).len(), 13 * 12 * 11 / 6);
        assert!(compositions(2, 3).is_empty());
    }

    #[test]
    fn splits_are_even_but_for_the_first_factor_of_large_spans() {
        let params = Params::named("boot-40").unwrap();
        let config = BootstrapConfig::new(&params, 15).unwrap();
        println!("{config:?}");
        assert_eq!(config.coeffs_to_slots.len(), 4);
        assert_eq!(config.slots_to_coeffs.len(), 3);
        assert!(config.coeffs_to_slots.iter().all(|&stages| (3..=5).contains(&stages)));
        assert!(config.eval_mod.log_failure(params.n()) < -60.0);
        let pins = BootstrapPins { coeffs_to_slots: Some(vec![5, 5, 5]), ..BootstrapPins::default() };
        assert_eq!(config.clone().pin(&params, &pins).unwrap().coeffs_to_slots, [5, 5, 5]);
        for stages in [vec![5, 5], vec![3, 3, 3, 3, 3], vec![0, 15]] {
            let pins = BootstrapPins { coeffs_to_slots: Some(stages), ..BootstrapPins::default() };
            config.clone().pin(&params, &pins).unwrap_err();
        }
        let pins = BootstrapPins { baby_steps: Some(4), ..BootstrapPins::default() };
        assert_eq!(config.clone().pin(&params, &pins).unwrap().baby_steps, Some(4));
        let pins = BootstrapPins { baby_steps: Some(0), ..BootstrapPins::default() };
        config.clone().pin(&params, &pins).unwrap_err();
        let pins = BootstrapPins { degree: Some(16), ..BootstrapPins::default() };
        config.pin(&params, &pins).unwrap_err();
    }
}
