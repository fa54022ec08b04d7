//! Evaluation keys: what the server needs to relinearize, rotate, conjugate and bootstrap, and the name under
//! which each is asked for and kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::automorphism::conjugation_element;
use crate::basis::{Basis, Level, PrimeIndex};
use crate::params::{Params, ParamsDigest};
use crate::uniform::{Seed, uniform_limb};

/// Folder of the evaluation keys within a folder of keys; this part goes to the server.
pub const KEY_FOLDER: &str = "evaluation";

/// What an evaluation key does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum KeyKind {
    /// From s^2 to s, after a multiplication.
    Relinearization,
    /// For the automorphism X -> X^g with this Galois element g = 5^r mod 2N: rotates slots to the left by r.
    Rotation(u32),
    /// For the automorphism X -> X^(2N-1): conjugates slots.
    Conjugation,
    /// From s to the sparse secret of bootstrapping, at level 0 and under the few primes of
    /// [`Params::sparse_p_basis`].
    ToSparse,
    /// From the sparse secret back to s, at the top level, for a polynomial of small coefficients.
    FromSparse,
}

impl KeyKind {
    /// The Galois element of the automorphism in the ring of degree 2^`log_n`; 1 for keys without one.
    pub fn galois_element(self, log_n: u32) -> u32 {
        match self {
            KeyKind::Relinearization | KeyKind::ToSparse | KeyKind::FromSparse => 1,
            KeyKind::Rotation(galois) => galois,
            KeyKind::Conjugation => conjugation_element(log_n),
        }
    }
}

/// A line of a key manifest: one evaluation key, for ciphertexts of `level` and below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KeyRequest {
    /// What it does.
    pub kind: KeyKind,
    /// The highest level it serves.
    pub level: Level,
}

impl KeyRequest {
    /// The primes of Q that occur at `level` or below: with rational rescaling more than those at `level`.
    /// Panics above the top level.
    pub fn q_basis(self, params: &Params) -> Basis {
        (0..=self.level.0).map(|l| params.basis(Level(l))).fold(Basis::EMPTY, Basis::union)
    }

    /// The auxiliary primes of the key: P, or those for the sparse secret.
    pub fn p_basis(self, params: &Params) -> Basis {
        match self.kind {
            KeyKind::ToSparse => params.sparse_p_basis(),
            _ => params.p_basis(),
        }
    }

    /// The basis K of the key: [`q_basis`](Self::q_basis) and [`p_basis`](Self::p_basis). Panics above the top
    /// level.
    pub fn basis(self, params: &Params) -> Basis {
        self.q_basis(params).union(self.p_basis(params))
    }

