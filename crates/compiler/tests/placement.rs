//! Placement of bootstraps: optima that are known, by hand or by trying all placements, and random deep programs.

use std::collections::BTreeSet;

use cerium_ckks::basis::Level;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::ciphertext::cost::CostModel;
use cerium_compiler::ciphertext::passes::{
    MIN_COPIES, expand_linear_transform, expand_poly_eval, place_bootstraps, place_levels,
};
use cerium_compiler::ciphertext::{BootstrapKind, Builder, Interpreter, Module, Op, Slots};
use cerium_compiler::dsl::{Ct, Packing, Program, Weight};
use cerium_compiler::ir::simplify::{remove_unused, share};
use cerium_compiler::ir::{Number, Operation, ValueId, text};
use num_complex::Complex64;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 14 levels between bootstraps.
fn boot_40() -> Params {
    Params::new(ParamsSpec::insecure_boot(8, 40).unwrap()).unwrap()
}

/// The same primes with only so many levels between bootstraps: small programs need several.
fn short(levels: u8) -> Params {
    let mut spec = ParamsSpec::insecure_boot(8, 40).unwrap();
    let output = Params::new(spec.clone()).unwrap().program_level().0;
    spec.bootstrap.as_mut().unwrap().slots_to_coeffs = output - levels;
    Params::new(spec).unwrap()
}

