//! Parameter sets: ring degree, primes, levels with their exact scales, and key-switching digits.
//!
//! A [`ParamsSpec`] is a plain description; [`Params`] is one that has been checked, with the tables every
//! other module works from. It is immutable and cheap to clone.

mod bootstrap;
mod check;
mod error;
mod named;
mod search;
mod security;
mod spec;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::basis::{Basis, Level, PrimeIndex, Scale};
use crate::modulus::Modulus;
use crate::ntt::{NttTable, TableMemory};
use check::{check_levels, check_primes, check_scales};

pub use bootstrap::{Bootstrap, BootstrapSpec, SPARSE_WEIGHT};
pub use error::ParamsError;
pub use search::MAX_DIGIT;
pub use security::max_log_pq;
pub use spec::{ParamsSpec, Window};

/// Identity of a parameter set: the BLAKE3 hash of its canonical description. Every object made under a set
/// carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ParamsDigest(pub [u8; 32]);

impl fmt::Display for ParamsDigest {
    /// The first 16 of 64 hexadecimal digits, enough to tell sets apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ParamsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A checked parameter set.
#[derive(Clone)]
pub struct Params(Arc<Inner>);

struct Inner {
    spec: ParamsSpec,
    digest: ParamsDigest,
    moduli: Vec<Modulus>,
    ntt: Vec<OnceLock<NttTable>>,
    /// Where the tables are.
    tables: TableMemory,
    levels: Vec<Basis>,
    scales: Vec<Scale>,
    digits: Vec<Basis>,
    bootstrap: Option<Bootstrap>,
}

impl Params {
    /// The set of a name from the table ([`names`](Self::names)), secure ones only.
    ///
    /// # Errors
    /// Unknown names; and insecure sets, for which [`named_insecure`](Self::named_insecure) is the opt-in.
    pub fn named(name: &str) -> Result<Params, ParamsError> {
        let params = Self::named_insecure(name)?;
        if params.is_insecure() {
            return Err(ParamsError::InsecureNotAllowed { name: name.to_owned() });
        }
        Ok(params)
    }

    /// The set of a name from the table, insecure ones for tests included.
    ///
    /// # Errors
    /// Unknown names.
    pub fn named_insecure(name: &str) -> Result<Params, ParamsError> {
        let unknown = || ParamsError::UnknownName { name: name.to_owned() };
        let (_, goal) = named::NAMED.iter().find(|(n, _)| *n == name).ok_or_else(unknown)?;
        Params::new(goal.search(name)?)
    }

    /// Names of all sets, the insecure ones last.
    pub fn names() -> Vec<&'static str> {
        named::NAMED.iter().map(|(name, _)| *name).collect()
    }

