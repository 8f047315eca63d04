// Defines kernels with one deliberate mistake each, which the emulation must find, and their correct versions.

#include "device.cuh"
#include "hopper.cuh"

// out[i] = in[threads − 1 − i], through shared memory.
struct ReverseParams {
    Global<const float> in;
    Global<float> out;
};

constexpr int THREADS = 64;

template <bool BARRIER>
DEVICE void reverse(const ReverseParams& p) {
    STATIC_SHARED(float, values, THREADS);
    values.write(threadIdx.x, p.in.read(threadIdx.x));
    if (BARRIER) block_barrier();
    p.out.write(threadIdx.x, values.read(THREADS - 1 - threadIdx.x));
}

KERNEL(reverse, ReverseParams, THREADS, 1) { reverse<true>(p); }
KERNEL(reverse_without_barrier, ReverseParams, THREADS, 1) { reverse<false>(p); }

// Every thread of a warp passes a value to the next: only needs a barrier of the warp.
template <bool BARRIER>
DEVICE void rotate_warp(const ReverseParams& p) {
    STATIC_SHARED(float, values, THREADS);
    values.write(threadIdx.x, p.in.read(threadIdx.x));
    if (BARRIER) warp_barrier();
    p.out.write(threadIdx.x, values.read(threadIdx.x / 32 * 32 + (threadIdx.x + 1) % 32));
}

KERNEL(rotate_warp, ReverseParams, THREADS, 1) { rotate_warp<true>(p); }
KERNEL(rotate_warp_without_barrier, ReverseParams, THREADS, 1) { rotate_warp<false>(p); }

// out = in, copied through shared memory by the thread that reads it; 4 values per thread.
template <bool WAIT>
DEVICE void copy(const ReverseParams& p) {
    const Shared<float> values = dynamic_shared<float>(0);
    const int i = 4 * threadIdx.x;
    copy_async(values.at(i), p.in.at(i), true);
    copy_commit();
    if (WAIT) copy_wait<0>();
    for (int k = i; k < i + 4; k++) p.out.write(k, values.read(k));
    copy_wait<0>();
}

KERNEL(copy, ReverseParams, THREADS, 1) { copy<true>(p); }
KERNEL(copy_without_wait, ReverseParams, THREADS, 1) { copy<false>(p); }

KERNEL(copy_left_behind, ReverseParams, THREADS, 1) {
    copy_async(dynamic_shared<float>(4 * 4 * threadIdx.x), p.in, true);
    copy_commit();
}

KERNEL(read_past_the_end, ReverseParams, THREADS, 1) { p.out.write(threadIdx.x, p.in.read(threadIdx.x + 1)); }
KERNEL(write_past_the_end, ReverseParams, THREADS, 1) { p.out.write(threadIdx.x + 1, 0.f); }
KERNEL(write_an_input, ReverseParams, THREADS, 1) {
    Global<float>{const_cast<float*>(p.in.begin)}.write(threadIdx.x, 0.f);
}
KERNEL(read_unaligned, ReverseParams, THREADS, 1) { p.out.write(threadIdx.x, p.in.read_as<float4>(1).x); }
KERNEL(shared_past_the_end, ReverseParams, THREADS, 1) { dynamic_shared<float>(0).write(4 * THREADS, 0.f); }
KERNEL(shared_unwritten, ReverseParams, THREADS, 1) {
    p.out.write(threadIdx.x, dynamic_shared<float>(0).read(threadIdx.x));
}

KERNEL(barrier_of_some, ReverseParams, THREADS, 1) {
    if (threadIdx.x > 0) block_barrier();
}
KERNEL(shuffle_of_some, ReverseParams, THREADS, 1) {
    if (threadIdx.x % 32 > 0) p.out.write(threadIdx.x, shuffle_xor(1.f, 1));
}
KERNEL(shuffle_with_two_masks, ReverseParams, THREADS, 1) {
    p.out.write(threadIdx.x, shuffle_xor(1.f, 1, threadIdx.x % 2 ? 0xffffffff : 0x7fffffff));
}
KERNEL(different_operations, ReverseParams, THREADS, 1) {
    if (threadIdx.x % 2) {
        warp_barrier();
    } else {
        p.out.write(threadIdx.x, shuffle_xor(1.f, 2));
    }
}
KERNEL(shuffle_from_outside, ReverseParams, THREADS, 1) {
    if (threadIdx.x % 32 < 16) p.out.write(threadIdx.x, shuffle_xor(1.f, 16, 0xffff));
}

