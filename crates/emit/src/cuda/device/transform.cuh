// Number-theoretic transforms, a tile of a limb at a time. cuda/transform.rs writes the kernels and describes the tables.
//
// Every thread holds 16 words of a tile. A pass does up to four stages on them; between two passes the words go through
// shared memory. Stage s of a transform has 2^s groups of words, each with its factor.

// A tile of 2^LOG_TILE words in STAGES stages from stage FIRST on of a transform of 2^LOG_N words. The first stages of a
// transform pair words that are far apart: their tile has 2^LOW neighbouring words out of every 2^(LOG_N - STAGES). The tiles
// of later stages are stretches of the limb. `blockIdx.x` is the tile.
template <int LOG_N_, int FIRST_, int STAGES_, int LOG_TILE_> struct Tile {
    static const int LOG_N = LOG_N_, FIRST = FIRST_, STAGES = STAGES_, LOG_TILE = LOG_TILE_;
    static const int THREADS = 1 << (LOG_TILE - 4);
    // The stages pair words by the bits LOW .. LOW + STAGES of their local position.
    static const int LOW = FIRST == 0 ? LOG_TILE - STAGES : 0;

    // The position in the limb of a local position.
    DEVICE u32 at(u32 local) {
        if (FIRST != 0) return blockIdx.x << LOG_TILE | local;
        return local >> LOW << (LOG_N - STAGES) | blockIdx.x << LOW | (local & ((1u << LOW) - 1));
    }
    // How far apart in the limb words are that are 2^BIT apart in the tile; BIT >= LOW.
    template <int BIT> static constexpr int STEP = 1 << (FIRST != 0 ? BIT : BIT - LOW + LOG_N - STAGES);

    // Shared memory: without padding, threads that hold words in different stretches of 16 or 256 would meet in one bank. A
    // warp of a tile of columns holds 32 neighbouring words.
    static const int WORDS = (1 << LOG_TILE) + (LOW < 5 ? (1 << LOG_TILE >> 4 << 2) + (1 << LOG_TILE >> 8 << 4) : 0);
    DEVICE u32 padded(u32 local) { return LOW < 5 ? local + (local >> 4 << 2) + (local >> 8 << 4) : local; }
};

// A prime with what the butterflies add. The compiler would make 2q of q each time it is added, did it know; so it is loaded.
struct Field : Prime {
    u32 two_q, minus_two_q;
};
DEVICE Field field_at(const u32* constants, u32 more) {
    return Field{prime_at(constants), fetch(constants + more), fetch(constants + more + 1)};
}
// From [0, 4q) to [0, 2q).
DEVICE u32 below_2q(u32 x, const Field& p) { return smaller(x, x + p.minus_two_q); }

// V words out of 16, beginning with word k.
template <int V> DEVICE Words<V> part(const Words<16>& x, int k) {
    Words<V> out;
#pragma unroll
    for (int j = 0; j < V; j++) out.w[j] = x.w[k + j];
    return out;
}
template <int V> DEVICE void set_part(Words<16>& x, int k, const Words<V>& from) {
#pragma unroll
    for (int j = 0; j < V; j++) x.w[k + j] = from.w[j];
}

// (x + w y, x - w y). In and out [0, 4q), w canonical and in Montgomery form (Harvey, "Faster arithmetic for number-theoretic
// transforms", 2014).
DEVICE void butterfly(u32& x, u32& y, u32 w, const Field& p) {
    u32 a = below_2q(x, p);
    u32 b = reduce_lazy(wide(y, w), p);
    x = a + b;
    y = a - b + p.two_q;
}
// (x + y, w (x - y)). In and out [0, 2q).
DEVICE void inverse_butterfly(u32& x, u32& y, u32 w, const Field& p) {
    u32 difference = x - y + p.two_q;
    x = below_2q(x + y, p);
    y = reduce_lazy(wide(difference, w), p);
}

// Factors are `roots[g]` for the groups g = 2^s .. 2^(s+1) of stage s. Those of R stages of what is group `group` in the
// first of them: `[2^s + i]` for group i of stage s.
template <int R> DEVICE Words<16> factors(const u32* roots, u32 group) {
    Words<16> w;
    if (R > 0) w.w[1] = fetch(roots + group);
    if (R > 1) set_part(w, 2, load<2, 1>((u64)roots, group << 1));
    if (R > 2) set_part(w, 4, load<4, 1>((u64)roots, group << 2));
    if (R > 3) set_part(w, 8, load<8, 1>((u64)roots, group << 3));
    return w;
}

