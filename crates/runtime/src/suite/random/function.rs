//! Random functions of one device.

mod movement;

use std::collections::HashSet;

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::automorphism::{conjugation_element, galois_element};
use cerium_ckks::basis::{Basis, PrimeIndex, Scale};
use cerium_ckks::evaluation_key::KeyRequest;
use cerium_ckks::params::Params;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::devices::Signature;
use super::{STAGES, below, random_primes};

/// Frame slots of every function.
const FRAME: usize = 24;
/// Loads of every block.
const LOADS: usize = 5;

/// What the programs of a kernel ask of its blocks.
#[derive(Default)]
struct Shape {
    stores: usize,
    /// Loads that are read through an automorphism.
    moved: HashSet<u16>,
    /// As many stores are written before these loads are read.
    early: usize,
    late: HashSet<u16>,
}

impl Shape {
    fn with(mut self, program: &Program) -> Shape {
        self.stores += program.results.len();
        self.moved.extend(program.moved());
        self
    }
}

/// Makes one function of one device step by step, keeping track of what every slot holds.
pub(super) struct Builder<'a> {
    rng: ChaCha8Rng,
    params: &'a Params,
    keys: &'a [KeyRequest],
    function: Function,
    holds: Vec<PrimeIndex>,
    /// Block that reads or writes a slot in the step being made.
    reader: Vec<Option<usize>>,
    writer: Vec<Option<usize>>,
    /// How many collectives under way send a slot.
    sent: Vec<u32>,
    /// Whether a limb is on its way to a slot.
    awaits: Vec<bool>,
}

