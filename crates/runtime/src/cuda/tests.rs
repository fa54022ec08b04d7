//! The device on a GPU that only remembers: memory, copies, and what every launch was given. `bind` is computed, so that the
//! pointers of each launch are those that kernels would see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cerium_artifact::kernel::{Block, Body, Half, Instruction, Kernel, Program};
use cerium_artifact::{
    Artifact, Function, FunctionId, GatherId, Operand, PackedCiphertext, Plaintext, Port, Recipe, Stage,
    StageId, Step, Tensor, TensorId, WeightId, WeightRef,
};
use cerium_ckks::basis::{Level, PrimeIndex, Scale};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::evaluation_key::{EvaluationKey, KeyKind, KeyRequest};
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_emit::cuda::Source;
use rand_core::RngCore;

use super::gpu::{Argument, Call, FunctionIndex, Gpu, GpuAddress, GraphIndex};
use super::host::{HostGpu, Order};
use super::{CudaDevice, CudaError, CudaOptions};
use crate::device::{Device, DeviceError};
use crate::progress::silent;
use crate::testing::fresh_rng;
use crate::{CpuDevice, KernelClass, KeyStore, Profile, Session, SessionError, SessionOptions};

/// What a launch was given when it ran.
#[derive(Clone, Debug)]
struct Launched {
    entry: String,
    rows: u32,
    pointers: GpuAddress,
    constants: GpuAddress,
    /// The memory at that time.
    memory: BTreeMap<u64, Vec<u8>>,
}

#[derive(Default)]
struct State {
    /// Allocations by address.
    memory: BTreeMap<u64, Vec<u8>>,
    next: u64,
    capacity: u64,
    entries: Vec<String>,
    graphs: Vec<Vec<Call>>,
    launched: Vec<Launched>,
    marks: usize,
}

/// A GPU that remembers.
#[derive(Clone)]
struct Memory(Arc<Mutex<State>>);

/// The bytes at an address, which lie within one allocation.
fn at(memory: &BTreeMap<u64, Vec<u8>>, address: GpuAddress, bytes: usize) -> &[u8] {
    let (start, allocation) = memory.range(..=address.0).next_back().expect("an allocation");
    &allocation[(address.0 - start) as usize..][..bytes]
}

