//! Number-theoretic transforms: one kernel for a small limb, two for a large one.
//!
//! ```text
//! forward, 2^16                                    inverse, 2^16
//! kernel 1: prologue on 16 words a thread,         kernel 1: prologue on stretches, 16 bytes at a time,
//!           stages 0..4 and 4..8 on 32 columns               stages 16..12 and 12..8 on stretches
//!           of 256 words                           kernel 2: stages 8..4 and 4..0 on 32 columns of 256 words,
//! kernel 2: stages 8..12 and 12..16 on                       with the factor, then the epilogue
//!           stretches, then the epilogue,
//!           16 bytes at a time
//! ```
//!
//! Between the kernels the limb is in its home ([`Transform::home`]), words in `[0, 4q)` or `[0, 2q)`; [`geometry`] cuts a
//! transform into passes, [`tables`] has its factors, and `device/transform.cuh` the text of a pass. Words wander in the
//! ranges of Harvey's butterflies, as on the CPU; factors are in Montgomery form, so that one word of table serves a
//! butterfly and products of factors are cheap: those of the last stages are made on the fly.

mod geometry;
mod tables;

use std::fmt::Write as _;

use cerium_artifact::Function;
use cerium_artifact::kernel::{Block, Transform};
use cerium_ckks::params::Params;
use cerium_ckks::primes::primitive_root;

use super::Emitter;
use super::abi::{BlockShape, ENTRY, Launch};
use super::part::Part;
use super::program::Code;
use geometry::{Phase, WORDS, made_stages, phases};

pub use tables::tables;

/// Arithmetic of transforms.
const TRANSFORM: &str = include_str!("device/transform.cuh");

/// Registers of a multiprocessor, on every device that is served.
const ALL_REGISTERS: u32 = 65_536;

/// Loads and stores of the longest program beside which a transform keeps to a number of registers.
const MOST_ACCESSES: usize = 3;

/// The launches of a forward transform.
pub(super) fn forward(emitter: &mut Emitter<'_>, function: &Function, transform: &Transform) -> Vec<Launch> {
    emit(emitter, function, transform, false)
}

/// The launches of an inverse transform.
pub(super) fn inverse(emitter: &mut Emitter<'_>, function: &Function, transform: &Transform) -> Vec<Launch> {
    emit(emitter, function, transform, true)
}

fn emit(emitter: &mut Emitter<'_>, function: &Function, transform: &Transform, inverse: bool) -> Vec<Launch> {
    let params = emitter.params();
    let mut phases = phases(params.log_n());
    if inverse {
        phases.reverse();
    }
    let (count, mut launches) = (phases.len(), Vec::new());
    for (i, phase) in phases.into_iter().enumerate() {
        let ends = (i == 0, i + 1 == count);
        let kernel = Kernel::new(params, function, transform, phase, inverse, ends);
        launches.push(kernel.emit(emitter, function, transform));
    }
    launches
}

/// One kernel of a transform.
struct Kernel<'a> {
    params: &'a Params,
    log_n: u32,
    inverse: bool,
    phase: Phase,
    /// What it takes of the blocks, if not all.
    part: Option<Part>,
    /// Of what it takes.
    shape: BlockShape,
    /// In the first kernel.
    prologue: Option<Code>,
    /// In the last kernel.
    epilogue: Option<Code>,
    /// The pointer of the home.
    home: usize,
}

