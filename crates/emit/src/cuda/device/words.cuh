// Words modulo a prime, loads and stores: the head of every emitted source. cuda/abi.rs describes what is passed in.
//
// The same text compiles for the host, where a shim defines __global__ and its like: what only a GPU has stands behind
// __CUDA_ARCH__ with a twin in plain C++.

typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE static __device__ __forceinline__

// A prime q below 2^30 with the constants of Montgomery's reduction (R = 2^32).
struct Prime {
    u32 q;
    u32 minus_inverse; // -q^-1 mod 2^32
    u32 r2;            // R^2 mod q
    u32 index;         // in the pool of the parameter set
};

DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 low(u64 x) { return (u32)x; }
DEVICE u32 high(u64 x) { return (u32)(x >> 32); }
DEVICE u64 wide(u32 a, u32 b) { return (u64)a * b; }

// From [0, 2q) to [0, q): a negative difference wraps and is the larger of the two.
DEVICE u32 canonical(u32 x, const Prime& p) { return smaller(x, x - p.q); }
// From [0, 4q) to [0, 2q).
DEVICE u32 below_2q(u32 x, const Prime& p) { return smaller(x, x - 2 * p.q); }

// Residues are canonical, in [0, q), unless a range is given.
DEVICE u32 add(u32 a, u32 b, const Prime& p) { return canonical(a + b, p); }
DEVICE u32 sub(u32 a, u32 b, const Prime& p) { return smaller(a - b, a - b + p.q); }
DEVICE u32 neg(u32 a, const Prime& p) { return sub(0, a, p); }

// x / R for x < k q R with k <= 3, in [0, (k + 1) q): the multiple of q that is added makes the low word vanish.
DEVICE u32 reduce_lazy(u64 x, const Prime& p) { return high(x + wide(low(x) * p.minus_inverse, p.q)); }
// x / R for x < q R.
DEVICE u32 reduce(u64 x, const Prime& p) { return canonical(reduce_lazy(x, p), p); }
// a b / R for a b < q R: one of them canonical, the other any word.
DEVICE u32 mont_mul(u32 a, u32 b, const Prime& p) { return reduce(wide(a, b), p); }
// a b, both in normal form.
DEVICE u32 mul(u32 a, u32 b, const Prime& p) { return mont_mul(reduce_lazy(wide(a, b), p), p.r2, p); }
// a w for any word a and a factor w in normal form with quotient = floor(w R / q) (Shoup), in [0, 2q).
DEVICE u32 mul_factor_lazy(u32 a, u32 w, u32 quotient, const Prime& p) {
    return a * w - high(wide(a, quotient)) * p.q;
}
DEVICE u32 mul_factor(u32 a, u32 w, u32 quotient, const Prime& p) {
    return canonical(mul_factor_lazy(a, w, quotient, p), p);
}

// From x < 4 q R to x < 2 q R with the same residue: then eight more products of canonical words fit.
DEVICE u64 fold(u64 x, const Prime& p) { return (u64)below_2q(high(x), p) << 32 | low(x); }
// x / R for x < 2 q R: a sum of up to 8 products of canonical words.
DEVICE u32 reduce_8(u64 x, const Prime& p) { return canonical(below_2q(reduce_lazy(x, p), p), p); }
// x / R for x < 4 q R: a sum of up to 16 products of canonical words.
DEVICE u32 reduce_16(u64 x, const Prime& p) { return reduce_8(fold(x, p), p); }

// The bits of x in reversed order.
DEVICE u32 reverse(u32 x) {
#ifdef __CUDA_ARCH__
    return __brev(x);
#else
    x = x >> 16 | x << 16;
    x = (x >> 8 & 0x00ff00ff) | (x & 0x00ff00ff) << 8;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    return (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
#endif
}

// Where the automorphism X -> X^g of the evaluation domain takes the word at position i of a limb of 2^LOG_N words from
// (cerium_ckks::automorphism): position i holds the value at the exponent 2 reverse(i) + 1.
template <int LOG_N> DEVICE u32 permuted(u32 i, u32 g) {
    u32 exponent = reverse(i) >> (31 - LOG_N) | 1;
    return reverse(exponent * g << (31 - LOG_N)) & ((1u << LOG_N) - 1);
}

// The word at position `at` of a limb. Limbs are in global memory, which the compiler cannot know of an address that was loaded.
DEVICE u32* global(u64 limb, u32 at) {
    u32* word = (u32*)limb + at;
#ifdef __CUDA_ARCH__
    __builtin_assume(__isGlobal(word));
#endif
    return word;
}

// Loads. `fetch` is for memory that nobody writes during the launch, `stream` for what is read once and should leave the
// cache to others, `peek` for memory that the launch writes.
DEVICE u32 fetch(const u32* at) {
#ifdef __CUDA_ARCH__
    u32 x;
    asm("ld.global.nc.u32 %0, [%1];" : "=r"(x) : "l"(at));
    return x;
#else
    return *at;
#endif
}
DEVICE u64 fetch(const u64* at) {
#ifdef __CUDA_ARCH__
    u64 x;
    asm("ld.global.nc.u64 %0, [%1];" : "=l"(x) : "l"(at));
    return x;
#else
    return *at;
#endif
}
DEVICE u32 stream(const u32* at) {
#ifdef __CUDA_ARCH__
    u64 first_to_go;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(first_to_go));
    u32 x;
    asm("ld.global.nc.L1::no_allocate.L2::cache_hint.u32 %0, [%1], %2;" : "=r"(x) : "l"(at), "l"(first_to_go));
    return x;
#else
    return *at;
#endif
}
DEVICE u32 peek(const u32* at) { return *at; }

