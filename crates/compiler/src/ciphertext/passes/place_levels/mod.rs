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
//! brings them to the level above the one at which its result is needed (see `needs`). A sum is not made until somebody other than a sum needs it, so that all its
//! products are made at its lowest level (see `sums`): a polynomial `q T_m + q' T_k + r` is relinearized and rescaled once, and
//! a change of level and a product with a constant share one multiplication. A constant whose parts are small integers, such
//! as i, multiplies exactly at scale 1 and takes no level.
//!
//! So every operation runs at the lowest level from which every output is reached, inputs and results of bootstraps
//! included: there it costs least. A function is placed once for each combination of needs of its results that makes a
//! difference.

mod sums;

use std::collections::HashMap;
use std::rc::Rc;

use cerium_ckks::basis::{Level, Scale};
use cerium_ckks::params::Params;

use super::super::{Builder, Function, Module, Op, Placement, Type};
use super::needs::{Need, Needs, Shape, is_small_integer};
use crate::ir::simplify::remove_unused;
use crate::ir::{Node, Number, Symbol, ValueId};
use sums::Placed;

/// Why a program cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The program is deeper than the parameter set.
    #[error(
        "the program needs more than the {available} levels of parameter set {params} (it runs out of levels in stage \
         `{stage}`); choose a set with bootstrapping or with more levels (`cerium params` lists them), or lower the \
         degree of the activations"
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

/// Runs the pass: replaces the unplaced functions of `module` by placed ones.
pub fn place_levels(module: &mut Module) -> Result<(), PlaceError> {
    remove_unused(module);
    let placed = place(module)?;
    *module = placed;
    Ok(())
}

fn place(module: &Module) -> Result<Module, PlaceError> {
    let (entry, params) = (module.entry(), &module.context.params);
    let results = vec![Need::At(Level(0)); entry.results.len()];
    let mut placer = Placer::new(module, false);
    let needs = placer.needs.values(&entry.name, &results);
    let start = |need: &Need| if *need == Need::Free { params.max_level() } else { need.settled() };
    let mut levels: Vec<Level> = needs[..entry.params as usize].iter().map(start).collect();
    let fits = needs[..levels.len()]
        .iter()
        .all(|need| *need <= Need::At(params.program_level()) || *need == Need::Free);
    if !fits {
        // From the top as high as possible: that tells where the levels run out.
        placer = Placer::new(module, true);
        levels.fill(params.program_level());
    }
    let input = |level| Type::Cipher(Some(Placement { level, scale: params.scale(level), size: 2 }));
    placer.function(&entry.name, results, levels.into_iter().map(input).collect())?;
    Ok(placer.out)
}

struct Placer<'a> {
    source: &'a Module,
    out: Module,
    needs: Needs<'a>,
    /// Levels are as high as possible instead of as low.
    high: bool,
    /// Placed functions by source function, needs of the results and argument types (in text form).
    instances: HashMap<(Symbol, Vec<Need>, String), Symbol>,
}

impl<'a> Placer<'a> {
    fn new(source: &'a Module, high: bool) -> Self {
        let out = Module::new(source.context.clone(), source.stages.clone());
        Placer { source, out, needs: Needs::new(source), high, instances: HashMap::new() }
    }

    /// The placed instance of `name` for these needs and argument types.
    fn function(&mut self, name: &Symbol, results: Vec<Need>, args: Vec<Type>) -> Result<Symbol, PlaceError> {
        let signature: String = args.iter().map(|ty| format!("{ty};")).collect();
        let key = (name.clone(), results, signature);
        if let Some(known) = self.instances.get(&key) {
            return Ok(known.clone());
        }
        let source = self.source;
        let (_, source) = source.find(name).expect("verified modules call defined functions");
        let needs = self.needs.values(name, &key.1);
        let body = Body {
            builder: Builder::new(name.clone(), args),
            values: Vec::new(),
            uses: source.use_counts(),
            relinearized: HashMap::new(),
            shape: self.needs.shape(source),
            needs: if self.high { Rc::new(vec![Need::Free; needs.len()]) } else { needs },
            placer: self,
        };
        let mut function = body.place(source)?;
        // Needs that differ may make no difference, behind a bootstrap for example.
        let instances = || self.instances.iter().filter(|((n, ..), _)| n == name).map(|(_, symbol)| symbol);
        let known =
            |symbol: &Symbol| self.out.find(symbol).is_some_and(|(_, known)| known.same_body(&function));
        let same = instances().find(|symbol| known(symbol));
        let symbol = match same {
            Some(symbol) => symbol.clone(),
            None => {
                let taken = |symbol: &Symbol| self.out.find(symbol).is_some();
                let numbered = (1..).map(|i| Symbol(format!("{}.{i}", name.0).into()));
                let mut names = std::iter::once(name.clone()).chain(numbered);
                function.name = names.find(|symbol| !taken(symbol)).expect("there is no end of numbers");
                let symbol = function.name.clone();
                self.out.functions.push(function);
                symbol
            }
        };
        self.instances.insert(key, symbol.clone());
        Ok(symbol)
    }
}

