//! Base conversions: the sources of a few coefficients stay in registers while the targets pass by.
//!
//! A row is a conversion with up to [`CHUNKS`] of its targets; how many is data. Its pointers are those of the sources, then
//! those of each target. Its constants are ([`Layout`])
//!
//! ```text
//! number of targets, 3 words unused; for each source floor(2^56 / q), low and high word; filled up to a multiple of 4
//! for each target: those of its block, filled up; [Q/q_i] for each source and [-Q], in Montgomery form, filled up
//! ```
//!
//! The result is that of `cerium_ckks::rns`: centered, with the number of wraps in 56-bit fixed point.

use cerium_artifact::Function;
use cerium_artifact::kernel::{BaseConvertBlock, Block, Program};
use cerium_ckks::modulus::Modulus;
use cerium_ckks::params::Params;

use super::Emitter;
use super::abi::{BlockShape, ENTRY, Launch, Pointer};
use super::program::Code;

/// Most threads of a block.
const THREADS: u32 = 256;

/// Numbers of targets of a row, the preferred ones first: more of them share the loads of the sources, fewer make more
/// rows.
const CHUNKS: [usize; 3] = [16, 8, 4];

/// Blocks of threads that a launch should have: two for each multiprocessor of a large device.
const BLOCKS: usize = 264;

/// Words of the fixed head of a row's constants.
const HEAD: usize = 4;

pub(super) fn emit(
    emitter: &mut Emitter<'_>,
    function: &Function,
    epilogue: &Program,
    blocks: &[BaseConvertBlock],
) -> Vec<Launch> {
    let mut counts: Vec<usize> = blocks.iter().map(|block| block.sources.len()).collect();
    counts.sort_unstable();
    counts.dedup();
    let of_count = |&sources: &usize| {
        let blocks: Vec<&BaseConvertBlock> =
            blocks.iter().filter(|block| block.sources.len() == sources).collect();
        launch(emitter, function, epilogue, sources, &blocks)
    };
    counts.iter().map(of_count).collect()
}

/// The launch of the conversions with this number of sources.
fn launch(
    emitter: &mut Emitter<'_>,
    function: &Function,
    epilogue: &Program,
    sources: usize,
    blocks: &[&BaseConvertBlock],
) -> Launch {
    let params = emitter.params();
    let shape = BlockShape::of(params, function, blocks.iter().flat_map(|block| &block.targets));
    let code = Code::epilogue(epilogue, &shape, 0);
    let n = 1u32 << params.log_n();
    let words = words(sources, &code).min(n);
    let threads = THREADS.min(n / words);
    let across = n / (words * threads);
    let rows = |chunk: usize| blocks.iter().map(|block| block.targets.len().div_ceil(chunk)).sum::<usize>();
    let chunk = CHUNKS.into_iter().find(|&chunk| across as usize * rows(chunk) >= BLOCKS);
    let layout = Layout { sources, chunk: chunk.unwrap_or(CHUNKS[CHUNKS.len() - 1]), shape };
    let source = emitter.intern("base_convert", &text(&code, &layout, params.log_n(), words, threads));
    let (mut pointers, mut constants) = (Vec::new(), Vec::new());
    for block in blocks {
        let moduli: Vec<&Modulus> = block.sources.iter().map(|(prime, _)| params.modulus(*prime)).collect();
        for targets in block.targets.chunks(layout.chunk) {
            let start = (pointers.len(), constants.len());
            pointers.extend(block.sources.iter().map(|(_, operand)| Pointer::Limb(*operand)));
            targets.iter().for_each(|target| layout.shape.push_pointers(target, &mut pointers));
            // A row with fewer targets is as long; nobody looks at the rest.
            pointers.resize(start.0 + layout.pointers(), pointers[start.0]);
            layout.push_head(&moduli, targets.len(), &mut constants);
            for target in targets {
                layout.push_target(params, function, &moduli, target, &mut constants);
            }
            constants.resize(start.1 + layout.constants(), 0);
        }
    }
    Launch {
        source,
        grid: [across, rows(layout.chunk) as u32],
        block: threads,
        shared_bytes: 0,
        pointers,
        constants,
        scratch_limbs: 0,
    }
}

