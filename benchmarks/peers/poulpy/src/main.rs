//! Multiplication with relinearization and rotation in `poulpy-ckks`, on its AVX-512 IFMA backend, one thread.
//!
//! Prints one JSON object a line: `{"op", "parameters", "samples_us"}`. Arguments: the number of unmeasured and of
//! measured repetitions, and the digits of a key's gadget block. Built with the nightly compiler and for the processor
//! at hand, as the crate asks.

use anyhow::{Context, Result, ensure};
use poulpy_ckks::api::{CKKSModuleInfos, CKKSMulOps, CKKSRotateOps};
use poulpy_ckks::test_suite::helpers::{
    alloc_ct, alloc_scratch, ckks_encrypt, gen_atk, gen_sk_with_raw, gen_tsk, test_vector_1, test_vector_2,
};
use poulpy_ckks::test_suite::reference_encoder::ReferenceEncoder;
use poulpy_ckks::test_suite::{BASE52_PARAMS_F64, CKKSTestParams};
use poulpy_cpu_avx512::{FFT64Avx512EncodingTable, NTT3x42Ifma};
use poulpy_hal::api::ScratchOwnedBorrow;
use poulpy_hal::layouts::{HostBytesBackend, Module};
use serde_json::json;
use std::collections::HashMap;
use std::time::Instant;

const N: usize = 1 << 16;
const LOG_PQ: usize = 1740;
const BASE2K: usize = 52;

fn main() -> Result<()> {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let [warm_up, repetitions, dsize] = arguments[..] else {
        anyhow::bail!("arguments: unmeasured repetitions, measured repetitions, digits of a gadget block");
    };
    ensure!(repetitions > 0, "at least one repetition must be measured");
    // The gadget's guard is what P is in residue form.
    let log_p = dsize * BASE2K + N.ilog2() as usize;
    let params = CKKSTestParams {
        n: N,
        base2k: BASE2K,
        k: LOG_PQ.checked_sub(log_p).context("the gadget block is larger than the modulus")?,
        hw: N / 2,
        dsize,
        ..BASE52_PARAMS_F64
    };
    let module = Module::<NTT3x42Ifma>::new(N as u64);
    let host = Module::<HostBytesBackend>::new(N as u64);
    let encoder = ReferenceEncoder::<FFT64Avx512EncodingTable>::new(N / 2).context("no encoder of this size")?;
    let (secret_raw, secret) = gen_sk_with_raw(&params, &module, &host, [7; 32]);
    let mut scratch = alloc_scratch(&params, &module);
    let mut encrypt = |(re, im): (Vec<f64>, Vec<f64>)| {
        ckks_encrypt(&params, &module, &host, &encoder, &secret, params.k, &re, &im, &mut scratch.borrow())
    };
    let (a, b) = (encrypt(test_vector_1(N / 2)), encrypt(test_vector_2(N / 2)));
    let mut out = alloc_ct(&params, &module, params.k);

    let report = |op: &str, samples: Vec<f64>| {
        let parameters = json!({ "n": N, "log_pq": LOG_PQ, "log_q": params.k, "gadget_block_bits": dsize * BASE2K });
        println!("{}", json!({ "op": op, "parameters": parameters, "samples_us": samples }));
    };
    let time = |run: &mut dyn FnMut() -> Result<()>| -> Result<Vec<f64>> {
        let mut samples = Vec::with_capacity(repetitions);
        for round in 0..warm_up + repetitions {
            let start = Instant::now();
            run()?;
            let micros = start.elapsed().as_secs_f64() * 1e6;
            if round >= warm_up {
                samples.push(micros);
            }
        }
        Ok(samples)
    };

    let key = gen_tsk(&params, &module, &secret_raw, &mut scratch.borrow());
    let samples = time(&mut || Ok(module.ckks_mul_into(&mut out, &a, &b, &key, &mut scratch.borrow())?))?;
    report("multiply", samples);
    drop(key);

    let galois = module.ckks_galois_element(1);
    let key = gen_atk(&params, &module, galois, &secret_raw, &mut scratch.borrow());
    let keys = HashMap::from([(galois, key)]);
    let samples = time(&mut || Ok(module.ckks_rotate_into(1, &mut out, &a, &keys, &mut scratch.borrow())?))?;
    report("rotate", samples);
    Ok(())
}
