//! The clear interpreter for many inputs at once, of programs whose slots are real.
//!
//! It computes what [`Interpreter`](super::Interpreter) computes, its oracle, to the last bit, some fifty times as fast: on
//! real numbers in the place of complex ones, over one period of each value in the place of all slots, on [`LANES`]
//! inputs side by side in the place of one, and with weights that are read where they lie. Networks are simulated with it.

use std::sync::Arc;

use cerium_artifact::Recipe;
use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;

use super::{Function, Module, Op};
use crate::ir::{Operation, ValueId};

/// Inputs that are computed side by side.
pub const LANES: usize = 8;

/// One slot of all lanes.
pub type Lanes = [f64; LANES];

/// Slots that are summed at a time in a linear transform: their sums stay in registers.
const TILE: usize = 4;

/// A program that is not real, or placed already.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{operation}` in {function} is not an operation of an unplaced program on real slots; interpret it on complex ones"
)]
pub struct NotReal {
    /// Name of the function.
    pub function: String,
    /// What stands there.
    pub operation: String,
}

/// A weight, read where it lies: slot `i` is `factor * values[gather[(i + first) % gather.len()]]`.
#[derive(Clone, Copy, Debug)]
struct Plain<'a> {
    /// The tensor, with a zero behind it for slots without an element.
    values: &'a [f64],
    /// A power of two of indices.
    gather: &'a [u32],
    factor: f64,
    first: usize,
}

impl Plain<'_> {
    fn period(&self) -> usize {
        self.gather.len()
    }

    #[inline(always)]
    fn at(&self, slot: usize) -> f64 {
        let element = self.gather[(slot + self.first) & (self.gather.len() - 1)] as usize;
        self.values[element.min(self.values.len() - 1)] * self.factor
    }
}

#[derive(Clone)]
enum Value<'a> {
    /// One period of a ciphertext, a power of two of slots.
    Cipher(Arc<Vec<Lanes>>),
    Plain(Plain<'a>),
}

/// Interprets an unplaced module on real slots.
#[derive(Debug)]
pub struct LaneInterpreter<'a> {
    module: &'a Module,
    /// Tensors in double precision, each with a zero behind it.
    tensors: Vec<Vec<f64>>,
    /// Numbers of constant weights, by weight; 0 elsewhere.
    constants: Vec<[f64; 1]>,
}

impl<'a> LaneInterpreter<'a> {
    /// An interpreter for `module`.
    ///
    /// # Errors
    /// If an operation or a weight can make slots that are not real, or belongs to placed programs.
    pub fn new(module: &'a Module) -> Result<Self, NotReal> {
        let data = &module.context.data;
        for function in &module.functions {
            let refuse = |operation: &str| {
                Err(NotReal { function: function.name.to_string(), operation: operation.into() })
            };
            for node in &function.nodes {
                match node.op {
                    Op::Encode { .. }
                    | Op::Rescale { .. }
                    | Op::Relinearize { .. }
                    | Op::Adjust { .. }
                    | Op::DropLevel { .. }
                    | Op::ModRaise { .. } => return refuse(node.op.mnemonic()),
                    Op::Weight { index } => match data.weights[index as usize] {
                        Recipe::Gather { .. } => {}
                        Recipe::Constant { im: 0.0, .. } => {}
                        recipe => return refuse(&recipe.describe(&data.tensors)),
                    },
                    _ => {}
                }
            }
        }
        let padded = |values: &cerium_artifact::Values| -> Vec<f64> {
            values.iter().map(f64::from).chain([0.0]).collect()
        };
        let constant = |recipe: &Recipe| match *recipe {
            Recipe::Constant { re, .. } => [re],
            _ => [0.0],
        };
        Ok(LaneInterpreter {
            module,
            tensors: data.tensors.iter().map(|tensor| padded(&tensor.values)).collect(),
            constants: data.weights.iter().map(constant).collect(),
        })
    }

    /// Runs the entry on inputs of one period each, a power of two of slots, and calls `sink(i, slots)` with one period of
    /// result `i` as soon as it is known; values that nothing needs any more are dropped, so that results need not fit in
    /// memory together.
    ///
    /// # Panics
    /// If the number of inputs is wrong or the length of one is no power of two.
    pub fn run(&self, inputs: Vec<Vec<Lanes>>, sink: &mut dyn FnMut(usize, &[Lanes])) {
        assert!(inputs.iter().all(|slots| slots.len().is_power_of_two()), "a period is a power of two");
        let args = inputs.into_iter().map(|slots| Value::Cipher(Arc::new(slots))).collect();
        let entry = self.module.entry();
        self.call(entry, args, &mut |value, slots| {
            for (i, _) in entry.results.iter().enumerate().filter(|(_, result)| **result == value) {
                sink(i, slots);
            }
        });
    }

