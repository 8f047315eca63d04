// Implements libcuda.so.1 without a GPU: everything that this project uses of CUDA's driver.
//
// This crate's kernels run in kernels/emulation with all its checks, and may only access allocated memory. Those of
// candle and cuBLAS are rewritten for the host (candle.cpp, cublas.cpp). So a whole model runs as on a GPU, with the
// same launches, copies and graphs, only slowly. Silent errors on a GPU are detected here:
//
// * memory is NaN until it is written, and after it is freed;
// * a graph's work only runs when the graph is launched, and its own memory is NaN again each time;
// * a copy to pinned memory is only visible after the host has waited;
// * work that cannot be recorded, such as a copy from the host, is an error.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../../kernels/emulation/runtime.hpp"
#include "device.hpp"

namespace {

using Result = int;
constexpr Result SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901;

/// The shared memory of a block that does not request more.
constexpr unsigned DEFAULT_SHARED_BYTES = 48 * 1024;

struct Graph {
    std::vector<std::function<void()>> work;
    /// Allocated and not freed during the recording.
    std::set<void*> kept;
    std::vector<void*> memory;
    bool launched = false;
    ~Graph();
};

struct Function {
    std::string name;
    unsigned most_shared_bytes = DEFAULT_SHARED_BYTES;
};

struct Module {
    std::map<std::string, std::unique_ptr<Function>> functions;
};

struct Event {
    std::chrono::steady_clock::time_point time;
    bool captured = false;
};

struct Device {
    std::recursive_mutex mutex;
    std::map<uintptr_t, size_t> memory;
    std::map<uintptr_t, size_t> pinned;
    /// Pending copies to pinned memory.
    std::vector<std::function<void()>> under_way;
    size_t launches = 0, graphs = 0;
    std::map<std::string, size_t> counts;

    ~Device() {
        if (!getenv("EMULATED_GPU_REPORT")) return;
        fprintf(stderr, "emulated GPU: %zu launches, %zu of graphs\n", launches, graphs);
        for (auto& [name, count] : counts) fprintf(stderr, "  %8zu %s\n", count, name.c_str());
    }
};

Device& gpu() {
    static Device device;
    return device;
}

/// The graph that this thread's stream is being captured into.
thread_local std::unique_ptr<Graph> capture;
thread_local bool invalidated = false;

#define LOCK std::lock_guard<std::recursive_mutex> lock(gpu().mutex)

/// Rejects what is not allowed during recording.
Result unless_capturing() {
    if (!capture) return SUCCESS;
    invalidated = true;
    return CAPTURE_UNSUPPORTED;
}

void* allocate(size_t bytes) {
    size_t rounded = (bytes + 255) / 256 * 256 + 256;
    auto* memory = static_cast<unsigned char*>(aligned_alloc(256, rounded));
    memset(memory, 0xff, rounded);
    gpu().memory[reinterpret_cast<uintptr_t>(memory)] = bytes;
    return memory;
}

void release(void* memory) {
    auto found = gpu().memory.find(reinterpret_cast<uintptr_t>(memory));
    if (found == gpu().memory.end()) device::fail("memory is freed that was not allocated, or was freed before");
    memset(memory, 0xff, found->second);
    gpu().memory.erase(found);
    free(memory);
}

Graph::~Graph() {
    for (void* memory : this->memory) release(memory);
}

void poison(void* memory) { memset(memory, 0xff, gpu().memory.at(reinterpret_cast<uintptr_t>(memory))); }

void run_own_kernel(const std::string& name, const std::vector<unsigned char>& params, const unsigned (&grid)[3],
                    unsigned threads, unsigned shared_bytes) {
    std::vector<EmulatedBuffer> buffers;
    for (auto& [begin, bytes] : gpu().memory) {
        if (bytes) buffers.push_back({"the device's memory", reinterpret_cast<void*>(begin), bytes, 1});
    }
    // The blocks of a launch are independent.
    unsigned workers = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::string> errors(workers);
    std::vector<std::thread> pool;
    for (unsigned i = 0; i < workers; i++) {
        pool.emplace_back([&, i] {
            EmulatedLaunch launch = {name.c_str(), {grid[0], grid[1], grid[2]}, threads, shared_bytes, i, workers,
                                     gpu().launches, params.data(), params.size(), buffers.data(), buffers.size()};
            char error[512] = "";
            if (emulate(&launch, error, sizeof error) != 0) errors[i] = error;
        });
    }
    for (auto& worker : pool) worker.join();
    for (auto& error : errors) {
        if (!error.empty()) device::fail("%s", error.c_str());
    }
}

}  // namespace

