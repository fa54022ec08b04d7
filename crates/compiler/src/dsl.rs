//! The language in which programs over encrypted data are written.
//!
//! Values are ciphertexts ([`Ct`]) with operators; weights ([`Weight`]) are plaintexts: tensors by a slot table, or
//! constants. Levels, scales, rescales and relinearizations are placed by the compiler. A program is on slots: vectors of
//! `params.slots()` numbers; rotations are cyclic over all of them.
//!
//! ```
//! use cerium_ckks::params::Params;
//! use cerium_compiler::dsl::{Packing, Program};
//!
//! let params = Params::named_insecure("insecure-test").unwrap();
//! let p = Program::new("squares", &params);
//! let x = p.input("x", Packing::dense(8));
//! let y = &x * &x + x.rotate(1) * 0.5;
//! p.output("y", Packing::dense(8), &y);
//! let source = p.finish();
//! assert_eq!(source.inputs.len(), 1);
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops;
use std::rc::Rc;
use std::sync::Arc;

use cerium_artifact::{GatherId, MatrixBlock, NO_ELEMENT, Recipe, StageId, Tensor, TensorId};
use cerium_ckks::basis::Level;
use cerium_ckks::encoding::dft::DftFactor;
use cerium_ckks::params::Params;
use num_complex::Complex64;

use crate::ciphertext::{BootstrapKind, Builder, Context, Data, Module, Op, Slots, Steps, Type};
use crate::ir::{IrError, Number, Symbol, ValueId};

/// A program as written: an unplaced module of the ciphertext level with its ports.
#[derive(Clone, Debug)]
pub struct SourceProgram {
    /// Name of the program.
    pub name: String,
    /// The functions; the entry's parameters are the inputs, its results the outputs.
    pub module: Module,
    /// Inputs in order of the entry's parameters.
    pub inputs: Vec<SourcePort>,
    /// Outputs in order of the entry's results.
    pub outputs: Vec<SourcePort>,
}

impl SourceProgram {
    /// A program in text form, for example one with levels placed by hand; every input and output is a vector over all
    /// slots, named `in0`, `in1`, .. and `out0`, `out1`, ..
    pub fn from_text(name: &str, params: &Params, text: &str) -> Result<SourceProgram, IrError> {
        let context = Context { params: params.clone(), data: Arc::default() };
        let module = crate::ir::text::read(text, context)?;
        let Some(entry) = module.functions.last() else {
            return Err(IrError { line: 1, message: "the program has no function".into() });
        };
        let port = |kind: &str, i: usize| SourcePort {
            name: format!("{kind}{i}"),
            packings: vec![Packing::dense(params.slots())],
        };
        let inputs = (0..entry.params as usize).map(|i| port("in", i)).collect();
        let outputs = (0..entry.results.len()).map(|i| port("out", i)).collect();
        Ok(SourceProgram { name: name.into(), module, inputs, outputs })
    }
}

/// An input or output of a program: a tensor, or a batch of them, packed in ciphertexts.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePort {
    /// Name of the tensor.
    pub name: String,
    /// Where its elements are, for each of its ciphertexts; at least one, and all of one shape.
    pub packings: Vec<Packing>,
}

impl SourcePort {
    fn new(name: &str, packings: Vec<Packing>, slots: usize) -> SourcePort {
        packings.iter().for_each(|packing| check_period(packing.gather.len(), slots));
        let first = packings.first().expect("a port has at least one ciphertext");
        assert!(
            packings.iter().all(|packing| (&packing.shape, packing.batch) == (&first.shape, first.batch)),
            "the parts of {name} are of one tensor"
        );
        assert!(first.batch > 0, "{name} has no tensor");
        SourcePort { name: name.into(), packings }
    }
}

/// How a tensor, or each of a batch of tensors, lies in the slots of one of its ciphertexts:
/// `slot[i] = factor * elements[gather[i % period]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Packing {
    /// Shape of a tensor.
    pub shape: Vec<u32>,
    /// Number of tensors of this shape; at least 1. Their elements are counted through, tensor by tensor.
    pub batch: u32,
    /// Element of each slot over one period (a power of two), or [`NO_ELEMENT`].
    pub gather: Vec<u32>,
    /// For an input, the factor from elements to slots; for an output, from slots to elements.
    pub factor: f64,
    /// Largest absolute value of a slot; the static noise estimate relies on it.
    pub bound: f64,
}

