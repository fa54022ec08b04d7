//! Random programs over every operation of the DSL, for tests that hold one level against another.

use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::params::Params;
use cerium_compiler::ciphertext::Steps;
use cerium_compiler::dsl::{Ct, Packing, Program, SourceProgram, Weight};
use num_complex::Complex64;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A generator with a fresh seed, which is printed.
pub(crate) fn fresh_rng() -> StdRng {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Deepest product of inputs in a random program.
const DEPTH: u32 = 3;

/// A value of a random program: how deep it is, and whether its slots are complex.
#[derive(Clone)]
struct Value {
    ct: Ct,
    depth: u32,
    complex: bool,
}

/// A program of about twenty operations on two inputs with slots in [-1, 1], a function among them; every value stays
/// within the unit disc by construction, so that errors are comparable.
pub(crate) fn random(params: &Params, rng: &mut StdRng) -> SourceProgram {
    let p = Program::new("random", params);
    let period = 16;
    let inputs = [p.input("x", Packing::dense(period)), p.input("y", Packing::dense(period))];
    let mut weights: Vec<Weight> = (0..4)
        .map(|i| {
            let len = 1 << rng.random_range(2..=params.slots().trailing_zeros());
            let values = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
            let tensor = p.tensor(&format!("w{i}"), values);
            let gather: Vec<u32> = (0..len as u32).rev().collect();
            p.weight(tensor, &gather, rng.random_range(0.5..1.0))
        })
        .collect();
    let constant = Complex64::cis(rng.random_range(-3.0..3.0));
    let rounded = Complex64::new(rng.random_range(-5..=5).into(), rng.random_range(-5..=5).into());
    let exact = p.constant(rounded);
    weights.push(p.constant(constant));
    let log_slots = rng.random_range(2..=params.slots().trailing_zeros()) as u8;
    let factor =
        DftFactor { direction: Direction::SlotsToCoeffs, log_slots, first: log_slots - 2, stages: 2 };
    weights.push(p.dft_diagonal(factor, factor.offsets()[rng.random_range(0..4)], 0.9));
    let blend = p.function("blend", 2, &[], |scope, cts, _| {
        let minus_i = scope.constant(-Complex64::I);
        vec![(&cts[0] * &cts[1] + cts[0].mul_weight(&minus_i).mul_i()) * 0.5]
    });

    let mut values: Vec<Value> =
        inputs.into_iter().map(|ct| Value { ct, depth: 0, complex: false }).collect();
    for step in 0..20 {
        p.stage(&format!("step {}", step / 5));
        let Value { ct: a, depth: da, complex: ca } = pick(&values, rng);
        let Value { ct: b, depth: db, complex: cb } = pick(&values, rng);
        let which = rng.random_range(0..weights.len());
        let (weight, weighed) = (&weights[which], ca || which >= 4);
        let (deepest, either) = (da.max(db), ca || cb);
        let (ct, depth, complex) = match rng.random_range(0..14) {
            0 => ((&a + &b) * 0.5, deepest + 1, either),
            1 => ((&a - &b) * 0.5, deepest + 1, either),
            2 => (&a * &b, deepest + 1, either),
            3 => (a * weight, da + 1, weighed),
            4 => ((&a + weight) * 0.25, da + 1, weighed),
            5 => (a.rotate(rng.random_range(-20..20)), da, ca),
            6 => (a.conjugate(), da, ca),
            7 => (-&a, da, ca),
            8 => {
                let diagonals: Vec<(i64, Weight)> =
                    (0..6).map(|i| ((i - 1) * rng.random_range(1..4), weights[i as usize].clone())).collect();
                let stride = rng.random_range(1..6);
                let steps = [Steps::Auto, Steps::Stride(stride), Steps::Chain(stride)];
                (a.linear_transform_in(steps[rng.random_range(0..3)], &diagonals) * 0.16, da + 2, true)
            }
            9 => {
                // Chebyshev polynomials stay small on real slots only.
                let (real, depth) = if ca { ((&a + a.conjugate()) * 0.5, da + 1) } else { (a, da) };
                (real.poly_eval(&[0.1, 0.3, -0.2, 0.1, 0.0, 0.3]), depth + 3, false)
            }
            10 => (a.mul_i(), da, true),
            11 => ((&a * 0.5).mul_i(), da + 1, true),
            12 => (a.mul_weight(&exact) * (1.0 / 8.0), da + 1, true),
            _ => (p.call(&blend, &[&a, &b], &[]).remove(0), deepest + 2, either),
        };
        if depth <= DEPTH + 2 {
            values.push(Value { ct, depth, complex });
        }
    }
    let last = values.len() - 1;
    for (i, value) in values[last - 1..].iter().enumerate() {
        p.output(&format!("out{i}"), Packing::dense(params.slots()), &value.ct);
    }
    p.finish()
}

fn pick(values: &[Value], rng: &mut StdRng) -> Value {
    values[rng.random_range(0..values.len())].clone()
}