fn words(memory: &BTreeMap<u64, Vec<u8>>, address: u64, count: usize) -> Vec<u32> {
    at(memory, GpuAddress(address), 4 * count).chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

fn longs(memory: &BTreeMap<u64, Vec<u8>>, address: GpuAddress, count: usize) -> Vec<u64> {
    at(memory, address, 8 * count).chunks_exact(8).map(bytemuck::pod_read_unaligned).collect()
}

impl State {
    fn write(&mut self, to: GpuAddress, bytes: &[u8]) {
        let (start, allocation) = self.memory.range_mut(..=to.0).next_back().expect("an allocation");
        allocation[(to.0 - start) as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn call(&mut self, call: &Call) {
        let entry = self.entries[call.function.0].clone();
        match call.arguments[..] {
            [
                Argument::Address(codes),
                Argument::Address(table),
                Argument::Address(pointers),
                Argument::Word(count),
            ] => {
                assert_eq!(entry, "bind");
                assert!(call.grid[0] * call.block >= count);
                let codes = longs(&self.memory, codes, count as usize);
                let resolved: Vec<u64> = codes
                    .iter()
                    .map(|code| {
                        longs(&self.memory, table.offset(8 * (code >> 40)), 1)[0] + (code & 0xff_ffff_ffff)
                    })
                    .collect();
                self.write(pointers, bytemuck::cast_slice(&resolved));
            }
            [Argument::Address(pointers), Argument::Address(constants), Argument::Address(tables)] => {
                assert!([pointers.0, constants.0, tables.0].iter().all(|address| address % 16 == 0));
                let (rows, memory) = (call.grid[1], self.memory.clone());
                self.launched.push(Launched { entry, rows, pointers, constants, memory });
            }
            _ => panic!("{call:?}"),
        }
    }
}

impl Gpu for Memory {
    fn name(&self) -> String {
        "memory".to_string()
    }

    fn memory(&mut self) -> Result<(u64, u64), CudaError> {
        let state = self.0.lock().unwrap();
        let used: usize = state.memory.values().map(Vec::len).sum();
        Ok((state.capacity - used as u64, state.capacity))
    }

    fn allocate(&mut self, bytes: u64) -> Result<Option<GpuAddress>, CudaError> {
        if bytes > self.memory()?.0 {
            return Ok(None);
        }
        let mut state = self.0.lock().unwrap();
        let address = state.next.next_multiple_of(256) + 256; // never next to another
        state.next = address + bytes;
        state.memory.insert(address, vec![0xee; bytes as usize]);
        Ok(Some(GpuAddress(address)))
    }

    fn reset(&mut self) -> Result<(), CudaError> {
        let capacity = self.0.lock().unwrap().capacity;
        *self.0.lock().unwrap() = State { capacity, ..State::default() };
        Ok(())
    }

    fn write(&mut self, to: GpuAddress, bytes: &[u8]) -> Result<(), CudaError> {
        self.0.lock().unwrap().write(to, bytes);
        Ok(())
    }

    fn read(&mut self, from: GpuAddress, bytes: &mut [u8]) -> Result<(), CudaError> {
        bytes.copy_from_slice(at(&self.0.lock().unwrap().memory, from, bytes.len()));
        Ok(())
    }

    fn copy(&mut self, to: GpuAddress, from: GpuAddress, bytes: u64) -> Result<(), CudaError> {
        let mut state = self.0.lock().unwrap();
        let copied = at(&state.memory, from, bytes as usize).to_vec();
        state.write(to, &copied);
        Ok(())
    }

    fn load(&mut self, sources: &[(Source, u32)]) -> Result<Vec<FunctionIndex>, CudaError> {
        let mut state = self.0.lock().unwrap();
        state.entries.extend(sources.iter().map(|(source, _)| source.entry.clone()));
        Ok((state.entries.len() - sources.len()..state.entries.len()).map(FunctionIndex).collect())
    }

    fn call(&mut self, call: &Call) -> Result<(), CudaError> {
        self.0.lock().unwrap().call(call);
        Ok(())
    }

    fn record(&mut self, calls: &[Call]) -> Result<GraphIndex, CudaError> {
        let mut state = self.0.lock().unwrap();
        state.graphs.push(calls.to_vec());
        Ok(GraphIndex(state.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphIndex) -> Result<(), CudaError> {
        let mut state = self.0.lock().unwrap();
        let calls = state.graphs[graph.0].clone();
        calls.iter().for_each(|call| state.call(call));
        Ok(())
    }

    fn mark(&mut self) -> Result<usize, CudaError> {
        let mut state = self.0.lock().unwrap();
        state.marks += 1;
        Ok(state.marks - 1)
    }

    /// The k-th stretch lasts k seconds.
    fn elapsed(&mut self) -> Result<Vec<f64>, CudaError> {
        let marks = std::mem::take(&mut self.0.lock().unwrap().marks);
        Ok((1..marks).map(|k| k as f64).collect())
    }

    fn synchronise(&mut self) -> Result<(), CudaError> {
        Ok(())
    }
}

/// `scaled(x) = (x * weight * constant) * key`, called twice with different weights, between a copy and a product.
struct Case {
    params: Params,
    artifact: Artifact,
    keys: EvaluationKey,
    /// Primes of all limbs of a ciphertext.
    ends: Vec<PrimeIndex>,
}

impl Case {
    fn new() -> Case {
        use Instruction::{Load, MontMul};
        use Operand::{Arg, Local, Plain, Result};
        let params = Params::new(ParamsSpec::insecure(5, 30, 3, 2).unwrap()).unwrap();
        let level = Level(0);
        let basis = params.basis(level);
        let ends: Vec<PrimeIndex> = basis.iter().chain(basis.iter()).collect();
        let limbs = ends.len() as u32;
        let plain = |plaintext, i: u32| Plain { plaintext, limb: (i % (limbs / 2)) as u16 };
        let key = |digit, half| Operand::Key { key: 0, digit, half, prime: ends[0] };
        let block = |i: u32, loads, store| Block {
            prime: ends[i as usize],
            loads,
            stores: vec![store],
            scalars: vec![],
            galois: vec![],
        };
        let kernel = |stage, instructions: Vec<Instruction>, blocks| {
            let results = vec![instructions.len() as u16 - 1];
            let program = Program { instructions, results };
            Step::Launch(Kernel { stage: StageId(stage), body: Body::Elementwise { program, blocks } })
        };
        let each = |make: &dyn Fn(u32) -> Block| (0..limbs).map(make).collect::<Vec<Block>>();
        let copy = || vec![Load(0)];
        let product = || vec![Load(0), Load(1), MontMul(0, 1)];
        let plaintext = |weight, log_period| {
            let scale = Scale(2f64.powi(20));
            Plaintext { weight, basis, modulus: basis, scale, rotation: 0, log_period }
        };
        let scaled = Function {
            name: "scaled".into(),
            args: ends.clone(),
            results: ends.clone(),
            weight_params: 1,
            plaintexts: vec![plaintext(WeightRef::Weight(WeightId(2)), 0), plaintext(WeightRef::Param(0), 2)],
            frame: limbs,
            steps: vec![
                kernel(0, product(), each(&|i| block(i, vec![Arg(i), plain(1, i)], Local(i)))),
                kernel(0, product(), each(&|i| block(i, vec![Local(i), plain(0, i)], Local(i)))),
                kernel(1, product(), vec![block(0, vec![Local(0), key(1, Half::B)], Result(0))]),
                kernel(1, copy(), each(&|i| block(i, vec![Local(i)], Result(i)))[1..].to_vec()),
            ],
        };
        let call = |from: &dyn Fn(u32) -> Operand, to: &dyn Fn(u32) -> Operand, weight| Step::Call {
            stage: StageId(0),
            function: FunctionId(0),
            args: (0..limbs).map(from).collect(),
            results: (0..limbs).map(to).collect(),
            weights: vec![WeightRef::Weight(WeightId(weight))],
        };
        let main = Function {
            name: "main".into(),
            args: ends.clone(),
            results: ends.clone(),
            weight_params: 0,
            plaintexts: vec![],
            frame: 2 * limbs,
            steps: vec![
                kernel(0, copy(), each(&|i| block(i, vec![Arg(i)], Local(i)))),
                call(&Local, &|i| Local(limbs + i), 0),
                call(&|i| Local(limbs + i), &Result, 1),
                kernel(1, product(), vec![block(0, vec![Result(0), key(0, Half::A)], Local(0))]),
            ],
        };
        let packed = PackedCiphertext {
            level,
            scale: params.scale(level),
            gather: GatherId(0),
            factor: 1.0,
            error: 0.0,
        };
        let port =
            |name: &str| Port { name: name.into(), shape: vec![4], batch: 1, ciphertexts: vec![packed] };
        let stage = |name: &str| Stage {
            name: name.into(),
            level_in: level,
            level_out: level,
            operations: vec![],
            error: 0.0,
        };
        let weight = |factor| Recipe::Gather { tensor: TensorId(0), gather: GatherId(0), factor };
        let request = KeyRequest { kind: KeyKind::Relinearization, level: params.max_level() };
        let artifact = Artifact {
            name: "scaled twice".into(),
            params: params.spec().clone(),
            programs: vec![vec![scaled, main]],
            homes: Vec::new(),
            communication: Vec::new(),
            inputs: vec![port("x")],
            outputs: vec![port("y")],
            keys: vec![request],
            weights: vec![weight(1.0), weight(-2.0), Recipe::Constant { re: 3.0, im: 0.5 }],
            gathers: vec![(0..4).collect()],
            tensors: vec![Tensor { name: "w".into(), values: vec![0.5, 0.25, -1.0, 0.125].into() }],
            stages: vec![stage("first"), stage("second")],
            passes: Vec::new(),
            key_plan: None,
            normalization: None,
            model: Vec::new(),
        };
        artifact.validate().unwrap();
        let keys = random_key(&params, request);
        Case { params, artifact, keys, ends }
    }

    fn key_store(&self) -> KeyStore {
        let keys = vec![self.keys.clone()];
        KeyStore::from_keys(&self.params, &self.artifact.keys, keys, 1, &silent).unwrap()
    }

    fn session(&self, gpu: &Memory, profile: bool) -> Result<Session, SessionError> {
        let device = CudaDevice::on(Box::new(gpu.clone()), profile);
        Session::new(&self.artifact, self.key_store(), Box::new(device), 1, &silent)
    }

    fn run(&self, session: &mut Session) -> Profile {
        let words = vec![7; self.ends.len() * self.params.n()];
        let (level, scale) = (Level(0), self.params.scale(Level(0)));
        let input = Ciphertext::new(&self.params, level, scale, 2, words).unwrap();
        session.run(&[input]).unwrap().1
    }

    /// The compact words of a limb of a plaintext of `scaled`.
    fn plaintext(&self, weight: u32, log_period: u32, limb: usize) -> Vec<u32> {
        let recipe = &self.artifact.weights[weight as usize];
        let mut slots = recipe.slots(&self.artifact.tensors, &self.artifact.gathers).into_iter().collect();
        let basis = self.params.basis(Level(0));
        let mut out = vec![0; (2 << log_period) * basis.len()];
        let scale = Scale(2f64.powi(20));
        Encoder::new(&self.params)
            .encode_compact(&self.params, &mut slots, basis, basis, scale, &mut out)
            .unwrap();
        out[limb * (2 << log_period)..][..2 << log_period].to_vec()
    }
}

fn random_key(params: &Params, request: KeyRequest) -> EvaluationKey {
    let mut rng = fresh_rng();
    let primes = request.digits(params).into_iter().flat_map(|_| request.basis(params).iter());
    let words = primes.flat_map(|prime| {
        let q = params.modulus(prime).value();
        (0..params.n()).map(|_| rng.next_u32() % q).collect::<Vec<u32>>()
    });
    let words = words.collect();
    EvaluationKey::new(params, request, [5; 32], words).unwrap()
}

fn gpu(capacity: u64) -> Memory {
    Memory(Arc::new(Mutex::new(State { capacity, ..State::default() })))
}

/// What a pointer of a launch should point to.
enum Expected {
    /// Slot of the pool.
    Slot(usize),
    /// Memory with these words.
    Words(Vec<u32>),
}

#[test]
fn launches_see_the_limbs_that_the_program_names() {
    use Expected::{Slot, Words};
    let case = Case::new();
    let (gpu, n, limbs) = (gpu(1 << 24), case.params.n(), case.ends.len());
    let mut session = case.session(&gpu, false).unwrap();
    let keys = case.key_store();
    // Slots: arguments, results, the frame of main (two ciphertexts), that of scaled.
    let (args, results, x, y, frame) = (0, limbs, 2 * limbs, 3 * limbs, 4 * limbs);
    let scaled = |from: usize, to: usize, weight: u32| -> Vec<Vec<Vec<Expected>>> {
        let plain = |weight, period, i| Words(case.plaintext(weight, period, i % (limbs / 2)));
        let row = |i: usize, factor| vec![Slot(frame + i), factor, Slot(frame + i)];
        let key = Words(keys.limb(0, 1, Half::B, case.ends[0]).to_vec());
        vec![
            (0..limbs).map(|i| vec![Slot(from + i), plain(weight, 2, i), Slot(frame + i)]).collect(),
            (0..limbs).map(|i| row(i, plain(2, 0, i))).collect(),
            vec![vec![Slot(frame), key, Slot(to)]],
            (1..limbs).map(|i| vec![Slot(frame + i), Slot(to + i)]).collect(),
        ]
    };
    let mut expected = vec![(0..limbs).map(|i| vec![Slot(args + i), Slot(x + i)]).collect()];
    expected.extend(scaled(x, y, 0));
    expected.extend(scaled(y, results, 1));
    let key = Words(keys.limb(0, 0, Half::A, case.ends[0]).to_vec());
    expected.push(vec![vec![Slot(results), key, Slot(x)]]);

    // Twice: nothing of the first run may show in the second.
    for _ in 0..2 {
        gpu.0.lock().unwrap().launched.clear();
        case.run(&mut session);
        let state = gpu.0.lock().unwrap();
        // Nothing was allocated before the pool.
        let pool = *state.memory.keys().next().unwrap();
        assert_eq!(state.launched.len(), expected.len());
        for (launch, (launched, rows)) in state.launched.iter().zip(&expected).enumerate() {
            assert_eq!(launched.rows as usize, rows.len(), "launch {launch}");
            let count: usize = rows.iter().map(Vec::len).sum();
            let pointers = longs(&launched.memory, launched.pointers, count);
            for (position, (&pointer, expected)) in pointers.iter().zip(rows.iter().flatten()).enumerate() {
                let place = format!("launch {launch}, pointer {position}");
                match expected {
                    Slot(slot) => assert_eq!(pointer, pool + (4 * n * slot) as u64, "{place}"),
                    Words(wanted) => {
                        assert_eq!(words(&launched.memory, pointer, wanted.len()), *wanted, "{place}");
                        let aligned = wanted.len() < 4 || pointer % 16 == 0;
                        assert!(aligned, "{place}");
                    }
                }
            }
            // The constants of a row begin with its prime.
            let first = words(&launched.memory, launched.constants.0, 1);
            let row = if launch == 4 || launch == 8 { 1 } else { 0 };
            assert_eq!(first, [case.params.modulus(case.ends[row]).value()], "launch {launch}");
        }
        let entries: Vec<&str> = state.launched.iter().map(|launched| launched.entry.as_str()).collect();
        assert_eq!(entries[1..5], entries[5..9], "calls of a function launch the same kernels");
        assert!(!entries.contains(&"bind"));
        // Each run was recorded once: two of main, one of scaled.
        assert_eq!(state.graphs.len(), 3);
    }
}

#[test]
fn times_are_counted_for_their_stage() {
    let case = Case::new();
    let gpu = gpu(1 << 24);
    let mut session = case.session(&gpu, true).unwrap();
    for _ in 0..2 {
        let profile = case.run(&mut session);
        let seconds = |stage| profile.usage.get(StageId(stage), KernelClass::Elementwise).busy.as_secs();
        // The stretches of a run last 1, 2, ... seconds: one of main, twice the two of scaled, one of main.
        assert_eq!((seconds(0), seconds(1)), (1 + 1 + 1, 2 + 2 + 1));
        assert_eq!(profile.usage.total().launches, 10);
    }
    assert!(gpu.0.lock().unwrap().graphs.is_empty());
    // What is not timed has no time.
    let mut session = case.session(&gpu, false).unwrap();
    let usage = case.run(&mut session).usage.total();
    assert_eq!((usage.launches, usage.busy.as_secs()), (10, 0));
}

#[test]
fn what_does_not_fit_is_named_with_its_figures() {
    let case = Case::new();
    let everything = |state: &State| state.memory.values().map(Vec::len).sum::<usize>() as u64;
    let enough = gpu(1 << 24);
    let session = case.session(&enough, false).unwrap();
    let needed = everything(&enough.0.lock().unwrap());
    assert_eq!(session.memory().pool, (5 * case.ends.len() * 4 * case.params.n()) as u64);
    let refused = |capacity| match case.session(&gpu(capacity), false).map(|_| ()).unwrap_err() {
        SessionError::Device(DeviceError::Cuda(error)) => error,
        other => panic!("{other}"),
    };
    let pool = session.memory().pool;
    // Encoded weights come last.
    let last = refused(needed - 1);
    assert!(matches!(last, CudaError::OutOfMemory { free, .. } if free == needed - 1), "{last}");
    let text = last.to_string();
    assert!(text.contains(&format!("{pool} bytes for working memory")), "{text}");
    // Those that kernels read: two limbs.
    assert!(text.contains("256 bytes for evaluation keys"), "{text}");
    assert!(text.contains(" for tables, ") && text.contains(" for encoded weights;"), "{text}");
    assert!(text.contains("--device cpu"), "{text}");
    // When the first piece does not fit, keys are among the figures.
    let first = refused(100).to_string();
    assert!(
        first.contains("100 bytes of 100 bytes free") && first.contains("256 bytes for evaluation"),
        "{first}"
    );
}

/// With too little memory for all encoded weights, the words are those of the CPU.
#[test]
fn weights_are_encoded_before_the_runs_that_read_them() {
    let Some(host) = HostGpu::new(Order::Descending) else {
        println!("skipped: there is no C++ compiler");
        return;
    };
    let case = Case::new();
    let mut rng = fresh_rng();
    let (level, scale) = (Level(0), case.params.scale(Level(0)));
    let limb = |prime| {
        let q = case.params.modulus(prime).value();
        (0..case.params.n()).map(|_| rng.next_u32() % q).collect::<Vec<u32>>()
    };
    let words = case.ends.iter().copied().flat_map(limb).collect();
    let input = [Ciphertext::new(&case.params, level, scale, 2, words).unwrap()];
    let run = |device: Box<dyn Device>, plaintext_memory: u64| {
        let options = SessionOptions { threads: 1, plaintext_memory: Some(plaintext_memory) };
        let session = Session::with_options(&case.artifact, case.key_store(), device, &options, &silent);
        let mut session = session.unwrap();
        let outputs = [(); 2].map(|()| session.run(&input).unwrap().0[0].words().to_vec());
        (outputs, session.memory())
    };
    let (expected, memory) = run(Box::new(CpuDevice::new(1).unwrap()), u64::MAX);
    let (outputs, tight) = run(Box::new(CudaDevice::on(Box::new(host), false)), memory.plaintexts - 4);
    assert!(tight.plaintexts < memory.plaintexts && tight.raw_weights > 0, "{tight:?} of {memory:?}");
    assert_eq!(outputs, expected);
}

#[test]
fn a_second_program_takes_the_place_of_the_first() {
    let case = Case::new();
    let gpu = gpu(1 << 24);
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut session = case.session(&gpu, false).unwrap();
        case.run(&mut session);
        let state = gpu.0.lock().unwrap();
        taken.push((state.memory.len(), state.entries.len(), state.graphs.len()));
    }
    assert_eq!(taken[0], taken[1]);
}

#[test]
fn machines_without_a_gpu_say_so() {
    match CudaDevice::new(CudaOptions::default()) {
        Ok(device) => println!("skipped: this machine has {}", device.name()),
        Err(DeviceError::Cuda(error)) => {
            assert!(!matches!(error, CudaError::Nvrtc(_) | CudaError::OutOfMemory { .. }), "{error}");
            assert!(error.to_string().contains("--device cpu"), "{error}");
        }
        Err(other) => panic!("{other}"),
    }
}
