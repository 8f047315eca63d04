// Defines products of whole warpgroups, which only Hopper (9.0a) has; on other GPUs, kernels that use them trap.
#pragma once

#include "device.cuh"

#ifndef __CUDACC__
#include "emulation/hopper.hpp"
#else

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#define HOPPER_ONLY(...) __VA_ARGS__
#else
#define HOPPER 0
// Launching it there is an error instead of an empty result.
#define HOPPER_ONLY(...) __trap();
#endif

// Describes a matrix in shared memory for a warpgroup's products. It consists of 8 × 8 matrices of 8 contiguous rows
// of 16 bytes; they are `along` bytes apart along the summed dimension, and `across` bytes across it.
template <typename T>
DEVICE uint64_t matrix_descriptor(Shared<T> begin, int along, int across) {
    return static_cast<uint64_t>(begin.address() >> 4 & 0x3fff) | static_cast<uint64_t>(along >> 4) << 16 |
           static_cast<uint64_t>(across >> 4) << 32;
}

#if HOPPER

// Makes this thread's writes to shared memory visible to the warpgroup's products after the next barrier.
DEVICE void publish_to_products() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
// Emits no instruction, but keeps the compiler from moving accesses to the sums across it.
template <int COUNT>
DEVICE void keep_in_place(float (&sum)[COUNT][4]) {
#pragma unroll
    for (int j = 0; j < COUNT; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+f"(sum[j][i])::"memory");
    }
}

// From here on, written registers may be operands of products into `sum`.
template <int COUNT>
DEVICE void products_begin(float (&sum)[COUNT][4]) {
    keep_in_place(sum);
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Waits until all products are done, and `sum` and their operands may be accessed again.
template <int COUNT>
DEVICE void products_wait(float (&sum)[COUNT][4]) {
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
    keep_in_place(sum);
}

template <typename T, int COUNT>
struct WarpgroupProduct;

#define WARPGROUP_PRODUCT(T, COUNT, COLUMNS, SUM, A, B, ADD, TRANSPOSED, ...)                                          \
    template <>                                                                                                        \
    struct WarpgroupProduct<T, COUNT> {                                                                                \
        template <bool transposed>                                                                                     \
        DEVICE static void add_to(float (&sum)[COUNT][4], const uint32_t (&a)[4], uint64_t b, bool add) {              \
            asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " ADD ", 0;\n"                                         \
                         "wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." #T "." #T " {" SUM "}, {" A "}, " B     \
                         ", add, 1, 1, " TRANSPOSED ";\n}\n"                                                           \
                         : __VA_ARGS__                                                                                 \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),             \
                           "n"(static_cast<int>(transposed)));                                                         \
        }                                                                                                              \
    };
#define FOUR(i) "+f"(sum[i][0]), "+f"(sum[i][1]), "+f"(sum[i][2]), "+f"(sum[i][3])
#define SIXTEEN "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
#define WARPGROUP_PRODUCTS(T)                                                                                          \
    WARPGROUP_PRODUCT(T, 5, "40", SIXTEEN "%16, %17, %18, %19", "%20, %21, %22, %23", "%24", "%25", "%26", FOUR(0),    \
                      FOUR(1), FOUR(2), FOUR(3), FOUR(4))                                                              \
    WARPGROUP_PRODUCT(                                                                                                 \
        T, 8, "64",                                                                                                    \
        SIXTEEN "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",                      \
        "%32, %33, %34, %35", "%36", "%37", "%38", FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6),      \
        FOUR(7))

WARPGROUP_PRODUCTS(f16)
WARPGROUP_PRODUCTS(bf16)

// sum (64, 8 COUNT) = a · b, or += if `add`, by the four warps of a warpgroup: a (64, 16) from registers, 16 rows per
// warp in the layout of multiply_accumulate; b (16, 8 COUNT) by its descriptor. A row of b's matrices is 8 values of
// one column (keys, for queries) or, if `transposed`, 8 columns of one row (values, for weights).
template <typename T, bool transposed, int COUNT>
DEVICE void warpgroup_multiply(float (&sum)[COUNT][4], const uint32_t (&a)[4], uint64_t b, bool add) {
    WarpgroupProduct<T, COUNT>::template add_to<transposed>(sum, a, b, add);
}

#endif
#endif
