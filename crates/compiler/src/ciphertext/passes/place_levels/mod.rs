//! Places levels, scales, rescales, relinearizations and encodings.
//!
//! ```text
//! %1 = mul(%0, %0) : ct             %1 = mul(%0, %0)       : ct<L2 s^2 3>
//! %2 = mul_const(%0) {value=0.5}    %2 = mul_const(%0) ..  : ct<L2 s^2 2>
//! %3 = add(%1, %2) : ct         ->  %3 = add(%1, %2)       : ct<L2 s^2 3>
//! return %3                         %4 = relinearize(%3)   : ct<L2 s^2 2>
//!                                   %5 = rescale(%4)       : ct<L1 s' 2>
//!                                   return %5
//! ```
//!
//! The rule (a waterline with canonical scales): a ciphertext at level l is either *settled*, at the canonical scale of
//! l, or *pending*, at the square of it, with a rescale to come. Products are pending; sums of pending values stay
//! pending, so that a sum of products is rescaled once and relinearized once. Multiplication settles its operands and
//! brings them to the lower of their levels. A sum is not made until somebody other than a sum needs it, so that all its
//! products are made at its lowest level (see `sums`): a polynomial `q T_m + q' T_k + r` is relinearized and rescaled once, and
//! a change of level and a product with a constant share one multiplication. A constant whose parts are small integers, such
//! as i, multiplies exactly at scale 1 and takes no level.
//!
//! Inputs start at the lowest level from which every output is reached. A function is placed once for each combination
//! of argument types with which it is called.

mod sums;

use std::collections::{HashMap, HashSet};

use cerium_artifact::Recipe;
use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::params::Params;

use super::super::{Builder, Function, Module, Op, Placement, Type};
use crate::ir::{Number, Symbol, ValueId};
use sums::Placed;

/// Why a program cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The program is deeper than the parameter set.
    #[error(
        "the program needs more than the {available} levels of parameter set {params} (it runs out of levels in stage \
         `{stage}`); choose a set with more levels (`cerium params` lists them), or lower the degree of the activations"
    )]
    TooDeep {
        /// Name of the parameter set.
        params: String,
        /// Its number of levels.
        available: u8,
        /// Where the levels ran out.
        stage: String,
    },
}

/// Constants whose parts are integers of at most this size multiply without using a scale.
const SMALL_INTEGER: f64 = 1024.0;

/// Runs the pass: replaces the unplaced functions of `module` by placed ones.
pub fn place_levels(module: &mut Module) -> Result<(), PlaceError> {
    let top = module.context.params.program_level();
    let raises = |f: &Function| f.nodes.iter().any(|node| matches!(node.op, Op::ModRaise { .. }));
    if module.functions.iter().any(raises) {
        // Bootstraps end at a fixed level, so that a program with some does not shift with its inputs.
        let mut placed = place_from(module, Level(0));
        for start in 1..=top.0 {
            if placed.is_ok() {
                break;
            }
            placed = place_from(module, Level(start));
        }
        *module = placed?.0;
        return Ok(());
    }
    let unused = place_from(module, top)?.1;
    let (placed, _) = place_from(module, Level(top.0 - unused.0))?;
    *module = placed;
    Ok(())
}

/// Places the program with inputs at level `start`; also the lowest level among its outputs.
fn place_from(module: &Module, start: Level) -> Result<(Module, Level), PlaceError> {
    let out = Module::new(module.context.clone(), module.stages.clone());
    let mut placer = Placer { source: module, out, instances: HashMap::new() };
    let scale = module.context.params.scale(start);
    let input = Type::Cipher(Some(Placement { level: start, scale, size: 2 }));
    let entry = module.entry();
    placer.function(&entry.name, vec![input; entry.params as usize])?;
    let levels = placer.out.entry().result_types();
    let lowest = levels.iter().filter_map(Type::placement).map(|p| p.level).min().unwrap_or(start);
    Ok((placer.out, lowest))
}

