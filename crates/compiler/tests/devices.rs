//! Programs on several devices give the bits of one device, whatever joins the devices and however far communication is merged.

mod keys;
mod programs;

use std::process::{Command, Stdio};

use cerium_artifact::cost::program_traffic;
use cerium_artifact::kernel::Operand;
use cerium_artifact::{Artifact, Movement, Step};
use cerium_ckks::ciphertext::Ciphertext;
use cerium_ckks::evaluation_key::EvaluationKey;
use cerium_ckks::params::{Params, ParamsSpec};
use cerium_compiler::bootstrap;
use cerium_compiler::ciphertext::{BootstrapKind, Steps};
use cerium_compiler::dsl::{Ct, Packing, Program, SourceProgram, Weight};
use cerium_compiler::ir::Trace;
use cerium_compiler::kernel::Fusion;
use cerium_compiler::limb::devices::{Communication, DeviceOptions, Link};
use cerium_compiler::{CompileOptions, compile};
use cerium_runtime::collectives::threads::threads;
use cerium_runtime::collectives::{Collectives, HostCollectives, Patience, mpi};
use cerium_runtime::key_store::KeyPart;
use cerium_runtime::ranks::{Member, Ranks};
use cerium_runtime::{CpuDevice, KeyStore, Session, SessionOptions, progress};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The program on so many devices.
fn on(source: &SourceProgram, devices: DeviceOptions, fusion: Fusion, width: Option<usize>) -> Artifact {
    let options = CompileOptions { devices, fusion, width, ..CompileOptions::default() };
    let artifact = compile(source, &options, &mut Trace::default()).unwrap();
    artifact.validate().unwrap();
    artifact
}

/// What one device computes.
fn alone(
    params: &Params,
    artifact: &Artifact,
    keys: &[EvaluationKey],
    inputs: &[Ciphertext],
) -> Vec<Ciphertext> {
    let store = KeyStore::from_keys(params, &artifact.keys, keys.to_vec(), 1, &progress::silent).unwrap();
    let device = Box::new(CpuDevice::new(1).unwrap());
    let mut session = Session::new(artifact, store, device, 1, &progress::silent).unwrap();
    session.run(inputs).unwrap().0
}

/// The session of a rank: its program, its part of the keys, and one thread.
fn member(
    params: &Params,
    artifact: &Artifact,
    keys: &[EvaluationKey],
    collectives: HostCollectives,
) -> Member {
    let parts = KeyPart::all(artifact, params);
    let part = &parts[collectives.rank()..][..1];
    let stores =
        KeyStore::parts_of_keys(params, &artifact.keys, keys.to_vec(), part, 1, &progress::silent).unwrap();
    let keys = stores.into_iter().next().expect("one part");
    Member { keys, device: Box::new(CpuDevice::new(1).unwrap()), collectives: Box::new(collectives) }
}

/// What ranks that are threads compute, twice.
fn together(
    params: &Params,
    artifact: &Artifact,
    keys: &[EvaluationKey],
    inputs: &[Ciphertext],
) -> Vec<Ciphertext> {
    let all = threads(artifact.programs.len(), Patience::default()).into_iter();
    let members = all.map(|collectives| member(params, artifact, keys, collectives));
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut ranks = Ranks::open(artifact, members.collect(), &options, &progress::silent).unwrap();
    let (first, profiles) = ranks.run(inputs).unwrap();
    let (second, _) = ranks.run(inputs).unwrap();
    assert!(first == second, "a second run gives other words");
    let sums = sent(artifact).1;
    for (rank, profile) in artifact.devices().zip(profiles) {
        let predicted = program_traffic(artifact.functions(rank), artifact.programs.len(), params.log_n());
        let counted = profile.communication.total();
        assert_eq!(counted.collectives, predicted.collectives);
        // Shares of sums differ by a limb.
        assert!(
            sums > 0 || counted.bytes_sent == predicted.bytes,
            "{rank} sends {counted:?}, not {predicted:?}"
        );
    }
    first
}

/// A program on one device, with keys and inputs for it.
struct Known {
    single: Artifact,
    keys: Vec<EvaluationKey>,
    inputs: Vec<Ciphertext>,
}