namespace device {

void fail(const char* format, ...) {
    fprintf(stderr, "emulated GPU: ");
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

void submit(std::function<void()> work) {
    LOCK;
    if (capture) {
        capture->work.push_back(std::move(work));
    } else {
        work();
    }
}

size_t bytes_from(const void* address) {
    LOCK;
    auto at = reinterpret_cast<uintptr_t>(address);
    auto next = gpu().memory.upper_bound(at);
    if (next == gpu().memory.begin()) fail("the address %p lies in no memory of the device", address);
    auto& [begin, bytes] = *std::prev(next);
    if (at > begin + bytes) fail("the address %p lies in no memory of the device", address);
    return begin + bytes - at;
}

}  // namespace device

#define API extern "C" __attribute__((visibility("default"))) Result

using Pointer = unsigned long long;

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
API cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : 101;
}
API cuDeviceGetCount(int* count) {
    *count = 1;
    return SUCCESS;
}
API cuDeviceGetName(char* name, int bytes, int) {
    snprintf(name, static_cast<size_t>(bytes), "emulated");
    return SUCCESS;
}
API cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 16: *value = 4; break;  // multiprocessors: few blocks, which then do all the work
        case 75: *value = 9; break;  // compute capability
        case 76: *value = 0; break;
        default: *value = 1; // memory pools and other queries
    }
    return SUCCESS;
}
API cuDeviceGetDefaultMemPool(void** pool, int) {
    *pool = &gpu();
    return SUCCESS;
}
API cuDeviceGraphMemTrim(int) { return SUCCESS; }
API cuMemPoolSetAttribute(void*, int, void*) { return SUCCESS; }
API cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &gpu();
    return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxDestroy_v2(void*) { return SUCCESS; }
API cuCtxGetCurrent(void** context) {
    *context = &gpu();
    return SUCCESS;
}
API cuCtxSetCurrent(void*) { return SUCCESS; }
API cuCtxSynchronize() {
    if (Result result = unless_capturing()) return result;
    LOCK;
    for (auto& copy : gpu().under_way) copy();
    gpu().under_way.clear();
    return SUCCESS;
}
API cuGetErrorString(Result error, const char** text) {
    static thread_local char message[64];
    snprintf(message, sizeof message, "error %d of the emulated GPU", error);
    *text = message;
    return SUCCESS;
}

// Streams: one per thread; work runs when it is submitted.
API cuStreamCreate(void** stream, unsigned) {
    *stream = &gpu();
    return SUCCESS;
}
API cuStreamDestroy_v2(void*) { return SUCCESS; }
API cuStreamSynchronize(void*) { return cuCtxSynchronize(); }
API cuStreamWaitEvent(void*, void* event, unsigned) {
    // Waiting for work that was not recorded: it is isolated from the recording.
    if (capture && !static_cast<Event*>(event)->captured) {
        invalidated = true;
        return 905;
    }
    return SUCCESS;
}
API cuStreamIsCapturing(void*, int* status) {
    *status = capture ? 1 : 0;
    return SUCCESS;
}
API cuStreamBeginCapture_v2(void*, int) {
    if (capture) return INVALID_VALUE;
    capture = std::make_unique<Graph>();
    invalidated = false;
    return SUCCESS;
}
API cuStreamEndCapture(void*, void** graph) {
    *graph = nullptr;
    if (!capture) return INVALID_VALUE;
    std::unique_ptr<Graph> recorded = std::move(capture);
    if (invalidated) return CAPTURE_INVALIDATED;
    *graph = recorded.release();
    return SUCCESS;
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    *executable = graph;
    return SUCCESS;
}
API cuGraphUpload(void*, void*) { return SUCCESS; }
API cuGraphLaunch(void* executable, void*) {
    LOCK;
    auto* graph = static_cast<Graph*>(executable);
    if (graph->launched && !graph->kept.empty()) return INVALID_VALUE;
    graph->launched = true;
    gpu().graphs++;
    for (auto& work : graph->work) work();
    return SUCCESS;
}
API cuGraphExecDestroy(void*) { return SUCCESS; }
API cuGraphDestroy(void* graph) {
    LOCK;
    delete static_cast<Graph*>(graph);
    return SUCCESS;
}

API cuEventCreate(void** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}
API cuEventDestroy_v2(void* event) {
    delete static_cast<Event*>(event);
    return SUCCESS;
}
API cuEventRecord(void* event, void*) {
    auto* recorded = static_cast<Event*>(event);
    recorded->time = std::chrono::steady_clock::now();
    recorded->captured = capture != nullptr;
    return SUCCESS;
}
API cuEventSynchronize(void*) { return cuCtxSynchronize(); }
API cuEventElapsedTime_v2(float* milliseconds, void* begin, void* end) {
    auto time = static_cast<Event*>(end)->time - static_cast<Event*>(begin)->time;
    *milliseconds = std::chrono::duration<float, std::milli>(time).count();
    return SUCCESS;
}