struct Body<'a, 'b> {
    builder: Builder,
    values: Vec<Placed>,
    /// How often each value of the source function is used.
    uses: Vec<u32>,
    /// The relinearized form of values that have one; later uses take it, whatever they need.
    relinearized: HashMap<ValueId, ValueId>,
    shape: Rc<Shape>,
    /// The need of each value of the source function.
    needs: Rc<Vec<Need>>,
    placer: &'a mut Placer<'b>,
}

impl Body<'_, '_> {
    fn place(mut self, source: &Function) -> Result<Function, PlaceError> {
        self.values.extend(source.params().map(Placed::Value));
        for node in &source.nodes {
            self.builder.stage = node.stage;
            let placed = self.operation(node)?;
            assert_eq!(placed.len(), node.results.len(), "one placed value for each result");
            for (value, placed) in node.results.clone().zip(placed) {
                // What several need is made once; a product with a constant is cheap enough to make for each.
                let placed = match placed {
                    Placed::Sum(sum) if self.uses[value as usize] > 1 && sum.as_scaled().is_none() => {
                        Placed::Value(self.make(sum, self.needs[value as usize])?)
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

    fn operation(&mut self, node: &Node<Op>) -> Result<Vec<Placed>, PlaceError> {
        let need = self.needs[node.results.start as usize];
        let value = match &node.op {
            Op::Add { a, b } => return Ok(vec![self.sum(*a, *b, 1.0)]),
            Op::Sub { a, b } => return Ok(vec![self.sum(*a, *b, -1.0)]),
            Op::Neg { a } => match self.value(*a) {
                Placed::Sum(sum) => return Ok(vec![Placed::Sum(sum.times(-1.0))]),
                Placed::Value(a) => self.push(Op::Neg { a }),
            },
            Op::Mul { a, b } => {
                let (a, b) = (self.ready(*a)?, self.ready(*b)?);
                let level = self.level(a).min(self.level(b)).min(need.pending());
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
            Op::MulPlain { a, p } if self.shape.exact[p.index()] => {
                if let Some((base, factor)) = self.scaled_once(*a) {
                    let base = self.mul_exact(base, *p);
                    return Ok(vec![Placed::scaled(base, factor, self.builder.stage)]);
                }
                let a = self.made(*a)?;
                self.mul_exact(a, *p)
            }
            Op::MulPlain { a, p } => {
                let a = self.settled(*a)?;
                let a = self.lower(a, self.level(a).min(need.pending()));
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
                placed => {
                    let a = self.make_placed(placed, self.needs[a.index()])?;
                    if !is_small_integer(value.0) {
                        return Ok(vec![Placed::scaled(self.settle(a)?, value.0, self.builder.stage)]);
                    }
                    self.push(Op::MulConst { a, value: *value, scale: Some(Number(1.0)) })
                }
            },
            Op::Rotate { a, by } => {
                if let Some((base, factor)) = self.scaled_once(*a) {
                    let base = self.lower(base, self.level(base).min(need.pending()));
                    let base = self.push(Op::Rotate { a: base, by: *by });
                    return Ok(vec![Placed::scaled(base, factor, self.builder.stage)]);
                }
                let a = self.for_rotation(*a, need)?;
                self.push(Op::Rotate { a, by: *by })
            }
            Op::Conjugate { a } => {
                let a = self.for_rotation(*a, need)?;
                self.push(Op::Conjugate { a })
            }
            Op::Weight { index } => self.push(Op::Weight { index: *index }),
            Op::RotatePlain { p, .. } if self.shape.exact[p.index()] => self.plain(*p),
            Op::RotatePlain { p, by } => {
                let p = self.plain(*p);
                self.push(Op::RotatePlain { p, by: *by })
            }
            Op::Call { args, function } => return self.call(args, function, node),
            Op::Bootstrap { xs, kind, log_slots, bound } => {
                let input = self.params().bootstrap().map_or(Level(0), |levels| levels.input);
                let xs = xs.iter().map(|&x| self.at_level(x, input)).collect::<Result<_, _>>()?;
                let op = Op::Bootstrap { xs, kind: *kind, log_slots: *log_slots, bound: *bound };
                return Ok(self.push_all(op));
            }
            Op::Lower { a, to } => match self.scaled_once(*a) {
                // A constant is multiplied in one level above, where there is one.
                Some((base, factor)) if self.level(base) > *to => {
                    let pending = self.scaled(base, factor, Level(to.0 + 1))?;
                    self.settle(pending)?
                }
                _ => self.at_level(*a, *to)?,
            },
            Op::ModRaise { a } => {
                let a = self.ready(*a)?;
                self.push(Op::ModRaise { a })
            }
            Op::Reinterpret { a, factor } => {
                let a = self.ready(*a)?;
                self.push(Op::Reinterpret { a, factor: *factor })
            }
            Op::LinearTransform { .. } | Op::PolyEval { .. } => {
                unreachable!("expanded before levels are placed")
            }
            Op::Encode { .. }
            | Op::Rescale { .. }
            | Op::Relinearize { .. }
            | Op::Adjust { .. }
            | Op::DropLevel { .. } => {
                unreachable!("placed operations do not occur in an unplaced program")
            }
        };
        Ok(vec![Placed::Value(value)])
    }

    fn call(
        &mut self,
        args: &[ValueId],
        function: &Symbol,
        node: &Node<Op>,
    ) -> Result<Vec<Placed>, PlaceError> {
        let source = self.placer.source;
        let (_, callee) = source.find(function).expect("verified modules call defined functions");
        let results = &self.needs[node.results.start as usize..node.results.end as usize];
        let results: Vec<Need> = results.iter().map(|need| need.used()).collect();
        let needs = match self.placer.high {
            true => Rc::new(vec![Need::Free; callee.types.len()]),
            false => self.placer.needs.values(function, &results),
        };
        let mut placed = Vec::new();
        for ((&v, ty), need) in args.iter().zip(callee.param_types()).zip(needs.iter()) {
            placed.push(match ty {
                Type::Cipher(_) => {
                    let arg = self.ready(v)?;
                    self.lower(arg, self.level(arg).min(need.used().settled()))
                }
                _ => self.plain(v),
            });
        }
        let types = placed.iter().map(|&v| *self.builder.type_of(v)).collect();
        let instance = self.placer.function(function, results, types)?;
        Ok(self.push_all(Op::Call { args: placed, function: instance }))
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

    /// The settled ciphertext and the factor, of a value that is one product with a constant and not made yet.
    fn scaled_once(&self, v: ValueId) -> Option<(ValueId, f64)> {
        match &self.values[v.index()] {
            Placed::Sum(sum) => sum.as_scaled(),
            Placed::Value(_) => None,
        }
    }

    fn make_placed(&mut self, placed: Placed, need: Need) -> Result<ValueId, PlaceError> {
        match placed {
            Placed::Value(value) => Ok(value),
            Placed::Sum(sum) => self.make(sum, need),
        }
    }

    /// The value as a ciphertext, settled or pending.
    fn made(&mut self, v: ValueId) -> Result<ValueId, PlaceError> {
        let placed = self.value(v);
        self.make_placed(placed, self.needs[v.index()])
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

    /// The value settled at a level by request of the program.
    fn at_level(&mut self, v: ValueId, level: Level) -> Result<ValueId, PlaceError> {
        let value = self.ready(v)?;
        if self.level(value) < level { Err(self.too_deep()) } else { Ok(self.lower(value, level)) }
    }

    /// The value as rotations take it, relinearized and, if it is settled, no higher than needed. What several operations need
    /// is rescaled before, once for all of them, and they work a level below; one rotation (a giant step, say) leaves that to
    /// the sum it goes to.
    fn for_rotation(&mut self, v: ValueId, need: Need) -> Result<ValueId, PlaceError> {
        if !self.shape.settle_first[v.index()] {
            let value = self.made(v)?;
            let value = self.relinearized(value);
            return Ok(match self.is_pending(value) {
                true => value,
                false => self.lower(value, self.level(value).min(need.settled())),
            });
        }
        let value = self.ready(v)?;
        // A constant that other uses fold into theirs stays unmultiplied for them: their levels are counted so.
        if !self.shape.lazy[v.index()] {
            self.values[v.index()] = Placed::Value(value);
        }
        Ok(self.lower(value, self.level(value).min(need.settled())))
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

    fn push_all(&mut self, op: Op) -> Vec<Placed> {
        let results = self.builder.try_push(&self.placer.out, op);
        let results = results.unwrap_or_else(|message| panic!("placed with several results: {message}"));
        results.map(|v| Placed::Value(ValueId(v))).collect()
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