struct Placer<'a> {
    source: &'a Module,
    out: Module,
    /// Placed functions by source function and argument types (in text form).
    instances: HashMap<(Symbol, String), Symbol>,
}

impl Placer<'_> {
    /// The placed instance of `name` for these argument types.
    fn function(&mut self, name: &Symbol, args: Vec<Type>) -> Result<Symbol, PlaceError> {
        let signature: String = args.iter().map(|ty| format!("{ty};")).collect();
        let key = (name.clone(), signature);
        if let Some(known) = self.instances.get(&key) {
            return Ok(known.clone());
        }
        let (_, source) = self.source.find(name).expect("verified modules call defined functions");
        let copies = self.instances.keys().filter(|(n, _)| n == name).count();
        let placed_name =
            if copies == 0 { name.clone() } else { Symbol(format!("{}.{copies}", name.0).into()) };
        let body = Body {
            builder: Builder::new(placed_name.clone(), args),
            values: Vec::new(),
            uses: source.use_counts(),
            relinearized: HashMap::new(),
            exact: HashSet::new(),
            placer: self,
        };
        let function = body.place(source)?;
        self.out.functions.push(function);
        self.instances.insert(key, placed_name.clone());
        Ok(placed_name)
    }
}

struct Body<'a, 'b> {
    builder: Builder,
    values: Vec<Placed>,
    /// How often each value of the source function is used.
    uses: Vec<u32>,
    /// The relinearized form of values that have one; later uses take it, whatever they need.
    relinearized: HashMap<ValueId, ValueId>,
    /// Plaintexts that are the same small integers in every slot.
    exact: HashSet<ValueId>,
    placer: &'a mut Placer<'b>,
}

impl Body<'_, '_> {
    fn place(mut self, source: &Function) -> Result<Function, PlaceError> {
        self.values.extend(source.params().map(Placed::Value));
        for node in &source.nodes {
            self.builder.stage = node.stage;
            let placed = self.operation(&node.op)?;
            assert_eq!(placed.len(), node.results.len(), "one placed value for each result");
            for (value, placed) in node.results.clone().zip(placed) {
                // What several need is made once; a product with a constant is cheap enough to make for each.
                let placed = match placed {
                    Placed::Sum(sum) if self.uses[value as usize] > 1 && sum.as_scaled().is_none() => {
                        Placed::Value(self.make(sum)?)
                    }
                    placed => placed,
                };
                self.values.push(placed);
            }
        }
        let results: Vec<ValueId> = source
            .results
            .iter()
            .map(|&v| match self.source_is_cipher(source, v) {
                true => self.ready(v),
                false => Ok(self.plain(v)),
            })
            .collect::<Result<_, _>>()?;
        Ok(self.builder.finish(results))
    }

    fn source_is_cipher(&self, source: &Function, v: ValueId) -> bool {
        matches!(source.type_of(v), Type::Cipher(_))
    }

