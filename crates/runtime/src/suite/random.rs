//! Random valid artifacts.

use std::collections::HashSet;

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::automorphism::{conjugation_element, galois_element};
use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::below;

/// Frame slots of every function.
const FRAME: usize = 24;
const STAGES: usize = 3;
/// Loads of every block.
const LOADS: usize = 5;

/// Eight weights, in 32 bits or in 16.
fn weights(rng: &mut ChaCha8Rng) -> Values {
    let short = below(rng, 2) == 0;
    let weight = |_| match short {
        true => below(rng, 256) as f32 / 256.0,
        false => rng.next_u32() as f32 / 4e9,
    };
    Values::from((0..8).map(weight).collect::<Vec<f32>>())
}

/// A random program in a ring of degree `2^log_n`, from 4 to 17: functions that call earlier ones, kernels of all classes on random operands, in place and not.
pub fn artifact(rng: &mut ChaCha8Rng, log_n: u8) -> Artifact {
    let params = Params::new(small_params(log_n)).expect("a valid set");
    let level = params.max_level();
    let galois = |r| KeyKind::Rotation(galois_element(log_n.into(), r));
    let keys = vec![
        KeyRequest { kind: KeyKind::Relinearization, level },
        KeyRequest { kind: galois(3), level: Level(1) },
    ];
    let tensors = vec![Tensor { name: "w".into(), values: weights(rng) }];
    let gathers: Vec<Vec<u32>> = [1, 4, 4, params.slots()]
        .map(|period| (0..period).map(|_| [0, 3, 7, NO_ELEMENT][below(rng, 4)]).collect())
        .into();
    let recipe = |gather, factor| Recipe::Gather { tensor: TensorId(0), gather: GatherId(gather), factor };
    // Weights 1, 2, 4 and 7 have one period, and 4 is 2 again.
    let mut weights = vec![recipe(0, 1.0), recipe(1, -0.5), recipe(2, 0.25), recipe(3, 1.0), recipe(2, 0.25)];
    weights.push(Recipe::Constant { re: -2.0, im: 1.0 });
    let factor = DftFactor { direction: Direction::CoeffsToSlots, log_slots: 3, first: 1, stages: 1 };
    weights.push(Recipe::Dft { factor, offset: -2, scale: 0.75 });
    let block = MatrixBlock { first: 1, strides: [1, 2], extents: [4, 2], log_period: 2 };
    weights.push(Recipe::Diagonal {
        tensor: TensorId(0),
        block,
        offset: below(rng, 4) as u32,
        factor: -0.75,
    });
    let mut functions: Vec<Function> = Vec::new();
    for _ in 0..3 {
        let args = random_primes(rng, &params, 6);
        let results = (0..3).map(|_| args[below(rng, args.len())]).collect();
        let function = Builder::new(rng, &params, &keys, &functions, args, results, 1).build();
        functions.push(function);
    }
    let basis = params.basis(level);
    let ends: Vec<PrimeIndex> = basis.iter().chain(basis.iter()).collect();
    let entry = Builder::new(rng, &params, &keys, &functions, ends.clone(), ends, 0).build();
    functions.push(entry);
    let port = |name: &str, gather| Port {
        name: name.into(),
        shape: vec![8],
        batch: 1,
        ciphertexts: vec![PackedCiphertext {
            level,
            scale: params.scale(level),
            gather: GatherId(gather),
            factor: 1.0,
            error: 0.0,
        }],
    };
    let mut gathers = gathers;
    gathers.push((0..8).collect());
    let stage = |i| Stage {
        name: format!("stage{i}"),
        level_in: level,
        level_out: level,
        operations: vec![],
        error: 0.0,
    };
    let artifact = Artifact {
        name: "random".into(),
        params: params.spec().clone(),
        programs: vec![functions],
        homes: Vec::new(),
        inputs: vec![port("x", 1)],
        outputs: vec![port("y", 4)],
        keys,
        weights,
        gathers,
        tensors,
        stages: (0..STAGES).map(stage).collect(),
        passes: Vec::new(),
        key_plan: None,
        normalization: None,
        model: Vec::new(),
    };
    artifact.validate().expect("only valid artifacts are made here");
    artifact
}

/// A small insecure set.
pub fn small_params(log_n: u8) -> ParamsSpec {
    ParamsSpec::insecure(log_n, 30, 3, 2).expect("primes for a small set")
}