impl Packing {
    /// A vector of `len` elements in the first slots, zeros behind it, with a period of the next power of two.
    pub fn dense(len: usize) -> Packing {
        let period = len.next_power_of_two();
        let gather = (0..period).map(|i| if i < len { i as u32 } else { NO_ELEMENT }).collect();
        Packing { shape: vec![len as u32], batch: 1, gather, factor: 1.0, bound: 1.0 }
    }

    /// All `slots` of a ciphertext that holds these tensors; where there are fewer than the batch, they are repeated in turn.
    ///
    /// # Panics
    /// If there is none, or one is shorter than the shape says.
    pub fn slots(&self, tensors: &[&[f32]], slots: usize) -> Slots {
        let elements: usize = self.shape.iter().map(|&extent| extent as usize).product();
        let slot = |&element: &u32| match element as usize {
            _ if element == NO_ELEMENT => Complex64::ZERO,
            element => {
                let tensor = tensors[element / elements % tensors.len()];
                (self.factor * f64::from(tensor[element % elements])).into()
            }
        };
        self.gather.iter().cycle().take(slots).map(slot).collect()
    }
}

/// A program under construction.
#[derive(Debug)]
pub struct Program {
    scope: Scope,
    name: String,
    inputs: RefCell<Vec<SourcePort>>,
    outputs: RefCell<Vec<(SourcePort, Vec<ValueId>)>>,
}

/// What all scopes of a program share.
#[derive(Debug)]
struct Shared {
    module: Module,
    gathers: HashMap<Vec<u32>, GatherId>,
}

/// The body of the program or of one of its functions.
#[derive(Clone, Debug)]
pub struct Scope {
    shared: Rc<RefCell<Shared>>,
    builder: Rc<RefCell<Builder>>,
}

/// A ciphertext value. Operators work on references and values, with ciphertexts, weights and numbers.
#[derive(Clone, Debug)]
pub struct Ct {
    scope: Scope,
    value: ValueId,
}

/// A plaintext value: a weight of the program, or a weight parameter of a function.
#[derive(Clone, Debug)]
pub struct Weight {
    source: WeightSource,
}

#[derive(Clone, Debug)]
enum WeightSource {
    /// Index among the program's weights.
    Program(u32),
    /// A value of the function whose scope this is: a parameter, or one that was rotated.
    Value(Scope, ValueId),
}

/// A function of a program: compiled once for each level at which it is called, called any number of times with
/// other ciphertexts and other weights.
#[derive(Clone, Debug)]
pub struct Func {
    name: Symbol,
}

impl Func {
    pub(crate) fn name(&self) -> &Symbol {
        &self.name
    }
}

/// A tensor of raw weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRef(TensorId);

impl Program {
    /// An empty program for a parameter set.
    pub fn new(name: &str, params: &Params) -> Program {
        let context = Context { params: params.clone(), data: Arc::new(Data::default()) };
        let module = Module::new(context, vec!["main".into()]);
        let shared = Rc::new(RefCell::new(Shared { module, gathers: HashMap::new() }));
        let builder = Rc::new(RefCell::new(Builder::new(Symbol("main".into()), Vec::new())));
        let scope = Scope { shared, builder };
        Program { scope, name: name.into(), inputs: RefCell::default(), outputs: RefCell::default() }
    }

    /// Declares an encrypted input: a tensor, whose slots are real. (The placement of bootstraps relies on that.)
    ///
    /// # Panics
    /// If an operation was added before, or the packing's period is not a power of two within the slots.
    pub fn input(&self, name: &str, packing: Packing) -> Ct {
        self.input_parts(name, vec![packing]).remove(0)
    }

