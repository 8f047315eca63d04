// Converts a decoded image to 8 bits.
#include "device.cuh"

// Matches `ToBytesParams` in src/cuda/launch/to_bytes.rs.
template <typename T>
struct ToBytesParams {
    // −1 to 1
    Global<const T> x;
    // 0 to 255
    Global<uint8_t> out;
    int64_t count;
};

namespace to_bytes {

constexpr int THREADS = 256;

// Converts a value from −1 to 1 to a byte: rounded to nearest, ties to even.
DEVICE uint32_t to_byte(float x) { return static_cast<uint32_t>(rintf(fminf(fmaxf(x * 0.5f + 0.5f, 0.f), 1.f) * 255.f)); }

template <typename T>
DEVICE void run(const ToBytesParams<T>& p) {
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

}  // namespace to_bytes

#define TO_BYTES(T)                                                                                                    \
    KERNEL(to_bytes_##T, ToBytesParams<T>, to_bytes::THREADS, 4) { to_bytes::run<T>(p); }

TO_BYTES(f16)
TO_BYTES(bf16)
