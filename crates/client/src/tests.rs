//! Fresh keys on every run: encryption, decryption and key switching against the theory, with the plainly
//! written arithmetic of `ckks::rns` in the place of the server.

use cerium_ckks::automorphism::{conjugation_element, galois_element};
use cerium_ckks::basis::{Basis, Level, Scale};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::{EvaluationKeyView, KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_ckks::rns::{Domain, Poly, product_mod};
use num_complex::Complex64;

use super::*;
use crate::random::SecretRng;

mod sparse;

struct Client {
    params: Params,
    encoder: Encoder,
    secret: SecretKey,
    rng: SecretRng,
}

impl Client {
    fn new(params: Params) -> Client {
        let secret = SecretKey::generate_insecure(&params).unwrap();
        Client { encoder: Encoder::new(&params), secret, rng: SecretRng::new().unwrap(), params }
    }

    /// The insecure test set: sawtooth levels at N = 2^12.
    fn test() -> Client {
        Client::new(Params::named_insecure("insecure-test").unwrap())
    }

    /// Complex slots in the square from -1-i to 1+i.
    fn slots(&mut self) -> Vec<Complex64> {
        let mut unit = || 2.0 * self.rng.unit() - 1.0;
        (0..self.params.slots()).map(|_| Complex64::new(unit(), unit())).collect()
    }

    fn encrypt(&self, slots: &[Complex64], level: Level) -> Ciphertext {
        let scale = self.params.scale(level);
        let ct =
            encrypt_with_secret_key(&self.params, &self.encoder, &self.secret, slots, level, scale).unwrap();
        ct.expand(&self.params)
    }

    fn decrypt(&self, ciphertext: &Ciphertext) -> Vec<Complex64> {
        decrypt(&self.params, &self.encoder, &self.secret, ciphertext).unwrap()
    }

    fn key(&self, kind: KeyKind, level: Level) -> cerium_ckks::evaluation_key::EvaluationKey {
        evaluation_key(&self.params, &self.secret, KeyRequest { kind, level }).unwrap()
    }

    fn polys(&self, ct: &Ciphertext) -> Vec<Poly> {
        let basis = self.params.basis(ct.level());
        let len = basis.len() * self.params.n();
        ct.words()
            .chunks_exact(len)
            .map(|w| Poly::from_words(&self.params, basis, Domain::Evaluation, w))
            .collect()
    }

    fn ciphertext(&self, level: Level, scale: Scale, polys: &[Poly]) -> Ciphertext {
        let words = polys.iter().flat_map(Poly::to_words).collect();
        Ciphertext::new(&self.params, level, scale, polys.len(), words).unwrap()
    }

    /// Switches one polynomial: (k_0, k_1) on `basis` with k_0 + k_1 s = c s' plus noise.
    fn switch(&self, c: &Poly, basis: Basis, key: &EvaluationKeyView<'_>) -> [Poly; 2] {
        let params = &self.params;
        let auxiliary = key.request().p_basis(params);
        let extended = basis.union(auxiliary);
        let coefficients = c.clone().intt(params);
        let mut sums = [0, 1].map(|_| Poly::zero(params, extended, Domain::Evaluation));
        for (d, digit) in key.request().digits(params).into_iter().enumerate() {
            let part = digit.intersection(c.basis());
            if part.is_empty() {
                continue;
            }
            let raised = coefficients.restrict(part).base_convert(params, extended).ntt(params);
            let half = |limb: &dyn Fn(cerium_ckks::basis::PrimeIndex) -> Vec<u32>| {
                Poly::from_limbs(extended, Domain::Evaluation, extended.iter().map(limb).collect())
            };
            let b = half(&|p| key.b(d, p).unwrap().to_vec());
            let a = half(&|p| {
                let mut limb = vec![0; params.n()];
                key.expand_a(params, d, p, &mut limb);
                limb
            });
            sums[0] = sums[0].add(params, &raised.mont_mul(params, &b));
            sums[1] = sums[1].add(params, &raised.mont_mul(params, &a));
        }
        sums.map(|sum| {
            let sum = sum.intt(params);
            let residue = sum.restrict(auxiliary).base_convert(params, basis);
            Poly::divide(params, &sum, &residue, auxiliary, Basis::EMPTY).ntt(params)
        })
    }

    /// Relinearizes, rotates or conjugates.
    fn apply(&self, ct: &Ciphertext, key: &EvaluationKeyView<'_>) -> Ciphertext {
        let (params, polys) = (&self.params, self.polys(ct));
        let [k0, k1] = self.switch(&polys[polys.len() - 1], params.basis(ct.level()), key);
        let switched = match key.request().kind {
            KeyKind::Relinearization => [polys[0].add(params, &k0), polys[1].add(params, &k1)],
            kind => {
                let galois = kind.galois_element(params.log_n());
                [polys[0].add(params, &k0).automorphism(params, galois), k1.automorphism(params, galois)]
            }
        };
        self.ciphertext(ct.level(), ct.scale(), &switched)
    }

    fn multiply(&self, a: &Ciphertext, b: &Ciphertext) -> Ciphertext {
        let (params, x, y) = (&self.params, self.polys(a), self.polys(b));
        let middle = x[0].mul(params, &y[1]).add(params, &x[1].mul(params, &y[0]));
        let polys = [x[0].mul(params, &y[0]), middle, x[1].mul(params, &y[1])];
        self.ciphertext(a.level(), Scale(a.scale().0 * b.scale().0), &polys)
    }

    fn rescale(&self, ct: &Ciphertext) -> Ciphertext {
        let (params, below) = (&self.params, Level(ct.level().0 - 1));
        let (from, to) = (params.basis(ct.level()), params.basis(below));
        let (by, times) = (from.minus(to), to.minus(from));
        let factors: Vec<u32> = by.iter().map(|p| product_mod(params, times, p)).collect();
        let polys = self.polys(ct).into_iter().map(|poly| {
            let poly = poly.intt(params);
            let residue = poly.restrict(by).mul_scalar(params, &factors).base_convert(params, to);
            Poly::divide(params, &poly, &residue, by, times).ntt(params)
        });
        let log_ratio = params.log_product(times) - params.log_product(by);
        let scale = Scale(ct.scale().0 * log_ratio.exp2());
        assert!((scale.log2() - params.scale(below).log2()).abs() < 1e-9);
        self.ciphertext(below, params.scale(below), &polys.collect::<Vec<_>>())
    }

    /// Deviation of a slot's error caused by rounding (c_0, c_1) to integers: 1/12 for each coefficient of
    /// c_0, and as much for each of the N/2 that meet one of c_1 in a product with s.
    fn rounding(&self, scale: Scale) -> f64 {
        let n = self.params.n() as f64;
        (n / 12.0 * (1.0 + n / 2.0)).sqrt() / scale.0
    }

    /// Deviation of a slot's error caused by a key switch: each digit D is uniform in (-D/2, D/2), meets N
    /// errors, and is divided by P.
    fn switching(&self, level: Level, scale: Scale) -> f64 {
        let (params, n) = (&self.params, self.params.n() as f64);
        let digits =
            params.digits().iter().map(|d| d.intersection(params.basis(level))).filter(|d| !d.is_empty());
        let variance: f64 =
            digits.map(|d| (2.0 * (params.log_product(d) - params.log_p())).exp2() / 12.0).sum::<f64>()
                * n
                * ERROR_DEVIATION.powi(2);
        (n * variance).sqrt().hypot(self.rounding(scale) * scale.0) / scale.0
    }
}

/// Root of the mean square distance, and the largest one.
fn errors(got: &[Complex64], expected: impl IntoIterator<Item = Complex64>) -> (f64, f64) {
    let distances: Vec<f64> = got.iter().zip(expected).map(|(a, b)| (a - b).norm_sqr()).collect();
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    (mean.sqrt(), distances.into_iter().fold(0.0, f64::max).sqrt())
}

/// Errors of slots are sums of Gaussians, or of products of two (a digit and an error, a rounding and the
/// secret) with longer tails: over a few thousand complex slots the root mean square is near the deviation,
/// and the largest beyond 12 deviations less than once in 100,000 runs.
fn assert_as_predicted((mean, largest): (f64, f64), deviation: f64, what: &str) {
    println!("{what}: error {mean:.3e}, largest {largest:.3e}, predicted {deviation:.3e}");
    assert!((0.8..1.2).contains(&(mean / deviation)), "{what}: error {mean:e}, predicted {deviation:e}");
    assert!(
        largest < 12.0 * deviation,
        "{what}: largest error {largest:e}, predicted deviation {deviation:e}"
    );
}

#[test]
fn encryption_noise_is_as_predicted() {
    let mut client = Client::test();
    let public = public_key(&client.params, &client.secret).unwrap();
    let (slots, n) = (client.slots(), client.params.n() as f64);
    for level in client.params.levels() {
        let scale = client.params.scale(level);
        let fresh = client.decrypt(&client.encrypt(&slots, level));
        let rounding = 1.0 / 12.0;
        let deviation = (n * (ERROR_DEVIATION.powi(2) + rounding)).sqrt() / scale.0;
        assert_as_predicted(errors(&fresh, slots.iter().copied()), deviation, "secret-key encryption");

        let ct =
            encrypt_with_public_key(&client.params, &client.encoder, &public, &slots, level, scale).unwrap();
        // v meets N/2 errors of the key, e_1 meets N/2 coefficients of s, and e_0 comes alone.
        let deviation = (n * (ERROR_DEVIATION.powi(2) * (n + 1.0) + rounding)).sqrt() / scale.0;
        assert_as_predicted(
            errors(&client.decrypt(&ct), slots.iter().copied()),
            deviation,
            "public-key encryption",
        );
    }
}

#[test]
fn short_real_vectors_repeat() {
    let client = Client::test();
    let (params, level) = (&client.params, Level(1));
    let ct = encrypt_with_secret_key(
        params,
        &client.encoder,
        &client.secret,
        &[0.5, -2.0],
        level,
        params.scale(level),
    )
    .unwrap();
    let slots = client.decrypt(&ct.expand(params));
    let expected = [0.5, -2.0].map(Complex64::from).into_iter().cycle();
    assert!(errors(&slots, expected).1 < 1e-8);
}

#[test]
fn keys_switch_at_every_level() {
    let mut client = Client::test();
    let (log_n, top) = (client.params.log_n(), client.params.max_level());
    let half = client.params.slots();
    let rotation = 1 + client.rng.below(half as u32 - 1) as usize;
    let rotate = KeyKind::Rotation(galois_element(log_n, rotation as i64));
    let (rotate, conjugate) = (client.key(rotate, top), client.key(KeyKind::Conjugation, top));
    let slots = client.slots();
    for level in client.params.levels() {
        let scale = client.params.scale(level);
        let ct = client.encrypt(&slots, level);
        let fresh = client.decrypt(&ct);
        let deviation = client.switching(level, scale);
        let rotated = client.decrypt(&client.apply(&ct, &rotate.view(&client.params)));
        let expected = (0..half).map(|k| fresh[(k + rotation) % half]);
        assert_as_predicted(
            errors(&rotated, expected),
            deviation,
            &format!("rotation by {rotation} at {level}"),
        );
        let conjugated = client.decrypt(&client.apply(&ct, &conjugate.view(&client.params)));
        let expected = fresh.iter().map(Complex64::conj);
        assert_as_predicted(errors(&conjugated, expected), deviation, &format!("conjugation at {level}"));
    }
}

#[test]
fn products_relinearize_and_rescale_from_every_level() {
    let mut client = Client::test();
    let key = client.key(KeyKind::Relinearization, client.params.max_level());
    let (x, y) = (client.slots(), client.slots());
    for level in client.params.levels().skip(1) {
        let product = client.multiply(&client.encrypt(&x, level), &client.encrypt(&y, level));
        let exact = client.decrypt(&product);
        let relinearized = client.apply(&product, &key.view(&client.params));
        let deviation = client.switching(level, product.scale());
        // At these scales the rounding of f64 is no longer negligible.
        let got = errors(&client.decrypt(&relinearized), exact.iter().copied());
        assert!(
            got.0 < 1.2 * deviation + 1e-14,
            "relinearization at {level}: {got:?}, predicted {deviation:e}"
        );
        let rescaled = client.rescale(&relinearized);
        let below = Level(level.0 - 1);
        let deviation = client.rounding(client.params.scale(below));
        let expected = client.decrypt(&relinearized);
        assert_as_predicted(
            errors(&client.decrypt(&rescaled), expected),
            deviation,
            &format!("rescale to {below}"),
        );
        let exact = x.iter().zip(&y).map(|(x, y)| x * y);
        assert!(errors(&client.decrypt(&rescaled), exact).1 < 1e-6);
    }
}

#[test]
fn keys_of_lower_levels_are_smaller_and_serve_the_levels_below() {
    let mut client = Client::new(Params::new(ParamsSpec::insecure(9, 40, 7, 3).unwrap()).unwrap());
    let slots = client.slots();
    let rotate = KeyKind::Rotation(galois_element(client.params.log_n(), 1));
    let mut sizes = Vec::new();
    for key_level in client.params.levels() {
        let key = client.key(rotate, key_level);
        sizes.push(key.view(&client.params).words().len());
        for level in (0..=key_level.0).map(Level) {
            let rotated =
                client.decrypt(&client.apply(&client.encrypt(&slots, level), &key.view(&client.params)));
            let expected = (0..slots.len()).map(|k| slots[(k + 1) % slots.len()]);
            assert!(errors(&rotated, expected).1 < 1e-6, "key of {key_level} at {level}");
        }
    }
    assert!(sizes.is_sorted() && sizes[0] < sizes[sizes.len() - 1] / 2);
}

#[test]
fn every_named_set_switches_keys() {
    // The smallest secure set, whose levels are stacked.
    let mut client = Client::new(Params::named("leveled-13").unwrap());
    let (level, slots) = (client.params.max_level(), client.slots());
    let key = client.key(KeyKind::Conjugation, level);
    let ct = client.encrypt(&slots, level);
    let conjugated = client.decrypt(&client.apply(&ct, &key.view(&client.params)));
    let expected: Vec<_> = client.decrypt(&ct).iter().map(Complex64::conj).collect();
    let deviation = client.switching(level, ct.scale());
    assert_as_predicted(errors(&conjugated, expected), deviation, "conjugation");
    assert_eq!(conjugation_element(13), KeyKind::Conjugation.galois_element(13));
}

#[test]
fn shared_results_are_drowned_in_noise_of_the_stated_size() {
    let mut client = Client::test();
    let (slots, level) = (client.slots(), Level(2));
    let ct = client.encrypt(&slots, level);
    let share =
        |precision| decrypt_for_sharing(&client.params, &client.encoder, &client.secret, &ct, precision);
    let first = share(12).unwrap();
    // Both parts of a slot carry half of its variance.
    assert_as_predicted(errors(&first, slots.iter().copied()), 2f64.powi(-12), "flooding");
    assert!(errors(&share(12).unwrap(), first).0 > 2f64.powi(-13), "the noise is not fresh");
    let Err(ClientError::Precision { most, .. }) = share(40) else {
        panic!("40 bits leave no room for noise")
    };
    assert!(share(most).is_ok());
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let mut client = Client::test();
    let secure = Params::named("leveled-13").unwrap();
    assert!(matches!(SecretKey::generate(&client.params), Err(ClientError::Insecure { .. })));
    assert!(SecretKey::generate(&secure).is_ok());
    let (slots, scale) = (client.slots(), Scale(1e9));
    let other = Encoder::new(&secure);
    let encrypted = encrypt_with_secret_key(&secure, &other, &client.secret, &slots, Level(0), scale);
    assert!(matches!(encrypted, Err(ClientError::OtherParameters { .. })));
    let public = public_key(&client.params, &client.secret).unwrap();
    let encrypted = encrypt_with_public_key(&secure, &other, &public, &slots, Level(0), scale);
    assert!(matches!(encrypted, Err(ClientError::OtherParameters { .. })));
    let ct = client.encrypt(&slots, Level(0));
    let foreign = SecretKey::generate(&secure).unwrap();
    assert!(matches!(decrypt(&secure, &other, &foreign, &ct), Err(ClientError::OtherParameters { .. })));
    let high = Level(200);
    let encrypted =
        encrypt_with_secret_key(&client.params, &client.encoder, &client.secret, &slots, high, scale);
    assert!(matches!(encrypted, Err(ClientError::Ciphertext(_))));
    let nan = [f64::NAN];
    let encrypted =
        encrypt_with_secret_key(&client.params, &client.encoder, &client.secret, &nan, Level(0), scale);
    assert!(matches!(encrypted, Err(ClientError::Encoding(_))));
    let request = KeyRequest { kind: KeyKind::Rotation(7), level: Level(1) };
    assert!(matches!(evaluation_key(&client.params, &client.secret, request), Err(ClientError::Key(_))));
}

#[test]
fn another_key_decrypts_nothing() {
    let mut client = Client::test();
    let slots = client.slots();
    let ct = client.encrypt(&slots, Level(3));
    client.secret = SecretKey::generate_insecure(&client.params).unwrap();
    assert!(errors(&client.decrypt(&ct), slots).0 > 1e6);
}

#[test]
fn the_secret_is_not_printed() {
    let client = Client::test();
    let printed = format!("{:?}", client.secret);
    assert_eq!(printed, format!("SecretKey(of parameters {})", client.params.digest()));
}
