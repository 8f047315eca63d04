// Implements libcublas.so.13 without a GPU: the products that candle uses.
#include <algorithm>
#include <vector>

#include "device.hpp"
#include "numbers.hpp"

using numbers::Type, numbers::read, numbers::size_of, numbers::write;

namespace {

constexpr int COMPUTE_F16 = 64;

Type type_of(int code) {
    switch (code) {
        case 0: return Type::F32;
        case 1: return Type::F64;
        case 2: return Type::F16;
        case 14: return Type::Bf16;
        default: device::fail("a product of the type %d", code);
    }
}

/// The matrices of successive products, column-major, or row-major if `transposed`.
struct Matrix {
    unsigned char* begin;
    Type type;
    size_t stride;
    bool transposed;
    long long batch_stride;

    /// The first value of one of them, with this many rows and columns.
    unsigned char* first(int batch, size_t rows, size_t columns) const {
        auto* first = begin + batch * batch_stride * static_cast<long long>(size_of(type));
        const size_t length = transposed ? (rows - 1) * stride + columns : (columns - 1) * stride + rows;
        if (device::bytes_from(first) < length * size_of(type)) device::fail("a matrix reaches past the end of memory");
        return first;
    }

    size_t place(size_t row, size_t column) const { return transposed ? row * stride + column : column * stride + row; }

    /// The values of one of them, row by row.
    std::vector<float> values(int batch, size_t rows, size_t columns) const {
        const auto* begin = first(batch, rows, columns);
        std::vector<float> values(rows * columns);
        for (size_t i = 0; i < rows * columns; i++) {
            values[i] = static_cast<float>(read(begin + size_of(type) * place(i / columns, i % columns), type));
        }
        return values;
    }
};

int product(size_t rows, size_t columns, size_t depth, double alpha, Matrix a, Matrix b, double beta, Matrix c, int batch) {
    device::submit([=] {
        for (int i = 0; i < batch; i++) {
            const std::vector<float> left = a.values(i, rows, depth), right = b.values(i, depth, columns);
            auto* target = c.first(i, rows, columns);
            std::vector<float> sums(columns);
            for (size_t row = 0; row < rows; row++) {
                std::fill(sums.begin(), sums.end(), 0.f);
                for (size_t k = 0; k < depth; k++) {
                    const float factor = left[row * depth + k];
                    for (size_t column = 0; column < columns; column++) sums[column] += factor * right[k * columns + column];
                }
                for (size_t column = 0; column < columns; column++) {
                    auto* value = target + c.place(row, column) * size_of(c.type);
                    const double before = beta == 0 ? 0 : beta * read(value, c.type);
                    write(value, c.type, alpha * static_cast<double>(sums[column]) + before);
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
                               const void* alpha, void* a, int type_a, int stride_a, long long batch_stride_a, void* b,
                               int type_b, int stride_b, long long batch_stride_b, const void* beta, void* c, int type_c,
                               int stride_c, long long batch_stride_c, int batch, int compute, int) {
    const Type scale = compute == COMPUTE_F16 ? Type::F16 : Type::F32;
    const auto size = [](int count) { return static_cast<size_t>(count); };
    const auto matrix = [&](void* begin, int type, int stride, int transposed, long long batch_stride) {
        return Matrix{static_cast<unsigned char*>(begin), type_of(type), size(stride), transposed != 0, batch_stride};
    };
    return product(size(rows), size(columns), size(depth), read(alpha, scale),
                   matrix(a, type_a, stride_a, transposed_a, batch_stride_a),
                   matrix(b, type_b, stride_b, transposed_b, batch_stride_b), read(beta, scale),
                   matrix(c, type_c, stride_c, 0, batch_stride_c), batch);
}

API cublasDgemmStridedBatched(void*, int, int, int, int, int, const double*, const double*, int, long long,
                              const double*, int, long long, const double*, double*, int, long long, int) {
    device::fail("a product in f64");
}
