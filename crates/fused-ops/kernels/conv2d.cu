// Convolves channels-last images as a matrix product whose left factor is never materialized: a row is a position of
// the result, and its columns are the values under the window there, by tap and channel (implicit GEMM, as in CUTLASS
// and cuDNN). Row addresses implement zero padding and stride; a bias, a shift per image, a residual and an
// activation are applied while the sums are in registers.
//
// If an image is doubled by nearest neighbour before 3 × 3 taps, taps that read the same pixel are added up in
// advance: the results at even and odd rows and columns (four phases) are convolutions of the original image with 2 ×
// 2 taps each, with less than half the products. Their weights are computed once (`phases` in
// src/tensors/conv2d_layout.rs).
//
// A block of four warps computes a tile of the result, a quarter per warp. A stage is 32 columns of the left factor
// and of the weights: while the tensor cores work on one stage, the next two are copied to shared memory. One barrier
// per stage ensures both that the copy has arrived and that nobody still reads the stage to be overwritten. Rows of a
// stage are five 16-byte pieces apart, so the 8 rows of a matrix lie in different banks.
//
//                        rows × columns   a warp's    sums   stages, KiB   products a matrix of ldmatrix
//   wide                    128 × 160     64 × 80     160        68              40 / 9
//   large                   128 × 128     64 × 64     128        60              32 / 8
//   small                    64 ×  64     32 × 32      32        30               8 / 4
//
// 160 divides the channel counts of Stable Diffusion (320, 640, 1280), 128 those of its VAE. Two blocks with 255
// registers per thread fit on a multiprocessor, four of the small one. A wide tile reads 9 · 512 bytes of shared
// memory for 40 products of 2 048 multiply-adds, so it is limited by the tensor cores, not by memory. If there are
// few positions and many channels, as at 8 × 8 with 1280 channels, blocks split the depth of a tile; their sums go to
// memory in f32, and a second kernel adds them up, always in the same order.
#include "epilogue.cuh"

// Matches `Conv2dParams` in src/cuda/launch/conv2d.rs.
template <typename T>
struct Conv2dParams {
    // (batch, height, width, channels)
    Global<const T> x;
    // (out_channels, kernel, kernel, channels), four of them if the image is doubled.
    Global<const T> weight;
    // (out_channels), or none.
    Global<const T> bias;
    // (batch, out_channels), or none.
    Global<const T> shift;
    // In the shape of the result, or none.
    Global<const T> residual;
    // (batch, out_height, out_width, out_channels)
    Global<T> out;
    // (splits, rows, out_channels): the sums of each split of the depth; or none, if there is one split.
    Global<float> partial;
    int height, width, channels;
    int out_height, out_width, out_channels;
    int kernel, stride, top, left;
    // Whether the image is doubled before the convolution; then `height` and `width` are the original ones, and
    // `kernel` is 2.
    int upsample;
    // batch · out_height · out_width
    int rows;
    // The rows of a phase, or all rows.
    int phase_rows;
    // The stages of 32 columns per block, and the splits of the depth.
    int stages, splits;
    // See epilogue.cuh.
    int activation;
};