    fn operation(&mut self, op: &Op) -> Result<Vec<Placed>, PlaceError> {
        let value = match op {
            Op::Add { a, b } => return Ok(vec![self.sum(*a, *b, 1.0)]),
            Op::Sub { a, b } => return Ok(vec![self.sum(*a, *b, -1.0)]),
            Op::Neg { a } => match self.value(*a) {
                Placed::Sum(sum) => return Ok(vec![Placed::Sum(sum.times(-1.0))]),
                Placed::Value(a) => self.push(Op::Neg { a }),
            },
            Op::Mul { a, b } => {
                let (a, b) = (self.ready(*a)?, self.ready(*b)?);
                let level = self.level(a).min(self.level(b));
                self.above_zero(level)?;
                if self.is_canonical(a) && self.is_canonical(b) {
                    return Ok(vec![Placed::product(a, b, self.builder.stage)]);
                }
                let (a, b) = (self.lower(a, level), self.lower(b, level));
                self.push(Op::Mul { a, b })
            }
            Op::AddPlain { a, p } => {
                let a = self.made(*a)?;
                let at = self.placement(a);
                let p = self.plain(*p);
                let p = self.push(Op::Encode { p, level: at.level, scale: Number(at.scale.0) });
                self.push(Op::AddPlain { a, p })
            }
            Op::MulPlain { a, p } if self.exact.contains(&self.plain(*p)) => {
                let a = self.value(*a);
                if let Placed::Sum(sum) = &a
                    && let Some((base, factor)) = sum.as_scaled()
                {
                    let base = self.mul_exact(base, *p);
                    return Ok(vec![Placed::scaled(base, factor, self.builder.stage)]);
                }
                let a = self.make_placed(a)?;
                self.mul_exact(a, *p)
            }
            Op::MulPlain { a, p } => {
                let a = self.settled(*a)?;
                let at = self.placement(a);
                self.above_zero(at.level)?;
                let scale = self.pending_scale(at.level).0 / at.scale.0;
                let p = self.plain(*p);
                let p = self.push(Op::Encode { p, level: at.level, scale: Number(scale) });
                self.push(Op::MulPlain { a, p })
            }
            Op::AddConst { a, value } => match self.value(*a) {
                Placed::Sum(sum) => return Ok(vec![Placed::Sum(sum.plus_constant(value.0))]),
                Placed::Value(a) => self.push(Op::AddConst { a, value: *value }),
            },
            Op::MulConst { a, value, .. } => match self.value(*a) {
                Placed::Sum(sum) if sum.takes(value.0) || sum.as_scaled().is_some() => {
                    return Ok(vec![Placed::Sum(sum.times(value.0))]);
                }
                Placed::Value(a) if is_small_integer(value.0) => {
                    self.push(Op::MulConst { a, value: *value, scale: Some(Number(1.0)) })
                }
                placed => {
                    let a = self.make_placed(placed)?;
                    return Ok(vec![Placed::scaled(self.settle(a)?, value.0, self.builder.stage)]);
                }
            },
            Op::Rotate { a, by } => {
                if let Placed::Sum(sum) = &self.values[a.index()]
                    && let Some((base, factor)) = sum.as_scaled()
                {
                    let a = self.relinearized(base);
                    let base = self.push(Op::Rotate { a, by: *by });
                    return Ok(vec![Placed::scaled(base, factor, self.builder.stage)]);
                }
                let a = self.to_rotate(*a)?;
                self.push(Op::Rotate { a, by: *by })
            }
            Op::Conjugate { a } => {
                let a = self.to_rotate(*a)?;
                self.push(Op::Conjugate { a })
            }
            Op::Weight { index } => {
                let recipe = self.placer.source.context.data.weights[*index as usize];
                let weight = self.push(Op::Weight { index: *index });
                if let Recipe::Constant { re, im } = recipe
                    && is_small_integer(re)
                    && is_small_integer(im)
                {
                    self.exact.insert(weight);
                }
                weight
            }
            Op::RotatePlain { p, by } => match self.plain(*p) {
                constant if self.exact.contains(&constant) => constant,
                p => self.push(Op::RotatePlain { p, by: *by }),
            },
            Op::Call { args, function } => return self.call(args, function),
            Op::Lower { a, to } => {
                let value = self.value(*a);
                // A constant is multiplied in one level above, where there is one.
                if let Placed::Sum(sum) = &value
                    && let Some((base, factor)) = sum.as_scaled()
                    && self.level(base) > *to
                {
                    let pending = self.scaled(base, factor, Level(to.0 + 1))?;
                    self.settle(pending)?
                } else {
                    let a = self.make_placed(value)?;
                    let a = self.ready_value(a)?;
                    if self.level(a) < *to {
                        return Err(self.too_deep());
                    }
                    self.lower(a, *to)
                }
            }
            Op::ModRaise { a } => {
                let a = self.ready(*a)?;
                self.push(Op::ModRaise { a })
            }
            Op::Reinterpret { a, factor } => {
                let a = self.ready(*a)?;
                self.push(Op::Reinterpret { a, factor: *factor })
            }
            Op::LinearTransform { .. } | Op::PolyEval { .. } | Op::Bootstrap { .. } => {
                unreachable!("expanded before levels are placed")
            }
            Op::Encode { .. } | Op::Rescale { .. } | Op::Relinearize { .. } | Op::Adjust { .. } => {
                unreachable!("placed operations do not occur in an unplaced program")
            }
        };
        Ok(vec![Placed::Value(value)])
    }

