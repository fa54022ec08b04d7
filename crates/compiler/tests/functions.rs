//! A function is compiled once, however often it is called.

use cerium_artifact::{Artifact, Step};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ciphertext::BootstrapKind;
use cerium_compiler::dsl::{Packing, Program};
use cerium_compiler::ir::Trace;
use cerium_compiler::{CompileOptions, compile};

const FEW: usize = 2;
const MOST: usize = 40;

/// A network of so many calls of one layer, each with weights of its own and a bootstrap at its start.
fn network(calls: usize) -> (Artifact, Trace) {
    let params = Params::new(ParamsSpec::insecure_boot(11, 40).unwrap()).unwrap();
    let p = Program::new("network", &params);
    let layer = p.function("layer", 1, &[16], |_, x, weights| {
        let x = x[0].bootstrap(BootstrapKind::Real, 1.0);
        let y = x.linear_transform(&[(0, weights[0].clone()), (1, weights[0].clone())]);
        vec![&y * &y * 2.0 - 1.0]
    });
    // Weights that keep slots in [-1, 1], of one size; all are there, so that those of the library have the same numbers.
    let weights: Vec<_> = (0..MOST)
        .map(|i| {
            let values = (0..16).map(|j| 0.5 - ((16 * i + j) % 7) as f32 / 200.0).collect();
            p.weight(p.tensor(&format!("w{i}"), values), &(0..16).collect::<Vec<u32>>(), 1.0)
        })
        .collect();
    let x = p.input("x", Packing::dense(params.slots()));
    let x = weights[..calls].iter().fold(x, |x, weight| p.call(&layer, &[&x], &[weight]).remove(0));
    p.output("y", Packing::dense(params.slots()), &x);
    let mut trace = Trace::default();
    let artifact = compile(&p.finish(), &CompileOptions::default(), &mut trace).unwrap();
    (artifact, trace)
}

#[test]
fn calls_cost_steps_and_nothing_else() {
    let ((few, few_trace), (many, many_trace)) = (network(FEW), network(MOST));
    let entry = |artifact: &Artifact| artifact.programs[0].last().unwrap().steps.clone();
    let calls = entry(&many).iter().filter(|step| matches!(step, Step::Call { .. })).count();
    assert_eq!((calls, entry(&many).len() - entry(&few).len()), (MOST, MOST - FEW));

    // The same functions, the same keys, and an entry with more calls.
    let bodies = |artifact: &Artifact| artifact.programs[0][..artifact.programs[0].len() - 1].to_vec();
    assert!(bodies(&few) == bodies(&many), "bodies differ");
    assert_eq!(few.keys, many.keys);
    let bytes = |artifact: &Artifact| artifact.to_bytes().unwrap().len();
    let a_call = (bytes(&many) - bytes(&few)) / (MOST - FEW);
    println!("a call takes {a_call} bytes, all of {FEW} calls {}", bytes(&few));
    assert!(100 * a_call < bytes(&few));

    // Every pass works on the calls that are there and on one body.
    for (few, many) in few_trace.passes.iter().zip(&many_trace.passes) {
        let (few_ran, many_ran) = (few.operations.1, many.operations.1);
        println!("{}: {few_ran} operations for {FEW} calls, {many_ran} for {MOST}", few.pass);
        assert_eq!(few.pass, many.pass);
        match few.pass {
            // The layer is run at every call, for its weights and values, four times; the bootstrap, which has most of the
            // operations, is not.
            "estimate_noise" => {
                let a_call = (many_ran - few_ran) / (MOST - FEW) / 4;
                assert!(8 * a_call < few.operations.0, "{a_call} operations at every call");
            }
            _ => assert!(many_ran - few_ran <= 3 * (MOST - FEW), "a call, its weight and their types"),
        }
    }
}
