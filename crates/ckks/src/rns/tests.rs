use num_bigint::{BigInt, Sign};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::basis::Level;
use crate::params::ParamsSpec;
use crate::testing::{fresh_rng, random_words};

fn params() -> Params {
    Params::new(ParamsSpec::insecure(5, 40, 6, 3).unwrap()).unwrap()
}

fn product(params: &Params, basis: Basis) -> BigInt {
    basis.iter().map(|p| BigInt::from(params.modulus(p).value())).product()
}

fn random(params: &Params, rng: &mut ChaCha8Rng, basis: Basis, domain: Domain) -> Poly {
    let limbs = basis.iter().map(|p| random_words(rng, params.n(), params.modulus(p).value()));
    Poly::from_limbs(basis, domain, limbs.collect())
}

/// The representative of `x` modulo the odd number `q` in (-q/2, q/2).
fn centered(x: &BigInt, q: &BigInt) -> BigInt {
    let r = ((x % q) + q) % q;
    if &r * 2 > *q { r - q } else { r }
}

/// Whether `y` is `x / b` rounded to the nearest integer modulo the odd number `q`, up to the stated error of
/// the base conversion: a remainder just above half is as good as one just below.
fn is_quotient(y: &BigInt, x: &BigInt, b: &BigInt, q: &BigInt) -> bool {
    let remainder = centered(&(b * y - x), &(b * q));
    BigInt::from(remainder.magnitude() * 2u32) <= b + (b >> 20)
}

fn residue(x: &BigInt, q: u32) -> u32 {
    let r: BigInt = ((x % q) + q) % q;
    r.iter_u32_digits().next().unwrap_or(0)
}

#[test]
fn integers_are_composed_centered() {
    let (params, mut rng) = (params(), fresh_rng());
    for basis in params.levels().map(|l| params.basis(l)).chain([params.p_basis()]) {
        let a = random(&params, &mut rng, basis, Domain::Coefficient);
        let q = product(&params, basis);
        let floats = a.to_floats(&params);
        for (i, x) in a.to_integers(&params).iter().enumerate() {
            assert!(x * 2 < q && x * -2 < q);
            for prime in basis.iter() {
                assert_eq!(residue(x, params.modulus(prime).value()), a.limb(prime)[i]);
            }
            let float: f64 = x.to_string().parse().unwrap();
            assert!((floats[i] - float).abs() <= 1e-14 * float.abs());
        }
    }
    let small: Vec<i64> = (0..params.n() as i64).map(|i| (i - 16) * 1_234_567_890_123).collect();
    let poly = Poly::from_coefficients(&params, params.q_basis(), &small);
    assert_eq!(poly.to_integers(&params), small.iter().map(|&c| BigInt::from(c)).collect::<Vec<_>>());
    assert_eq!(poly.to_floats(&params), small.iter().map(|&c| c as f64).collect::<Vec<_>>());
}

#[test]
fn ring_operations_agree_with_integers() {
    let (params, mut rng) = (params(), fresh_rng());
    let (n, basis) = (params.n(), params.basis(Level(3)));
    let q = product(&params, basis);
    let a = random(&params, &mut rng, basis, Domain::Coefficient);
    let b = random(&params, &mut rng, basis, Domain::Coefficient);
    let (x, y) = (a.to_integers(&params), b.to_integers(&params));

    let check = |poly: &Poly, expected: &dyn Fn(usize) -> BigInt| {
        for (i, got) in poly.to_integers(&params).iter().enumerate() {
            assert_eq!(*got, centered(&expected(i), &q));
        }
    };
    check(&a.add(&params, &b), &|i| &x[i] + &y[i]);
    check(&a.sub(&params, &b), &|i| &x[i] - &y[i]);
    check(&a.neg(&params), &|i| -&x[i]);

    let scalar = BigInt::new(Sign::Minus, random_words(&mut rng, 3, u32::MAX));
    let residues: Vec<u32> = basis.iter().map(|p| residue(&scalar, params.modulus(p).value())).collect();
    check(&a.mul_scalar(&params, &residues), &|i| &x[i] * &scalar);

    let (evaluated_a, evaluated_b) = (a.clone().ntt(&params), b.clone().ntt(&params));
    assert_eq!(evaluated_a.clone().intt(&params), a);
    let negacyclic = |i: usize| {
        (0..n).map(|j| if j <= i { &x[j] * &y[i - j] } else { -(&x[j] * &y[n + i - j]) }).sum::<BigInt>()
    };
    let product = evaluated_a.mul(&params, &evaluated_b);
    check(&product.clone().intt(&params), &negacyclic);
    assert_eq!(evaluated_a.mont_mul(&params, &evaluated_b.to_mont(&params)), product);
    check(&evaluated_a.add_scalar(&params, &residues).intt(&params), &|i| {
        if i == 0 { &x[0] + &scalar } else { x[i].clone() }
    });

    for galois in [5, 25, 2 * n as u32 - 1] {
        let moved = a.automorphism(&params, galois);
        assert_eq!(evaluated_a.automorphism(&params, galois).intt(&params), moved);
        let moved = moved.to_integers(&params);
        for (i, c) in x.iter().enumerate() {
            let power = i * galois as usize % (2 * n);
            assert_eq!(moved[power % n], if power < n { c.clone() } else { -c });
        }
    }
}

