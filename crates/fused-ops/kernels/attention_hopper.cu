// Computes attention over many keys on Hopper, whose warpgroups multiply asynchronously from shared memory: twice the
// products per clock of attention_streaming.cu, which is otherwise the same (Shah et al., arXiv 2407.08608).
//
// A block processes one head and 128 queries, 64 per warpgroup: 16 per warp, as there, so softmax and results share
// their code. Keys and values come in tiles of 64. While one tile is used, the next is copied.
//
// A tile is stored in shared memory in pieces of 16 bytes: piece p of key k has the index p · (KEYS + 1) + k. The 8 ×
// 8 matrices of keys and of values are then 128 contiguous bytes, which products read without bank conflicts or
// swizzling, and the odd stride spreads the pieces of a key over the banks.
//
// Registers per thread at dimensions 40 and 64: 32 for scores, 16 for weights, 12 and 16 for queries, 20 and 32 for
// results; ptxas uses 108 and 128 in total. So two blocks (four warpgroups) fit on a multiprocessor: while one waits
// for products, another computes exponentials, of which a tile of 64 × 64 takes 256 clocks at 16 per clock, compared
// with 96 + 80 for products at dimension 40. (At 80 there is no room for the second block, and at 160 none for the
// first.)
#include "attention.cuh"
#include "hopper.cuh"

namespace attention {

constexpr int HOPPER_THREADS = 256;

#if HOPPER

template <typename T, int D>
DEVICE void hopper(const AttentionParams<T>& p) {
    using Head = Tile<D>;
    constexpr int ROWS = HOPPER_THREADS / 2, KEYS = 64;
    // The distance in values between the pieces of a key, and the number of pieces after padding.
    constexpr int PIECE = 8 * (KEYS + 1), KEY_PIECES = 2 * Head::STEPS;
    constexpr int KEY_VALUES = KEY_PIECES * PIECE, HALF = KEY_VALUES + Head::PIECES * PIECE;
    constexpr int NEXT_PIECE = 16 * (KEYS + 1), NEXT_KEYS = 128;  // bytes, the latter of 8 keys

    const Sequence<T> s = sequence<T, D>(p, blockIdx.z, blockIdx.y);
    const int block_row = blockIdx.x * ROWS;
    if (block_row >= s.queries) return;
    const int lane = threadIdx.x % 32, first_row = block_row + threadIdx.x / 32 * 16;

    const Shared<T> memory = dynamic_shared<T>(0);
    const Shared<float> biases = dynamic_shared<float>(2 * HALF * sizeof(T));
    const int keys = p.causal ? min(s.keys, block_row + ROWS) : s.keys;
    const int tiles = (keys + KEYS - 1) / KEYS;

    const auto copy_pieces = [&](Shared<T> target, Global<const T> source, int row_stride, int first) {
        const Global<const T> begin = source.at(static_cast<int64_t>(first) * row_stride);
#pragma unroll 1
        for (int i = threadIdx.x; i < KEYS * Head::PIECES; i += HOPPER_THREADS) {
            const int key = i / Head::PIECES, piece = i % Head::PIECES;
            const bool there = first + key < s.keys;
            copy_async(target.at(piece * PIECE + 8 * key), begin.at((there ? key : 0) * row_stride + 8 * piece), there);
        }
    };
    const auto copy_tile = [&](int tile) {
        const Shared<T> target = memory.at(tile % 2 * HALF);
        copy_pieces(target, s.key, p.key_row_stride, tile * KEYS);
        copy_pieces(target.at(KEY_VALUES), s.value, p.value_row_stride, tile * KEYS);
        copy_commit();
        if (s.key_bias.is_some()) {
            for (int i = threadIdx.x; i < KEYS; i += HOPPER_THREADS) {
                const int key = tile * KEYS + i;
                biases.write(tile % 2 * KEYS + i, key < s.keys ? s.key_bias.read(key) * LOG2_E : 0.f);
            }
        }
    };

    copy_tile(0);
    if constexpr (KEY_PIECES > Head::PIECES) {
        // Writes zeros after the D columns of each key.
        for (int i = threadIdx.x; i < 2 * KEYS; i += HOPPER_THREADS) {
            memory.template write_as<uint4>(i / KEYS * HALF + Head::PIECES * PIECE + 8 * (i % KEYS), uint4{0, 0, 0, 0});
        }
    }
    // Products read their registers until they have been waited for.
    uint32_t query[Head::STEPS][4], weights[KEYS / 16][4];
    Rows<D> rows;
    read_queries<D>(query, s.query, p.query_row_stride, first_row, s.queries);
    rows.clear();

    for (int tile = 0; tile < tiles; tile++) {
        // Other warps may still read the half of memory that is copied to next.
        products_wait(rows.out);
        copy_wait<0>();
        publish_to_products();
        block_barrier();
        if (tile + 1 < tiles) copy_tile(tile + 1);
        const Shared<T> key = memory.at(tile % 2 * HALF), value = key.at(KEY_VALUES);

        float scores[KEYS / 8][4];
        products_begin(scores);
#pragma unroll
        for (int step = 0; step < Head::STEPS; step++) {
            const uint64_t b = matrix_descriptor(key.at(2 * step * PIECE), NEXT_PIECE, NEXT_KEYS);
            warpgroup_multiply<T, false>(scores, query[step], b, step > 0);
        }
        products_commit();
        products_wait(scores);

        const int first_key = tile * KEYS;
        const bool masked = first_key + KEYS > (p.causal ? min(s.keys, first_row + 1) : s.keys);
        weigh(scores, rows, masked, biases.at(tile % 2 * KEYS), s.key_bias.is_some(), p.scale, first_key,
              first_row + lane / 4, s.keys, p.causal);

#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) weights_as_factor<T>(weights[k], &scores[2 * k]);
        products_begin(rows.out);
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            const uint64_t b = matrix_descriptor(value.at(2 * k * 8 * 8), NEXT_KEYS, NEXT_PIECE);
            warpgroup_multiply<T, true>(rows.out, weights[k], b, true);
        }
        products_commit();
    }
    products_wait(rows.out);
    write_rows(rows, s.out, p.out_row_stride, first_row, s.queries);
}

#endif

}  // namespace attention

#define ATTENTION_HOPPER(T, D)                                                                                         \
    KERNEL(attention_hopper_##T##_##D, AttentionParams<T>, attention::HOPPER_THREADS, 2) {                             \
        HOPPER_ONLY(attention::hopper<T, D>(p);)                                                                       \
    }

ATTENTION_HOPPER(f16, 40)
ATTENTION_HOPPER(f16, 64)
ATTENTION_HOPPER(bf16, 40)
ATTENTION_HOPPER(bf16, 64)
