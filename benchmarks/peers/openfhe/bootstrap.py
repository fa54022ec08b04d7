"""A bootstrap of OpenFHE at N = 2^16 with all slots.

Prints one JSON object. Argument: the number of measured repetitions (one more, the first, is not measured). It runs on
OMP_NUM_THREADS threads.
"""

import json
import math
import os
import random
import sys
import time

import openfhe

N = 1 << 16
SLOTS = N // 2
LOG_SCALE = 59
LOG_FIRST = 60
LOG_SPECIAL = 60  # OpenFHE's size of the primes of P
DIGITS = 4
BUDGET = [3, 3]  # levels of CoeffsToSlots and SlotsToCoeffs
SECRET = openfhe.SecretKeyDist.SPARSE_TERNARY
WEIGHT = 192  # OpenFHE's weight of a sparse secret


def context(depth):
    """A context for `depth` levels, with the ring degree that OpenFHE asks for at 128 bits of security."""
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetSecretKeyDist(SECRET)
    parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
    parameters.SetScalingModSize(LOG_SCALE)
    parameters.SetFirstModSize(LOG_FIRST)
    parameters.SetScalingTechnique(openfhe.ScalingTechnique.FLEXIBLEAUTO)
    parameters.SetCKKSDataType(openfhe.CKKSDataType.COMPLEX)
    parameters.SetNumLargeDigits(DIGITS)
    parameters.SetBatchSize(SLOTS)
    parameters.SetMultiplicativeDepth(depth)
    return openfhe.GenCryptoContext(parameters)


def deepest():
    """The deepest context of this ring degree, and its depth."""
    depth = openfhe.CryptoContext.GetBootstrapDepth(BUDGET, SECRET) + 1
    while (longer := context(depth + 1)).GetRingDimension() == N:
        depth += 1
    del longer
    return context(depth), depth


def log_pq(depth):
    """Of the primes of Q, and those of P, of which OpenFHE takes as many as cover the largest digit."""
    log_q = LOG_FIRST + depth * LOG_SCALE
    digit = math.ceil((depth + 1) / DIGITS)
    return log_q + LOG_SPECIAL * math.ceil((digit * LOG_SCALE + LOG_FIRST - LOG_SCALE) / LOG_SPECIAL)


def memory(field):
    """A size in /proc/self/status, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def main():
    repetitions = int(sys.argv[1])
    start = time.perf_counter()
    crypto, depth = deepest()
    for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE", "FHE"):
        crypto.Enable(getattr(openfhe.PKESchemeFeature, feature))
    crypto.EvalBootstrapSetup(BUDGET, [0, 0], SLOTS)
    keys = crypto.KeyGen()
    crypto.EvalMultKeyGen(keys.secretKey)
    crypto.EvalBootstrapKeyGen(keys.secretKey, SLOTS)
    seed = random.SystemRandom().getrandbits(64)
    generator = random.Random(seed)
    slots = [complex(generator.uniform(-1, 1), generator.uniform(-1, 1)) for _ in range(SLOTS)]
    plaintext = crypto.MakeCKKSPackedPlaintext(slots, 1, depth - 1, None, SLOTS)
    ciphertext = crypto.Encrypt(keys.publicKey, plaintext)
    refreshed = crypto.EvalBootstrap(ciphertext)
    setup = time.perf_counter() - start
    setup_peak = memory("VmHWM")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak begins anew
    wall, cpu = [], []
    for _ in range(repetitions):
        begin = time.perf_counter(), time.process_time()
        refreshed = crypto.EvalBootstrap(ciphertext)
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    peak = memory("VmHWM")
    # From the level at which a bootstrap takes its input to that of its result.
    levels = ciphertext.GetLevel() - refreshed.GetLevel() - (refreshed.GetNoiseScaleDeg() - 1)
    decrypted = crypto.Decrypt(refreshed, keys.secretKey)
    decrypted.SetLength(SLOTS)
    errors = [a - b for a, b in zip(decrypted.GetCKKSPackedValue(), slots)]
    parts = [abs(part) for error in errors for part in (error.real, error.imag)]
    report = {
        "params": f"{LOG_SCALE}-bit scale, depth {depth}, {DIGITS} digits, level budget {BUDGET}",
        "n": N,
        "slots": SLOTS,
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "secret": f"ternary of weight {WEIGHT}",
        "secret_weight": WEIGHT,
        "log_pq": log_pq(depth),
        "levels_left": levels,
        "log_scale": LOG_SCALE,
        "log_q_left": levels * LOG_SCALE,
        "mean_precision_bits_of_parts": -math.log2(sum(parts) / len(parts)),
        "min_precision_bits_of_parts": -math.log2(max(parts)),
        "messages": f"uniform in the complex unit square, seed {seed}",
        "setup_s": setup,
        "setup_peak_rss_bytes": setup_peak,
        "samples_s": wall,
        "samples_cpu_s": cpu,
        "peak_rss_bytes": peak,
    }
    print(json.dumps(report))


main()
