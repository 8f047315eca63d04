// Defines the device functions that kernels use: memory, barriers, shuffles, asynchronous copies, tensor cores.
//
// Kernels access memory only through `Global` and `Shared`, and the instructions below only through these functions.
// The same source therefore compiles for a GPU, where each is one instruction, and for the host, where
// emulation/device.hpp runs it under a checker (see emulation/runtime.hpp).
#pragma once

#include <stdint.h>

// Distinguish f16 and bf16 by type; elsewhere both are 16 bits.
struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

#ifndef __CUDACC__
#include "emulation/device.hpp"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__

// Defines a kernel that takes one struct of parameters, runs `threads` threads per block, and lets `blocks` blocks
// fit on a multiprocessor.
#define KERNEL(name, Params, threads, blocks)                                                                          \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Params p)

constexpr unsigned ALL_LANES = 0xffffffffu;

// An array in global memory.
template <typename T>
struct Global {
    T* begin;

    DEVICE Global at(int64_t offset) const { return {begin + offset}; }
    DEVICE bool is_some() const { return begin != nullptr; }

    DEVICE T read(int64_t i) const { return begin[i]; }
    DEVICE void write(int64_t i, T value) const { begin[i] = value; }

    // Several neighbouring values at once; `i` is a multiple of their number.
    template <typename Vector>
    DEVICE Vector read_as(int64_t i) const {
        return *reinterpret_cast<const Vector*>(begin + i);
    }
    template <typename Vector>
    DEVICE void write_as(int64_t i, Vector value) const {
        *reinterpret_cast<Vector*>(begin + i) = value;
    }
};

// An array in the block's shared memory.
template <typename T>
struct Shared {
    T* begin;

    DEVICE Shared at(int offset) const { return {begin + offset}; }

    DEVICE T read(int i) const { return begin[i]; }
    DEVICE void write(int i, T value) const { begin[i] = value; }

    template <typename Vector>
    DEVICE Vector read_as(int i) const {
        return *reinterpret_cast<const Vector*>(begin + i);
    }
    template <typename Vector>
    DEVICE void write_as(int i, Vector value) const {
        *reinterpret_cast<Vector*>(begin + i) = value;
    }

    DEVICE unsigned address() const { return static_cast<unsigned>(__cvta_generic_to_shared(begin)); }
};

// The dynamic shared memory from this byte on.
template <typename T>
DEVICE Shared<T> dynamic_shared(int byte) {
    extern __shared__ uint4 shared_memory[];
    return {reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(shared_memory) + byte)};
}

// Declares `name`, an array of constant size in shared memory.
#define STATIC_SHARED(T, name, count)                                                                                  \
    __shared__ T name##_memory[count];                                                                                 \
    const Shared<T> name = {name##_memory}

DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }

// The value of the lane whose index differs in these bits.
template <typename T>
DEVICE T shuffle_xor(T value, int lane_bits, unsigned mask = ALL_LANES) {
    return __shfl_xor_sync(mask, value, lane_bits);
}

// The value of this lane.
template <typename T>
DEVICE T shuffle(T value, int lane, unsigned mask = ALL_LANES) {
    return __shfl_sync(mask, value, lane);
}

// Starts copying 16 bytes, bypassing registers; zeros if `there` is false.
template <typename T, typename S>
DEVICE void copy_async(Shared<T> target, Global<S> source, bool there) {
    // A source of size zero is not read, but its address must be valid.
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target.address()), "l"(source.begin),
                 "r"(there ? 16 : 0));
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;\n"); }
// Waits until at most `groups` of this thread's groups are pending.
template <int groups>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(groups) : "memory");
}

// Loads four 8 × 8 matrices of 16-bit values: lane 8 i + r gives the address of row r of matrix i, and each lane
// receives from every matrix two values of row lane / 4, from column 2 (lane % 4) on.
template <typename T>
DEVICE void load_matrices(uint32_t (&values)[4], Shared<T> row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(row.address())
                 : "memory");
}
// The same, transposed.
template <typename T>
DEVICE void load_matrices_transposed(uint32_t (&values)[4], Shared<T> row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
                 : "r"(row.address())
                 : "memory");
}

// sum += a · b for a (16, 16), b (16, 8) and f32 sums (16, 8), distributed over the warp as in mma.m16n8k16: with g =
// lane / 4 and t = lane % 4, a[0] holds row g, columns 2 t and 2 t + 1, a[1] row g + 8, and a[2] and a[3] the same
// rows eight columns further; b[0] rows 2 t and 2 t + 1 of column g, b[1] eight rows further; sum[0] and sum[1] row
// g, columns 2 t and 2 t + 1, sum[2] and sum[3] row g + 8.
template <typename T>
DEVICE void multiply_accumulate(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
DEVICE void multiply_accumulate<f16>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
DEVICE void multiply_accumulate<bf16>(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }

DEVICE float to_float(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
DEVICE float to_float(bf16 x) { return __bfloat162float(__ushort_as_bfloat16(x.bits)); }
DEVICE float to_float(float x) { return x; }

// Rounded to nearest, ties to even.
template <typename T>
DEVICE T from_float(float x);
template <>
DEVICE f16 from_float<f16>(float x) {
    return {__half_as_ushort(__float2half_rn(x))};
}
template <>
DEVICE bf16 from_float<bf16>(float x) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
DEVICE float from_float<float>(float x) {
    return x;
}

// Packs two values into a word, the first in the lower half.
template <typename T>
DEVICE uint32_t pack(float low, float high);
template <>
DEVICE uint32_t pack<f16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <>
DEVICE uint32_t pack<bf16>(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// 2ˣ, to two units in the last place; 0 for −∞.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float reciprocal_root(float x) { return rsqrtf(x); }
DEVICE float sin_half_turns(float x) { return sinpif(x); }
DEVICE float cos_half_turns(float x) { return cospif(x); }
DEVICE float divide_fast(float x, float y) { return __fdividef(x, y); }

#endif

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float INFINITE = __builtin_huge_valf();

// The halves of a word as two values of type T.
template <typename T>
DEVICE T low_half(uint32_t pair) {
    return {static_cast<uint16_t>(pair & 0xffff)};
}
template <typename T>
DEVICE T high_half(uint32_t pair) {
    return {static_cast<uint16_t>(pair >> 16)};
}

// The 8 values of 16 bytes, as f32.
template <typename T>
DEVICE void unpack(float (&values)[8], uint4 packed) {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values[2 * i] = to_float(low_half<T>(words[i]));
        values[2 * i + 1] = to_float(high_half<T>(words[i]));
    }
}

template <typename T>
DEVICE uint4 pack(const float (&values)[8]) {
    return {pack<T>(values[0], values[1]), pack<T>(values[2], values[3]), pack<T>(values[4], values[5]),
            pack<T>(values[6], values[7])};
}

// The sum over the warp, in every lane.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) x += shuffle_xor(x, bits);
    return x;
}