fn fresh_rng() -> StdRng {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Runs the passes up to placed levels; the module with bootstraps before and after, and the estimated seconds.
fn place(module: &Module) -> (Module, Module, f64) {
    let mut unplaced = module.clone();
    let Ok(()) = expand_poly_eval(&mut unplaced);
    share(&mut unplaced);
    let periods = vec![4; unplaced.entry().params as usize];
    let start = std::time::Instant::now();
    let plan = place_bootstraps(&mut unplaced, &periods, &[]).expect("a placement");
    println!("{plan:?} in {:?}", start.elapsed());
    unplaced.verify().unwrap();
    let (placed, seconds) = levels(&unplaced).expect("a placement that the levels allow");
    (unplaced, placed, seconds)
}

/// Places levels, and what the program then takes.
fn levels(unplaced: &Module) -> Option<(Module, f64)> {
    let mut placed = unplaced.clone();
    let Ok(()) = expand_linear_transform(&mut placed);
    place_levels(&mut placed).ok()?;
    share(&mut placed);
    placed.verify().unwrap();
    let seconds = CostModel::new(&placed.context.params).stages(&placed).iter().sum();
    Some((placed, seconds))
}

/// Bootstraps of one and of two values over all calls.
fn count(module: &Module) -> (usize, usize) {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for function in &module.functions {
        let mut sum = (0, 0);
        for node in &function.nodes {
            let (one, two) = match &node.op {
                Op::Bootstrap { xs, .. } => (usize::from(xs.len() == 1), usize::from(xs.len() == 2)),
                Op::Call { function, .. } => counts[module.find(function).unwrap().0],
                _ => (0, 0),
            };
            sum = (sum.0 + one, sum.1 + two);
        }
        counts.push(sum);
    }
    *counts.last().unwrap()
}

fn read(params: &Params, body: &str) -> Module {
    let source = cerium_compiler::dsl::SourceProgram::from_text("test", params, body).unwrap();
    source.module
}

#[test]
fn a_chain_takes_as_few_as_possible() {
    let params = boot_40();
    for depth in [17, 18, 31, 32, 45, 200] {
        let p = Program::new("chain", &params);
        let mut x = p.input("x", Packing::dense(16));
        for _ in 0..depth {
            x = &x * &x;
        }
        p.output("y", Packing::dense(16), &x);
        let (unplaced, placed, _) = place(&p.finish().module);
        // The input is at most at level 17, every bootstrap leads from level 3 to level 17, outputs are at level 0.
        let least = usize::div_ceil(usize::max(depth, 17) - 17, 14);
        assert_eq!(count(&unplaced), (least, 0), "depth {depth}");
        let start = placed.entry().param_types()[0].placement().unwrap().level;
        assert!(start <= params.program_level());
        assert_eq!(placed.entry().result_types()[0].placement().unwrap().level, Level(0));
    }
}

#[test]
fn two_real_chains_share_their_bootstraps() {
    let params = boot_40();
    let chains = |n: usize, depth: usize| {
        let p = Program::new("chains", &params);
        let inputs: Vec<Ct> = (0..n).map(|i| p.input(&format!("x{i}"), Packing::dense(16))).collect();
        // One after the other: the pass has to find that they can go side by side.
        for (i, x) in inputs.iter().enumerate() {
            let y = (0..depth).fold(x.clone(), |x, _| &x * &x);
            p.output(&format!("y{i}"), Packing::dense(16), &y);
        }
        count(&place(&p.finish().module).0)
    };
    assert_eq!(chains(2, 20), (0, 1));
    assert_eq!(chains(3, 20), (1, 1));
    assert_eq!(chains(4, 33), (0, 4));
    assert_eq!(chains(16, 20), (0, 8));
}

#[test]
fn chains_of_different_depth_share_too() {
    let params = boot_40();
    let p = Program::new("chains", &params);
    let (x, y) = (p.input("x", Packing::dense(16)), p.input("y", Packing::dense(16)));
    let deep = (0..30).fold(x, |x, _| &x * &x);
    let other = (0..25).fold(y, |y, _| (&y * &y) * 0.5);
    p.output("z", Packing::dense(16), &(deep * other));
    let (unplaced, ..) = place(&p.finish().module);
    let (one, two) = count(&unplaced);
    assert!(two >= 1, "{one} alone, {two} pairs");
}

#[test]
fn complex_values_do_not_share() {
    let params = boot_40();
    let p = Program::new("chains", &params);
    let i = p.constant(Complex64::I);
    let inputs = [p.input("x", Packing::dense(16)), p.input("y", Packing::dense(16))];
    for (n, x) in inputs.iter().enumerate() {
        let y = (0..20).fold(x * &i, |x, _| &x * &x);
        p.output(&format!("y{n}"), Packing::dense(16), &y);
    }
    assert_eq!(count(&place(&p.finish().module).0), (2, 0));
}

#[test]
fn a_skip_connection_is_bootstrapped_where_it_is_narrow() {
    // Blocks `x + f(x)` with f of depth 5, wide inside: one bootstrap for every 14 levels, at values between blocks.
    let params = boot_40();
    let p = Program::new("residual", &params);
    let mut x = p.input("x", Packing::dense(16));
    for _ in 0..8 {
        let branches: Vec<Ct> = (1..6).map(|k| (0..5).fold(x.rotate(k), |y, _| (&y * &y) * 0.5)).collect();
        let sum = branches.into_iter().reduce(|a, b| a + b).unwrap();
        x = &x + &sum;
    }
    p.output("y", Packing::dense(16), &x);
    let (unplaced, ..) = place(&p.finish().module);
    // Each square and its factor take two levels: ten levels a block, so one bootstrap between blocks.
    assert_eq!(count(&unplaced), (7, 0));
    for node in &unplaced.entry().nodes {
        if let Op::Bootstrap { xs, .. } = &node.op {
            let maker = unplaced.entry().nodes.iter().find(|n| n.result() == xs[0]).unwrap();
            assert!(matches!(maker.op, Op::Add { .. }), "a block's result, not {:?}", maker.op);
        }
    }
}

#[test]
fn functions_in_loops_are_searched_once_and_copied_rarely() {
    let params = boot_40();
    // Levels of a call, calls, and operations of the function besides: only small functions are copied as is best.
    for (depth, calls, more) in [(5, 100, 0), (5, 100, 600), (3, 60, 600), (14, 10, 0), (20, 30, 600)] {
        let p = Program::new("loop", &params);
        let mut x = p.input("x", Packing::dense(16));
        let step = p.function("step", 1, &[16], |_, x, w| {
            let y = (0..more).fold(&x[0] * &w[0], |y, _| -&y);
            vec![(1..depth).fold(y, |y, _| &y * &y)]
        });
        let tensor = p.tensor("w", (0..16).map(|i| i as f32 / 16.0).collect());
        for i in 0..calls {
            let w = p.weight(tensor, &(0..16).map(|j| (i + j) % 16).collect::<Vec<u32>>(), 1.0);
            x = p.call(&step, &[&x], &[&w]).remove(0);
        }
        p.output("y", Packing::dense(16), &x);
        let (unplaced, placed, _) = place(&p.finish().module);
        let (one, two) = count(&unplaced);
        assert_eq!(two, 0);
        let total = depth * calls as usize;
        let least = (total - 17).div_ceil(14);
        // Whole calls between bootstraps is what a function that is not copied at all can do.
        let most = match more {
            0 => least,
            _ if depth > 14 => calls as usize * 2,
            _ => calls as usize / (14 / depth),
        };
        println!("depth {depth}: {one} bootstraps, at least {least}, {} functions", placed.functions.len());
        assert!((least..=most).contains(&one), "{one} bootstraps of {least} to {most}");
        let copies = placed.functions.len() - 1;
        assert!(copies <= if more > 0 { MIN_COPIES } else { 17 }, "{copies} copies");
    }
}

#[test]
fn wide_layers_are_searched_by_symmetry() {
    // Eight ciphertexts, each layer mixes all of them: the search sees one.
    let params = boot_40();
    let p = Program::new("wide", &params);
    let tensor = p.tensor("w", vec![0.125; 16]);
    let w = p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0);
    let mut x: Vec<Ct> = (0..8).map(|i| p.input(&format!("x{i}"), Packing::dense(16))).collect();
    for _ in 0..5 {
        let mixed = (0..8).map(|i| {
            let terms = x.iter().enumerate().map(|(j, x)| {
                x.linear_transform(&[(0, w.clone()), (1 + i as i64, w.clone()), (9 + j as i64, w.clone())])
            });
            terms.reduce(|a, b| a + b).unwrap().poly_eval(&[0.1, 0.4, 0.0, 0.2, 0.0, 0.1, 0.0, 0.1])
        });
        x = mixed.collect();
    }
    for (i, x) in x.iter().enumerate() {
        p.output(&format!("y{i}"), Packing::dense(16), x);
    }
    // Four levels a layer, twenty in all: one bootstrap of every ciphertext somewhere, in pairs.
    let (unplaced, ..) = place(&p.finish().module);
    assert_eq!(count(&unplaced), (0, 4));
}

