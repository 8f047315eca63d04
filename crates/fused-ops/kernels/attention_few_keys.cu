// Computes attention over at most 80 keys: a prompt's tokens and padding, or a short text by itself.
//
// All keys and values of a head are copied to shared memory once per block, so there is only one barrier. Then each
// warp processes tiles of 16 queries on its own: 16 × keys scores in registers, one softmax over all keys, the
// result. There are kernels for up to 32 and up to 80 keys; missing keys are masked by their bias.
//
// Registers per thread for 32 and 80 keys: 16 and 40 for scores, 4 per 8 columns of the result (20 at dimension 40,
// 80 at 160), and 4 per 16 columns of queries, which are prefetched for the next tile. ptxas uses 80 and 110 at
// dimension 40, 98 and 130 at 64, 114 and 142 at 80, 168 and 216 at 160. Shared memory is 196 bytes per key at 40,
// 292 at 64, 356 at 80 and 676 at 160: 6 to 21 KiB for 32 keys, 15 to 53 KiB for 80. So at dimension 40 and up to 32
// keys, six blocks (24 warps) fit on a multiprocessor; at 160 and 80 keys two, or one if shared memory is limited to
// 100 KiB.
//
// The lower bound is memory: each query is read once and each result written once. At (2, 8, 4096, 40) those are 10.5
// MB, with 0.7 GFLOP for 21 keys padded to 32. So a block takes as few tiles as fill the chip, and the keys, which
// every block of a head copies again, come from the L2 cache.
#include "attention.cuh"

namespace attention {

template <typename T, int D, int KEYS>
DEVICE void few_keys(const AttentionParams<T>& p) {
    using Head = Tile<D>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Sequence<T> s = sequence<T, D>(p, blockIdx.z, blockIdx.y);
    // In a batch of mixed lengths, blocks past the end of a sequence have no work.
    if (static_cast<int>(blockIdx.x) * WARPS * 16 >= s.queries) return;

    const Shared<T> key = dynamic_shared<T>(0), value = key.at(KEYS * Head::KEY_STRIDE);
    const Shared<float> bias =
        dynamic_shared<float>(KEYS * (Head::KEY_STRIDE + Head::VALUE_STRIDE) * static_cast<int>(sizeof(T)));
    copy_rows<D>(key, Head::KEY_STRIDE, s.key, p.key_row_stride, 0, KEYS, s.keys);
    copy_rows<D>(value, Head::VALUE_STRIDE, s.value, p.value_row_stride, 0, KEYS, s.keys);
    copy_commit();
    clear_padding<D>(key, KEYS);
    for (int i = threadIdx.x; i < KEYS; i += THREADS) {
        const float given = s.key_bias.is_some() && i < s.keys ? s.key_bias.read(i) * LOG2_E : 0.f;
        bias.write(i, i < s.keys ? given : -INFINITE);
    }
    // The warps of all blocks of this head take turns with tiles.
    const int turn = gridDim.x * WARPS * 16;
    int row = (blockIdx.x * WARPS + warp) * 16;
    uint32_t query[Head::STEPS][4];
    read_queries<D>(query, s.query, p.query_row_stride, row, s.queries);
    copy_wait<0>();
    block_barrier();

    // Matrices 0 and 1 are the two halves of 16 columns of keys 0 to 7; 2 and 3 are those of keys 8 to 15.
    const Shared<T> key_row = key.at((lane % 8 + lane / 16 * 8) * Head::KEY_STRIDE + lane / 8 % 2 * 8);
    // Matrices 0 and 1 are 8 columns of values 0 to 7 and 8 to 15; 2 and 3 are the next 8 columns. If the number of
    // columns is odd, the last pair repeats its first.
    const Shared<T> value_row = value.at(lane % 16 * Head::VALUE_STRIDE);
    const int next_columns = lane / 16 * 8;

    for (; row < s.queries; row += turn) {
        float scores[KEYS / 8][4];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[j][i] = 0.f;
        }
#pragma unroll
        for (int step = 0; step < Head::STEPS; step++) {
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                uint32_t b[4];
                load_matrices(b, key_row.at(16 * j * Head::KEY_STRIDE + 16 * step));
                multiply_accumulate<T>(scores[2 * j], query[step], b[0], b[1]);
                multiply_accumulate<T>(scores[2 * j + 1], query[step], b[2], b[3]);
            }
        }
        read_queries<D>(query, s.query, p.query_row_stride, row + turn, s.queries);

        Rows<D> rows;
        rows.clear();
        weigh(scores, rows, p.causal, bias, true, p.scale, 0, row + lane / 4, s.keys, p.causal);
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
            uint32_t weights[4];
            weights_as_factor<T>(weights, &scores[2 * j]);
#pragma unroll
            for (int column = 0; column < D / 8; column += 2) {
                const bool pair = column + 1 < D / 8;
                uint32_t b[4];
                load_matrices_transposed(
                    b, value_row.at(16 * j * Head::VALUE_STRIDE + 8 * column + (pair ? next_columns : 0)));
                multiply_accumulate<T>(rows.out[column], weights, b[0], b[1]);
                if (pair) multiply_accumulate<T>(rows.out[column + 1], weights, b[2], b[3]);
            }
        }
        write_rows(rows, s.out, p.out_row_stride, row, s.queries);
    }
}

}  // namespace attention

#define ATTENTION_FEW_KEYS(T, D)                                                                                       \
    KERNEL(attention_32_keys_##T##_##D, AttentionParams<T>, attention::THREADS, 3) {                                   \
        attention::few_keys<T, D, 32>(p);                                                                              \
    }                                                                                                                  \
    KERNEL(attention_80_keys_##T##_##D, AttentionParams<T>, attention::THREADS, 2) {                                   \
        attention::few_keys<T, D, 80>(p);                                                                              \
    }

ATTENTION_FEW_KEYS(f16, 40)
ATTENTION_FEW_KEYS(f16, 64)
ATTENTION_FEW_KEYS(f16, 80)
ATTENTION_FEW_KEYS(f16, 160)
ATTENTION_FEW_KEYS(bf16, 40)
ATTENTION_FEW_KEYS(bf16, 64)
ATTENTION_FEW_KEYS(bf16, 80)
ATTENTION_FEW_KEYS(bf16, 160)
