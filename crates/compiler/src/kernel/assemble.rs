//! Writes fused, allocated limb functions as functions of the artifact, and collects the keys and plaintexts they need.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cerium_artifact::kernel::{
    BaseConvertBlock, Body, ElementwiseBlock, Instruction, PermuteBlock, Register, TransformBlock,
};
use cerium_artifact::{FunctionId, Kernel, Operand, Plaintext, StageId, Step, WeightId, WeightRef};
use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::Params;

use super::allocate::{Plan, allocate, escapes};
use super::fuse::{Group, Launch, fuse, is_elementwise};
use crate::ir::{Number, Operation, ValueId};
use crate::limb::{Function, Module, Op, Type};
use crate::polynomial::KeyName;

/// The functions of an artifact and the keys they use.
#[derive(Debug)]
pub struct Assembled {
    /// Functions, callees first.
    pub functions: Vec<cerium_artifact::Function>,
    /// The key manifest.
    pub keys: Vec<KeyRequest>,
}

/// Runs fusion, allocation and assembly on every function; `chunk` is that of the order pass.
pub fn assemble(module: &Module, chunk: usize) -> Assembled {
    let params = &module.context.params;
    let keys = key_manifest(module);
    let functions = module.functions.iter().map(|f| function(module, params, &keys, f, chunk)).collect();
    Assembled { functions, keys }
}

