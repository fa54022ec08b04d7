//! What the host finds in wrong kernels, and that transforms of every degree are right.

use cerium_artifact::kernel::{Block, Body, Instruction, Program, Transform};
use cerium_artifact::{Function, Kernel, Operand, StageId};
use cerium_ckks::automorphism::Automorphism;
use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_emit::cuda::{Emitter, Launch, Pointer, Source, tables};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::super::gpu::{Argument, Call, Gpu, GpuAddress};
use super::{HostGpu, Order};
use crate::testing::fresh_rng;

/// The host, or a word that there is no compiler.
fn host(order: Order) -> Option<HostGpu> {
    let gpu = HostGpu::new(order);
    if gpu.is_none() {
        println!("skipped: there is no C++ compiler");
    }
    gpu
}

/// A buffer on the host that holds `words`.
fn place(gpu: &mut HostGpu, words: &[u32]) -> GpuAddress {
    let address = gpu.allocate(4 * words.len() as u64).unwrap().unwrap();
    gpu.write(address, bytemuck::cast_slice(words)).unwrap();
    address
}

fn words(gpu: &mut HostGpu, address: GpuAddress, count: usize) -> Vec<u32> {
    let mut words = vec![0; count];
    gpu.read(address, bytemuck::cast_slice_mut(&mut words)).unwrap();
    words
}

/// Runs a kernel of one block of 64 threads, with the body `body`, on 64 words from 100 on.
fn run(order: Order, body: &str) -> Option<Result<Vec<u32>, String>> {
    let mut gpu = host(order)?;
    let name = format!("test_{}", &blake3::hash(body.as_bytes()).to_hex()[..16]);
    let text = format!("extern \"C\" __global__ void {name}(unsigned* x) {{ {body} }}");
    let function = gpu.load(&[(Source { entry: name, text }, 0)]).unwrap()[0];
    let x = place(&mut gpu, &(100..164).collect::<Vec<u32>>());
    let arguments = vec![Argument::Address(x)];
    let outcome = gpu.call(&Call { function, grid: [1, 1], block: 64, shared_bytes: 0, arguments });
    let outcome = outcome.and_then(|()| gpu.synchronise());
    Some(match outcome {
        Ok(()) => Ok(words(&mut gpu, x, 64)),
        Err(error) => Err(error.to_string()),
    })
}

const ORDERS: [Order; 3] = [Order::Ascending, Order::Descending, Order::Shuffled(7)];

#[test]
fn barriers_order_what_threads_do() {
    let reversed = "__shared__ unsigned s[64]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = s[63 - threadIdx.x];";
    for order in ORDERS {
        let Some(result) = run(order, reversed) else { return };
        assert_eq!(result.unwrap(), (100..164).rev().collect::<Vec<u32>>(), "{order:?}");
    }
}

#[test]
fn a_missing_barrier_is_seen_in_some_order() {
    let next = "x[threadIdx.x] = x[(threadIdx.x + 1) % 64];";
    let mut results = ORDERS.into_iter().filter_map(|order| run(order, next)).map(Result::unwrap);
    let Some(first) = results.next() else { return };
    assert!(results.any(|other| other != first));
}

