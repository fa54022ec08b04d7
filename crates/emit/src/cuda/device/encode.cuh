// Plaintexts from raw weights: slots, the inverse of the encoder's transform (cerium_ckks::encoding), rounding, residues, and
// a small transform modulo each prime. cuda/encode.rs describes what is passed in.
//
// Sums and products of doubles are rounded one by one, in the order of the encoder, so that all bits are the same everywhere.

#ifdef __CUDA_ARCH__
DEVICE double f_add(double a, double b) { return __dadd_rn(a, b); }
DEVICE double f_sub(double a, double b) { return __dsub_rn(a, b); }
DEVICE double f_mul(double a, double b) { return __dmul_rn(a, b); }
DEVICE double f_round(double x) { return rint(x); }
DEVICE float f_bits(u32 x) { return __uint_as_float(x); }
DEVICE u64 d_bits(double x) { return (u64)__double_as_longlong(x); }
#else
DEVICE double f_add(double a, double b) { return a + b; }
DEVICE double f_sub(double a, double b) { return a - b; }
DEVICE double f_mul(double a, double b) { return a * b; }
DEVICE double f_round(double x) { return __builtin_rint(x); }
DEVICE float f_bits(u32 x) { return __builtin_bit_cast(float, x); }
DEVICE u64 d_bits(double x) { return __builtin_bit_cast(u64, x); }
#endif

// Words of a descriptor.
struct Weight {
    u32 table;            // whether a slot table says which value goes to which slot
    u32 element;          // 0: f32, 1: f16, 2: bf16
    u32 first, down, right; // of a rectangle of a matrix: its first value, and the distances of rows and of columns
    u32 rows, columns;
    u32 offset;           // of the diagonal
    u32 rotation;         // of the slots, to the left
    u32 limbs;
    double factor, scale;
};
DEVICE double double_at(const u32* at) {
    u64 bits = (u64)fetch(at + 1) << 32 | fetch(at);
#ifdef __CUDA_ARCH__
    return __longlong_as_double((i64)bits);
#else
    return __builtin_bit_cast(double, bits);
#endif
}
DEVICE Weight weight_at(const u32* at) {
    return Weight{fetch(at),     fetch(at + 1), fetch(at + 2), fetch(at + 3), fetch(at + 4),      fetch(at + 5),
                  fetch(at + 6), fetch(at + 7), fetch(at + 8), fetch(at + 9), double_at(at + 10), double_at(at + 12)};
}

