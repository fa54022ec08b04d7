// Resolves the pointers of launches: see cuda/abi.rs.
typedef unsigned int u32;
typedef unsigned long long u64;

extern "C" __global__ void bind(const u64* codes, const u64* bindings, u64* pointers, u32 count) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        u64 code = codes[i];
        pointers[i] = bindings[code >> 40] + (code & ((1ull << 40) - 1));
    }
}
