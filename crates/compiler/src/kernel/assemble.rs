//! Writes fused, allocated limb functions as functions of the artifact, and collects the keys and plaintexts they need.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cerium_artifact::kernel::{BaseConvertBlock, Block, Body, Instruction, Program, Transform};
use cerium_artifact::{
    Collective, DeviceId, FunctionId, Incoming, Kernel, Movement, Operand, Outgoing, Plaintext, StageId,
    Step, WeightId, WeightRef,
};
use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::Params;

use super::KernelOptions;
use super::allocate::{Plan, allocate};
use super::horizontal::{Content, Launch, PlannedBlock, horizontal};
use super::program::{Limb, Shape, prime_of};
use super::vertical::{Class, vertical};
use crate::ir::{Number, Operation, ValueId};
use crate::limb::{Arrival, Function, Module, Op, Type};
use crate::polynomial::KeyName;

/// Runs fusion, allocation and assembly on every function of the module of each device; callees stand first. `keys` is the
/// manifest of the program ([`key_manifest`]).
pub fn assemble(
    modules: &[Module],
    keys: &[KeyRequest],
    options: &KernelOptions,
) -> Vec<Vec<cerium_artifact::Function>> {
    let assemble = |module: &Module| -> Vec<cerium_artifact::Function> {
        let params = &module.context.params;
        module.functions.iter().map(|f| function(module, params, keys, f, options)).collect()
    };
    let mut programs: Vec<_> = modules.iter().map(assemble).collect();
    let functions = programs.iter().map(Vec::len).max().unwrap_or(0);
    (0..functions).for_each(|index| join_moduli(&mut programs, index));
    programs
}

/// Gives the plaintexts of a function all primes that they have on any device.
fn join_moduli(programs: &mut [Vec<cerium_artifact::Function>], function: usize) {
    type Encoding = (WeightRef, u64, u32);
    let encoding =
        |plaintext: &Plaintext| (plaintext.weight, plaintext.scale.0.to_bits(), plaintext.rotation);
    let mut moduli: HashMap<Encoding, Basis> = HashMap::new();
    for plaintext in programs.iter().flat_map(|program| &program[function].plaintexts) {
        let modulus = moduli.entry(encoding(plaintext)).or_insert(Basis::EMPTY);
        *modulus = modulus.union(plaintext.basis);
    }
    for plaintext in programs.iter_mut().flat_map(|program| &mut program[function].plaintexts) {
        plaintext.modulus = moduli[&encoding(plaintext)];
    }
}

/// The keys of a program: one request for each, at the lowest level whose key has all primes and all digits in use, in order of kind. (A switch
/// whose result is brought down at once uses all digits of its level but not all primes.)
pub fn key_manifest(module: &Module) -> Vec<KeyRequest> {
    let params = &module.context.params;
    let mut used: BTreeMap<KeyKind, (Basis, BTreeSet<usize>)> = BTreeMap::new();
    for node in module.functions.iter().flat_map(|f| &f.nodes) {
        if let Op::Key { key: KeyName(kind), digit, prime, .. } = node.op {
            let (basis, digits) = used.entry(kind).or_default();
            *basis = basis.union(std::iter::once(prime).collect());
            digits.insert(digit as usize);
        }
    }
    let request = |(kind, (basis, digits)): (KeyKind, (Basis, BTreeSet<usize>))| {
        let serves = |level: &Level| {
            let request = KeyRequest { kind, level: *level };
            request.check(params).is_ok()
                && basis.is_subset(request.basis(params))
                && digits.iter().all(|&digit| request.digit_position(params, digit).is_some())
        };
        let level = params.levels().find(serves).expect("the key of the top level has all primes");
        KeyRequest { kind, level }
    };
    used.into_iter().map(request).collect()
}

fn function(
    module: &Module,
    params: &Params,
    keys: &[KeyRequest],
    source: &Function,
    options: &KernelOptions,
) -> cerium_artifact::Function {
    let steps = vertical(source, options);
    let launches = horizontal(source, params, &steps, options);
    let plan = allocate(source, &launches);
    let assembly = Assembly::new(module, params, keys, source, &plan);
    let mut steps: Vec<Step> = launches.into_iter().map(|launch| assembly.step(launch)).collect();
    if let Some(kernel) = assembly.copies() {
        steps.push(kernel);
    }
    let primes = |values: &mut dyn Iterator<Item = ValueId>| {
        values
            .filter_map(|v| match source.type_of(v) {
                Type::Limb { prime, .. } => Some(*prime),
                _ => None,
            })
            .collect()
    };
    let weight_params = source.param_types().iter().filter(|ty| matches!(ty, Type::Weight { .. })).count();
    cerium_artifact::Function {
        name: source.name.0.to_string(),
        args: primes(&mut source.params()),
        results: primes(&mut source.results.iter().copied()),
        weight_params: weight_params as u32,
        plaintexts: assembly.plaintexts,
        frame: plan.frame,
        steps,
    }
}

