//! What kernels have in common is one source; what tells them apart is data in rows of equal length.

use cerium_artifact::kernel::{BaseConvertBlock, Block, Half, Instruction, Program, Transform};
use cerium_artifact::{Function, Kernel, Operand, Plaintext, StageId, WeightId, WeightRef};
use cerium_ckks::basis::{Basis, PrimeIndex, Scale};
use cerium_ckks::params::ParamsSpec;

use super::abi::{BlockShape, LoadKind};
use super::*;

const LOG_N: u32 = 13;

fn params() -> Params {
    let spec = ParamsSpec::insecure(LOG_N as u8, 30, 8, 3).expect("a small set");
    Params::new(spec).expect("a good set")
}

/// A function with plaintexts of these periods.
fn function(log_periods: &[u32]) -> Function {
    let plaintext = |&log_period: &u32| Plaintext {
        weight: WeightRef::Weight(WeightId(0)),
        basis: Basis::range(0, 2),
        modulus: Basis::range(0, 2),
        scale: Scale(1.0),
        rotation: 0,
        log_period,
    };
    Function {
        name: "f".to_string(),
        args: Vec::new(),
        results: Vec::new(),
        weight_params: 0,
        plaintexts: log_periods.iter().map(plaintext).collect(),
        frame: 100,
        steps: Vec::new(),
    }
}

fn block(prime: u8, loads: &[Operand], stores: &[u32]) -> Block {
    let stores = stores.iter().map(|&slot| Operand::Local(slot)).collect();
    Block { prime: PrimeIndex(prime), loads: loads.to_vec(), stores, scalars: Vec::new(), galois: Vec::new() }
}

fn emit(emitter: &mut Emitter<'_>, function: &Function, body: Body) -> Vec<Launch> {
    emitter.emit(function, &Kernel { stage: StageId(0), body })
}

/// Pointers and constants of every launch fill its rows.
fn row_lengths(launch: &Launch) -> (usize, usize) {
    let rows = launch.grid[1] as usize;
    assert_eq!((launch.pointers.len() % rows, launch.constants.len() % rows), (0, 0));
    (launch.pointers.len() / rows, launch.constants.len() / rows)
}

#[test]
fn primes_slots_and_constants_are_data() {
    let params = params();
    let mut emitter = Emitter::new(&params);
    let instructions = vec![Instruction::Load(0), Instruction::MulScalar(0, 0), Instruction::Permute(1, 0)];
    let program = Program { instructions, results: vec![2] };
    let limb = |prime: u8, slot: u32, scalar: u32, galois: u32| Block {
        scalars: vec![scalar],
        galois: vec![galois],
        ..block(prime, &[Operand::Local(slot)], &[slot + 1])
    };
    let kernel = |blocks: Vec<Block>| Body::Elementwise { program: program.clone(), blocks };
    let one = emit(&mut emitter, &function(&[]), kernel(vec![limb(0, 0, 5, 3)]));
    let two = emit(&mut emitter, &function(&[]), kernel(vec![limb(1, 6, 7, 9), limb(2, 8, 1, 5)]));
    let [one, two] = [&one, &two].map(|launches| &launches[..]);
    let ([one], [two]) = (one, two) else { panic!("an elementwise kernel is one launch") };
    assert_eq!((one.source, emitter.sources().len()), (two.source, 1));
    assert_eq!((one.grid[1], two.grid[1]), (1, 2));
    let positions = one.grid[0] * one.block;
    assert_eq!((1 << LOG_N) % positions, 0, "threads share the limb evenly");
    let q = params.modulus(PrimeIndex(2));
    let factor = q.shoup(1);
    let [value, inverse, r2, index] = abi::head(&params, PrimeIndex(2));
    assert_eq!(q.value().wrapping_mul(inverse), u32::MAX, "-1 modulo 2^32");
    let (pointers, constants) = row_lengths(two);
    assert_eq!(two.constants[constants..], [value, inverse, r2, index, factor.w, factor.w_shoup, 0, 5]);
    let limbs = [8, 9].map(|slot| Pointer::Limb(Operand::Local(slot)));
    assert_eq!(two.pointers[pointers..], limbs);
    let text = &emitter.sources()[0].text;
    assert!(text.contains(&emitter.sources()[0].entry) && !text.contains(abi::ENTRY));
}

