//! The clear interpreter: programs of this level on slots instead of ciphertexts. It is the oracle of accuracy: what
//! it computes is what the encrypted program computes up to noise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cerium_artifact::Recipe;
use cerium_ckks::basis::Level;
use num_complex::Complex64;

use super::{Function, Module, Op};
use crate::ir::{Node, Operation, ValueId};

/// The slots of a ciphertext, or one period of those of a plaintext.
pub type Slots = Vec<Complex64>;

#[derive(Clone)]
enum Value {
    Cipher(Arc<Slots>),
    /// One period of a plaintext.
    Plain(Arc<Slots>),
}

/// Called after each operation that makes a ciphertext, with the slots of its first operand and its result.
pub type Observer<'a> = dyn FnMut(&Node<Op>, &Slots, &Arc<Slots>) + 'a;

/// Changes values as they are made; `()` changes nothing.
pub(super) trait Perturb {
    /// After an operation that makes a ciphertext.
    fn cipher(&mut self, _function: &Function, _node: &Node<Op>, _slots: &mut Arc<Slots>) {}
    /// Adds the multiples of Q_0 that raising the modulus uncovers, in units of Q_0.
    fn raise(&mut self, _slots: &mut Slots) {}
    /// After an operation that makes a plaintext, over one period.
    fn plain(&mut self, _function: &Function, _node: &Node<Op>, _slots: &mut Arc<Slots>) {}
    /// Before a call on these ciphertexts: its results, all ciphertexts, if its body need not be interpreted.
    fn call(&mut self, _callee: &Function, _args: &[Arc<Slots>]) -> Option<Vec<Slots>> {
        None
    }
    /// After a call whose body was interpreted, with the ciphertexts among its arguments and results.
    fn called(&mut self, _callee: &Function, _args: &[Arc<Slots>], _results: &[Arc<Slots>]) {}
}

impl Perturb for () {}

/// Interprets a module of the ciphertext level, placed or not, on clear slots.
#[derive(Debug)]
pub struct Interpreter<'a> {
    module: &'a Module,
    slots: usize,
    /// Diagonals of transforms by weight: they take long to make, and every bootstrap needs them.
    transforms: Mutex<HashMap<u32, Arc<Slots>>>,
}

impl<'a> Interpreter<'a> {
    /// An interpreter for `module` on vectors of as many slots as its parameter set has.
    pub fn new(module: &'a Module) -> Self {
        Interpreter { module, slots: module.context.params.slots(), transforms: Mutex::default() }
    }

    /// Runs the entry on input slots (each of length `slots`).
    ///
    /// # Panics
    /// If the number or the length of the inputs is wrong.
    pub fn run(&self, inputs: &[Slots]) -> Vec<Slots> {
        self.run_observed(inputs, &mut |_, _, _| {})
    }

    /// As [`Interpreter::run`], calling `observer` after every operation that makes a ciphertext.
    pub fn run_observed(&self, inputs: &[Slots], observer: &mut Observer<'_>) -> Vec<Slots> {
        self.run_perturbed(inputs, &mut (), observer)
    }

    /// As [`Interpreter::run_observed`], with every value changed by `perturb` as it is made.
    pub(super) fn run_perturbed(
        &self,
        inputs: &[Slots],
        perturb: &mut dyn Perturb,
        observer: &mut Observer<'_>,
    ) -> Vec<Slots> {
        assert!(inputs.iter().all(|slots| slots.len() == self.slots), "inputs have one value a slot");
        let args = inputs.iter().map(|slots| Value::Cipher(Arc::new(slots.clone()))).collect();
        let results = self.call(self.module.entry(), args, perturb, observer);
        results.into_iter().map(|value| cipher(&value).as_ref().clone()).collect()
    }