    /// The digits of the key, in order: the parts of the digits of the parameter set within
    /// [`q_basis`](Self::q_basis), without the empty ones. The keys of bootstrapping have one digit, all of
    /// that basis. Panics above the top level.
    pub fn digits(self, params: &Params) -> Vec<Basis> {
        let q_basis = self.q_basis(params);
        if matches!(self.kind, KeyKind::ToSparse | KeyKind::FromSparse) {
            return vec![q_basis];
        }
        let parts = params.digits().iter().map(|digit| digit.intersection(q_basis));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Position among [`digits`](Self::digits) of the digit with this number in the parameter set; the keys of
    /// bootstrapping have number 0 only. `None` if the key is without it. Panics above the top level.
    pub fn digit_position(self, params: &Params, number: usize) -> Option<usize> {
        if matches!(self.kind, KeyKind::ToSparse | KeyKind::FromSparse) {
            return (number == 0).then_some(0);
        }
        let q_basis = self.q_basis(params);
        let present = |digit: &Basis| !digit.intersection(q_basis).is_empty();
        let (digit, before) = params.digits().get(..=number)?.split_last()?;
        present(digit).then(|| before.iter().filter(|digit| present(digit)).count())
    }

    /// Words of the stored half of the key. Panics above the top level.
    pub fn words(self, params: &Params) -> usize {
        self.digits(params).len() * self.basis(params).len() * params.n()
    }

    /// Checks that the level exists and suits the kind, that the set has levels for bootstrapping if the key is
    /// one for that, and that the Galois element is one of a rotation.
    ///
    /// # Errors
    /// [`KeyError`] says which of them is wrong.
    pub fn check(self, params: &Params) -> Result<(), KeyError> {
        if self.level > params.max_level() {
            return Err(KeyError::Level { request: self, top: params.max_level() });
        }
        match self.kind {
            // Powers of 5 are the numbers 1 modulo 4.
            KeyKind::Rotation(g) if g % 4 != 1 || g == 1 || g >= 2 << params.log_n() => {
                Err(KeyError::Galois { request: self, order: 2 << params.log_n() })
            }
            KeyKind::ToSparse | KeyKind::FromSparse => {
                let level = if self.kind == KeyKind::ToSparse { Level(0) } else { params.max_level() };
                match params.bootstrap() {
                    None => Err(KeyError::NoBootstrap { request: self }),
                    Some(_) if self.level != level => Err(KeyError::OnlyLevel { request: self, level }),
                    Some(_) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Name of its file in a directory of evaluation keys, for example `rotation-25-L9.key`.
    pub fn file_name(self) -> String {
        format!("{self}.key")
    }
}

/// `relinearization-L9`, `rotation-25-L9` (the number is the Galois element), `conjugation-L9`, `to_sparse-L0`,
/// `from_sparse-L29`.
impl fmt::Display for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            KeyKind::Relinearization => write!(f, "relinearization-{}", self.level),
            KeyKind::Rotation(galois) => write!(f, "rotation-{galois}-{}", self.level),
            KeyKind::Conjugation => write!(f, "conjugation-{}", self.level),
            KeyKind::ToSparse => write!(f, "to_sparse-{}", self.level),
            KeyKind::FromSparse => write!(f, "from_sparse-{}", self.level),
        }
    }
}

/// What is wrong with an evaluation key or with the wish for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The level does not exist.
    #[error("key {request} is for a level above the top level {top} of the parameter set")]
    Level {
        /// The key.
        request: KeyRequest,
        /// The top level.
        top: Level,
    },
    /// The Galois element is not one of a rotation.
    #[error("key {request}: the Galois element must be a power of 5 modulo {order}, other than 1")]
    Galois {
        /// The key.
        request: KeyRequest,
        /// 2N.
        order: u32,
    },
    /// The parameter set has no levels for bootstrapping.
    #[error(
        "key {request} is for bootstrapping, which the parameter set has no levels for; use one that does, like \
         boot-40"
    )]
    NoBootstrap {
        /// The key.
        request: KeyRequest,
    },
    /// The key exists at another level only.
    #[error("key {request} exists only at level {level}")]
    OnlyLevel {
        /// The key.
        request: KeyRequest,
        /// The level.
        level: Level,
    },
    /// There are too few or too many words.
    #[error("key {request} has {got} words where {expected} are needed")]
    Words {
        /// The key.
        request: KeyRequest,
        /// Words given.
        got: usize,
        /// Words needed.
        expected: usize,
    },
}

/// An evaluation key, borrowed from where its words lie (a file mapped into memory, or an [`EvaluationKey`]).
///
/// For a source secret s' and a target secret s, digit d of the key is the pair (b_d, a_d) of polynomials
/// over the basis K with `b_d = -a_d s + e_d + g_d s'`, where the gadget g_d is the product of the auxiliary
/// primes of the key modulo the primes of digit d and 0 modulo all others (Han and Ki, Better Bootstrapping for
/// Approximate Homomorphic Encryption, 2020, section 3). Both are in the evaluation domain and in Montgomery
/// form; b is stored, a grows from a seed.
///
/// | kind | s' | s |
/// |---|---|---|
/// | relinearization | s^2 | s |
/// | rotation, conjugation by g | s | s(X^(1/g)) |
/// | to_sparse | s | t |
/// | from_sparse | t | s |
///
/// An automorphism thus comes last: the switched ciphertext is permuted as a whole.
///
/// The last two are the sparse-secret encapsulation of bootstrapping (Bossuat, Troncoso-Pastoriza and Hubaux,
/// Bootstrapping for Approximate Homomorphic Encryption with Negligible Failure-Probability by Using
/// Sparse-Secret Encapsulation, 2022): t is a ternary secret of weight 32, under which a ciphertext is raised
/// from level 0 to the top, because the multiples of the modulus that this adds are as small as the secret. A
/// secret so sparse is safe only under a small modulus, and no key shows it under any other: to_sparse is over
/// the modulus of level 0 and the few auxiliary primes of [`Params::sparse_p_basis`], and from_sparse hides t
/// behind s. The raised polynomial is smaller than the modulus of level 0, so from_sparse takes it as a single
/// digit: the noise, N errors times that modulus over P, vanishes.
#[derive(Clone, Copy)]
pub struct EvaluationKeyView<'a> {
    request: KeyRequest,
    digest: ParamsDigest,
    seed: &'a Seed,
    b: &'a [u32],
    digits: usize,
    basis: Basis,
    n: usize,
}

