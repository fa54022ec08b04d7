//! Types of the limb level and the rule that types its operations.

use std::fmt;

use cerium_artifact::DeviceId;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::rns::MOST_SOURCES;

use super::{Module, Op};
use crate::ir::{Attribute, Operation};
use crate::polynomial::Domain;

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A limb. `limb<eval p3>`, `limb<coeff p3>`.
    Limb {
        /// Its prime.
        prime: PrimeIndex,
        /// Its domain.
        domain: Domain,
    },
    /// A plaintext weight. `weight<2^10>`.
    Weight {
        /// Base-2 logarithm of the period of its slots.
        log_period: u32,
    },
    /// A limb of an encoded plaintext: compact, evaluation domain, Montgomery form. `plain<2^10 p3>`.
    Plain {
        /// Base-2 logarithm of the period of its slots.
        log_period: u32,
        /// Its prime.
        prime: PrimeIndex,
    },
    /// A limb of an evaluation key: evaluation domain, Montgomery form. `key<p3>`.
    Key {
        /// Its prime.
        prime: PrimeIndex,
    },
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Limb { prime, domain: Domain::Coefficient } => write!(f, "limb<coeff {prime}>"),
            Type::Limb { prime, domain: Domain::Evaluation } => write!(f, "limb<eval {prime}>"),
            Type::Weight { log_period } => write!(f, "weight<2^{log_period}>"),
            Type::Plain { log_period, prime } => write!(f, "plain<2^{log_period} {prime}>"),
            Type::Key { prime } => write!(f, "key<{prime}>"),
        }
    }
}

impl Attribute for Type {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }

    fn read(text: &str) -> Result<Self, String> {
        let error =
            || format!("`{text}` is not a type like limb<eval p3>, weight<2^10>, plain<2^10 p3>, key<p3>");
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
            ("limb", ["coeff", p]) => {
                Ok(Type::Limb { prime: PrimeIndex::read(p)?, domain: Domain::Coefficient })
            }
            ("limb", ["eval", p]) => {
                Ok(Type::Limb { prime: PrimeIndex::read(p)?, domain: Domain::Evaluation })
            }
            ("weight", [log]) => Ok(Type::Weight { log_period: period(log)? }),
            ("plain", [log, p]) => Ok(Type::Plain { log_period: period(log)?, prime: PrimeIndex::read(p)? }),
            ("key", [p]) => Ok(Type::Key { prime: PrimeIndex::read(p)? }),
            _ => Err(error()),
        }
    }
}

impl Attribute for DeviceId {
    fn write(&self, out: &mut String) {
        out.push_str(&self.to_string());
    }

    fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix('d').and_then(|number| number.parse().ok());
        number.map(DeviceId).ok_or_else(|| format!("`{text}` is not a device like d3"))
    }
}

/// A limb that another device sends. `d1:eval:p3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Who sends it.
    pub from: DeviceId,
    /// Its domain.
    pub domain: Domain,
    /// Its prime.
    pub prime: PrimeIndex,
}

impl Attribute for Arrival {
    fn write(&self, out: &mut String) {
        let domain = match self.domain {
            Domain::Coefficient => "coeff",
            Domain::Evaluation => "eval",
        };
        out.push_str(&format!("{}:{domain}:{}", self.from, self.prime));
    }

    fn read(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is not a limb that arrives, like d1:eval:p3");
        let [from, domain, prime] = *text.split(':').collect::<Vec<_>>() else { return Err(error()) };
        let domain = match domain {
            "coeff" => Domain::Coefficient,
            "eval" => Domain::Evaluation,
            _ => return Err(error()),
        };
        Ok(Arrival { from: DeviceId::read(from)?, domain, prime: PrimeIndex::read(prime)? })
    }
}