    /// As [`Program::input`], for a tensor that lies in several ciphertexts.
    ///
    /// # Panics
    /// As [`Program::input`], and if there is no packing or they are of several shapes.
    pub fn input_parts(&self, name: &str, packings: Vec<Packing>) -> Vec<Ct> {
        let port = SourcePort::new(name, packings, self.slots());
        let mut inputs = self.inputs.borrow_mut();
        let count = |ports: &[SourcePort]| ports.iter().map(|port| port.packings.len()).sum::<usize>();
        let first = count(&inputs);
        inputs.push(port);
        let mut builder = self.scope.builder.borrow_mut();
        assert!(builder.nodes().is_empty(), "inputs are declared before the first operation");
        let last = count(&inputs);
        *builder = Builder::new(Symbol("main".into()), vec![Type::Cipher(None); last]);
        (first..last).map(|i| Ct { scope: self.scope.clone(), value: ValueId(i as u32) }).collect()
    }

    /// Declares an output.
    ///
    /// # Panics
    /// If the packing's period is not a power of two within the slots.
    pub fn output(&self, name: &str, packing: Packing, value: &Ct) {
        self.output_parts(name, vec![packing], std::slice::from_ref(value));
    }

    /// As [`Program::output`], for a tensor that lies in several ciphertexts.
    ///
    /// # Panics
    /// As [`Program::output`], and if there are not as many packings as values, none, or some of several shapes.
    pub fn output_parts(&self, name: &str, packings: Vec<Packing>, values: &[Ct]) {
        assert_eq!(packings.len(), values.len(), "one packing for each ciphertext of {name}");
        let port = SourcePort::new(name, packings, self.slots());
        self.outputs.borrow_mut().push((port, values.iter().map(|ct| ct.value).collect()));
    }

    fn slots(&self) -> usize {
        self.scope.shared.borrow().module.context.params.slots()
    }

    /// Operations added from now on belong to the stage `name`, in reports and measurements.
    pub fn stage(&self, name: &str) {
        self.scope.stage(name);
    }

    /// Adds raw weights, which are kept in 16 bits each if that is exact. Values must be finite.
    pub fn tensor(&self, name: &str, values: Vec<f32>) -> TensorRef {
        assert!(values.iter().all(|v| v.is_finite()), "tensor {name} has a value that is not finite");
        self.scope.with_data(|data, _| {
            data.tensors.push(Tensor { name: name.into(), values: values.into() });
            TensorRef(TensorId(data.tensors.len() as u32 - 1))
        })
    }

    /// A weight: `slot[i] = factor * tensor[gather[i % gather.len()]]`, zero for [`NO_ELEMENT`].
    ///
    /// # Panics
    /// If the period `gather.len()` is not a power of two within the slots or an index is outside the tensor.
    pub fn weight(&self, tensor: TensorRef, gather: &[u32], factor: f64) -> Weight {
        check_period(gather.len(), self.slots());
        assert!(factor.is_finite(), "the factor of a weight is not finite");
        self.scope.with_data(|data, gathers| {
            let len = data.tensors[tensor.0.0 as usize].values.len();
            assert!(
                gather.iter().all(|&e| e == NO_ELEMENT || (e as usize) < len),
                "a slot table reaches outside its tensor of {len} values"
            );
            let gather = *gathers.entry(gather.to_vec()).or_insert_with(|| {
                data.gathers.push(gather.to_vec());
                GatherId(data.gathers.len() as u32 - 1)
            });
            data.weights.push(Recipe::Gather { tensor: tensor.0, gather, factor });
            Weight { source: WeightSource::Program(data.weights.len() as u32 - 1) }
        })
    }

    /// A weight that is a diagonal of a rectangle of a matrix: see [`Recipe::Diagonal`].
    ///
    /// # Panics
    /// If the rectangle is empty, larger than its period or outside the tensor, the period is larger than the slots, or there
    /// is no such diagonal.
    pub fn diagonal(&self, tensor: TensorRef, block: MatrixBlock, offset: u32, factor: f64) -> Weight {
        check_period(1 << block.log_period, self.slots());
        assert!(factor.is_finite(), "the factor of a weight is not finite");
        assert!(offset < block.period(), "there is no diagonal {offset} of period {}", block.period());
        let extents = block.extents.iter();
        assert!(
            extents.copied().all(|extent| (1..=block.period()).contains(&extent)),
            "a block of {:?} is empty or larger than its period",
            block.extents
        );
        self.scope.with_data(|data, _| {
            let len = data.tensors[tensor.0.0 as usize].values.len();
            assert!(block.last() < len as u64, "a block reaches outside its tensor of {len} values");
            data.weights.push(Recipe::Diagonal { tensor: tensor.0, block, offset, factor });
            Weight { source: WeightSource::Program(data.weights.len() as u32 - 1) }
        })
    }

