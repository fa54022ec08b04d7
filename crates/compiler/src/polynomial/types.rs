//! Types of the polynomial level and the rule that types its operations.

use std::fmt;

use cerium_ckks::basis::Basis;
use cerium_ckks::evaluation_key::KeyKind;
use cerium_ckks::params::Params;
use cerium_ckks::rns::MOST_SOURCES;

use super::{Module, Op};
use crate::ir::{Attribute, Operation};

/// What the words of a limb are: coefficients, or values at roots of unity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Coefficients in natural order.
    Coefficient,
    /// Values in bit-reversed order.
    Evaluation,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A polynomial. `poly<eval {0-5}>`, `poly<coeff {3}>`.
    Poly {
        /// Its primes.
        basis: Basis,
        /// Its domain.
        domain: Domain,
    },
    /// A plaintext weight whose slots repeat with period `2^log_period`. `weight<2^10>`.
    Weight {
        /// Base-2 logarithm of the period.
        log_period: u32,
    },
    /// An encoded plaintext: evaluation domain, Montgomery form, compact. `plain<2^10 {0-5}>`.
    Plain {
        /// Base-2 logarithm of the period of its slots.
        log_period: u32,
        /// Its primes.
        basis: Basis,
    },
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Poly { basis, domain: Domain::Coefficient } => write!(f, "poly<coeff {basis}>"),
            Type::Poly { basis, domain: Domain::Evaluation } => write!(f, "poly<eval {basis}>"),
            Type::Weight { log_period } => write!(f, "weight<2^{log_period}>"),
            Type::Plain { log_period, basis } => write!(f, "plain<2^{log_period} {basis}>"),
        }
    }
}

impl Attribute for Type {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }

    fn read(text: &str) -> Result<Self, String> {
        let error =
            || format!("`{text}` is not a type like poly<eval {{0-5}}>, weight<2^10>, plain<2^10 {{0-5}}>");
        let (kind, fields) = text.strip_suffix('>').and_then(|t| t.split_once('<')).ok_or_else(error)?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let period = |field: &str| {
            field
                .strip_prefix("2^")
                .and_then(|p| p.parse().ok())
                .filter(|&log: &u32| log <= 16)
                .ok_or_else(error)
        };
        match (kind, fields.as_slice()) {
            ("poly", ["coeff", basis]) => {
                Ok(Type::Poly { basis: Basis::read(basis)?, domain: Domain::Coefficient })
            }
            ("poly", ["eval", basis]) => {
                Ok(Type::Poly { basis: Basis::read(basis)?, domain: Domain::Evaluation })
            }
            ("weight", [p]) => Ok(Type::Weight { log_period: period(p)? }),
            ("plain", [p, basis]) => Ok(Type::Plain { log_period: period(p)?, basis: Basis::read(basis)? }),
            _ => Err(error()),
        }
    }
}

