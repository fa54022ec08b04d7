//! Random programs: the statements in the order in which they are written give what the program says, word by word.

use cerium_artifact::Operand;
use cerium_artifact::kernel::{Instruction, Program, Register};
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Modulus;
use cerium_ckks::primes::ntt_primes_below;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::nodes::Action;
use super::*;

const LOG_N: u32 = 5;
const N: usize = 1 << LOG_N;
const LOADS: u16 = 6;
const SCALARS: u16 = 3;
const GALOIS: u16 = 3;

/// A generator with a seed from the operating system, which is printed.
fn fresh_rng() -> ChaCha8Rng {
    let seed = getrandom::u64().expect("the operating system gives randomness");
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    rng.next_u32() as usize % bound
}

/// A program without inputs below permutations: those come last.
fn random_program(rng: &mut ChaCha8Rng, epilogue: bool) -> Program {
    let mut instructions: Vec<Instruction> = (0..LOADS).map(Instruction::Load).collect();
    let mut movable: Vec<Register> = (0..LOADS).collect();
    let mut all = movable.clone();
    if epilogue {
        all.push(instructions.len() as Register);
        instructions.push(Instruction::Input);
    }
    for _ in 0..1 + below(rng, 40) {
        let moved = below(rng, 4) == 0;
        let from: &[Register] = if moved { &movable } else { &all };
        let [a, b] = [0; 2].map(|_| from[below(rng, from.len())]);
        let scalar = below(rng, SCALARS.into()) as u16;
        let instruction = match below(rng, 8) {
            _ if moved => Instruction::Permute(a, below(rng, GALOIS.into()) as u16),
            0 => Instruction::Add(a, b),
            1 => Instruction::Sub(a, b),
            2 => Instruction::Neg(a),
            3 => Instruction::Mul(a, b),
            4 => Instruction::MontMul(a, b),
            5 => Instruction::MulScalar(a, scalar),
            6 => Instruction::AddScalar(a, scalar),
            _ => {
                let factor = |rng: &mut ChaCha8Rng| from[below(rng, from.len())];
                Instruction::Dot((0..1 + below(rng, 40)).map(|_| (factor(rng), factor(rng))).collect())
            }
        };
        let mut moves = true;
        instruction.for_registers(|register| moves &= movable.contains(&register));
        let register = instructions.len() as Register;
        if moves {
            movable.push(register);
        }
        all.push(register);
        instructions.push(instruction);
    }
    let results = (0..1 + below(rng, 4)).map(|_| all[below(rng, all.len())]).collect();
    Program { instructions, results }
}

struct Values {
    q: Modulus,
    loads: Vec<Vec<u32>>,
    input: Vec<u32>,
    scalars: Vec<u32>,
    galois: Vec<Automorphism>,
}

/// The registers of a program for whole limbs, as [`Instruction`] defines them.
fn naive(program: &Program, values: &Values) -> Vec<Vec<u32>> {
    let q = &values.q;
    let mut registers: Vec<Vec<u32>> = Vec::new();
    for instruction in &program.instructions {
        let at = |register: &Register, i: usize| registers[usize::from(*register)][i];
        let limb = |word: &dyn Fn(usize) -> u32| (0..N).map(word).collect::<Vec<u32>>();
        let limb = match instruction {
            Instruction::Load(load) => values.loads[usize::from(*load)].clone(),
            Instruction::Input => values.input.clone(),
            Instruction::Add(a, b) => limb(&|i| q.add(at(a, i), at(b, i))),
            Instruction::Sub(a, b) => limb(&|i| q.sub(at(a, i), at(b, i))),
            Instruction::Neg(a) => limb(&|i| q.neg(at(a, i))),
            Instruction::Mul(a, b) => limb(&|i| q.mul(at(a, i), at(b, i))),
            Instruction::MontMul(a, b) => limb(&|i| q.mont_mul(at(a, i), at(b, i))),
            Instruction::MulScalar(a, s) => limb(&|i| q.mul(at(a, i), values.scalars[usize::from(*s)])),
            Instruction::AddScalar(a, s) => limb(&|i| q.add(at(a, i), values.scalars[usize::from(*s)])),
            Instruction::Dot(pairs) => limb(&|i| {
                let products = pairs.iter().map(|(a, b)| q.mont_mul(at(a, i), at(b, i)));
                products.fold(0, |sum, product| q.add(sum, product))
            }),
            Instruction::Permute(a, g) => {
                let mut out = vec![0; N];
                let source = &registers[usize::from(*a)];
                values.galois[usize::from(*g)].permute(Isa::Portable, &mut out, 0, source);
                out
            }
        };
        registers.push(limb);
    }
    registers
}

