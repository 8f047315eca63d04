// Applies an epilogue to a product or a convolution in one pass: activation(x + bias + shift + residual), of which
// each is optional.
//
// Each thread has 8 neighbouring values. The lower bound is memory: 2 bytes in and 2 out per value, and 2 for a
// residual; biases and shifts come from the cache.
#include "epilogue.cuh"

// Matches `EpilogueParams` in src/cuda/launch/epilogue.rs.
template <typename T>
struct EpilogueParams {
    // (rows, columns)
    Global<const T> x;
    // (columns), or none.
    Global<const T> bias;
    // (images, columns), or none.
    Global<const T> shift;
    // (rows, columns), or none.
    Global<const T> residual;
    // (rows, columns)
    Global<T> out;
    // The total is below 2³¹ times 8 values.
    unsigned rows;
    int columns;
    unsigned rows_per_image;
    // See epilogue.cuh.
    int activation;
};

namespace epilogue {

constexpr int THREADS = 256;

template <typename T>
DEVICE void run(const EpilogueParams<T>& p) {
    const unsigned vector = blockIdx.x * THREADS + threadIdx.x, vectors = p.columns / 8;
    if (vector >= p.rows * vectors) return;
    // In 32 bits, because a 64-bit division takes longer than everything else.
    const unsigned row = vector / vectors;
    const int column = static_cast<int>(vector - row * vectors) * 8;
    const int64_t i = vector;
    float values[8];
    unpack<T>(values, p.x.template read_as<uint4>(8 * i));
    add<T>(values, p.bias, column);
    if (p.shift.is_some()) add<T>(values, p.shift, static_cast<int64_t>(row / p.rows_per_image) * p.columns + column);
    add<T>(values, p.residual, 8 * i);
#pragma unroll
    for (int k = 0; k < 8; k++) values[k] = activate(values[k], p.activation);
    p.out.template write_as<uint4>(8 * i, pack<T>(values));
}

}  // namespace epilogue

#define EPILOGUE(T)                                                                                                    \
    KERNEL(epilogue_##T, EpilogueParams<T>, epilogue::THREADS, 4) { epilogue::run<T>(p); }

EPILOGUE(f16)
EPILOGUE(bf16)
