//! Conversion of residues from one basis to another: the matrix product at the heart of key switching.

use std::ops::Range;

use cerium_ckks::dispatch;
use cerium_ckks::isa::Isa;
use cerium_ckks::lanes::{Lanes, ModulusLanes};
use cerium_ckks::modulus::Modulus;
use cerium_ckks::rns::MOST_SOURCES;

use super::MOST_LANES;

/// So many products of sources, and that of `v`, fit in 64 bits and in one reduction.
const MOST_PRODUCTS: usize = 16;

/// Coefficients that are converted at once. Their words in all sources, in the order the multiplications want them, stay
/// in L1 while the targets pass by.
const TILE: usize = 128;

/// Targets that share the loads of a source; their sums stay in registers.
const GROUP: usize = 4;

/// The constants of a conversion from the primes `q_i` with product `Q` to the primes `p_j`.
///
/// Given `y_i = x (Q/q_i)^-1 mod q_i`, the integer `x` in `[-Q/2, Q/2)` is `sum_i y_i Q/q_i - v Q`, where `v` is
/// `sum_i y_i / q_i` rounded. That sum is computed with 56 binary places, each term at most `2^-26` too small: only for
/// `x` within `2^-26 k Q` of the ends of its range may the result be that of `x + Q`. It is the same on all devices.
#[derive(Clone, Debug)]
pub struct BaseConverter {
    sources: usize,
    /// `floor(2^56 / q_i)`, low and high word.
    fractions: Vec<[u32; 2]>,
    targets: Vec<Target>,
}

/// A target prime `p` with the factors of the sources, `[Q/q_i]_p`, and that of `v`, `[-Q]_p`, in Montgomery form.
#[derive(Clone, Debug)]
struct Target {
    modulus: Modulus,
    factors: [u32; MOST_SOURCES + 1],
}

impl BaseConverter {
    /// The constants for converting from `sources` to `targets`.
    ///
    /// # Panics
    /// Unless there are 1 to [`MOST_SOURCES`] sources.
    pub fn new(sources: &[Modulus], targets: &[Modulus]) -> Self {
        assert!(
            (1..=MOST_SOURCES).contains(&sources.len()),
            "{} sources: a conversion takes 1 to {MOST_SOURCES}",
            sources.len()
        );
        let fractions = sources
            .iter()
            .map(|q| {
                let fraction = (1u64 << 56) / u64::from(q.value());
                [fraction as u32, (fraction >> 32) as u32]
            })
            .collect();
        let targets = targets
            .iter()
            .map(|&modulus| {
                let product_without = |skip: usize| {
                    let kept = sources.iter().enumerate().filter(|&(i, _)| i != skip);
                    kept.fold(modulus.montgomery_one(), |product, (_, q)| modulus.mul(product, q.value()))
                };
                let mut factors = [0; MOST_SOURCES + 1];
                for (i, factor) in factors[..sources.len()].iter_mut().enumerate() {
                    *factor = product_without(i);
                }
                factors[sources.len()] = modulus.neg(product_without(sources.len()));
                Target { modulus, factors }
            })
            .collect();
        Self { sources: sources.len(), fractions, targets }
    }
}

/// Converts `x`, given by `y_i = x (Q/q_i)^-1 mod q_i`, to its residues modulo the targets:
/// `(sum_i y_i [Q/q_i]_p - v [Q]_p) mod p` with `v = (sum_i y_i floor(2^56 / q_i) + 2^55) >> 56`. Coefficient domain.
///
/// `y` and `targets` are in the order of the primes that the converter was made for, all of one length.
///
/// # Panics
/// When the numbers or lengths of the slices disagree.
pub fn base_convert(isa: Isa, converter: &BaseConverter, y: &[&[u32]], targets: &mut [&mut [u32]]) {
    assert_eq!(y.len(), converter.sources, "as many limbs as source primes");
    assert_eq!(targets.len(), converter.targets.len(), "as many limbs as target primes");
    let len = y[0].len();
    assert!(
        y.iter().all(|limb| limb.len() == len) && targets.iter().all(|limb| limb.len() == len),
        "all limbs of a conversion are equally long"
    );
    let (start, end) = (0, len - len % MOST_LANES);
    dispatch!(
        isa,
        run(converter: &BaseConverter, y: &[&[u32]], targets: &mut [&mut [u32]], start: usize, end: usize)
    );
    // SAFETY: a single word needs no features; the stretch is within all limbs.
    unsafe { run::<u32>(converter, y, targets, end, len) }
}

/// What the multiplications take from a tile: the sources, then `v`. In each, a vector is followed by its odd lanes.
#[repr(align(64))]
struct Tile([[u32; 2 * TILE]; MOST_SOURCES + 1]);

/// [`base_convert`] for the words from `start` to `end`.
///
/// # Safety
/// As for [`Lanes`]; the words exist in all limbs, and are a whole number of vectors.
#[inline(always)]
unsafe fn run<V: Lanes>(
    converter: &BaseConverter,
    y: &[&[u32]],
    targets: &mut [&mut [u32]],
    start: usize,
    end: usize,
) {
    let mut tile = Tile([[0; 2 * TILE]; MOST_SOURCES + 1]);
    for at in (start..end).step_by(TILE) {
        let len = TILE.min(end - at);
        // SAFETY: forwarded to the caller; the tile is within the stretch.
        unsafe {
            load_tile::<V>(&mut tile, converter, y, at, len);
            let groups = converter.targets.chunks_exact(GROUP);
            let rest = groups.remainder();
            let mut outs = targets.chunks_exact_mut(GROUP);
            for (group, outs) in groups.zip(&mut outs) {
                convert::<V, GROUP>(&tile, converter.sources, group, outs, at, len);
            }
            for (target, out) in rest.chunks_exact(1).zip(outs.into_remainder().chunks_exact_mut(1)) {
                convert::<V, 1>(&tile, converter.sources, target, out, at, len);
            }
        }
    }
}

