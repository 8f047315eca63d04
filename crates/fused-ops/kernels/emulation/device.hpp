// Implements device.cuh on the host: the same names, under the checks of runtime.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "runtime.hpp"

#define DEVICE inline

#define threadIdx ::emulation::thread_index
#define blockIdx ::emulation::block_index
#define blockDim ::emulation::block_size
#define gridDim ::emulation::grid_size

// How many blocks fit on a multiprocessor does not matter here.
#define KERNEL(name, Params, threads, blocks)                                                                          \
    static void name(const Params& p);                                                                                 \
    static const ::emulation::Kernel name##_kernel(#name, sizeof(Params), threads,                                     \
                                                   [](const void* p) { name(*static_cast<const Params*>(p)); });      \
    static void name(const Params& p)

using emulation::ALL_LANES;
using std::min;

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

template <typename T>
struct Global {
    T* begin;

    Global at(int64_t offset) const { return {begin + offset}; }
    bool is_some() const { return begin != nullptr; }

    T read(int64_t i) const { return read_as<std::remove_const_t<T>>(i); }
    void write(int64_t i, T value) const { write_as(i, value); }

    template <typename Vector>
    Vector read_as(int64_t i) const {
        emulation::check_global(begin + i, sizeof(Vector), emulation::Access::Read);
        Vector value;
        memcpy(&value, begin + i, sizeof value);
        return value;
    }
    template <typename Vector>
    void write_as(int64_t i, Vector value) const {
        emulation::check_global(begin + i, sizeof(Vector), emulation::Access::Write);
        memcpy(begin + i, &value, sizeof value);
    }
};

template <typename T>
struct Shared {
    T* begin;

    Shared at(int offset) const { return {begin + offset}; }

    T read(int i) const { return read_as<T>(i); }
    void write(int i, T value) const { write_as(i, value); }

    template <typename Vector>
    Vector read_as(int i) const {
        emulation::check_shared(begin + i, sizeof(Vector), emulation::Access::Read);
        Vector value;
        memcpy(&value, begin + i, sizeof value);
        return value;
    }
    template <typename Vector>
    void write_as(int i, Vector value) const {
        emulation::check_shared(begin + i, sizeof(Vector), emulation::Access::Write);
        memcpy(begin + i, &value, sizeof value);
    }
};

template <typename T>
Shared<T> dynamic_shared(int byte) {
    return {reinterpret_cast<T*>(emulation::dynamic_shared() + byte)};
}

