//! Every rule of validation rejects an artifact that breaks it, and says where.

use crate::sample::{rejected, sample};
use cerium_artifact::kernel::*;
use cerium_artifact::*;
use cerium_ckks::basis::{Basis, Level, PrimeIndex, Scale};
use cerium_ckks::encoding::dft::DftFactor;
use cerium_ckks::evaluation_key::{KeyKind, KeyRequest};

#[test]
fn the_sample_is_valid() {
    let params = sample().validate().unwrap();
    assert_eq!(params.log_n(), 5);
}

/// The body of a launch.
fn body(artifact: &mut Artifact, function: usize, step: usize) -> &mut Body {
    match &mut artifact.programs[0][function].steps[step] {
        Step::Launch(kernel) => &mut kernel.body,
        _ => panic!("step {step} is no launch"),
    }
}

/// The instructions of an elementwise kernel and its blocks.
fn elementwise(
    artifact: &mut Artifact,
    function: usize,
    step: usize,
) -> (&mut Vec<Instruction>, &mut Vec<Block>) {
    match body(artifact, function, step) {
        Body::Elementwise { program, blocks } => (&mut program.instructions, blocks),
        other => panic!("{other:?} is not elementwise"),
    }
}

/// The results of the first kernel.
fn results(artifact: &mut Artifact) -> &mut Vec<Register> {
    match body(artifact, 0, 0) {
        Body::Elementwise { program, .. } => &mut program.results,
        other => panic!("{other:?} is not elementwise"),
    }
}

fn conversion(artifact: &mut Artifact) -> &mut BaseConvertBlock {
    match body(artifact, 1, 2) {
        Body::BaseConvert { blocks, .. } => &mut blocks[0],
        other => panic!("{other:?} is not a conversion"),
    }
}

/// The inverse transform is step 1, the forward one step 2.
fn transform(artifact: &mut Artifact, step: usize) -> &mut Transform {
    match body(artifact, 0, step) {
        Body::Ntt(transform) | Body::Intt(transform) => transform,
        other => panic!("{other:?} is not a transform"),
    }
}

fn permutation(artifact: &mut Artifact) -> &mut Vec<Block> {
    elementwise(artifact, 1, 4).1
}

/// Calls of the entry: arguments, results, weights.
fn call(artifact: &mut Artifact) -> (&mut Vec<Operand>, &mut Vec<Operand>, &mut Vec<WeightRef>) {
    match &mut artifact.programs[0][1].steps[0] {
        Step::Call { args, results, weights, .. } => (args, results, weights),
        _ => panic!("the first step is a call"),
    }
}

/// The parts of a gathered weight.
fn gather(artifact: &mut Artifact, weight: usize) -> (&mut TensorId, &mut GatherId, &mut f64) {
    match &mut artifact.weights[weight] {
        Recipe::Gather { tensor, gather, factor } => (tensor, gather, factor),
        other => panic!("{other:?} is not gathered"),
    }
}

/// The parts of the diagonal.
fn dft(artifact: &mut Artifact) -> (&mut DftFactor, &mut i64, &mut f64) {
    match &mut artifact.weights[3] {
        Recipe::Dft { factor, offset, scale } => (factor, offset, scale),
        other => panic!("{other:?} is no diagonal"),
    }
}

/// A diagonal of a block of tensor 0 in the place of weight 0.
fn block(artifact: &mut Artifact, offset: u32, change: fn(&mut MatrixBlock)) {
    let mut block = MatrixBlock { first: 0, strides: [1, 1], extents: [2, 2], log_period: 1 };
    change(&mut block);
    artifact.weights[0] = Recipe::Diagonal { tensor: TensorId(0), block, offset, factor: 1.0 };
}

fn constant(re: f64, im: f64) -> Recipe {
    Recipe::Constant { re, im }
}

