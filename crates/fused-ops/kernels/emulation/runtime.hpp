// Runs the threads of a CUDA block on one processor core, so that a kernel can be tested without a GPU.
//
// Every thread of a block is a fiber. A fiber runs until it waits for others, at a barrier or in an operation of its
// whole warp, and then another one goes on, picked at random from a seed. So whatever order a GPU may choose between
// two barriers can happen here too. On top of that the runtime watches what a GPU lets pass in silence:
//
// * global memory outside of the buffers of the launch, writes into read-only ones, addresses that are not aligned;
// * shared memory that two threads touch with no barrier between them, at least one of them writing;
// * shared memory that is read before anything was written: it starts as NaN in every floating-point format;
// * products of a warpgroup whose sums are read, or registers written, before they are waited for: a sum is NaN until then,
//   and what was written to shared memory has to be published to them;
// * asynchronous copies that nobody waited for: their target is NaN until the wait, and only then has the data;
// * barriers and warp operations that some threads never reach.
//
// Blocks run one after the other: nothing here can test communication between blocks, and no kernel has any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulation {

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
/// The shared memory that every block can have from compute capability 8.0 on: what 8.9 leaves of its 100 KiB.
constexpr size_t MOST_SHARED_BYTES = 99 * 1024;

struct Index {
    unsigned x, y, z;
};

enum class Access { Read, Write };

/// Where this thread is.
extern thread_local Index thread_index, block_index, block_size, grid_size;

/// Ends the launch with this message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Fails unless `bytes` at `address` lie in one buffer of the launch and may be accessed like this.
void check_global(const void* address, size_t bytes, Access access);

/// Fails unless `bytes` at `address` lie in the block's shared memory and no other thread is in the way.
void check_shared(const void* address, size_t bytes, Access access);

/// The dynamic shared memory of the block.
unsigned char* dynamic_shared();

/// Static shared memory of the block: the same for every thread that asks with the same `name`, the address of a
/// constant that stands for the variable.
unsigned char* static_shared(const void* name, size_t bytes);

/// __syncthreads
void block_barrier();

/// An operation of the lanes in `mask`. Each brings an operand; when all are there, `operate` gets the operands by
/// lane, null for those outside of the mask.
void warp_operation(const char* name, unsigned mask, void* operand, void (*operate)(void** operands));

/// __syncwarp
void warp_barrier(unsigned mask);

/// Begins to copy 16 bytes to shared memory, or to fill them with zero if there is no source.
void copy_async(void* target, const void* source);
void copy_commit();
/// Waits until no more than `groups` of the groups that this thread committed are under way.
void copy_wait(unsigned groups);

/// A product that a warpgroup has under way.
struct PendingProduct {
    float* sum;
    int columns;
    /// Registers, and what was in them when the product began.
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

/// Fails unless the 16 bytes at this byte of the shared memory may be read by a product: written, published by whoever wrote
/// them, and with a barrier between.
void check_product_operand(size_t byte);

/// The shared memory of the block.
unsigned char* shared_memory();

using Body = void (*)(const void* params);

/// Makes a kernel known by its name.
struct Kernel {
    Kernel(const char* name, size_t params_bytes, unsigned threads, Body body);
};

}  // namespace emulation

extern "C" {

/// A piece of global memory that a kernel may touch.
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
    /// The blocks `first_block`, `first_block + block_step` … run, counted with x fastest.
    uint64_t first_block;
    uint64_t block_step;
    /// Chooses the order of the threads.
    uint64_t seed;
    const void* params;
    size_t params_bytes;
    const EmulatedBuffer* buffers;
    size_t buffer_count;
};

/// The size of a kernel's parameters; 0 if there is none of this name.
size_t emulated_params_bytes(const char* kernel);

/// Runs a launch. Returns 0, or 1 with a message in `error`.
int emulate(const EmulatedLaunch* launch, char* error, size_t error_bytes);
}
