//! Every kernel on every instruction set against its definition on single words.

use super::*;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::{Modulus, Shoup};
use cerium_ckks::primes::{ntt_primes_above, ntt_primes_below};
use num_bigint::{BigInt, BigUint};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

fn fresh_rng() -> ChaCha8Rng {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the operating system gives randomness");
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed:#x}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// The largest prime, one of an ordinary terminal prime's size, and the smallest.
fn moduli() -> [Modulus; 3] {
    [
        ntt_primes_below(16, Modulus::TOO_LARGE).next().unwrap(),
        ntt_primes_below(16, 1 << 25).next().unwrap(),
        ntt_primes_above(4, Modulus::TOO_SMALL).next().unwrap(),
    ]
}

/// Random residues, some of them at the ends of the range.
fn residues(rng: &mut ChaCha8Rng, q: &Modulus, len: usize) -> Vec<u32> {
    let word = |rng: &mut ChaCha8Rng| match rng.next_u32() % 8 {
        0 => 0,
        1 => q.value() - 1,
        _ => rng.next_u32() % q.value(),
    };
    (0..len).map(|_| word(rng)).collect()
}

/// Lengths with and without a remainder after the widest vector.
const LENGTHS: [usize; 5] = [0, 7, 16, 100, 256];

/// Runs `kernel` on random operands and compares each word with `definition`.
fn agrees(
    kernel: impl Fn(Isa, &Modulus, &mut [u32], &[u32], &[u32], u32),
    definition: impl Fn(&Modulus, u32, u32, u32) -> u32,
) {
    let mut rng = fresh_rng();
    for q in moduli() {
        for len in LENGTHS {
            let (a, b) = (residues(&mut rng, &q, len), residues(&mut rng, &q, len));
            let c = residues(&mut rng, &q, 1)[0];
            let expected: Vec<u32> = a.iter().zip(&b).map(|(&a, &b)| definition(&q, a, b, c)).collect();
            for isa in Isa::available() {
                let mut out = vec![u32::MAX; len];
                kernel(isa, &q, &mut out, &a, &b, c);
                assert_eq!(out, expected, "{isa}, {len} words modulo {}", q.value());
            }
        }
    }
}

#[test]
fn elementwise_kernels_agree_with_single_words() {
    agrees(|isa, q, out, a, _, _| copy(isa, q, out, a), |_, a, _, _| a);
    agrees(|isa, q, out, a, b, _| add(isa, q, out, a, b), |q, a, b, _| q.add(a, b));
    agrees(|isa, q, out, a, b, _| sub(isa, q, out, a, b), |q, a, b, _| q.sub(a, b));
    agrees(|isa, q, out, a, _, _| neg(isa, q, out, a), |q, a, _, _| q.neg(a));
    agrees(|isa, q, out, a, b, _| mul(isa, q, out, a, b), |q, a, b, _| q.mul(a, b));
    agrees(|isa, q, out, a, b, _| mont_mul(isa, q, out, a, b), |q, a, b, _| q.mont_mul(a, b));
    agrees(|isa, q, out, a, _, c| mul_scalar(isa, q, out, a, q.shoup(c)), |q, a, _, c| q.mul(a, c));
    agrees(|isa, q, out, a, _, c| add_scalar(isa, q, out, a, c), |q, a, _, c| q.add(a, c));
}

type Joined = unsafe fn(Isa, &Modulus, *mut u32, *const u32, *const u32, Shoup, usize);
type OnWords = fn(&Modulus, u32, u32, u32) -> u32;

#[test]
fn joined_kernels_agree_with_single_words() {
    let kernels: [(Joined, OnWords); 5] = [
        (add_mul_scalar, |q, a, b, c| q.mul(q.add(a, b), c)),
        (sub_mul_scalar, |q, a, b, c| q.mul(q.sub(a, b), c)),
        (mont_mul_scalar, |q, a, b, c| q.mul(q.mont_mul(a, b), c)),
        (mul_scalar_add, |q, a, b, c| q.add(q.mul(a, c), b)),
        (mul_scalar_sub, |q, a, b, c| q.sub(q.mul(a, c), b)),
    ];
    for (kernel, word) in kernels {
        agrees(
            // SAFETY: all are equally long.
            |isa, q, out, a, b, c| unsafe {
                kernel(isa, q, out.as_mut_ptr(), a.as_ptr(), b.as_ptr(), q.shoup(c), out.len());
            },
            word,
        );
        // Over one of the operands.
        agrees(
            |isa, q, out, a, b, c| {
                out.copy_from_slice(a);
                // SAFETY: as above.
                unsafe { kernel(isa, q, out.as_mut_ptr(), out.as_ptr(), b.as_ptr(), q.shoup(c), out.len()) }
            },
            word,
        );
        agrees(
            |isa, q, out, a, b, c| {
                out.copy_from_slice(b);
                // SAFETY: as above.
                unsafe { kernel(isa, q, out.as_mut_ptr(), a.as_ptr(), out.as_ptr(), q.shoup(c), out.len()) }
            },
            word,
        );
    }
}

/// Sums of products one word at a time: the definition.
fn dot_naively<const OUTS: usize>(
    q: &Modulus,
    len: usize,
    terms: &[([Vec<u32>; OUTS], Vec<u32>)],
) -> [Vec<u32>; OUTS] {
    let word =
        |out: usize, i: usize| terms.iter().fold(0, |sum, (a, b)| q.add(sum, q.mont_mul(a[out][i], b[i])));
    std::array::from_fn(|out| (0..len).map(|i| word(out, i)).collect())
}

/// First factors of two sums, the second factor that they have in common, and the base-2 logarithm of its runs.
type OwnedTerm = ([Vec<u32>; 2], Vec<u32>, u32);

/// Both kernels on terms with second factors in runs, for the stretch of `len` words from `offset` on.
fn dots_agree(q: &Modulus, (offset, len): (usize, usize), terms: &[OwnedTerm]) {
    let unfold = |b: &[u32], log_run: u32| (0..len).map(|i| b[(offset + i) >> log_run]).collect();
    let plain: Vec<_> = terms.iter().map(|(a, b, log_run)| (a.clone(), unfold(b, *log_run))).collect();
    let [a, b] = dot_naively(q, len, &plain);
    let sum = |a: &[u32], b: &[u32]| -> Vec<u32> { a.iter().zip(b).map(|(&a, &b)| q.add(a, b)).collect() };
    // To the first sum both are added, to the second nothing.
    let expected = [sum(&sum(&a, &a), &b), b.clone()];
    let added: [&[*const u32]; 2] = [&[a.as_ptr(), b.as_ptr()], &[]];
    let runs: Vec<Runs> = terms.iter().map(|(_, b, log_run)| Runs::new(b, *log_run, offset)).collect();
    let limbs: Vec<[*const u32; 2]> = terms.iter().map(|([a, b], ..)| [a.as_ptr(), b.as_ptr()]).collect();
    let one: Vec<Term<1>> = limbs.iter().zip(&runs).map(|(&[a, _], &b)| ([a], b)).collect();
    let two: Vec<Term<2>> = limbs.iter().copied().zip(runs.iter().copied()).collect();
    for isa in Isa::available() {
        let what = format!("{isa}, {len} words from {offset}, {} terms modulo {}", terms.len(), q.value());
        let mut out = vec![u32::MAX; len];
        // SAFETY: all are as long as the outputs.
        unsafe { dot(isa, q, [out.as_mut_ptr()], len, &one, [added[0]]) };
        assert!(out == expected[0], "{what}");
        let mut outs = [vec![u32::MAX; len], vec![u32::MAX; len]];
        let pointers = outs.each_mut().map(|out| out.as_mut_ptr());
        // SAFETY: as above.
        unsafe { dot_pair(isa, q, pointers, len, &two, added) };
        assert!(outs == expected, "{what}, two sums");
        // The first output is what is added to it, the second a first factor of it.
        let Some((first, rest)) = two.split_first() else { continue };
        let mut outs = [a.clone(), terms[0].0[1][..len].to_vec()];
        let pointers = outs.each_mut().map(|out| out.as_mut_ptr());
        let first = ([first.0[0], pointers[1].cast_const()], first.1);
        let over: Vec<Term<2>> = std::iter::once(first).chain(rest.iter().copied()).collect();
        // SAFETY: as above.
        unsafe { dot_pair(isa, q, pointers, len, &over, [&[pointers[0].cast_const(), added[0][1]], &[]]) };
        assert!(outs == expected, "{what}, over operands");
    }
}

#[test]
fn dot_agrees_with_single_words() {
    let mut rng = fresh_rng();
    for q in moduli() {
        for count in [0, 1, 4, 15, 16, 17, 33] {
            for extreme in [false, true] {
                let mut limb = || match extreme {
                    true => vec![q.value() - 1; 150],
                    false => residues(&mut rng, &q, 150),
                };
                let terms: Vec<_> = (0..count).map(|_| ([limb(), limb()], limb(), 0)).collect();
                dots_agree(&q, (0, 150), &terms);
            }
        }
    }
}

#[test]
fn dot_takes_runs_of_any_length() {
    let (mut rng, log_n) = (fresh_rng(), 10);
    let q = moduli()[0];
    for round in 0..40 {
        // Stretches begin at multiples of the alignment, and end anywhere.
        let offset = rng.next_u32() as usize % (1 << log_n) / RUN_ALIGN * RUN_ALIGN;
        let len = rng.next_u32() as usize % ((1 << log_n) - offset + 1);
        let terms: Vec<_> = (0..1 + round % 19)
            .map(|i| {
                let log_run =
                    if round % 2 == 0 { round / 2 % (log_n + 1) } else { (round + i) % (log_n + 1) };
                let a = [residues(&mut rng, &q, len), residues(&mut rng, &q, len)];
                (a, residues(&mut rng, &q, 1 << (log_n - log_run)), log_run)
            })
            .collect();
        dots_agree(&q, (offset, len), &terms);
    }
}

#[test]
fn expand_repeats_words_from_any_offset() {
    let mut rng = fresh_rng();
    let compact: Vec<u32> = (0..32).map(|_| rng.next_u32()).collect();
    for log_run in 0..=5 {
        let full: Vec<u32> = (0..32 << log_run).map(|i| compact[i >> log_run]).collect();
        for _ in 0..50 {
            let offset = rng.next_u32() as usize % (full.len() + 1);
            let len = rng.next_u32() as usize % (full.len() - offset + 1);
            let mut out = vec![0; len];
            expand(&mut out, &compact, log_run, offset);
            assert_eq!(out, full[offset..offset + len], "run {} from {offset}", 1 << log_run);
        }
    }
}

/// The formula that defines the conversion, on big integers.
fn convert_naively(sources: &[Modulus], p: &Modulus, y: &[u32]) -> u32 {
    let product: BigUint = sources.iter().map(|q| BigUint::from(q.value())).product();
    let (mut sum, mut fixed) = (BigInt::ZERO, 1u64 << 55);
    for (q, &y) in sources.iter().zip(y) {
        sum += BigInt::from(&product / q.value() * y);
        fixed += u64::from(y) * ((1 << 56) / u64::from(q.value()));
    }
    let x = sum - BigInt::from(product) * (fixed >> 56);
    let residue = ((x % p.value()) + p.value()) % p.value();
    u32::try_from(residue).expect("a residue modulo a word is a word")
}

#[test]
fn base_conversion_agrees_with_big_integers() {
    let mut rng = fresh_rng();
    let main: Vec<Modulus> = ntt_primes_below(12, Modulus::TOO_LARGE).take(40).collect();
    let small: Vec<Modulus> = ntt_primes_above(12, Modulus::TOO_SMALL).take(8).collect();
    // Sixteen of the largest primes: the fullest accumulator. More are reduced in between. Small ones: fractions of more
    // than a word.
    for (sources, targets) in [
        (&main[..24], &main[24..]),
        (&main[..17], &small[..]),
        (&main[..16], &main[16..]),
        (&main[..12], &main[12..23]),
        (&main[..1], &small[..]),
        (&small[..4], &main[..5]),
        (&[main[0], small[0], main[7]][..], &[small[2], main[1]][..]),
    ] {
        let converter = BaseConverter::new(sources, targets);
        for len in [5, 16, 128, 300] {
            let mut y: Vec<Vec<u32>> = sources.iter().map(|q| residues(&mut rng, q, len)).collect();
            for (limb, q) in y.iter_mut().zip(sources) {
                limb[0] = q.value() - 1;
                limb[1] = 0;
            }
            let y: Vec<&[u32]> = y.iter().map(|limb| &limb[..]).collect();
            let column = |i: usize| y.iter().map(|limb| limb[i]).collect::<Vec<u32>>();
            let expected: Vec<Vec<u32>> = targets
                .iter()
                .map(|p| (0..len).map(|i| convert_naively(sources, p, &column(i))).collect())
                .collect();
            for isa in Isa::available() {
                let mut out = vec![vec![u32::MAX; len]; targets.len()];
                let mut slices: Vec<&mut [u32]> = out.iter_mut().map(|limb| &mut limb[..]).collect();
                base_convert(isa, &converter, &y, &mut slices);
                assert_eq!(out, expected, "{isa}, {} to {}", sources.len(), targets.len());
            }
        }
    }
}

#[test]
fn base_conversion_recovers_small_integers() {
    let mut rng = fresh_rng();
    let primes: Vec<Modulus> = ntt_primes_below(12, Modulus::TOO_LARGE).take(8).collect();
    let (sources, targets) = primes.split_at(4);
    let integers: Vec<i64> = (0..64).map(|_| rng.next_u64() as i64).collect();
    let y: Vec<Vec<u32>> = sources
        .iter()
        .map(|q| {
            let others = sources.iter().filter(|other| *other != q);
            let rest = others.fold(1, |product, other| q.mul(product, other.value()));
            let factor = q.inv(rest).unwrap();
            integers.iter().map(|&x| q.mul(q.reduce_i64(x), factor)).collect()
        })
        .collect();
    let y: Vec<&[u32]> = y.iter().map(|limb| &limb[..]).collect();
    let converter = BaseConverter::new(sources, targets);
    let mut out = vec![vec![0; integers.len()]; targets.len()];
    let mut slices: Vec<&mut [u32]> = out.iter_mut().map(|limb| &mut limb[..]).collect();
    base_convert(Isa::detect(), &converter, &y, &mut slices);
    for (p, limb) in targets.iter().zip(out) {
        let expected: Vec<u32> = integers.iter().map(|&x| p.reduce_i64(x)).collect();
        assert_eq!(limb, expected);
    }
}
