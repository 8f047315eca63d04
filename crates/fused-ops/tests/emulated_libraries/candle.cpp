// Implements the candle kernels that this project launches, by name, on the host. They follow candle's sources;
// values are rounded to their type where those round them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "device.hpp"
#include "numbers.hpp"

using numbers::Type, numbers::read, numbers::size_of, numbers::write;

namespace {

Type type_of(const std::string& kernel, const std::string& name) {
    const std::pair<const char*, Type> types[] = {{"f16", Type::F16}, {"bf16", Type::Bf16}, {"f32", Type::F32},
                                                  {"f64", Type::F64}, {"u8", Type::U8},     {"u32", Type::U32},
                                                  {"i32", Type::I32}, {"i64", Type::I64}};
    for (auto& [known, type] : types) {
        if (name == known) return type;
    }
    device::fail("the kernel %s of candle is not known", kernel.c_str());
}

/// An array in device memory.
struct Array {
    unsigned char* begin;
    Type type;
    size_t count;

    Array(void* address, Type type)
        : begin(static_cast<unsigned char*>(address)), type(type), count(device::bytes_from(address) / size_of(type)) {}

    unsigned char* at(size_t i) const {
        if (i >= count) device::fail("a kernel of candle reaches past the end of memory");
        return begin + i * size_of(type);
    }
    double operator[](size_t i) const { return read(at(i), type); }
    void set(size_t i, double value) const { write(at(i), type, value); }
};

template <typename T>
T argument(void** arguments, int i) {
    return *static_cast<T*>(arguments[i]);
}

/// The position of the i-th value of a tensor.
size_t place(size_t i, size_t dims_count, const size_t* dims, const size_t* strides) {
    size_t place = 0;
    for (size_t d = dims_count; d-- > 0;) {
        place += i % dims[d] * strides[d];
        i /= dims[d];
    }
    return place;
}

double unary(const std::string& name, const std::string& kernel, double x) {
    if (name == "ucopy") return x;
    if (name == "usilu") return x / (1 + exp(-x));
    if (name == "usigmoid") return 1 / (1 + exp(-x));
    if (name == "usqr") return x * x;
    if (name == "usqrt") return sqrt(x);
    if (name == "uneg") return -x;
    if (name == "uexp") return exp(x);
    if (name == "ulog") return log(x);
    if (name == "uabs") return fabs(x);
    if (name == "usin") return sin(x);
    if (name == "ucos") return cos(x);
    if (name == "utanh") return tanh(x);
    if (name == "urecip") return 1 / x;
    if (name == "ufloor") return floor(x);
    if (name == "uceil") return ceil(x);
    if (name == "uround") return round(x);
    if (name == "urelu") return fmax(x, 0);
    if (name == "ugelu_erf") return x * 0.5 * (1 + erf(x / sqrt(2.)));
    if (name == "ugelu") return 0.5 * x * (1 + tanh(sqrt(2. / M_PI) * (x + 0.044715 * x * x * x)));
    device::fail("the kernel %s of candle is not known", kernel.c_str());
}

double binary(const std::string& name, const std::string& kernel, double x, double y) {
    if (name == "badd") return x + y;
    if (name == "bsub") return x - y;
    if (name == "bmul") return x * y;
    if (name == "bdiv") return x / y;
    if (name == "bmaximum") return x > y || std::isnan(x) ? x : y;
    if (name == "bminimum") return x < y || std::isnan(x) ? x : y;
    if (name == "eq") return x == y;
    if (name == "ne") return x != y;
    if (name == "lt") return x < y;
    if (name == "le") return x <= y;
    if (name == "gt") return x > y;
    if (name == "ge") return x >= y;
    device::fail("the kernel %s of candle is not known", kernel.c_str());
}

bool is_comparison(const std::string& name) {
    return name == "eq" || name == "ne" || name == "lt" || name == "le" || name == "gt" || name == "ge";
}

}  // namespace