// V words that a thread holds.
template <int V> struct Words { u32 w[V]; };
// Sums of products, one for each.
template <int V> struct Sums { u64 w[V]; };

struct alignas(8) Pair { u32 w[2]; };
struct alignas(16) Quad { u32 w[4]; };

DEVICE Pair fetch(const Pair* at) {
#ifdef __CUDA_ARCH__
    Pair x;
    asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(x.w[0]), "=r"(x.w[1]) : "l"(at));
    return x;
#else
    return *at;
#endif
}
DEVICE Quad fetch(const Quad* at) {
#ifdef __CUDA_ARCH__
    Quad x;
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3])
        : "l"(at));
    return x;
#else
    return *at;
#endif
}
DEVICE Pair stream(const Pair* at) {
#ifdef __CUDA_ARCH__
    u64 first_to_go;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(first_to_go));
    Pair x;
    asm("ld.global.nc.L1::no_allocate.L2::cache_hint.v2.u32 {%0, %1}, [%2], %3;"
        : "=r"(x.w[0]), "=r"(x.w[1])
        : "l"(at), "l"(first_to_go));
    return x;
#else
    return *at;
#endif
}
DEVICE Quad stream(const Quad* at) {
#ifdef __CUDA_ARCH__
    u64 first_to_go;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(first_to_go));
    Quad x;
    asm("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
        : "=r"(x.w[0]), "=r"(x.w[1]), "=r"(x.w[2]), "=r"(x.w[3])
        : "l"(at), "l"(first_to_go));
    return x;
#else
    return *at;
#endif
}
DEVICE Pair peek(const Pair* at) { return *at; }
DEVICE Quad peek(const Quad* at) { return *at; }

// The V words of a limb at `at`, `at + STEP`, ...; consecutive words (STEP = 1) begin at a multiple of V and are moved by up to
// 16 bytes at once.
#define DEFINE_LOAD(NAME, READ)                                                                                       \
    template <int V, int STEP> DEVICE Words<V> NAME(u64 limb, u32 at) {                                               \
        const u32* from = global(limb, at);                                                                           \
        Words<V> out;                                                                                                 \
        if (STEP == 1 && V % 4 == 0) {                                                                                \
            _Pragma("unroll") for (int k = 0; k < V; k += 4) {                                                        \
                Quad x = READ((const Quad*)(from + k));                                                               \
                _Pragma("unroll") for (int j = 0; j < 4; j++) out.w[(k + j) % V] = x.w[j];                            \
            }                                                                                                         \
        } else if (STEP == 1 && V % 2 == 0) {                                                                         \
            _Pragma("unroll") for (int k = 0; k < V; k += 2) {                                                        \
                Pair x = READ((const Pair*)(from + k));                                                               \
                _Pragma("unroll") for (int j = 0; j < 2; j++) out.w[(k + j) % V] = x.w[j];                            \
            }                                                                                                         \
        } else {                                                                                                      \
            _Pragma("unroll") for (int k = 0; k < V; k++) out.w[k] = READ(from + k * STEP);                           \
        }                                                                                                             \
        return out;                                                                                                   \
    }
DEFINE_LOAD(load, fetch)
DEFINE_LOAD(load_once, stream)
DEFINE_LOAD(load_own, peek)

// The same of a limb whose words stand for runs of 2^log_run equal words each.
template <int V, int STEP> DEVICE Words<V> load_short_runs(u64 limb, u32 at, u32 log_run) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = fetch((const u32*)limb + ((at + k * STEP) >> log_run));
    return out;
}
// The same when 2^log_run >= 8.
template <int V, int STEP> DEVICE Words<V> load_runs(u64 limb, u32 at, u32 log_run) {
    static_assert(STEP != 1 || V <= 8, "aligned runs of eight words are equal");
    if (STEP != 1) return load_short_runs<V, STEP>(limb, at, log_run);
    u32 x = fetch((const u32*)limb + (at >> log_run));
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = x;
    return out;
}