impl<'a> Kernel<'a> {
    /// The kernel of a phase; `ends` says whether it is the first and whether it is the last.
    fn new(
        params: &'a Params,
        function: &Function,
        transform: &Transform,
        phase: Phase,
        inverse: bool,
        ends: (bool, bool),
    ) -> Kernel<'a> {
        let (home, stores) = (transform.home(), transform.blocks[0].stores.len());
        let part = match ends {
            (true, true) => None,
            (true, false) => Some((Part::new(&transform.prologue, 0..home + 1), home)),
            (false, true) => Some((Part::new(&transform.epilogue, home..stores), 0)),
            (false, false) => unreachable!("a transform has one kernel or two"),
        };
        let home = part.as_ref().map_or(home, |(_, home)| *home);
        let part = part.map(|(part, _)| part);
        let shape = match &part {
            Some(part) => {
                let blocks: Vec<Block> = transform.blocks.iter().map(|block| part.block(block)).collect();
                BlockShape::of(params, function, &blocks)
            }
            None => BlockShape::of(params, function, &transform.blocks),
        };
        let program = |whole| part.as_ref().map_or(whole, |part| &part.program);
        let prologue = ends.0.then(|| Code::prologue(program(&transform.prologue), transform.input, &shape));
        let epilogue = ends.1.then(|| Code::epilogue(program(&transform.epilogue), &shape, home));
        let home = shape.store(home);
        Kernel { params, log_n: params.log_n(), inverse, phase, part, shape, prologue, epilogue, home }
    }

    /// Whether its rows end with the factors of an inverse transform.
    fn is_scaled(&self) -> bool {
        self.inverse && self.epilogue.is_some()
    }

    /// Constants of a row: those of the block, 2q and -2q, and the factors of an inverse transform.
    fn constants(&self) -> usize {
        self.shape.constants() + if self.is_scaled() { 4 } else { 2 }
    }

    fn emit(&self, emitter: &mut Emitter<'_>, function: &Function, transform: &Transform) -> Launch {
        let (mut pointers, mut constants) = (Vec::new(), Vec::new());
        for whole in &transform.blocks {
            let block = self.part.as_ref().map_or_else(|| whole.clone(), |part| part.block(whole));
            self.shape.push_pointers(&block, &mut pointers);
            self.shape.push_constants(self.params, function, &block, &mut constants);
            let two_q = 2 * self.params.modulus(block.prime).value();
            constants.extend([two_q, two_q.wrapping_neg()]);
            if self.is_scaled() {
                constants.extend(self.scale(whole));
            }
        }
        let source = if self.inverse {
            emitter.intern("intt", &self.inverse_text())
        } else {
            emitter.intern("ntt", &self.forward_text())
        };
        Launch {
            source,
            grid: [1 << (self.log_n - self.phase.log_tile), transform.blocks.len() as u32],
            block: self.phase.threads(),
            shared_bytes: 0,
            pointers,
            constants,
            scratch_limbs: 0,
        }
    }

    /// What the words of an inverse transform are multiplied by in stage 0: the factor of the block over N, and that times the
    /// factor of the stage, in Montgomery form.
    fn scale(&self, block: &Block) -> [u32; 2] {
        let q = self.params.modulus(block.prime);
        let psi = primitive_root(q, self.log_n).expect("checked parameters have transforms");
        let root = q.inv(q.pow(psi, 1 << (self.log_n - 1))).expect("a root is not zero");
        // 1/N = ((q + 1) / 2)^log2(N).
        let scale = q.mul(q.pow(q.value().div_ceil(2), self.log_n.into()), block.scalars[0]);
        [q.to_mont(scale), q.to_mont(q.mul(scale, root))]
    }

    /// The text of one kernel of a forward transform.
    fn forward_text(&self) -> String {
        let phase = &self.phase;
        let made = if self.epilogue.is_some() { made_stages(self.log_n) } else { 0 };
        let mut body = String::new();
        if let Some(prologue) = &self.prologue {
            call_prologue(&mut body, prologue, &pass(phase.passes[0]));
        } else {
            let _ = writeln!(body, "    Words<16> x = {}::from_limb(home);", pass(phase.passes[0]));
        }
        for (i, &this) in phase.passes.iter().enumerate() {
            let made = if i + 1 == phase.passes.len() { made } else { 0 };
            let _ = writeln!(body, "    {}::forward<{made}>(x, roots, p);", pass(this));
            if let Some(&next) = phase.passes.get(i + 1) {
                let _ = writeln!(body, "    exchange<{}, {}>(x, shared);", pass(this), pass(next));
            }
        }
        let leave = pass(phase.passes[phase.passes.len() - 1]);
        if let Some(epilogue) = &self.epilogue {
            let stretch = stretch(epilogue);
            let _ = writeln!(body, "    exchange<{leave}, {stretch}>(x, shared);\n    x = canonical(x, p);");
            call_epilogue(&mut body, epilogue, stretch);
        } else {
            let _ = writeln!(body, "    {leave}::to_limb(home, x);");
        }
        self.text(&body)
    }

    /// The text of one kernel of an inverse transform.
    fn inverse_text(&self) -> String {
        let phase = &self.phase;
        let made = if self.prologue.is_some() { made_stages(self.log_n) } else { 0 };
        let enter = pass(phase.passes[phase.passes.len() - 1]);
        let mut body = String::new();
        if let Some(prologue) = &self.prologue {
            let stretch = stretch(prologue);
            call_prologue(&mut body, prologue, stretch);
            let _ = writeln!(body, "    exchange<{stretch}, {enter}>(x, shared);");
        } else {
            let _ = writeln!(body, "    Words<16> x = {enter}::from_limb(home);");
        }
        for (i, &this) in phase.passes.iter().enumerate().rev() {
            let made = if i + 1 == phase.passes.len() { made } else { 0 };
            let scaled = self.is_scaled() && i == 0;
            let _ = writeln!(body, "    {}::inverse<{made}, {scaled}>(x, roots, p);", pass(this));
            if i > 0 {
                let next = pass(phase.passes[i - 1]);
                let _ = writeln!(body, "    exchange<{}, {next}>(x, shared);", pass(this));
            }
        }
        let leave = pass(phase.passes[0]);
        if let Some(epilogue) = &self.epilogue {
            let scale = self.shape.constants() + 2;
            let _ = writeln!(
                body,
                "    {leave}::scaled(x, constant(row, {scale}), constant(row, {}), p);",
                scale + 1
            );
            call_epilogue(&mut body, epilogue, &leave);
        } else {
            let _ = writeln!(body, "    {leave}::to_limb(home, x);");
        }
        self.text(&body)
    }

    /// A kernel around what it does, with the programs that it calls.
    fn text(&self, body: &str) -> String {
        let phase = &self.phase;
        let (log_n, made, threads) = (self.log_n, made_stages(self.log_n), phase.threads());
        let mut text = TRANSFORM.to_string();
        let mut registers = Some(64);
        for (name, code) in [("prologue", &self.prologue), ("epilogue", &self.epilogue)] {
            if let Some(code) = code {
                let _ = write!(text, "\n{}", code.function(name, &self.shape, log_n));
                registers = registers.zip(registers_of(code)).map(|(all, own)| all.max(own));
            }
        }
        let blocks = registers.map(|registers| (ALL_REGISTERS / registers / threads).clamp(1, 32));
        let bounds = blocks.map_or_else(|| threads.to_string(), |blocks| format!("{threads}, {blocks}"));
        let _ = write!(
            text,
            "
extern \"C\" __global__ void __launch_bounds__({bounds})
{ENTRY}(const u64* pointers, const u32* constants, const u32* tables) {{
    typedef Tile<{log_n}, {}, {}, {}> T;
    alignas(16) __shared__ u32 shared[T::WORDS];
    const Row row = row_at(pointers + blockIdx.y * {}, constants + blockIdx.y * {});
    const Field p = field_at(row.constants, {});
    const u32* roots = roots_of<{log_n}, {made}, {}>(tables, p);
    const u64 home = pointer(row, {});
{body}}}
",
            phase.first,
            phase.stages,
            phase.log_tile,
            self.shape.pointers(),
            self.constants(),
            self.shape.constants(),
            self.inverse,
            self.home,
        );
        text
    }
}