    fn call(&mut self, args: &[ValueId], function: &Symbol) -> Result<Vec<Placed>, PlaceError> {
        let (_, callee) = self.placer.source.find(function).expect("verified modules call defined functions");
        let types = callee.param_types();
        let args: Vec<ValueId> = args
            .iter()
            .zip(types)
            .map(|(&v, ty)| if matches!(ty, Type::Cipher(_)) { self.ready(v) } else { Ok(self.plain(v)) })
            .collect::<Result<_, _>>()?;
        let types = args.iter().map(|&v| *self.builder.type_of(v)).collect();
        let instance = self.placer.function(function, types)?;
        let op = Op::Call { args, function: instance };
        let results = self.builder.try_push(&self.placer.out, op);
        let results = results.unwrap_or_else(|message| panic!("placed call: {message}"));
        Ok(results.map(|v| Placed::Value(ValueId(v))).collect())
    }

    /// `a + sign * b`, made at once if both are there at one level and one scale.
    fn sum(&mut self, a: ValueId, b: ValueId, sign: f64) -> Placed {
        match (self.value(a), self.value(b)) {
            (Placed::Value(a), Placed::Value(b)) if self.are_aligned(a, b) => {
                Placed::Value(self.push(if sign < 0.0 { Op::Sub { a, b } } else { Op::Add { a, b } }))
            }
            (a, b) => {
                let stage = self.builder.stage;
                Placed::Sum(a.into_sum(stage).plus(b.into_sum(stage), sign))
            }
        }
    }

    /// Whether two ciphertexts are at one level and one scale.
    fn are_aligned(&self, a: ValueId, b: ValueId) -> bool {
        let (a, b) = (self.placement(a), self.placement(b));
        a.level == b.level && a.scale.matches(b.scale)
    }

    /// `factor * base` at `level`, pending.
    fn scaled(&mut self, base: ValueId, factor: f64, level: Level) -> Result<ValueId, PlaceError> {
        self.above_zero(level)?;
        let a = self.lower(base, level);
        let scale = Number(self.pending_scale(level).0 / self.placement(a).scale.0);
        Ok(self.push(Op::MulConst { a, value: Number(factor), scale: Some(scale) }))
    }

    /// The product with a constant of small integers: exact at scale 1, whatever the scale of `a`.
    fn mul_exact(&mut self, a: ValueId, p: ValueId) -> ValueId {
        let (p, level) = (self.plain(p), self.level(a));
        let p = self.push(Op::Encode { p, level, scale: Number(1.0) });
        self.push(Op::MulPlain { a, p })
    }

    /// What stands for a value of the source function, relinearized if that has been done. The last use takes it.
    fn value(&mut self, v: ValueId) -> Placed {
        match &mut self.values[v.index()] {
            Placed::Value(value) => Placed::Value(self.relinearized.get(value).copied().unwrap_or(*value)),
            Placed::Sum(sum) if self.uses[v.index()] == 1 => Placed::Sum(std::mem::take(sum)),
            Placed::Sum(sum) => Placed::Sum(sum.clone()),
        }
    }

    fn make_placed(&mut self, placed: Placed) -> Result<ValueId, PlaceError> {
        match placed {
            Placed::Value(value) => Ok(value),
            Placed::Sum(sum) => self.make(sum),
        }
    }