// The same for the last R stages of a transform, of which the last MADE are not in the table: it has one factor for every
// 2^(MADE - 1) groups of the last stage. Factors are a homomorphism of the bits of the group (roots[a + b] = roots[a] roots[b]
// where a and b have no bit in common), and the square of roots[2 g] is roots[g].
template <int R, int MADE> DEVICE Words<16> last_factors(const u32* roots, u32 group, const Field& p) {
    Words<16> w = factors<R - MADE>(roots, group);
    Words<1 << (MADE - 1)> within = load<1 << (MADE - 1), 1>((u64)roots, 0);
    Words<1 << (R - MADE)> last = load<1 << (R - MADE), 1>((u64)roots, group << (R - MADE));
#pragma unroll
    for (int u = 0; u < 1 << (R - MADE); u++) {
        u32 first = last.w[u];
#pragma unroll
        for (int depth = MADE - 1; depth >= 0; depth--) {
            int to = (1 << (R - MADE) | u) << depth;
            w.w[to] = first;
#pragma unroll
            for (int i = 1; i < 1 << (MADE - 1); i++) {
                if (i < 1 << depth) w.w[to + i] = mont_mul(first, within.w[i], p);
            }
            if (depth > 0) first = mont_mul(first, first, p);
        }
    }
    return w;
}

// Stages S .. S + R of those of the tile T, on words that are 2^LOW apart. A thread has 16 / 2^R groups of 2^R words.
template <class T, int S, int R> struct Pass {
    static const int LOW = T::LOW + T::STAGES - S - R;
    static const int GROUPS = 16 >> R;
    static const int STEP = T::template STEP<LOW>;

    // The local position of the first word of a group.
    DEVICE u32 local(int group) {
        u32 rest = (u32)group << (T::LOG_TILE - 4) | threadIdx.x;
        return rest >> LOW << (LOW + R) | (rest & ((1u << LOW) - 1));
    }
    DEVICE u32 at(int group) { return T::at(local(group)); }
    // The position in the limb of word k of this thread, if it has one group.
    DEVICE u32 position(int k) { return at(0) + k * STEP; }
    // The index of the factor of a group in the first stage.
    DEVICE u32 factor(int group) {
        return 1u << (T::FIRST + S) | at(group) >> (T::LOG_N - T::FIRST - S);
    }

    // MADE: as in `last_factors`; 0 unless these are the last stages of the transform.
    template <int MADE> DEVICE void forward(Words<16>& x, const u32* roots, const Field& p) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            Words<16> w = factors_of<MADE>(roots, group, p);
            u32* y = x.w + (group << R);
#pragma unroll
            for (int s = 0; s < R; s++) {
#pragma unroll
                for (int k = 0; k < 1 << (R - 1); k++) {
                    int half = 1 << (R - 1 - s), i = k / half, a = 2 * half * i + k % half;
                    butterfly(y[a], y[a + half], w.w[(1 << s) + i], p);
                }
            }
        }
    }

    // Without the first stage if it is SCALED (that of the whole transform, which `scaled` does).
    template <int MADE, bool SCALED = false> DEVICE void inverse(Words<16>& x, const u32* roots, const Field& p) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            Words<16> w = factors_of<MADE>(roots, group, p);
            u32* y = x.w + (group << R);