/// The device's name of a pass.
fn pass((start, radix): (u32, u32)) -> String {
    format!("Pass<T, {start}, {radix}>")
}

/// The prologue for all words of a thread, at the positions of `place`.
fn call_prologue(body: &mut String, code: &Code, place: &str) {
    let words = words(code);
    let _ = write!(
        body,
        "    Words<16> x;
    _Pragma(\"unroll\") for (int k = 0; k < {WORDS}; k += {words})
        set_part(x, k, prologue<{words}, {place}::STEP>(row, p, {place}::position(k)));
"
    );
}

/// The epilogue for all words of a thread, at the positions of `place`.
fn call_epilogue(body: &mut String, code: &Code, place: &str) {
    let words = words(code);
    let _ = write!(
        body,
        "    _Pragma(\"unroll\") for (int k = 0; k < {WORDS}; k += {words})
        epilogue<{words}, {place}::STEP>(row, p, {place}::position(k), part<{words}>(x, k));
"
    );
}

/// The device's name for how a program gets the words of a thread from a stretch.
fn stretch(code: &Code) -> &'static str {
    if code.moves() { "Lines<T>" } else { "Quads<T>" }
}

/// Words of a thread that a program works on at once: as many as leave registers for what is alive, and as are neighbours
/// in a stretch.
fn words(code: &Code) -> u32 {
    match code.live() {
        0..=20 => 4,
        21..=48 => 2,
        _ => 1,
    }
}

/// Registers of a thread that a kernel with this program may have; without programs, 64 are enough. Of programs that load much
/// the assembler would move too many loads ahead and spill registers, if it were told of a number: none is given.
fn registers_of(code: &Code) -> Option<u32> {
    match code.live() {
        _ if code.accesses() > MOST_ACCESSES => None,
        0..=6 => Some(64),
        7..=12 => Some(80),
        _ => Some(128),
    }
}