struct Assembly<'a> {
    module: &'a Module,
    params: &'a Params,
    keys: &'a [KeyRequest],
    source: &'a Function,
    plan: &'a Plan,
    plaintexts: Vec<Plaintext>,
    /// Plaintext, key and weight values as operands.
    references: HashMap<ValueId, Operand>,
    weights: HashMap<ValueId, WeightRef>,
}

impl<'a> Assembly<'a> {
    fn new(
        module: &'a Module,
        params: &'a Params,
        keys: &'a [KeyRequest],
        source: &'a Function,
        plan: &'a Plan,
    ) -> Self {
        let mut assembly = Assembly {
            module,
            params,
            keys,
            source,
            plan,
            plaintexts: Vec::new(),
            references: HashMap::new(),
            weights: HashMap::new(),
        };
        assembly.collect_references();
        assembly
    }

    /// Names every weight, plaintext limb and key limb of the function. Limbs of one encoding are one plaintext.
    fn collect_references(&mut self) {
        let weights = self.source.params().filter(|&v| matches!(self.source.type_of(v), Type::Weight { .. }));
        for (i, value) in weights.enumerate() {
            self.weights.insert(value, WeightRef::Param(i as u32));
        }
        let mut encodings: HashMap<(WeightRef, Number, u32), u32> = HashMap::new();
        let mut limbs: Vec<(ValueId, u32, PrimeIndex)> = Vec::new();
        for node in &self.source.nodes {
            match &node.op {
                Op::Weight { index } => {
                    self.weights.insert(node.result(), WeightRef::Weight(WeightId(*index)));
                }
                Op::Plain { w, prime, scale, rotation } => {
                    let Type::Plain { log_period, .. } = *self.source.type_of(node.result()) else {
                        unreachable!("plain makes a plaintext limb")
                    };
                    let weight = self.weights[w];
                    let next = self.plaintexts.len() as u32;
                    let index = *encodings.entry((weight, *scale, *rotation)).or_insert(next);
                    if index == next {
                        let (scale, rotation) = (Scale(scale.0), *rotation);
                        let basis = Basis::EMPTY;
                        let modulus = Basis::EMPTY;
                        self.plaintexts.push(Plaintext {
                            weight,
                            basis,
                            modulus,
                            scale,
                            rotation,
                            log_period,
                        });
                    }
                    let basis = &mut self.plaintexts[index as usize].basis;
                    *basis = basis.union(std::iter::once(*prime).collect());
                    limbs.push((node.result(), index, *prime));
                }
                Op::Key { key: KeyName(kind), half, digit, prime } => {
                    let key =
                        self.keys.iter().position(|k| k.kind == *kind).expect("the manifest has every key");
                    let position = self.keys[key].digit_position(self.params, *digit as usize);
                    let operand = Operand::Key {
                        key: key as u32,
                        digit: position.expect("the manifest has every digit") as u8,
                        half: half.0,
                        prime: *prime,
                    };
                    self.references.insert(node.result(), operand);
                }
                _ => {}
            }
        }
        for (value, index, prime) in limbs {
            let limb = self.plaintexts[index as usize].basis.position(prime).expect("added above");
            self.references.insert(value, Operand::Plain { plaintext: index, limb: limb as u16 });
        }
    }

    fn operand(&self, value: ValueId) -> Operand {
        let place = self.references.get(&value).or_else(|| self.plan.places.get(&value));
        *place.expect("every value that is read has a place")
    }

    fn operands(&self, values: &[ValueId]) -> Vec<Operand> {
        values.iter().map(|&v| self.operand(v)).collect()
    }

