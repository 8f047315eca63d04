// See runtime.hpp.

#include "runtime.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulation {

thread_local Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 256 * 1024;
constexpr size_t CELL = 2; // bytes of shared memory that are tracked together: the size of the kernels' smallest type
constexpr int NOBODY = -1, SEVERAL_WARPS = -2;

struct Registered {
    size_t params_bytes;
    unsigned threads;
    Body body;
};

std::map<std::string, Registered>& kernels() {
    static std::map<std::string, Registered> all;
    return all;
}

/// Who accessed a cell of shared memory last, and when. Time is counted in barriers of the block; within a warp, also
/// in barriers of the warp.
struct Cell {
    int writer = NOBODY;
    unsigned write_barrier = 0, write_warp_barrier = 0;
    int reader = NOBODY;   // a thread, or SEVERAL_WARPS
    bool several = false; // whether other lanes of the reader's warp have also read it
    unsigned read_barrier = 0, read_warp_barrier = 0;
    unsigned publications = 0; // how often the writer had published before it wrote
};

struct Copy {
    void* target;
    const void* source;
};

struct Fiber {
    jmp_buf context;
    Index index;
    unsigned number, lane, warp;
    bool done = false;
    const char* waits_for = nullptr;
    unsigned mask = 0;
    void* operand = nullptr;
    std::vector<Copy> uncommitted;
    std::vector<std::vector<Copy>> committed;  // oldest first
    unsigned publications = 0;
    Products products;
};

struct Variable {
    size_t offset, bytes;
};

/// A launch that is running on this host thread.
struct Run {
    const EmulatedLaunch* launch;
    Registered kernel;
    std::unique_ptr<unsigned char[]> stacks;
    std::vector<Fiber> fibers;
    std::vector<unsigned> ready;
    std::vector<unsigned> warp_barriers;
    unsigned barriers = 0, at_barrier = 0, done = 0;
    std::vector<unsigned char> shared;  // dynamic, then static
    size_t shared_used = 0;
    std::map<const void*, Variable> variables;
    std::vector<Cell> cells;
    Fiber* current = nullptr;
    jmp_buf scheduler;
    uint64_t random;
    bool failed = false;
    char* error;
    size_t error_bytes;

    uint64_t next_random() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return random;
    }
};

thread_local Run* run = nullptr;

__attribute__((noinline)) void leave(Fiber& fiber) {
    if (_setjmp(fiber.context) == 0) _longjmp(run->scheduler, 1);
}

__attribute__((noinline)) void resume(Fiber& fiber) {
    if (_setjmp(run->scheduler) == 0) _longjmp(fiber.context, 1);
}

void fiber_main() {
    // The fiber of a block's thread runs the same thread of every block.
    for (;;) {
        run->kernel.body(run->launch->params);
        Fiber& fiber = *run->current;
        // A group without copies is done at once.
        const auto under_way = [](const std::vector<Copy>& group) { return !group.empty(); };
        if (under_way(fiber.uncommitted) || std::any_of(fiber.committed.begin(), fiber.committed.end(), under_way)) {
            fail("ends while asynchronous copies are under way");
        }
        if (!fiber.products.pending.empty()) fail("ends while products are under way");
        fiber.committed.clear();
        fiber.done = true;
        run->done++;
        leave(fiber);
    }
}

void start(Fiber& fiber, unsigned char* stack) {
    ucontext_t context, back;
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    static thread_local Fiber* starting;
    starting = &fiber;
    // Enters the new stack once and returns at once: after that, switching needs no system call.
    makecontext(&context, [] {
        if (_setjmp(starting->context) == 0) _longjmp(run->scheduler, 1);
        fiber_main();
    }, 0);
    if (_setjmp(run->scheduler) == 0) swapcontext(&back, &context);
}

void wake(Fiber& fiber) {
    fiber.waits_for = nullptr;
    run->ready.push_back(fiber.number);
}

std::string describe(const Fiber& fiber) {
    if (fiber.done) return "has ended";
    return fiber.waits_for ? std::string("waits at ") + fiber.waits_for : "runs";
}