    fn call(
        &self,
        function: &Function,
        args: Vec<Value>,
        perturb: &mut dyn Perturb,
        observer: &mut Observer<'_>,
    ) -> Vec<Value> {
        assert_eq!(args.len(), function.params as usize, "one argument for each parameter");
        let mut values = args;
        let mut uses = function.use_counts();
        let unit = Value::Plain(Arc::new(Vec::new()));
        for node in &function.nodes {
            let results = match &node.op {
                Op::Call { args, function } => {
                    let (_, callee) =
                        self.module.find(function).expect("verified modules call defined functions");
                    let args: Vec<Value> = args.iter().map(|v| values[v.index()].clone()).collect();
                    let given = ciphers(&args);
                    match perturb.call(callee, &given) {
                        Some(known) => {
                            known.into_iter().map(|slots| Value::Cipher(Arc::new(slots))).collect()
                        }
                        None => {
                            let results = self.call(callee, args, perturb, observer);
                            perturb.called(callee, &given, &ciphers(&results));
                            results
                        }
                    }
                }
                // Ideally the identity.
                Op::Bootstrap { xs, .. } => xs.iter().map(|x| values[x.index()].clone()).collect(),
                op => {
                    let mut result = self.step(op, &values);
                    if let (Op::ModRaise { .. }, Value::Cipher(slots)) = (op, &mut result) {
                        perturb.raise(Arc::make_mut(slots));
                    }
                    match &mut result {
                        Value::Cipher(slots) => perturb.cipher(function, node, slots),
                        Value::Plain(slots) => perturb.plain(function, node, slots),
                    }
                    if let (Value::Cipher(slots), Some(first)) = (&result, op.operands().first())
                        && let Value::Cipher(operand) = &values[first.index()]
                    {
                        observer(node, operand, slots);
                    }
                    vec![result]
                }
            };
            values.extend(results);
            // Values that are not used again are dropped, so that deep programs fit in memory.
            for operand in node.op.operands() {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = unit.clone();
                }
            }
        }
        function.results.iter().map(|v| values[v.index()].clone()).collect()
    }

    fn weight(&self, index: u32) -> Arc<Slots> {
        let data = &self.module.context.data;
        match data.weights[index as usize] {
            Recipe::Dft { .. } => {
                let mut transforms = self.transforms.lock().unwrap_or_else(PoisonError::into_inner);
                transforms.entry(index).or_insert_with(|| Arc::new(data.slots(index))).clone()
            }
            _ => Arc::new(data.slots(index)),
        }
    }

    fn step(&self, op: &Op, values: &[Value]) -> Value {
        let ct = |v: &ValueId| cipher(&values[v.index()]).clone();
        let pt = |v: &ValueId| plain(&values[v.index()]).clone();
        let map = |a: &ValueId, f: &dyn Fn(Complex64) -> Complex64| {
            Value::Cipher(Arc::new(ct(a).iter().map(|&x| f(x)).collect()))
        };
        match op {
            Op::Add { a, b } => pairwise(&ct(a), &ct(b), |x, y| x + y),
            Op::Sub { a, b } => pairwise(&ct(a), &ct(b), |x, y| x - y),
            Op::Mul { a, b } => pairwise(&ct(a), &ct(b), |x, y| x * y),
            Op::Neg { a } => map(a, &|x| -x),
            Op::AddPlain { a, p } => pairwise(&ct(a), &pt(p), |x, y| x + y),
            Op::MulPlain { a, p } => pairwise(&ct(a), &pt(p), |x, y| x * y),
            Op::AddConst { a, value } => map(a, &|x| x + value.0),
            Op::MulConst { a, value, .. } => map(a, &|x| x * value.0),
            Op::Rotate { a, by } => {
                let mut slots = ct(a).as_ref().clone();
                slots.rotate_left(by.rem_euclid(self.slots as i64) as usize);
                Value::Cipher(Arc::new(slots))
            }
            Op::Conjugate { a } => map(a, &|x| x.conj()),
            Op::Weight { index } => Value::Plain(self.weight(*index)),
            Op::RotatePlain { p, by } => {
                let mut slots = pt(p).as_ref().clone();
                let by = by.rem_euclid(slots.len() as i64) as usize;
                slots.rotate_left(by);
                Value::Plain(Arc::new(slots))
            }
            Op::LinearTransform { x, diagonals, offsets, .. } => {
                let x = ct(x);
                let mut sum = vec![Complex64::ZERO; self.slots];
                for (diagonal, offset) in diagonals.iter().zip(offsets) {
                    let diagonal = pt(diagonal);
                    let start = offset.rem_euclid(self.slots as i64) as usize;
                    let rotated = x[start..].iter().chain(&x[..start]);
                    for ((out, &x), &w) in sum.iter_mut().zip(rotated).zip(diagonal.iter().cycle()) {
                        *out += x * w;
                    }
                }
                Value::Cipher(Arc::new(sum))
            }
            Op::PolyEval { x, coefficients } => map(x, &|x| {
                // Clenshaw's recurrence.
                let (mut b1, mut b2) = (Complex64::ZERO, Complex64::ZERO);
                for c in coefficients.iter().skip(1).rev() {
                    (b1, b2) = (2.0 * x * b1 - b2 + c.0, b1);
                }
                x * b1 - b2 + coefficients[0].0
            }),
            Op::Encode { p, .. } => values[p.index()].clone(),
            Op::Rescale { a }
            | Op::Relinearize { a }
            | Op::Adjust { a, .. }
            | Op::DropLevel { a, .. }
            | Op::Lower { a, .. } => values[a.index()].clone(),
            Op::ModRaise { a } => {
                let params = &self.module.context.params;
                let factor = params.scale(Level(0)).0 / params.log_q(Level(0)).exp2();
                map(a, &|x| x * factor)
            }
            Op::Reinterpret { a, factor } => map(a, &|x| x * factor.0),
            Op::Call { .. } | Op::Bootstrap { .. } => unreachable!("handled by the caller"),
        }
    }
}

/// The ciphertexts among values.
fn ciphers(values: &[Value]) -> Vec<Arc<Slots>> {
    let cipher = |value: &Value| match value {
        Value::Cipher(slots) => Some(slots.clone()),
        Value::Plain(_) => None,
    };
    values.iter().filter_map(cipher).collect()
}

/// Slot by slot; `b` repeats. Programs with many weights spend their time here.
fn pairwise(a: &[Complex64], b: &[Complex64], f: impl Fn(Complex64, Complex64) -> Complex64) -> Value {
    let mut slots = Slots::with_capacity(a.len());
    a.chunks(b.len()).for_each(|period| slots.extend(period.iter().zip(b).map(|(&x, &y)| f(x, y))));
    Value::Cipher(Arc::new(slots))
}

fn cipher(value: &Value) -> &Arc<Slots> {
    match value {
        Value::Cipher(slots) => slots,
        Value::Plain(_) => panic!("verified operations get ciphertexts where they take them"),
    }
}

fn plain(value: &Value) -> &Arc<Slots> {
    match value {
        Value::Plain(slots) => slots,
        Value::Cipher(_) => panic!("verified operations get plaintexts where they take them"),
    }
}