/// One request for each key, at the lowest level whose key has all primes and all digits in use, in order of kind. (A switch
/// whose result is brought down at once uses all digits of its level but not all primes.)
fn key_manifest(module: &Module) -> Vec<KeyRequest> {
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
    chunk: usize,
) -> cerium_artifact::Function {
    let launches = fuse(source, chunk);
    let escapes = escapes(source, &launches);
    let plan = allocate(source, &launches, &escapes);
    let assembly = Assembly::new(module, params, keys, source, &plan, &escapes);
    let mut steps: Vec<Step> = launches.iter().map(|launch| assembly.step(launch)).collect();
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
    escapes: &'a [bool],
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
        escapes: &'a [bool],
    ) -> Self {
        let mut assembly = Assembly {
            module,
            params,
            keys,
            source,
            plan,
            escapes,
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
                        self.plaintexts.push(Plaintext { weight, basis, scale, rotation, log_period });
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

    fn prime(&self, value: ValueId) -> PrimeIndex {
        match self.source.type_of(value) {
            Type::Limb { prime, .. } | Type::Plain { prime, .. } | Type::Key { prime } => *prime,
            Type::Weight { .. } => unreachable!("weights have no prime"),
        }
    }

    fn step(&self, launch: &Launch) -> Step {
        let node = |index: &usize| &self.source.nodes[*index];
        let transform = |index: &usize| {
            let (value, source) = (node(index).result(), node(index).op.operands()[0]);
            let factor = match node(index).op {
                Op::Intt { factor, .. } => factor,
                _ => 1,
            };
            let (load, store) = (self.operand(source), self.operand(value));
            TransformBlock { prime: self.prime(value), load, store, factor }
        };
        let body = match &launch.group {
            Group::Call(index) => {
                return self.call(&node(index).op, node(index).results.clone().map(ValueId));
            }
            Group::Ntt(nodes) => Body::Ntt { blocks: nodes.iter().map(transform).collect() },
            Group::Intt(nodes) => Body::Intt { blocks: nodes.iter().map(transform).collect() },
            Group::Permute(nodes) => Body::Permute {
                blocks: nodes
                    .iter()
                    .map(|index| {
                        let Op::Permute { a, galois } = node(index).op else {
                            unreachable!("grouped by class")
                        };
                        let value = node(index).result();
                        let (load, store) = (self.operand(a), self.operand(value));
                        PermuteBlock { galois, prime: self.prime(value), load, store }
                    })
                    .collect(),
            },
            Group::BaseConvert(groups) => Body::BaseConvert {
                blocks: groups
                    .iter()
                    .map(|nodes| {
                        let sources = node(&nodes[0]).op.operands();
                        let place = |v: ValueId| (self.prime(v), self.operand(v));
                        BaseConvertBlock {
                            sources: sources.into_iter().map(place).collect(),
                            targets: nodes.iter().map(|index| place(node(index).result())).collect(),
                        }
                    })
                    .collect(),
            },
            Group::Elementwise(blocks) => self.elementwise(blocks),
        };
        Step::Launch(Kernel { stage: launch.stage, body })
    }

    fn elementwise(&self, chains: &[Vec<usize>]) -> Body {
        let (program, results, first) = self.chain(&chains[0]);
        let mut blocks = vec![first];
        for chain in &chains[1..] {
            let (other, other_results, block) = self.chain(chain);
            debug_assert!(other == program && other_results == results, "blocks are grouped by shape");
            blocks.push(block);
        }
        Body::Elementwise { program, results, blocks }
    }

    /// The program of a chain of operations, the registers it stores, and its block.
    fn chain(&self, nodes: &[usize]) -> (Vec<Instruction>, Vec<Register>, ElementwiseBlock) {
        let mut writer =
            ChainWriter { program: Vec::new(), loads: Vec::new(), scalars: Vec::new(), at: HashMap::new() };
        let (mut results, mut stores) = (Vec::new(), Vec::new());
        for &index in nodes {
            let node = &self.source.nodes[index];
            debug_assert!(is_elementwise(&node.op), "chains are elementwise");
            let value = node.result();
            let q = self.params.modulus(self.prime(value));
            let operands: Vec<Register> =
                node.op.operands().into_iter().map(|v| writer.register(v, || self.operand(v))).collect();
            let [a, b] = [0, 1].map(|i| operands.get(i).copied().unwrap_or_default());
            let instruction = match &node.op {
                Op::Add { .. } => Instruction::Add(a, b),
                Op::Sub { .. } => Instruction::Sub(a, b),
                Op::Neg { .. } => Instruction::Neg(a),
                Op::Mul { .. } => Instruction::Mul(a, b),
                Op::MulMontgomery { .. } => Instruction::MontMul(a, b),
                Op::FromMontgomery { .. } => Instruction::MulScalar(a, writer.scalar(q.from_mont(1))),
                Op::MulScalar { scalar, .. } => Instruction::MulScalar(a, writer.scalar(*scalar)),
                Op::AddScalar { scalar, .. } => Instruction::AddScalar(a, writer.scalar(*scalar)),
                Op::Dot { .. } => {
                    Instruction::Dot(operands.chunks(2).map(|pair| (pair[0], pair[1])).collect())
                }
                other => unreachable!("{} is not elementwise", other.mnemonic()),
            };
            let register = writer.push(instruction);
            writer.at.insert(value, register);
            if self.escapes[value.index()] {
                results.push(register);
                stores.push(self.operand(value));
            }
        }
        let prime = self.prime(self.source.nodes[nodes[0]].result());
        let block = ElementwiseBlock { prime, loads: writer.loads, stores, scalars: writer.scalars };
        (writer.program, results, block)
    }

    fn call(&self, op: &Op, results: impl Iterator<Item = ValueId>) -> Step {
        let Op::Call { args, function } = op else { unreachable!("a call group holds a call") };
        let (index, _) = self.module.find(function).expect("verified modules call defined functions");
        let is_weight = |v: &&ValueId| matches!(self.source.type_of(**v), Type::Weight { .. });
        Step::Call {
            function: FunctionId(index as u32),
            args: args.iter().filter(|v| !is_weight(v)).map(|v| self.operand(*v)).collect(),
            results: results.map(|v| self.operand(v)).collect(),
            weights: args.iter().filter(is_weight).map(|v| self.weights[v]).collect(),
        }
    }

    /// One launch that copies the results which could not be made in place.
    fn copies(&self) -> Option<Step> {
        let copy = |(value, store): &(ValueId, Operand)| ElementwiseBlock {
            prime: self.prime(*value),
            loads: vec![self.operand(*value)],
            stores: vec![*store],
            scalars: Vec::new(),
        };
        let blocks: Vec<ElementwiseBlock> = self.plan.copies.iter().map(copy).collect();
        let stage = self.source.nodes.last().map_or(StageId(0), |node| node.stage);
        let body = Body::Elementwise { program: vec![Instruction::Load(0)], results: vec![0], blocks };
        (!self.plan.copies.is_empty()).then_some(Step::Launch(Kernel { stage, body }))
    }
}

/// An elementwise program under construction.
struct ChainWriter {
    program: Vec<Instruction>,
    loads: Vec<Operand>,
    scalars: Vec<u32>,
    at: HashMap<ValueId, Register>,
}

impl ChainWriter {
    fn push(&mut self, instruction: Instruction) -> Register {
        self.program.push(instruction);
        Register::try_from(self.program.len() - 1).expect("programs are bounded by the fusion pass")
    }

    /// The register that holds a value, loading it on first use.
    fn register(&mut self, value: ValueId, place: impl FnOnce() -> Operand) -> Register {
        if let Some(&register) = self.at.get(&value) {
            return register;
        }
        self.loads.push(place());
        let register = self.push(Instruction::Load(self.loads.len() as u16 - 1));
        self.at.insert(value, register);
        register
    }

    fn scalar(&mut self, value: u32) -> u16 {
        self.scalars.push(value);
        self.scalars.len() as u16 - 1
    }
}