    /// Calls `made(value, slots)` for every ciphertext of the function itself.
    fn call<'s>(
        &'s self,
        function: &Function,
        args: Vec<Value<'s>>,
        made: &mut dyn FnMut(ValueId, &[Lanes]),
    ) -> Vec<Value<'s>> {
        assert_eq!(args.len(), function.params as usize, "one argument for each parameter");
        let mut uses = function.use_counts();
        let mut values: Vec<Option<Value<'s>>> = Vec::with_capacity(uses.len());
        let mut define = |values: &mut Vec<Option<Value<'s>>>, value: Value<'s>| {
            if let Value::Cipher(slots) = &value {
                made(ValueId(values.len() as u32), slots);
            }
            values.push(Some(value));
        };
        args.into_iter().for_each(|value| define(&mut values, value));
        for node in &function.nodes {
            let get = |id: &ValueId| values[id.index()].clone().expect("dropped after its last use only");
            let results = match &node.op {
                Op::Call { args, function } => {
                    let (_, callee) =
                        self.module.find(function).expect("verified modules call defined functions");
                    self.call(callee, args.iter().map(get).collect(), &mut |_, _| {})
                }
                // Ideally the identity.
                Op::Bootstrap { xs, .. } => xs.iter().map(get).collect(),
                op => vec![self.step(op, &get)],
            };
            results.into_iter().for_each(|value| define(&mut values, value));
            for operand in node.op.operands() {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = None;
                }
            }
        }
        let result = |id: &ValueId| values[id.index()].clone().expect("results are used by the return");
        function.results.iter().map(result).collect()
    }

    fn step<'s>(&'s self, op: &Op, get: &dyn Fn(&ValueId) -> Value<'s>) -> Value<'s> {
        let ct = |id: &ValueId| match get(id) {
            Value::Cipher(slots) => slots,
            Value::Plain(_) => panic!("verified operations get ciphertexts where they take them"),
        };
        let pt = |id: &ValueId| match get(id) {
            Value::Plain(weight) => weight,
            Value::Cipher(_) => panic!("verified operations get plaintexts where they take them"),
        };
        Value::Cipher(match op {
            Op::Add { a, b } => pairwise(&ct(a), &ct(b), |x, y| x + y),
            Op::Sub { a, b } => pairwise(&ct(a), &ct(b), |x, y| x - y),
            Op::Mul { a, b } => pairwise(&ct(a), &ct(b), |x, y| x * y),
            Op::Neg { a } => each(&ct(a), |x| -x),
            Op::AddPlain { a, p } => with_plain(&ct(a), pt(p), |x, w| x + w),
            Op::MulPlain { a, p } => with_plain(&ct(a), pt(p), |x, w| x * w),
            Op::AddConst { a, value } => each(&ct(a), |x| x + value.0),
            Op::MulConst { a, value, .. } => each(&ct(a), |x| x * value.0),
            Op::Reinterpret { a, factor } => each(&ct(a), |x| x * factor.0),
            Op::Rotate { a, by } => {
                let mut slots = ct(a).as_ref().clone();
                let by = by.rem_euclid(slots.len() as i64) as usize;
                slots.rotate_left(by);
                Arc::new(slots)
            }
            Op::Conjugate { a } | Op::Lower { a, .. } => return get(a),
            Op::Weight { index } => return Value::Plain(self.weight(*index)),
            Op::RotatePlain { p, by } => {
                let mut weight = pt(p);
                weight.first += by.rem_euclid(weight.period() as i64) as usize;
                return Value::Plain(weight);
            }
            Op::LinearTransform { x, diagonals, offsets, .. } => {
                let diagonals: Vec<Plain<'_>> = diagonals.iter().map(pt).collect();
                Arc::new(linear_transform(&ct(x), &diagonals, offsets))
            }
            Op::PolyEval { x, coefficients } => {
                let coefficients: Vec<f64> = coefficients.iter().map(|c| c.0).collect();
                let mut slots = ct(x).as_ref().clone();
                chebyshev_series(&coefficients, &mut slots);
                Arc::new(slots)
            }
            Op::Call { .. } | Op::Bootstrap { .. } => unreachable!("handled by the caller"),
            Op::Encode { .. }
            | Op::Rescale { .. }
            | Op::Relinearize { .. }
            | Op::Adjust { .. }
            | Op::DropLevel { .. }
            | Op::ModRaise { .. } => unreachable!("refused by the constructor"),
        })
    }

    fn weight(&self, index: u32) -> Plain<'_> {
        let data = &self.module.context.data;
        match data.weights[index as usize] {
            Recipe::Gather { tensor, gather, factor } => Plain {
                values: &self.tensors[tensor.0 as usize],
                gather: &data.gathers[gather.0 as usize],
                factor,
                first: 0,
            },
            _ => Plain { values: &self.constants[index as usize], gather: &[0], factor: 1.0, first: 0 },
        }
    }
}

