//! Types of the ciphertext level and the rule that types its operations.

use std::fmt;
use std::sync::Arc;

use cerium_artifact::{Recipe, Tensor};
use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::params::Params;
use num_complex::Complex64;

use super::{BootstrapKind, Module, Op, Steps};
use crate::ir::{Attribute, Number};

/// What programs of this level refer to: the parameter set and the weights.
#[derive(Clone, Debug)]
pub struct Context {
    /// The parameter set; its slot count and its levels.
    pub params: Params,
    /// The weights and what they are made of.
    pub data: Arc<Data>,
}

impl Context {
    /// Base-2 logarithm of the period of the weight with this index.
    pub(crate) fn log_period(&self, index: u32) -> Result<u32, String> {
        let recipe = self.data.weights.get(index as usize);
        let log_period = recipe.and_then(|recipe| recipe.log_period(&self.data.gathers));
        log_period.ok_or_else(|| format!("there is no weight {index}"))
    }
}

/// Weights of a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// Raw weights.
    pub tensors: Vec<Tensor>,
    /// Slot tables.
    pub gathers: Vec<Vec<u32>>,
    /// How plaintexts are made from them.
    pub weights: Vec<Recipe>,
}

impl Data {
    /// The slots of the weight with this index over one period.
    ///
    /// # Panics
    /// If there is no such weight, or its recipe does not fit the tables; the DSL admits none that does not.
    pub fn slots(&self, index: u32) -> Vec<Complex64> {
        self.weights[index as usize].slots(&self.tensors, &self.gathers)
    }
}

/// Where a ciphertext stands after placement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Its level.
    pub level: Level,
    /// Its exact scale.
    pub scale: Scale,
    /// Number of polynomials: 2, or 3 before relinearization.
    pub size: u8,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// A ciphertext; unplaced programs carry no placement. `ct`, `ct<L3 34359738368.0 2>`.
    Cipher(Option<Placement>),
    /// A plaintext weight whose slots repeat with period `2^log_period`. `pt<2^10>`.
    Plain {
        /// Base-2 logarithm of the period.
        log_period: u32,
    },
    /// A plaintext encoded for a level at a scale. `pt<2^10 L3 34359738368.0>`.
    Encoded {
        /// Base-2 logarithm of the period.
        log_period: u32,
        /// Level of the ciphertexts it meets.
        level: Level,
        /// Scale.
        scale: Scale,
    },
}

impl Type {
    /// The placement of a placed ciphertext.
    pub fn placement(&self) -> Option<Placement> {
        match self {
            Type::Cipher(placement) => *placement,
            _ => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Cipher(None) => write!(f, "ct"),
            Type::Cipher(Some(p)) => write!(f, "ct<{} {:?} {}>", p.level, p.scale.0, p.size),
            Type::Plain { log_period } => write!(f, "pt<2^{log_period}>"),
            Type::Encoded { log_period, level, scale } => {
                write!(f, "pt<2^{log_period} {level} {:?}>", scale.0)
            }
        }
    }
}

impl Attribute for Type {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }

    fn read(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is not a type like ct, ct<L3 34359738368.0 2>, pt<2^10>");
        if text == "ct" {
            return Ok(Type::Cipher(None));
        }
        let (kind, fields) = text.strip_suffix('>').and_then(|t| t.split_once('<')).ok_or_else(error)?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let period = |field: &str| {
            field
                .strip_prefix("2^")
                .and_then(|p| p.parse().ok())
                .filter(|&log: &u32| log <= 16)
                .ok_or_else(error)
        };
        let scale = |field: &str| Number::read(field).map(|number| Scale(number.0));
        match (kind, fields.as_slice()) {
            ("ct", [level, s, size]) => {
                let size = size.parse().ok().filter(|size| (2..=3).contains(size)).ok_or_else(error)?;
                Ok(Type::Cipher(Some(Placement { level: Level::read(level)?, scale: scale(s)?, size })))
            }
            ("pt", [p]) => Ok(Type::Plain { log_period: period(p)? }),
            ("pt", [p, level, s]) => {
                Ok(Type::Encoded { log_period: period(p)?, level: Level::read(level)?, scale: scale(s)? })
            }
            _ => Err(error()),
        }
    }
}