void fail_stuck() {
    const Fiber* waiting = nullptr;
    for (const Fiber& fiber : run->fibers) {
        if (!fiber.done && !waiting) waiting = &fiber;
    }
    for (const Fiber& fiber : run->fibers) {
        if (describe(fiber) != describe(*waiting)) {
            snprintf(run->error, run->error_bytes, "%s, block (%u, %u, %u): thread %u %s, and thread %u %s",
                     run->launch->kernel, block_index.x, block_index.y, block_index.z, waiting->number,
                     describe(*waiting).c_str(), fiber.number, describe(fiber).c_str());
            return;
        }
    }
    snprintf(run->error, run->error_bytes, "%s: every thread %s", run->launch->kernel,
             describe(*waiting).c_str());
}

bool run_block() {
    memset(run->shared.data(), 0xff, run->shared.size());
    run->shared_used = run->launch->shared_bytes;
    run->variables.clear();
    run->cells.assign(run->cells.size(), Cell{});
    run->warp_barriers.assign(run->warp_barriers.size(), 0);
    run->barriers = run->at_barrier = run->done = 0;
    run->ready.clear();
    for (Fiber& fiber : run->fibers) {
        fiber.done = false;
        wake(fiber);
    }
    while (run->done < run->fibers.size()) {
        if (run->ready.empty()) {
            fail_stuck();
            return false;
        }
        size_t pick = run->next_random() % run->ready.size();
        std::swap(run->ready[pick], run->ready.back());
        Fiber& fiber = run->fibers[run->ready.back()];
        run->ready.pop_back();
        run->current = &fiber;
        thread_index = fiber.index;
        resume(fiber);
        if (run->failed) return false;
    }
    return true;
}

/// Whether there is no barrier between an earlier access and one of `fiber` now.
bool concurrent(int thread, unsigned barrier, unsigned warp_barrier, const Fiber& fiber) {
    if (thread == NOBODY || thread == static_cast<int>(fiber.number) || barrier != run->barriers) return false;
    bool same_warp = thread >= 0 && run->fibers[thread].warp == fiber.warp;
    return !same_warp || warp_barrier == run->warp_barriers[fiber.warp];
}

void touch(Cell& cell, size_t offset, Access access, const Fiber& fiber) {
    unsigned now = run->barriers, warp_now = run->warp_barriers[fiber.warp];
    if (concurrent(cell.writer, cell.write_barrier, cell.write_warp_barrier, fiber)) {
        fail("a race: byte %zu of the shared memory was written by thread %d and is %s by thread %u, with no "
             "barrier between", offset, cell.writer, access == Access::Read ? "read" : "written", fiber.number);
    }
    int number = static_cast<int>(fiber.number);
    if (access == Access::Read) {
        bool first = cell.reader == NOBODY || cell.read_barrier != now;
        bool same_warp = !first && cell.reader >= 0 && run->fibers[cell.reader].warp == fiber.warp;
        cell.several = same_warp && cell.read_warp_barrier == warp_now && (cell.several || cell.reader != number);
        cell.reader = first || same_warp ? number : SEVERAL_WARPS;
        cell.read_barrier = now;
        cell.read_warp_barrier = warp_now;
        return;
    }
    bool by_others = cell.several && cell.read_barrier == now && cell.read_warp_barrier == warp_now;
    if (by_others || concurrent(cell.reader, cell.read_barrier, cell.read_warp_barrier, fiber)) {
        fail("a race: byte %zu of the shared memory was read by %s and is written by thread %u, with no barrier "
             "between", offset, cell.reader == SEVERAL_WARPS ? "several warps" : "another thread", fiber.number);
    }
    cell.writer = number;
    cell.publications = fiber.publications;
    cell.write_barrier = now;
    cell.write_warp_barrier = warp_now;
}

void land(const std::vector<Copy>& copies) {
    for (const Copy& copy : copies) {
        check_shared(copy.target, 16, Access::Write);
        if (copy.source) {
            memcpy(copy.target, copy.source, 16);
        } else {
            memset(copy.target, 0, 16);
        }
    }
}

}  // namespace

void fail(const char* format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(run->error, run->error_bytes, "%s, block (%u, %u, %u), thread %u: %s", run->launch->kernel,
             block_index.x, block_index.y, block_index.z, run->current->number, message);
    run->failed = true;
    leave(*run->current);
    __builtin_unreachable();  // nobody resumes it
}