// A warpgroup product whose factors are all ones: 16 everywhere.
enum Mistake { NONE, NOT_PUBLISHED, NOT_BEGUN, NOT_COMMITTED, NOT_WAITED_FOR, REGISTERS_WRITTEN };

template <Mistake MISTAKE>
DEVICE void ones(const ReverseParams& p) {
    // In pieces of 8 values: the first half of 40 columns, then the second.
    STATIC_SHARED(f16, b, 16 * 40);
    const f16 one = from_float<f16>(1.f);
    for (int i = threadIdx.x; i < 16 * 40; i += THREADS) b.write(i, one);
    if (MISTAKE != NOT_PUBLISHED) publish_to_products();
    block_barrier();
    uint32_t a[4];
    for (int i = 0; i < 4; i++) a[i] = pack<f16>(1.f, 1.f);
    float sum[5][4];
    if (MISTAKE != NOT_BEGUN) products_begin(sum);
    warpgroup_multiply<f16, false>(sum, a, matrix_descriptor(b, 16 * 40, 128), false);
    if (MISTAKE != NOT_COMMITTED) products_commit();
    if (MISTAKE == REGISTERS_WRITTEN) a[0] = 0;
    if (MISTAKE != NOT_WAITED_FOR) products_wait(sum);
    p.out.write(threadIdx.x, sum[4][3]);
}

KERNEL(ones, ReverseParams, THREADS, 1) { ones<NONE>(p); }
KERNEL(ones_not_published, ReverseParams, THREADS, 1) { ones<NOT_PUBLISHED>(p); }
KERNEL(ones_not_begun, ReverseParams, THREADS, 1) { ones<NOT_BEGUN>(p); }
KERNEL(ones_not_committed, ReverseParams, THREADS, 1) { ones<NOT_COMMITTED>(p); }
KERNEL(ones_not_waited_for, ReverseParams, THREADS, 1) { ones<NOT_WAITED_FOR>(p); }
KERNEL(ones_with_registers_written, ReverseParams, THREADS, 1) { ones<REGISTERS_WRITTEN>(p); }

// One tensor core product: out (16, 8) = a (16, 16) · b (16, 8) as f16, both row-major, loaded by ldmatrix.
struct ProductParams {
    Global<const f16> a, b;
    Global<float> out;
};

KERNEL(product, ProductParams, 32, 1) {
    const Shared<f16> a = dynamic_shared<f16>(0), b = dynamic_shared<f16>(512);
    const int lane = threadIdx.x;
    copy_async(a.at(8 * lane), p.a.at(8 * lane), true);
    copy_async(b.at(8 * lane), p.b.at(8 * (lane % 16)), lane < 16);
    copy_commit();
    copy_wait<0>();
    warp_barrier();
    uint32_t left[4], right[4];
    load_matrices(left, a.at(lane % 16 * 16 + lane / 16 * 8));
    load_matrices_transposed(right, b.at(lane * 8));
    float sum[4] = {};
    multiply_accumulate<f16>(sum, left, right[0], right[1]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) p.out.write((g + i / 2 * 8) * 8 + 2 * t + i % 2, sum[i]);
}

// Converts every bit pattern of a half type to f32, and every f32 of a list to a half type.
struct ConvertParams {
    Global<const float> in;
    Global<float> from_f16, from_bf16;
    Global<uint16_t> to_f16, to_bf16;
    int count;
};

KERNEL(convert, ConvertParams, THREADS, 1) {
    for (int i = threadIdx.x; i < p.count; i += THREADS) {
        p.from_f16.write(i, to_float(f16{static_cast<uint16_t>(i)}));
        p.from_bf16.write(i, to_float(bf16{static_cast<uint16_t>(i)}));
        p.to_f16.write(i, from_float<f16>(p.in.read(i)).bits);
        p.to_bf16.write(i, from_float<bf16>(p.in.read(i)).bits);
    }
}