    /// See [`Scope::constant`].
    pub fn constant(&self, value: Complex64) -> Weight {
        self.scope.constant(value)
    }

    /// See [`Scope::dft_diagonal`].
    pub fn dft_diagonal(&self, factor: DftFactor, offset: i64, scale: f64) -> Weight {
        self.scope.dft_diagonal(factor, offset, scale)
    }

    /// Defines a function of `ciphertexts` ciphertexts and of weights with these periods.
    pub fn function(
        &self,
        name: &str,
        ciphertexts: usize,
        weight_periods: &[usize],
        body: impl FnOnce(&Scope, &[Ct], &[Weight]) -> Vec<Ct>,
    ) -> Func {
        let slots = self.scope.shared.borrow().module.context.params.slots();
        let mut params = vec![Type::Cipher(None); ciphertexts];
        for &period in weight_periods {
            check_period(period, slots);
            params.push(Type::Plain { log_period: period.trailing_zeros() });
        }
        let name = Symbol(name.into());
        let builder = Rc::new(RefCell::new(Builder::new(name.clone(), params)));
        builder.borrow_mut().stage = self.scope.builder.borrow().stage;
        let scope = Scope { shared: self.scope.shared.clone(), builder };
        let ids = |range: ops::Range<usize>| range.map(|i| ValueId(i as u32));
        let cts: Vec<Ct> = ids(0..ciphertexts).map(|value| Ct { scope: scope.clone(), value }).collect();
        let weights: Vec<Weight> = ids(ciphertexts..ciphertexts + weight_periods.len())
            .map(|value| Weight { source: WeightSource::Value(scope.clone(), value) })
            .collect();
        let results = body(&scope, &cts, &weights).iter().map(|ct| ct.value).collect();
        let empty = Builder::new(name.clone(), Vec::new());
        let function = scope.builder.replace(empty).finish(results);
        let mut shared = self.scope.shared.borrow_mut();
        assert!(shared.module.find(&name).is_none() && &*name.0 != "main", "two functions are called {name}");
        shared.module.functions.push(function);
        Func { name }
    }

    /// Calls a function.
    pub fn call(&self, function: &Func, ciphertexts: &[&Ct], weights: &[&Weight]) -> Vec<Ct> {
        self.scope.call(function, ciphertexts, weights)
    }

    /// A program for functions only, whose weights and stages continue those of an unplaced module.
    pub(crate) fn resume(module: &Module) -> Program {
        let program = Program::new("library", &module.context.params);
        let mut shared = program.scope.shared.borrow_mut();
        shared.module.context = module.context.clone();
        shared.module.stages.clone_from(&module.stages);
        drop(shared);
        program
    }

    /// The functions of a program that [`Program::resume`] began.
    pub(crate) fn suspend(self) -> Module {
        self.scope.shared.borrow().module.clone()
    }

    /// The finished program.
    pub fn finish(self) -> SourceProgram {
        let outputs = self.outputs.into_inner();
        let results = outputs.iter().flat_map(|(_, values)| values).copied().collect();
        let builder = self.scope.builder.replace(Builder::new(Symbol("main".into()), Vec::new()));
        let mut module = self.scope.shared.borrow().module.clone();
        module.functions.push(builder.finish(results));
        SourceProgram {
            name: self.name,
            module,
            inputs: self.inputs.into_inner(),
            outputs: outputs.into_iter().map(|(port, _)| port).collect(),
        }
    }
}

fn check_period(period: usize, slots: usize) {
    assert!(
        period.is_power_of_two() && period <= slots,
        "a period of {period} slots (of {slots}) is not possible"
    );
}

