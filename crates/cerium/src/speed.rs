//! How fast this machine is, measured on the spot: what `explain` predicts times from.

use std::hint::black_box;
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Modulus;
use cerium_ckks::params::Params;
use cerium_runtime::cpu::kernels::{BaseConverter, base_convert, mont_mul};

/// Words below this are canonical modulo every prime.
const LEAST_PRIME: u32 = 1 << 20;
/// Each kernel is measured for about this long.
const SAMPLE: Duration = Duration::from_millis(10);
/// What each thread copies to measure the rate of copies, and how often.
const COPY_BYTES: usize = 64 << 20;
const COPIES: usize = 5;
/// Limbs that take turns where a run finds them in the last cache, and where it has them from memory, in bytes.
const NEAR_BYTES: usize = 4 << 20;
const FAR_BYTES: usize = 64 << 20;
/// Sources and targets of the conversion that is measured: about those of a key switch.
const SOURCES: usize = 6;
const TARGETS: usize = 24;

/// Limbs that ranks hand over at once when that is measured, and how often a thread wakes another.
const HANDED: usize = 8;
const WAKES: u32 = 200;

/// Seconds of a thread for each unit of what kernels ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    /// A butterfly of a transform, and of an inverse one.
    pub(crate) ntt: f64,
    pub(crate) intt: f64,
    /// A multiplication of a base conversion.
    pub(crate) base_convert: f64,
    /// A byte of a limb that a program loads or stores: most are in a cache.
    pub(crate) limb_byte: f64,
    /// A byte of a key or a plaintext that a program loads: they come from memory.
    pub(crate) memory_byte: f64,
    /// A byte of a limb that a rank hands to another, or takes from it.
    pub(crate) hand_byte: f64,
    /// From the moment in which a rank sends a message to that in which another has it who slept.
    pub(crate) wake: f64,
    /// Threads that were busy while this was measured.
    pub(crate) threads: usize,
}

impl Speed {
    /// Measures kernels on limbs of `params`, on so many threads at once (0: one for each core).
    pub(crate) fn measure(params: &Params, threads: usize) -> Speed {
        let threads = cores(threads);
        let barrier = Barrier::new(threads);
        let each: Vec<Speed> = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| Speed::of_thread(params, &barrier))).collect();
            all.into_iter().map(|thread| thread.join().expect("kernels do not panic")).collect()
        });
        let mean = |rate: fn(&Speed) -> f64| each.iter().map(rate).sum::<f64>() / threads as f64;
        Speed {
            ntt: mean(|speed| speed.ntt),
            intt: mean(|speed| speed.intt),
            base_convert: mean(|speed| speed.base_convert),
            limb_byte: mean(|speed| speed.limb_byte),
            memory_byte: mean(|speed| speed.memory_byte),
            hand_byte: mean(|speed| speed.hand_byte),
            wake: wake(),
            threads,
        }
    }

    /// Measures this thread, while others do the same.
    fn of_thread(params: &Params, barrier: &Barrier) -> Speed {
        let (isa, n, prime) = (Isa::detect(), params.n(), PrimeIndex(0));
        let (q, table) = (*params.modulus(prime), params.ntt(prime));
        let limb = |i: usize| -> Vec<u32> { (0..n).map(|j| (i + j) as u32 % LEAST_PRIME).collect() };
        let near = (NEAR_BYTES / (4 * n)).max(SOURCES + TARGETS);
        let source: Vec<Vec<u32>> = (0..near).map(limb).collect();
        let mut limbs = source.clone();
        let far = vec![1; FAR_BYTES / 4];
        let far: Vec<&[u32]> = far.chunks_exact(n).collect();
        let moduli = |range: std::ops::Range<usize>| -> Vec<Modulus> {
            range.map(|i| params.moduli()[i % params.moduli().len()]).collect()
        };
        let converter = BaseConverter::new(&moduli(0..SOURCES), &moduli(SOURCES..SOURCES + TARGETS));
        let y: Vec<&[u32]> = source[..SOURCES].iter().map(Vec::as_slice).collect();

        let (words, butterflies) = (n as f64, (n / 2) as f64 * f64::from(params.log_n()));
        let timed = |call: &mut dyn FnMut(usize)| {
            barrier.wait();
            seconds(call)
        };
        let ntt = timed(&mut |i| table.forward(isa, &mut limbs[i % near]));
        let intt = timed(&mut |i| table.inverse(isa, &mut limbs[i % near]));
        let base_convert = timed(&mut |_| {
            let mut targets: Vec<&mut [u32]> = limbs[..TARGETS].iter_mut().map(Vec::as_mut_slice).collect();
            base_convert(isa, &converter, &y, &mut targets);
        });
        let in_cache = timed(&mut |i| {
            mont_mul(isa, &q, &mut limbs[i % near], &source[i % near], &source[(i + 1) % near]);
        });
        let from_memory = timed(&mut |i| mont_mul(isa, &q, &mut limbs[0], &source[0], far[i % far.len()]));
        // As ranks do: limbs are copied to a message of their own, and out of another one.
        let handed = timed(&mut |i| {
            let mut message = vec![0; HANDED * n];
            for (index, words) in message.chunks_exact_mut(n).enumerate() {
                words.copy_from_slice(&source[(HANDED * i + index) % near]);
            }
            for (index, words) in black_box(message).chunks_exact(n).enumerate() {
                limbs[(HANDED * i + index) % near].copy_from_slice(words);
            }
        });
        Speed {
            ntt: ntt / butterflies,
            intt: intt / (butterflies + words),
            base_convert: base_convert / (words * (SOURCES + (SOURCES + 1) * TARGETS) as f64),
            limb_byte: in_cache / (12.0 * words),
            memory_byte: from_memory / (4.0 * words),
            hand_byte: handed / (2.0 * HANDED as f64 * 4.0 * words),
            wake: 0.0,
            threads: 1,
        }
    }
}