/// The typing rule: see [`crate::ir::Dialect::infer`].
pub(super) fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
    let params = &module.context.params;
    let one = |prime: PrimeIndex, domain: Domain| Ok(vec![Type::Limb { prime, domain }]);
    let known = |prime: PrimeIndex| match params.moduli().get(prime.index()) {
        Some(modulus) => Ok(modulus.value()),
        None => Err(format!("there is no prime {prime}")),
    };
    let residue = |prime: PrimeIndex, scalar: u32| match known(prime)? {
        q if scalar < q => Ok(()),
        q => Err(format!("the scalar {scalar} is not below {prime} = {q}")),
    };
    match op {
        Op::Add { .. } | Op::Sub { .. } => match (limb(operands[0])?, limb(operands[1])?) {
            (a, b) if a == b => one(a.0, a.1),
            _ => Err(format!("{} of {} and {}", op.mnemonic(), operands[0], operands[1])),
        },
        Op::Mul { .. } => match (evaluated(operands[0])?, evaluated(operands[1])?) {
            (a, b) if a == b => one(a, Domain::Evaluation),
            _ => Err(format!("mul of {} and {}", operands[0], operands[1])),
        },
        Op::Neg { .. } => limb(operands[0]).and_then(|(prime, domain)| one(prime, domain)),
        Op::MulMontgomery { .. } => match (evaluated(operands[0])?, constant(operands[1])?) {
            (a, k) if a == k => one(a, Domain::Evaluation),
            _ => Err(format!("mul_montgomery of {} and {}", operands[0], operands[1])),
        },
        Op::FromMontgomery { .. } => match operands[0] {
            Type::Plain { prime, .. } => one(*prime, Domain::Evaluation),
            other => Err(format!("from_montgomery of {other}")),
        },
        Op::MulScalar { scalar, .. } => {
            let (prime, domain) = limb(operands[0])?;
            residue(prime, *scalar)?;
            one(prime, domain)
        }
        Op::AddScalar { scalar, .. } => {
            let prime = evaluated(operands[0])?;
            residue(prime, *scalar)?;
            one(prime, Domain::Evaluation)
        }
        Op::Dot { .. } => {
            if operands.is_empty() || operands.len() % 2 == 1 {
                return Err(format!("dot of {} operands", operands.len()));
            }
            let prime = evaluated(operands[0])?;
            for pair in operands.chunks(2) {
                if evaluated(pair[0])? != prime || constant(pair[1])? != prime {
                    return Err(format!("dot of {} and {} among limbs of {prime}", pair[0], pair[1]));
                }
            }
            one(prime, Domain::Evaluation)
        }
        Op::Ntt { .. } => match limb(operands[0])? {
            (prime, Domain::Coefficient) => one(prime, Domain::Evaluation),
            _ => Err(format!("ntt of {}", operands[0])),
        },
        Op::Intt { factor, .. } => {
            let prime = evaluated(operands[0])?;
            residue(prime, *factor)?;
            one(prime, Domain::Coefficient)
        }
        Op::Permute { galois, .. } => {
            let prime = evaluated(operands[0])?;
            if galois % 2 == 1 && (*galois as usize) < 2 * params.n() {
                one(prime, Domain::Evaluation)
            } else {
                Err(format!("{galois} is not an odd number below {}", 2 * params.n()))
            }
        }
        Op::BaseConvert { to, .. } => {
            known(*to)?;
            if operands.is_empty() || operands.len() > MOST_SOURCES {
                return Err(format!(
                    "base_convert of {} limbs; it takes 1 to {MOST_SOURCES}",
                    operands.len()
                ));
            }
            let mut primes = vec![*to];
            for ty in operands {
                match limb(ty)? {
                    (prime, Domain::Coefficient) if !primes.contains(&prime) => primes.push(prime),
                    _ => return Err(format!("base_convert to {to} of {ty} among {primes:?}")),
                }
            }
            one(*to, Domain::Coefficient)
        }
        Op::Weight { index } => Ok(vec![Type::Weight { log_period: module.context.log_period(*index)? }]),
        Op::Plain { prime, scale, rotation, .. } => {
            known(*prime)?;
            match operands[0] {
                Type::Weight { log_period }
                    if scale.0.is_finite() && scale.0 >= 1.0 && rotation >> log_period == 0 =>
                {
                    Ok(vec![Type::Plain { log_period: *log_period, prime: *prime }])
                }
                other => Err(format!("plain of {other} at scale {scale}, rotated by {rotation}")),
            }
        }
        Op::Key { digit, prime, .. } => {
            known(*prime)?;
            if (*digit as usize) < params.digits().len() {
                Ok(vec![Type::Key { prime: *prime }])
            } else {
                Err(format!("there is no digit {digit}"))
            }
        }
        Op::Call { function, .. } => module.call_types(function, operands),
        Op::Exchange { to, from, .. } => {
            operands.iter().try_for_each(|ty| limb(ty).map(drop))?;
            if to.len() != operands.len() {
                return Err(format!("exchange of {} limbs to {} devices", operands.len(), to.len()));
            }
            from.iter().try_for_each(|arrival| known(arrival.prime).map(drop))?;
            let received = |arrival: &Arrival| Type::Limb { prime: arrival.prime, domain: arrival.domain };
            Ok(from.iter().map(received).collect())
        }
        Op::AllReduce { .. } => {
            operands.iter().try_for_each(|ty| limb(ty).map(drop))?;
            Ok(operands.iter().map(|&ty| *ty).collect())
        }
    }
}

fn limb(ty: &Type) -> Result<(PrimeIndex, Domain), String> {
    match ty {
        Type::Limb { prime, domain } => Ok((*prime, *domain)),
        other => Err(format!("a limb is expected, not {other}")),
    }
}

fn evaluated(ty: &Type) -> Result<PrimeIndex, String> {
    match limb(ty)? {
        (prime, Domain::Evaluation) => Ok(prime),
        _ => Err(format!("{ty} is not in the evaluation domain")),
    }
}

/// The prime of a limb in Montgomery form.
fn constant(ty: &Type) -> Result<PrimeIndex, String> {
    match ty {
        Type::Plain { prime, .. } | Type::Key { prime } => Ok(*prime),
        other => Err(format!("a plaintext or key limb is expected, not {other}")),
    }
}