    /// Checks a description and builds the set.
    ///
    /// A description that marks itself insecure is accepted: whoever must not work under such a set asks
    /// [`is_insecure`](Self::is_insecure). The scales follow from the primes: the scale of level 0 is
    /// 2^`log_scale`, and that of level l is the one whose square, rescaled to level l - 1, is the scale
    /// there: `scale(l) = sqrt(scale(l-1) * prod basis(l) / prod basis(l-1))`. Deviations are halved from
    /// level to level, so scales stay within a fraction of a bit of 2^`log_scale`, but for the top level,
    /// which may have more.
    ///
    /// Above the output of bootstrapping levels are longer, and the recursion begins anew there from
    /// `gain * scale(output)`: what eval_mod rescales to the output level has `gain` times the scale of that
    /// level, and so, read at the scale of the level, it is `gain` times larger ([`Bootstrap`]).
    ///
    /// # Errors
    /// Whatever makes the description unusable or less secure than it claims.
    pub fn new(spec: ParamsSpec) -> Result<Params, ParamsError> {
        use ParamsError::Malformed;
        let name = spec.name.as_bytes();
        if name.is_empty() || name.len() > ParamsSpec::MAX_NAME || !name.iter().all(u8::is_ascii_graphic) {
            return Err(ParamsError::BadName { name: spec.name.chars().take(80).collect() });
        }
        if spec.insecure != spec.name.starts_with("insecure") {
            return Err(ParamsError::InsecureName { name: spec.name });
        }
        if !(4..=17).contains(&spec.log_n) {
            return Err(ParamsError::RingDegree { log_n: spec.log_n.into() });
        }
        if spec.q.is_empty() || spec.p.is_empty() || spec.q.len() + spec.p.len() > Basis::MAX_PRIMES {
            return Err(Malformed("Q and P need at least one prime each and at most 128 together"));
        }
        if spec.p.len() > MAX_DIGIT || spec.digits.iter().any(|&len| usize::from(len) > MAX_DIGIT) {
            return Err(Malformed("P and every digit have at most 16 primes"));
        }
        if spec.digits.contains(&0)
            || spec.digits.iter().map(|&d| usize::from(d)).sum::<usize>() != spec.q.len()
        {
            return Err(Malformed("the digits must divide the primes of Q among themselves"));
        }
        if !(10..=60).contains(&spec.log_scale) {
            return Err(Malformed("the scale must be 2^10 to 2^60"));
        }
        let moduli = check_primes(&spec)?;
        let levels = check_levels(&spec, &moduli)?;
        let bootstrap = spec.check_bootstrap()?;
        let scales = check_scales(&spec, &moduli, &levels, bootstrap)?;
        let mut next = 0;
        let digits = spec.digits.iter().map(|&len| {
            let start = next;
            next += usize::from(len);
            Basis::range(start, next)
        });
        let digits = digits.collect();
        let digest = spec.digest();
        let ntt = moduli.iter().map(|_| OnceLock::new()).collect();
        let tables = TableMemory::new(moduli.len(), spec.log_n.into());
        let params =
            Params(Arc::new(Inner { spec, digest, moduli, ntt, tables, levels, scales, digits, bootstrap }));
        params.check_digits()?;
        params.check_sparse()?;
        if !params.is_insecure() && params.security_bits().is_none() {
            return Err(ParamsError::Insecure {
                name: params.name().to_owned(),
                log_n: params.log_n(),
                log_pq: params.log_pq(),
                bound: max_log_pq(params.log_n()).unwrap_or(0.0),
            });
        }
        Ok(params)
    }

    fn check_digits(&self) -> Result<(), ParamsError> {
        let log_p = self.log_p();
        for (digit, &basis) in self.digits().iter().enumerate() {
            let bits = self.log_product(basis);
            if bits > log_p + 1e-9 {
                return Err(ParamsError::Digit { digit, bits, log_p });
            }
        }
        Ok(())
    }

    /// Name of the set.
    pub fn name(&self) -> &str {
        &self.0.spec.name
    }

    /// The description it was built from.
    pub fn spec(&self) -> &ParamsSpec {
        &self.0.spec
    }

    /// Identity of the set.
    pub fn digest(&self) -> ParamsDigest {
        self.0.digest
    }