/// The scale after rescaling from `level`: exactly canonical where it is canonical up to rounding.
pub(super) fn rescaled(params: &Params, level: Level, scale: Scale) -> (Level, Scale) {
    let to = Level(level.0 - 1);
    let (from_basis, to_basis) = (params.basis(level), params.basis(to));
    let log_ratio =
        params.log_product(to_basis.minus(from_basis)) - params.log_product(from_basis.minus(to_basis));
    (to, snapped(params, to, Scale(scale.0 * log_ratio.exp2())))
}

/// The canonical scale of `level` if `scale` is that up to rounding, otherwise `scale`.
fn snapped(params: &Params, level: Level, scale: Scale) -> Scale {
    let canonical = params.scale(level);
    if (scale.0 / canonical.0 - 1.0).abs() < 1e-9 { canonical } else { scale }
}

/// The typing rule: see [`crate::ir::Dialect::infer`].
pub(super) fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
    let params = &module.context.params;
    let one = |ty: Type| Ok(vec![ty]);
    match op {
        Op::Add { .. } | Op::Sub { .. } => match pair(op, operands)? {
            None => one(Type::Cipher(None)),
            Some((a, b)) => {
                same_scale(a.scale, b.scale)?;
                one(Type::Cipher(Some(Placement { size: a.size.max(b.size), ..a })))
            }
        },
        Op::Mul { .. } => match pair(op, operands)? {
            None => one(Type::Cipher(None)),
            Some((a, b)) if a.size == 2 && b.size == 2 => one(Type::Cipher(Some(Placement {
                level: a.level,
                scale: Scale(a.scale.0 * b.scale.0),
                size: 3,
            }))),
            Some(_) => Err("mul takes relinearized ciphertexts (of 2 polynomials)".into()),
        },
        Op::AddPlain { .. } | Op::MulPlain { .. } => match (cipher(operands[0])?, operands[1]) {
            (None, Type::Plain { .. }) => one(Type::Cipher(None)),
            (Some(a), Type::Encoded { level, scale, .. }) if a.level == *level => match op {
                Op::AddPlain { .. } => {
                    same_scale(a.scale, *scale)?;
                    one(*operands[0])
                }
                _ => one(Type::Cipher(Some(Placement { scale: Scale(a.scale.0 * scale.0), ..a }))),
            },
            (Some(a), Type::Encoded { level, .. }) => {
                Err(format!("the ciphertext is at {}, the plaintext at {level}", a.level))
            }
            (_, other) => {
                Err(format!("a plaintext is expected, not {other} (placed programs take encoded ones)"))
            }
        },
        Op::AddConst { value, .. } => finite(*value).and(cipher(operands[0])).and_then(|_| one(*operands[0])),
        Op::MulConst { value, scale, .. } => {
            finite(*value)?;
            match (cipher(operands[0])?, scale) {
                (None, None) => one(Type::Cipher(None)),
                (Some(a), Some(s)) if s.0 >= 1.0 && s.0.is_finite() => {
                    one(Type::Cipher(Some(Placement { scale: Scale(a.scale.0 * s.0), ..a })))
                }
                (Some(_), _) => Err("a placed mul_const has a scale of at least 1".into()),
                (None, Some(_)) => Err("an unplaced mul_const has no scale".into()),
            }
        }
        Op::Neg { .. } => cipher(operands[0]).and_then(|_| one(*operands[0])),
        Op::Rotate { .. } | Op::Conjugate { .. } => match cipher(operands[0])? {
            Some(a) if a.size != 2 => Err("only relinearized ciphertexts rotate".into()),
            _ => one(*operands[0]),
        },
        Op::Weight { index } => one(Type::Plain { log_period: module.context.log_period(*index)? }),
        Op::RotatePlain { .. } => match operands[0] {
            Type::Plain { .. } => one(*operands[0]),
            other => Err(format!("rotate_plain takes a plaintext, not {other}")),
        },
        Op::LinearTransform { offsets, diagonals, steps, .. } => {
            unplaced(op, operands[0])?;
            if matches!(steps, Steps::Stride(stride) | Steps::Chain(stride) if *stride < 1) {
                return Err("a stride is at least 1".into());
            }
            if offsets.len() != diagonals.len() || offsets.is_empty() {
                return Err(format!("{} diagonals with {} offsets", diagonals.len(), offsets.len()));
            }
            if let Some(other) = operands[1..].iter().find(|ty| !matches!(ty, Type::Plain { .. })) {
                return Err(format!("a diagonal is {other}, not a plaintext"));
            }
            one(Type::Cipher(None))
        }
        Op::PolyEval { coefficients, .. } => {
            unplaced(op, operands[0])?;
            coefficients.iter().try_for_each(|&c| finite(c))?;
            if coefficients.is_empty() {
                Err("poly_eval has no coefficients".into())
            } else {
                one(Type::Cipher(None))
            }
        }
        Op::Call { function, .. } => module.call_types(function, operands),
        Op::Lower { to, .. } => {
            unplaced(op, operands[0])?;
            if *to > params.max_level() {
                return Err(format!("{to} is above the top level {}", params.max_level()));
            }
            one(Type::Cipher(None))
        }
        Op::Bootstrap { xs, kind, log_slots, bound } => {
            let most = if *kind == BootstrapKind::Real { 2 } else { 1 };
            if xs.is_empty() || xs.len() > most {
                return Err(format!("a {kind:?} bootstrap takes 1 to {most} values, not {}", xs.len()));
            }
            if 1usize << log_slots.min(&30) > params.slots() {
                return Err(format!("2^{log_slots} slots are more than the {} there are", params.slots()));
            }
            if !(bound.0.is_finite() && bound.0 > 0.0) {
                return Err(format!("the bound {bound} is not a positive number"));
            }
            let placements = operands.iter().map(|ty| cipher(ty)).collect::<Result<Vec<_>, _>>()?;
            if placements.iter().all(Option::is_none) {
                return Ok(vec![Type::Cipher(None); xs.len()]);
            }
            let Some(levels) = params.bootstrap() else {
                return Err("the parameter set has no levels for bootstrapping".into());
            };
            let (input, output) = (levels.input, levels.output);
            let fits = |a: Placement| a.level == input && a.size == 2 && a.scale.matches(params.scale(input));
            if !placements.into_iter().all(|a| a.is_some_and(fits)) {
                return Err(format!(
                    "bootstrap takes relinearized ciphertexts of {input} at its canonical scale"
                ));
            }
            let refreshed = Placement { level: output, scale: params.scale(output), size: 2 };
            Ok(vec![Type::Cipher(Some(refreshed)); xs.len()])
        }
        Op::ModRaise { .. } => match cipher(operands[0])? {
            None => one(Type::Cipher(None)),
            Some(a) if a.level.0 == 0 && a.size == 2 && a.scale.matches(params.scale(Level(0))) => {
                one(Type::Cipher(Some(Placement {
                    level: params.max_level(),
                    scale: Scale(params.log_q(Level(0)).exp2()),
                    size: 2,
                })))
            }
            Some(_) => Err("mod_raise takes a relinearized ciphertext of L0 at its canonical scale".into()),
        },
        Op::Reinterpret { factor, .. } => {
            if !(factor.0.is_finite() && factor.0 > 0.0) {
                return Err(format!("the factor {factor} is not a positive number"));
            }
            one(match operands[0] {
                Type::Cipher(Some(a)) => {
                    let scale = snapped(params, a.level, Scale(a.scale.0 / factor.0));
                    Type::Cipher(Some(Placement { scale, ..*a }))
                }
                ty => cipher(ty).map(|_| *ty)?,
            })
        }
        Op::Encode { level, scale, .. } => match operands[0] {
            Type::Plain { log_period }
                if *level <= params.max_level() && scale.0 >= 1.0 && scale.0.is_finite() =>
            {
                one(Type::Encoded { log_period: *log_period, level: *level, scale: Scale(scale.0) })
            }
            Type::Plain { .. } => Err(format!("{level} at scale {scale} is outside the parameter set")),
            other => Err(format!("encode takes a plaintext, not {other}")),
        },
        Op::Rescale { .. } => match placed(params, op, operands[0])? {
            a if a.level.0 == 0 => Err("there is no level below L0".into()),
            a => {
                let (level, scale) = rescaled(params, a.level, a.scale);
                one(Type::Cipher(Some(Placement { level, scale, size: a.size })))
            }
        },
        Op::Relinearize { .. } => match placed(params, op, operands[0])? {
            a if a.size == 3 => one(Type::Cipher(Some(Placement { size: 2, ..a }))),
            _ => Err("relinearize takes a ciphertext of 3 polynomials".into()),
        },
        Op::Adjust { to, .. } => match placed(params, op, operands[0])? {
            a if *to < a.level => {
                one(Type::Cipher(Some(Placement { level: *to, scale: params.scale(*to), size: a.size })))
            }
            a => Err(format!("adjust goes down: from {} it cannot reach {to}", a.level)),
        },
        Op::DropLevel { to, .. } => match placed(params, op, operands[0])? {
            a if *to < a.level && params.basis(*to).is_subset(params.basis(a.level)) => {
                one(Type::Cipher(Some(Placement { level: *to, ..a })))
            }
            a => Err(format!("the primes of {to} are not among those of {}", a.level)),
        },
    }
}

