//! Elementwise kernels: one program, one limb a row.
//!
//! Nothing is shared between threads. A thread holds [`words`] words, so that there are loads enough in flight without more
//! registers than a thread has; programs with automorphisms hold them a block of threads apart, others side by side.

use cerium_artifact::Function;
use cerium_artifact::kernel::{Block, Program};

use super::Emitter;
use super::abi::{BlockShape, ENTRY, Launch};
use super::program::Code;

/// Most threads of a block.
const THREADS: u32 = 128;

/// Blocks that a multiprocessor must have room for. This gives a thread all the registers that it can name. Told nothing, the
/// assembler makes room for many threads instead and lets each wait for a few loads at a time: kernels that stream keys had
/// half the bytes in flight, or less.
const BLOCKS: u32 = 2;

/// Statements of the longest program for which that is so. In longer ones the assembler moves so many loads ahead that it has to
/// spill registers.
const LONGEST: usize = 400;
/// Statements of the longest program that a thread runs on four words at once: with so many more loads ahead of their use, longer
/// ones spill earlier.
const LONGEST_OF_FOUR: usize = 128;

pub(super) fn emit(
    emitter: &mut Emitter<'_>,
    function: &Function,
    program: &Program,
    blocks: &[Block],
) -> Vec<Launch> {
    let params = emitter.params();
    let shape = BlockShape::of(params, function, blocks);
    let code = Code::elementwise(program, &shape);
    let n = 1u32 << params.log_n();
    let words = words(&code).min(n);
    let threads = THREADS.min(n / words);
    let source = emitter.intern("elementwise", &text(&code, &shape, params.log_n(), words, threads));
    let (mut pointers, mut constants) = (Vec::new(), Vec::new());
    for block in blocks {
        shape.push_pointers(block, &mut pointers);
        shape.push_constants(params, function, block, &mut constants);
    }
    vec![Launch {
        source,
        grid: [n / (words * threads), blocks.len() as u32],
        block: threads,
        shared_bytes: 0,
        pointers,
        constants,
        scratch_limbs: 0,
    }]
}

/// Words of a thread.
fn words(code: &Code) -> u32 {
    match code.live() {
        0..=12 if code.len() <= LONGEST_OF_FOUR => 4,
        0..=32 => 2,
        _ => 1,
    }
}

fn text(code: &Code, shape: &BlockShape, log_n: u32, words: u32, threads: u32) -> String {
    let step = if code.moves() { threads } else { 1 };
    let first = match step {
        1 => format!("(blockIdx.x * {threads} + threadIdx.x) * {words}"),
        _ => format!("blockIdx.x * {} + threadIdx.x", words * threads),
    };
    let function = code.function("program", shape, log_n);
    let bounds = if code.len() <= LONGEST { format!("{threads}, {BLOCKS}") } else { threads.to_string() };
    format!(
        "{function}
extern \"C\" __global__ void __launch_bounds__({bounds})
{ENTRY}(const u64* pointers, const u32* constants, const u32* tables) {{
    const Row row = row_at(pointers + blockIdx.y * {pointers}, constants + blockIdx.y * {constants});
    program<{words}, {step}>(row, prime_at(row.constants), {first});
}}
",
        pointers = shape.pointers(),
        constants = shape.constants(),
    )
}
