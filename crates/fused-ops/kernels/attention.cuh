// Shared code of the attention kernels: their parameters, and a warp's work on a tile of keys.
//
// Softmax uses base 2: with c = log2(e) / √head_dim, a weight is 2^(c s − m) for the score s = query · key and the
// row's maximum m. Key biases are multiplied by log2(e) when they are read.
#pragma once

#include "device.cuh"

// Matches `AttentionParams` in src/cuda/launch/attention.rs. Strides are in elements; rows are multiples of 16 bytes.
template <typename T>
struct AttentionParams {
    Global<const T> query, key, value;
    Global<T> out;
    // (batch, keys), or one row for all sequences if there are `offsets`; or none.
    Global<const float> key_bias;
    // Sequence b consists of the rows `offsets[b]` to `offsets[b + 1]`. Without offsets, every sequence has `queries`
    // and `keys` rows, and a stride leads from one to the next.
    Global<const int> offsets;
    int64_t query_batch_stride, key_batch_stride, value_batch_stride, out_batch_stride;
    int query_row_stride, key_row_stride, value_row_stride, out_row_stride;
    int queries, keys;
    // log2(e) / √head_dim
    float scale;
    // Query i sees the keys 0 to i.
    int causal;
};

namespace attention {

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;

// One head of one sequence.
template <typename T>
struct Sequence {
    Global<const T> query, key, value;
    Global<T> out;
    Global<const float> key_bias;
    int queries, keys;
};

template <typename T, int D>
DEVICE Sequence<T> sequence(const AttentionParams<T>& p, int batch, int head) {
    int64_t first_row = 0;
    Sequence<T> s = {{nullptr}, {nullptr}, {nullptr}, {nullptr}, {nullptr}, p.queries, p.keys};
    if (p.offsets.is_some()) {
        first_row = p.offsets.read(batch);
        s.queries = s.keys = static_cast<int>(p.offsets.read(batch + 1) - first_row);
        batch = 0;
    }
    s.query = p.query.at(batch * p.query_batch_stride + first_row * p.query_row_stride + head * D);
    s.key = p.key.at(batch * p.key_batch_stride + first_row * p.key_row_stride + head * D);
    s.value = p.value.at(batch * p.value_batch_stride + first_row * p.value_row_stride + head * D);
    s.out = p.out.at(batch * p.out_batch_stride + first_row * p.out_row_stride + head * D);
    if (p.key_bias.is_some()) s.key_bias = p.key_bias.at(first_row + static_cast<int64_t>(batch) * p.keys);
    return s;
}

// The layout of a head of dimension D in tiles. Tensor cores sum over 16 columns at a time, so queries and keys are
// padded with zeros to a multiple of 16, for example 40 to 48; values are columns of the result, in multiples of 8.
//
// Rows in shared memory are an odd number of 16-byte pieces apart, so the 8 rows of a matrix, which are read
// together, lie in different banks.
template <int D>
struct Tile {
    static_assert(D % 8 == 0, "rows are read 16 bytes at a time");
    static constexpr int PIECES = D / 8;
    static constexpr int STEPS = (D + 15) / 16;
    static constexpr int KEY_STRIDE = (2 * STEPS + 1) * 8;
    static constexpr int VALUE_STRIDE = (PIECES % 2 ? PIECES : PIECES + 1) * 8;
};

// Starts copying the rows `first` to `first + count` of a matrix with `rows` rows; zeros past its end. The loop must
// not be unrolled: its addresses would take the registers that the products need.
template <int D, typename T>
DEVICE void copy_rows(Shared<T> target, int target_stride, Global<const T> source, int source_stride, int first,
                      int count, int rows) {
    const Global<const T> begin = source.at(first < rows ? static_cast<int64_t>(first) * source_stride : 0);
    const int left = rows - first;
#pragma unroll 1
    for (int i = threadIdx.x; i < count * Tile<D>::PIECES; i += THREADS) {
        const int row = i / Tile<D>::PIECES, column = i % Tile<D>::PIECES * 8;
        const bool there = row < left;
        copy_async(target.at(row * target_stride + column), begin.at((there ? row : 0) * source_stride + column), there);
    }
}

// Writes zeros after the D columns of each key, up to a multiple of 16.
template <int D, typename T>
DEVICE void clear_padding(Shared<T> keys, int rows) {
    if constexpr (D % 16 != 0) {
        for (int row = threadIdx.x; row < rows; row += THREADS) {
            keys.template write_as<uint4>(row * Tile<D>::KEY_STRIDE + D, uint4{0, 0, 0, 0});
        }
    }
}

// Reads the queries `first` to `first + 16` as left factors, zero if out of range. They go straight from global
// memory to registers: a pair of instructions reads whole sectors of 32 bytes, and no query is read twice.
template <int D, typename T>
DEVICE void read_queries(uint32_t (&a)[Tile<D>::STEPS][4], Global<const T> query, int row_stride, int first,
                         int queries) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int step = 0; step < Tile<D>::STEPS; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + g + i % 2 * 8, column = step * 16 + i / 2 * 8 + 2 * t;
            bool there = row < queries && step * 16 + i / 2 * 8 < D;
            a[step][i] = there ? query.template read_as<uint32_t>(static_cast<int64_t>(row) * row_stride + column) : 0;
        }
    }
}