impl Known {
    fn new(source: &SourceProgram, rng: &mut StdRng) -> Known {
        let params = &source.module.context.params;
        let single = on(source, DeviceOptions::default(), Fusion::Full, None);
        let keys = keys::uniform_keys(params, &single.keys, rng);
        let inputs = keys::uniform_inputs(params, &single, rng);
        Known { single, keys, inputs }
    }
}

/// Holds a program on several devices against one.
fn check(source: &SourceProgram, devices: &[DeviceOptions], rng: &mut StdRng) {
    let params = source.module.context.params.clone();
    let Known { single, keys, inputs } = Known::new(source, rng);
    let expected = alone(&params, &single, &keys, &inputs);
    for &devices in devices {
        let fusion = [Fusion::None, Fusion::Horizontal, Fusion::Full, Fusion::Full][rng.random_range(0..4)];
        let width = [None, Some(rng.random_range(1..64))][rng.random_range(0..2)];
        println!("{devices:?} {fusion:?} {width:?}");
        let artifact = on(source, devices, fusion, width);
        assert_eq!(artifact.keys, single.keys, "all devices together read the keys of one");
        let found = together(&params, &artifact, &keys, &inputs);
        assert!(found == expected, "{devices:?} gives other words");
    }
}

fn options(devices: usize, link: Link, communication: Communication) -> DeviceOptions {
    DeviceOptions { devices, link, communication }
}

/// A random choice for a number of devices.
fn any(devices: usize, rng: &mut StdRng) -> DeviceOptions {
    let link = Link::ALL[rng.random_range(0..Link::ALL.len())];
    options(devices, link, Communication::ALL[rng.random_range(0..Communication::ALL.len())])
}

#[test]
fn random_programs_give_the_bits_of_one_device() {
    let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
    for _ in 0..4 {
        let mut rng = programs::fresh_rng();
        let source = programs::random(&params, &mut rng);
        let devices = [2, 3, 4, 8].map(|devices| any(devices, &mut rng));
        check(&source, &devices, &mut rng);
    }
}

/// A bootstrap of all slots on a small ring.
fn a_bootstrap() -> SourceProgram {
    let params = Params::new(ParamsSpec::insecure_boot(8, 40).unwrap()).unwrap();
    bootstrap::program(&params, BootstrapKind::Complex, params.log_n() - 1)
}

#[test]
fn a_bootstrap_gives_the_bits_of_one_device() {
    let mut rng = programs::fresh_rng();
    let source = a_bootstrap();
    let all = |devices| options(devices, Link::Pcie, Communication::AllReduce);
    let mut devices: Vec<DeviceOptions> = [2, 3, 4, 8].map(all).into();
    devices.push(options(4, Link::Nvlink, Communication::KeySwitching));
    check(&source, &devices, &mut rng);
}

/// `giant` giant steps of a linear transform, each of `baby` diagonals, on slots of a period of all slots.
fn giant_steps(params: &Params, baby: i64, giant: i64) -> SourceProgram {
    let p = Program::new("transform", params);
    let x = p.input("x", Packing::dense(params.slots()));
    let weight = |index: i64| -> Weight {
        let values =
            (0..params.slots()).map(|slot| ((slot as i64 * 31 + index * 7) % 64) as f32 / 64.0 - 0.5);
        let tensor = p.tensor(&format!("w{index}"), values.collect());
        let gather: Vec<u32> = (0..params.slots() as u32).collect();
        p.weight(tensor, &gather, 1.0)
    };
    let diagonals: Vec<(i64, Weight)> = (0..baby * giant).map(|index| (index, weight(index))).collect();
    let y = x.linear_transform_in(Steps::Stride(baby), &diagonals);
    p.output("y", Packing::dense(params.slots()), &y);
    p.finish()
}