/// Words of a thread: its sources fill at most half of its registers.
fn words(sources: usize, code: &Code) -> u32 {
    if sources + code.live() <= 24 { 4 } else { 2 }
}

/// Where the constants and pointers of a row are.
struct Layout {
    sources: usize,
    /// Most targets of a row.
    chunk: usize,
    /// Of the targets' blocks.
    shape: BlockShape,
}

impl Layout {
    fn pointers(&self) -> usize {
        self.sources + self.chunk * self.shape.pointers()
    }

    /// Words before the first target.
    fn head(&self) -> usize {
        (HEAD + 2 * self.sources).next_multiple_of(4)
    }

    /// Position of the factors among the constants of a target.
    fn factors(&self) -> usize {
        self.shape.constants().next_multiple_of(4)
    }

    /// Words of a target.
    fn target(&self) -> usize {
        self.factors() + (self.sources + 1).next_multiple_of(4)
    }

    fn constants(&self) -> usize {
        self.head() + self.chunk * self.target()
    }

    fn push_head(&self, sources: &[&Modulus], targets: usize, constants: &mut Vec<u32>) {
        let start = constants.len();
        constants.extend([targets as u32, 0, 0, 0]);
        for q in sources {
            let fraction = (1u64 << 56) / u64::from(q.value());
            constants.extend([fraction as u32, (fraction >> 32) as u32]);
        }
        constants.resize(start + self.head(), 0);
    }

    fn push_target(
        &self,
        params: &Params,
        function: &Function,
        sources: &[&Modulus],
        target: &Block,
        constants: &mut Vec<u32>,
    ) {
        let start = constants.len();
        self.shape.push_constants(params, function, target, constants);
        constants.resize(start + self.factors(), 0);
        let p = params.modulus(target.prime);
        let product_without = |skip: usize| {
            let kept = sources.iter().enumerate().filter(|&(i, _)| i != skip);
            kept.fold(p.montgomery_one(), |product, (_, q)| p.mul(product, q.value()))
        };
        constants.extend((0..sources.len()).map(product_without));
        constants.push(p.neg(product_without(sources.len())));
        constants.resize(start + self.target(), 0);
    }
}

fn text(code: &Code, layout: &Layout, log_n: u32, words: u32, threads: u32) -> String {
    let step = if code.moves() { threads } else { 1 };
    let first = match step {
        1 => format!("(blockIdx.x * {threads} + threadIdx.x) * {words}"),
        _ => format!("blockIdx.x * {} + threadIdx.x", words * threads),
    };
    let function = code.function("epilogue", &layout.shape, log_n);
    format!(
        "{library}
{function}
extern \"C\" __global__ void __launch_bounds__({threads}, 2)
{ENTRY}(const u64* pointers, const u32* constants, const u32* tables) {{
    const u64* limbs = pointers + blockIdx.y * {pointers};
    const u32* words = constants + blockIdx.y * {constants};
    const u32 at = {first};
    Words<{words}> y[{sources} + 1];
#pragma unroll
    for (int i = 0; i < {sources}; i++) y[i] = load<{words}, {step}>(fetch(limbs + i), at);
    y[{sources}] = wraps<{sources}, {words}>(y, words + {HEAD});
    const u32 targets = fetch(words);
#pragma unroll 1
    for (u32 t = 0; t < targets; t++) {{
        const Row row = row_at(limbs + {sources} + t * {target_pointers}, words + {head} + t * {target});
        const Prime p = prime_at(row.constants);
        epilogue<{words}, {step}>(row, p, at, convert<{sources}, {words}>(y, row.constants + {factors}, p));
    }}
}}
",
        library = include_str!("device/base_convert.cuh"),
        pointers = layout.pointers(),
        constants = layout.constants(),
        sources = layout.sources,
        target_pointers = layout.shape.pointers(),
        head = layout.head(),
        target = layout.target(),
        factors = layout.factors(),
    )
}
