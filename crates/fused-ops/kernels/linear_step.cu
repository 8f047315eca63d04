// Computes classifier-free guidance and the scheduler's update in one pass.
//
// It accesses little memory (a latent of 64 × 64 × 4 is 64 KiB in f32). What matters is that it is a single launch
// without input from the host: a step's coefficients are read from memory, where those of all steps can be stored
// before the first one.
#include "device.cuh"

// The positions of a step's coefficients: next = sample weight · sample + output weight · guided output + Σ history
// weights · history.
enum Coefficient { GUIDANCE, SAMPLE, OUTPUT, HISTORY, INPUT = HISTORY + 3 };

// Matches `LinearStepParams` in src/cuda/launch/linear_step.rs.
template <typename T>
struct LinearStepParams {
    // (2 · batch, pixels, channels), the half without the prompt first; or (batch, pixels, channels) if not `guided`.
    Global<const T> output;
    // (batch, channels, pixels), f32
    Global<const float> sample;
    // The guided outputs of previous steps in the sample's layout, newest first; or none.
    Global<const float> history[3];
    // In the order of Coefficient.
    Global<const float> coefficients;
    // (batch, channels, pixels), f32; may be the sample itself.
    Global<float> next;
    // The guided output of this step in the sample's layout, for later steps; or none.
    Global<float> kept;
    // The model's next input, in the output's shape.
    Global<T> next_input;
    int batch, pixels, channels;
    int guided;
};

namespace linear_step {

constexpr int THREADS = 256;

template <typename T>
DEVICE void run(const LinearStepParams<T>& p) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const int64_t count = static_cast<int64_t>(p.batch) * p.pixels * p.channels;
    if (i >= count) return;
    // `i` counts in the model's layout, channels last; samples have their channels one after the other.
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

}  // namespace linear_step

#define LINEAR_STEP(T)                                                                                                 \
    KERNEL(linear_step_##T, LinearStepParams<T>, linear_step::THREADS, 4) { linear_step::run<T>(p); }

LINEAR_STEP(f16)
LINEAR_STEP(bf16)