/// The typing rule: see [`crate::ir::Dialect::infer`].
pub(super) fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
    let params = &module.context.params;
    let pool = params.q_basis().union(params.p_basis());
    let one = |basis: Basis, domain: Domain| Ok(vec![Type::Poly { basis, domain }]);
    let in_pool = |basis: Basis| {
        if basis.is_subset(pool) && !basis.is_empty() {
            Ok(())
        } else {
            Err(format!("{basis} is not a set of primes of {pool}"))
        }
    };
    match op {
        Op::Add { .. } | Op::Sub { .. } => match (poly(operands[0])?, poly(operands[1])?) {
            (a, b) if a == b => one(a.0, a.1),
            _ => Err(format!("{} of {} and {}", op.mnemonic(), operands[0], operands[1])),
        },
        Op::Mul { .. } => match (evaluated(operands[0])?, evaluated(operands[1])?) {
            (a, b) if a == b => one(a, Domain::Evaluation),
            _ => Err(format!("mul of {} and {}", operands[0], operands[1])),
        },
        Op::MulPlain { .. } => match (evaluated(operands[0])?, operands[1]) {
            (a, Type::Plain { basis, .. }) if a.is_subset(*basis) => one(a, Domain::Evaluation),
            (_, other) => Err(format!("mul_plain of {} and {other}", operands[0])),
        },
        Op::AddPlain { times, .. } => match (evaluated(operands[0])?, operands[1]) {
            (a, Type::Plain { basis, .. }) if times.is_subset(a) && a.minus(*times).is_subset(*basis) => {
                one(a, Domain::Evaluation)
            }
            (_, other) => Err(format!("add_plain of {} and {other} times {times}", operands[0])),
        },
        Op::Neg { .. } | Op::MulScalar { .. } => {
            poly(operands[0]).and_then(|(basis, domain)| one(basis, domain))
        }
        Op::MulPrimes { primes, .. } => {
            in_pool(*primes)?;
            poly(operands[0]).and_then(|(basis, domain)| one(basis, domain))
        }
        Op::AddScalar { times, .. } => match evaluated(operands[0])? {
            basis if times.is_subset(basis) => one(basis, Domain::Evaluation),
            basis => Err(format!("{times} is not a part of {basis}")),
        },
        Op::AddExtended { times, .. } => match (evaluated(operands[0])?, evaluated(operands[1])?) {
            (a, c) if times.is_subset(a) && c == a.minus(*times) => one(a, Domain::Evaluation),
            (a, c) => Err(format!("{c} and {times} are not the parts of {a}")),
        },
        Op::Ntt { .. } => coefficients(operands[0]).and_then(|basis| one(basis, Domain::Evaluation)),
        Op::Intt { .. } => evaluated(operands[0]).and_then(|basis| one(basis, Domain::Coefficient)),
        Op::Automorphism { galois, .. } => {
            let basis = evaluated(operands[0])?;
            if galois % 2 == 1 && (*galois as usize) < 2 * params.n() {
                one(basis, Domain::Evaluation)
            } else {
                Err(format!("{galois} is not an odd number below {}", 2 * params.n()))
            }
        }
        Op::Restrict { basis, .. } => match poly(operands[0])? {
            (from, domain) if basis.is_subset(from) && !basis.is_empty() => one(*basis, domain),
            (from, _) => Err(format!("{basis} is not a part of {from}")),
        },
        Op::Join { .. } => match (poly(operands[0])?, poly(operands[1])?) {
            ((a, da), (b, db)) if da == db && a.intersection(b).is_empty() => one(a.union(b), da),
            _ => Err(format!("join of {} and {}", operands[0], operands[1])),
        },
        Op::BaseConvert { to, .. } => {
            in_pool(*to)?;
            let from = coefficients(operands[0])?;
            if !from.intersection(*to).is_empty() {
                return Err(format!("{from} is converted to {to}, which it meets"));
            }
            if from.len() > MOST_SOURCES {
                return Err(format!(
                    "{from} has more than the {MOST_SOURCES} primes that a conversion takes"
                ));
            }
            one(*to, Domain::Coefficient)
        }
        Op::DivideRound { by, times, .. } => {
            let a = evaluated(operands[0])?;
            if !by.is_subset(a) || !(1..=MOST_SOURCES).contains(&by.len()) {
                return Err(format!("{by} is not a part of {a} of 1 to {MOST_SOURCES} primes"));
            }
            if !times.intersection(a).is_empty() {
                return Err(format!("{times} enters {a}, which it meets"));
            }
            let to = a.minus(*by).union(*times);
            in_pool(to)?;
            one(to, Domain::Evaluation)
        }
        Op::Divide { by, times, .. } => {
            in_pool(*by)?;
            let (a, c) = (evaluated(operands[0])?, evaluated(operands[1])?);
            if !by.intersection(c).is_empty() {
                return Err(format!("{by} divides {c}, which it meets"));
            }
            // A limb that `a` lacks is that of `a * product(times)` only if its prime is among `times`.
            if !c.minus(a).is_subset(*times) || !times.is_subset(c) {
                return Err(format!("{c} is neither in {a} nor multiplied by {times}"));
            }
            one(c, Domain::Evaluation)
        }
        Op::KeyProduct { digits, key, .. } => {
            let Some(first) = operands.first() else { return Err("key_product has no digits".into()) };
            let basis = evaluated(first)?;
            if operands.iter().any(|ty| ty != first) {
                return Err("the digits of a key_product differ in type".into());
            }
            let p_basis = match key.0 {
                KeyKind::ToSparse => params.sparse_p_basis(),
                _ => params.p_basis(),
            };
            if !p_basis.is_subset(basis) {
                return Err(format!("the digits on {basis} lack primes of P"));
            }
            let expected = key_digits(params, key.0, basis).len();
            if digits.len() == expected {
                one(basis, Domain::Evaluation)
            } else {
                Err(format!("{} digits where {basis} has {expected}", digits.len()))
            }
        }
        Op::Weight { index } => Ok(vec![Type::Weight { log_period: module.context.log_period(*index)? }]),
        Op::Encode { basis, scale, rotation, .. } => {
            in_pool(*basis)?;
            match operands[0] {
                Type::Weight { log_period }
                    if scale.0.is_finite() && scale.0 >= 1.0 && rotation >> log_period == 0 =>
                {
                    Ok(vec![Type::Plain { log_period: *log_period, basis: *basis }])
                }
                other => Err(format!("encode of {other} at scale {scale}, rotated by {rotation}")),
            }
        }
        Op::Call { function, .. } => module.call_types(function, operands),
    }
}

/// The digits of a parameter set that have a prime in `basis`, with their index in the set.
pub(crate) fn digits_in(params: &Params, basis: Basis) -> impl Iterator<Item = (usize, Basis)> {
    let parts = params.digits().iter().enumerate().map(move |(i, digit)| (i, digit.intersection(basis)));
    parts.filter(|(_, part)| !part.is_empty())
}

/// Positions in the parameter set of the digits that a product with a key of this kind takes on `basis`. Switching to and
/// from the sparse secret takes all of Q as one digit.
pub(crate) fn key_digits(params: &Params, kind: KeyKind, basis: Basis) -> Vec<usize> {
    match kind {
        KeyKind::ToSparse | KeyKind::FromSparse => vec![0],
        _ => digits_in(params, basis).map(|(i, _)| i).collect(),
    }
}

fn poly(ty: &Type) -> Result<(Basis, Domain), String> {
    match ty {
        Type::Poly { basis, domain } => Ok((*basis, *domain)),
        other => Err(format!("a polynomial is expected, not {other}")),
    }
}

fn evaluated(ty: &Type) -> Result<Basis, String> {
    match poly(ty)? {
        (basis, Domain::Evaluation) => Ok(basis),
        _ => Err(format!("{ty} is not in the evaluation domain")),
    }
}

fn coefficients(ty: &Type) -> Result<Basis, String> {
    match poly(ty)? {
        (basis, Domain::Coefficient) => Ok(basis),
        _ => Err(format!("{ty} is not in the coefficient domain")),
    }
}
