//! How fast this machine is, measured on the spot: what `explain` predicts times from.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use cerium_ckks::basis::PrimeIndex;
use cerium_ckks::isa::Isa;
use cerium_ckks::modulus::Modulus;
use cerium_ckks::params::Params;
use cerium_runtime::cpu::kernels::{BaseConverter, base_convert, mont_mul};
use cerium_runtime::null::Measurement;
use cerium_runtime::{KernelClass, Usage};

/// Words below this are canonical modulo every prime.
const LEAST_PRIME: u32 = 1 << 20;
/// Each kernel is measured for about this long.
const SAMPLE: Duration = Duration::from_millis(10);
/// What each thread copies to measure the rate of copies, and how often.
const COPY_BYTES: usize = 64 << 20;
const COPIES: usize = 5;

/// Seconds of one thread for what bounds each class: multiplications of transforms and conversions, bytes of the
/// others.
pub(crate) struct Speed {
    ntt: f64,
    intt: f64,
    base_convert: f64,
    elementwise: f64,
}

impl Speed {
    /// Measures kernels on limbs of `params`.
    pub(crate) fn measure(params: &Params) -> Speed {
        let (isa, n, prime) = (Isa::detect(), params.n(), PrimeIndex(0));
        let (q, table) = (*params.modulus(prime), params.ntt(prime));
        // More limbs than a second-level cache holds, as in a run.
        let count = ((1 << 22) / n).min(256);
        let source: Vec<Vec<u32>> =
            (0..count).map(|i| (0..n).map(|j| (i + j) as u32 % LEAST_PRIME).collect()).collect();
        let mut limbs = source.clone();
        let butterflies = (n / 2) as f64 * f64::from(params.log_n());
        let ntt = seconds(|i| table.forward(isa, &mut limbs[i % count]));
        let intt = seconds(|i| table.inverse(isa, &mut limbs[i % count]));
        let elementwise = seconds(|i| {
            mont_mul(isa, &q, &mut limbs[i % count], &source[i % count], &source[(i + 1) % count])
        });
        let moduli = |range: std::ops::Range<usize>| -> Vec<Modulus> {
            range.map(|i| params.moduli()[i % params.moduli().len()]).collect()
        };
        let converter = BaseConverter::new(&moduli(0..3), &moduli(3..7));
        let y: Vec<&[u32]> = source[..3].iter().map(Vec::as_slice).collect();
        let convert = seconds(|_| {
            let mut targets: Vec<&mut [u32]> = limbs[..4].iter_mut().map(Vec::as_mut_slice).collect();
            base_convert(isa, &converter, &y, &mut targets);
        });
        let words = n as f64;
        Speed {
            ntt: ntt / butterflies,
            intt: intt / (butterflies + words),
            // Three sources and the quotient for each of four targets, and the quotient itself.
            base_convert: convert / (words * (3 + 4 * 4) as f64),
            elementwise: elementwise / (12.0 * words),
        }
    }

    /// Predicted time of a run on one thread.
    pub(crate) fn total(&self, costs: &Measurement) -> Duration {
        KernelClass::ALL.into_iter().map(|class| self.predict(class, &costs.usage.class(class))).sum()
    }

    /// Predicted time of what kernels of a class cost, on one thread.
    pub(crate) fn predict(&self, class: KernelClass, usage: &Usage) -> Duration {
        let bytes = (usage.bytes_read + usage.bytes_written) as f64;
        let multiplications = usage.multiplications as f64;
        Duration::from_secs_f64(match class {
            KernelClass::Ntt => self.ntt * multiplications,
            KernelClass::Intt => self.intt * multiplications,
            KernelClass::BaseConvert => self.base_convert * multiplications,
            KernelClass::Elementwise => self.elementwise * bytes,
        })
    }
}

/// Bytes that `threads` threads (0: one for each core) read and write in a second when they copy what no cache holds.
pub(crate) fn copy_rate(threads: usize) -> f64 {
    let threads =
        if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
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
