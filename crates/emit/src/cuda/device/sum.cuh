// sums[i] += parts[i] + parts[stride + i] + ... modulo q, of `count` parts, for i < words. Parts are canonical, and so are sums
// afterwards; before, they may be any in [0, 4q), with 4q < 2^32: up to four residues that somebody else has added.
extern "C" __global__ void ENTRY(u32* sums, const u32* parts, u32 words, u32 count, u32 stride, u32 q) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= words) return;
    u32 sum = sums[i];
    sum = smaller(sum, sum - 2 * q);
    sum = smaller(sum, sum - q);
    for (u32 part = 0; part < count; ++part) {
        sum += parts[(u64)part * stride + i];
        sum = smaller(sum, sum - q);
    }
    sums[i] = sum;
}