impl<'a> EvaluationKeyView<'a> {
    /// A view of `b`, laid out `[digit][limb of K][N]`, canonical words.
    ///
    /// # Errors
    /// If the parameter set has no such key, or `b` is not of its size.
    pub fn new(
        params: &Params,
        request: KeyRequest,
        seed: &'a Seed,
        b: &'a [u32],
    ) -> Result<EvaluationKeyView<'a>, KeyError> {
        request.check(params)?;
        let expected = request.words(params);
        if b.len() != expected {
            return Err(KeyError::Words { request, got: b.len(), expected });
        }
        let (digits, basis) = (request.digits(params).len(), request.basis(params));
        Ok(EvaluationKeyView { request, digest: params.digest(), seed, b, digits, basis, n: params.n() })
    }

    /// Which key it is.
    pub fn request(&self) -> KeyRequest {
        self.request
    }

    /// The parameter set it was made under.
    pub fn digest(&self) -> ParamsDigest {
        self.digest
    }

    /// The seed of the uniform half.
    pub fn seed(&self) -> &'a Seed {
        self.seed
    }

    /// Number of digits.
    pub fn digits(&self) -> usize {
        self.digits
    }

    /// The basis K.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// All stored words, `[digit][limb of K][N]`.
    pub fn words(&self) -> &'a [u32] {
        self.b
    }

    /// The limb of b_`digit` modulo `prime`; `None` where the key has no such digit or prime.
    pub fn b(&self, digit: usize, prime: PrimeIndex) -> Option<&'a [u32]> {
        let position = self.basis.position(prime).filter(|_| digit < self.digits)?;
        self.b.chunks_exact(self.n).nth(digit * self.basis.len() + position)
    }

    /// Writes the limb of a_`digit` modulo `prime` to `out` (N words). Panics if `prime` is outside the pool of
    /// `params`.
    pub fn expand_a(&self, params: &Params, digit: usize, prime: PrimeIndex, out: &mut [u32]) {
        uniform_limb(self.seed, digit, prime, params.modulus(prime), out);
    }
}

/// An evaluation key that owns its words; see [`EvaluationKeyView`] for what they are.
#[derive(Clone, PartialEq, Eq)]
pub struct EvaluationKey {
    request: KeyRequest,
    seed: Seed,
    b: Vec<u32>,
}

impl EvaluationKey {
    /// A key of words `b`, laid out `[digit][limb of K][N]`, canonical.
    ///
    /// # Errors
    /// If the parameter set has no such key, or `b` is not of its size.
    pub fn new(
        params: &Params,
        request: KeyRequest,
        seed: Seed,
        b: Vec<u32>,
    ) -> Result<EvaluationKey, KeyError> {
        EvaluationKeyView::new(params, request, &seed, &b)?;
        Ok(EvaluationKey { request, seed, b })
    }

    /// Which key it is.
    pub fn request(&self) -> KeyRequest {
        self.request
    }

    /// The seed of the uniform half.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// All stored words, `[digit][limb of K][N]`.
    pub fn words(&self) -> &[u32] {
        &self.b
    }

    /// The key as the server reads it. `params` must be the set it was made under; panics if the sizes
    /// differ.
    pub fn view(&self, params: &Params) -> EvaluationKeyView<'_> {
        EvaluationKeyView::new(params, self.request, &self.seed, &self.b)
            .expect("checked when the key was made")
    }
}

