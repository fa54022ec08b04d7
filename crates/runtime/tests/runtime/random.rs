//! Random valid artifacts.

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::automorphism::galois_element;
use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::encoding::dft::{DftFactor, Direction};
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};
use cerium_ckks::params::Params;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::{below, small_params};

/// Frame slots of every function.
const FRAME: usize = 24;
const STAGES: usize = 3;

/// A random program: functions that call earlier ones, kernels of all classes on random operands, in place and not.
pub(crate) fn artifact(rng: &mut ChaCha8Rng, log_n: u8) -> Artifact {
    let params = Params::new(small_params(log_n)).expect("a valid set");
    let level = params.max_level();
    let galois = |r| KeyKind::Rotation(galois_element(log_n.into(), r));
    let keys = vec![
        KeyRequest { kind: KeyKind::Relinearization, level },
        KeyRequest { kind: galois(3), level: Level(1) },
    ];
    let tensors =
        vec![Tensor { name: "w".into(), values: (0..8).map(|_| rng.next_u32() as f32 / 4e9).collect() }];
    let gathers: Vec<Vec<u32>> = [1, 4, 4, params.slots()]
        .map(|period| (0..period).map(|_| [0, 3, 7, NO_ELEMENT][below(rng, 4)]).collect())
        .into();
    let recipe = |gather, factor| Recipe::Gather { tensor: TensorId(0), gather: GatherId(gather), factor };
    // Weights 1, 2 and 4 have one period, and 4 is 2 again.
    let mut weights = vec![recipe(0, 1.0), recipe(1, -0.5), recipe(2, 0.25), recipe(3, 1.0), recipe(2, 0.25)];
    weights.push(Recipe::Constant { re: -2.0, im: 1.0 });
    let factor = DftFactor { direction: Direction::CoeffsToSlots, log_slots: 3, first: 1, stages: 1 };
    weights.push(Recipe::Dft { factor, offset: -2, scale: 0.75 });
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
        functions,
        inputs: vec![port("x", 1)],
        outputs: vec![port("y", 4)],
        keys,
        weights,
        gathers,
        tensors,
        stages: (0..STAGES).map(stage).collect(),
        key_plan: None,
        model: Vec::new(),
    };
    artifact.validate().expect("only valid artifacts are made here");
    artifact
}