fn random_primes(rng: &mut ChaCha8Rng, params: &Params, count: usize) -> Vec<PrimeIndex> {
    (0..count).map(|_| PrimeIndex(below(rng, params.moduli().len()) as u8)).collect()
}

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

/// Makes one function step by step, keeping track of what every slot holds.
struct Builder<'a> {
    rng: &'a mut ChaCha8Rng,
    params: &'a Params,
    keys: &'a [KeyRequest],
    earlier: &'a [Function],
    function: Function,
    holds: Vec<PrimeIndex>,
    /// Block that reads or writes a slot in the kernel being made.
    reader: Vec<Option<usize>>,
    writer: Vec<Option<usize>>,
}

impl<'a> Builder<'a> {
    fn new(
        rng: &'a mut ChaCha8Rng,
        params: &'a Params,
        keys: &'a [KeyRequest],
        earlier: &'a [Function],
        args: Vec<PrimeIndex>,
        results: Vec<PrimeIndex>,
        weight_params: u32,
    ) -> Builder<'a> {
        let basis = params.q_basis().union(params.p_basis());
        let plaintext = |weight, log_period, rotation, bits: i32| Plaintext {
            weight,
            basis,
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
        let name = format!("f{}", earlier.len());
        let function =
            Function { name, args, results, weight_params, plaintexts, frame: FRAME as u32, steps: vec![] };
        let holds = (0..FRAME).map(|i| function.args[i % function.args.len()]).collect();
        Builder { rng, params, keys, earlier, function, holds, reader: vec![], writer: vec![] }
    }