namespace conv2d {

constexpr int THREADS = 128;
// The columns of a stage, the 16-byte pieces of its rows, and their distance.
constexpr int DEPTH = 32, PIECES = DEPTH / 8, STRIDE = DEPTH + 8;
constexpr int STAGES = 3;
// The rows that the block's threads copy at once.
constexpr int COPIED = THREADS / PIECES;

struct Wide {
    static constexpr int ROW_TILES = 4, COLUMN_TILES = 10;
};
struct Large {
    static constexpr int ROW_TILES = 4, COLUMN_TILES = 8;
};
struct Small {
    static constexpr int ROW_TILES = 2, COLUMN_TILES = 4;
};

// A position of the result, or of one phase of it, and its image.
struct Place {
    int image, y, x;
};

template <typename T>
DEVICE Place place(const Conv2dParams<T>& p, int row) {
    const int height = p.upsample ? p.height : p.out_height, width = p.upsample ? p.width : p.out_width;
    const int image = row / (height * width), rest = row - image * (height * width);
    return {image, rest / width, rest % width};
}

// The first position that a row of the left factor reads; rows that do not exist read nothing. Odd phases start at
// their own pixel, even ones at the previous one.
template <typename T>
DEVICE Place first_seen(const Conv2dParams<T>& p, int row, int phase) {
    const Place at = place(p, row);
    const int top = p.upsample ? 1 - phase / 2 : p.top, left = p.upsample ? 1 - phase % 2 : p.left;
    const bool exists = row < p.phase_rows;
    const int nowhere = -(1 << 24);
    return {exists ? at.image : 0, exists ? at.y * p.stride - top : nowhere, at.x * p.stride - left};
}

// The row of the result.
template <typename T>
DEVICE int result_row(const Conv2dParams<T>& p, int row, int phase) {
    if (!p.upsample) return row;
    const Place at = place(p, row);
    return (at.image * p.out_height + 2 * at.y + phase / 2) * p.out_width + 2 * at.x + phase % 2;
}

// Two neighbouring values as f32.
template <typename T>
DEVICE float2 read_pair(Global<const T> from, int64_t at) {
    const uint32_t pair = from.template read_as<uint32_t>(at);
    return {to_float(low_half<T>(pair)), to_float(high_half<T>(pair))};
}

// Applies the epilogue to the sums of a row at `column` and the next one, and writes those that exist.
template <typename T>
DEVICE void write_pair(const Conv2dParams<T>& p, int row, int column, float low, float high) {
    const int64_t at = static_cast<int64_t>(row) * p.out_channels + column;
    const int64_t shift = static_cast<int64_t>(row / (p.out_height * p.out_width)) * p.out_channels + column;
    if (p.out_channels % 2 == 0) {
        float2 sum = {low, high};
        const auto add = [&sum](float2 more) { sum = {sum.x + more.x, sum.y + more.y}; };
        if (p.bias.is_some()) add(read_pair<T>(p.bias, column));
        if (p.shift.is_some()) add(read_pair<T>(p.shift, shift));
        if (p.residual.is_some()) add(read_pair<T>(p.residual, at));
        p.out.template write_as<uint32_t>(
            at, pack<T>(epilogue::activate(sum.x, p.activation), epilogue::activate(sum.y, p.activation)));
        return;
    }
    // For images with three colours, rows do not start at a pair.
    for (int i = 0; i < 2 && column + i < p.out_channels; i++) {
        float sum = i == 0 ? low : high;
        if (p.bias.is_some()) sum += to_float(p.bias.read(column + i));
        if (p.shift.is_some()) sum += to_float(p.shift.read(shift + i));
        if (p.residual.is_some()) sum += to_float(p.residual.read(at + i));
        p.out.write(at + i, from_float<T>(epilogue::activate(sum, p.activation)));
    }
}

template <typename T, typename Tile>
DEVICE void run(const Conv2dParams<T>& p) {
    constexpr int ROW_TILES = Tile::ROW_TILES, COLUMN_TILES = Tile::COLUMN_TILES;
    constexpr int ROWS = 2 * ROW_TILES * 16, COLUMNS = 2 * COLUMN_TILES * 8;
    constexpr int STAGE = (ROWS + COLUMNS) * STRIDE;
    static_assert(ROWS % COPIED == 0 && COLUMNS % COPIED == 0, "every thread copies as many pieces");

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // Phases come one after the other.
    const int blocks = p.upsample ? gridDim.x / 4 : gridDim.x;
    const int phase = p.upsample ? blockIdx.x / blocks : 0;
    const int first_row = (blockIdx.x - phase * blocks) * ROWS, first_column = blockIdx.y * COLUMNS;
    const Shared<T> memory = dynamic_shared<T>(0);

    // This thread copies one piece of every COPIED-th row of the image and of the weights.
    const int copied_row = threadIdx.x / PIECES, copied_piece = threadIdx.x % PIECES * 8;
    Place places[ROWS / COPIED];
#pragma unroll
    for (int i = 0; i < ROWS / COPIED; i++) places[i] = first_seen(p, first_row + copied_row + i * COPIED, phase);
    const int all_depth = p.kernel * p.kernel * p.channels;
    const Global<const T> weight = p.weight.at(static_cast<int64_t>(phase) * p.out_channels * all_depth);
    int depth = blockIdx.z * p.stages * DEPTH + copied_piece;
    int channel = depth % p.channels, tap_x = depth / p.channels % p.kernel, tap_y = depth / p.channels / p.kernel;

    const auto copy_stage = [&](int stage) {
        const Shared<T> target = memory.at(stage % STAGES * STAGE + copied_row * STRIDE + copied_piece);
        const bool exists = depth < all_depth;
#pragma unroll
        for (int i = 0; i < ROWS / COPIED; i++) {
            const int y = places[i].y + tap_y, x = places[i].x + tap_x;
            const bool there = exists && static_cast<unsigned>(y) < static_cast<unsigned>(p.height) &&
                               static_cast<unsigned>(x) < static_cast<unsigned>(p.width);
            const int pixel = (places[i].image * p.height + y) * p.width + x;
            copy_async(target.at(i * COPIED * STRIDE),
                       p.x.at(there ? static_cast<int64_t>(pixel) * p.channels + channel : 0), there);
        }
#pragma unroll
        for (int i = 0; i < COLUMNS / COPIED; i++) {
            const int column = first_column + copied_row + i * COPIED;
            const bool there = exists && column < p.out_channels;
            copy_async(target.at((ROWS + i * COPIED) * STRIDE),
                       weight.at(there ? static_cast<int64_t>(column) * all_depth + depth : 0), there);
        }
        depth += DEPTH;
        channel += DEPTH;
        while (channel >= p.channels) {
            channel -= p.channels;
            if (++tap_x == p.kernel) tap_x = 0, tap_y++;
        }
    };

    float sums[ROW_TILES][COLUMN_TILES][4];
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
        for (int c = 0; c < COLUMN_TILES; c++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[r][c][i] = 0.f;
        }
    }

