//! The meaning of an artifact, written down plainly: one kernel after the other, one block after the other, one instruction
//! after the other on whole limbs; several devices in lock step. Knows nothing of pools, tiles, tasks, instruction sets or
//! messages.

use std::collections::HashMap;

use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_ckks::isa::Isa;
use cerium_ckks::ntt;
use cerium_ckks::params::Params;
use cerium_ckks::primes::primitive_root;
use num_complex::Complex64;

type Limb = Vec<u32>;

pub(crate) struct Naive<'a> {
    pub(crate) artifact: &'a Artifact,
    pub(crate) params: &'a Params,
    pub(crate) keys: &'a [EvaluationKey],
    /// Kernels launched so far, by device.
    pub(crate) launches: Vec<u64>,
    /// Those of them that are in functions, by device and by the stage of the entry that called these.
    pub(crate) called: Vec<Vec<u64>>,
    /// That stage, while a function runs.
    pub(crate) caller: Option<StageId>,
    /// Collectives of a run.
    pub(crate) collectives: u64,
    /// Limbs that each device sends in exchanges.
    pub(crate) sent: Vec<u64>,
    /// Limbs that are added up over all devices.
    pub(crate) added: u64,
}

/// A function under way on one device.
struct Activation<'a> {
    device: usize,
    function: &'a Function,
    args: &'a [Limb],
    locals: Vec<Limb>,
    results: Vec<Limb>,
    weights: &'a [WeightId],
    /// Steps done.
    step: usize,
    /// What each collective gives to this device, until it is finished.
    incoming: Vec<Vec<(Operand, Limb)>>,
}