// A warp's state for its 16 queries: lane 4 g + t holds the values of rows g and g + 8.
template <int D>
struct Rows {
    float out[D / 8][4];
    // The maximum c s of the row so far, and the sum of this lane's weights.
    float largest[2], sum[2];

    DEVICE void clear() {
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[j][i] = 0.f;
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            largest[half] = -INFINITE;
            sum[half] = 0.f;
        }
    }

    // Rescales the previous sums by this factor when a larger score is found.
    DEVICE void keep(int half, float part) {
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            out[j][2 * half] *= part;
            out[j][2 * half + 1] *= part;
        }
    }
};

// Adds biases to the scores, masks keys that row `row` (and `row + 8`) must not see, and computes weights. `first` is
// the first key of the tile. Afterwards `scores` holds weights, not yet divided by their sum.
template <int D, int COUNT>
DEVICE void weigh(float (&scores)[COUNT][4], Rows<D>& rows, bool masked, Shared<float> bias, bool biased, float scale,
                  int first, int row, int keys, bool causal) {
    const int t = threadIdx.x % 4;
    if (biased) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            const float2 b = bias.template read_as<float2>(8 * j + 2 * t);
#pragma unroll
            for (int i = 0; i < 4; i++) scores[j][i] = scores[j][i] * scale + (i % 2 ? b.y : b.x);
        }
        scale = 1.f;
    }
    if (masked) {
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = first + 8 * j + 2 * t + i % 2, seen = row + i / 2 * 8 + 1;
                if (key >= keys || (causal && key >= seen)) scores[j][i] = -INFINITE;
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = -INFINITE;
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            largest = fmaxf(largest, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
        }
        // Combines the four lanes of a row.
        largest = fmaxf(largest, shuffle_xor(largest, 1));
        largest = fmaxf(largest, shuffle_xor(largest, 2));
        largest = fmaxf(largest * scale, rows.largest[half]);
        // If every key so far is masked, subtract 0, not −∞.
        const float shift = largest == -INFINITE ? 0.f : largest;
        const float kept = exp2_fast(rows.largest[half] - shift);
        rows.largest[half] = largest;
        float sum = 0.f;
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                scores[j][i] = exp2_fast(scores[j][i] * scale - shift);
                sum += scores[j][i];
            }
        }
        rows.sum[half] = rows.sum[half] * kept + sum;
        rows.keep(half, kept);
    }
}

// The weights of 16 keys, starting with the 8 at `weights`, as a left factor: the accumulators of one product have
// the layout of the next one's operand.
template <typename T>
DEVICE void weights_as_factor(uint32_t (&a)[4], const float (*weights)[4]) {
    a[0] = pack<T>(weights[0][0], weights[0][1]);
    a[1] = pack<T>(weights[0][2], weights[0][3]);
    a[2] = pack<T>(weights[1][0], weights[1][1]);
    a[3] = pack<T>(weights[1][2], weights[1][3]);
}

// Divides by the sums and writes the rows that exist.
template <int D, typename T>
DEVICE void write_rows(const Rows<D>& rows, Global<T> out, int row_stride, int first, int queries) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = rows.sum[half];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        const float factor = 1.f / sum;
        const int row = first + g + 8 * half;
        if (row >= queries) continue;
        const Global<T> target = out.at(static_cast<int64_t>(row) * row_stride + 2 * t);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            target.template write_as<uint32_t>(
                8 * j, pack<T>(rows.out[j][2 * half] * factor, rows.out[j][2 * half + 1] * factor));
        }
    }
}

}  // namespace attention