#[test]
fn bootstraps_in_the_source_stay() {
    let params = boot_40();
    let module = read(
        &params,
        "func @main(%x: ct) {
           %1 = mul(%x, %x)
           %2 = bootstrap(%1) {kind=real, log_slots=7, bound=1.0}
           %3 = mul(%2, %2)
           return %3
         }",
    );
    let (unplaced, placed, _) = place(&module);
    assert_eq!(text::write(&unplaced), text::write(&module));
    let levels: Vec<u8> =
        placed.entry().types.iter().filter_map(|ty| ty.placement()).map(|p| p.level.0).collect();
    assert_eq!((levels[0], *levels.last().unwrap()), (4, 0), "in at level 3, back down to what is needed");
}

#[test]
fn bounds_come_from_samples_and_periods_from_packings() {
    let params = boot_40();
    let p = Program::new("bounds", &params);
    let x = p.input("x", Packing::dense(16));
    let mut y = &x * 5.0;
    for _ in 0..24 {
        y = (&y * &y) * 0.2;
    }
    p.output("y", Packing::dense(16), &y);
    let source = p.finish();
    let mut module = source.module;
    let sample: Slots = vec![Complex64::new(1.0, 0.0); params.slots()];
    place_bootstraps(&mut module, &[4], &[vec![sample]]).unwrap();
    let found: Vec<(u32, f64)> = module
        .entry()
        .nodes
        .iter()
        .filter_map(|node| match &node.op {
            Op::Bootstrap { log_slots, bound, .. } => Some((*log_slots, bound.0)),
            _ => None,
        })
        .collect();
    assert!(!found.is_empty());
    // The values are 5 and 25 in turns; twice that, as a power of two.
    assert!(
        found.iter().all(|&(log_slots, bound)| log_slots == 4 && (bound == 16.0 || bound == 64.0)),
        "{found:?}"
    );
}