void check_global(const void* address, size_t bytes, Access access) {
    auto at = reinterpret_cast<uintptr_t>(address);
    if (at % bytes != 0) fail("a global address is not a multiple of the %zu bytes accessed there", bytes);
    const EmulatedBuffer* nearest = nullptr;
    for (size_t i = 0; i < run->launch->buffer_count; i++) {
        const EmulatedBuffer& buffer = run->launch->buffers[i];
        auto begin = reinterpret_cast<uintptr_t>(buffer.begin);
        if (at >= begin && at + bytes <= begin + buffer.bytes) {
            if (access == Access::Write && !buffer.writable) fail("%s is written, which is read-only", buffer.name);
            return;
        }
        if (at >= begin && (!nearest || begin > reinterpret_cast<uintptr_t>(nearest->begin))) nearest = &buffer;
    }
    const char* verb = access == Access::Read ? "read" : "written";
    if (!nearest) fail("%zu bytes before every buffer are %s", bytes, verb);
    fail("%zu bytes are %s at byte %zu of %s, which has %zu", bytes, verb,
         static_cast<size_t>(at - reinterpret_cast<uintptr_t>(nearest->begin)), nearest->name, nearest->bytes);
}

void check_shared(const void* address, size_t bytes, Access access) {
    auto* at = static_cast<const unsigned char*>(address);
    size_t offset = static_cast<size_t>(at - run->shared.data());
    if (at < run->shared.data() || offset + bytes > run->shared_used) {
        fail("%zu bytes at byte %td of the shared memory are accessed, which has %zu", bytes,
             at - run->shared.data(), run->shared_used);
    }
    if (offset % bytes != 0) fail("byte %zu of the shared memory is not a multiple of %zu", offset, bytes);
    for (size_t cell = offset / CELL; cell * CELL < offset + bytes; cell++) {
        touch(run->cells[cell], cell * CELL, access, *run->current);
    }
}

Products& warp_products() { return run->current->products; }

void publish_to_products() { run->current->publications++; }

void check_product_operand(size_t byte) {
    const unsigned char* address = run->shared.data() + byte;
    check_shared(address, 16, Access::Read);
    for (size_t cell = byte / CELL; cell * CELL < byte + 16; cell++) {
        const Cell& written = run->cells[cell];
        if (written.writer == NOBODY) fail("a product reads byte %zu of the shared memory, which nobody wrote", byte);
        if (run->fibers[static_cast<size_t>(written.writer)].publications <= written.publications) {
            fail("a product reads byte %zu of the shared memory, which thread %d did not publish", byte, written.writer);
        }
    }
}

unsigned char* shared_memory() { return run->shared.data(); }

unsigned char* dynamic_shared() { return run->shared.data(); }

unsigned char* static_shared(const void* name, size_t bytes) {
    auto [variable, is_new] = run->variables.try_emplace(name, Variable{(run->shared_used + 15) / 16 * 16, bytes});
    if (is_new) {
        run->shared_used = variable->second.offset + bytes;
        if (run->shared_used > run->shared.size()) fail("more shared memory than %zu bytes", run->shared.size());
    }
    return run->shared.data() + variable->second.offset;
}

void block_barrier() {
    Fiber& fiber = *run->current;
    if (++run->at_barrier == run->fibers.size()) {
        run->at_barrier = 0;
        run->barriers++;
        for (Fiber& other : run->fibers) {
            if (&other != &fiber) wake(other);
        }
        return;
    }
    fiber.waits_for = "a barrier of the block";
    leave(fiber);
}

void warp_operation(const char* name, unsigned mask, void* operand, void (*operate)(void**)) {
    Fiber& fiber = *run->current;
    if (!(mask >> fiber.lane & 1)) fail("%s with the mask %#x, in which lane %u is not", name, mask, fiber.lane);
    fiber.waits_for = name;
    fiber.mask = mask;
    fiber.operand = operand;
    void* operands[WARP] = {};
    for (unsigned lane = 0; lane < WARP; lane++) {
        if (!(mask >> lane & 1)) continue;
        unsigned number = fiber.warp * WARP + lane;
        if (number >= run->fibers.size()) fail("%s with lane %u, which this warp does not have", name, lane);
        Fiber& other = run->fibers[number];
        // Names are compared as pointers: each operation has one literal.
        if (other.waits_for != name) {
            leave(fiber);
            return;
        }
        if (other.mask != mask) fail("%s with the mask %#x, and lane %u has %#x", name, mask, lane, other.mask);
        operands[lane] = other.operand;
    }
    operate(operands);
    for (unsigned lane = 0; lane < WARP; lane++) {
        Fiber& other = run->fibers[fiber.warp * WARP + (mask >> lane & 1 ? lane : fiber.lane)];
        if (&other != &fiber && other.waits_for) wake(other);
    }
    fiber.waits_for = nullptr;
}