#[test]
fn independent_calls_run_on_groups_of_devices() {
    let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let p = Program::new("calls", &params);
    let inner = p.function("inner", 1, &[16], |_, x, w| vec![(&x[0] * &x[0]) * &w[0] + x[0].rotate(3)]);
    let outer = p.function("outer", 1, &[16], |scope, x, w| {
        let y = scope.call(&inner, &[&x[0]], &[&w[0]]).remove(0);
        vec![(y.rotate(1) + &x[0]) * 0.5]
    });
    let weight = |index: usize| {
        let values = (0..16).map(|slot| ((slot * 5 + index * 3) % 16) as f32 / 16.0).collect();
        let tensor = p.tensor(&format!("w{index}"), values);
        p.weight(tensor, &(0..16).collect::<Vec<u32>>(), 1.0)
    };
    let inputs: Vec<Ct> = (0..5).map(|index| p.input(&format!("x{index}"), Packing::dense(16))).collect();
    let mut sum = None;
    for (index, x) in inputs.iter().enumerate() {
        let y = p.call(&outer, &[x], &[&weight(index)]).remove(0);
        sum = Some(sum.map_or(y.clone(), |sum| sum + y));
    }
    let z = p.call(&inner, &[&sum.unwrap()], &[&weight(5)]).remove(0);
    p.output("z", Packing::dense(16), &z);
    let source = p.finish();
    let devices: Vec<DeviceOptions> =
        [2, 3, 4, 8].map(|devices| options(devices, Link::Network, Communication::AllReduce)).into();
    check(&source, &devices, &mut rng);
    let names = |devices| -> Vec<String> {
        let artifact = on(&source, devices, Fusion::Full, None);
        artifact.programs[0].iter().map(|function| function.name.clone()).collect()
    };
    println!("{:?} on 4 devices", names(devices[2]));
    assert_eq!(names(devices[2]), ["inner.x4", "outer.x4", "inner", "outer", "inner.1", "main"]);
}

/// What all devices send in a run, and how many collectives are all-reduces.
fn sent(artifact: &Artifact) -> (u64, usize) {
    let (devices, log_n) = (artifact.programs.len(), artifact.validate().unwrap().log_n());
    let bytes = artifact.programs.iter().map(|program| program_traffic(program, devices, log_n).bytes).sum();
    let steps = artifact.programs[0].iter().flat_map(|function| &function.steps);
    let sums = steps.filter(|step| {
        matches!(step, Step::Start(collective) if matches!(collective.movement, Movement::AllReduce { .. }))
    });
    (bytes, sums.count())
}

#[test]
fn sums_of_many_key_switches_are_aggregated() {
    let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
    let mut rng = programs::fresh_rng();
    let source = giant_steps(&params, 2, 16);
    let link = Link::Network;
    let bytes = |communication| sent(&on(&source, options(4, link, communication), Fusion::Full, None)).0;
    let [groups, aggregation] = [Communication::Groups, Communication::AllReduce].map(bytes);
    println!("{groups} bytes by broadcasts, {aggregation} with aggregation");
    assert!(2 * aggregation < groups);
    let devices: Vec<DeviceOptions> =
        [2, 3, 4, 8].map(|devices| options(devices, link, Communication::AllReduce)).into();
    check(&source, &devices, &mut rng);
    let summed: usize =
        devices.iter().map(|&devices| sent(&on(&source, devices, Fusion::Full, None)).1).sum();
    println!("{summed} all-reduces");
    assert!(summed > 0, "sums that are needed everywhere are all-reduced");
}