/// A random program of few values: products, sums, rotations, of complex values, so that bootstraps do not share. Its ends are
/// pinned to the levels between which bootstraps go, so that it needs some.
fn small_program(params: &Params, rng: &mut StdRng) -> Module {
    let p = Program::new("small", params);
    let i = p.constant(Complex64::I);
    let inputs = [p.input("x", Packing::dense(16)), p.input("y", Packing::dense(16))];
    let levels = params.bootstrap().unwrap();
    let mut values: Vec<Ct> = inputs.iter().map(|x| x.lower(levels.output) * &i).collect();
    for _ in 0..rng.random_range(6..9) {
        // Mostly recent values, so that the program becomes deep.
        let recent =
            |rng: &mut StdRng| values[values.len() - 1 - rng.random_range(0..values.len().min(3))].clone();
        let (a, b) = (recent(rng), recent(rng));
        values.push(match rng.random_range(0..6) {
            0..=2 => a * b,
            3 => a + b,
            4 => a.rotate(rng.random_range(1..4)) + b,
            _ => (a * 0.5) * b,
        });
    }
    p.output("z", Packing::dense(16), &values.last().unwrap().lower(levels.input));
    let mut module = p.finish().module;
    share(&mut module);
    module
}

/// The least cost over every choice of uses that take the bootstrap of their operand.
fn least_cost(module: &Module) -> Option<f64> {
    let entry = module.entry();
    let uses: Vec<(usize, ValueId)> = entry
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| {
            let operands: BTreeSet<ValueId> = node.op.operands().into_iter().collect();
            let ciphertexts = operands.into_iter().filter(|&v| entry.type_of(v).to_string() == "ct");
            ciphertexts.map(move |v| (index, v)).collect::<Vec<_>>()
        })
        .collect();
    if uses.len() > 12 {
        return None;
    }
    let mut least: Option<f64> = None;
    for choice in 0..1u32 << uses.len() {
        let served = |index: usize, v: ValueId| {
            uses.iter().position(|&u| u == (index, v)).is_some_and(|bit| choice >> bit & 1 == 1)
        };
        let mut builder = Builder::new(entry.name.clone(), entry.param_types().to_vec());
        let mut new: Vec<ValueId> = Vec::new();
        let mut refreshed: Vec<Option<ValueId>> = Vec::new();
        let refresh = |builder: &mut Builder, old: ValueId, new: ValueId| {
            let any = (0..entry.nodes.len()).any(|index| served(index, old));
            any.then(|| {
                let op = Op::Bootstrap {
                    xs: vec![new],
                    kind: BootstrapKind::Complex,
                    log_slots: 4,
                    bound: Number(1.0),
                };
                builder.push(module, op)
            })
        };
        for v in entry.params() {
            new.push(v);
        }
        for v in entry.params() {
            let value = refresh(&mut builder, v, v);
            refreshed.push(value);
        }
        for (index, node) in entry.nodes.iter().enumerate() {
            let mut op = node.op.clone();
            op.map_operands(
                |v| if served(index, v) { refreshed[v.index()].unwrap() } else { new[v.index()] },
            );
            let value = builder.push(module, op);
            new.push(value);
            let value = refresh(&mut builder, node.result(), value);
            refreshed.push(value);
        }
        let results = entry.results.iter().map(|v| new[v.index()]).collect();
        let mut tried = Module::new(module.context.clone(), module.stages.clone());
        tried.functions.push(builder.finish(results));
        if let Some((_, seconds)) = levels(&tried) {
            least = Some(least.map_or(seconds, |least: f64| least.min(seconds)));
        }
    }
    least
}

#[test]
fn small_programs_are_placed_as_well_as_any() {
    let mut rng = fresh_rng();
    let (mut compared, mut with) = (0, 0);
    while compared < 6 {
        let params = short(rng.random_range(1..4));
        let module = small_program(&params, &mut rng);
        let Some(least) = least_cost(&module) else { continue };
        let (unplaced, _, seconds) = place(&module);
        assert!(
            seconds <= least * 1.03,
            "{seconds} s, {least} s is possible:\n{}\nplaced as\n{}",
            text::write(&module),
            text::write(&unplaced)
        );
        compared += 1;
        with += usize::from(count(&unplaced).0 > 0);
    }
    println!("{with} of {compared} need bootstraps");
    assert!(with > 0);
}

