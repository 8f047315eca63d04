// Computes layer normalisation (Ba et al., arXiv 1607.06450) of rows, optionally after adding a bias and a residual.
//
// Each warp keeps a row in registers while it computes the mean, the variance and the result, 8 values per 16 bytes
// that a lane reads: 64 registers for rows of up to 2 048. No shared memory and no barriers are needed. The lower
// bound is memory: 2 bytes in and 2 out per value, and as many for a residual and for the stored sum.
#include "epilogue.cuh"

// Matches `LayerNormParams` in src/cuda/launch/layer_norm.rs.
template <typename T>
struct LayerNormParams {
    // (rows, size)
    Global<const T> x;
    // (size), or none.
    Global<const T> added;
    // (rows, size), or none.
    Global<const T> residual;
    // (size)
    Global<const T> weight, bias;
    // (rows, size): x + added + residual, for the next residual connection; or none.
    Global<T> sum;
    // (rows, size)
    Global<T> out;
    int rows, size;
    float eps;
};

namespace layer_norm {

constexpr int WARPS = 4;
constexpr int MOST_VECTORS = 8;

template <typename T>
DEVICE void run(const LayerNormParams<T>& p) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= p.rows) return;
    const int64_t begin = static_cast<int64_t>(row) * p.size;
    const int vectors = p.size / 8;

    float values[MOST_VECTORS][8];
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < MOST_VECTORS; j++) {
        const int vector = 32 * j + lane;
        if (vector < vectors) {
            unpack<T>(values[j], p.x.template read_as<uint4>(begin + 8 * vector));
            epilogue::add<T>(values[j], p.added, 8 * vector);
            epilogue::add<T>(values[j], p.residual, begin + 8 * vector);
            if (p.sum.is_some()) p.sum.template write_as<uint4>(begin + 8 * vector, pack<T>(values[j]));
#pragma unroll
            for (int i = 0; i < 8; i++) sum += values[j][i];
        }
    }
    const float mean = warp_sum(sum) / p.size;
    float square = 0.f;
#pragma unroll
    for (int j = 0; j < MOST_VECTORS; j++) {
        if (32 * j + lane < vectors) {
#pragma unroll
            for (int i = 0; i < 8; i++) square += (values[j][i] - mean) * (values[j][i] - mean);
        }
    }
    const float factor = reciprocal_root(warp_sum(square) / p.size + p.eps);
#pragma unroll
    for (int j = 0; j < MOST_VECTORS; j++) {
        const int vector = 32 * j + lane;
        if (vector < vectors) {
            float weight[8], bias[8];
            unpack<T>(weight, p.weight.template read_as<uint4>(8 * vector));
            unpack<T>(bias, p.bias.template read_as<uint4>(8 * vector));
#pragma unroll
            for (int i = 0; i < 8; i++) values[j][i] = (values[j][i] - mean) * factor * weight[i] + bias[i];
            p.out.template write_as<uint4>(begin + 8 * vector, pack<T>(values[j]));
        }
    }
}

}  // namespace layer_norm

#define LAYER_NORM(T)                                                                                                  \
    KERNEL(layer_norm_##T, LayerNormParams<T>, 32 * layer_norm::WARPS, 4) { layer_norm::run<T>(p); }

LAYER_NORM(f16)
LAYER_NORM(bf16)