    /// The value as a ciphertext, settled or pending.
    fn made(&mut self, v: ValueId) -> Result<ValueId, PlaceError> {
        let placed = self.value(v);
        self.make_placed(placed)
    }

    /// The value as rotations take it, relinearized. What several need is rescaled before, once for all of them, and they
    /// work a level below; one rotation (a giant step, say) leaves that to the sum it goes to.
    fn to_rotate(&mut self, v: ValueId) -> Result<ValueId, PlaceError> {
        if self.uses[v.index()] == 1 {
            let value = self.made(v)?;
            return Ok(self.relinearized(value));
        }
        let value = self.ready(v)?;
        self.values[v.index()] = Placed::Value(value);
        Ok(value)
    }

    /// The value at a canonical scale.
    fn settled(&mut self, v: ValueId) -> Result<ValueId, PlaceError> {
        let value = self.made(v)?;
        self.settle(value)
    }

    /// The value settled and relinearized: what products and calls take.
    fn ready(&mut self, v: ValueId) -> Result<ValueId, PlaceError> {
        let value = self.made(v)?;
        self.ready_value(value)
    }

    fn ready_value(&mut self, value: ValueId) -> Result<ValueId, PlaceError> {
        let value = self.relinearized(value);
        self.settle(value)
    }

    fn settle(&mut self, value: ValueId) -> Result<ValueId, PlaceError> {
        if !self.is_pending(value) {
            return Ok(value);
        }
        self.above_zero(self.level(value))?;
        // Before rescaling, not after: the noise of the key switch is divided by the scale, and the rounding of a third
        // polynomial would meet the square of the secret.
        let a = self.relinearized(value);
        Ok(self.push(Op::Rescale { a }))
    }

    fn relinearized(&mut self, value: ValueId) -> ValueId {
        if self.placement(value).size == 2 {
            return value;
        }
        if let Some(&known) = self.relinearized.get(&value) {
            return known;
        }
        let relinearized = self.push(Op::Relinearize { a: value });
        self.relinearized.insert(value, relinearized);
        relinearized
    }

    /// A settled value at `level`, not above its own.
    fn lower(&mut self, value: ValueId, level: Level) -> ValueId {
        if self.level(value) == level { value } else { self.push(Op::Adjust { a: value, to: level }) }
    }

    fn plain(&self, v: ValueId) -> ValueId {
        match self.values[v.index()] {
            Placed::Value(value) => value,
            Placed::Sum(_) => unreachable!("plaintexts are never sums"),
        }
    }

    fn push(&mut self, op: Op) -> ValueId {
        self.builder.push(&self.placer.out, op)
    }

    fn params(&self) -> &Params {
        &self.placer.source.context.params
    }

    fn placement(&self, value: ValueId) -> Placement {
        self.builder.type_of(value).placement().expect("placed functions have placed ciphertexts")
    }

    fn level(&self, value: ValueId) -> Level {
        self.placement(value).level
    }

    /// The scale of a product at `level`.
    fn pending_scale(&self, level: Level) -> Scale {
        Scale(self.params().scale(level).0.powi(2))
    }

    fn is_pending(&self, value: ValueId) -> bool {
        let at = self.placement(value);
        at.scale.log2() > 1.5 * self.params().scale(at.level).log2()
    }

    fn is_canonical(&self, value: ValueId) -> bool {
        let at = self.placement(value);
        at.scale.matches(self.params().scale(at.level))
    }

    fn above_zero(&self, level: Level) -> Result<(), PlaceError> {
        if level.0 > 0 { Ok(()) } else { Err(self.too_deep()) }
    }

    fn too_deep(&self) -> PlaceError {
        let params = self.params();
        let stage = self.placer.source.stages[self.builder.stage.0 as usize].clone();
        PlaceError::TooDeep { params: params.name().into(), available: params.program_level().0, stage }
    }
}

fn is_small_integer(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() <= SMALL_INTEGER
}
