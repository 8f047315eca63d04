// Computes group normalisation (Wu & He, arXiv 1803.08494) of channels-last images, optionally with a timestep's
// shift before it and SiLU after it.
//
// A group's statistics need the whole image, so there are two passes. Both give each block a chunk of contiguous
// pixels, and read 16 bytes per thread: reading by group, 10 channels of 320 per pixel, would use 20 of every 32 or
// 64 bytes fetched. The second pass finds the image in the L2 cache, if it fits.
//
// The lower bound is 3 · 2 bytes per value, of which 4 come from or go to memory if the image stays in the cache. The
// kernel needs few registers, and 8 blocks of 256 threads fit on a multiprocessor unless shared memory limits them: 8
// bytes per channel and concurrently read pixel (at most 16 KiB for up to 2 048 channels).
#include "device.cuh"

// Matches `GroupNormParams` in src/cuda/launch/group_norm.rs.
template <typename T>
struct GroupNormParams {
    // (batch, pixels, channels)
    Global<const T> x;
    // (channels)
    Global<const T> weight, bias;
    // (batch, channels), added to x first; or none.
    Global<const T> shift;
    // (batch, chunks, groups): the mean, and the sum of squared differences from it.
    Global<float2> partial;
    Global<T> out;
    int pixels, channels, groups;
    // The pixels of a chunk; the last one may have fewer.
    int chunk;
    float eps;
    int silu;
};

namespace group_norm {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// First pass: the statistics of each group in a chunk.
template <typename T>
DEVICE void statistics(const GroupNormParams<T>& p) {
    const int batch = blockIdx.y, first = blockIdx.x * p.chunk, pixels = min(p.chunk, p.pixels - first);
    const int vectors = p.channels / 8, group_size = p.channels / p.groups;
    // The number of pixels read at once, and this thread's one among them.
    const int places = vectors < THREADS ? THREADS / vectors : 1;
    const int place = vectors < THREADS ? threadIdx.x / vectors : 0;
    const Global<const T> x = p.x.at((static_cast<int64_t>(batch) * p.pixels + first) * p.channels);
    const Global<const T> shift = p.shift.is_some() ? p.shift.at(static_cast<int64_t>(batch) * p.channels) : p.shift;

    const auto shift_of = [&](int channel) { return shift.is_some() ? to_float(shift.read(channel)) : 0.f; };
    // Sums of differences from one value of the group, here its first, stay accurate if the mean is far from 0.
    const auto pivot = [&](int group) { return to_float(x.read(group * group_size)) + shift_of(group * group_size); };

    // (places, channels): the sums of the differences and of their squares.
    const Shared<float2> sums = dynamic_shared<float2>(0);
    if (place < places) {
        for (int vector = threadIdx.x - place * vectors; vector < vectors; vector += THREADS) {
            float sum[8] = {}, square[8] = {}, origin[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int channel = 8 * vector + i;
                origin[i] = pivot(channel / group_size) - shift_of(channel);
            }
#pragma unroll 4
            for (int pixel = place; pixel < pixels; pixel += places) {
                float values[8];
                unpack<T>(values, x.template read_as<uint4>(static_cast<int64_t>(pixel) * p.channels + 8 * vector));
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const float difference = values[i] - origin[i];
                    sum[i] += difference;
                    square[i] += difference * difference;
                }
            }
#pragma unroll
            for (int i = 0; i < 8; i++) sums.write(place * p.channels + 8 * vector + i, float2{sum[i], square[i]});
        }
    }
    block_barrier();

    const int lane = threadIdx.x % 32;
    for (int group = threadIdx.x / 32; group < p.groups; group += WARPS) {
        float sum = 0.f, square = 0.f;
        for (int i = lane; i < places * group_size; i += 32) {
            const float2 found = sums.read(i / group_size * p.channels + group * group_size + i % group_size);
            sum += found.x;
            square += found.y;
        }
        sum = warp_sum(sum);
        square = warp_sum(square);
        if (lane == 0) {
            const float mean = sum / (pixels * group_size);
            p.partial.write((static_cast<int64_t>(batch) * gridDim.x + blockIdx.x) * p.groups + group,
                            float2{pivot(group) + mean, square - sum * mean});
        }
    }
}

// Second pass. Each block first combines the chunks' statistics (Chan et al. 1979): it reads a few KiB from the
// cache, and this saves a launch.
template <typename T>
DEVICE void normalise(const GroupNormParams<T>& p) {
    const int batch = blockIdx.y, first = blockIdx.x * p.chunk, pixels = min(p.chunk, p.pixels - first);
    const int vectors = p.channels / 8, group_size = p.channels / p.groups;
    const Global<const float2> partial = {p.partial.at(static_cast<int64_t>(batch) * gridDim.x * p.groups).begin};
    const Global<const T> shift = p.shift.is_some() ? p.shift.at(static_cast<int64_t>(batch) * p.channels) : p.shift;

    // (channels): the factor and the offset for each value.
    const Shared<float2> factors = dynamic_shared<float2>(0);
    const int lane = threadIdx.x % 32, chunks = gridDim.x;
    for (int group = threadIdx.x / 32; group < p.groups; group += WARPS) {
        const auto pixels_of = [&](int chunk) { return static_cast<float>(min(p.chunk, p.pixels - chunk * p.chunk)); };
        float mean = 0.f;
        for (int chunk = lane; chunk < chunks; chunk += 32) {
            mean += partial.read(static_cast<int64_t>(chunk) * p.groups + group).x * pixels_of(chunk);
        }
        mean = warp_sum(mean) / p.pixels;
        float square = 0.f;
        for (int chunk = lane; chunk < chunks; chunk += 32) {
            const float2 found = partial.read(static_cast<int64_t>(chunk) * p.groups + group);
            square += found.y + (found.x - mean) * (found.x - mean) * pixels_of(chunk) * group_size;
        }
        const float variance = warp_sum(square) / (static_cast<float>(p.pixels) * group_size);
        const float factor = reciprocal_root(variance + p.eps);
        for (int channel = group * group_size + lane; channel < (group + 1) * group_size; channel += 32) {
            const float scale = to_float(p.weight.read(channel)) * factor;
            const float moved = (shift.is_some() ? to_float(shift.read(channel)) : 0.f) - mean;
            factors.write(channel, float2{scale, to_float(p.bias.read(channel)) + moved * scale});
        }
    }
    block_barrier();

    const int64_t begin = (static_cast<int64_t>(batch) * p.pixels + first) * p.channels;
    for (int i = threadIdx.x; i < pixels * vectors; i += THREADS) {
        const int channel = i % vectors * 8;
        float values[8];
        unpack<T>(values, p.x.template read_as<uint4>(begin + 8 * static_cast<int64_t>(i)));
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float2 factor = factors.read(channel + k);
            values[k] = values[k] * factor.x + factor.y;
            if (p.silu) values[k] = divide_fast(values[k], 1.f + exp2_fast(-LOG2_E * values[k]));
        }
        p.out.template write_as<uint4>(begin + 8 * static_cast<int64_t>(i), pack<T>(values));
    }
}

}  // namespace group_norm

#define GROUP_NORM(T)                                                                                                  \
    KERNEL(group_norm_statistics_##T, GroupNormParams<T>, group_norm::THREADS, 4) { group_norm::statistics<T>(p); }    \
    KERNEL(group_norm_##T, GroupNormParams<T>, group_norm::THREADS, 4) { group_norm::normalise<T>(p); }

GROUP_NORM(f16)
GROUP_NORM(bf16)