impl Scope {
    /// Operations added from now on belong to the stage `name`.
    pub fn stage(&self, name: &str) {
        let stages = &mut self.shared.borrow_mut().module.stages;
        let known = stages.iter().position(|s| s == name);
        let index = known.unwrap_or_else(|| {
            stages.push(name.into());
            stages.len() - 1
        });
        self.builder.borrow_mut().stage = StageId(index as u16);
    }

    /// Calls a function.
    ///
    /// # Panics
    /// If the arguments do not fit.
    pub fn call(&self, function: &Func, ciphertexts: &[&Ct], weights: &[&Weight]) -> Vec<Ct> {
        let mut args: Vec<ValueId> = ciphertexts.iter().map(|ct| ct.value).collect();
        args.extend(weights.iter().map(|w| self.plain(w)));
        let op = Op::Call { args, function: function.name.clone() };
        let results = self.builder.borrow_mut().try_push(&self.shared.borrow().module, op);
        let results = results.unwrap_or_else(|message| panic!("call of {}: {message}", function.name));
        results.map(|value| Ct { scope: self.clone(), value: ValueId(value) }).collect()
    }

    /// A weight that is `value` in every slot. A product with one whose parts are integers of at most 1024 is exact and
    /// takes no level.
    ///
    /// # Panics
    /// If the value is not finite.
    pub fn constant(&self, value: Complex64) -> Weight {
        assert!(value.is_finite(), "the constant {value} is not finite");
        self.recipe(Recipe::Constant { re: value.re, im: value.im })
    }

    /// `scale` times a diagonal of a factor of the encoder's transform. With all of them,
    /// [`Ct::linear_transform`] applies `scale` times the factor.
    ///
    /// # Panics
    /// If there is no such factor of at most all slots, it has no such diagonal, or the scale is not finite.
    pub fn dft_diagonal(&self, factor: DftFactor, offset: i64, scale: f64) -> Weight {
        let slots = self.shared.borrow().module.context.params.slots();
        assert!(
            factor.is_valid() && 1 << factor.log_slots <= slots,
            "{factor:?} is no factor for {slots} slots"
        );
        assert!(factor.has_offset(offset), "{factor:?} has no diagonal {offset}");
        assert!(scale.is_finite(), "the scale {scale} of a diagonal is not finite");
        self.recipe(Recipe::Dft { factor, offset, scale })
    }

    /// The weight of this recipe: the one that has it already, or a new one.
    fn recipe(&self, recipe: Recipe) -> Weight {
        self.with_data(|data, _| {
            let known = data.weights.iter().position(|other| *other == recipe);
            let index = known.unwrap_or_else(|| {
                data.weights.push(recipe);
                data.weights.len() - 1
            });
            Weight { source: WeightSource::Program(index as u32) }
        })
    }

    /// A weight whose slots are rotated to the left: `out[i] = weight[i + by]`, cyclic over its period.
    pub fn rotate_weight(&self, weight: &Weight, by: i64) -> Weight {
        let op = Op::RotatePlain { p: self.plain(weight), by };
        let value = self.builder.borrow_mut().push(&self.shared.borrow().module, op);
        Weight { source: WeightSource::Value(self.clone(), value) }
    }

    fn push(&self, op: Op) -> Ct {
        let value = self.builder.borrow_mut().push(&self.shared.borrow().module, op);
        Ct { scope: self.clone(), value }
    }

    fn plain(&self, weight: &Weight) -> ValueId {
        match &weight.source {
            WeightSource::Program(index) => {
                let op = Op::Weight { index: *index };
                self.builder.borrow_mut().push(&self.shared.borrow().module, op)
            }
            WeightSource::Value(scope, value) => {
                assert!(
                    Rc::ptr_eq(&scope.builder, &self.builder),
                    "a weight of a function is used in another one"
                );
                *value
            }
        }
    }

    fn log_slots(&self) -> u32 {
        self.shared.borrow().module.context.params.log_n() - 1
    }

    fn with_data<R>(&self, edit: impl FnOnce(&mut Data, &mut HashMap<Vec<u32>, GatherId>) -> R) -> R {
        let shared = &mut *self.shared.borrow_mut();
        edit(Arc::make_mut(&mut shared.module.context.data), &mut shared.gathers)
    }
}