std::function<void()> device::candle_kernel(const char* name, void** arguments) {
    const std::string kernel = name;
    const size_t last = kernel.rfind('_');
    if (last == std::string::npos) fail("the kernel %s of candle is not known", name);
    const Type type = type_of(kernel, kernel.substr(last + 1));
    const std::string operation = kernel.substr(0, last);
    const auto size = [&](int i) { return argument<size_t>(arguments, i); };
    const auto pointer = [&](int i) { return argument<void*>(arguments, i); };

    if (operation == "copy2d") {
        auto *source = pointer(0), *target = pointer(1);
        const auto rows = argument<uint32_t>(arguments, 2), columns = argument<uint32_t>(arguments, 3),
                   source_stride = argument<uint32_t>(arguments, 4), target_stride = argument<uint32_t>(arguments, 5);
        return [=] {
            const Array from(source, type), to(target, type);
            for (size_t row = 0; row < rows; row++) {
                for (size_t column = 0; column < columns; column++) {
                    memcpy(to.at(row * target_stride + column), from.at(row * source_stride + column), size_of(type));
                }
            }
        };
    }
    if (operation == "fill") {
        auto* target = pointer(0);
        const double value = read(arguments[1], type);
        return [=, count = size(2)] {
            const Array to(target, type);
            for (size_t i = 0; i < count; i++) to.set(i, value);
        };
    }
    if (operation.rfind("is_", 0) == 0) {
        const Type index = type_of(kernel, operation.substr(3));
        auto *ids = pointer(3), *source = pointer(4), *target = pointer(5);
        // Both are contiguous.
        return [=, count = size(0), rows = size(7), chosen = size(8), width = size(9)] {
            const Array numbers(ids, index), from(source, type), to(target, type);
            for (size_t i = 0; i < count; i++) {
                const auto id = static_cast<size_t>(numbers[i / width % chosen]);
                if (id >= rows) device::fail("index_select of row %zu of %zu", id, rows);
                const size_t at = (i / (chosen * width) * rows + id) * width + i % width;
                memcpy(to.at(i), from.at(at), size_of(type));
            }
        };
    }
    if (operation == "fast_sum" || operation == "fast_max" || operation == "fast_min" || operation == "fast_sum_small") {
        auto *source = pointer(4), *target = pointer(5);
        const size_t each = size(1), results = operation == "fast_sum_small" ? size(0) : size(0) / each;
        return [=, rank = size(2), info = static_cast<size_t*>(pointer(3))] {
            const Array from(source, type), to(target, type);
            for (size_t result = 0; result < results; result++) {
                double value = operation == "fast_max" ? -INFINITY : operation == "fast_min" ? INFINITY : 0;
                for (size_t i = result * each; i < (result + 1) * each; i++) {
                    const double x = from[place(i, rank, info, info + rank)];
                    value = operation == "fast_max" ? fmax(value, x) : operation == "fast_min" ? fmin(value, x) : value + x;
                }
                to.set(result, value);
            }
        };
    }

    if (operation == "im2col") {
        const size_t count = size(0), height = size(1), width = size(2), kernel_height = size(3), kernel_width = size(4);
        const size_t stride = size(5), padding = size(6), dilation = size(7);
        return [=, info = static_cast<size_t*>(pointer(8)), source = pointer(9), target = pointer(10)] {
            const Array from(source, type), to(target, type);
            const size_t *dims = info, *strides = info + 4;  // (batch, channels, height, width)
            for (size_t i = 0; i < count; i++) {
                size_t rest = i;
                const auto next = [&rest](size_t size) {
                    const size_t digit = rest % size;
                    rest /= size;
                    return digit;
                };
                const size_t tap_x = next(kernel_width), tap_y = next(kernel_height), channel = next(dims[1]);
                const size_t x = next(width) * stride + tap_x * dilation, y = next(height) * stride + tap_y * dilation;
                const bool there = y >= padding && x >= padding && y - padding < dims[2] && x - padding < dims[3];
                to.set(i, there ? from[rest * strides[0] + channel * strides[1] + (y - padding) * strides[2] +
                                       (x - padding) * strides[3]]
                                : 0);
            }
        };
    }

    if (operation == "upsample_nearest2d") {
        const size_t height = size(0), width = size(1);
        const double scale_y = argument<double>(arguments, 2), scale_x = argument<double>(arguments, 3);
        return [=, info = static_cast<size_t*>(pointer(4)), source = pointer(5), target = pointer(6)] {
            const Array from(source, type), to(target, type);
            const size_t *dims = info, *strides = info + 4;  // (batch, channels, height, width)
            for (size_t i = 0; i < dims[0] * dims[1] * height * width; i++) {
                const size_t x = i % width, y = i / width % height, channel = i / (width * height);
                const auto near = [](size_t place, double scale, size_t size) {
                    return std::min(static_cast<size_t>(static_cast<double>(place) * scale), size - 1);
                };
                to.set(i, from[channel / dims[1] * strides[0] + channel % dims[1] * strides[1] +
                               near(y, scale_y, dims[2]) * strides[2] + near(x, scale_x, dims[3]) * strides[3]]);
            }
        };
    }

    // Elementwise kernels start with the number of values and their layout.
    const size_t count = size(0), rank = size(1);
    auto* info = static_cast<size_t*>(pointer(2));
    if (operation == "const_set") {
        const double value = read(arguments[3], type);
        return [=, target = pointer(4)] {
            const Array to(target, type);
            for (size_t i = 0; i < count; i++) to.set(info ? place(i, rank, info, info + rank) : i, value);
        };
    }
    if (operation == "affine") {
        const double factor = read(arguments[5], type), summand = read(arguments[6], type);
        return [=, source = pointer(3), target = pointer(4)] {
            const Array from(source ? source : target, type), to(target, type);
            for (size_t i = 0; i < count; i++) {
                to.set(i, from[source && info ? place(i, rank, info, info + rank) : i] * factor + summand);
            }
        };
    }
    if (operation.rfind("cast_", 0) == 0) {
        const Type given = type_of(kernel, operation.substr(5));
        return [=, source = pointer(3), target = pointer(4)] {
            const Array from(source, given), to(target, type);
            for (size_t i = 0; i < count; i++) to.set(i, from[info ? place(i, rank, info, info + rank) : i]);
        };
    }
    if (operation[0] == 'u') {
        unary(operation, kernel, 1);  // fails if there is no such operation
        return [=, source = pointer(3), target = pointer(4)] {
            const Array from(source ? source : target, type), to(target, type);
            for (size_t i = 0; i < count; i++) {
                to.set(i, unary(operation, kernel, from[source && info ? place(i, rank, info, info + rank) : i]));
            }
        };
    }
    binary(operation, kernel, 1, 1);  // fails if there is no such operation
    return [=, left = pointer(3), right = pointer(4), target = pointer(5)] {
        const Array lefts(left, type), rights(right, type), to(target, is_comparison(operation) ? Type::U8 : type);
        for (size_t i = 0; i < count; i++) {
            const size_t l = info ? place(i, rank, info, info + rank) : i;
            const size_t r = info ? place(i, rank, info, info + 2 * rank) : i;
            to.set(i, binary(operation, kernel, lefts[l], rights[r]));
        }
    };
}
