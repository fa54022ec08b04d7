//! Ciphertexts and the public key that makes them.

use std::fmt;

use crate::basis::{Level, PrimeIndex, Scale};
use crate::params::{Params, ParamsDigest};
use crate::uniform::{Seed, uniform_limb};

/// Why words do not make a ciphertext or a public key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CiphertextError {
    /// The level does not exist.
    #[error("level {level} is above the top level {top} of the parameter set")]
    Level {
        /// The level asked for.
        level: Level,
        /// The top level.
        top: Level,
    },
    /// The scale is no finite number of at least 1.
    #[error("a ciphertext cannot have the scale {0}; scales are finite and at least 1")]
    Scale(f64),
    /// The number of polynomials is not 2 or 3.
    #[error("a ciphertext has 2 or 3 polynomials, not {0}")]
    Polynomials(usize),
    /// There are too few or too many words.
    #[error("{got} words where {expected} are needed")]
    Words {
        /// Words given.
        got: usize,
        /// Words needed.
        expected: usize,
    },
}

/// A ciphertext: polynomials c_0, c_1 (and c_2 before relinearization) with c_0 + c_1 s + c_2 s^2 = scale *
/// message + noise, over the basis of its level, in the evaluation domain, canonical words in normal form.
#[derive(Clone, PartialEq)]
pub struct Ciphertext {
    digest: ParamsDigest,
    level: Level,
    scale: Scale,
    n: usize,
    limbs: usize,
    words: Vec<u32>,
}

impl Ciphertext {
    /// A ciphertext of the given words, laid out `[polynomial][limb of the basis of the level][N]`;
    /// canonical.
    ///
    /// # Errors
    /// If level, scale or number of polynomials are impossible or do not fit the number of words.
    pub fn new(
        params: &Params,
        level: Level,
        scale: Scale,
        polynomials: usize,
        words: Vec<u32>,
    ) -> Result<Ciphertext, CiphertextError> {
        let expected = ciphertext_words(params, level, scale, polynomials)?;
        if words.len() != expected {
            return Err(CiphertextError::Words { got: words.len(), expected });
        }
        let (digest, n, limbs) = (params.digest(), params.n(), params.basis(level).len());
        Ok(Ciphertext { digest, level, scale, n, limbs, words })
    }

    /// The parameter set it was made under.
    pub fn digest(&self) -> ParamsDigest {
        self.digest
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Its exact scale.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Number of polynomials, 2 or 3.
    pub fn polynomials(&self) -> usize {
        self.words.len() / (self.limbs * self.n)
    }

    /// Number of limbs of each polynomial.
    pub fn limbs(&self) -> usize {
        self.limbs
    }

    /// All words, `[polynomial][limb][N]`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Gives up the words.
    pub fn into_words(self) -> Vec<u32> {
        self.words
    }

    /// One limb: `limb` counts within the basis of the level. Panics if there is none.
    pub fn limb(&self, polynomial: usize, limb: usize) -> &[u32] {
        assert!(limb < self.limbs, "limb {limb} of {}", self.limbs);
        &self.words[(polynomial * self.limbs + limb) * self.n..][..self.n]
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ciphertext({} polynomials, {}, scale 2^{:.3})",
            self.polynomials(),
            self.level,
            self.scale.log2()
        )
    }
}

/// Words of a ciphertext, after a check that there can be one.
pub(crate) fn ciphertext_words(
    params: &Params,
    level: Level,
    scale: Scale,
    polynomials: usize,
) -> Result<usize, CiphertextError> {
    if level > params.max_level() {
        return Err(CiphertextError::Level { level, top: params.max_level() });
    }
    if !(scale.0.is_finite() && scale.0 >= 1.0) {
        return Err(CiphertextError::Scale(scale.0));
    }
    if !(2..=3).contains(&polynomials) {
        return Err(CiphertextError::Polynomials(polynomials));
    }
    Ok(polynomials * params.basis(level).len() * params.n())
}

/// A freshly encrypted ciphertext whose c_1 is uniform and grows from a seed: half the size, for the way from
/// client to server. Only the holder of the secret key can make one.
#[derive(Clone, PartialEq)]
pub struct SeededCiphertext {
    digest: ParamsDigest,
    level: Level,
    scale: Scale,
    seed: Seed,
    c0: Vec<u32>,
}

impl SeededCiphertext {
    /// A ciphertext of the given c_0, laid out `[limb of the basis of the level][N]`; canonical.
    ///
    /// # Errors
    /// If level or scale are impossible or do not fit the number of words.
    pub fn new(
        params: &Params,
        level: Level,
        scale: Scale,
        seed: Seed,
        c0: Vec<u32>,
    ) -> Result<SeededCiphertext, CiphertextError> {
        let expected = ciphertext_words(params, level, scale, 2)? / 2;
        if c0.len() != expected {
            return Err(CiphertextError::Words { got: c0.len(), expected });
        }
        Ok(SeededCiphertext { digest: params.digest(), level, scale, seed, c0 })
    }

    /// The parameter set it was made under.
    pub fn digest(&self) -> ParamsDigest {
        self.digest
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Its exact scale.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The seed of c_1.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The words of c_0, `[limb][N]`.
    pub fn c0(&self) -> &[u32] {
        &self.c0
    }

    /// The whole ciphertext: limb i of c_1 is [`uniform_limb`]`(seed, 0, prime i of the basis)`, evaluation
    /// domain, normal form.
    ///
    /// # Panics
    /// If `params` is not the set it was made under.
    pub fn expand(self, params: &Params) -> Ciphertext {
        assert_eq!(self.digest, params.digest(), "a ciphertext is expanded under its own parameters");
        let (n, limbs, mut words) = (params.n(), params.basis(self.level).len(), self.c0);
        let c1 = words.len();
        words.resize(2 * c1, 0);
        for (limb, prime) in words[c1..].chunks_exact_mut(n).zip(params.basis(self.level).iter()) {
            uniform_limb(&self.seed, 0, prime, params.modulus(prime), limb);
        }
        Ciphertext { digest: self.digest, level: self.level, scale: self.scale, n, limbs, words }
    }
}

impl fmt::Debug for SeededCiphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeededCiphertext({}, scale 2^{:.3})", self.level, self.scale.log2())
    }
}

/// The public key: (b, a) with b = -a s + e over all of Q, in the evaluation domain and in Montgomery form.
/// Anyone can encrypt under it at any level. b is stored, a grows from a seed ([`uniform_limb`], digit 0).
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    digest: ParamsDigest,
    seed: Seed,
    n: usize,
    b: Vec<u32>,
}

impl PublicKey {
    /// A key of words `b`, laid out `[limb of Q][N]`; canonical.
    ///
    /// # Errors
    /// If the number of words is wrong.
    pub fn new(params: &Params, seed: Seed, b: Vec<u32>) -> Result<PublicKey, CiphertextError> {
        let expected = params.q_basis().len() * params.n();
        if b.len() != expected {
            return Err(CiphertextError::Words { got: b.len(), expected });
        }
        Ok(PublicKey { digest: params.digest(), seed, n: params.n(), b })
    }

    /// The parameter set it was made under.
    pub fn digest(&self) -> ParamsDigest {
        self.digest
    }

    /// The seed of a.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// All words of b, `[limb of Q][N]`.
    pub fn words(&self) -> &[u32] {
        &self.b
    }

    /// The limb of b modulo a prime of Q. Panics for primes of P.
    pub fn b(&self, prime: PrimeIndex) -> &[u32] {
        &self.b[prime.index() * self.n..][..self.n]
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bytes)", 4 * self.b.len())
    }
}
