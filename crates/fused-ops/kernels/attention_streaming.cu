// Computes attention over any number of keys, which stream past a block's queries (Dao et al., arXiv 2205.14135 and
// 2307.08691).
//
// A block processes one head and ROW_TILES · 64 queries: ROW_TILES tiles of 16 for each of its four warps. While the
// warps work on one tile of keys and values, the next is copied to the other half of shared memory. One barrier per
// tile ensures both that the copy has arrived and that nobody still reads the half to be overwritten.
//
// The choice of tiles: with two row tiles, a warp uses every matrix that ldmatrix reads twice, which halves the
// traffic from shared memory. With one, 16 × 64 scores of dimension 40 read 11 KiB for 44 products of 2 048
// multiply-adds; four warps would need all of the 128 bytes per clock that shared memory provides while the tensor
// cores of an A100 compute. The cost in registers, per thread and tile of keys:
//
//                         D = 40    64    80   160
//   row tiles × keys      2 × 64  2 × 64  2 × 32  1 × 32
//   results                 40      64      80      80
//   scores, weights         64      64      32      16
//   queries                 24      32      40      40
//   together               128     160     152     136   of 255 that two blocks of 128 threads leave each
//   shared memory, KiB      24      36      22      42   for both halves
//   queries of a block     128     128     128      64
//
// The rest is for addresses, sums and prefetched values; ptxas uses 192 to 250 in total. So two blocks (eight warps)
// fit on a multiprocessor, and one warp's exponentials overlap with another's products.
//
// The lower bound per head: 4 · queries · keys · D multiplications and additions (with 48 in place of 40 in the
// scores), queries · keys exponentials at 16 per clock and multiprocessor, and 2 · (2 queries + 2 keys) · D bytes. At
// (2, 8, 4096, 40) that is 43 GFLOP, 268 million exponentials and 21 MB: it is compute-bound, and the exponentials
// take two thirds of the time of the products on a tensor core with 1 024 multiply-adds per clock.
#include "attention.cuh"

namespace attention {

template <int D>
struct Streaming;
template <>
struct Streaming<40> {
    static constexpr int ROW_TILES = 2, KEYS = 64;
};
template <>
struct Streaming<64> {
    static constexpr int ROW_TILES = 2, KEYS = 64;
};
template <>
struct Streaming<80> {
    static constexpr int ROW_TILES = 2, KEYS = 32;
};
template <>
struct Streaming<160> {
    static constexpr int ROW_TILES = 1, KEYS = 32;
};

template <typename T, int D>
DEVICE void streaming(const AttentionParams<T>& p) {
    using Head = Tile<D>;
    constexpr int ROW_TILES = Streaming<D>::ROW_TILES, KEYS = Streaming<D>::KEYS;
    constexpr int KEY_VALUES = KEYS * Head::KEY_STRIDE, VALUE_VALUES = KEYS * Head::VALUE_STRIDE;
    constexpr int HALF = KEY_VALUES + VALUE_VALUES;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Sequence<T> s = sequence<T, D>(p, blockIdx.z, blockIdx.y);
    const int block_row = blockIdx.x * (WARPS * ROW_TILES * 16);
    // In a batch of mixed lengths, blocks past the end of a sequence have no work.
    if (block_row >= s.queries) return;
    const int first_row = block_row + warp * ROW_TILES * 16;

    const Shared<T> memory = dynamic_shared<T>(0);
    const Shared<float> biases = dynamic_shared<float>(2 * HALF * sizeof(T));

    // With the causal mask, no query here sees keys past the block's last query.
    const int keys = p.causal ? min(s.keys, block_row + WARPS * ROW_TILES * 16) : s.keys;
    const int tiles = (keys + KEYS - 1) / KEYS;

    const auto copy_tile = [&](int tile) {
        const Shared<T> target = memory.at(tile % 2 * HALF);
        copy_rows<D>(target, Head::KEY_STRIDE, s.key, p.key_row_stride, tile * KEYS, KEYS, s.keys);
        copy_rows<D>(target.at(KEY_VALUES), Head::VALUE_STRIDE, s.value, p.value_row_stride, tile * KEYS, KEYS,
                     s.keys);
        copy_commit();
        if (s.key_bias.is_some()) {
            for (int i = threadIdx.x; i < KEYS; i += THREADS) {
                const int key = tile * KEYS + i;
                biases.write(tile % 2 * KEYS + i, key < s.keys ? s.key_bias.read(key) * LOG2_E : 0.f);
            }
        }
    };

    copy_tile(0);
    clear_padding<D>(memory, KEYS);
    clear_padding<D>(memory.at(HALF), KEYS);

    uint32_t query[ROW_TILES][Head::STEPS][4];
    Rows<D> rows[ROW_TILES];
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
        read_queries<D>(query[r], s.query, p.query_row_stride, first_row + 16 * r, s.queries);
        rows[r].clear();
    }

    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        block_barrier();
        if (tile + 1 < tiles) copy_tile(tile + 1);
        const Shared<T> key = memory.at(tile % 2 * HALF), value = key.at(KEY_VALUES);

