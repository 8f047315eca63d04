// Runs the threads of a CUDA block on one CPU core, so that kernels can be tested without a GPU.
//
// Every thread of a block is a fiber. A fiber runs until it waits for others, at a barrier or in a warp operation;
// then another one, chosen at random from a seed, continues. So any order that a GPU may choose between two barriers
// can occur here too. The runtime also detects what a GPU silently allows:
//
// * accesses to global memory outside the launch's buffers, writes to read-only ones, and misaligned addresses;
// * accesses to shared memory by two threads without a barrier between them, at least one of them a write;
// * reads of shared memory before it was written: it starts as NaN in every floating-point format;
// * warpgroup products whose sums are read, or whose registers are written, before they are waited for: a sum is NaN
//   until then, and operands written to shared memory must be published to them;
// * asynchronous copies that were not waited for: their target is NaN until the wait;
// * barriers and warp operations that some threads never reach.
//
// Blocks run one after the other: communication between blocks cannot be tested, and no kernel uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulation {

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
/// The shared memory available to every block from compute capability 8.0 on: what 8.9 leaves of its 100 KiB.
constexpr size_t MOST_SHARED_BYTES = 99 * 1024;

struct Index {
    unsigned x, y, z;
};

enum class Access { Read, Write };

/// The indices of this thread.
extern thread_local Index thread_index, block_index, block_size, grid_size;

/// Ends the launch with this message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Fails unless `bytes` at `address` lie in one buffer of the launch that allows this access.
void check_global(const void* address, size_t bytes, Access access);

/// Fails unless `bytes` at `address` lie in the block's shared memory and do not conflict with another thread.
void check_shared(const void* address, size_t bytes, Access access);

/// The dynamic shared memory of the block.
unsigned char* dynamic_shared();

/// The block's static shared memory: the same for every thread with the same `name`, the address of a constant that
/// stands for the variable.
unsigned char* static_shared(const void* name, size_t bytes);

/// __syncthreads
void block_barrier();

/// An operation of the lanes in `mask`. Each provides an operand; when all have arrived, `operate` gets the operands
/// by lane, null for lanes outside the mask.
void warp_operation(const char* name, unsigned mask, void* operand, void (*operate)(void** operands));

/// __syncwarp
void warp_barrier(unsigned mask);

/// Starts copying 16 bytes to shared memory, or zeros if there is no source.
void copy_async(void* target, const void* source);
void copy_commit();
/// Waits until at most `groups` of this thread's committed groups are pending.
void copy_wait(unsigned groups);

/// A pending product of a warpgroup.
struct PendingProduct {
    float* sum;
    int columns;
    /// The registers, and their contents when the product started.
    const uint32_t* a;
    uint32_t a_then[4];
    uint64_t descriptor;
    bool transposed, add;
    /// The sum before the first of several products; empty for the others.
    std::vector<float> start;
    float (*half)(uint32_t pair, int which);
};

/// This thread's part of its warpgroup's products.
struct Products {
    std::vector<PendingProduct> pending;
    size_t committed = 0;
    bool begun = false;
};
Products& warp_products();

/// fence.proxy.async
void publish_to_products();

/// Fails unless products may read the 16 bytes at this offset of shared memory: they must be written, published by
/// the writer, and followed by a barrier.
void check_product_operand(size_t byte);

/// The shared memory of the block.
unsigned char* shared_memory();

using Body = void (*)(const void* params);

/// Registers a kernel by name.
struct Kernel {
    Kernel(const char* name, size_t params_bytes, unsigned threads, Body body);
};

}  // namespace emulation

extern "C" {

/// A buffer of global memory that a kernel may access.
struct EmulatedBuffer {
    const char* name;
    const void* begin;
    size_t bytes;
    uint32_t writable;
};

struct EmulatedLaunch {
    const char* kernel;
    uint32_t grid[3];
    uint32_t threads;
    uint32_t shared_bytes;
    /// Runs the blocks `first_block`, `first_block + block_step` …, counted with x fastest.
    uint64_t first_block;
    uint64_t block_step;
    /// Determines the order of the threads.
    uint64_t seed;
    const void* params;
    size_t params_bytes;
    const EmulatedBuffer* buffers;
    size_t buffer_count;
};

/// The size of a kernel's parameters; 0 if there is no kernel of this name.
size_t emulated_params_bytes(const char* kernel);

/// Runs a launch. Returns 0, or 1 with a message in `error`.
int emulate(const EmulatedLaunch* launch, char* error, size_t error_bytes);
}
