// A GPU that is not there: its memory, and the order of its work. See driver.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace device {

/// Ends the program: what a driver cannot know to be wrong is a mistake here all the same.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Does the work now, or records it where the stream of this thread is being captured.
__attribute__((visibility("default"))) void submit(std::function<void()> work);

/// The bytes from this address to the end of the allocation that it lies in. Fails if it lies in none.
__attribute__((visibility("default"))) size_t bytes_from(const void* address);

/// The kernel of candle that has this name, with these arguments.
std::function<void()> candle_kernel(const char* name, void** arguments);

}  // namespace device