    // Committed even if there is nothing left to copy, so that the number of groups identifies the stage.
#pragma unroll 1
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < p.stages) copy_stage(stage);
        copy_commit();
    }
    const int warp_row = warp / 2 * ROW_TILES * 16, warp_column = warp % 2 * COLUMN_TILES * 8;
    // In the left factor, matrices 0 and 1 are rows 0 to 7 and 8 to 15 of 8 columns, and 2 and 3 the next 8 columns;
    // in the weights, 0 and 1 are the two halves of 16 columns of 8 rows, and 2 and 3 those of the next 8 rows.
    const int left_offset = (warp_row + lane % 16) * STRIDE + lane / 16 * 8;
    const int right_offset = (ROWS + warp_column + lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * 8;
#pragma unroll 1
    for (int stage = 0; stage < p.stages; stage++) {
        copy_wait<STAGES - 2>();
        block_barrier();
        if (stage + STAGES - 1 < p.stages) copy_stage(stage + STAGES - 1);
        copy_commit();
        const Shared<T> left = memory.at(stage % STAGES * STAGE + left_offset);
        const Shared<T> right = memory.at(stage % STAGES * STAGE + right_offset);
#pragma unroll
        for (int step = 0; step < DEPTH / 16; step++) {
            uint32_t a[ROW_TILES][4];
#pragma unroll
            for (int r = 0; r < ROW_TILES; r++) load_matrices(a[r], left.at(16 * r * STRIDE + 16 * step));
#pragma unroll
            for (int c = 0; c < COLUMN_TILES; c += 2) {
                uint32_t b[4];
                load_matrices(b, right.at(8 * c * STRIDE + 16 * step));
#pragma unroll
                for (int r = 0; r < ROW_TILES; r++) {
                    multiply_accumulate<T>(sums[r][c], a[r], b[0], b[1]);
                    multiply_accumulate<T>(sums[r][c + 1], a[r], b[2], b[3]);
                }
            }
        }
    }

    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int phase_row = first_row + warp_row + 16 * r + 8 * half + g;
            if (phase_row >= p.phase_rows) continue;
            const int row = result_row(p, phase_row, phase);
#pragma unroll
            for (int c = 0; c < COLUMN_TILES; c++) {
                const int column = first_column + warp_column + 8 * c + 2 * t;
                if (column >= p.out_channels) continue;
                const float low = sums[r][c][2 * half], high = sums[r][c][2 * half + 1];
                if (p.partial.is_some()) {
                    const int64_t at = (static_cast<int64_t>(blockIdx.z) * p.rows + row) * p.out_channels + column;
                    p.partial.template write_as<float2>(at, float2{low, high});
                } else {
                    write_pair(p, row, column, low, high);
                }
            }
        }
    }
}

// Adds up the splits of the depth; each thread has two neighbouring values.
template <typename T>
DEVICE void add_splits(const Conv2dParams<T>& p) {
    const unsigned i = 2 * (blockIdx.x * THREADS + threadIdx.x), count = p.rows * p.out_channels;
    if (i >= count) return;
    float2 sum = {0.f, 0.f};
    for (int split = 0; split < p.splits; split++) {
        const float2 more = p.partial.template read_as<float2>(static_cast<int64_t>(split) * count + i);
        sum = {sum.x + more.x, sum.y + more.y};
    }
    const int row = static_cast<int>(i / p.out_channels);
    write_pair(p, row, static_cast<int>(i) - row * p.out_channels, sum.x, sum.y);
}

}  // namespace conv2d

#define CONV2D(T)                                                                                                      \
    KERNEL(conv2d_wide_##T, Conv2dParams<T>, conv2d::THREADS, 2) { conv2d::run<T, conv2d::Wide>(p); }                  \
    KERNEL(conv2d_large_##T, Conv2dParams<T>, conv2d::THREADS, 2) { conv2d::run<T, conv2d::Large>(p); }                \
    KERNEL(conv2d_small_##T, Conv2dParams<T>, conv2d::THREADS, 4) { conv2d::run<T, conv2d::Small>(p); }                \
    KERNEL(conv2d_sum_##T, Conv2dParams<T>, conv2d::THREADS, 8) { conv2d::add_splits<T>(p); }

CONV2D(f16)
CONV2D(bf16)