rejected! {
    sample;
    foreign_params: |a| a.params.q[0] += 2 => "parameter set is not valid";
    no_functions: |a| a.programs[0].clear() => "functions: there are none";
    function_name_twice: |a| a.programs[0][0].name = "main".into() => "another function of this name";
    infinite_weight: |a| a.tensors[0].values = vec![0.5, f32::INFINITY, 1.0].into() => "tensor 0 `w`: value 1 is not finite";
    infinite_factor: |a| *gather(a, 1).2 = f64::NAN => "weight 1: its factor";
    tensor_index: |a| *gather(a, 0).0 = TensorId(1) => "weight 0: it reads a tensor";
    gather_index: |a| *gather(a, 0).1 = GatherId(9) => "weight 0: it reads a tensor or gather";
    infinite_real_part: |a| a.weights[2] = constant(f64::INFINITY, 0.0) => "weight 2: its constant is not finite";
    infinite_imaginary_part: |a| a.weights[2] = constant(0.0, f64::NAN) => "weight 2: its constant";
    block_offset: |a| block(a, 2, |_| ()) => "weight 0: diagonal 2 of period 2^1 does not fit";
    block_beyond_all_slots: |a| block(a, 0, |b| b.log_period = 5) => "diagonal 0 of period 2^5 does not fit";
    block_of_nonsense: |a| block(a, 0, |b| b.log_period = u32::MAX) => "does not fit the slots";
    block_without_rows: |a| block(a, 0, |b| b.extents[0] = 0) => "its block of [0, 2] is empty or larger";
    block_beyond_its_period: |a| block(a, 0, |b| b.extents[1] = 3) => "its block of [2, 3] is empty or larger";
    block_beyond_its_tensor: |a| block(a, 0, |b| b.first = 1) => "element 3 is outside tensor `w` of 3 values";
    block_far_beyond_its_tensor: |a| block(a, 0, |b| b.strides = [u32::MAX; 2]) => "element 8589934590 is outside";
    block_factor: |a| {
        let block = MatrixBlock { first: 0, strides: [1, 1], extents: [2, 2], log_period: 1 };
        a.weights[0] = Recipe::Diagonal { tensor: TensorId(0), block, offset: 0, factor: f64::NAN };
    } => "weight 0: its factor is not finite";
    block_tensor: |a| {
        let block = MatrixBlock { first: 0, strides: [1, 1], extents: [2, 2], log_period: 1 };
        a.weights[0] = Recipe::Diagonal { tensor: TensorId(1), block, offset: 0, factor: 1.0 };
    } => "weight 0: it reads a tensor that does not exist";
    block_with_another_period: |a| block(a, 0, |b| b.log_period = 2) => "period 2^1 is expected";
    dft_without_stages: |a| dft(a).0.stages = 0 => "weight 3: DftFactor";
    dft_beyond_its_slots: |a| dft(a).0.stages = 4 => "is no factor of a transform of these slots";
    dft_beyond_all_slots: |a| dft(a).0.log_slots = 5 => "is no factor of a transform of these slots";
    dft_of_nonsense: |a| dft(a).0.first = 255 => "is no factor";
    dft_between_offsets: |a| *dft(a).1 = 1 => "weight 3: its factor has no diagonal 1";
    dft_beyond_offsets: |a| *dft(a).1 = i64::MAX - 1 => "its factor has no diagonal 9223";
    dft_scale: |a| *dft(a).2 = f64::NEG_INFINITY => "weight 3: its scale is not finite";
    dft_with_another_period: |a| a.weights[0] = a.weights[3] => "period 2^1 is expected";
    constant_with_a_period: |a| a.weights[0] = constant(1.0, 0.0) => "period 2^1 is expected";
    odd_period: |a| a.gathers[0].push(0) => "period 3 is not a power of two";
    long_period: |a| a.gathers[0] = vec![0; 32] => "period 32 is not a power of two of at most 16";
    gather_entry: |a| a.gathers[0][0] = 3 => "entry 3 is outside tensor `w` of 3 values";
    stage_level: |a| a.stages[0].level_in = Level(9) => "stage 0 `layer`: level L9 is above";
    key_plan_stage: |a| a.key_plan.as_mut().unwrap().chains[0].stage = StageId(7) => "in stage 7, which there is not";
    normalization_of_nothing: |a| a.normalization.as_mut().unwrap().mean.clear() => "normalization: there are 0 means";
    normalization_by_zero: |a| a.normalization.as_mut().unwrap().deviation[0] = 0.0 => "deviation is 0";
    normalization_by_nan: |a| a.normalization.as_mut().unwrap().mean[0] = f32::NAN => "a mean is NaN";
    stage_error: |a| a.stages[0].error = f64::NAN => "its error is not a finite number";
    key_level: |a| a.keys[0].level = Level(9) => "key 0: key rotation-5-L9 is for a level above";
    key_galois: |a| a.keys[0].kind = KeyKind::Rotation(3) => "key 0: key rotation-3-L2";
    key_twice: |a| {
        let low = KeyRequest { level: Level(0), ..a.keys[0] };
        a.keys.push(low);
    } => "key 1: rotation-5-L0 is the second key of its kind";
    key_index: |a| match &mut elementwise(a, 1, 3).1[0].loads[1] {
        Operand::Key { key, .. } => *key = 1,
        _ => panic!(),
    } => "does not exist modulo p0";
    key_digit: |a| match &mut elementwise(a, 1, 3).1[0].loads[1] {
        Operand::Key { digit, .. } => *digit = 99,
        _ => panic!(),
    } => "does not exist modulo p0";
    key_prime: |a| match &mut elementwise(a, 1, 3).1[0].loads[1] {
        Operand::Key { prime, .. } => *prime = PrimeIndex(1),
        _ => panic!(),
    } => "does not exist modulo p0";
    port_shape: |a| a.outputs[0].shape = vec![u32::MAX, 2] => "is too large";
    port_many_elements: |a| a.outputs[0].shape = vec![1 << 30] => "do not fit into 4 slots";
    port_empty_batch: |a| a.inputs[0].batch = 0 => "input `x`: it has no tensor";
    port_large_batch: |a| a.inputs[0].batch = 1 << 30 => "[1, 4], 1073741824 times, is too large";
    port_batch: |a| a.outputs[0].batch = 2 => "6 elements do not fit into 4 slots";
    port_missing_element: |a| a.gathers[2][1] = 0 => "output `y`: element 1 is in no slot";
    port_entry: |a| a.inputs[0].shape = vec![3] => "input `x`: entry 3 is outside its 3 elements";
    port_factor: |a| a.inputs[0].ciphertexts[0].factor = 0.0 => "factor 0 is not usable";
    port_scale: |a| a.inputs[0].ciphertexts[0].scale = Scale(0.5) => "scale 0.5 is not a number from 1";
    port_error: |a| a.outputs[0].ciphertexts[0].error = -1.0 => "error -1 is not";
    port_level: |a| a.inputs[0].ciphertexts[0].level = Level(1) => "which are not the entry's";
    port_twice: |a| {
        let port = a.inputs[0].clone();
        a.inputs.push(port);
    } => "input `x`: there is another";
    no_outputs: |a| a.outputs.clear() => "outputs: there are none";
    unbound_entry: |a| { a.programs[0].pop(); } => "entry `weigh`: it has unbound weight parameters";
    argument_prime: |a| a.programs[0][0].args[0] = PrimeIndex(100) => "has a prime that the parameters do not have";
    plaintext_basis: |a| a.programs[0][0].plaintexts[0].basis = Basis::range(0, 90) => "{0-89} is not a basis";
    plaintext_modulus: |a| a.programs[0][0].plaintexts[0].modulus = Basis::range(0, 1) => "are not its primes on all devices";
    plaintext_scale: |a| a.programs[0][0].plaintexts[0].scale = Scale(f64::INFINITY) => "scale inf";
    plaintext_period: |a| a.programs[0][0].plaintexts[0].log_period = 2 => "step 0: period 2^2 is expected";
    plaintext_rotation: |a| a.programs[0][0].plaintexts[0].rotation = 2 => "plaintext 0: rotation 2 is not below the period 2";
    plaintext_limb: |a| elementwise(a, 0, 0).1[1].loads[1] = Operand::Plain { plaintext: 0, limb: 0 } => "does not exist";
    plaintext_index: |a| elementwise(a, 0, 0).1[1].loads[1] = Operand::Plain { plaintext: 1, limb: 1 } => "does not exist";
    weight_param_unused: |a| a.programs[0][0].weight_params = 2 => "2 weight parameters and reads fewer";
    weight_param_index: |a| a.programs[0][0].plaintexts[0].weight = WeightRef::Param(1) => "parameter that does not exist";
    weight_index: |a| call(a).2[0] = WeightRef::Weight(WeightId(4)) => "weight that does not exist";
    weight_count: |a| call(a).2.clear() => "it binds 0 weights, its callee has 1";
    frame_too_large: |a| a.programs[0][0].frame = u32::MAX => "its frame has 4294967295 slots";
    frame_too_small: |a| a.programs[0][0].frame = 1 => "Local(1) cannot be written";
    call_forward: |a| match &mut a.programs[0][1].steps[0] {
        Step::Call { function, .. } => *function = FunctionId(1),
        _ => panic!(),
    } => "calls function 1, which does not stand before";
    call_few_args: |a| { call(a).0.pop(); } => "arguments, `weigh` has";
    call_plain_arg: |a| call(a).0[0] = Operand::Plain { plaintext: 0, limb: 0 } => "cannot be read here";
    call_aliased: |a| {
        let result = call(a).1[0];
        match &mut a.programs[0][1].steps[1] {
            Step::Call { args, results, .. } => { args[0] = result; results[0] = result; }
            _ => panic!(),
        }
    } => "is written while the same step reads it";
    call_result_twice: |a| { let first = call(a).1[0]; call(a).1[1] = first; } => "is written twice in one step";
    call_other_prime: |a| call(a).0.swap(0, 1) => "there is no Arg(1) modulo p0";
    call_stage: |a| match &mut a.programs[0][1].steps[0] {
        Step::Call { stage, .. } => *stage = StageId(1),
        _ => panic!(),
    } => "its stage is not one of 1";
    stage_index: |a| match &mut a.programs[0][0].steps[0] {
        Step::Launch(kernel) => kernel.stage = StageId(1),
        _ => panic!(),
    } => "its stage is not one of 1";
    no_blocks: |a| elementwise(a, 0, 0).1.clear() => "a launch without blocks";
    register_order: |a| elementwise(a, 0, 0).0[2] = Instruction::MontMul(0, 2) => "instruction 2 reads a register";
    empty_dot: |a| elementwise(a, 1, 3).0[4] = Instruction::Dot(vec![]) => "instruction 4";
    no_results: |a| results(a).clear() => "its program has no results";
    result_register: |a| results(a)[0] = 4 => "a result is not a register";
    few_loads: |a| { elementwise(a, 0, 0).1[0].loads.pop(); } => "step 0 block 0: 1 loads, 2 needed";
    few_stores: |a| elementwise(a, 0, 0).1[0].stores.clear() => "0 stores for 1 results";
    few_scalars: |a| elementwise(a, 0, 0).1[0].scalars.clear() => "0 scalars, 1 needed";
    large_scalar: |a| elementwise(a, 0, 0).1[0].scalars[0] = u32::MAX => "a scalar is not below the prime";
    block_prime: |a| elementwise(a, 0, 0).1[0].prime = PrimeIndex(77) => "there is no prime p77";
    argument_index: |a| elementwise(a, 0, 0).1[0].loads[0] = Operand::Arg(99) => "there is no Arg(99)";
    store_to_argument: |a| elementwise(a, 0, 0).1[0].stores[0] = Operand::Arg(0) => "Arg(0) cannot be written";
    read_before_write: |a| elementwise(a, 0, 0).1[0].loads[0] = Operand::Local(0) => "read before it is written";
    read_result_before_write: |a| elementwise(a, 0, 0).1[0].loads[0] = Operand::Result(0) => "read before it is written";
    read_other_prime: |a| transform(a, 1).blocks[0].loads[0] = Operand::Local(1) => "is read modulo p0, it holds a limb modulo p1";
    read_by_another_block: |a| {
        let read = elementwise(a, 1, 3).1[0].loads[0];
        let spare = Operand::Local(a.programs[0][1].frame - 1);
        elementwise(a, 1, 3).1[0].stores[1] = spare;
        elementwise(a, 1, 3).1[1].stores[1] = read;
    } => "is written while the same step reads it";
    written_twice: |a| transform(a, 1).blocks[1].stores[0] = Operand::Local(0) => "is written twice in one step";
    result_prime: |a| transform(a, 2).blocks[0].stores[0] = Operand::Result(1) => "there is no Result(1) modulo p0";
    result_missing: |a| { transform(a, 2).blocks.pop(); } => "is not written";
    inverse_factor: |a| transform(a, 1).blocks[0].scalars[0] = 0 => "a factor is zero";
    inverse_without_factor: |a| transform(a, 1).blocks[0].scalars.clear() => "0 scalars, 1 needed";
    prologue_with_input: |a| transform(a, 2).prologue = Program::input() => "instruction 0 is not allowed here";
    elementwise_with_input: |a| elementwise(a, 0, 0).0[0] = Instruction::Input => "instruction 0 is not allowed here";
    transform_of_nothing: |a| transform(a, 2).input = 1 => "what is transformed is not a register";
    epilogue_without_results: |a| transform(a, 1).epilogue.results.clear() => "its epilogue has no results";
    permuted_input: |a| {
        let epilogue = &mut transform(a, 2).epilogue;
        epilogue.instructions.push(Instruction::Permute(0, 0));
        epilogue.results[0] = 3;
    } => "instruction 0 is not allowed here";
    home_loaded_late: |a| {
        let load = transform(a, 2).blocks[0].loads[0];
        transform(a, 2).blocks[0].stores[0] = load;
    } => "it stores over what its epilogue loads";
    prologue_stores_over_late_load: |a| {
        let load = transform(a, 2).blocks[0].loads[0];
        let inverse = transform(a, 2);
        inverse.prologue.results.push(0);
        inverse.blocks.iter_mut().for_each(|block| block.stores.insert(0, load));
    } => "it stores over what its epilogue loads";
    no_sources: |a| conversion(a).sources.clear() => "0 sources, 1 to 24";
    no_targets: |a| conversion(a).targets.clear() => "no targets";
    source_twice: |a| { let first = conversion(a).sources[0]; conversion(a).sources[1] = first; } => "stands twice";
    conversion_in_place: |a| {
        let source = conversion(a).sources[0].1;
        conversion(a).targets[0].stores[0] = source;
    } => "is written while the same step reads it";
    even_galois: |a| permutation(a)[0].galois[0] = 4 => "4 is not an odd number below 2N";
    few_automorphisms: |a| permutation(a)[0].galois.clear() => "0 automorphisms, 1 needed";
    large_galois: |a| permutation(a)[0].galois[0] = 65 => "65 is not an odd number below 2N";
    permutation_in_place: |a| {
        let load = permutation(a)[0].loads[0];
        permutation(a)[0].stores[0] = load;
    } => "is written while the same step reads it";
}

#[test]
fn calls_nest_only_so_deep() {
    let mut artifact = sample();
    let main = artifact.programs[0].pop().unwrap();
    let first = artifact.programs[0][0].clone();
    let count = first.args.len() as u32;
    for depth in 1..MAX_CALL_DEPTH as u32 {
        artifact.programs[0].push(Function {
            name: format!("f{depth}"),
            frame: 0,
            plaintexts: vec![],
            steps: vec![Step::Call {
                stage: StageId(0),
                function: FunctionId(depth - 1),
                args: (0..count).map(Operand::Arg).collect(),
                results: (0..count).map(Operand::Result).collect(),
                weights: vec![WeightRef::Param(0)],
            }],
            ..first.clone()
        });
    }
    artifact.programs[0].push(main);
    artifact.validate().expect("the entry does not call the chain");
    let last = artifact.programs[0].len() as u32 - 2;
    match &mut artifact.programs[0].last_mut().unwrap().steps[0] {
        Step::Call { function, .. } => *function = FunctionId(last),
        _ => panic!("the first step is a call"),
    }
    let message = artifact.validate().unwrap_err().to_string();
    assert!(message.contains("calls nest deeper than 64"), "{message}");
}