// The value of 16 bits as IEEE half precision.
DEVICE float half_value(u32 bits) {
    u32 sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    // Subnormal numbers are multiples of 2^-24, which single precision has exactly.
    if (exponent == 0) return f_bits(sign | 0x3f800000) * ((float)fraction * 5.9604644775390625e-8f);
    return f_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

// A value of a tensor.
DEVICE double value(const u32* words, u32 element, u32 index) {
    if (element == 0) return (double)f_bits(fetch(words + index));
    u32 bits = fetch(words + (index >> 1)) >> (index & 1) * 16 & 0xffff;
    return (double)(element == 1 ? half_value(bits) : f_bits(bits << 16));
}

const u32 NO_ELEMENT = 0xffffffff;

// Slot `i` of a weight before rotation, times its factor.
template <int LOG_PERIOD>
DEVICE void slot(const Weight& weight, const u32* words, const u32* table, u32 i, double& re, double& im) {
    const u32 MASK = (1u << LOG_PERIOD) - 1;
    re = im = 0;
    if (weight.table) {
        u32 index = fetch(table + i);
        if (index != NO_ELEMENT) re = f_mul(value(words, weight.element, index), weight.factor);
        return;
    }
    u32 j = (i + weight.offset) & MASK;
    if (i >= weight.rows || j >= weight.columns) return;
    double x = f_mul(value(words, weight.element, weight.first + i * weight.down + j * weight.right), weight.factor);
    // What wraps around is imaginary.
    if (i + weight.offset > MASK) im = -x;
    else re = x;
}

// The residue of an integer in a double, below 2^126, in Montgomery form.
DEVICE u32 residue(double x, const Prime& p) {
    u64 bits = d_bits(x);
    u32 exponent = (u32)(bits >> 52) & 0x7ff;
    const bool large = exponent >= 1023 + 63;
    u64 shifted = large ? ((bits & 0xfffffffffffffull) | 1ull << 52) + (1ull << 63) : (u64)(i64)x ^ 1ull << 63;
    // (a + b R - 2^63) R = a R^2 R^-1 + b R^3 R^-1 - 2^63 R with R = 2^32.
    u32 r3 = mont_mul(p.r2, p.r2, p);
    u32 r = add(mont_mul(low(shifted), p.r2, p), mont_mul(high(shifted), r3, p), p);
    r = sub(r, mont_mul(1u << 31, r3, p), p);
    if (!large) return r;
    // A double of 2^63 or more is 53 bits times a power of two.
    for (u32 left = exponent - 1075; left > 0;) {
        u32 step = smaller(left, 24);
        r = mul(r, 1u << step, p);
        left -= step;
    }
    return bits >> 63 ? neg(r, p) : r;
}

// One plaintext with a period of 2^LOG_PERIOD slots: compact limbs one behind the other. `units` are the factors of the
// encoder's transform as pairs of doubles, `roots` for each prime of the pool those of a transform of up to `root_words` words.
template <int LOG_PERIOD, int THREADS>
DEVICE void encode(const Weight& weight, const u32* values, const u32* table, const u32* primes, u32* out,
                   const u32* units, const u32* roots, u32 root_words, double* re, double* im, u32* x) {
    const u32 PERIOD = 1u << LOG_PERIOD, WORDS = 2 * PERIOD;
    for (u32 i = threadIdx.x; i < PERIOD; i += THREADS) {
        slot<LOG_PERIOD>(weight, values, table, (i + weight.rotation) & (PERIOD - 1), re[i], im[i]);
    }
    __syncthreads();
    for (int log_half = LOG_PERIOD - 1; log_half >= 0; log_half--) {
        const u32 half = 1u << log_half;
        for (u32 i = threadIdx.x; i < PERIOD / 2; i += THREADS) {
            u32 k = i & (half - 1), even = (i >> log_half << (log_half + 1)) | k, odd = even + half;
            double w_re = double_at(units + 4 * (half + k)), w_im = double_at(units + 4 * (half + k) + 2);
            double d_re = f_sub(re[even], re[odd]), d_im = f_sub(im[even], im[odd]);
            re[even] = f_add(re[even], re[odd]);
            im[even] = f_add(im[even], im[odd]);
            // Times the conjugate of w.
            re[odd] = f_add(f_mul(d_re, w_re), f_mul(d_im, w_im));
            im[odd] = f_sub(f_mul(d_im, w_re), f_mul(d_re, w_im));
        }
        __syncthreads();
    }
    for (u32 i = threadIdx.x; i < PERIOD; i += THREADS) {
        re[i] = f_round(f_mul(f_mul(re[i], 1.0 / PERIOD), weight.scale));
        im[i] = f_round(f_mul(f_mul(im[i], 1.0 / PERIOD), weight.scale));
    }
    __syncthreads();
    for (u32 limb = 0; limb < weight.limbs; limb++) {
        const Prime p = prime_at(primes + 4 * limb);
        const u32* w = roots + p.index * root_words;
        // The inverse transform leaves its results in bit-reversed order.
        for (u32 i = threadIdx.x; i < PERIOD; i += THREADS) {
            u32 from = LOG_PERIOD == 0 ? 0 : reverse(i) >> ((32 - LOG_PERIOD) & 31);
            x[i] = residue(re[from], p);
            x[i + PERIOD] = residue(im[from], p);
        }
        __syncthreads();
        for (int log_half = LOG_PERIOD; log_half >= 0; log_half--) {
            const u32 half = 1u << log_half, groups = PERIOD >> log_half;
            for (u32 i = threadIdx.x; i < PERIOD; i += THREADS) {
                u32 group = i >> log_half, first = (group << (log_half + 1)) | (i & (half - 1));
                u32 a = x[first], b = mont_mul(x[first + half], fetch(w + groups + group), p);
                x[first] = add(a, b, p);
                x[first + half] = sub(a, b, p);
            }
            __syncthreads();
        }
        for (u32 i = threadIdx.x; i < WORDS; i += THREADS) out[limb * WORDS + i] = x[i];
        __syncthreads();
    }
}
