// Converts numbers of every tensor type, as candle's kernels and cuBLAS's products read and round them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace numbers {

enum class Type { F16, Bf16, F32, F64, U8, U32, I32, I64 };

inline size_t size_of(Type type) {
    switch (type) {
        case Type::U8: return 1;
        case Type::F16:
        case Type::Bf16: return 2;
        case Type::F32:
        case Type::U32:
        case Type::I32: return 4;
        default: return 8;
    }
}

inline double read(const void* address, Type type) {
    switch (type) {
        case Type::F16: return static_cast<double>(*static_cast<const _Float16*>(address));
        case Type::Bf16: {
            uint32_t bits = static_cast<uint32_t>(*static_cast<const uint16_t*>(address)) << 16;
            float value;
            memcpy(&value, &bits, 4);
            return value;
        }
        case Type::F32: return *static_cast<const float*>(address);
        case Type::F64: return *static_cast<const double*>(address);
        case Type::U8: return *static_cast<const uint8_t*>(address);
        case Type::U32: return *static_cast<const uint32_t*>(address);
        case Type::I32: return *static_cast<const int32_t*>(address);
        default: return static_cast<double>(*static_cast<const int64_t*>(address));
    }
}

inline void write(void* address, Type type, double value) {
    switch (type) {
        case Type::F16: *static_cast<_Float16*>(address) = static_cast<_Float16>(static_cast<float>(value)); break;
        case Type::Bf16: {
            float rounded = static_cast<float>(value);
            uint32_t bits;
            memcpy(&bits, &rounded, 4);
            // To nearest, ties to even.
            bits += std::isnan(rounded) ? 0 : 0x7fff + (bits >> 16 & 1);
            *static_cast<uint16_t*>(address) = static_cast<uint16_t>(bits >> 16);
            break;
        }
        case Type::F32: *static_cast<float*>(address) = static_cast<float>(value); break;
        case Type::F64: *static_cast<double*>(address) = value; break;
        case Type::U8: *static_cast<uint8_t*>(address) = static_cast<uint8_t>(value); break;
        case Type::U32: *static_cast<uint32_t*>(address) = static_cast<uint32_t>(value); break;
        case Type::I32: *static_cast<int32_t*>(address) = static_cast<int32_t>(value); break;
        default: *static_cast<int64_t*>(address) = static_cast<int64_t>(value);
    }
}

}  // namespace numbers