API cuMemAlloc_v2(Pointer* memory, size_t bytes) {
    if (Result result = unless_capturing()) return result;
    LOCK;
    *memory = reinterpret_cast<Pointer>(allocate(bytes));
    return SUCCESS;
}
API cuMemFree_v2(Pointer memory) {
    if (Result result = unless_capturing()) return result;
    LOCK;
    release(reinterpret_cast<void*>(memory));
    return SUCCESS;
}
API cuMemAllocAsync(Pointer* memory, size_t bytes, void*) {
    LOCK;
    void* allocated = allocate(bytes);
    *memory = reinterpret_cast<Pointer>(allocated);
    if (capture) {
        capture->memory.push_back(allocated);
        capture->kept.insert(allocated);
        capture->work.push_back([allocated] { poison(allocated); });
    }
    return SUCCESS;
}
API cuMemFreeAsync(Pointer memory, void*) {
    LOCK;
    auto* freed = reinterpret_cast<void*>(memory);
    if (!capture) {
        release(freed);
        return SUCCESS;
    }
    if (!capture->kept.erase(freed)) {
        // Memory from before the recording: a graph only frees its own.
        invalidated = true;
        return INVALID_VALUE;
    }
    capture->work.push_back([freed] { poison(freed); });
    return SUCCESS;
}
API cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    LOCK;
    *memory = calloc(1, bytes);
    gpu().pinned[reinterpret_cast<uintptr_t>(*memory)] = bytes;
    return SUCCESS;
}
API cuMemFreeHost(void* memory) {
    LOCK;
    gpu().pinned.erase(reinterpret_cast<uintptr_t>(memory));
    free(memory);
    return SUCCESS;
}
API cuMemcpyHtoDAsync_v2(Pointer target, const void* source, size_t bytes, void*) {
    if (Result result = unless_capturing()) return result;
    LOCK;
    if (device::bytes_from(reinterpret_cast<void*>(target)) < bytes) device::fail("a copy past the end of memory");
    memcpy(reinterpret_cast<void*>(target), source, bytes);
    return SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void* target, Pointer source, size_t bytes, void*) {
    if (Result result = unless_capturing()) return result;
    LOCK;
    auto* from = reinterpret_cast<unsigned char*>(source);
    if (device::bytes_from(from) < bytes) device::fail("a copy past the end of memory");
    if (!gpu().pinned.count(reinterpret_cast<uintptr_t>(target))) {
        memcpy(target, from, bytes);
        return SUCCESS;
    }
    gpu().under_way.push_back([target, values = std::vector<unsigned char>(from, from + bytes)] {
        memcpy(target, values.data(), values.size());
    });
    return SUCCESS;
}
API cuMemcpyDtoDAsync_v2(Pointer target, Pointer source, size_t bytes, void*) {
    device::submit([=] {
        auto *to = reinterpret_cast<void*>(target), *from = reinterpret_cast<void*>(source);
        if (device::bytes_from(to) < bytes || device::bytes_from(from) < bytes) {
            device::fail("a copy past the end of memory");
        }
        memmove(to, from, bytes);
    });
    return SUCCESS;
}
API cuMemcpyPeerAsync(Pointer, void*, Pointer, void*, size_t, void*) { device::fail("there is one device"); }
API cuMemsetD8Async(Pointer target, unsigned char value, size_t bytes, void*) {
    device::submit([=] {
        if (device::bytes_from(reinterpret_cast<void*>(target)) < bytes) device::fail("zeros past the end of memory");
        memset(reinterpret_cast<void*>(target), value, bytes);
    });
    return SUCCESS;
}

API cuModuleLoad(void** module, const char*) {
    *module = new Module;
    return SUCCESS;
}
API cuModuleLoadData(void** module, const void*) {
    if (Result result = unless_capturing()) return result;
    *module = new Module;
    return SUCCESS;
}
API cuModuleUnload(void* module) {
    delete static_cast<Module*>(module);
    return SUCCESS;
}
API cuModuleGetFunction(void** function, void* module, const char* name) {
    LOCK;
    auto& found = static_cast<Module*>(module)->functions[name];
    if (!found) found = std::make_unique<Function>(Function{name});
    *function = found.get();
    return SUCCESS;
}
API cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute == 8) static_cast<Function*>(function)->most_shared_bytes = static_cast<unsigned>(value);
    return SUCCESS;
}
API cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared_bytes, void*, void** arguments, void**) {
    LOCK;
    const Function& kernel = *static_cast<Function*>(function);
    if (x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || threads * threads_y * threads_z > 1024 ||
        shared_bytes > kernel.most_shared_bytes) {
        fprintf(stderr, "emulated GPU: %s cannot be launched with (%u, %u, %u) blocks of %u threads and %u bytes\n",
                kernel.name.c_str(), x, y, z, threads * threads_y * threads_z, shared_bytes);
        return INVALID_VALUE;
    }
    gpu().launches++;
    gpu().counts[kernel.name]++;
    if (size_t bytes = emulated_params_bytes(kernel.name.c_str())) {
        auto* begin = static_cast<unsigned char*>(arguments[0]);
        std::vector<unsigned char> params(begin, begin + bytes);
        device::submit([name = kernel.name, params, x, y, z, threads, shared_bytes] {
            run_own_kernel(name, params, {x, y, z}, threads, shared_bytes);
        });
    } else {
        device::submit(device::candle_kernel(kernel.name.c_str(), arguments));
    }
    return SUCCESS;
}