impl<'a> Naive<'a> {
    pub(crate) fn new(artifact: &'a Artifact, params: &'a Params, keys: &'a [EvaluationKey]) -> Naive<'a> {
        let (devices, stages) = (artifact.programs.len(), artifact.stages.len());
        Naive {
            artifact,
            params,
            keys,
            launches: vec![0; devices],
            called: vec![vec![0; stages]; devices],
            caller: None,
            collectives: 0,
            sent: vec![0; devices],
            added: 0,
        }
    }

    /// The result limbs of the entry, in the order of the ports.
    pub(crate) fn run(&mut self, args: &[Limb]) -> Vec<Limb> {
        let mut own = vec![Vec::new(); self.artifact.programs.len()];
        for (prime, limb) in self.primes(&self.artifact.inputs).into_iter().zip(args) {
            own[self.artifact.home(prime).index()].push(limb.clone());
        }
        let results = self.call(self.artifact.programs[0].len() - 1, &own, &[]);
        let mut results: Vec<_> = results.into_iter().map(Vec::into_iter).collect();
        let primes = self.primes(&self.artifact.outputs).into_iter();
        primes.map(|prime| results[self.artifact.home(prime).index()].next().unwrap()).collect()
    }

    fn primes(&self, ports: &[Port]) -> Vec<PrimeIndex> {
        let ciphertexts = ports.iter().flat_map(|port| &port.ciphertexts);
        let bases = ciphertexts.map(|packed| self.params.basis(packed.level));
        bases.flat_map(|basis| basis.iter().chain(basis.iter())).collect()
    }

    /// Runs a function on all devices in lock step: each up to the next thing that all do together, then that. Arguments and
    /// results by device.
    fn call(&mut self, function: usize, args: &[Vec<Limb>], weights: &[WeightId]) -> Vec<Vec<Limb>> {
        let programs = self.artifact.programs.iter().enumerate();
        let mut activations: Vec<Activation> = programs
            .map(|(device, program)| Activation {
                device,
                function: &program[function],
                args: &args[device],
                locals: vec![vec![]; program[function].frame as usize],
                results: vec![vec![]; program[function].results.len()],
                weights,
                step: 0,
                incoming: Vec::new(),
            })
            .collect();
        loop {
            let together = activations.iter_mut().map(|activation| self.advance(activation));
            let together: Vec<Option<&Step>> = together.collect();
            match together[0] {
                None => break,
                Some(Step::Call { stage, function, weights, .. }) => {
                    let caller = self.caller;
                    self.caller = caller.or(Some(*stage));
                    let weights: Vec<WeightId> =
                        weights.iter().map(|&weight| activations[0].resolve(weight)).collect();
                    let bound = activations.iter().zip(&together).map(|(activation, step)| match step {
                        Some(Step::Call { args, .. }) => {
                            args.iter().map(|&arg| self.read(arg, activation)).collect()
                        }
                        other => panic!("one device calls, another does {other:?}"),
                    });
                    let bound: Vec<Vec<Limb>> = bound.collect();
                    let values = self.call(function.0 as usize, &bound, &weights);
                    for ((activation, step), values) in activations.iter_mut().zip(&together).zip(values) {
                        let Some(Step::Call { results, .. }) = step else { unreachable!("seen above") };
                        results
                            .iter()
                            .zip(values)
                            .for_each(|(&result, value)| activation.write(result, value));
                    }
                    self.caller = caller;
                }
                Some(_) => {
                    let movements = together.iter().map(|step| match step {
                        Some(Step::Start(collective)) => &collective.movement,
                        other => panic!("one device starts a collective, another does {other:?}"),
                    });
                    self.collective(&movements.collect::<Vec<_>>(), &mut activations);
                }
            }
        }
        activations.into_iter().map(|activation| activation.results).collect()
    }

    /// Does what a device does on its own; gives the next step that all do together, or none at the end.
    fn advance<'f>(&mut self, activation: &mut Activation<'f>) -> Option<&'f Step> {
        let function: &'f Function = activation.function;
        for step in &function.steps[activation.step..] {
            activation.step += 1;
            match step {
                Step::Launch(kernel) => self.launch(kernel, activation),
                Step::Finish(number) => {
                    for (operand, limb) in std::mem::take(&mut activation.incoming[*number as usize]) {
                        activation.write(operand, limb);
                    }
                }
                Step::Call { .. } | Step::Start(_) => return Some(step),
            }
        }
        None
    }

    /// What all devices have in their slots now is what others will get.
    fn collective(&mut self, movements: &[&Movement], activations: &mut [Activation]) {
        self.collectives += 1;
        let mut incoming = vec![Vec::new(); movements.len()];
        for (to, movement) in movements.iter().enumerate() {
            match movement {
                Movement::Exchange { receives, .. } => {
                    for (from, sender) in movements.iter().enumerate() {
                        let Movement::Exchange { sends, .. } = sender else {
                            panic!("an exchange with a sum")
                        };
                        let sent = sends.iter().filter(|limb| limb.to.index() == to);
                        let received = receives.iter().filter(|limb| limb.from.index() == from);
                        for (send, receive) in sent.zip(received) {
                            self.sent[from] += 1;
                            incoming[to].push((receive.limb, self.read(send.limb, &activations[from])));
                        }
                    }
                }
                Movement::AllReduce { limbs } => {
                    self.added += limbs.len() as u64 * u64::from(to == 0);
                    for (index, &(prime, limb)) in limbs.iter().enumerate() {
                        let q = self.params.modulus(prime);
                        let mut sum = vec![0; self.params.n()];
                        for (other, activation) in movements.iter().zip(&*activations) {
                            let Movement::AllReduce { limbs } = other else {
                                panic!("a sum with an exchange")
                            };
                            let part = self.read(limbs[index].1, activation);
                            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum = q.add(*sum, part));
                        }
                        incoming[to].push((limb, sum));
                    }
                }
            }
        }
        for (activation, incoming) in activations.iter_mut().zip(incoming) {
            // What is on its way is nowhere yet.
            incoming.iter().for_each(|(operand, _)| activation.write(*operand, vec![]));
            activation.incoming.push(incoming);
        }
    }

    fn launch(&mut self, kernel: &Kernel, activation: &mut Activation) {
        self.launches[activation.device] += 1;
        if let Some(caller) = self.caller {
            self.called[activation.device][usize::from(caller.0)] += 1;
        }
        let mut stores: Vec<(Operand, Limb)> = Vec::new();
        let mut store = |stored: &[Operand], program: &Program, registers: &[Limb]| {
            let limbs = program.results.iter().map(|&result| registers[usize::from(result)].clone());
            stores.extend(stored.iter().copied().zip(limbs));
        };
        match &kernel.body {
            Body::Elementwise { program, blocks } => {
                for block in blocks {
                    store(&block.stores, program, &self.registers(program, block, None, activation));
                }
            }
            Body::Ntt(transform) => {
                self.transforms(transform, activation, store, |block, limb| self.ntt(block.prime, limb));
            }
            Body::Intt(transform) => self.transforms(transform, activation, store, |block, limb| {
                let q = self.params.modulus(block.prime);
                let scaled = |&word: &u32| q.mul(word, block.scalars[0]);
                self.intt(block.prime, limb).iter().map(scaled).collect()
            }),
            Body::BaseConvert { epilogue, blocks } => {
                for block in blocks {
                    let sources: Vec<Limb> =
                        block.sources.iter().map(|&(_, source)| self.read(source, activation)).collect();
                    for target in &block.targets {
                        let converted = self.convert(block, &sources, target.prime);
                        let registers = self.registers(epilogue, target, Some(&converted), activation);
                        store(&target.stores, epilogue, &registers);
                    }
                }
            }
        }
        for (store, limb) in stores {
            activation.write(store, limb);
        }
    }

    fn transforms(
        &self,
        transform: &Transform,
        activation: &Activation,
        mut store: impl FnMut(&[Operand], &Program, &[Limb]),
        compute: impl Fn(&Block, &Limb) -> Limb,
    ) {
        for block in &transform.blocks {
            let (before, after) = block.stores.split_at(transform.prologue.results.len());
            let registers = self.registers(&transform.prologue, block, None, activation);
            store(before, &transform.prologue, &registers);
            let limb = compute(block, &registers[usize::from(transform.input)]);
            let registers = self.registers(&transform.epilogue, block, Some(&limb), activation);
            store(after, &transform.epilogue, &registers);
        }
    }

    /// All registers of a program.
    fn registers(
        &self,
        program: &Program,
        block: &Block,
        input: Option<&Limb>,
        activation: &Activation,
    ) -> Vec<Limb> {
        let q = self.params.modulus(block.prime);
        let scalar = |c: &u16| block.scalars[usize::from(*c)];
        let mut registers: Vec<Limb> = Vec::new();
        for instruction in &program.instructions {
            let limb = |register: &Register| &registers[usize::from(*register)];
            let one = |a: &Register, f: &dyn Fn(u32) -> u32| limb(a).iter().map(|&a| f(a)).collect();
            let two = |a: &Register, b: &Register, f: &dyn Fn(u32, u32) -> u32| -> Limb {
                limb(a).iter().zip(limb(b)).map(|(&a, &b)| f(a, b)).collect()
            };
            registers.push(match instruction {
                Instruction::Load(load) => self.read(block.loads[usize::from(*load)], activation),
                Instruction::Input => input.expect("a program with an input").clone(),
                Instruction::Add(a, b) => two(a, b, &|a, b| q.add(a, b)),
                Instruction::Sub(a, b) => two(a, b, &|a, b| q.sub(a, b)),
                Instruction::Neg(a) => one(a, &|a| q.neg(a)),
                Instruction::Mul(a, b) => two(a, b, &|a, b| q.mul(a, b)),
                Instruction::MontMul(a, b) => two(a, b, &|a, b| q.mont_mul(a, b)),
                Instruction::MulScalar(a, c) => one(a, &|a| q.mul(a, scalar(c))),
                Instruction::AddScalar(a, c) => one(a, &|a| q.add(a, scalar(c))),
                Instruction::Dot(pairs) => pairs.iter().fold(vec![0; self.params.n()], |sum, (a, b)| {
                    let products = two(a, b, &|a, b| q.mont_mul(a, b));
                    sum.iter().zip(products).map(|(&sum, product)| q.add(sum, product)).collect()
                }),
                Instruction::Permute(a, galois) => permute(block.galois[usize::from(*galois)], limb(a)),
            });
        }
        registers
    }

    fn read(&self, operand: Operand, activation: &Activation) -> Limb {
        match operand {
            Operand::Local(i) => activation.locals[i as usize].clone(),
            Operand::Arg(i) => activation.args[i as usize].clone(),
            Operand::Result(i) => activation.results[i as usize].clone(),
            Operand::Plain { plaintext, limb } => {
                let plaintext = &activation.function.plaintexts[plaintext as usize];
                self.encode(plaintext, activation.resolve(plaintext.weight), limb.into())
            }
            Operand::Key { key, digit, half, prime } => {
                let view = self.keys[key as usize].view(self.params);
                match half {
                    Half::B => view.b(digit.into(), prime).expect("a validated operand").to_vec(),
                    Half::A => {
                        let mut limb = vec![0; self.params.n()];
                        view.expand_a(self.params, digit.into(), prime, &mut limb);
                        limb
                    }
                }
            }
        }
    }

    /// A limb of a plaintext in full, from all N/2 slots.
    fn encode(&self, plaintext: &Plaintext, weight: WeightId, limb: usize) -> Limb {
        let recipe = &self.artifact.weights[weight.0 as usize];
        let period = 1 << plaintext.log_period;
        let slot = |i: usize| match *recipe {
            Recipe::Gather { tensor, gather, factor } => {
                match self.artifact.gathers[gather.0 as usize][(i + plaintext.rotation as usize) % period] {
                    NO_ELEMENT => Complex64::ZERO,
                    entry => {
                        let values = &self.artifact.tensors[tensor.0 as usize].values;
                        (factor * f64::from(values.get(entry as usize))).into()
                    }
                }
            }
            Recipe::Diagonal { tensor, block, offset, factor } => {
                let (row, shifted) = ((i + plaintext.rotation as usize) % period, offset as usize);
                let column = (row + shifted) % period;
                let [rows, columns] = block.extents.map(|extent| extent as usize);
                let [down, right] = block.strides.map(|stride| stride as usize);
                match row < rows && column < columns {
                    true => {
                        let index = block.first as usize + row * down + column * right;
                        let weight =
                            factor * f64::from(self.artifact.tensors[tensor.0 as usize].values.get(index));
                        if column < row { Complex64::new(0.0, -weight) } else { weight.into() }
                    }
                    false => Complex64::ZERO,
                }
            }
            Recipe::Constant { re, im } => Complex64 { re, im },
            Recipe::Dft { factor, offset, scale } => {
                factor.diagonal(offset)[(i + plaintext.rotation as usize) % period] * scale
            }
        };
        let slots: Vec<Complex64> = (0..period).map(slot).collect();
        let encoder = Encoder::new(self.params);
        let message =
            encoder.encode(self.params, &slots, plaintext.basis, plaintext.scale).expect("small weights");
        message.ntt(self.params).to_mont(self.params).limbs()[limb].clone()
    }

    fn ntt(&self, prime: PrimeIndex, limb: &[u32]) -> Limb {
        let q = self.params.modulus(prime);
        if limb.len() > 64 {
            let mut limb = limb.to_vec();
            self.params.ntt(prime).forward(Isa::Portable, &mut limb);
            return limb;
        }
        ntt::naive::forward(q, primitive_root(q, self.params.log_n()).expect("an NTT prime"), limb)
    }

    fn intt(&self, prime: PrimeIndex, limb: &[u32]) -> Limb {
        let q = self.params.modulus(prime);
        if limb.len() > 64 {
            let mut limb = limb.to_vec();
            self.params.ntt(prime).inverse(Isa::Portable, &mut limb);
            return limb;
        }
        ntt::naive::inverse(q, primitive_root(q, self.params.log_n()).expect("an NTT prime"), limb)
    }

    /// `sum y_i [Q/q_i]_p - v [Q]_p mod p` with `v = floor(sum y_i floor(2^56/q_i) / 2^56 + 1/2)`.
    fn convert(&self, block: &BaseConvertBlock, sources: &[Limb], prime: PrimeIndex) -> Limb {
        let p = self.params.modulus(prime);
        let primes: Vec<u64> =
            block.sources.iter().map(|&(source, _)| self.params.modulus(source).value().into()).collect();
        let product = |skip: usize| {
            let kept = primes.iter().enumerate().filter(|&(i, _)| i != skip);
            kept.fold(1, |product, (_, &q)| p.mul(product, p.reduce_u64(q)))
        };
        (0..self.params.n())
            .map(|j| {
                let fixed: u128 = sources
                    .iter()
                    .zip(&primes)
                    .map(|(y, q)| u128::from(y[j]) * u128::from((1u64 << 56) / q))
                    .sum();
                let v = ((fixed + (1 << 55)) >> 56) as u64;
                let sum = (0..primes.len()).fold(0, |sum, i| p.add(sum, p.mul(sources[i][j], product(i))));
                p.sub(sum, p.mul(p.reduce_u64(v), product(usize::MAX)))
            })
            .collect()
    }
}

impl Activation<'_> {
    fn resolve(&self, weight: WeightRef) -> WeightId {
        match weight {
            WeightRef::Weight(id) => id,
            WeightRef::Param(i) => self.weights[i as usize],
        }
    }

    fn write(&mut self, operand: Operand, limb: Limb) {
        match operand {
            Operand::Local(i) => self.locals[i as usize] = limb,
            Operand::Result(i) => self.results[i as usize] = limb,
            other => panic!("{other:?} cannot be written"),
        }
    }
}

/// Position j holds the value at `psi^e(j)`, e(j) = 2 bitrev(j) + 1; a(X^g) at psi^e is a at psi^(g e).
fn permute(galois: u32, limb: &[u32]) -> Limb {
    let n = limb.len();
    let exponent = |j: usize| 2 * (j.reverse_bits() >> (usize::BITS - n.ilog2())) + 1;
    let place: HashMap<usize, usize> = (0..n).map(|j| (exponent(j), j)).collect();
    (0..n).map(|j| limb[place[&(exponent(j) * galois as usize % (2 * n))]]).collect()
}
