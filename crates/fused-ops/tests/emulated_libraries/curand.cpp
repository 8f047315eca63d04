// Implements libcurand.so.10 without a GPU: candle creates a generator for every device, but this project draws noise
// on the host.
#include "device.hpp"

#define API extern "C" __attribute__((visibility("default"))) int

API curandCreateGenerator(void** generator, int) {
    *generator = generator;
    return 0;
}
API curandDestroyGenerator(void*) { return 0; }
API curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return 0; }
API curandSetStream(void*, void*) { return 0; }
API curandGenerateNormal(void*, float*, size_t, float, float) { device::fail("noise is drawn on the device"); }
API curandGenerateNormalDouble(void*, double*, size_t, double, double) { device::fail("noise is drawn on the device"); }
API curandGenerateUniform(void*, float*, size_t) { device::fail("noise is drawn on the device"); }
API curandGenerateUniformDouble(void*, double*, size_t) { device::fail("noise is drawn on the device"); }