#[test]
fn loads_of_several_kinds_take_the_common_way() {
    let params = params();
    let function = function(&[LOG_N - 1, LOG_N - 2, 4]);
    let plain = |plaintext| Operand::Plain { plaintext, limb: 0 };
    let key = Operand::Key { key: 0, digit: 0, half: Half::A, prime: PrimeIndex(0) };
    let kind = |loads: &[Operand]| {
        let blocks: Vec<Block> = loads.iter().map(|&load| block(0, &[load], &[0])).collect();
        BlockShape::of(&params, &function, &blocks).loads[0]
    };
    assert_eq!(kind(&[Operand::Local(1)]), LoadKind::Limb);
    assert_eq!(kind(&[key]), LoadKind::Key);
    assert_eq!(kind(&[plain(0)]), LoadKind::Limb, "a full period");
    assert_eq!(kind(&[plain(1)]), LoadKind::ShortRuns, "two equal words");
    assert_eq!(kind(&[plain(2)]), LoadKind::Runs);
    assert_eq!(kind(&[plain(2), plain(2)]), LoadKind::Runs);
    assert_eq!(kind(&[key, Operand::Local(1)]), LoadKind::Limb);
    assert_eq!(kind(&[plain(2), Operand::Local(1)]), LoadKind::ShortRuns);
}

#[test]
fn conversions_fill_their_rows() {
    let params = params();
    let mut emitter = Emitter::new(&params);
    let conversion = |sources: u8, targets: u8| BaseConvertBlock {
        sources: (0..sources).map(|i| (PrimeIndex(i), Operand::Local(i.into()))).collect(),
        targets: (0..targets).map(|i| block(5 + i % 4, &[], &[20 + u32::from(i)])).collect(),
    };
    let blocks = vec![conversion(3, 4), conversion(2, 9), conversion(3, 1)];
    let launches =
        emit(&mut emitter, &function(&[]), Body::BaseConvert { epilogue: Program::input(), blocks });
    assert_eq!(launches.len(), 2, "one for each number of sources");
    assert_eq!(launches.iter().map(|launch| launch.grid[1]).collect::<Vec<u32>>(), [3, 2]);
    for (launch, sources) in launches.iter().zip([2u8, 3]) {
        let (pointers, constants) = row_lengths(launch);
        assert_eq!(constants % 4, 0, "factors are loaded four at a time");
        let mut targets = 0;
        for row in launch.pointers.chunks(pointers).zip(launch.constants.chunks(constants)) {
            let (row, count) = (row.0, row.1[0] as usize);
            assert!((1..=pointers - usize::from(sources)).contains(&count));
            for (i, pointer) in row[..sources.into()].iter().enumerate() {
                assert_eq!(*pointer, Pointer::Limb(Operand::Local(i as u32)));
            }
            targets += count;
        }
        assert_eq!(targets, if sources == 2 { 9 } else { 5 });
    }
}

#[test]
fn kernels_of_a_transform_share_the_part_without_program() {
    let params = params();
    let mut emitter = Emitter::new(&params);
    let add = vec![Instruction::Input, Instruction::Load(1), Instruction::Add(0, 1)];
    let loads = [Operand::Local(0), Operand::Local(1)];
    let plain = Transform {
        prologue: Program::load(),
        input: 0,
        epilogue: Program::input(),
        blocks: vec![block(0, &loads[..1], &[2])],
    };
    let added = Transform {
        epilogue: Program { instructions: add, results: vec![2] },
        blocks: vec![block(1, &loads, &[3])],
        ..plain.clone()
    };
    let plain = emit(&mut emitter, &function(&[]), Body::Ntt(plain));
    let added = emit(&mut emitter, &function(&[]), Body::Ntt(added));
    let sources = |launches: &[Launch]| launches.iter().map(|l| l.source).collect::<Vec<SourceId>>();
    let (plain_sources, added_sources) = (sources(&plain), sources(&added));
    assert_eq!((plain_sources.len(), added_sources.len()), (2, 2));
    assert_eq!(plain_sources[0], added_sources[0]);
    assert_ne!(plain_sources[1], added_sources[1]);
    // The first takes what is transformed and the home, the second the home and what is added.
    let limbs = |slots: [u32; 2]| slots.map(|slot| Pointer::Limb(Operand::Local(slot)));
    assert_eq!(added[0].pointers, limbs([0, 3]));
    assert_eq!(added[1].pointers, limbs([1, 3]));
}
