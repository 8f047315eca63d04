// Embeds timesteps as sinusoids (Vaswani et al., arXiv 1706.03762).
#include "device.cuh"

// Matches `TimestepEmbeddingParams` in src/cuda/launch/timestep_embedding.rs.
template <typename T>
struct TimestepEmbeddingParams {
    // (batch), f32
    Global<const float> timesteps;
    // (batch, channels)
    Global<T> out;
    int batch, channels;
    // log2 of the ratio of neighbouring frequencies.
    float step;
    int cosines_first;
};

namespace timestep_embedding {

constexpr int THREADS = 256;
constexpr float HALF_TURNS_PER_RADIAN = 0.31830988618379067f;

template <typename T>
DEVICE void run(const TimestepEmbeddingParams<T>& p) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.batch * p.channels) return;
    const int half = p.channels / 2, channel = i % p.channels;
    float value = 0.f; // the last of an odd number of channels is zero
    if (channel < 2 * half) {
        const float frequency = exp2f(p.step * (channel % half));
        // Angles go up to 1 000 radians. In half turns, whole ones are removed exactly and without a table.
        const float half_turns = p.timesteps.read(i / p.channels) * frequency * HALF_TURNS_PER_RADIAN;
        value = (channel < half) == (p.cosines_first != 0) ? cos_half_turns(half_turns) : sin_half_turns(half_turns);
    }
    p.out.write(i, from_float<T>(value));
}

}  // namespace timestep_embedding

#define TIMESTEP_EMBEDDING(T)                                                                                          \
    KERNEL(timestep_embedding_##T, TimestepEmbeddingParams<T>, timestep_embedding::THREADS, 4) {                       \
        timestep_embedding::run<T>(p);                                                                                 \
    }

TIMESTEP_EMBEDDING(f16)
TIMESTEP_EMBEDDING(bf16)