impl Ct {
    /// Slots rotated to the left: `out[i] = self[i + by]`, cyclic over all slots.
    pub fn rotate(&self, by: i64) -> Ct {
        self.scope.push(Op::Rotate { a: self.value, by })
    }

    /// Complex conjugate of every slot.
    pub fn conjugate(&self) -> Ct {
        self.scope.push(Op::Conjugate { a: self.value })
    }

    /// `sum_k weights[k] * rotate(self, offsets[k])`: a matrix given by its generalized diagonals. The compiler
    /// splits it into baby and giant steps.
    pub fn linear_transform(&self, diagonals: &[(i64, Weight)]) -> Ct {
        self.linear_transform_in(Steps::Auto, diagonals)
    }

    /// As [`linear_transform`](Self::linear_transform), split as `steps` says.
    ///
    /// # Panics
    /// If the stride is not positive.
    pub fn linear_transform_in(&self, steps: Steps, diagonals: &[(i64, Weight)]) -> Ct {
        let offsets = diagonals.iter().map(|(offset, _)| *offset).collect();
        let diagonals = diagonals.iter().map(|(_, weight)| self.scope.plain(weight)).collect();
        self.scope.push(Op::LinearTransform { x: self.value, diagonals, offsets, steps })
    }

    /// The same at level `to`: pins by hand what the compiler otherwise chooses. The value must be at that level or above.
    pub fn lower(&self, to: Level) -> Ct {
        self.scope.push(Op::Lower { a: self.value, to })
    }

    /// Refreshed by a bootstrap at this place, whatever the compiler would choose: the same value at the level from which
    /// a bootstrapping parameter set computes. Real and imaginary parts of the slots must be within `[-bound, bound]`.
    pub fn bootstrap(&self, kind: BootstrapKind, bound: f64) -> Ct {
        self.bootstrap_sparse(kind, self.scope.log_slots(), bound)
    }

    /// As [`Ct::bootstrap`], for slots that repeat with period `2^log_slots`: fewer slots are refreshed in less time.
    pub fn bootstrap_sparse(&self, kind: BootstrapKind, log_slots: u32, bound: f64) -> Ct {
        let op = Op::Bootstrap { xs: vec![self.value], kind, log_slots, bound: Number(bound) };
        self.scope.push(op)
    }

    /// Refreshed twice: the error of a first bootstrap, at most `2^-bits` of the bound, is enlarged to the bound, refreshed as
    /// well, and taken off, which leaves the error of the second one times `2^-bits` (Bae, Cheon, Cho, Kim and Kim, META-BTS:
    /// Bootstrapping Precision Beyond the Limit, CCS 2022). The result is one level below that of a bootstrap; rounding at
    /// the scale of the parameter set bounds what can be gained.
    ///
    /// # Panics
    /// If the parameter set has no levels for bootstrapping.
    pub fn bootstrap_iterated(&self, kind: BootstrapKind, bound: f64, bits: u32) -> Ct {
        let levels = self.scope.shared.borrow().module.context.params.bootstrap();
        let input = levels.expect("a parameter set with levels for bootstrapping").input;
        let first = self.bootstrap(kind, bound);
        let error = self.lower(input) - first.lower(input);
        // Products with integers up to 2^10 are exact and take no level.
        let steps = (0..bits.div_ceil(10)).map(|i| f64::from(1u32 << (bits - 10 * i).min(10)));
        let enlarged = steps.fold(error, |error, step| error * step);
        first + enlarged.bootstrap(kind, bound) * (-f64::from(bits)).exp2()
    }

    /// Two real values refreshed by one bootstrap.
    pub fn bootstrap_pair(&self, other: &Ct, bound: f64) -> (Ct, Ct) {
        self.same_scope(other);
        let xs = vec![self.value, other.value];
        let log_slots = self.scope.log_slots();
        let op = Op::Bootstrap { xs, kind: BootstrapKind::Real, log_slots, bound: Number(bound) };
        let results = self.scope.builder.borrow_mut().try_push(&self.scope.shared.borrow().module, op);
        let mut results = results.unwrap_or_else(|message| panic!("bootstrap of two values: {message}"));
        let mut next = || {
            let value = ValueId(results.next().expect("as many results as operands"));
            Ct { scope: self.scope.clone(), value }
        };
        (next(), next())
    }