fn cipher(ty: &Type) -> Result<Option<Placement>, String> {
    match ty {
        Type::Cipher(placement) => Ok(*placement),
        other => Err(format!("a ciphertext is expected, not {other}")),
    }
}

fn placed(params: &Params, op: &Op, ty: &Type) -> Result<Placement, String> {
    use crate::ir::Operation;
    let at = cipher(ty)?.ok_or_else(|| format!("{} is for placed programs", op.mnemonic()))?;
    let top = params.max_level();
    if at.level <= top { Ok(at) } else { Err(format!("{} is above the top level {top}", at.level)) }
}

fn unplaced(op: &Op, ty: &Type) -> Result<(), String> {
    use crate::ir::Operation;
    match cipher(ty)? {
        None => Ok(()),
        Some(_) => Err(format!("{} is for unplaced programs", op.mnemonic())),
    }
}

/// Both operands of an operation on two ciphertexts: none, or both placed at one level.
fn pair(op: &Op, operands: &[&Type]) -> Result<Option<(Placement, Placement)>, String> {
    use crate::ir::Operation;
    match (cipher(operands[0])?, cipher(operands[1])?) {
        (None, None) => Ok(None),
        (Some(a), Some(b)) if a.level == b.level => Ok(Some((a, b))),
        (Some(a), Some(b)) => Err(format!("{} of ciphertexts at {} and {}", op.mnemonic(), a.level, b.level)),
        _ => Err(format!("{} of a placed and an unplaced ciphertext", op.mnemonic())),
    }
}

fn same_scale(a: Scale, b: Scale) -> Result<(), String> {
    if a.matches(b) { Ok(()) } else { Err(format!("the scales {:?} and {:?} differ", a.0, b.0)) }
}

fn finite(value: Number) -> Result<(), String> {
    if value.0.is_finite() { Ok(()) } else { Err(format!("the constant {value} is not finite")) }
}