#[test]
fn keys_and_plaintexts_are_where_they_are_used() {
    let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
    let source = giant_steps(&params, 4, 4);
    let single = on(&source, DeviceOptions::default(), Fusion::Full, None);
    let whole = KeyPart::all(&single, &params)[0].bytes(&params);
    let four = on(&source, options(4, Link::Nvlink, Communication::Receives), Fusion::Full, None);
    let parts: Vec<u64> = KeyPart::all(&four, &params).iter().map(|part| part.bytes(&params)).collect();
    println!("{whole} bytes of keys on one device, {parts:?} on four");
    // Every limb is on one device, so that together they have no more than one device has.
    assert!(parts.iter().sum::<u64>() <= whole && parts.iter().all(|&part| 2 * part < whole));
    let limbs = |artifact: &Artifact| -> usize {
        let functions = artifact.programs.iter().flatten();
        functions.flat_map(|function| &function.plaintexts).map(|plaintext| plaintext.basis.len()).sum()
    };
    assert_eq!(limbs(&four), limbs(&single), "every limb of a plaintext is on one device");
    let reads = |artifact: &Artifact| -> usize {
        let steps = artifact.programs.iter().flatten().flat_map(|function| &function.steps);
        let kernels = steps.filter_map(|step| match step {
            Step::Launch(kernel) => Some(kernel),
            _ => None,
        });
        let loads = kernels.flat_map(|kernel| kernel.body.blocks()).flat_map(|block| &block.loads);
        loads.filter(|load| matches!(load, Operand::Key { .. })).count()
    };
    assert_eq!(reads(&four), reads(&single), "every product with a key is done once");
}

/// What a rank under `mpirun` does: the program and its seed, and where rank 0 writes its outputs.
const DEED: &str = "CERIUM_TEST_DEED";
const OUTPUT: &str = "CERIUM_TEST_OUTPUT";

/// The program of a deed with its options: every process makes the same one from the seed.
fn of_deed(program: &str, seed: u64, devices: usize) -> (SourceProgram, DeviceOptions, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed);
    let options = any(devices, &mut rng);
    let source = match program {
        "random" => {
            let params = Params::new(ParamsSpec::insecure(10, 30, 8, 3).unwrap()).unwrap();
            programs::random(&params, &mut rng)
        }
        "bootstrap" => a_bootstrap(),
        other => panic!("there is no program {other}"),
    };
    (source, options, rng)
}

/// One of the processes that [`ranks_under_mpi_give_the_bits_of_one_device`] starts.
#[test]
#[ignore = "started by mpirun from another test"]
fn rank() {
    let (Ok(deed), Ok(output)) = (std::env::var(DEED), std::env::var(OUTPUT)) else { return };
    let collectives = mpi::join(Patience::default()).unwrap();
    let (own, size) = (collectives.rank(), collectives.size());
    let (program, seed) = deed.split_once(' ').unwrap();
    let (source, options, mut rng) = of_deed(program, seed.parse().unwrap(), size);
    let params = source.module.context.params.clone();
    let Known { keys, inputs, .. } = Known::new(&source, &mut rng);
    let artifact = on(&source, options, Fusion::Full, None);
    let member = member(&params, &artifact, &keys, collectives);
    let session_options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::join(&artifact, member, &session_options, &progress::silent).unwrap();
    let (outputs, _) = session.run(if own == 0 { &inputs } else { &[] }).unwrap();
    if own == 0 {
        let words: Vec<u32> = outputs.iter().flat_map(|output| output.words().iter().copied()).collect();
        std::fs::write(output, bytemuck::cast_slice::<u32, u8>(&words)).unwrap();
    }
}

#[test]
fn ranks_under_mpi_give_the_bits_of_one_device() {
    if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: there is no mpirun");
        return;
    }
    for program in ["random", "bootstrap"] {
        for devices in [2, 4] {
            let seed: u64 = rand::rng().random();
            let (source, options, mut rng) = of_deed(program, seed, devices);
            println!("{program} {seed} {options:?}");
            let Known { single, keys, inputs } = Known::new(&source, &mut rng);
            let expected = alone(&source.module.context.params, &single, &keys, &inputs);
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join("words");
            let mut command = Command::new("timeout");
            command.args(["240", "mpirun", "--oversubscribe", "--allow-run-as-root", "-np"]);
            command.arg(devices.to_string()).arg(std::env::current_exe().unwrap());
            command.args(["--exact", "rank", "--ignored", "--nocapture"]);
            let ended = command.env(DEED, format!("{program} {seed}")).env(OUTPUT, &output).output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            let expected: Vec<u32> = expected.iter().flat_map(|c| c.words().iter().copied()).collect();
            let found = std::fs::read(&output).unwrap();
            assert!(
                found == bytemuck::cast_slice::<u32, u8>(&expected),
                "{program} {seed} gives other words"
            );
        }
    }
}
