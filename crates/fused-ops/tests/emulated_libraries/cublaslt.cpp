// Implements libcublasLt.so.13 without a GPU: column-major products of two f16 or bf16 matrices, plus another matrix
// and a bias. There is one algorithm, which requests some workspace.
#include <cstring>
#include <vector>

#include "device.hpp"
#include "numbers.hpp"

using numbers::Type, numbers::read, numbers::size_of, numbers::write;

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15;
// As in cublasLt.h.
constexpr int TRANSA = 3, EPILOGUE = 7, BIAS_POINTER = 8, EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4;
constexpr int MAX_WORKSPACE = 1, REDUCTION_SCHEMES = 3, ALIGNMENT_A = 5, ALIGNMENT_D = 8;
constexpr int COMPUTE_32F = 68, R_32F = 0, R_16F = 2, R_16BF = 14;

constexpr size_t WORKSPACE_BYTES = 100;

struct Layout {
    Type type;
    size_t rows, columns;
    long long stride;

    size_t bytes() const {
        return ((columns - 1) * static_cast<size_t>(stride) + rows) * size_of(type);
    }
};

struct Description {
    bool transposed = false;
    int epilogue = EPILOGUE_DEFAULT;
    unsigned char* bias = nullptr;
};

struct Preference {
    size_t workspace = 0;
    unsigned schemes = 7;
    unsigned alignments[4] = {256, 256, 256, 256};
};

/// `cublasLtMatmulHeuristicResult_t`
struct Found {
    unsigned long long algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

/// The content of the only algorithm: that it was chosen, and for which alignments.
constexpr unsigned long long CHOSEN = 0x616c676f;

unsigned char* checked(const void* address, size_t bytes, unsigned long long alignment) {
    if (reinterpret_cast<uintptr_t>(address) % alignment) device::fail("a matrix of cuBLASLt's is not aligned as it was said to be");
    if (device::bytes_from(address) < bytes) device::fail("a matrix of cuBLASLt's reaches past the end of memory");
    return static_cast<unsigned char*>(const_cast<void*>(address));
}

std::vector<float> values(const void* begin, const Layout& layout, unsigned long long alignment) {
    const auto* from = checked(begin, layout.bytes(), alignment);
    std::vector<float> values(layout.rows * layout.columns);
    for (size_t i = 0; i < values.size(); i++) {
        const size_t place = i / layout.rows * static_cast<size_t>(layout.stride) + i % layout.rows;
        values[i] = static_cast<float>(read(from + place * size_of(layout.type), layout.type));
    }
    return values;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cublasLtCreate(void** handle) {
    *handle = new char;
    return SUCCESS;
}
API cublasLtDestroy(void* handle) {
    delete static_cast<char*>(handle);
    return SUCCESS;
}
API cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if ((type != R_16F && type != R_16BF) || stride < static_cast<int64_t>(rows)) return INVALID_VALUE;
    *layout = new Layout{type == R_16F ? Type::F16 : Type::Bf16, rows, columns, stride};
    return SUCCESS;
}
API cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return SUCCESS;
}
API cublasLtMatmulDescCreate(Description** description, int compute, int scale) {
    if (compute != COMPUTE_32F || scale != R_32F) return INVALID_VALUE;
    *description = new Description;
    return SUCCESS;
}
API cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return SUCCESS;
}
API cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t bytes) {
    if (attribute == BIAS_POINTER && bytes == 8) {
        memcpy(&description->bias, value, 8);
    } else if (bytes == 4 && (attribute == TRANSA || attribute == EPILOGUE)) {
        int number;
        memcpy(&number, value, 4);
        attribute == TRANSA ? void(description->transposed = number) : void(description->epilogue = number);
    } else {
        return INVALID_VALUE;
    }
    return SUCCESS;
}
API cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return SUCCESS;
}
API cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return SUCCESS;
}
API cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t bytes) {
    if (attribute == MAX_WORKSPACE && bytes == 8) {
        memcpy(&preference->workspace, value, 8);
    } else if (attribute == REDUCTION_SCHEMES && bytes == 4) {
        memcpy(&preference->schemes, value, 4);
    } else if (attribute >= ALIGNMENT_A && attribute <= ALIGNMENT_D && bytes == 4) {
        memcpy(&preference->alignments[attribute - ALIGNMENT_A], value, 4);
    } else {
        return INVALID_VALUE;
    }
    return SUCCESS;
}
API cublasLtMatmulAlgoGetHeuristic(void*, Description* description, Layout* a, Layout* b, Layout* c, Layout* d,
                                   Preference* preference, int room, Found* found, int* count) {
    const size_t depth = description->transposed ? a->rows : a->columns;
    const size_t rows = description->transposed ? a->columns : a->rows;
    const bool fits = depth == b->rows && d->rows == rows && d->columns == b->columns && c->rows == d->rows &&
                      c->columns == d->columns;
    if (!fits || room < 1) return INVALID_VALUE;
    // Sums in f16, or in varying order, are not allowed.
    if (preference->workspace < WORKSPACE_BYTES || preference->schemes != 2) return NOT_SUPPORTED;
    *found = Found{{CHOSEN}, WORKSPACE_BYTES, SUCCESS, 1.f, {}};
    for (int i = 0; i < 4; i++) found->algorithm[1 + i] = preference->alignments[i];
    *count = 1;
    return SUCCESS;
}
API cublasLtMatmul(void*, Description* description, const float* alpha, const void* a, Layout* a_layout, const void* b,
                   Layout* b_layout, const float* beta, const void* c, Layout* c_layout, void* d, Layout* d_layout,
                   const unsigned long long* algorithm, void* workspace, size_t workspace_bytes, void*) {
    if (algorithm[0] != CHOSEN || workspace_bytes < WORKSPACE_BYTES || !description->transposed) return INVALID_VALUE;
    const std::vector<unsigned long long> alignments(algorithm + 1, algorithm + 5);
    device::submit([=, what = *description, at = *a_layout, bt = *b_layout, ct = *c_layout, dt = *d_layout, alpha = *alpha,
                    beta = *beta] {
        memset(checked(workspace, WORKSPACE_BYTES, 16), 0xff, WORKSPACE_BYTES);
        const auto left = values(a, at, alignments[0]), right = values(b, bt, alignments[1]);
        // It is not read if it is multiplied by zero.
        const auto before = beta == 0 ? std::vector<float>(dt.rows * dt.columns) : values(c, ct, alignments[2]);
        const auto bias = what.epilogue == EPILOGUE_BIAS
                              ? values(what.bias, Layout{dt.type, dt.rows, 1, static_cast<long long>(dt.rows)}, 16)
                              : std::vector<float>(dt.rows);
        auto* out = checked(d, dt.bytes(), alignments[3]);
        for (size_t column = 0; column < dt.columns; column++) {
            for (size_t row = 0; row < dt.rows; row++) {
                double sum = 0;
                const float *x = &left[row * at.rows], *y = &right[column * bt.rows];
                for (size_t k = 0; k < bt.rows; k++) sum += static_cast<double>(x[k]) * static_cast<double>(y[k]);
                const double value = static_cast<double>(alpha) * sum + static_cast<double>(beta * before[column * dt.rows + row]) +
                                     static_cast<double>(bias[row]);
                const size_t place = column * static_cast<size_t>(dt.stride) + row;
                write(out + place * size_of(dt.type), dt.type, value);
            }
        }
    });
    return SUCCESS;
}
