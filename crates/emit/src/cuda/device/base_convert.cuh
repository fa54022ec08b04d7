// Centered conversion of residues between bases (cuda/base_convert.rs). y holds K sources, then the number of wraps.

// How often the sum of y_i Q / q_i wraps around Q: sum y_i floor(2^56 / q_i), rounded to a multiple of 2^56. The fractions
// take two words each, for primes below 2^24; each product is below 2^56.
template <int K, int V> DEVICE Words<V> wraps(const Words<V> (&y)[K + 1], const u32* fractions) {
    Sums<V> sum;
    Words<V> upper; // what is added to the high words: the whole is below 2^61
#pragma unroll
    for (int k = 0; k < V; k++) sum.w[k] = 1ull << 55, upper.w[k] = 0;
#pragma unroll
    for (int i = 0; i < K; i++) {
        const u32 low_word = fetch(fractions + 2 * i), high_word = fetch(fractions + 2 * i + 1);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum.w[k] += wide(y[i].w[k], low_word);
            upper.w[k] += y[i].w[k] * high_word;
        }
    }
    Words<V> out;
#pragma unroll
    for (int k = 0; k < V; k++) out.w[k] = (high(sum.w[k]) + upper.w[k]) >> 24;
    return out;
}

// sum y_i f_i / R, canonical, for the K + 1 canonical factors f_i of a target p. K sources and the wraps, at most K, make at
// most K q p < 4 p R for K <= 16. Of more the first 16 are reduced, and that times R is below p R.
template <int K, int V> DEVICE Words<V> convert(const Words<V> (&y)[K + 1], const u32* factors, const Prime& p) {
    Sums<V> sum;
#pragma unroll
    for (int i = 0; i <= K; i += 4) {
        const Quad f = fetch((const Quad*)(factors + i));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (i + j > K) break;
            if (K > 16 && i + j == 16) {
                const Words<V> first = reduce<16>(sum, p);
#pragma unroll
                for (int k = 0; k < V; k++) sum.w[k] = (u64)first.w[k] << 32;
            }
#pragma unroll
            for (int k = 0; k < V; k++) {
                const u64 product = wide(y[i + j <= K ? i + j : 0].w[k], f.w[j]);
                sum.w[k] = i + j == 0 ? product : sum.w[k] + product;
            }
        }
    }
    return reduce<(K < 16 ? K : 16)>(sum, p);
}