// The words at any positions of a limb that nobody writes during the launch, and of one that is stored by runs.
template <int V> DEVICE Words<V> gather(u64 limb, const Words<V>& at) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = fetch((const u32*)limb + at.w[k]);
    return out;
}
template <int V> DEVICE Words<V> gather_once(u64 limb, const Words<V>& at) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = stream((const u32*)limb + at.w[k]);
    return out;
}
template <int V> DEVICE Words<V> gather_runs(u64 limb, const Words<V>& at, u32 log_run) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = fetch((const u32*)limb + (at.w[k] >> log_run));
    return out;
}

// Stores the words at `at`, `at + STEP`, ...
template <int V, int STEP> DEVICE void store(u64 limb, u32 at, const Words<V>& x) {
    u32* to = global(limb, at);
    if (STEP == 1 && V % 4 == 0) {
#pragma unroll
        for (int k = 0; k < V; k += 4) {
            *(Quad*)(to + k) = Quad{{x.w[k], x.w[(k + 1) % V], x.w[(k + 2) % V], x.w[(k + 3) % V]}};
        }
    } else if (STEP == 1 && V % 2 == 0) {
#pragma unroll
        for (int k = 0; k < V; k += 2) *(Pair*)(to + k) = Pair{{x.w[k], x.w[(k + 1) % V]}};
    } else {
#pragma unroll
        for (int k = 0; k < V; k++) to[k * STEP] = x.w[k];
    }
}

// Positions at, at + STEP, ...
template <int V, int STEP> DEVICE Words<V> positions(u32 at) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = at + k * STEP;
    return out;
}
template <int LOG_N, int V> DEVICE Words<V> permuted(const Words<V>& at, u32 g) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = permuted<LOG_N>(at.w[k], g);
    return out;
}

// The arithmetic above, word by word.
template <int V> DEVICE Words<V> add(const Words<V>& a, const Words<V>& b, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = add(a.w[k], b.w[k], p);
    return out;
}
template <int V> DEVICE Words<V> sub(const Words<V>& a, const Words<V>& b, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = sub(a.w[k], b.w[k], p);
    return out;
}
template <int V> DEVICE Words<V> neg(const Words<V>& a, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = neg(a.w[k], p);
    return out;
}
template <int V> DEVICE Words<V> mul(const Words<V>& a, const Words<V>& b, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = mul(a.w[k], b.w[k], p);
    return out;
}
template <int V> DEVICE Words<V> mont_mul(const Words<V>& a, const Words<V>& b, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = mont_mul(a.w[k], b.w[k], p);
    return out;
}
template <int V> DEVICE Words<V> mul_scalar(const Words<V>& a, u32 w, u32 quotient, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = mul_factor(a.w[k], w, quotient, p);
    return out;
}
template <int V> DEVICE Words<V> add_scalar(const Words<V>& a, u32 c, const Prime& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = add(a.w[k], c, p);
    return out;
}
template <int V> DEVICE Sums<V> product(const Words<V>& a, const Words<V>& b) {
    Sums<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = wide(a.w[k], b.w[k]);
    return out;
}
template <int V> DEVICE void add_product(Sums<V>& sum, const Words<V>& a, const Words<V>& b) {
#pragma unroll
    for (int k = 0; k < V; k++) sum.w[k] += wide(a.w[k], b.w[k]);
}
template <int V> DEVICE void fold(Sums<V>& sum, const Prime& p) {
#pragma unroll
    for (int k = 0; k < V; k++) sum.w[k] = fold(sum.w[k], p);
}
// Sums of up to PRODUCTS products, over R.
template <int PRODUCTS, int V> DEVICE Words<V> reduce(const Sums<V>& sum, const Prime& p) {
    static_assert(PRODUCTS <= 16, "more products have to be folded");
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) {
        u64 x = sum.w[k];
        out.w[k] = PRODUCTS <= 4 ? reduce(x, p) : PRODUCTS <= 8 ? reduce_8(x, p) : reduce_16(x, p);
    }
    return out;
}

// The pointers and constants of one row of a launch, or of a block within it.
struct Row {
    const u64* pointers;
    const u32* constants;
};
DEVICE Row row_at(const u64* pointers, const u32* constants) { return Row{pointers, constants}; }
DEVICE u64 pointer(const Row& row, u32 index) { return fetch(row.pointers + index); }
DEVICE u32 constant(const Row& row, u32 index) { return fetch(row.constants + index); }
DEVICE Prime prime_at(const u32* constants) {
    return Prime{fetch(constants), fetch(constants + 1), fetch(constants + 2), fetch(constants + 3)};
}