    /// From level 0 to the top: see [`Op::ModRaise`].
    pub fn mod_raise(&self) -> Ct {
        self.scope.push(Op::ModRaise { a: self.value })
    }

    /// The value times `factor` (positive), at no cost: its scale is divided by the factor.
    pub fn reinterpret(&self, factor: f64) -> Ct {
        self.scope.push(Op::Reinterpret { a: self.value, factor: Number(factor) })
    }

    /// The Chebyshev series `sum_k coefficients[k] * T_k(self)`; slots must be in [-1, 1].
    pub fn poly_eval(&self, coefficients: &[f64]) -> Ct {
        let coefficients = coefficients.iter().map(|&c| Number(c)).collect();
        self.scope.push(Op::PolyEval { x: self.value, coefficients })
    }

    /// Slotwise sum with a weight.
    pub fn add_weight(&self, weight: &Weight) -> Ct {
        let p = self.scope.plain(weight);
        self.scope.push(Op::AddPlain { a: self.value, p })
    }

    /// Slotwise product with a weight.
    pub fn mul_weight(&self, weight: &Weight) -> Ct {
        let p = self.scope.plain(weight);
        self.scope.push(Op::MulPlain { a: self.value, p })
    }

    /// `i * self` in every slot: exact, and takes no level.
    pub fn mul_i(&self) -> Ct {
        self.mul_weight(&self.scope.constant(Complex64::I))
    }

    fn same_scope(&self, other: &Ct) {
        assert!(
            Rc::ptr_eq(&self.scope.builder, &other.scope.builder),
            "two values of different functions meet"
        );
    }
}

impl ops::Neg for &Ct {
    type Output = Ct;
    fn neg(self) -> Ct {
        self.scope.push(Op::Neg { a: self.value })
    }
}

/// Binary operators for every combination of values and references.
macro_rules! operator {
    ($Trait:ident $method:ident, $Rhs:ty, |$a:ident, $b:ident| $body:expr) => {
        impl ops::$Trait<&$Rhs> for &Ct {
            type Output = Ct;
            fn $method(self, rhs: &$Rhs) -> Ct {
                let ($a, $b) = (self, rhs);
                $body
            }
        }
        impl ops::$Trait<$Rhs> for &Ct {
            type Output = Ct;
            fn $method(self, rhs: $Rhs) -> Ct {
                ops::$Trait::$method(self, &rhs)
            }
        }
        impl ops::$Trait<&$Rhs> for Ct {
            type Output = Ct;
            fn $method(self, rhs: &$Rhs) -> Ct {
                ops::$Trait::$method(&self, rhs)
            }
        }
        impl ops::$Trait<$Rhs> for Ct {
            type Output = Ct;
            fn $method(self, rhs: $Rhs) -> Ct {
                ops::$Trait::$method(&self, &rhs)
            }
        }
    };
}

operator!(Add add, Ct, |a, b| {
    a.same_scope(b);
    a.scope.push(Op::Add { a: a.value, b: b.value })
});
operator!(Sub sub, Ct, |a, b| {
    a.same_scope(b);
    a.scope.push(Op::Sub { a: a.value, b: b.value })
});
operator!(Mul mul, Ct, |a, b| {
    a.same_scope(b);
    a.scope.push(Op::Mul { a: a.value, b: b.value })
});
operator!(Add add, f64, |a, c| a.scope.push(Op::AddConst { a: a.value, value: Number(*c) }));
operator!(Sub sub, f64, |a, c| a.scope.push(Op::AddConst { a: a.value, value: Number(-*c) }));
operator!(Mul mul, f64, |a, c| a.scope.push(Op::MulConst { a: a.value, value: Number(*c), scale: None }));
operator!(Add add, Weight, |a, w| a.add_weight(w));
operator!(Mul mul, Weight, |a, w| a.mul_weight(w));