impl fmt::Debug for EvaluationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvaluationKey({}, {} bytes)", self.request, 4 * self.b.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::automorphism::galois_element;

    #[test]
    fn the_basis_serves_every_level_below() {
        let params = Params::named_insecure("insecure-test").unwrap();
        for level in params.levels() {
            let request = KeyRequest { kind: KeyKind::Relinearization, level };
            request.check(&params).unwrap();
            let digits = request.digits(&params);
            let union = digits.iter().fold(Basis::EMPTY, |union, &d| union.union(d));
            assert_eq!(union, request.q_basis(&params));
            assert!(params.p_basis().is_subset(request.basis(&params)));
            for below in params.levels().filter(|&l| l <= level) {
                assert!(params.basis(below).is_subset(union));
            }
        }
    }

    #[test]
    fn keys_of_bootstrapping_have_one_digit() {
        let params = Params::named_insecure("insecure-boot-40").unwrap();
        let to = KeyRequest { kind: KeyKind::ToSparse, level: Level(0) };
        let from = KeyRequest { kind: KeyKind::FromSparse, level: params.max_level() };
        to.check(&params).unwrap();
        from.check(&params).unwrap();
        assert_eq!(to.digits(&params), [params.basis(Level(0))]);
        assert_eq!(to.basis(&params).len(), params.basis(Level(0)).len() + 2);
        assert_eq!(from.digits(&params), [params.q_basis()]);
        assert_eq!(from.basis(&params), params.q_basis().union(params.p_basis()));
        for request in [to, from] {
            assert_eq!([0, 1].map(|i| request.digit_position(&params, i)), [Some(0), None]);
            for level in params.levels().filter(|&level| level != request.level) {
                let moved = KeyRequest { level, ..request };
                assert!(matches!(moved.check(&params), Err(KeyError::OnlyLevel { .. })));
            }
        }
        let params = Params::named_insecure("insecure-test").unwrap();
        assert!(matches!(to.check(&params), Err(KeyError::NoBootstrap { .. })));
    }

    #[test]
    fn digits_keep_their_place_in_the_set() {
        let params = Params::named_insecure("insecure-boot-30").unwrap();
        for level in params.levels() {
            let request = KeyRequest { kind: KeyKind::Conjugation, level };
            let (digits, q_basis) = (request.digits(&params), request.q_basis(&params));
            for (number, digit) in params.digits().iter().enumerate() {
                let part = digit.intersection(q_basis);
                let expected = digits.iter().position(|&d| d == part);
                assert_eq!(request.digit_position(&params, number), expected);
            }
            assert_eq!(request.digit_position(&params, params.digits().len()), None);
        }
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let params = Params::named_insecure("insecure-test").unwrap();
        let level = params.max_level();
        let check = |kind, level| KeyRequest { kind, level }.check(&params);
        for r in 1..20 {
            check(KeyKind::Rotation(galois_element(params.log_n(), r)), level).unwrap();
        }
        for galois in [0, 1, 2, 3, 7, (2 << params.log_n()) + 1] {
            assert!(
                matches!(check(KeyKind::Rotation(galois), level), Err(KeyError::Galois { .. })),
                "{galois}"
            );
        }
        assert!(matches!(check(KeyKind::Conjugation, Level(level.0 + 1)), Err(KeyError::Level { .. })));
        let request = KeyRequest { kind: KeyKind::Conjugation, level: Level(0) };
        assert!(matches!(
            EvaluationKey::new(&params, request, [0; 32], vec![0; 3]),
            Err(KeyError::Words { .. })
        ));
    }

    #[test]
    fn names() {
        let name = |kind| KeyRequest { kind, level: Level(9) }.file_name();
        assert_eq!(name(KeyKind::Relinearization), "relinearization-L9.key");
        assert_eq!(name(KeyKind::Rotation(25)), "rotation-25-L9.key");
        assert_eq!(name(KeyKind::Conjugation), "conjugation-L9.key");
        assert_eq!(name(KeyKind::ToSparse), "to_sparse-L9.key");
        assert_eq!(name(KeyKind::FromSparse), "from_sparse-L9.key");
    }
}