fn each(a: &[Lanes], f: impl Fn(f64) -> f64) -> Arc<Vec<Lanes>> {
    Arc::new(a.iter().map(|x| x.map(&f)).collect())
}

/// Slot by slot; the shorter period repeats.
fn pairwise(a: &[Lanes], b: &[Lanes], f: impl Fn(f64, f64) -> f64) -> Arc<Vec<Lanes>> {
    let period = a.len().max(b.len());
    let pairs = a.iter().cycle().zip(b.iter().cycle()).take(period);
    Arc::new(pairs.map(|(x, y)| std::array::from_fn(|lane| f(x[lane], y[lane]))).collect())
}

fn with_plain(a: &[Lanes], p: Plain<'_>, f: impl Fn(f64, f64) -> f64) -> Arc<Vec<Lanes>> {
    let slots = a.iter().cycle().take(a.len().max(p.period())).enumerate();
    let slot = |(slot, x): (usize, &Lanes)| {
        let w = p.at(slot);
        x.map(|x| f(x, w))
    };
    Arc::new(slots.map(slot).collect())
}

/// `sum_k diagonals[k] * rotate(x, offsets[k])`.
fn linear_transform(x: &[Lanes], diagonals: &[Plain<'_>], offsets: &[i64]) -> Vec<Lanes> {
    let longest = diagonals.iter().map(Plain::period).max().unwrap_or(1);
    let mut out = vec![[0.0; LANES]; x.len().max(longest)];
    let start = |offset: &i64| offset.rem_euclid(x.len() as i64) as usize;
    let terms: Vec<(Plain<'_>, usize)> = diagonals.iter().copied().zip(offsets.iter().map(start)).collect();
    let (terms, sums) = (terms.as_slice(), out.as_mut_slice());
    dispatch!(Isa::detect(), sum_terms(x: &[Lanes], terms: &[(Plain<'_>, usize)], sums: &mut [Lanes]));
    out
}

/// Adds to every slot of `sums` its products with the diagonals, each with the offset to which its input is rotated.
///
/// # Safety
/// None: compiled for the features of `V`, it uses no vector type itself.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "it says for which instruction set this is compiled")]
unsafe fn sum_terms<V: cerium_ckks::lanes::Lanes>(
    x: &[Lanes],
    terms: &[(Plain<'_>, usize)],
    sums: &mut [Lanes],
) {
    for (index, sums) in sums.chunks_mut(TILE).enumerate() {
        let mut tile = [[0.0; LANES]; TILE];
        for (diagonal, offset) in terms {
            for (slot, sum) in (TILE * index..).zip(tile.iter_mut()) {
                let (w, x) = (diagonal.at(slot), &x[(slot + offset) & (x.len() - 1)]);
                for (sum, x) in sum.iter_mut().zip(x) {
                    *sum += x * w;
                }
            }
        }
        sums.copy_from_slice(&tile[..sums.len()]);
    }
}

/// Replaces every number by the value there of the Chebyshev series `sum_k coefficients[k] * T_k`.
///
/// # Panics
/// If there is no coefficient.
pub fn chebyshev_series(coefficients: &[f64], slots: &mut [Lanes]) {
    dispatch!(Isa::detect(), clenshaw(coefficients: &[f64], slots: &mut [Lanes]));
}

/// Clenshaw's recurrence.
///
/// # Safety
/// None: compiled for the features of `V`, it uses no vector type itself.
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "it says for which instruction set this is compiled")]
unsafe fn clenshaw<V: cerium_ckks::lanes::Lanes>(coefficients: &[f64], slots: &mut [Lanes]) {
    for x in slots {
        let (mut b1, mut b2) = ([0.0; LANES], [0.0; LANES]);
        for c in coefficients.iter().skip(1).rev() {
            for lane in 0..LANES {
                (b1[lane], b2[lane]) = (2.0 * x[lane] * b1[lane] - b2[lane] + c, b1[lane]);
            }
        }
        for lane in 0..LANES {
            x[lane] = x[lane] * b1[lane] - b2[lane] + coefficients[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ciphertext::{Interpreter, Slots};
    use crate::dsl::{Ct, Packing, Program, Weight};
    use cerium_artifact::NO_ELEMENT;
    use cerium_ckks::params::Params;
    use num_complex::Complex64;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Values in [-1, 1].
    fn draw(rng: &mut StdRng, count: usize) -> Vec<f32> {
        (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Random programs over every operation that is real, inputs, weights and results of all periods: the bits are those of
    /// the interpreter on complex slots.
    #[test]
    fn lanes_agree_with_complex_slots() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let rng = &mut StdRng::seed_from_u64(seed);
        let params = Params::named_insecure("insecure-test").unwrap();
        let log_slots = params.slots().trailing_zeros();
        for _ in 0..10 {
            let p = Program::new("random", &params);
            let periods: Vec<usize> = (0..2).map(|_| 1 << rng.random_range(0..=log_slots)).collect();
            let mut values: Vec<Ct> =
                periods.iter().map(|&period| p.input("x", Packing::dense(period))).collect();
            let tables: Vec<usize> = (0..5).map(|_| 1 << rng.random_range(0..=log_slots)).collect();
            let mut weight = |&period: &usize| {
                let tensor = p.tensor("w", draw(rng, 10));
                let element = |_| [rng.random_range(0..10), NO_ELEMENT][usize::from(rng.random_bool(0.2))];
                let gather: Vec<u32> = (0..period).map(element).collect();
                p.weight(tensor, &gather, rng.random_range(0.5..1.0))
            };
            let mut weights: Vec<Weight> = tables.iter().map(&mut weight).collect();
            weights.push(p.constant((-0.75).into()));
            let blend = p.function("blend", 2, &[], |_, cts, _| vec![&cts[0] * &cts[1], cts[1].rotate(3)]);
            let turn = p.function("turn", 1, &tables[..1], |scope, cts, weights| {
                vec![cts[0].mul_weight(&scope.rotate_weight(&weights[0], 5))]
            });
            for _ in 0..20 {
                let mut pick = || values[rng.random_range(0..values.len())].clone();
                let (a, b) = (pick(), pick());
                let weight = &weights[rng.random_range(0..weights.len())];
                let by = rng.random_range(-20..20);
                let made = match rng.random_range(0..12) {
                    0 => (a + b) * 0.5,
                    1 => (a - &b + 0.25) * 0.5,
                    2 => a * b,
                    3 => a * weight,
                    4 => (a + weight) * 0.25,
                    5 => a.rotate(by),
                    6 => -&a.conjugate(),
                    7 => p.call(&turn, &[&a], &[&weights[0]]).remove(0),
                    8 => {
                        let diagonals: Vec<(i64, Weight)> =
                            weights.iter().map(|w| (rng.random_range(-30..30), w.clone())).collect();
                        a.linear_transform(&diagonals) * 0.2
                    }
                    9 => a.poly_eval(&[0.1, 0.3, -0.2, 0.1, 0.0, 0.3]),
                    10 => a.bootstrap(crate::ciphertext::BootstrapKind::Real, 1.0),
                    _ => p.call(&blend, &[&a, &b], &[]).remove(rng.random_range(0..2)),
                };
                values.push(made);
            }
            for (i, value) in values.iter().enumerate() {
                p.output(&format!("out{i}"), Packing::dense(1), value);
            }
            let module = p.finish().module;
            let inputs: Vec<Vec<Lanes>> = periods
                .iter()
                .map(|&period| {
                    (0..period).map(|_| std::array::from_fn(|_| rng.random_range(-1.0..1.0))).collect()
                })
                .collect();
            let mut lanes = vec![Vec::new(); values.len()];
            LaneInterpreter::new(&module)
                .unwrap()
                .run(inputs.clone(), &mut |i, slots| lanes[i] = slots.to_vec());
            let interpreter = Interpreter::new(&module);
            for lane in 0..LANES {
                let slots = |values: &Vec<Lanes>| -> Slots {
                    values.iter().cycle().take(params.slots()).map(|x| x[lane].into()).collect()
                };
                let wanted = interpreter.run(&inputs.iter().map(slots).collect::<Vec<_>>());
                for (i, wanted) in wanted.iter().enumerate() {
                    assert_eq!(slots(&lanes[i]), *wanted, "result {i}, lane {lane}");
                }
            }
        }
    }

    #[test]
    fn complex_weights_are_refused() {
        let params = Params::named_insecure("insecure-test").unwrap();
        let p = Program::new("turn", &params);
        let x = p.input("x", Packing::dense(8));
        p.output("y", Packing::dense(8), &x.mul_weight(&p.constant(Complex64::I)));
        let error = LaneInterpreter::new(&p.finish().module).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("the constant") && error.to_string().contains("main"), "{error}");
    }
}
