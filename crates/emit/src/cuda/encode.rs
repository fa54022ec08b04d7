//! The `encode` kernel: compact plaintexts from raw weights.
//!
//! It is not in an artifact: a runtime launches it before a run of kernels whose plaintexts it does not keep. One block of
//! threads makes one plaintext, all limbs of it; blocks of a launch have one period. The text depends on the period and the degree only.
//!
//! The pointers of block b begin at `pointers[b * POINTERS]`:
//!
//! ```text
//! a descriptor (`descriptor`), the words of a tensor (`cerium_artifact::Values`), a slot table (of recipes that have one),
//! the constants of the primes (`primes`), where the limbs go
//! ```
//!
//! `constants` is not read; `tables` is [`tables`].
//!
//! The bits are those of [`cerium_ckks::encoding::Encoder`]: the same operations on doubles in the same order, each rounded by
//! itself, and exact integers from there on.

use cerium_artifact::{Element, Recipe};
use cerium_ckks::basis::Basis;
use cerium_ckks::encoding::Encoder;
use cerium_ckks::params::Params;
use cerium_ckks::primes::primitive_root;

use super::abi::{ENTRY, Source, head};

/// Base-2 logarithm of the longest period: slots and words of a plaintext lie in shared memory.
pub const MAX_LOG_PERIOD: u32 = 11;

/// Pointers of a block.
pub const POINTERS: usize = 5;

/// Words of a descriptor.
pub const DESCRIPTOR: usize = 16;

/// Threads of a block.
pub fn threads(log_period: u32) -> u32 {
    (1 << log_period).clamp(32, 256)
}

/// The source for plaintexts of this period.
///
/// # Panics
/// If it is longer than [`MAX_LOG_PERIOD`].
pub fn source(params: &Params, log_period: u32) -> Source {
    assert!(log_period <= MAX_LOG_PERIOD, "a period of 2^{log_period} slots does not fit shared memory");
    let body = format!(
        "{library}
extern \"C\" __global__ void __launch_bounds__({threads}, 4)
{ENTRY}(const u64* pointers, const u32* constants, const u32* tables) {{
    __shared__ double re[{period}], im[{period}];
    __shared__ u32 words[2 * {period}];
    const u64* row = pointers + blockIdx.x * {POINTERS};
    encode<{log_period}, {threads}>(
        weight_at((const u32*)fetch(row)), (const u32*)fetch(row + 1), (const u32*)fetch(row + 2),
        (const u32*)fetch(row + 3), (u32*)fetch(row + 4), tables, tables + {roots}, {root_words}, re, im, words);
}}
",
        library = include_str!("device/encode.cuh"),
        threads = threads(log_period),
        period = 1u32 << log_period,
        roots = 4 << longest(params),
        root_words = 2 << longest(params),
    );
    Source::new("encode", &body)
}

/// Base-2 logarithm of the longest period under these parameters.
fn longest(params: &Params) -> u32 {
    MAX_LOG_PERIOD.min(params.log_n() - 1)
}

/// The `tables` of all encode kernels: the factors of the encoder's transform, real and imaginary parts as doubles, low words
/// first; then for each prime of the pool `psi^bitrev(i)` for a primitive 2N-th root psi and as many i as the longest
/// limb has words, in Montgomery form.
///
/// # Panics
/// If the encoder is of other parameters.
pub fn tables(params: &Params, encoder: &Encoder) -> Vec<u32> {
    let mut words = Vec::new();
    for unit in encoder.roots(longest(params)) {
        words.extend([unit.re, unit.im].into_iter().flat_map(halves));
    }
    let log_n = params.log_n();
    for q in params.moduli() {
        let root = primitive_root(q, log_n).expect("checked parameters have transforms");
        let start = words.len();
        words.push(q.montgomery_one());
        for k in 0..=longest(params) {
            // Bit k of an index, reversed within the degree, is bit log_n - 1 - k of the exponent: entries are the same for all
            // lengths.
            let factor = q.to_mont(q.pow(root, 1 << (log_n - 1 - k)));
            for i in 0..1 << k {
                words.push(q.mont_mul(words[start + i], factor));
            }
        }
    }
    words
}

/// The words of a double, the lower one first.
fn halves(real: f64) -> [u32; 2] {
    [real.to_bits() as u32, (real.to_bits() >> 32) as u32]
}

/// The constants of the primes of a plaintext, in limb order.
pub fn primes(params: &Params, basis: Basis) -> Vec<u32> {
    basis.iter().flat_map(|prime| head(params, prime)).collect()
}

/// What the kernel is told about a plaintext; `None` for recipes that are not made of raw weights. `element` is how the tensor
/// is stored.
pub fn descriptor(
    recipe: &Recipe,
    element: Element,
    rotation: u32,
    scale: f64,
    limbs: usize,
) -> Option<[u32; DESCRIPTOR]> {
    let element = match element {
        Element::F32 => 0,
        Element::F16 => 1,
        Element::Bf16 => 2,
    };
    let (mut words, factor) = match *recipe {
        Recipe::Gather { factor, .. } => (vec![1, element, 0, 0, 0, 0, 0, 0], factor),
        Recipe::Diagonal { block, offset, factor, .. } => {
            let ([down, right], [rows, columns]) = (block.strides, block.extents);
            (vec![0, element, block.first, down, right, rows, columns, offset], factor)
        }
        Recipe::Constant { .. } | Recipe::Dft { .. } => return None,
    };
    words.extend([rotation, limbs as u32]);
    words.extend([factor, scale].into_iter().flat_map(halves));
    words.resize(DESCRIPTOR, 0);
    words.try_into().ok()
}