#define STATIC_SHARED(T, name, count)                                                                                  \
    static const char name##_tag = 0;                                                                                  \
    const Shared<T> name = {reinterpret_cast<T*>(::emulation::static_shared(&name##_tag, (count) * sizeof(T)))}

inline void block_barrier() { emulation::block_barrier(); }
inline void warp_barrier() { emulation::warp_barrier(ALL_LANES); }

namespace emulation {
struct Exchange {
    uint32_t value;
    int lane;  // to read from
    uint32_t result;
};

inline void exchange(void** operands) {
    for (unsigned lane = 0; lane < WARP; lane++) {
        auto* mine = static_cast<Exchange*>(operands[lane]);
        if (!mine) continue;
        auto* other = static_cast<Exchange*>(operands[static_cast<unsigned>(mine->lane) % WARP]);
        if (!other) fail("a shuffle from lane %d, which takes no part", mine->lane);
        mine->result = other->value;
    }
}

inline uint32_t shuffle_bits(uint32_t value, int lane, unsigned mask) {
    Exchange operand = {value, lane, 0};
    warp_operation("a shuffle", mask, &operand, exchange);
    return operand.result;
}
}  // namespace emulation

template <typename T>
T shuffle(T value, int lane, unsigned mask = ALL_LANES) {
    static_assert(sizeof(T) == 4, "a shuffle moves 32 bits");
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = emulation::shuffle_bits(bits, lane, mask);
    memcpy(&value, &bits, 4);
    return value;
}

template <typename T>
T shuffle_xor(T value, int lane_bits, unsigned mask = ALL_LANES) {
    return shuffle(value, static_cast<int>(threadIdx.x % emulation::WARP) ^ lane_bits, mask);
}

template <typename T, typename S>
void copy_async(Shared<T> target, Global<S> source, bool there) {
    emulation::copy_async(target.begin, there ? source.begin : nullptr);
}
inline void copy_commit() { emulation::copy_commit(); }
template <int groups>
void copy_wait() {
    emulation::copy_wait(groups);
}

namespace emulation {
struct MatrixRows {
    const void* row;
    bool transposed;
    uint32_t* values;
};

inline void load_matrices(void** operands) {
    for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t rows[8][8];
        for (int r = 0; r < 8; r++) {
            memcpy(rows[r], static_cast<MatrixRows*>(operands[8 * matrix + r])->row, 16);
        }
        for (unsigned lane = 0; lane < WARP; lane++) {
            auto* mine = static_cast<MatrixRows*>(operands[lane]);
            unsigned row = lane / 4, column = lane % 4 * 2;
            uint32_t low = mine->transposed ? rows[column][row] : rows[row][column];
            uint32_t high = mine->transposed ? rows[column + 1][row] : rows[row][column + 1];
            mine->values[matrix] = low | high << 16;
        }
    }
}
}  // namespace emulation

template <typename T>
void load_matrices(uint32_t (&values)[4], Shared<T> row) {
    emulation::check_shared(row.begin, 16, emulation::Access::Read);
    emulation::MatrixRows operand = {row.begin, false, values};
    emulation::warp_operation("a load of matrices", ALL_LANES, &operand, emulation::load_matrices);
}

template <typename T>
void load_matrices_transposed(uint32_t (&values)[4], Shared<T> row) {
    emulation::check_shared(row.begin, 16, emulation::Access::Read);
    emulation::MatrixRows operand = {row.begin, true, values};
    emulation::warp_operation("a load of transposed matrices", ALL_LANES, &operand, emulation::load_matrices);
}

inline float bits_to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t float_to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return bits_to_float(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(f16 x) {
    // A multiplication moves the exponent to its place, which also handles subnormal numbers.
    uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, rest = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
    float magnitude = bits_to_float(rest) * 0x1p112f;
    if ((x.bits & 0x7c00) == 0x7c00) magnitude = bits_to_float(rest | 0x7f800000);
    return bits_to_float(float_to_bits(magnitude) | sign);
}

template <typename T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
    return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
    uint32_t bits = float_to_bits(x);
    if (x != x) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline f16 from_float<f16>(float x) {
    uint32_t bits = float_to_bits(x), sign = bits >> 16 & 0x8000;
    float magnitude = std::fabs(x);
    if (x != x) return {0x7fff};
    if (magnitude >= 65520.f) return {static_cast<uint16_t>(sign | 0x7c00)};
    if (magnitude < 0x1p-14f) {
        // Subnormal: adding 1/2 leaves steps of 2⁻²⁴, rounded to even.
        return {static_cast<uint16_t>(sign | (float_to_bits(magnitude + 0.5f) - float_to_bits(0.5f)))};
    }
    uint32_t rounded = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
    return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

template <typename T>
uint32_t pack(float low, float high) {
    return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
}

namespace emulation {
struct Product {
    float* sum;
    const uint32_t* a;
    uint32_t b[2];
};

template <typename T>
float half_of(uint32_t pair, int which) {
    return to_float(T{static_cast<uint16_t>(which ? pair >> 16 : pair & 0xffff)});
}

template <typename T>
void multiply_accumulate(void** operands) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < WARP; lane++) {
        auto* mine = static_cast<Product*>(operands[lane]);
        unsigned g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 2; i++) {
            a[g][t + i] = half_of<T>(mine->a[0], i);
            a[g + 8][t + i] = half_of<T>(mine->a[1], i);
            a[g][t + 8 + i] = half_of<T>(mine->a[2], i);
            a[g + 8][t + 8 + i] = half_of<T>(mine->a[3], i);
            b[t + i][g] = half_of<T>(mine->b[0], i);
            b[t + 8 + i][g] = half_of<T>(mine->b[1], i);
        }
    }
    float sums[16][8] = {};
    for (int row = 0; row < 16; row++) {
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) sums[row][column] += a[row][k] * b[k][column];
        }
    }
    for (unsigned lane = 0; lane < WARP; lane++) {
        auto* mine = static_cast<Product*>(operands[lane]);
        unsigned g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) mine->sum[i] += sums[g + i / 2 * 8][t + i % 2];
    }
}
}  // namespace emulation

template <typename T>
void multiply_accumulate(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    emulation::Product operand = {sum, a, {b0, b1}};
    emulation::warp_operation("a product of matrices", ALL_LANES, &operand, emulation::multiply_accumulate<T>);
}

inline float exp2_fast(float x) { return std::exp2(x); }
inline float reciprocal_root(float x) { return 1.f / std::sqrt(x); }
inline float sin_half_turns(float x) { return static_cast<float>(std::sin(M_PI * std::fmod(x, 2.0))); }
inline float cos_half_turns(float x) { return static_cast<float>(std::cos(M_PI * std::fmod(x, 2.0))); }
inline float divide_fast(float x, float y) { return x / y; }