#pragma unroll
            for (int s = R - 1; s >= (SCALED ? 1 : 0); s--) {
#pragma unroll
                for (int k = 0; k < 1 << (R - 1); k++) {
                    int half = 1 << (R - 1 - s), i = k / half, a = 2 * half * i + k % half;
                    inverse_butterfly(y[a], y[a + half], w.w[(1 << s) + i], p);
                }
            }
        }
    }

    // Stage 0 of an inverse transform with all words multiplied by a factor: `scale` is the factor, `scale_root` the factor
    // times that of the stage. Makes canonical words.
    DEVICE void scaled(Words<16>& x, u32 scale, u32 scale_root, const Field& p) {
#pragma unroll
        for (int k = 0; k < 8; k++) {
            int half = 1 << (R - 1), a = 2 * half * (k / half) + k % half;
            u32 sum = x.w[a] + x.w[a + half], difference = x.w[a] - x.w[a + half] + p.two_q;
            x.w[a] = mont_mul(sum, scale, p);
            x.w[a + half] = mont_mul(difference, scale_root, p);
        }
    }

    template <int MADE> DEVICE Words<16> factors_of(const u32* roots, int group, const Field& p) {
        if constexpr (MADE == 0) return factors<R>(roots, factor(group));
        else return last_factors<R, MADE>(roots, factor(group), p);
    }

    // The words that this pass works on, from and to a limb.
    DEVICE Words<16> from_limb(u64 limb) {
        Words<16> x;
#pragma unroll
        for (int group = 0; group < GROUPS; group++) set_part(x, group << R, load_own<1 << R, STEP>(limb, at(group)));
        return x;
    }
    DEVICE void to_limb(u64 limb, const Words<16>& x) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) store<1 << R, STEP>(limb, at(group), part<1 << R>(x, group << R));
    }

    // From and to shared memory. A thread reads what only it writes next, so that one barrier an exchange is enough.
    DEVICE Words<16> from_shared(const u32* shared) {
        Words<16> x;
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            const u32* from = shared + T::padded(local(group));
#pragma unroll
            for (int k = 0; k < 1 << R; k++) x.w[(group << R) + k] = from[T::padded(k << LOW)];
        }
        return x;
    }
    DEVICE void to_shared(u32* shared, const Words<16>& x) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            u32* to = shared + T::padded(local(group));
#pragma unroll
            for (int k = 0; k < 1 << R; k++) to[T::padded(k << LOW)] = x.w[(group << R) + k];
        }
    }
};

// Hands the words from one pass to the next.
template <class From, class To> DEVICE void exchange(Words<16>& x, u32* shared) {
    From::to_shared(shared, x);
    __syncthreads();
    x = To::from_shared(shared);
}

// The words of a stretch that a thread gives to a program: four times four that are neighbours, moved 16 bytes at a time.
template <class T> struct Quads {
    static const int STEP = 1;

    // The local position of the first of four. Threads of a warp are put in an order in which each eight of them meet every
    // bank once.
    DEVICE u32 local(int quad) {
        u32 i = threadIdx.x;
        if (T::THREADS >= 32) i = (i & ~31u) | (i & 4) << 2 | (i >> 1 & 12) | (i & 3);
        return (u32)(quad * T::THREADS + i) << 2;
    }
    DEVICE u32 position(int k) { return T::at(local(k / 4)) + k % 4; }

    DEVICE Words<16> from_shared(const u32* shared) {
        Words<16> x;
#pragma unroll
        for (int k = 0; k < 16; k += 4) {
            Quad quad = *(const Quad*)(shared + T::padded(local(k / 4)));
#pragma unroll
            for (int j = 0; j < 4; j++) x.w[k + j] = quad.w[j];
        }
        return x;
    }
    DEVICE void to_shared(u32* shared, const Words<16>& x) {
#pragma unroll
        for (int k = 0; k < 16; k += 4) {
            *(Quad*)(shared + T::padded(local(k / 4))) = Quad{{x.w[k], x.w[k + 1], x.w[k + 2], x.w[k + 3]}};
        }
    }
};

// The same with words as far apart as there are threads, so that a warp has neighbours: for programs with automorphisms.
template <class T> struct Lines {
    static const int STEP = T::THREADS;

    DEVICE u32 position(int k) { return T::at(k * T::THREADS + threadIdx.x); }

    DEVICE Words<16> from_shared(const u32* shared) {
        Words<16> x;
#pragma unroll
        for (int k = 0; k < 16; k++) x.w[k] = shared[T::padded(k * T::THREADS + threadIdx.x)];
        return x;
    }
    DEVICE void to_shared(u32* shared, const Words<16>& x) {
#pragma unroll
        for (int k = 0; k < 16; k++) shared[T::padded(k * T::THREADS + threadIdx.x)] = x.w[k];
    }
};

// From [0, 4q) to canonical.
template <int V> DEVICE Words<V> canonical(const Words<V>& x, const Field& p) {
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = canonical(below_2q(x.w[k], p), p);
    return out;
}

// The factors modulo a prime, of the forward transform or its inverse.
template <int LOG_N, int MADE, bool INVERSE> DEVICE const u32* roots_of(const u32* tables, const Prime& p) {
    return tables + (((u64)p.index * 2 + INVERSE) << (LOG_N - MADE + 1));
}