    fn build(mut self) -> Function {
        // Copies of the arguments, so that every slot holds something.
        let copies = (0..FRAME).map(|i| Block {
            prime: self.holds[i],
            loads: vec![Operand::Arg((i % self.function.args.len()) as u32)],
            stores: vec![Operand::Local(i as u32)],
            scalars: vec![],
            galois: vec![],
        });
        let blocks = copies.collect();
        let program = Program { instructions: vec![Instruction::Load(0)], results: vec![0] };
        self.launch(Body::Elementwise { program, blocks });
        for _ in 0..12 {
            self.reader = vec![None; FRAME];
            self.writer = vec![None; FRAME];
            match below(self.rng, 8) {
                0..3 => self.elementwise(),
                3 => self.transform(true),
                4 => self.transform(false),
                5..7 => self.convert(),
                _ => self.call(),
            }
        }
        // Results: each the sum of an argument and everything that has its prime.
        for (i, prime) in self.function.results.clone().into_iter().enumerate() {
            let arg = self
                .function
                .args
                .iter()
                .position(|&p| p == prime)
                .expect("results have primes of arguments");
            let mut loads = vec![Operand::Arg(arg as u32)];
            loads.extend((0..FRAME as u32).filter(|&s| self.holds[s as usize] == prime).map(Operand::Local));
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
        self.function
    }

    fn launch(&mut self, body: Body) {
        let stage = StageId(below(self.rng, STAGES) as u16);
        self.function.steps.push(Step::Launch(Kernel { stage, body }));
    }

    /// A slot that block `block` may read.
    fn readable(&mut self, block: usize, prime: Option<PrimeIndex>) -> Option<usize> {
        let start = below(self.rng, FRAME);
        let slot = (start..start + FRAME).map(|slot| slot % FRAME).find(|&slot| {
            self.writer[slot].is_none() && prime.is_none_or(|prime| self.holds[slot] == prime)
        })?;
        self.reader[slot] = match self.reader[slot] {
            Some(other) if other != block => Some(usize::MAX),
            _ => Some(block),
        };
        Some(slot)
    }

    /// A slot that block `block` may write, one that it reads if it `may_overwrite` that.
    fn writable(&mut self, block: usize, may_overwrite: impl Fn(usize) -> bool) -> Option<usize> {
        let start = below(self.rng, FRAME);
        let slots = || (start..start + FRAME).map(|slot| slot % FRAME);
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
        match below(self.rng, 4) {
            0 => 2 * below(self.rng, self.params.n()) as u32 + 1,
            1 => conjugation_element(log_n),
            _ => galois_element(log_n, 1 << below(self.rng, log_n as usize)),
        }
    }

    fn elementwise(&mut self) {
        let results = 1 + below(self.rng, 3);
        let program = self.program(false, results);
        let shape = Shape::default().with(&program);
        let blocks = self.blocks(&shape);
        if !blocks.is_empty() {
            self.launch(Body::Elementwise { program, blocks });
        }
    }

    /// A few blocks of one shape.
    fn blocks(&mut self, shape: &Shape) -> Vec<Block> {
        let count = 1 + below(self.rng, 4);
        let blocks: Vec<Block> = (0..count).map_while(|block| self.block(block, None, shape)).collect();
        self.hold_stores(&blocks);
        blocks
    }

    /// An operand modulo `prime`: a slot, an argument, a plaintext or a key.
    fn operand(&mut self, block: usize, prime: PrimeIndex) -> Operand {
        let pool = self.params.q_basis().union(self.params.p_basis());
        let choice = below(self.rng, 5);
        let limb = pool.position(prime).expect("a prime of the pool") as u16;
        if choice == 0 {
            return Operand::Plain {
                plaintext: below(self.rng, self.function.plaintexts.len()) as u32,
                limb,
            };
        }
        let key = below(self.rng, self.keys.len());
        if choice == 1 && self.keys[key].basis(self.params).contains(prime) {
            let digit = below(self.rng, self.keys[key].digits(self.params).len()) as u8;
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
            None => Operand::Plain { plaintext: 0, limb },
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
        for _ in 0..below(self.rng, 14) {
            let count = instructions.len();
            let mut register = || below(self.rng, count) as Register;
            let (a, b, index) = (register(), register(), register() % 2);
            let choice = below(self.rng, 11);
            let mut register = || below(self.rng, count) as Register;
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
                    let pairs = 1 + below(self.rng, 20);
                    let mut register = || below(self.rng, count) as Register;
                    Instruction::Dot((0..pairs).map(|_| (register(), register())).collect())
                }
            });
            let mut unmoved = true;
            instructions[count].for_registers(|register| unmoved &= movable[usize::from(register)]);
            movable.push(unmoved);
        }
        let results = (0..results).map(|_| below(self.rng, instructions.len()) as Register).collect();
        Program { instructions, results }
    }

    fn transform(&mut self, forward: bool) {
        let (mut prologue, mut input) = (Program::load(), 0);
        if below(self.rng, 2) == 0 {
            let results = below(self.rng, 3);
            prologue = self.program(false, results);
            input = below(self.rng, prologue.instructions.len()) as Register;
        }
        let mut epilogue = Program::input();
        if below(self.rng, 2) == 0 {
            let results = 1 + below(self.rng, 3);
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
        if below(self.rng, 2) == 0 {
            let results = 1 + below(self.rng, 2);
            epilogue = self.program(true, results);
        }
        let shape = Shape::default().with(&epilogue);
        let mut blocks = Vec::new();
        let mut targets_before = 0;
        for _ in 0..1 + below(self.rng, 2) {
            let mut basis = Basis::EMPTY;
            let mut sources = Vec::new();
            for _ in 0..1 + below(self.rng, 5) {
                let Some(slot) = self.readable(usize::MAX, None) else { break };
                let prime = self.holds[slot];
                if !basis.contains(prime) {
                    basis = basis.union([prime].into_iter().collect());
                    sources.push((prime, Operand::Local(slot as u32)));
                }
            }
            let wanted: Basis = random_primes(self.rng, self.params, 6).into_iter().collect();
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

    fn call(&mut self) {
        let Some(callee) = below(self.rng, self.earlier.len() + 1).checked_sub(1) else { return };
        let function = &self.earlier[callee];
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
        let (Some(args), Some(results)) = (args, results) else { return };
        self.hold(results.iter().copied().zip(function.results.iter().copied()).collect());
        let weight = match below(self.rng, 4) {
            3 if self.function.weight_params > 0 => WeightRef::Param(0),
            i => WeightRef::Weight(WeightId([1, 2, 4, 7][i % 4])),
        };
        let function = FunctionId(callee as u32);
        let stage = StageId(below(self.rng, STAGES) as u16);
        self.function.steps.push(Step::Call { stage, function, args, results, weights: vec![weight] });
    }

    fn hold_stores(&mut self, blocks: &[Block]) {
        for block in blocks {
            self.hold(block.stores.iter().map(|&store| (store, block.prime)).collect());
        }
    }

    fn hold(&mut self, written: Vec<(Operand, PrimeIndex)>) {
        for (operand, prime) in written {
            if let Operand::Local(slot) = operand {
                self.holds[slot as usize] = prime;
            }
        }
    }
}