/// `permuted` of `device/words.cuh`.
fn permuted(i: u32, g: u32) -> u32 {
    let exponent = i.reverse_bits() >> (31 - LOG_N) | 1;
    (exponent.wrapping_mul(g) << (31 - LOG_N)).reverse_bits() & ((1 << LOG_N) - 1)
}

/// Runs the statements at one position. A slot that is stored is read as stored afterwards, so that a store before a load
/// of its slot shows. Sums are kept as they are on the device. Gives what is returned.
fn run(code: &Code, shape: &BlockShape, values: &Values, slots: &mut [Vec<u32>], at: usize) -> Option<u32> {
    let q = &values.q;
    let mut computed: Vec<Option<u64>> = vec![None; code.nodes.list.len()];
    let mut returned = None;
    for &index in &code.order {
        assert!(computed[index].is_none() && returned.is_none(), "every statement runs once, before the end");
        let value = |node: &usize| computed[*node].expect("operands run before their users");
        let word = |node: &usize| u32::try_from(value(node)).expect("words are canonical");
        let fold = |sum: u64| {
            let twice = u64::from(q.value()) << 33;
            assert!(sum < 2 * twice, "a sum below 4q R is folded");
            if sum >= twice { sum - twice } else { sum }
        };
        computed[index] = Some(match &code.nodes.list[index].action {
            Action::Position { from, galois } => {
                let from = from.as_ref().map_or(at as u32, word);
                permuted(from, values.galois[usize::from(*galois)].element()).into()
            }
            Action::Load { load, at: from } => {
                let position = from.as_ref().map_or(at, |from| word(from) as usize);
                let shared = shape.shared.iter().find(|(l, _)| l == load);
                match shared {
                    Some((_, store)) => slots[usize::from(*store)][position].into(),
                    None => values.loads[usize::from(*load)][position].into(),
                }
            }
            Action::Input => values.input[at].into(),
            Action::Add(a, b) => q.add(word(a), word(b)).into(),
            Action::Sub(a, b) => q.sub(word(a), word(b)).into(),
            Action::Neg(a) => q.neg(word(a)).into(),
            Action::Mul(a, b) => q.mul(word(a), word(b)).into(),
            Action::MontMul(a, b) => q.mont_mul(word(a), word(b)).into(),
            Action::MulScalar(a, s) => q.mul(word(a), values.scalars[usize::from(*s)]).into(),
            Action::AddScalar(a, s) => q.add(word(a), values.scalars[usize::from(*s)]).into(),
            Action::Product { sum, fold: folded, a, b } => {
                let sum = sum.as_ref().map_or(0, value);
                let sum = if *folded { fold(sum) } else { sum };
                sum.checked_add(value(a) * value(b)).expect("sums fit in 64 bits")
            }
            Action::Reduce { sum, products } => {
                let sum = value(sum);
                let bound = (*products as u64).next_power_of_two().max(4) / 4;
                assert!(u128::from(sum) < u128::from(bound * u64::from(q.value())) << 32);
                q.mont_reduce(sum % (u64::from(q.value()) << 32)).into()
            }
            Action::Store { store, value } => {
                slots[*store][at] = word(value);
                0
            }
            Action::Return(value) => {
                returned = Some(word(value));
                0
            }
        });
    }
    returned
}

#[test]
fn statements_in_order_compute_the_program() {
    let mut rng = fresh_rng();
    for round in 0..400 {
        let q = ntt_primes_below(LOG_N, Modulus::TOO_LARGE).next().expect("there are primes");
        let epilogue = round % 2 == 1;
        let program = random_program(&mut rng, epilogue);
        let stores = program.results.len();
        let below_permute: Vec<u16> = program.moved().collect();
        // Some of the loads that stay in place share slots with stores, one each.
        let mut shared: Vec<(u16, u16)> = Vec::new();
        for store in 0..stores as u16 {
            let load = below(&mut rng, LOADS.into()) as u16;
            let free = shared.iter().all(|(l, _)| *l != load) && !below_permute.contains(&load);
            if free && below(&mut rng, 2) == 0 {
                shared.push((load, store));
            }
        }
        let shape = BlockShape {
            loads: vec![LoadKind::Limb; LOADS.into()],
            stores,
            scalars: SCALARS.into(),
            galois: GALOIS.into(),
            shared,
        };
        let mut limb = || (0..N).map(|_| rng.next_u32() % q.value()).collect::<Vec<u32>>();
        let values = Values {
            q,
            loads: (0..LOADS).map(|_| limb()).collect(),
            input: limb(),
            scalars: limb()[..SCALARS.into()].to_vec(),
            galois: (0..GALOIS).map(|_| Automorphism::new(LOG_N, limb()[0] % N as u32 * 2 + 1)).collect(),
        };
        let registers = naive(&program, &values);
        let returned = (round % 4 == 0).then(|| program.results[0]);
        let code = Code::new(&program, &shape, 0, returned, epilogue);
        let mut slots = vec![vec![0; N]; stores];
        for (load, store) in &shape.shared {
            slots[usize::from(*store)] = values.loads[usize::from(*load)].clone();
        }
        let words: Vec<Option<u32>> = (0..N).map(|at| run(&code, &shape, &values, &mut slots, at)).collect();
        if let Some(register) = returned {
            let words: Vec<u32> = words.into_iter().map(|word| word.expect("it returns")).collect();
            assert_eq!(words, registers[usize::from(register)], "round {round}: {program:?}");
        }
        for (slot, register) in slots.iter().zip(&program.results) {
            assert_eq!(slot, &registers[usize::from(*register)], "round {round}: {program:?}");
        }
    }
}