fn random_primes(rng: &mut ChaCha8Rng, params: &Params, count: usize) -> Vec<PrimeIndex> {
    (0..count).map(|_| PrimeIndex(below(rng, params.moduli().len()) as u8)).collect()
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
        let copies = (0..FRAME).map(|i| ElementwiseBlock {
            prime: self.holds[i],
            loads: vec![Operand::Arg((i % self.function.args.len()) as u32)],
            stores: vec![Operand::Local(i as u32)],
            scalars: vec![],
        });
        let blocks = copies.collect();
        self.launch(Body::Elementwise { program: vec![Instruction::Load(0)], results: vec![0], blocks });
        for _ in 0..12 {
            self.reader = vec![None; FRAME];
            self.writer = vec![None; FRAME];
            match below(self.rng, 8) {
                0..3 => self.elementwise(),
                3 => self.transform(true),
                4 => self.transform(false),
                5 => self.convert(),
                6 => self.permute(),
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
            let mut program: Vec<Instruction> = (0..loads.len() as u16).map(Instruction::Load).collect();
            let mut sum = 0;
            for load in 1..loads.len() as u16 {
                program.push(Instruction::Add(sum, load));
                sum = program.len() as u16 - 1;
            }
            let block =
                ElementwiseBlock { prime, loads, stores: vec![Operand::Result(i as u32)], scalars: vec![] };
            self.launch(Body::Elementwise { program, results: vec![sum], blocks: vec![block] });
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

    /// A slot that block `block` may write; it holds `prime` after the kernel.
    fn writable(&mut self, block: usize, in_place: bool) -> Option<usize> {
        let start = below(self.rng, FRAME);
        let slot = (start..start + FRAME).map(|slot| slot % FRAME).find(|&slot| {
            let unread = self.reader[slot].is_none() || in_place && self.reader[slot] == Some(block);
            self.writer[slot].is_none() && unread
        })?;
        self.writer[slot] = Some(block);
        Some(slot)
    }

    fn elementwise(&mut self) {
        let loads = 1 + below(self.rng, 4);
        let results_count = 1 + below(self.rng, 3);
        let program = self.program(loads);
        let results: Vec<Register> =
            (0..results_count).map(|_| below(self.rng, program.len()) as Register).collect();
        let mut blocks: Vec<ElementwiseBlock> = Vec::new();
        let mut written = Vec::new();
        for block in 0..1 + below(self.rng, 4) {
            let Some(first) = self.readable(block, None) else { break };
            let prime = self.holds[first];
            let mut operands = vec![Operand::Local(first as u32)];
            while operands.len() < loads {
                operands.push(self.operand(block, prime));
            }
            let stores: Vec<Option<usize>> = (0..results_count).map(|_| self.writable(block, true)).collect();
            let Some(stores) = stores.into_iter().collect::<Option<Vec<usize>>>() else { break };
            written.extend(stores.iter().map(|&slot| (slot, prime)));
            let q = self.params.modulus(prime).value();
            blocks.push(ElementwiseBlock {
                prime,
                loads: operands,
                stores: stores.iter().map(|&slot| Operand::Local(slot as u32)).collect(),
                scalars: (0..2).map(|_| self.rng.next_u32() % q).collect(),
            });
        }
        if !blocks.is_empty() {
            written.into_iter().for_each(|(slot, prime)| self.holds[slot] = prime);
            self.launch(Body::Elementwise { program, results, blocks });
        }
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

    fn program(&mut self, loads: usize) -> Vec<Instruction> {
        let mut program: Vec<Instruction> = (0..loads as u16).map(Instruction::Load).collect();
        for _ in 0..below(self.rng, 12) {
            let count = program.len();
            let mut register = || below(self.rng, count) as Register;
            let (a, b, scalar) = (register(), register(), register() % 2);
            program.push(match below(self.rng, 8) {
                0 => Instruction::Add(a, b),
                1 => Instruction::Sub(a, b),
                2 => Instruction::Neg(a),
                3 => Instruction::Mul(a, b),
                4 => Instruction::MontMul(a, b),
                5 => Instruction::MulScalar(a, scalar),
                6 => Instruction::AddScalar(a, scalar),
                _ => {
                    let pairs = 1 + below(self.rng, 20);
                    let mut register = || below(self.rng, count) as Register;
                    Instruction::Dot((0..pairs).map(|_| (register(), register())).collect())
                }
            });
        }
        program
    }

    fn transform(&mut self, forward: bool) {
        let mut blocks = Vec::new();
        for block in 0..1 + below(self.rng, 5) {
            let Some(load) = self.readable(block, None) else { break };
            let Some(store) = self.writable(block, true) else { break };
            let prime = self.holds[load];
            let q = self.params.modulus(prime).value();
            let factor = if forward { 1 } else { 1 + self.rng.next_u32() % (q - 1) };
            let (load, store) = (Operand::Local(load as u32), Operand::Local(store as u32));
            blocks.push(TransformBlock { prime, load, store, factor });
        }
        self.hold(blocks.iter().map(|block| (block.store, block.prime)).collect());
        if !blocks.is_empty() {
            self.launch(if forward { Body::Ntt { blocks } } else { Body::Intt { blocks } });
        }
    }

    fn permute(&mut self) {
        let mut blocks = Vec::new();
        for block in 0..1 + below(self.rng, 5) {
            let Some(load) = self.readable(block, None) else { break };
            let Some(store) = self.writable(block, false) else { break };
            let galois = 2 * below(self.rng, self.params.n()) as u32 + 1;
            let prime = self.holds[load];
            let (load, store) = (Operand::Local(load as u32), Operand::Local(store as u32));
            blocks.push(PermuteBlock { galois, prime, load, store });
        }
        self.hold(blocks.iter().map(|block| (block.store, block.prime)).collect());
        if !blocks.is_empty() {
            self.launch(Body::Permute { blocks });
        }
    }

    fn convert(&mut self) {
        let mut basis = Basis::EMPTY;
        let mut sources = Vec::new();
        for _ in 0..1 + below(self.rng, 5) {
            let Some(slot) = self.readable(0, None) else { break };
            let prime = self.holds[slot];
            if !basis.contains(prime) {
                basis = basis.union([prime].into_iter().collect());
                sources.push((prime, Operand::Local(slot as u32)));
            }
        }
        let wanted: Basis = random_primes(self.rng, self.params, 12).into_iter().collect();
        let mut targets = Vec::new();
        for prime in wanted.iter() {
            let Some(slot) = self.writable(0, false) else { break };
            targets.push((prime, Operand::Local(slot as u32)));
        }
        self.hold(targets.iter().map(|&(prime, target)| (target, prime)).collect());
        if !targets.is_empty() {
            self.launch(Body::BaseConvert { blocks: vec![BaseConvertBlock { sources, targets }] });
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
            .map(|_| self.writable(0, false).map(|slot| Operand::Local(slot as u32)))
            .collect();
        let (Some(args), Some(results)) = (args, results) else { return };
        self.hold(results.iter().copied().zip(function.results.iter().copied()).collect());
        let weight = match below(self.rng, 4) {
            3 if self.function.weight_params > 0 => WeightRef::Param(0),
            i => WeightRef::Weight(WeightId([1, 2, 4][i % 3])),
        };
        let function = FunctionId(callee as u32);
        self.function.steps.push(Step::Call { function, args, results, weights: vec![weight] });
    }

    fn hold(&mut self, written: Vec<(Operand, PrimeIndex)>) {
        for (operand, prime) in written {
            if let Operand::Local(slot) = operand {
                self.holds[slot as usize] = prime;
            }
        }
    }
}
