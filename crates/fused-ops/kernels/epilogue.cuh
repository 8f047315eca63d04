// Computes epilogues, for the kernels of products and convolutions and for the separate kernel.
#pragma once

#include "device.cuh"

namespace epilogue {

// x · Φ(x) with the error function.
DEVICE float gelu(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678f)); }

// x · sigmoid(slope · x)
DEVICE float swish(float x, float slope) { return divide_fast(x, 1.f + exp2_fast(-slope * LOG2_E * x)); }

// 0 none, 1 GELU, 2 quick GELU, 3 SiLU, 4 GELU by tanh; must match `activation_code` in src/cuda/launch/epilogue.rs.
DEVICE float activate(float x, int activation) {
    if (activation == 1) return gelu(x);
    if (activation == 2) return swish(x, 1.702f);
    if (activation == 3) return swish(x, 1.f);
    // ½ (1 + tanh(u)) is the sigmoid of 2 u.
    if (activation == 4) return swish(x, 1.5957691f * (1.f + 0.044715f * x * x));
    return x;
}

// Adds 8 neighbouring values, if there is an addend.
template <typename T>
DEVICE void add(float (&values)[8], Global<const T> more, int64_t at) {
    if (!more.is_some()) return;
    float added[8];
    unpack<T>(added, more.template read_as<uint4>(at));
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] += added[i];
}

}  // namespace epilogue