#[test]
fn base_conversion_gives_the_centered_representative() {
    let (params, mut rng) = (params(), fresh_rng());
    let all = params.q_basis().union(params.p_basis());
    for source in params.digits().iter().copied().chain([params.p_basis(), Basis::range(3, 4)]) {
        let q = product(&params, source);
        let mut a = random(&params, &mut rng, source, Domain::Coefficient);
        // The extremes too: 0, 1, -1 and what is nearest to -Q/2 and Q/2.
        let half: BigInt = &q / 2;
        let extremes = [BigInt::ZERO, BigInt::from(1), BigInt::from(-1), half.clone(), -half];
        for (limb, prime) in a.limbs.iter_mut().zip(source.iter()) {
            for (word, x) in limb.iter_mut().zip(&extremes) {
                *word = residue(x, params.modulus(prime).value());
            }
        }
        let converted = a.base_convert(&params, all);
        assert_eq!(converted.restrict(source), a);
        for (i, x) in a.to_integers(&params).iter().enumerate() {
            let distance = &q - BigInt::from(x.magnitude() * 2u32);
            let candidates =
                if distance << 20u32 < q { vec![x.clone(), x - &q, x + &q] } else { vec![x.clone()] };
            let matches = |c: &&BigInt| {
                all.iter().all(|p| converted.limb(p)[i] == residue(c, params.modulus(p).value()))
            };
            assert!(candidates.iter().any(|c| matches(&c)), "coefficient {x} from {source}");
        }
    }
}

#[test]
fn rescaling_is_rounded_division() {
    let (params, mut rng) = (params(), fresh_rng());
    for level in params.levels().skip(1) {
        let (from, to) = (params.basis(level), params.basis(Level(level.0 - 1)));
        let (by, times) = (from.minus(to), to.minus(from));
        let a = random(&params, &mut rng, from, Domain::Coefficient);
        // a T over both bases; it is 0 modulo the primes that enter.
        let factors: Vec<u32> = by.iter().map(|p| product_mod(&params, times, p)).collect();
        let c = a.restrict(by).mul_scalar(&params, &factors).base_convert(&params, to);
        let rescaled = Poly::divide(&params, &a, &c, by, times);
        let evaluated = Poly::divide(&params, &a.clone().ntt(&params), &c.ntt(&params), by, times);
        assert_eq!(evaluated.intt(&params), rescaled);
        let (b, t, q) = (product(&params, by), product(&params, times), product(&params, to));
        for (x, y) in a.to_integers(&params).iter().zip(rescaled.to_integers(&params)) {
            assert!(is_quotient(&y, &(x * &t), &b, &q), "{x} from {level}");
        }
    }
}

#[test]
fn mod_down_is_rounded_division() {
    let (params, mut rng) = (params(), fresh_rng());
    let (q_basis, p_basis) = (params.basis(Level(2)), params.p_basis());
    let a = random(&params, &mut rng, q_basis.union(p_basis), Domain::Coefficient);
    let c = a.restrict(p_basis).base_convert(&params, q_basis);
    let down = Poly::divide(&params, &a, &c, p_basis, Basis::EMPTY);
    let (p, q) = (product(&params, p_basis), product(&params, q_basis));
    for (x, y) in a.to_integers(&params).iter().zip(down.to_integers(&params)) {
        assert!(is_quotient(&y, x, &p, &q), "{x}");
    }
}