    /// Base-2 logarithm of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.0.spec.log_n.into()
    }

    /// Ring degree N: the words of a limb.
    pub fn n(&self) -> usize {
        1 << self.log_n()
    }

    /// Number of complex slots, N/2.
    pub fn slots(&self) -> usize {
        self.n() / 2
    }

    /// All primes: Q in window order, then P.
    pub fn moduli(&self) -> &[Modulus] {
        &self.0.moduli
    }

    /// One prime. Panics if `prime` is outside the pool.
    pub fn modulus(&self, prime: PrimeIndex) -> &Modulus {
        &self.0.moduli[prime.index()]
    }

    /// The NTT of one prime; its tables are made when first asked for. Panics if `prime` is outside the pool.
    pub fn ntt(&self, prime: PrimeIndex) -> &NttTable {
        self.0.ntt[prime.index()].get_or_init(|| {
            NttTable::within(&self.0.tables, *self.modulus(prime), self.log_n())
                .expect("checked to be 1 modulo 2N when the set was built")
        })
    }

    /// The primes of Q: the basis of the top level.
    pub fn q_basis(&self) -> Basis {
        Basis::range(0, self.0.spec.q.len())
    }

    /// The auxiliary primes of key switching.
    pub fn p_basis(&self) -> Basis {
        Basis::range(self.0.spec.q.len(), self.0.moduli.len())
    }

    /// The top level.
    pub fn max_level(&self) -> Level {
        Level((self.0.levels.len() - 1) as u8)
    }

    /// All levels, from 0 up.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = Level> + Clone + use<> {
        (0..=self.max_level().0).map(Level)
    }

    /// The basis of a ciphertext at `level`, a contiguous window of Q. Panics above the top level.
    pub fn basis(&self, level: Level) -> Basis {
        self.0.levels[usize::from(level.0)]
    }

    /// The canonical scale of `level`: a product of two such ciphertexts, rescaled, has exactly the canonical
    /// scale of the level below (from the level above the output of bootstrapping: `gain` times that). Panics
    /// above the top level.
    pub fn scale(&self, level: Level) -> Scale {
        self.0.scales[usize::from(level.0)]
    }

    /// The key-switching digits: a partition of Q in window order, each with a product of at most that of P.
    pub fn digits(&self) -> &[Basis] {
        &self.0.digits
    }

    /// Base-2 logarithm of the product of a basis.
    pub fn log_product(&self, basis: Basis) -> f64 {
        basis.iter().map(|p| f64::from(self.modulus(p).value()).log2()).sum()
    }

    /// Base-2 logarithm of the modulus at `level`.
    pub fn log_q(&self, level: Level) -> f64 {
        self.log_product(self.basis(level))
    }

    /// Base-2 logarithm of P.
    pub fn log_p(&self) -> f64 {
        self.log_product(self.p_basis())
    }

    /// Base-2 logarithm of the product of *all* primes, terminal primes included: what security depends on.
    pub fn log_pq(&self) -> f64 {
        self.log_product(self.q_basis().union(self.p_basis()))
    }

    /// 128 if the modulus is within the bound for 128-bit security ([`max_log_pq`]), `None` otherwise.
    pub fn security_bits(&self) -> Option<u32> {
        max_log_pq(self.log_n()).filter(|&bound| self.log_pq() <= bound).map(|_| 128)
    }

    /// Whether the set is for tests only.
    pub fn is_insecure(&self) -> bool {
        self.0.spec.insecure
    }
}

impl ParamsSpec {
    /// A small set for tests, of any ring degree and with no security: `levels` rescalings of about
    /// 2^`log_scale` above a base of about 20 bits more, and at most `dnum` key-switching digits.
    ///
    /// # Errors
    /// If no primes give this.
    pub fn insecure(log_n: u8, log_scale: u8, levels: u8, dnum: u8) -> Result<ParamsSpec, ParamsError> {
        let log_base = log_scale.saturating_add(20);
        let name = format!("insecure-{log_n}-{log_scale}-{levels}-{dnum}");
        if !(4..=17).contains(&log_n) {
            return Err(ParamsError::RingDegree { log_n: log_n.into() });
        }
        let goal = search::Goal {
            log_n,
            log_base,
            base_slack: 10,
            log_scale,
            levels: &[(levels, log_scale)],
            dnum,
            log_p: search::LogP::Beyond(6),
            bootstrap: None,
            insecure: true,
        };
        goal.search(&name)
    }

    /// A small set for tests of bootstrapping, of any ring degree from 2^6 (the sparse secret has weight 32) and
    /// with no security: primes and levels are as many and as long as those of `boot-40`, `boot-35` or
    /// `boot-30`, whichever has scale 2^`log_scale`.
    ///
    /// # Errors
    /// If there is no such set, or no primes give this.
    pub fn insecure_boot(log_n: u8, log_scale: u8) -> Result<ParamsSpec, ParamsError> {
        if !(6..=17).contains(&log_n) {
            return Err(ParamsError::RingDegree { log_n: log_n.into() });
        }
        let goal = named::BOOT.iter().find(|goal| goal.log_scale == log_scale);
        let goal =
            goal.ok_or(ParamsError::Bootstrap("there are sets for it of scale 2^40, 2^35 and 2^30"))?;
        let name = format!("insecure-boot-{log_n}-{log_scale}");
        search::Goal { log_n, insecure: true, ..*goal }.search(&name)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({}, {})", self.name(), self.digest())
    }
}

/// Two sets are equal when their digests are.
impl PartialEq for Params {
    fn eq(&self, other: &Params) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Params {}

#[cfg(test)]
mod tests;