impl<'a> Builder<'a> {
    /// The beginning of a function with these arguments and results: every slot of its frame holds an argument or something
    /// of a plaintext.
    pub(super) fn new(
        rng: ChaCha8Rng,
        params: &'a Params,
        keys: &'a [KeyRequest],
        name: String,
        signature: Signature,
    ) -> Builder<'a> {
        let Signature { args, results, weight_params } = signature;
        let basis = params.q_basis().union(params.p_basis());
        let plaintext = |weight, log_period, rotation, bits: i32| Plaintext {
            weight,
            basis,
            modulus: basis,
            scale: Scale(2f64.powi(bits)),
            rotation,
            log_period,
        };
        let mut plaintexts = vec![
            plaintext(WeightRef::Weight(WeightId(0)), 0, 0, 30),
            plaintext(WeightRef::Weight(WeightId(3)), params.log_n() - 1, 5, 31),
            plaintext(WeightRef::Weight(WeightId(4)), 2, 0, 28),
            plaintext(WeightRef::Weight(WeightId(2)), 2, 0, 28),
            plaintext(WeightRef::Weight(WeightId(5)), 0, 0, 0),
            plaintext(WeightRef::Weight(WeightId(6)), 2, 1, 33),
            plaintext(WeightRef::Weight(WeightId(7)), 2, 3, 29),
        ];
        if weight_params > 0 {
            plaintexts.push(plaintext(WeightRef::Param(0), 2, 3, 29));
        }
        let function =
            Function { name, args, results, weight_params, plaintexts, frame: FRAME as u32, steps: vec![] };
        let (reader, writer, sent, awaits) = Default::default();
        let mut builder =
            Builder { rng, params, keys, function, holds: vec![], reader, writer, sent, awaits };
        (builder.sent, builder.awaits) = (vec![0; FRAME], vec![false; FRAME]);
        builder.fill();
        builder
    }

    fn fill(&mut self) {
        let mut blocks = Vec::new();
        for slot in 0..FRAME as u32 {
            let arg = below(&mut self.rng, 2 * self.function.args.len().max(1));
            let (prime, load) = match self.function.args.get(arg) {
                Some(&prime) => (prime, Operand::Arg(arg as u32)),
                None => {
                    let prime = random_primes(&mut self.rng, self.params, 1)[0];
                    (prime, self.constant(prime))
                }
            };
            self.holds.push(prime);
            let stores = vec![Operand::Local(slot)];
            blocks.push(Block { prime, loads: vec![load], stores, scalars: vec![], galois: vec![] });
        }
        let program = Program { instructions: vec![Instruction::Load(0)], results: vec![0] };
        self.launch(Body::Elementwise { program, blocks });
    }

    /// Something modulo any prime.
    fn constant(&self, prime: PrimeIndex) -> Operand {
        let pool = self.params.q_basis().union(self.params.p_basis());
        let limb = pool.position(prime).expect("a prime of the pool") as u16;
        Operand::Plain { plaintext: 0, limb }
    }

    /// Begins a step.
    pub(super) fn step(&mut self) {
        self.reader = vec![None; FRAME];
        self.writer = vec![None; FRAME];
    }

    /// A kernel, or none if the slots do not allow the one drawn.
    pub(super) fn kernel(&mut self) {
        match below(&mut self.rng, 7) {
            0..3 => self.elementwise(),
            3 => self.transform(true),
            4 => self.transform(false),
            _ => self.convert(),
        }
    }

    /// Writes the results but those that come from others: each the sum of an argument, or a constant, and everything that has
    /// its prime.
    pub(super) fn end(&mut self, received: &[Operand]) {
        for (i, prime) in self.function.results.clone().into_iter().enumerate() {
            if received.contains(&Operand::Result(i as u32)) {
                continue;
            }
            let arg = self.function.args.iter().position(|&p| p == prime);
            let mut loads = vec![arg.map_or(self.constant(prime), |arg| Operand::Arg(arg as u32))];
            let slots = (0..FRAME).filter(|&slot| self.holds[slot] == prime && !self.awaits[slot]);
            loads.extend(slots.map(|slot| Operand::Local(slot as u32)));
            let mut instructions: Vec<Instruction> = (0..loads.len() as u16).map(Instruction::Load).collect();
            let mut sum = 0;
            for load in 1..loads.len() as u16 {
                instructions.push(Instruction::Add(sum, load));
                sum = instructions.len() as u16 - 1;
            }
            let stores = vec![Operand::Result(i as u32)];
            let block = Block { prime, loads, stores, scalars: vec![], galois: vec![] };
            let program = Program { instructions, results: vec![sum] };
            self.launch(Body::Elementwise { program, blocks: vec![block] });
        }
    }

    pub(super) fn function(self) -> Function {
        self.function
    }

    pub(super) fn results(&self) -> &[PrimeIndex] {
        &self.function.results
    }

    fn launch(&mut self, body: Body) {
        let stage = StageId(below(&mut self.rng, STAGES) as u16);
        self.function.steps.push(Step::Launch(Kernel { stage, body }));
    }

    /// A slot that block `block` may read.
    fn readable(&mut self, block: usize, prime: Option<PrimeIndex>) -> Option<usize> {
        let start = below(&mut self.rng, FRAME);
        let slot = (start..start + FRAME).map(|slot| slot % FRAME).find(|&slot| {
            self.writer[slot].is_none()
                && !self.awaits[slot]
                && prime.is_none_or(|prime| self.holds[slot] == prime)
        })?;
        self.reader[slot] = match self.reader[slot] {
            Some(other) if other != block => Some(usize::MAX),
            _ => Some(block),
        };
        Some(slot)
    }

    /// A slot that block `block` may write, one that it reads if it `may_overwrite` that.
    fn writable(&mut self, block: usize, may_overwrite: impl Fn(usize) -> bool) -> Option<usize> {
        let start = below(&mut self.rng, FRAME);
        let free = |slot: &usize| self.sent[*slot] == 0 && !self.awaits[*slot];
        let slots = || (start..start + FRAME).map(|slot| slot % FRAME).filter(free);
        let own = |&slot: &usize| {
            self.writer[slot].is_none() && self.reader[slot] == Some(block) && may_overwrite(slot)
        };
        let other = |&slot: &usize| self.writer[slot].is_none() && self.reader[slot].is_none();
        let slot = match self.rng.next_u32() % 2 {
            0 => slots().find(own).or_else(|| slots().find(other)),
            _ => slots().find(other).or_else(|| slots().find(own)),
        }?;
        self.writer[slot] = Some(block);
        Some(slot)
    }

    /// The next block of a kernel whose programs have this shape, modulo `prime` or any.
    fn block(&mut self, block: usize, prime: Option<PrimeIndex>, shape: &Shape) -> Option<Block> {
        let mut loads = Vec::new();
        let prime = match prime {
            Some(prime) => prime,
            None => {
                let slot = self.readable(block, None)?;
                loads.push(Operand::Local(slot as u32));
                self.holds[slot]
            }
        };
        while loads.len() < LOADS {
            loads.push(self.operand(block, prime));
        }
        for &load in &shape.moved {
            if let Operand::Local(slot) = loads[usize::from(load)] {
                self.reader[slot as usize] = Some(usize::MAX);
            }
        }
        let mut stores = Vec::new();
        for store in 0..shape.stores {
            let late = |slot: usize| {
                shape.late.iter().any(|&load| loads[usize::from(load)] == Operand::Local(slot as u32))
            };
            let slot = self.writable(block, |slot| store >= shape.early || !late(slot))?;
            stores.push(Operand::Local(slot as u32));
        }
        let q = self.params.modulus(prime).value();
        let scalars = (0..2).map(|_| 1 + self.rng.next_u32() % (q - 1)).collect();
        let galois = (0..2).map(|_| self.galois()).collect();
        Some(Block { prime, loads, stores, scalars, galois })
    }

    fn galois(&mut self) -> u32 {
        let log_n = self.params.log_n();
        match below(&mut self.rng, 4) {
            0 => 2 * below(&mut self.rng, self.params.n()) as u32 + 1,
            1 => conjugation_element(log_n),
            _ => galois_element(log_n, 1 << below(&mut self.rng, log_n as usize)),
        }
    }

    fn elementwise(&mut self) {
        let results = 1 + below(&mut self.rng, 3);
        let program = self.program(false, results);
        let shape = Shape::default().with(&program);
        let blocks = self.blocks(&shape);
        if !blocks.is_empty() {
            self.launch(Body::Elementwise { program, blocks });
        }
    }

    /// A few blocks of one shape.
    fn blocks(&mut self, shape: &Shape) -> Vec<Block> {
        let count = 1 + below(&mut self.rng, 4);
        let blocks: Vec<Block> = (0..count).map_while(|block| self.block(block, None, shape)).collect();
        self.hold_stores(&blocks);
        blocks
    }

    /// An operand modulo `prime`: a slot, an argument, a plaintext or a key.
    fn operand(&mut self, block: usize, prime: PrimeIndex) -> Operand {
        let pool = self.params.q_basis().union(self.params.p_basis());
        let choice = below(&mut self.rng, 5);
        let limb = pool.position(prime).expect("a prime of the pool") as u16;
        if choice == 0 {
            return Operand::Plain {
                plaintext: below(&mut self.rng, self.function.plaintexts.len()) as u32,
                limb,
            };
        }
        let key = below(&mut self.rng, self.keys.len());
        if choice == 1 && self.keys[key].basis(self.params).contains(prime) {
            let digit = below(&mut self.rng, self.keys[key].digits(self.params).len()) as u8;
            let half = if self.rng.next_u32() & 1 == 0 { Half::A } else { Half::B };
            return Operand::Key { key: key as u32, digit, half, prime };
        }
        if choice == 2
            && let Some(arg) = self.function.args.iter().position(|&p| p == prime)
        {
            return Operand::Arg(arg as u32);
        }
        match self.readable(block, Some(prime)) {
            Some(slot) => Operand::Local(slot as u32),
            None => self.constant(prime),
        }
    }

    fn program(&mut self, input: bool, results: usize) -> Program {
        let mut instructions: Vec<Instruction> = (0..LOADS as u16).map(Instruction::Load).collect();
        // Registers that may be permuted: all that do not depend on the input.
        let mut movable = vec![true; LOADS];
        if input {
            instructions.push(Instruction::Input);
            movable.push(false);
        }
        for _ in 0..below(&mut self.rng, 14) {
            let count = instructions.len();
            let mut register = || below(&mut self.rng, count) as Register;
            let (a, b, index) = (register(), register(), register() % 2);
            let choice = below(&mut self.rng, 11);
            let mut register = || below(&mut self.rng, count) as Register;
            instructions.push(match choice {
                0 => Instruction::Add(a, b),
                1 => Instruction::Sub(a, b),
                2 => Instruction::Neg(a),
                3 => Instruction::Mul(a, b),
                4 => Instruction::MontMul(a, b),
                5 => Instruction::MulScalar(a, index),
                6 => Instruction::AddScalar(a, index),
                7 | 8 if movable[usize::from(a)] => Instruction::Permute(a, index),
                9 => {
                    // A dot product that has factors in common with an earlier one.
                    let mut pairs = vec![(a, b)];
                    for instruction in instructions.iter().rev() {
                        if let Instruction::Dot(earlier) = instruction {
                            let side = |&(a, b): &(Register, Register)| if index == 0 { a } else { b };
                            pairs = earlier.iter().map(side).map(|common| (register(), common)).collect();
                            break;
                        }
                    }
                    Instruction::Dot(pairs)
                }
                _ => {
                    let pairs = 1 + below(&mut self.rng, 20);
                    let mut register = || below(&mut self.rng, count) as Register;
                    Instruction::Dot((0..pairs).map(|_| (register(), register())).collect())
                }
            });
            let mut unmoved = true;
            instructions[count].for_registers(|register| unmoved &= movable[usize::from(register)]);
            movable.push(unmoved);
        }
        let results = (0..results).map(|_| below(&mut self.rng, instructions.len()) as Register).collect();
        Program { instructions, results }
    }

    fn transform(&mut self, forward: bool) {
        let (mut prologue, mut input) = (Program::load(), 0);
        if below(&mut self.rng, 2) == 0 {
            let results = below(&mut self.rng, 3);
            prologue = self.program(false, results);
            input = below(&mut self.rng, prologue.instructions.len()) as Register;
        }
        let mut epilogue = Program::input();
        if below(&mut self.rng, 2) == 0 {
            let results = 1 + below(&mut self.rng, 3);
            epilogue = self.program(true, results);
        }
        let mut shape = Shape::default().with(&prologue).with(&epilogue);
        shape.early = prologue.results.len() + 1;
        shape.late = epilogue.loads().collect();
        let blocks = self.blocks(&shape);
        if !blocks.is_empty() {
            let transform = Transform { prologue, input, epilogue, blocks };
            self.launch(if forward { Body::Ntt(transform) } else { Body::Intt(transform) });
        }
    }

    fn convert(&mut self) {
        let mut epilogue = Program::input();
        if below(&mut self.rng, 2) == 0 {
            let results = 1 + below(&mut self.rng, 2);
            epilogue = self.program(true, results);
        }
        let shape = Shape::default().with(&epilogue);
        let mut blocks = Vec::new();
        let mut targets_before = 0;
        for _ in 0..1 + below(&mut self.rng, 2) {
            let mut basis = Basis::EMPTY;
            let mut sources = Vec::new();
            for _ in 0..1 + below(&mut self.rng, 5) {
                let Some(slot) = self.readable(usize::MAX, None) else { break };
                let prime = self.holds[slot];
                if !basis.contains(prime) {
                    basis = basis.union([prime].into_iter().collect());
                    sources.push((prime, Operand::Local(slot as u32)));
                }
            }
            let wanted: Basis = random_primes(&mut self.rng, self.params, 6).into_iter().collect();
            let targets: Vec<Block> = (targets_before..)
                .zip(wanted.iter())
                .map_while(|(block, prime)| self.block(block, Some(prime), &shape))
                .collect();
            if sources.is_empty() || targets.is_empty() {
                break;
            }
            targets_before += targets.len();
            blocks.push(BaseConvertBlock { sources, targets });
        }
        for block in &blocks {
            self.hold_stores(&block.targets);
        }
        if !blocks.is_empty() {
            self.launch(Body::BaseConvert { epilogue, blocks });
        }
    }

    /// Operands for a call of `function`, if there are any.
    pub(super) fn call_operands(&mut self, function: &Function) -> Option<(Vec<Operand>, Vec<Operand>)> {
        let args: Option<Vec<Operand>> = function
            .args
            .iter()
            .map(|&prime| self.readable(0, Some(prime)).map(|slot| Operand::Local(slot as u32)))
            .collect();
        let results: Option<Vec<Operand>> = function
            .results
            .iter()
            .map(|_| self.writable(0, |_| false).map(|slot| Operand::Local(slot as u32)))
            .collect();
        args.zip(results)
    }

    /// Adds a call, or what belongs to a collective.
    pub(super) fn push(&mut self, step: Step) {
        self.function.steps.push(step);
    }

    fn hold_stores(&mut self, blocks: &[Block]) {
        for block in blocks {
            self.hold(block.stores.iter().map(|&store| (store, block.prime)).collect());
        }
    }

    pub(super) fn hold(&mut self, written: Vec<(Operand, PrimeIndex)>) {
        for (operand, prime) in written {
            if let Operand::Local(slot) = operand {
                self.holds[slot as usize] = prime;
            }
        }
    }
}
