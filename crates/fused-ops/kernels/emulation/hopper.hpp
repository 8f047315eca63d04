// Implements the products of hopper.cuh on the host: as late as possible, when they are waited for.
#pragma once

#include <utility>
#include <vector>

namespace emulation {
/// The address of the 16 bytes that contain b's value at row `k` and column `n`, and its index in them.
inline std::pair<size_t, int> operand_place(uint64_t descriptor, bool transposed, int k, int n) {
    const auto field = [&](int bit) { return static_cast<size_t>(descriptor >> bit & 0x3fff) * 16; };
    const size_t matrix = field(0) + static_cast<size_t>(k / 8) * field(16) + static_cast<size_t>(n / 8) * field(32);
    return transposed ? std::pair(matrix + static_cast<size_t>(k % 8) * 16, n % 8)
                      : std::pair(matrix + static_cast<size_t>(n % 8) * 16, k % 8);
}

inline void same_products(void** operands) {
    auto* first = static_cast<PendingProduct*>(operands[0]);
    for (unsigned lane = 1; lane < WARP; lane++) {
        auto* other = static_cast<PendingProduct*>(operands[lane]);
        if (other->descriptor != first->descriptor || other->add != first->add) {
            fail("a product of a warpgroup whose lanes do not agree");
        }
    }
}

/// Computes the warp's pending products.
inline void finish_products(void** operands) {
    const auto of = [&](unsigned lane) -> std::vector<PendingProduct>& {
        return *static_cast<std::vector<PendingProduct>*>(operands[lane]);
    };
    for (size_t i = 0; i < of(0).size(); i++) {
        const PendingProduct& first = of(0)[i];
        std::vector<float> b(static_cast<size_t>(16 * first.columns));
        for (int k = 0; k < 16; k++) {
            for (int n = 0; n < first.columns; n++) {
                const auto [place, which] = operand_place(first.descriptor, first.transposed, k, n);
                uint16_t bits;
                memcpy(&bits, shared_memory() + place + 2 * static_cast<size_t>(which), 2);
                b[static_cast<size_t>(k * first.columns + n)] = first.half(bits, 0);
            }
        }
        float a[16][16];
        for (unsigned lane = 0; lane < WARP; lane++) {
            const PendingProduct& mine = of(lane)[i];
            if (memcmp(mine.a, mine.a_then, sizeof mine.a_then) != 0) {
                fail("the registers of a product were written before it was waited for");
            }
            const unsigned g = lane / 4, t = lane % 4 * 2;
            for (unsigned half = 0; half < 4; half++) {
                for (unsigned which = 0; which < 2; which++) {
                    a[g + half % 2 * 8][t + half / 2 * 8 + which] = mine.half(mine.a[half], static_cast<int>(which));
                }
            }
        }
        for (unsigned lane = 0; lane < WARP; lane++) {
            PendingProduct& mine = of(lane)[i];
            if (!mine.start.empty()) std::copy(mine.start.begin(), mine.start.end(), mine.sum);
            for (int j = 0; j < mine.columns / 2; j++) {
                const unsigned row = lane / 4 + static_cast<unsigned>(j % 4 / 2 * 8);
                const int column = j / 4 * 8 + static_cast<int>(lane % 4 * 2) + j % 2;
                float sum = mine.add ? mine.sum[j] : 0.f;
                for (int k = 0; k < 16; k++) sum += a[row][k] * b[static_cast<size_t>(k * mine.columns + column)];
                mine.sum[j] = sum;
            }
        }
    }
    for (unsigned lane = 0; lane < WARP; lane++) of(lane).clear();
}
}  // namespace emulation

#define HOPPER 1
#define HOPPER_ONLY(...) __VA_ARGS__

template <typename T>
uint64_t matrix_descriptor(Shared<T> begin, int along, int across) {
    const auto field = [](size_t bytes) {
        if (bytes % 16 != 0 || bytes >= size_t{1} << 18) emulation::fail("%zu bytes in a matrix's description", bytes);
        return static_cast<uint64_t>(bytes / 16);
    };
    const auto* at = reinterpret_cast<const unsigned char*>(begin.begin);
    return field(static_cast<size_t>(at - emulation::shared_memory())) | field(static_cast<size_t>(along)) << 16 |
           field(static_cast<size_t>(across)) << 32;
}

inline void publish_to_products() { emulation::publish_to_products(); }
template <int COUNT>
void products_begin(float (&)[COUNT][4]) {
    emulation::warp_products().begun = true;
}
inline void products_commit() {
    auto& products = emulation::warp_products();
    products.begun = false;
    products.committed = products.pending.size();
}
template <int COUNT>
void products_wait(float (&)[COUNT][4]) {
    auto& products = emulation::warp_products();
    if (products.committed != products.pending.size()) emulation::fail("a wait for products that were not committed");
    emulation::warp_operation("a wait for products", ALL_LANES, &products.pending, emulation::finish_products);
    products.committed = 0;
}

template <typename T, bool transposed, int COUNT>
void warpgroup_multiply(float (&sum)[COUNT][4], const uint32_t (&a)[4], uint64_t b, bool add) {
    auto& products = emulation::warp_products();
    if (!products.begun) emulation::fail("a product of a warpgroup without products_begin before it");
    emulation::PendingProduct product = {&sum[0][0], 8 * COUNT, a, {}, b, transposed, add, {}, emulation::half_of<T>};
    memcpy(product.a_then, a, sizeof product.a_then);
    const auto is_same = [&](const emulation::PendingProduct& other) { return other.sum == product.sum; };
    if (std::none_of(products.pending.begin(), products.pending.end(), is_same)) {
        product.start.assign(product.sum, product.sum + 4 * COUNT);
        // It must not be read before the wait.
        std::fill(product.sum, product.sum + 4 * COUNT, std::nanf(""));
    }
    emulation::warp_operation("a product of a warpgroup", ALL_LANES, &product, emulation::same_products);
    for (int row = 0; row < (transposed ? 16 : 8 * COUNT); row++) {
        for (int group = 0; group < (transposed ? COUNT : 2); group++) {
            const int k = transposed ? row : 8 * group, n = transposed ? 8 * group : row;
            emulation::check_product_operand(emulation::operand_place(b, transposed, k, n).first);
        }
    }
    products.pending.push_back(product);
}
