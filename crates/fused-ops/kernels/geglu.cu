// Computes the gate of a gated feed-forward (Shazeer, arXiv 2002.05202), after adding a bias.
//
// Each thread has 8 neighbouring values. The lower bound is memory: 4 bytes in and 2 out per value; biases come from
// the cache.
#include "epilogue.cuh"

// Matches `GegluParams` in src/cuda/launch/geglu.rs.
template <typename T>
struct GegluParams {
    // (rows, 2 columns)
    Global<const T> x;
    // (2 columns), or none.
    Global<const T> bias;
    // (rows, columns): the first half times the GELU of the second.
    Global<T> out;
    // The total is below 2³¹ times 8 values.
    unsigned rows;
    int columns;
};

namespace geglu {

constexpr int THREADS = 256;

template <typename T>
DEVICE void run(const GegluParams<T>& p) {
    const unsigned vector = blockIdx.x * THREADS + threadIdx.x, vectors = p.columns / 8;
    if (vector >= p.rows * vectors) return;
    // In 32 bits, because a 64-bit division takes longer than everything else.
    const unsigned row = vector / vectors;
    const int column = static_cast<int>(vector - row * vectors) * 8;
    const int64_t i = vector;
    float values[8], gates[8];
    const Global<const T> pair = p.x.at(2 * static_cast<int64_t>(row) * p.columns + column);
    unpack<T>(values, pair.template read_as<uint4>(0));
    unpack<T>(gates, pair.template read_as<uint4>(p.columns));
    epilogue::add<T>(values, p.bias, column);
    epilogue::add<T>(gates, p.bias, p.columns + column);
#pragma unroll
    for (int k = 0; k < 8; k++) values[k] *= epilogue::gelu(gates[k]);
    p.out.template write_as<uint4>(8 * i, pack<T>(values));
}

}  // namespace geglu

#define GEGLU(T)                                                                                                       \
    KERNEL(geglu_##T, GegluParams<T>, geglu::THREADS, 4) { geglu::run<T>(p); }

GEGLU(f16)
GEGLU(bf16)