/// Seconds in which a thread that waits for a message has it: half of the time for one and an answer.
fn wake() -> f64 {
    let (to_other, from_here) = mpsc::channel::<()>();
    let (to_here, from_other) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || from_here.iter().try_for_each(|()| to_here.send(())));
        let start = Instant::now();
        for _ in 0..WAKES {
            to_other.send(()).expect("the other thread listens");
            from_other.recv().expect("the other thread answers");
        }
        let seconds = start.elapsed().as_secs_f64();
        drop(to_other);
        seconds / f64::from(2 * WAKES)
    })
}

/// Threads that are busy at once when so many ranks divide `threads` (0: one for each core) among them, one each at least.
pub(crate) fn of_ranks(threads: usize, ranks: usize) -> usize {
    if ranks == 1 { cores(threads) } else { cores(threads).max(ranks).min(cores(0)) }
}

/// `threads`, or the number of cores for 0.
fn cores(threads: usize) -> usize {
    if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads }
}

/// Bytes that `threads` threads (0: one for each core) read and write in a second when they copy what no cache holds.
pub(crate) fn copy_rate(threads: usize) -> f64 {
    let threads = cores(threads);
    let copy = |barrier: &Barrier| {
        let from = vec![1u8; COPY_BYTES];
        let mut to = vec![0u8; COPY_BYTES];
        let mut fastest = f64::INFINITY;
        for _ in 0..COPIES {
            barrier.wait();
            let start = Instant::now();
            black_box(&mut to).copy_from_slice(black_box(&from));
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        2.0 * COPY_BYTES as f64 / fastest
    };
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let copies: Vec<_> = (0..threads).map(|_| scope.spawn(|| copy(&barrier))).collect();
        copies.into_iter().map(|thread| thread.join().expect("copying does not panic")).sum()
    })
}

/// Seconds of one call, the best of five batches.
fn seconds(mut call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..4).for_each(&mut call);
    let batch =
        ((SAMPLE.as_secs_f64() / 5.0) / (start.elapsed().as_secs_f64() / 4.0)).clamp(1.0, 1e4) as usize;
    let time = |_| {
        let start = Instant::now();
        (0..batch).for_each(|i| call(black_box(i)));
        start.elapsed().as_secs_f64() / batch as f64
    };
    (0..5).map(time).fold(f64::INFINITY, f64::min)
}
