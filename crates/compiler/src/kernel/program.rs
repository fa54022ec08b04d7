//! Programs of steps: which instructions a step runs on every word, and what it loads and stores.

use std::collections::HashMap;

use cerium_artifact::kernel::{Instruction, Program, Register};
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::params::Params;

use super::vertical::{Class, Step};
use crate::ir::{Operation, ValueId};
use crate::limb::{Function, Op, Type};

/// What the blocks of a launch have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) class: Class,
    /// What is transformed.
    pub(super) prologue: Program,
    pub(super) input: Register,
    /// The epilogue, or all of an elementwise step.
    pub(super) program: Program,
}

/// A block of a launch before memory is planned: operands are values.
#[derive(Clone, Debug)]
pub(super) struct Limb {
    pub(super) prime: PrimeIndex,
    pub(super) loads: Vec<ValueId>,
    /// Results of the prologue, then of the program.
    pub(super) stores: Vec<ValueId>,
    pub(super) scalars: Vec<u32>,
    pub(super) galois: Vec<u32>,
}

/// The prime of a limb, a plaintext limb or a key limb.
pub(super) fn prime_of(function: &Function, value: ValueId) -> PrimeIndex {
    match function.type_of(value) {
        Type::Limb { prime, .. } | Type::Plain { prime, .. } | Type::Key { prime } => *prime,
        Type::Weight { .. } => unreachable!("weights have no prime"),
    }
}

/// The shape of a step and its block, which stores the values that `is_stored` names.
pub(super) fn program(
    function: &Function,
    params: &Params,
    step: &Step,
    is_stored: impl Fn(ValueId) -> bool,
) -> (Shape, Limb) {
    let last = step.nodes().last().expect("a step has operations");
    let prime = prime_of(function, function.nodes[last].result());
    let limb = Limb { prime, loads: Vec::new(), stores: Vec::new(), scalars: Vec::new(), galois: Vec::new() };
    let mut writer = Writer { function, params, is_stored, limb };
    let (mut prologue, mut input) = (Program::default(), 0);
    let mut start = None;
    if let Some(anchor) = step.anchor {
        let node = &function.nodes[anchor];
        if let Op::Intt { factor, .. } = node.op {
            writer.limb.scalars.push(factor);
        }
        if let Op::Ntt { a } | Op::Intt { a, .. } = node.op {
            (prologue, input) = writer.write(&step.prologue, None, Some(a));
        }
        start = Some(node.result());
    }
    let (program, _) = writer.write(&step.body, start, None);
    (Shape { class: step.class, prologue, input, program }, writer.limb)
}

struct Writer<'a, S> {
    function: &'a Function,
    params: &'a Params,
    is_stored: S,
    limb: Limb,
}

/// A program in the making.
#[derive(Default)]
struct Draft {
    program: Program,
    at: HashMap<ValueId, Register>,
}

impl Draft {
    fn push(&mut self, instruction: Instruction) -> Register {
        self.program.instructions.push(instruction);
        Register::try_from(self.program.instructions.len() - 1).expect("fusion bounds the length of programs")
    }
}

impl<S: Fn(ValueId) -> bool> Writer<'_, S> {
    /// The program of these nodes, which begins with the input if `start` is the value that enters it. Also the register of
    /// `end`, which is loaded if none of the nodes makes it.
    fn write(
        &mut self,
        nodes: &[usize],
        start: Option<ValueId>,
        end: Option<ValueId>,
    ) -> (Program, Register) {
        let mut draft = Draft::default();
        if let Some(start) = start {
            let register = draft.push(Instruction::Input);
            draft.at.insert(start, register);
            self.store(&mut draft, start, register);
        }
        for &index in nodes {
            let value = self.function.nodes[index].result();
            let register = self.instruction(&mut draft, index);
            draft.at.insert(value, register);
            self.store(&mut draft, value, register);
        }
        let end = end.map_or(0, |end| self.register(&mut draft, end));
        (draft.program, end)
    }

    fn store(&mut self, draft: &mut Draft, value: ValueId, register: Register) {
        if (self.is_stored)(value) {
            draft.program.results.push(register);
            self.limb.stores.push(value);
        }
    }

    /// The register that holds a value, loading it on first use.
    fn register(&mut self, draft: &mut Draft, value: ValueId) -> Register {
        if let Some(&register) = draft.at.get(&value) {
            return register;
        }
        self.limb.loads.push(value);
        let register = draft.push(Instruction::Load(self.limb.loads.len() as u16 - 1));
        draft.at.insert(value, register);
        register
    }

    fn scalar(&mut self, value: u32) -> u16 {
        self.limb.scalars.push(value);
        self.limb.scalars.len() as u16 - 1
    }

    fn automorphism(&mut self, galois: u32) -> u16 {
        let known = self.limb.galois.iter().position(|&other| other == galois);
        known.unwrap_or_else(|| {
            self.limb.galois.push(galois);
            self.limb.galois.len() - 1
        }) as u16
    }

    fn instruction(&mut self, draft: &mut Draft, index: usize) -> Register {
        let op = &self.function.nodes[index].op;
        let q = self.params.modulus(self.limb.prime);
        let operands: Vec<Register> = op.operands().into_iter().map(|v| self.register(draft, v)).collect();
        let [a, b] = [0, 1].map(|i| operands.get(i).copied().unwrap_or_default());
        let instruction = match op {
            Op::Add { .. } => Instruction::Add(a, b),
            Op::Sub { .. } => Instruction::Sub(a, b),
            Op::Neg { .. } => Instruction::Neg(a),
            Op::Mul { .. } => Instruction::Mul(a, b),
            Op::MulMontgomery { .. } => Instruction::MontMul(a, b),
            Op::FromMontgomery { .. } => Instruction::MulScalar(a, self.scalar(q.from_mont(1))),
            Op::MulScalar { scalar, .. } => Instruction::MulScalar(a, self.scalar(*scalar)),
            Op::AddScalar { scalar, .. } => Instruction::AddScalar(a, self.scalar(*scalar)),
            Op::Dot { .. } => Instruction::Dot(operands.chunks(2).map(|pair| (pair[0], pair[1])).collect()),
            Op::Permute { galois, .. } => Instruction::Permute(a, self.automorphism(*galois)),
            other => unreachable!("{} is not elementwise", other.mnemonic()),
        };
        draft.push(instruction)
    }
}
