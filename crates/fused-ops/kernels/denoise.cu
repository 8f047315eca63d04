// The small operations around the UNet, each in one pass: the timestep as sinusoids; classifier-free guidance with the
// scheduler's update; the decoded picture in 8 bits.
//
// All of them touch little memory (a latent of 64 × 64 × 4 is 64 KiB in f32), so what counts is that there is one
// launch of each, and that nothing in it comes from the host: the numbers of a step are read from memory, where those of
// all steps can be put before the first.
#include "device.cuh"

// As `TimestepParams` in src/cuda/launches/denoise.rs.
template <typename T>
struct TimestepParams {
    // (batch), f32
    Global<const float> timesteps;
    // (batch, channels)
    Global<T> out;
    int batch, channels;
    // log2 of the ratio between one frequency and the one before.
    float step;
    int cosines_first;
};

// Where the numbers of a step stand: next = sample weight · sample + output weight · guided output + Σ weights of the
// history · history.
enum Coefficient { GUIDANCE, SAMPLE, OUTPUT, HISTORY, INPUT = HISTORY + 3 };

// As `GuidedStepParams` in src/cuda/launches/denoise.rs.
template <typename T>
struct GuidedStepParams {
    // (2 · batch, pixels, channels), the half without the prompt first; or (batch, pixels, channels) if not `guided`.
    Global<const T> output;
    // (batch, channels, pixels), f32
    Global<const float> sample;
    // Guided outputs of the steps before, the newest first, as the sample; or none.
    Global<const float> history[3];
    // As Coefficient says.
    Global<const float> coefficients;
    // (batch, channels, pixels), f32; may be the sample.
    Global<float> next;
    // The guided output of this step, as the sample, for the steps after; or none.
    Global<float> kept;
    // What the model reads next, of the output's shape.
    Global<T> next_input;
    int batch, pixels, channels;
    int guided;
};

// As `BytesParams` in src/cuda/launches/denoise.rs.
template <typename T>
struct BytesParams {
    // −1 to 1
    Global<const T> x;
    // 0 to 255
    Global<uint8_t> out;
    int64_t count;
};

namespace denoise {

constexpr int THREADS = 256;
constexpr float HALF_TURNS_PER_RADIAN = 0.31830988618379067f;

template <typename T>
DEVICE void timestep_embedding(const TimestepParams<T>& p) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.batch * p.channels) return;
    const int half = p.channels / 2, channel = i % p.channels;
    float value = 0.f;  // an odd number of channels ends in a zero
    if (channel < 2 * half) {
        const float frequency = exp2f(p.step * (channel % half));
        // Angles go up to 1 000 radians. In half turns, whole ones are left out exactly and without a table in memory.
        const float half_turns = p.timesteps.read(i / p.channels) * frequency * HALF_TURNS_PER_RADIAN;
        value = (channel < half) == (p.cosines_first != 0) ? cos_half_turns(half_turns) : sin_half_turns(half_turns);
    }
    p.out.write(i, from_float<T>(value));
}

template <typename T>
DEVICE void guided_step(const GuidedStepParams<T>& p) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const int64_t count = static_cast<int64_t>(p.batch) * p.pixels * p.channels;
    if (i >= count) return;
    // `i` counts as the model does, channels last; samples have the channels of a picture one after the other.
    const int64_t pixel = i / p.channels, batch = pixel / p.pixels;
    const int64_t at = (batch * p.channels + i % p.channels) * p.pixels + pixel % p.pixels;

    const Global<const float> c = p.coefficients;
    const float first = to_float(p.output.read(i));
    const float output = p.guided ? first + c.read(GUIDANCE) * (to_float(p.output.read(count + i)) - first) : first;
    float next = c.read(SAMPLE) * p.sample.read(at) + c.read(OUTPUT) * output;
#pragma unroll
    for (int k = 0; k < 3; k++) {
        if (p.history[k].is_some()) next += c.read(HISTORY + k) * p.history[k].read(at);
    }
    if (p.kept.is_some()) p.kept.write(at, output);
    p.next.write(at, next);
    const T input = from_float<T>(next * c.read(INPUT));
    p.next_input.write(i, input);
    if (p.guided) p.next_input.write(count + i, input);
}

// A value as picture::to_pictures has it: rounded to nearest, ties to even.
DEVICE uint32_t to_byte(float x) { return static_cast<uint32_t>(rintf(fminf(fmaxf(x * 0.5f + 0.5f, 0.f), 1.f) * 255.f)); }

template <typename T>
DEVICE void to_bytes(const BytesParams<T>& p) {
    const int64_t i = 8 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    if (i + 8 <= p.count) {
        float values[8];
        unpack<T>(values, p.x.template read_as<uint4>(i));
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (int k = 0; k < 8; k++) words[k / 4] |= to_byte(values[k]) << 8 * (k % 4);
        p.out.template write_as<uint2>(i, uint2{words[0], words[1]});
    } else {
        for (int64_t k = i; k < p.count; k++) {
            p.out.write(k, static_cast<uint8_t>(to_byte(to_float(p.x.read(k)))));
        }
    }
}

}  // namespace denoise

#define DENOISE(T)                                                                                                     \
    KERNEL(timestep_embedding_##T, TimestepParams<T>, denoise::THREADS, 4) { denoise::timestep_embedding<T>(p); }      \
    KERNEL(guided_step_##T, GuidedStepParams<T>, denoise::THREADS, 4) { denoise::guided_step<T>(p); }                  \
    KERNEL(to_bytes_##T, BytesParams<T>, denoise::THREADS, 4) { denoise::to_bytes<T>(p); }

DENOISE(f16)
DENOISE(bf16)
