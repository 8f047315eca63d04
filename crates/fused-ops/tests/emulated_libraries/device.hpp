// Defines an emulated GPU: its memory, and the order of its work. See driver.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace device {

/// Ends the program: even what a driver cannot detect is an error here.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Runs the work now, or records it if this thread's stream is being captured.
__attribute__((visibility("default"))) void submit(std::function<void()> work);

/// The bytes from this address to the end of its allocation. Fails if it lies in none.
__attribute__((visibility("default"))) size_t bytes_from(const void* address);

/// The candle kernel of this name, with these arguments.
std::function<void()> candle_kernel(const char* name, void** arguments);

}  // namespace device
