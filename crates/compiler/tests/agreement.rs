//! The levels agree: random programs give the same bits on the polynomial and the limb interpreter.
//!
//! Keys are uniform here, which exact arithmetic does not mind; that programs *decrypt* to what they should is tested with
//! real keys in `encrypted.rs`.

mod passes;
mod programs;

use cerium_artifact::kernel::Half;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::evaluation_key::KeyKind;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_ckks::rns::{Domain, Poly};
use cerium_compiler::ir::simplify::share;
use cerium_compiler::limb::{self, passes as limb_passes};
use cerium_compiler::polynomial::{self, KeySource, passes as poly_passes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Keys whose every limb is uniform, determined by what it is.
struct UniformKeys(Params);

impl KeySource for UniformKeys {
    fn limb(&self, kind: KeyKind, half: Half, digit: usize, prime: PrimeIndex) -> Vec<u32> {
        let galois = u64::from(kind.galois_element(self.0.log_n()));
        let half = u64::from(half == Half::A);
        let mut rng =
            StdRng::seed_from_u64(galois << 24 | half << 20 | (digit as u64) << 8 | prime.index() as u64);
        let q = self.0.modulus(prime).value();
        (0..self.0.n()).map(|_| rng.random_range(0..q)).collect()
    }
}

fn small_params() -> Params {
    Params::new(ParamsSpec::insecure(8, 30, 8, 3).unwrap()).unwrap()
}

#[test]
fn polynomial_and_limb_interpreters_agree() {
    let params = small_params();
    for _ in 0..12 {
        let mut rng = programs::fresh_rng();
        let source = programs::random(&params, &mut rng);
        let mut poly = passes::polynomial(&source);
        let expected = run_polynomial(&poly, &mut rng.clone());
        let Ok(()) = poly_passes::expand_divisions(&mut poly);
        poly.verify().unwrap();
        assert!(run_polynomial(&poly, &mut rng.clone()) == expected, "divisions expanded");
        share(&mut poly);
        assert!(run_polynomial(&poly, &mut rng.clone()) == expected, "shared");

        let mut module = polynomial::lower_to_limb(&poly);
        assert!(run_limb(&module, &mut rng.clone()) == expected, "lowered");
        share(&mut module);
        let Ok(()) = limb_passes::cancel_transforms(&mut module);
        module.verify().unwrap();
        assert!(run_limb(&module, &mut rng.clone()) == expected, "transforms cancelled");
        let Ok(()) = limb_passes::fold_scalars(&mut module);
        assert!(run_limb(&module, &mut rng.clone()) == expected, "scalars folded");
        let Ok(()) = limb_passes::form_dots(&mut module);
        module.verify().unwrap();
        assert!(run_limb(&module, &mut rng.clone()) == expected, "dots formed");
    }
}

/// Random inputs of the entry, the same for both levels from equal generators; result limbs in order.
fn run_polynomial(module: &polynomial::Module, rng: &mut StdRng) -> Vec<Vec<u32>> {
    let params = &module.context.params;
    let keys = UniformKeys(params.clone());
    let entry = module.entry();
    let args = entry.param_types().iter().map(|ty| match *ty {
        polynomial::Type::Poly { basis, .. } => {
            let limbs = basis.iter().map(|p| uniform(params, p, rng)).collect();
            Poly::from_limbs(basis, Domain::Evaluation, limbs)
        }
        other => panic!("the entry takes {other}"),
    });
    let results = polynomial::Interpreter::new(module, &keys).run(args.collect());
    results.into_iter().flat_map(Poly::into_limbs).collect()
}

fn run_limb(module: &limb::Module, rng: &mut StdRng) -> Vec<Vec<u32>> {
    let params = &module.context.params;
    let keys = UniformKeys(params.clone());
    let args = module.entry().param_types().iter().map(|ty| match *ty {
        limb::Type::Limb { prime, .. } => uniform(params, prime, rng),
        other => panic!("the entry takes {other}"),
    });
    limb::Interpreter::new(module, &keys).run(args.collect())
}

fn uniform(params: &Params, prime: PrimeIndex, rng: &mut StdRng) -> Vec<u32> {
    let q = params.modulus(prime).value();
    (0..params.n()).map(|_| rng.random_range(0..q)).collect()
}