/// `count` rotations of one switched polynomial: sums over digits with keys, permuted; then sums of them with plaintexts.
fn rotations_and_sums(count: u16, sums: u16, digits: u16) -> (Program, usize) {
    let mut instructions: Vec<Instruction> = (0..digits).map(Instruction::Load).collect();
    let mut loads = digits;
    let mut push = |instruction: Instruction| {
        instructions.push(instruction);
        instructions.len() as Register - 1
    };
    let mut load = |push: &mut dyn FnMut(Instruction) -> Register| {
        loads += 1;
        push(Instruction::Load(loads - 1))
    };
    let mut halves = [Vec::new(), Vec::new()];
    for galois in 0..count {
        for half in &mut halves {
            let pairs = (0..digits).map(|digit| (digit, load(&mut push))).collect();
            let sum = push(Instruction::Dot(pairs));
            half.push(push(Instruction::Permute(sum, galois)));
        }
    }
    let mut results = Vec::new();
    for _ in 0..sums {
        let plaintexts: Vec<Register> = (0..count).map(|_| load(&mut push)).collect();
        for half in &halves {
            let pairs = half.iter().copied().zip(plaintexts.iter().copied()).collect();
            results.push(push(Instruction::Dot(pairs)));
        }
    }
    (Program { instructions, results }, loads.into())
}

#[test]
fn rotations_keep_only_their_values_alive() {
    for (count, sums) in [(4, 4), (16, 1), (16, 8)] {
        let (program, loads) = rotations_and_sums(count, sums, 4);
        let shape = BlockShape {
            loads: vec![LoadKind::Limb; loads],
            stores: program.results.len(),
            scalars: 0,
            galois: count.into(),
            shared: Vec::new(),
        };
        let code = Code::elementwise(&program, &shape);
        assert!(code.moves());
        let most = 2 * usize::from(count) + 7;
        assert!(code.live() <= most, "{} words for {count} rotations, {most} are enough", code.live());
        let text = code.function("program", &shape, 16);
        let keys = 2 * 4 * usize::from(count);
        let plaintexts = usize::from(count * sums);
        let gathers = text.matches("gather(").count();
        assert_eq!(gathers, keys + 4 * usize::from(count), "digits once in each view, keys once");
        assert_eq!(text.matches("load<V, STEP>").count(), plaintexts, "plaintexts once for both halves");
    }
}

#[test]
fn a_slot_that_is_stored_is_read_before() {
    use cerium_artifact::kernel::Block;
    use cerium_ckks::basis::PrimeIndex;
    use cerium_ckks::params::{Params, ParamsSpec};

    let spec = ParamsSpec::insecure(11, 30, 2, 2).expect("a small set");
    let params = Params::new(spec).expect("a good set");
    let function = cerium_artifact::Function {
        name: "f".to_string(),
        args: Vec::new(),
        results: Vec::new(),
        weight_params: 0,
        plaintexts: Vec::new(),
        frame: 2,
        steps: Vec::new(),
    };
    let slots = vec![Operand::Local(0), Operand::Local(1)];
    let block = Block {
        prime: PrimeIndex(0),
        loads: slots.clone(),
        stores: slots,
        scalars: Vec::new(),
        galois: Vec::new(),
    };
    let shape = BlockShape::of(&params, &function, [&block]);
    assert_eq!(shape.shared, [(0, 0), (1, 1)]);
    // The limbs change places.
    let instructions = vec![Instruction::Load(0), Instruction::Load(1)];
    let text =
        Code::elementwise(&Program { instructions, results: vec![1, 0] }, &shape).function("f", &shape, 11);
    let position = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
    assert!(position("r1 = load_own") < position("store") && position("r0 = load_own") < position("store"));
}
