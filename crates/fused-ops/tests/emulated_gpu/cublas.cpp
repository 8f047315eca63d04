// libcublas.so.13 for a machine without a GPU: the products that candle asks for.
#include <cstring>
#include <vector>

#include "device.hpp"

namespace {

constexpr int F32 = 0, F64 = 1, F16 = 2, BF16 = 14;
constexpr int COMPUTE_F16 = 64;

size_t size_of(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

double read(const void* values, int type, size_t i) {
    switch (type) {
        case F64: return static_cast<const double*>(values)[i];
        case F32: return static_cast<const float*>(values)[i];
        case F16: return static_cast<double>(static_cast<const _Float16*>(values)[i]);
        case BF16: {
            uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(values)[i]) << 16;
            float value;
            memcpy(&value, &bits, 4);
            return value;
        }
        default: device::fail("a product of the type %d", type);
    }
}

void write(void* values, int type, size_t i, double value) {
    switch (type) {
        case F64: static_cast<double*>(values)[i] = value; break;
        case F32: static_cast<float*>(values)[i] = static_cast<float>(value); break;
        case F16: static_cast<_Float16*>(values)[i] = static_cast<_Float16>(static_cast<float>(value)); break;
        case BF16: {
            float rounded = static_cast<float>(value);
            uint32_t bits;
            memcpy(&bits, &rounded, 4);
            static_cast<uint16_t*>(values)[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
            break;
        }
        default: device::fail("a product of the type %d", type);
    }
}

struct Matrix {
    unsigned char* begin;
    int type, stride;
    bool transposed;
    long long batch_stride;

    /// Its values of one product, (rows, columns), by rows.
    std::vector<float> values(int batch, int rows, int columns) const {
        const auto* first = begin + static_cast<size_t>(batch * batch_stride) * size_of(type);
        const size_t length = static_cast<size_t>(transposed ? rows - 1 : columns - 1) * static_cast<size_t>(stride) +
                              static_cast<size_t>(transposed ? columns : rows);
        if (device::bytes_from(first) < length * size_of(type)) device::fail("a factor past the end of memory");
        std::vector<float> values(static_cast<size_t>(rows) * static_cast<size_t>(columns));
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                const int major = transposed ? row : column, minor = transposed ? column : row;
                values[static_cast<size_t>(row) * static_cast<size_t>(columns) + static_cast<size_t>(column)] =
                    static_cast<float>(read(first, type, static_cast<size_t>(major) * static_cast<size_t>(stride) + static_cast<size_t>(minor)));
            }
        }
        return values;
    }
};

int product(int rows, int columns, int depth, double alpha, Matrix a, Matrix b, double beta, Matrix c, int batch) {
    device::submit([=] {
        for (int i = 0; i < batch; i++) {
            const std::vector<float> left = a.values(i, rows, depth), right = b.values(i, depth, columns);
            auto* target = c.begin + static_cast<size_t>(i * c.batch_stride) * size_of(c.type);
            const size_t length = static_cast<size_t>(columns - 1) * static_cast<size_t>(c.stride) + static_cast<size_t>(rows);
            if (device::bytes_from(target) < length * size_of(c.type)) device::fail("a product past the end of memory");
            std::vector<float> sums(static_cast<size_t>(columns));
            for (int row = 0; row < rows; row++) {
                std::fill(sums.begin(), sums.end(), 0.f);
                for (int k = 0; k < depth; k++) {
                    const float factor = left[static_cast<size_t>(row) * static_cast<size_t>(depth) + static_cast<size_t>(k)];
                    const float* others = &right[static_cast<size_t>(k) * static_cast<size_t>(columns)];
                    for (int column = 0; column < columns; column++) sums[static_cast<size_t>(column)] += factor * others[column];
                }
                for (int column = 0; column < columns; column++) {
                    const size_t at = static_cast<size_t>(column) * static_cast<size_t>(c.stride) + static_cast<size_t>(row);
                    const double before = beta == 0 ? 0 : beta * read(target, c.type, at);
                    write(target, c.type, at, alpha * sums[static_cast<size_t>(column)] + before);
                }
            }
        }
    });
    return 0;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cublasCreate_v2(void** handle) {
    *handle = handle;
    return 0;
}
API cublasDestroy_v2(void*) { return 0; }
API cublasSetStream_v2(void*, void*) { return 0; }

API cublasGemmStridedBatchedEx(void*, int transposed_a, int transposed_b, int rows, int columns, int depth,
                               const void* alpha, const void* a, int type_a, int stride_a, long long batch_stride_a,
                               const void* b, int type_b, int stride_b, long long batch_stride_b, const void* beta,
                               void* c, int type_c, int stride_c, long long batch_stride_c, int batch, int compute, int) {
    const int scale = compute == COMPUTE_F16 ? F16 : F32;
    auto bytes = [](const void* address) { return static_cast<unsigned char*>(const_cast<void*>(address)); };
    return product(rows, columns, depth, read(alpha, scale, 0),
                   {bytes(a), type_a, stride_a, transposed_a != 0, batch_stride_a},
                   {bytes(b), type_b, stride_b, transposed_b != 0, batch_stride_b}, read(beta, scale, 0),
                   {bytes(c), type_c, stride_c, false, batch_stride_c}, batch);
}

API cublasDgemmStridedBatched(void*, int, int, int, int, int, const double*, const double*, int, long long,
                              const double*, int, long long, const double*, double*, int, long long, int) {
    device::fail("a product in f64");
}