void warp_barrier(unsigned mask) {
    warp_operation("a barrier of the warp", mask, nullptr,
                   [](void**) { run->warp_barriers[run->current->warp]++; });
}

void copy_async(void* target, const void* source) {
    check_shared(target, 16, Access::Write);
    if (source) check_global(source, 16, Access::Read);
    memset(target, 0xff, 16);
    run->current->uncommitted.push_back({target, source});
}

void copy_commit() {
    run->current->committed.push_back(std::move(run->current->uncommitted));
    run->current->uncommitted.clear();
}

void copy_wait(unsigned groups) {
    auto& committed = run->current->committed;
    while (committed.size() > groups) {
        land(committed.front());
        committed.erase(committed.begin());
    }
}

Kernel::Kernel(const char* name, size_t params_bytes, unsigned threads, Body body) {
    kernels()[name] = {params_bytes, threads, body};
}

}  // namespace emulation

extern "C" size_t emulated_params_bytes(const char* kernel) {
    auto found = emulation::kernels().find(kernel);
    return found == emulation::kernels().end() ? 0 : found->second.params_bytes;
}

extern "C" int emulate(const EmulatedLaunch* launch, char* error, size_t error_bytes) {
    using namespace emulation;
    auto found = kernels().find(launch->kernel);
    if (found == kernels().end()) {
        snprintf(error, error_bytes, "there is no kernel %s", launch->kernel);
        return 1;
    }
    Registered kernel = found->second;
    if (kernel.params_bytes != launch->params_bytes || launch->threads != kernel.threads) {
        snprintf(error, error_bytes, "%s takes %zu bytes of parameters and %u threads, got %zu and %u",
                 launch->kernel, kernel.params_bytes, kernel.threads, launch->params_bytes, launch->threads);
        return 1;
    }
    if (launch->shared_bytes > MOST_SHARED_BYTES) {
        snprintf(error, error_bytes, "%s wants %u bytes of shared memory, more than %zu", launch->kernel,
                 launch->shared_bytes, MOST_SHARED_BYTES);
        return 1;
    }
    Run here;
    here.launch = launch;
    here.kernel = kernel;
    here.error = error;
    here.error_bytes = error_bytes;
    here.random = launch->seed * 0x9e3779b97f4a7c15u | 1;
    here.stacks.reset(new unsigned char[STACK_BYTES * launch->threads]);
    // Static shared memory is added to this: kernels use either one or the other.
    here.shared.resize(std::min<size_t>(MOST_SHARED_BYTES, launch->shared_bytes + 16 * 1024));
    here.cells.resize((here.shared.size() + CELL - 1) / CELL);
    here.fibers.resize(launch->threads);
    here.warp_barriers.resize((launch->threads + WARP - 1) / WARP);
    Run* outer = run;
    run = &here;
    block_size = {launch->threads, 1, 1};
    grid_size = {launch->grid[0], launch->grid[1], launch->grid[2]};
    for (unsigned i = 0; i < launch->threads; i++) {
        Fiber& fiber = here.fibers[i];
        fiber.number = i;
        fiber.lane = i % WARP;
        fiber.warp = i / WARP;
        fiber.index = {i, 0, 0};
        start(fiber, here.stacks.get() + STACK_BYTES * i);
    }
    uint64_t blocks = uint64_t{grid_size.x} * grid_size.y * grid_size.z;
    bool fine = true;
    for (uint64_t block = launch->first_block; fine && block < blocks; block += launch->block_step) {
        block_index = {static_cast<unsigned>(block % grid_size.x),
                       static_cast<unsigned>(block / grid_size.x % grid_size.y),
                       static_cast<unsigned>(block / grid_size.x / grid_size.y)};
        fine = run_block();
    }
    run = outer;
    return fine ? 0 : 1;
}
