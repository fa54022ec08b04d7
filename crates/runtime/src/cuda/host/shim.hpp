// Runs emitted CUDA C++ on the host: this text, then emitted text, then one entry for each function (host.rs).
//
// The threads of a block are fibers of one thread of the host, which switch at barriers. In every round each fiber runs from
// one barrier to the next, in an order that the caller chooses: in ascending order a missing barrier often goes unnoticed, in
// descending or shuffled order it does not. A barrier that only some of the threads reach is reported.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static thread_local
#define __launch_bounds__(...)

namespace shim {

struct Dimensions { unsigned x, y, z; };

// A place where execution can go on.
#ifdef __x86_64__
struct Context { void* stack_pointer; };

// Saves what a call preserves and the place of return in `from`, and goes on at `to`.
extern "C" void cerium_shim_switch(Context* from, Context* to);
asm(R"(
.text
cerium_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

// A context that begins with `body` on an empty stack and never returns.
inline void begin(Context& context, char* stack, size_t bytes, void (*body)()) {
    void** top = (void**)((uintptr_t)(stack + bytes) & ~(uintptr_t)15);
    *--top = nullptr; // where a call would have put the place of return: the stack is aligned as after a call
    *--top = (void*)body;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context.stack_pointer = top;
}
inline void switch_to(Context& from, Context& to) { cerium_shim_switch(&from, &to); }
#else
typedef ucontext_t Context;
inline void begin(Context& context, char* stack, size_t bytes, void (*body)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
}
inline void switch_to(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

enum class State { Ready, Waiting, Done };
enum Outcome { FINE = 0, DIVERGENT_BARRIER = 1, STACK_OVERFLOW = 2 };
const size_t STACK_BYTES = 256 << 10;
// Stands at the end of every stack.
const uint64_t CANARY = 0x63657269756d2121;

struct Free {
    void operator()(char* memory) const { free(memory); }
};

struct Block {
    Context scheduler;
    std::vector<Context> fibers;
    std::vector<State> states;
    std::vector<unsigned> order;
    std::unique_ptr<char, Free> stacks; // pages that are never touched cost nothing
    size_t stacks_held;
    void (*function)(void* const*);
    void* const* arguments;
    unsigned running;
};
static thread_local Block block;

} // namespace shim

static thread_local shim::Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

inline void leave(State state) {
    unsigned fiber = block.running;
    block.states[fiber] = state;
    switch_to(block.fibers[fiber], block.scheduler);
}

inline void fiber_body() {
    block.function(block.arguments);
    leave(State::Done);
    abort(); // nobody goes on with a fiber that is done
}

// Runs one block of threads. `seed` 0: in ascending order, 1: in descending order; else shuffled anew in each round.
inline Outcome run_block(uint64_t& seed) {
    unsigned threads = blockDim.x;
    for (unsigned i = 0; i < threads; i++) {
        char* stack = block.stacks.get() + STACK_BYTES * i;
        *(uint64_t*)stack = CANARY;
        begin(block.fibers[i], stack, STACK_BYTES, fiber_body);
        block.states[i] = State::Ready;
    }
    for (;;) {
        if (seed > 1) {
            for (unsigned i = threads - 1; i > 0; i--) {
                // xorshift64 (Marsaglia, "Xorshift RNGs", 2003)
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                std::swap(block.order[i], block.order[(seed >> 16) % (i + 1)]);
            }
        }
        unsigned waiting = 0;
        for (unsigned fiber : block.order) {
            threadIdx.x = fiber;
            block.running = fiber;
            switch_to(block.scheduler, block.fibers[fiber]);
            if (*(uint64_t*)(block.stacks.get() + STACK_BYTES * fiber) != CANARY) return STACK_OVERFLOW;
            waiting += block.states[fiber] == State::Waiting;
        }
        if (waiting == 0) return FINE;
        if (waiting != threads) return DIVERGENT_BARRIER;
    }
}

// Runs the blocks `first`, `first + stride`, ... of a launch.
inline int run(void (*function)(void* const*), void* const* arguments, const unsigned* grid, unsigned threads, unsigned first,
               unsigned stride, uint64_t seed) {
    gridDim = {grid[0], grid[1], 1};
    blockDim = {threads, 1, 1};
    block.function = function;
    block.arguments = arguments;
    block.fibers.resize(threads);
    block.states.resize(threads);
    if (block.stacks_held < threads) {
        block.stacks.reset((char*)aligned_alloc(64, STACK_BYTES * threads));
        block.stacks_held = block.stacks ? threads : 0;
        if (!block.stacks) return STACK_OVERFLOW;
    }
    block.order.resize(threads);
    for (unsigned i = 0; i < threads; i++) block.order[i] = seed == 1 ? threads - 1 - i : i;
    for (unsigned i = first; i < grid[0] * grid[1]; i += stride) {
        blockIdx = {i % grid[0], i / grid[0], 0};
        Outcome outcome = run_block(seed);
        if (outcome != FINE) return outcome;
    }
    return FINE;
}

} // namespace shim

inline void __syncthreads() { shim::leave(shim::State::Waiting); }

namespace shim {

// Calls a function with arguments that are addresses or words.
template <class... A, size_t... I> void apply(void (*function)(A...), void* const* arguments, std::index_sequence<I...>) {
    function((A)(uintptr_t)arguments[I]...);
}
template <auto FUNCTION> void apply(void* const* arguments) {
    [&]<class... A>(void (*function)(A...)) { apply(function, arguments, std::index_sequence_for<A...>()); }(FUNCTION);
}

} // namespace shim

// The entry of an emitted function in a namespace: `shim::run` of it.
#define SHIM_ENTRY(SPACE, FUNCTION)                                                                                   \
    extern "C" __attribute__((visibility("default"))) int shim_##FUNCTION(                                            \
        void* const* arguments, const unsigned* grid, unsigned threads, unsigned first, unsigned stride,              \
        uint64_t seed) {                                                                                              \
        return shim::run(shim::apply<SPACE::FUNCTION>, arguments, grid, threads, first, stride, seed);                \
    }
