//! Sparse-secret encapsulation: to the sparse secret at level 0, up, and back.

use cerium_ckks::params::SPARSE_WEIGHT;

use super::*;

fn boot_client(log_n: u8, log_scale: u8) -> Client {
    Client::new(Params::new(ParamsSpec::insecure_boot(log_n, log_scale).unwrap()).unwrap())
}

/// c_0 + c_1 t for small coefficients t, in the coefficient domain.
fn phase(params: &Params, ct: &[Poly], t: &[i8]) -> Poly {
    let t: Vec<i64> = t.iter().map(|&c| c.into()).collect();
    let t = Poly::from_coefficients(params, ct[0].basis(), &t).ntt(params);
    ct[0].add(params, &ct[1].mul(params, &t)).intt(params)
}

#[test]
fn the_sparse_secret_is_derived_sparse_and_apart() {
    let client = boot_client(8, 40);
    let sparse = client.secret.sparse();
    assert_eq!(sparse, client.secret.sparse());
    assert!(sparse.iter().all(|c| (-1..=1).contains(c)));
    assert_eq!(sparse.iter().filter(|&&c| c != 0).count(), SPARSE_WEIGHT);
    // Written and read again, it is the same.
    let again = SecretKey::from_bytes(&client.params, &client.secret.to_bytes()).unwrap();
    assert_eq!(again.sparse(), sparse);
    // Other keys, and the same coefficients under other parameters, have others.
    assert!(SecretKey::generate_insecure(&client.params).unwrap().sparse() != sparse);
}

/// What `mod_raise` lowers to, plainly.
#[test]
fn raising_under_the_sparse_secret_adds_few_multiples_of_the_modulus() {
    let mut multiples = Vec::new();
    for log_scale in [40, 40, 35, 30] {
        let mut client = boot_client(11, log_scale);
        let (bottom, top) = (Level(0), client.params.max_level());
        let to_sparse = client.key(KeyKind::ToSparse, bottom);
        let from_sparse = client.key(KeyKind::FromSparse, top);
        let slots = client.slots();
        let ct = client.encrypt(&slots, bottom);
        let fresh = client.decrypt(&ct);
        let (params, n) = (&client.params, client.params.n() as f64);
        let (basis, log_q0) = (params.basis(bottom), params.log_q(bottom));
        let deviation = |variance: f64| (n * variance).sqrt() / ct.scale().0;

        // To the sparse secret: Q_0, uniform in (-Q_0/2, Q_0/2), meets N errors and is divided by P', and the
        // rounding of c_1 meets the 32 coefficients of the secret.
        let polys = client.polys(&ct);
        let [k0, k1] = client.switch(&polys[1], basis, &to_sparse.view(params));
        let sparse = [polys[0].add(params, &k0), k1];
        let message = phase(params, &sparse, &client.secret.sparse());
        let decoded = client.encoder.decode(params, &message, ct.scale());
        let log_p = params.log_product(params.sparse_p_basis());
        let digit = (2.0 * (log_q0 - log_p)).exp2() / 12.0 * n * ERROR_DEVIATION.powi(2);
        let there = digit + (1.0 + SPARSE_WEIGHT as f64) / 12.0;
        assert_as_predicted(errors(&decoded, fresh.iter().copied()), deviation(there), "to_sparse");

        // Up: the same integers modulo all primes. c_1 is switched back straight from level 0, as one digit.
        let c0 = sparse[0].clone().intt(params).base_convert(params, params.q_basis()).ntt(params);
        let c1 = sparse[1].clone();
        let [k0, k1] = client.switch(&c1, params.q_basis(), &from_sparse.view(params));
        let raised = [c0.add(params, &k0), k1];

        // Modulo Q_0 it is the message still, with the noise of the way back: nothing but rounding.
        let low = raised.each_ref().map(|c| c.restrict(basis));
        let decoded = client.decrypt(&client.ciphertext(bottom, ct.scale(), &low));
        let back = (1.0 + n / 2.0) / 12.0;
        let error = errors(&decoded, fresh.iter().copied());
        assert_as_predicted(error, deviation(there + back), "to_sparse and from_sparse");

        // And over the integers it is m + Q_0 I.
        let raised = client.ciphertext(top, params.scale(top), &raised);
        let integers = crate::decrypt::phase(params, &client.secret, &raised).unwrap().to_floats(params);
        let residues =
            crate::decrypt::phase(params, &client.secret, &client.ciphertext(bottom, ct.scale(), &low));
        let residues = residues.unwrap().to_floats(params);
        for (x, m) in integers.iter().zip(residues) {
            let multiple = (x - m) / log_q0.exp2();
            assert!((multiple - multiple.round()).abs() < 1e-6, "{x} is not {m} modulo Q_0");
            multiples.push(multiple.round());
        }
    }
    // By the distribution that `SPARSE_WEIGHT` states: one of 8192 is beyond 14 less than once in 2^84 runs, and
    // their variance has a relative deviation of sqrt(2 / 8192), of which eight are allowed.
    let largest = multiples.iter().fold(0.0, |max, i: &f64| i.abs().max(max));
    assert!(largest <= 14.0, "{largest}");
    let variance = multiples.iter().map(|i| i * i).sum::<f64>() / multiples.len() as f64;
    let expected = (1.0 + SPARSE_WEIGHT as f64) / 12.0;
    assert!((variance / expected - 1.0).abs() < 8.0 * (2.0 / multiples.len() as f64).sqrt(), "{variance}");
}
