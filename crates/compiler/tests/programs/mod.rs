//! Random programs over every operation of the DSL, for tests that hold one level against another.

use cerium_ckks::params::Params;
use cerium_compiler::dsl::{Ct, Packing, Program, SourceProgram, Weight};
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

/// A program of about twenty operations on two inputs with slots in [-1, 1], two functions among them; every value stays
/// within [-1, 1] by construction, so that errors are comparable.
pub(crate) fn random(params: &Params, rng: &mut StdRng) -> SourceProgram {
    let p = Program::new("random", params);
    let period = 16;
    let inputs = [p.input("x", Packing::dense(period)), p.input("y", Packing::dense(period))];
    let weights: Vec<Weight> = (0..4)
        .map(|i| {
            let len = 1 << rng.random_range(2..=params.slots().trailing_zeros());
            let values = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
            let tensor = p.tensor(&format!("w{i}"), values);
            let gather: Vec<u32> = (0..len as u32).rev().collect();
            p.weight(tensor, &gather, rng.random_range(0.5..1.0))
        })
        .collect();
    let blend = p.function("blend", 2, &[], |_, cts, _| vec![(&cts[0] * &cts[1] + &cts[0]) * 0.5]);

    let mut values: Vec<(Ct, u32)> = inputs.into_iter().map(|ct| (ct, 0)).collect();
    for step in 0..20 {
        p.stage(&format!("step {}", step / 5));
        let (a, da) = pick(&values, rng);
        let (b, db) = pick(&values, rng);
        let weight = &weights[rng.random_range(0..weights.len())];
        let deepest = da.max(db);
        let (value, depth) = match rng.random_range(0..11) {
            0 => ((&a + &b) * 0.5, deepest + 1),
            1 => ((&a - &b) * 0.5, deepest + 1),
            2 => (&a * &b, deepest + 1),
            3 => (a * weight, da + 1),
            4 => ((&a + weight) * 0.25, da + 1),
            5 => (a.rotate(rng.random_range(-20..20)), da),
            6 => (a.conjugate(), da),
            7 => (-&a, da),
            8 => {
                let diagonals: Vec<(i64, Weight)> =
                    (0..5).map(|i| (i * rng.random_range(1..4), weights[i as usize % 4].clone())).collect();
                (a.linear_transform(&diagonals) * 0.2, da + 2)
            }
            9 => (a.poly_eval(&[0.1, 0.3, -0.2, 0.1, 0.0, 0.3]), da + 3),
            _ => (p.call(&blend, &[&a, &b], &[]).remove(0), deepest + 2),
        };
        if depth <= DEPTH + 2 {
            values.push((value, depth));
        }
    }
    let last = values.len() - 1;
    for (i, (value, _)) in values[last - 1..].iter().enumerate() {
        p.output(&format!("out{i}"), Packing::dense(params.slots()), value);
    }
    p.finish()
}

fn pick(values: &[(Ct, u32)], rng: &mut StdRng) -> (Ct, u32) {
    values[rng.random_range(0..values.len())].clone()
}