    fn step(&self, launch: Launch) -> Step {
        let (shape, blocks) = match launch.content {
            Content::Call(index) => {
                let node = &self.source.nodes[index];
                return self.call(launch.stage, &node.op, node.results.clone().map(ValueId));
            }
            Content::Start(index) => {
                let node = &self.source.nodes[index];
                let movement = self.movement(&node.op, node.results.clone().map(ValueId));
                return Step::Start(Collective { stage: launch.stage, movement });
            }
            Content::Finish(number, _) => return Step::Finish(number),
            Content::Blocks(shape, blocks) => (shape, blocks),
        };
        let body = self.body(shape, blocks);
        Step::Launch(Kernel { stage: launch.stage, body })
    }

    fn body(&self, shape: Shape, blocks: Vec<PlannedBlock>) -> Body {
        let Shape { class, prologue, input, program } = shape;
        if class == Class::BaseConvert {
            let source = |v: &ValueId| (prime_of(self.source, *v), self.operand(*v));
            let block = |block: PlannedBlock| BaseConvertBlock {
                sources: block.sources.iter().map(source).collect(),
                targets: block.limbs.into_iter().map(|limb| self.block(limb)).collect(),
            };
            return Body::BaseConvert { epilogue: program, blocks: blocks.into_iter().map(block).collect() };
        }
        let limbs = blocks.into_iter().flat_map(|block| block.limbs);
        let blocks = limbs.map(|limb| self.block(limb)).collect();
        match class {
            Class::Elementwise => Body::Elementwise { program, blocks },
            Class::Ntt => Body::Ntt(Transform { prologue, input, epilogue: program, blocks }),
            Class::Intt => Body::Intt(Transform { prologue, input, epilogue: program, blocks }),
            Class::BaseConvert | Class::Call | Class::Collective => unreachable!("written above"),
        }
    }

    fn block(&self, limb: Limb) -> Block {
        let Limb { prime, scalars, galois, .. } = limb;
        Block {
            prime,
            loads: self.operands(&limb.loads),
            stores: self.operands(&limb.stores),
            scalars,
            galois,
        }
    }

    fn call(&self, stage: StageId, op: &Op, results: impl Iterator<Item = ValueId>) -> Step {
        let Op::Call { args, function } = op else { unreachable!("a call group holds a call") };
        let (index, _) = self.module.find(function).expect("verified modules call defined functions");
        let is_weight = |v: &&ValueId| matches!(self.source.type_of(**v), Type::Weight { .. });
        Step::Call {
            stage,
            function: FunctionId(index as u32),
            args: args.iter().filter(|v| !is_weight(v)).map(|v| self.operand(*v)).collect(),
            results: results.map(|v| self.operand(v)).collect(),
            weights: args.iter().filter(is_weight).map(|v| self.weights[v]).collect(),
        }
    }

    fn movement(&self, op: &Op, results: impl Iterator<Item = ValueId>) -> Movement {
        match op {
            Op::Exchange { sent, to, from } => {
                let send = |(&limb, &to): (&ValueId, &DeviceId)| Outgoing {
                    to,
                    prime: prime_of(self.source, limb),
                    limb: self.operand(limb),
                };
                let receive = |(arrival, result): (&Arrival, ValueId)| Incoming {
                    from: arrival.from,
                    prime: arrival.prime,
                    limb: self.operand(result),
                };
                Movement::Exchange {
                    sends: sent.iter().zip(to).map(send).collect(),
                    receives: from.iter().zip(results).map(receive).collect(),
                }
            }
            Op::AllReduce { parts } => {
                let limb = |part: &ValueId| (prime_of(self.source, *part), self.operand(*part));
                Movement::AllReduce { limbs: parts.iter().map(limb).collect() }
            }
            other => unreachable!("{} is no collective", other.mnemonic()),
        }
    }

    /// One launch that copies the results which could not be made in place.
    fn copies(&self) -> Option<Step> {
        let copy = |(value, store): &(ValueId, Operand)| Block {
            prime: prime_of(self.source, *value),
            loads: vec![self.operand(*value)],
            stores: vec![*store],
            scalars: Vec::new(),
            galois: Vec::new(),
        };
        let blocks: Vec<Block> = self.plan.copies.iter().map(copy).collect();
        let stage = self.source.nodes.last().map_or(StageId(0), |node| node.stage);
        let program = Program { instructions: vec![Instruction::Load(0)], results: vec![0] };
        let body = Body::Elementwise { program, blocks };
        (!self.plan.copies.is_empty()).then_some(Step::Launch(Kernel { stage, body }))
    }
}