#[test]
fn wrong_kernels_are_refused() {
    let cases = [
        ("if (threadIdx.x < 7) __syncthreads();", "only some threads"),
        ("x[threadIdx.x + 1] = 0;", "behind the end of 256 bytes"),
        ("x[threadIdx.x] = nonsense;", "refuses a kernel"),
    ];
    for (body, expected) in cases {
        if body.contains("nonsense") {
            let Some(mut gpu) = host(Order::Ascending) else { return };
            let text = format!("extern \"C\" __global__ void test_nonsense(unsigned* x) {{ {body} }}");
            let error = gpu.load(&[(Source { entry: "test_nonsense".into(), text }, 0)]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        } else {
            let Some(result) = run(Order::Ascending, body) else { return };
            let error = result.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

/// Slots of a transform with programs: three loads, three stores.
const SLOTS: usize = 6;

/// A transform of `load 1 -+ load 0`, which it stores; then of what was transformed and load 2 the difference, and that times a
/// scalar. What is in the evaluation domain goes through an automorphism.
fn transform(params: &Params, inverse: bool, rng: &mut ChaCha8Rng) -> Transform {
    use Instruction::{Add, Input, Load, MulScalar, Neg, Permute, Sub};
    let prologue = if inverse { Permute(0, 0) } else { Neg(0) };
    let epilogue = if inverse { Neg(1) } else { Permute(1, 0) };
    let primes = params.moduli().len();
    let block = |row: usize, rng: &mut ChaCha8Rng| {
        let prime = PrimeIndex((row % primes) as u8);
        let q = params.modulus(prime).value();
        Block {
            prime,
            loads: (0..3).map(|i| Operand::Local((SLOTS * row + i) as u32)).collect(),
            stores: (3..6).map(|i| Operand::Local((SLOTS * row + i) as u32)).collect(),
            scalars: (0..2).map(|_| 1 + rng.next_u32() % (q - 1)).collect(),
            galois: vec![(rng.next_u32() % (2 * params.n() as u32)) | 1],
        }
    };
    Transform {
        prologue: Program { instructions: vec![Load(0), prologue, Load(1), Add(1, 2)], results: vec![3] },
        input: 3,
        epilogue: Program {
            instructions: vec![Input, Load(2), epilogue, Sub(0, 2), MulScalar(3, 1)],
            results: vec![4, 3],
        },
        blocks: (0..3).map(|row| block(row, rng)).collect(),
    }
}

/// What a block of [`transform`] stores, by the transforms and automorphisms of the CPU.
fn expected(params: &Params, block: &Block, inverse: bool, loads: &[Vec<u32>]) -> [Vec<u32>; 3] {
    let (q, isa, table) = (params.modulus(block.prime), Isa::detect(), params.ntt(block.prime));
    let neg = |a: &[u32]| a.iter().map(|&a| q.neg(a)).collect::<Vec<u32>>();
    let permuted = |a: &[u32]| {
        let mut out = vec![0; a.len()];
        Automorphism::new(params.log_n(), block.galois[0]).permute(isa, &mut out, 0, a);
        out
    };
    let zip = |a: &[u32], b: &[u32], f: &dyn Fn(u32, u32) -> u32| {
        a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect::<Vec<u32>>()
    };
    let first = if inverse { permuted(&loads[0]) } else { neg(&loads[0]) };
    let sum = zip(&first, &loads[1], &|a, b| q.add(a, b));
    let mut limb = sum.clone();
    if inverse {
        table.inverse_scaled(isa, &mut limb, block.scalars[0]);
    } else {
        table.forward(isa, &mut limb);
    }
    let last = if inverse { neg(&loads[2]) } else { permuted(&loads[2]) };
    let difference = zip(&limb, &last, &|a, b| q.sub(a, b));
    let scaled = difference.iter().map(|&a| q.mul(a, block.scalars[1])).collect();
    [sum, scaled, difference]
}

/// Launches on slots `pool + index * N`; every row is a prime's.
fn call(
    gpu: &mut HostGpu,
    sources: &[Source],
    launch: &Launch,
    pool: GpuAddress,
    tables: GpuAddress,
    n: u64,
) {
    let source = sources[launch.source.0 as usize].clone();
    let function = gpu.load(&[(source, launch.shared_bytes)]).unwrap()[0];
    let address = |pointer: &Pointer| match pointer {
        Pointer::Limb(Operand::Local(slot)) => pool.offset(4 * n * u64::from(*slot)).0,
        other => panic!("no kernel of this test has {other:?}"),
    };
    let pointers: Vec<u64> = launch.pointers.iter().map(address).collect();
    let pointers = place(gpu, bytemuck::cast_slice(&pointers));
    let constants = place(gpu, &launch.constants);
    let arguments = [pointers, constants, tables].map(Argument::Address).to_vec();
    let (grid, block, shared_bytes) = (launch.grid, launch.block, launch.shared_bytes);
    gpu.call(&Call { function, grid, block, shared_bytes, arguments }).unwrap();
}

/// Transforms of degree `2^log_n` in all directions and orders.
fn transforms_are_right(log_n: u8) {
    let mut rng = fresh_rng();
    let params = Params::new(ParamsSpec::insecure(log_n, 30, 2, 2).unwrap()).unwrap();
    let function = Function {
        name: "f".into(),
        args: vec![],
        results: vec![],
        weight_params: 0,
        plaintexts: vec![],
        frame: 0,
        steps: vec![],
    };
    let n = params.n();
    for inverse in [false, true] {
        for order in [Order::Ascending, Order::Descending, Order::Shuffled(rng.next_u64())] {
            let Some(mut gpu) = host(order) else { return };
            let transform = transform(&params, inverse, &mut rng);
            let mut limbs: Vec<Vec<u32>> = Vec::new();
            for block in &transform.blocks {
                let q = params.modulus(block.prime).value();
                // The ends of the range for one of them.
                limbs.extend((0..2).map(|_| (0..n).map(|_| rng.next_u32() % q).collect()));
                limbs.extend(
                    (0..4).map(|_| (0..n).map(|_| [0, q - 1][rng.next_u32() as usize % 2]).collect()),
                );
            }
            let pool = place(&mut gpu, &limbs.concat());
            let tables = place(&mut gpu, &tables(&params));
            let mut emitter = Emitter::new(&params);
            let body = if inverse { Body::Intt(transform.clone()) } else { Body::Ntt(transform.clone()) };
            for made in emitter.emit(&function, &Kernel { stage: StageId(0), body }) {
                call(&mut gpu, emitter.sources(), &made, pool, tables, n as u64);
            }
            let result = words(&mut gpu, pool, n * limbs.len());
            for (row, block) in transform.blocks.iter().enumerate() {
                let expected = expected(&params, block, inverse, &limbs[SLOTS * row..]);
                let stores = &result[(SLOTS * row + 3) * n..];
                for (store, expected) in stores.chunks(n).zip(expected) {
                    assert!(store == expected, "2^{log_n}, inverse: {inverse}, {order:?}, row {row}");
                }
            }
        }
    }
}

#[test]
fn transforms_of_one_kernel_are_right() {
    [4, 5, 6, 9, 12].into_iter().for_each(transforms_are_right);
}

#[test]
fn transforms_of_two_kernels_are_right() {
    [13, 16, 17].into_iter().for_each(transforms_are_right);
}