/// A random program of about 150 operations and two functions, deep enough for several bootstraps.
fn deep_program(params: &Params, rng: &mut StdRng) -> Module {
    let p = Program::new("deep", params);
    let tensor = p.tensor("w", (0..16).map(|_| rng.random_range(-1.0..1.0)).collect());
    let w: Weight = p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0);
    let i = p.constant(Complex64::I);
    let mut values: Vec<Ct> = (0..3).map(|i| p.input(&format!("x{i}"), Packing::dense(16))).collect();
    let blend =
        p.function("blend", 2, &[16], |_, x, w| vec![(&x[0] * &x[1] + &x[0] * &w[0]) * 0.5, &x[0] - &x[1]]);
    let cube = p.function("cube", 1, &[], |_, x, _| vec![&x[0] * &x[0] * &x[0] + x[0].rotate(1)]);
    for _ in 0..60 {
        let recent = |rng: &mut StdRng| {
            let reach = if rng.random_range(0..8) == 0 { 30 } else { 4 };
            values[values.len() - 1 - rng.random_range(0..values.len().min(reach))].clone()
        };
        let (a, b) = (recent(rng), recent(rng));
        let made = match rng.random_range(0..12) {
            0..=2 => vec![a * b],
            3 => vec![a + b],
            4 => vec![a.rotate(rng.random_range(1..9)) - b],
            5 => vec![(a * 0.3) + (b * 0.7)],
            6 => vec![a.poly_eval(&[0.1, 0.5, 0.1, -0.2, 0.1])],
            7 => vec![a.linear_transform(&[(0, w.clone()), (3, w.clone()), (7, w.clone())])],
            8 => p.call(&blend, &[&a, &b], &[&w]),
            9 => p.call(&cube, &[&a], &[]),
            10 => vec![(a * 3.0).conjugate() + &w],
            _ if rng.random_range(0..4) == 0 => vec![a * &i],
            _ => vec![-&a * &w],
        };
        values.extend(made);
    }
    let last = values.len();
    for (i, value) in values[last - 2..].iter().enumerate() {
        p.output(&format!("y{i}"), Packing::dense(16), value);
    }
    let mut module = p.finish().module;
    let Ok(()) = expand_poly_eval(&mut module);
    remove_unused(&mut module);
    module
}

#[test]
fn random_deep_programs_are_placed_within_the_levels() {
    let mut rng = fresh_rng();
    let mut most = 0;
    for _ in 0..8 {
        let params = if rng.random_bool(0.5) { boot_40() } else { short(rng.random_range(3..8)) };
        let module = deep_program(&params, &mut rng);
        let (unplaced, placed, seconds) = place(&module);
        let top = params.program_level();
        for function in &placed.functions {
            assert!(function.types.iter().filter_map(|ty| ty.placement()).all(|at| at.level <= top));
        }
        // Bootstraps are the identity: the program computes what it did.
        let inputs: Vec<Slots> = (0..3)
            .map(|_| (0..params.slots()).map(|_| Complex64::new(rng.random_range(-0.1..0.1), 0.0)).collect())
            .collect();
        let (before, after) =
            (Interpreter::new(&module).run(&inputs), Interpreter::new(&unplaced).run(&inputs));
        for (a, b) in before.iter().flatten().zip(after.iter().flatten()) {
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same(a.re, b.re) && same(a.im, b.im), "{a} became {b}");
        }
        let (one, two) = count(&unplaced);
        println!("{one} alone, {two} pairs, {seconds:.4} s, {} functions", placed.functions.len());
        most = most.max(one + two);
        // The text form reads back.
        let printed = text::write(&unplaced);
        let again = text::read(&printed, unplaced.context.clone()).unwrap();
        assert_eq!(text::write::<cerium_compiler::ciphertext::Ciphertext>(&again), printed);
    }
    assert!(most > 0, "programs this deep need bootstraps");
}
