//! The parts of a bootstrap, written in the DSL.

use cerium_ckks::basis::Level;
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::params::{Bootstrap, Params};

use super::BootstrapConfig;
use crate::ciphertext::Steps;
use crate::dsl::{Ct, Func, Program, Scope};
use crate::ir::Symbol;

/// The slots of x as coefficients: the polynomial whose paired coefficients `c_j + i c_(j+n)` are the slots, times `factor`,
/// in bit-reversed order.
pub fn slots_to_coeffs(scope: &Scope, x: &Ct, config: &BootstrapConfig, factor: f64) -> Ct {
    transform(scope, x, Direction::SlotsToCoeffs, config, &config.slots_to_coeffs, factor)
}

/// The inverse of [`slots_to_coeffs`].
pub fn coeffs_to_slots(scope: &Scope, x: &Ct, config: &BootstrapConfig, factor: f64) -> Ct {
    transform(scope, x, Direction::CoeffsToSlots, config, &config.coeffs_to_slots, factor)
}

/// The whole transform, one linear transform for each factor, times a real number shared among them.
fn transform(
    scope: &Scope,
    x: &Ct,
    direction: Direction,
    config: &BootstrapConfig,
    stages: &[u8],
    times: f64,
) -> Ct {
    let share = times.powf(1.0 / stages.len() as f64);
    DftFactor::split(direction, config.log_slots, stages).into_iter().fold(x.clone(), |x, factor| {
        let diagonal = |offset| (offset, scope.dft_diagonal(factor, offset, share));
        let steps = match config.baby_steps {
            Some(steps) => Steps::Stride(i64::from(steps) << factor.first),
            None => Steps::Auto,
        };
        x.linear_transform_in(steps, &factor.offsets().into_iter().map(diagonal).collect::<Vec<_>>())
    })
}

/// `gain * sin(2 pi t)` for slots `u = t / extent`, where extent is that of the configuration's polynomial.
pub fn eval_mod(u: &Ct, config: &BootstrapConfig, gain: f64) -> Ct {
    let eval = &config.eval_mod;
    let x = u - 0.25 / eval.extent;
    let v = double_angle(&x);
    let y = v.poly_eval(&eval.coefficients);
    (0..eval.doublings).fold(y, |y, _| double_angle(&y)).reinterpret(gain)
}

fn double_angle(y: &Ct) -> Ct {
    y * y * 2.0 - 1.0
}

/// What a whole bootstrap does to slots in the clear, told from the name of its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refresh {
    /// Real and imaginary parts come back, not real parts only.
    pub(crate) complex: bool,
    /// Base-2 logarithm of the number of slots that repeat, where it is not all of them.
    pub(crate) log_slots: Option<u32>,
}

impl Refresh {
    /// Of a function of the library, or an instance of one (`bootstrap.real.s8.1`); `None` if it is not a whole bootstrap.
    pub(crate) fn of(name: &Symbol) -> Option<Refresh> {
        let mut parts = name.0.strip_prefix("bootstrap.")?.split('.');
        let complex = match parts.next()? {
            "complex" => true,
            "real" | "pair" => false,
            _ => return None,
        };
        let log_slots = parts.next().and_then(|part| part.strip_prefix('s')?.parse().ok());
        Some(Refresh { complex, log_slots })
    }
}

/// The functions of bootstraps of one number of slots; those in use are defined in the program.
pub(super) struct Library {
    pub(super) real: Func,
    pub(super) pair: Func,
    pub(super) complex: Func,
}

impl Library {
    /// Defines the functions. Their arguments are ciphertexts at level `input` with slots in [-1, 1] (of each part).
    pub(super) fn define(program: &Program, params: &Params, config: &BootstrapConfig) -> Library {
        let levels = params.bootstrap().expect("a configuration exists for sets with bootstrapping only");
        let name = |part: &str| match u32::from(config.log_slots) + 1 == params.log_n() {
            true => format!("bootstrap.{part}"),
            false => format!("bootstrap.{part}.s{}", config.log_slots),
        };
        let coefficients = program.function(&name("coefficients"), 1, &[], |scope, x, _| {
            vec![coefficients(scope, &x[0], params, levels, config)]
        });
        let modulo = program.function(&name("eval_mod"), 1, &[], |scope, u, _| {
            scope.stage("bootstrap eval_mod");
            vec![eval_mod(&u[0], config, levels.gain)]
        });
        // Side by side: both parts do the same at the same time, and read the keys once.
        let modulo_pair = program.function(&name("eval_mod_pair"), 2, &[], |scope, u, _| {
            scope.stage("bootstrap eval_mod");
            u.iter().map(|u| eval_mod(u, config, levels.gain)).collect()
        });
        // w = re + i im, each half of what eval_mod takes.
        let parts = |scope: &Scope, z: &Ct| {
            let w = scope.call(&coefficients, &[z], &[]).remove(0);
            scope.stage("bootstrap coeffs_to_slots");
            let conjugate = w.conjugate();
            (&w + &conjugate, (&conjugate - &w).mul_i())
        };
        let real = program.function(&name("real"), 1, &[], |scope, x, _| {
            let w = scope.call(&coefficients, &[&x[0]], &[]).remove(0);
            scope.stage("bootstrap coeffs_to_slots");
            let u = &w + w.conjugate();
            scope.call(&modulo, &[&u], &[])
        });
        let pair = program.function(&name("pair"), 2, &[], |scope, x, _| {
            scope.stage("bootstrap slots_to_coeffs");
            let (re, im) = parts(scope, &(&x[0] + x[1].mul_i()));
            scope.call(&modulo_pair, &[&re, &im], &[])
        });
        let complex = program.function(&name("complex"), 1, &[], |scope, x, _| {
            let (re, im) = parts(scope, &x[0]);
            let parts = scope.call(&modulo_pair, &[&re, &im], &[]);
            vec![&parts[0] + parts[1].mul_i()]
        });
        Library { real, pair, complex }
    }
}

/// From slots at level `input` to `t / (2 extent)`, settled below the levels of coeffs_to_slots.
fn coefficients(scope: &Scope, x: &Ct, params: &Params, levels: Bootstrap, config: &BootstrapConfig) -> Ct {
    scope.stage("bootstrap slots_to_coeffs");
    let base = params.log_q(Level(0)).exp2();
    let message = base / levels.ratio / params.scale(Level(0)).0;
    let x = slots_to_coeffs(scope, x, config, message).lower(Level(0));
    scope.stage("bootstrap mod_raise");
    let raised = x.mod_raise();
    // Coefficients outside the subring of the slots cancel in the sum over its automorphisms, the others add up.
    let full = params.log_n() as u8 - 1;
    let traced = (config.log_slots..full).fold(raised, |t, log| &t + t.rotate(1 << log));
    let copies = f64::from(1u32 << (full - config.log_slots));
    scope.stage("bootstrap coeffs_to_slots");
    let w = coeffs_to_slots(scope, &traced, config, 0.5 / config.eval_mod.extent / copies);
    // Where eval_mod begins, be it with fewer factors than there are levels for.
    let levels = params.spec().bootstrap.map_or(0, |spec| spec.coeffs_to_slots);
    w.lower(Level(params.max_level().0 - levels))
}