        float scores[ROW_TILES][KEYS / 8][4];
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) scores[r][j][i] = 0.f;
            }
        }
        // Matrices 0 and 1 are the two halves of 16 columns of keys 0 to 7; 2 and 3 are those of keys 8 to 15.
        const Shared<T> key_row = key.at((lane % 8 + lane / 16 * 8) * Head::KEY_STRIDE + lane / 8 % 2 * 8);
#pragma unroll
        for (int step = 0; step < Head::STEPS; step++) {
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                uint32_t b[4];
                load_matrices(b, key_row.at(16 * j * Head::KEY_STRIDE + 16 * step));
#pragma unroll
                for (int r = 0; r < ROW_TILES; r++) {
                    multiply_accumulate<T>(scores[r][2 * j], query[r][step], b[0], b[1]);
                    multiply_accumulate<T>(scores[r][2 * j + 1], query[r][step], b[2], b[3]);
                }
            }
        }

        const int first_key = tile * KEYS;
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) {
            const int row = first_row + 16 * r;
            const bool masked = first_key + KEYS > (p.causal ? min(s.keys, row + 1) : s.keys);
            weigh(scores[r], rows[r], masked, biases.at(tile % 2 * KEYS), s.key_bias.is_some(), p.scale, first_key,
                  row + lane / 4, s.keys, p.causal);
        }

        // Matrix i has rows 8 i to 8 i + 7 of 32 values, transposed: the right factors of two products.
        const Shared<T> value_row = value.at(lane * Head::VALUE_STRIDE);
#pragma unroll
        for (int k = 0; k < KEYS / 32; k++) {
            uint32_t weights[ROW_TILES][2][4];
#pragma unroll
            for (int r = 0; r < ROW_TILES; r++) {
                weights_as_factor<T>(weights[r][0], &scores[r][4 * k]);
                weights_as_factor<T>(weights[r][1], &scores[r][4 * k + 2]);
            }
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                uint32_t b[4];
                load_matrices_transposed(b, value_row.at(32 * k * Head::VALUE_STRIDE + 8 * j));
#pragma unroll
                for (int r = 0; r < ROW_TILES; r++) {
                    multiply_accumulate<T>(rows[r].out[j], weights[r][0], b[0], b[1]);
                    multiply_accumulate<T>(rows[r].out[j], weights[r][1], b[2], b[3]);
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
        write_rows(rows[r], s.out, p.out_row_stride, first_row + 16 * r, s.queries);
    }
}

}  // namespace attention

#define ATTENTION_STREAMING(T, D)                                                                                      \
    KERNEL(attention_streaming_##T##_##D, AttentionParams<T>, attention::THREADS, 2) {                                 \
        attention::streaming<T, D>(p);                                                                                 \
    }

ATTENTION_STREAMING(f16, 40)
ATTENTION_STREAMING(f16, 64)
ATTENTION_STREAMING(f16, 80)
ATTENTION_STREAMING(f16, 160)
ATTENTION_STREAMING(bf16, 40)
ATTENTION_STREAMING(bf16, 64)
ATTENTION_STREAMING(bf16, 80)
ATTENTION_STREAMING(bf16, 160)