/// Fills the tile with the `len` words at `at` of the sources and with their `v`.
///
/// # Safety
/// As for [`Lanes`]; the words exist in all sources, and are a whole number of vectors up to [`TILE`].
#[inline(always)]
unsafe fn load_tile<V: Lanes>(
    tile: &mut Tile,
    converter: &BaseConverter,
    y: &[&[u32]],
    at: usize,
    len: usize,
) {
    // SAFETY: forwarded to the caller; there are at most `MOST_SOURCES` sources.
    unsafe {
        let one = V::splat(1);
        let half = V::wide_shift_left::<55>(one.wide_mul(one, one, one));
        for c in (0..len).step_by(V::LANES) {
            let mut sum = half;
            for ((source, &[low, high]), tile) in y.iter().zip(&converter.fractions).zip(&mut tile.0) {
                // The next tile: a dozen streams are more than the processor follows by itself.
                V::prefetch(source.as_ptr().wrapping_add(at + c + TILE));
                let words = V::load(source.as_ptr().add(at + c));
                let odd = words.odd_lanes();
                words.store(tile.as_mut_ptr().add(2 * c));
                odd.store(tile.as_mut_ptr().add(2 * c + V::LANES));
                let low = V::splat(low);
                sum = V::wide_add(sum, words.wide_mul(odd, low, low));
                if high != 0 {
                    // A prime below 2^24. The product is below 2^56 as a whole, so its high part is a word.
                    let high = V::splat(high);
                    let high = words.mul_low(high).wide_mul(odd.mul_low(high), one, one);
                    sum = V::wide_add(sum, V::wide_shift_left::<32>(high));
                }
            }
            let (even, odd) = V::wide_low(V::wide_shift_right::<56>(sum));
            let tile = tile.0[y.len()].as_mut_ptr();
            even.store(tile.add(2 * c));
            odd.store(tile.add(2 * c + V::LANES));
        }
    }
}

/// Adds the products of the sources of a range, and of `v` behind the last, with the factors of `G` targets.
///
/// # Safety
/// As for [`convert`]; the words at `c` are within the tile.
#[inline(always)]
unsafe fn add_products<V: Lanes, const G: usize>(
    sums: &mut [V::Wide; G],
    tile: &Tile,
    targets: &[Target],
    c: usize,
    range: Range<usize>,
) {
    // SAFETY: forwarded to the caller.
    unsafe {
        for i in range {
            let words = tile.0.as_ptr().add(i).cast::<u32>().add(2 * c);
            let (even, odd) = (V::load(words), V::load(words.add(V::LANES)));
            let mut products = *sums;
            for (g, product) in products.iter_mut().enumerate() {
                let factor = V::splat(*targets.get_unchecked(g).factors.get_unchecked(i));
                *product = even.wide_mul(odd, factor, factor);
            }
            if let Ok(group) = <&mut [V::Wide; GROUP]>::try_from(&mut products[..]) {
                *group = V::wide_settle(*group);
            }
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum = V::wide_add(*sum, product);
            }
        }
    }
}

/// Writes the `len` words at `at` of `G` targets.
///
/// # Safety
/// As for [`Lanes`]; the words exist in all outputs, the tile is filled with them for this many sources, and there are
/// `G` targets and outputs.
#[inline(always)]
unsafe fn convert<V: Lanes, const G: usize>(
    tile: &Tile,
    sources: usize,
    targets: &[Target],
    outs: &mut [&mut [u32]],
    at: usize,
    len: usize,
) {
    // SAFETY: forwarded to the caller.
    unsafe {
        let mut moduli = [ModulusLanes::<V>::new(&targets[0].modulus); G];
        for (m, target) in moduli.iter_mut().zip(targets) {
            *m = ModulusLanes::new(&target.modulus);
        }
        for c in (0..len).step_by(V::LANES) {
            let mut sums = [V::wide_zero(); G];
            let mut from = 0;
            if sources > MOST_PRODUCTS {
                add_products::<V, G>(&mut sums, tile, targets, c, 0..MOST_PRODUCTS);
                for (sum, modulus) in sums.iter_mut().zip(&moduli) {
                    // What is reduced later is multiplied by 2^32 first.
                    let (word, one) = (modulus.mont_reduce_4q(*sum), V::splat(1));
                    *sum = V::wide_shift_left::<32>(word.wide_mul(word.odd_lanes(), one, one));
                }
                from = MOST_PRODUCTS;
            }
            add_products::<V, G>(&mut sums, tile, targets, c, from..sources + 1);
            // The sum is below 4p 2^32: k products and v <= k times p make at most k q p, with k <= 16 and q < 2^30. Or p 2^32,
            // at most eight products, and v times p with v <= 24.
            for g in 0..G {
                moduli[g].mont_reduce_4q(sums[g]).store(outs[g].as_mut_ptr().add(at + c));
            }
        }
    }
}
