// Implements libcudnn_graph.so.9 without a GPU: graphs of one convolution and additions to its result. There is one
// plan for each, which requests some workspace.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "device.hpp"
#include "numbers.hpp"

using numbers::Type, numbers::read, numbers::size_of, numbers::write;

namespace {

using Status = int;
constexpr Status SUCCESS = 0, BAD_PARAM = 2000;

// As in cudnn_graph.h.
enum Kind {
    POINTWISE = 0,
    CONVOLUTION = 1,
    ENGINE = 2,
    ENGINE_CONFIG = 3,
    HEURISTICS = 4,
    PLAN = 5,
    CONVOLUTION_FORWARD = 10,
    OPERATION_POINTWISE = 13,
    GRAPH = 15,
    VARIANT_PACK = 16,
    TENSOR = 17,
};
enum ValueType {
    HANDLE = 0,
    DATA_TYPE = 1,
    BOOLEAN = 2,
    INT64 = 3,
    FLOAT = 4,
    VOID_PTR = 6,
    CONVOLUTION_MODE = 7,
    HEUR_MODE = 8,
    NUMERICAL_NOTE = 11,
    POINTWISE_MODE = 14,
    BACKEND_DESCRIPTOR = 15,
    BEHAVIOR_NOTE = 19,
};

/// The attributes that an object of a kind must have, with their types and numbers of values, 0 for any.
const std::map<int, std::map<int, std::pair<int, int64_t>>> ATTRIBUTES = {
    {POINTWISE, {{0, {POINTWISE_MODE, 1}}, {1, {DATA_TYPE, 1}}}},
    {CONVOLUTION,
     {{100, {DATA_TYPE, 1}},
      {101, {CONVOLUTION_MODE, 1}},
      {102, {INT64, 2}},
      {103, {INT64, 2}},
      {104, {INT64, 2}},
      {105, {INT64, 2}},
      {106, {INT64, 1}}}},
    {HEURISTICS, {{200, {HEUR_MODE, 1}}, {201, {BACKEND_DESCRIPTOR, 1}}}},
    {PLAN, {{400, {HANDLE, 1}}, {401, {BACKEND_DESCRIPTOR, 1}}}},
    {CONVOLUTION_FORWARD,
     {{700, {FLOAT, 1}},
      {701, {FLOAT, 1}},
      {702, {BACKEND_DESCRIPTOR, 1}},
      {703, {BACKEND_DESCRIPTOR, 1}},
      {704, {BACKEND_DESCRIPTOR, 1}},
      {705, {BACKEND_DESCRIPTOR, 1}}}},
    {OPERATION_POINTWISE,
     {{750, {BACKEND_DESCRIPTOR, 1}},
      {751, {BACKEND_DESCRIPTOR, 1}},
      {752, {BACKEND_DESCRIPTOR, 1}},
      {753, {BACKEND_DESCRIPTOR, 1}}}},
    {GRAPH, {{800, {HANDLE, 1}}, {801, {BACKEND_DESCRIPTOR, 0}}}},
    {VARIANT_PACK, {{1000, {INT64, 0}}, {1001, {VOID_PTR, 0}}, {1003, {VOID_PTR, 1}}}},
    {TENSOR,
     {{900, {INT64, 1}},
      {901, {DATA_TYPE, 1}},
      {902, {INT64, 4}},
      {903, {INT64, 4}},
      {906, {INT64, 1}},
      {907, {BOOLEAN, 1}}}},
};

/// The workspace that the only plan requests.
constexpr size_t WORKSPACE_BYTES = 100;

struct Object {
    int kind;
    bool finalized = false;
    /// The values of each attribute, one after the other.
    std::map<int, std::vector<unsigned char>> attributes;
    /// For an engine, its configuration and its plan: their graph.
    std::shared_ptr<const Object> graph;

    template <typename T>
    std::vector<T> values(int attribute) const {
        const auto& bytes = attributes.at(attribute);
        std::vector<T> values(bytes.size() / sizeof(T));
        memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
        return values;
    }
    template <typename T>
    T value(int attribute) const {
        return values<T>(attribute).at(0);
    }
    const Object& object(int attribute) const { return **value<std::shared_ptr<const Object>*>(attribute); }
};

/// The program's handle to an object; objects made from it share it.
using Pointer = std::shared_ptr<Object>*;

size_t size_of_value(int type) {
    switch (type) {
        case BOOLEAN: return 1;
        case HANDLE:
        case INT64:
        case VOID_PTR:
        case BACKEND_DESCRIPTOR: return 8;
        default: return 4;
    }
}

Type type_of(int data_type) {
    switch (data_type) {
        case 0: return Type::F32;
        case 2: return Type::F16;
        case 9: return Type::Bf16;
        default: device::fail("a tensor of cuDNN's type %d", data_type);
    }
}

/// A tensor of a graph: (batch, channels, height, width).
struct Tensor {
    int64_t id;
    Type type;
    bool is_virtual;
    std::vector<int64_t> dims, strides;

    explicit Tensor(const Object& tensor)
        : id(tensor.value<int64_t>(906)),
          type(type_of(tensor.value<int>(901))),
          is_virtual(tensor.value<unsigned char>(907)),
          dims(tensor.values<int64_t>(902)),
          strides(tensor.values<int64_t>(903)) {}

    size_t count() const { return static_cast<size_t>(dims[0] * dims[1] * dims[2] * dims[3]); }
    size_t place(const int64_t (&at)[4]) const {
        int64_t place = 0;
        // A dimension of one value is broadcast.
        for (int i = 0; i < 4; i++) place += dims[i] == 1 ? 0 : at[i] * strides[i];
        return static_cast<size_t>(place);
    }
};

/// The values of a graph's tensors, by number, in memory order.
using AllValues = std::map<int64_t, std::vector<float>>;

/// Calls `f` for each position of a tensor.
template <typename F>
void for_places(const Tensor& tensor, const F& f) {
    for (int64_t n = 0; n < tensor.dims[0]; n++) {
        for (int64_t y = 0; y < tensor.dims[2]; y++) {
            for (int64_t x = 0; x < tensor.dims[3]; x++) {
                for (int64_t c = 0; c < tensor.dims[1]; c++) f({n, c, y, x});
            }
        }
    }
}

/// A self-contained convolution or addition: recorded work runs when the objects that it was made from may be gone.
struct Operation {
    bool is_convolution;
    std::vector<Tensor> inputs;
    Tensor output;
    std::vector<int64_t> before, behind, stride;

    explicit Operation(const Object& object)
        : is_convolution(object.kind == CONVOLUTION_FORWARD), output(object.object(is_convolution ? 705 : 753)) {
        for (int attribute : is_convolution ? std::vector{704, 703} : std::vector{751, 752}) {
            inputs.emplace_back(object.object(attribute));
        }
        if (!is_convolution) {
            if (object.object(750).value<int>(0) != 0) device::fail("an operation of cuDNN that is no sum");
            return;
        }
        const Object& how = object.object(702);
        before = how.values<int64_t>(105), behind = how.values<int64_t>(104), stride = how.values<int64_t>(103);
    }

    void run(AllValues& all) const {
        auto& results = all[output.id];
        results.assign(output.count(), 0.f);
        is_convolution ? convolve(all, results) : add(all, results);
    }

    void convolve(const AllValues& all, std::vector<float>& results) const {
        const Tensor &input = inputs[0], &weight = inputs[1];
        for (size_t i = 0; i < 2; i++) {
            const int64_t size = (input.dims[2 + i] + before[i] + behind[i] - weight.dims[2 + i]) / stride[i] + 1;
            if (output.dims[2 + i] != size) device::fail("a convolution to %ld places of %ld", size, output.dims[2 + i]);
        }
        if (weight.dims[1] != input.dims[1] || weight.dims[0] != output.dims[1] || input.dims[0] != output.dims[0]) {
            device::fail("a convolution of tensors that do not fit together");
        }
        const auto &values = all.at(input.id), &weights = all.at(weight.id);
        for_places(output, [&](const int64_t (&at)[4]) {
            double sum = 0;
            for (int64_t i = 0; i < weight.dims[2]; i++) {
                const int64_t y = at[2] * stride[0] - before[0] + i;
                for (int64_t j = 0; j < weight.dims[3]; j++) {
                    const int64_t x = at[3] * stride[1] - before[1] + j;
                    if (y < 0 || x < 0 || y >= input.dims[2] || x >= input.dims[3]) continue;
                    for (int64_t c = 0; c < input.dims[1]; c++) {
                        sum += static_cast<double>(values[input.place({at[0], c, y, x})]) *
                               static_cast<double>(weights[weight.place({at[1], c, i, j})]);
                    }
                }
            }
            results[output.place(at)] = static_cast<float>(sum);
        });
    }

    void add(const AllValues& all, std::vector<float>& results) const {
        const auto &a = all.at(inputs[0].id), &b = all.at(inputs[1].id);
        for_places(output, [&](const int64_t (&at)[4]) {
            results[output.place(at)] = a[inputs[0].place(at)] + b[inputs[1].place(at)];
        });
    }
};

void run(const std::vector<Operation>& graph, const std::map<int64_t, unsigned char*>& addresses, void* workspace) {
    if (device::bytes_from(workspace) < WORKSPACE_BYTES) device::fail("cuDNN's own memory is not large enough");
    memset(workspace, 0xff, WORKSPACE_BYTES);
    const auto address_of = [&](const Tensor& tensor) {
        auto found = addresses.find(tensor.id);
        if (found == addresses.end()) device::fail("the tensor %ld of cuDNN's has no address", tensor.id);
        if (reinterpret_cast<uintptr_t>(found->second) % 16) device::fail("a tensor of cuDNN's is not aligned");
        if (device::bytes_from(found->second) < tensor.count() * size_of(tensor.type)) {
            device::fail("a tensor of cuDNN's reaches past the end of memory");
        }
        return found->second;
    };
    AllValues all;
    for (const Operation& operation : graph) {
        for (const Tensor& input : operation.inputs) {
            if (input.is_virtual) continue;
            const auto* begin = address_of(input);
            auto& values = all[input.id];
            values.clear();
            for (size_t i = 0; i < input.count(); i++) {
                values.push_back(static_cast<float>(read(begin + i * size_of(input.type), input.type)));
            }
        }
        operation.run(all);
        const Tensor& output = operation.output;
        if (output.is_virtual) continue;
        auto* begin = address_of(output);
        const auto& values = all.at(output.id);
        for (size_t i = 0; i < values.size(); i++) {
            write(begin + i * size_of(output.type), output.type, static_cast<double>(values[i]));
        }
    }
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API size_t cudnnGetVersion() { return 90000; }
API const char* cudnnGetErrorString(Status status) { return status == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "another"; }
API void cudnnGetLastErrorString(char* text, size_t room) { snprintf(text, room, "of the emulated cuDNN"); }
API Status cudnnCreate(void** handle) {
    *handle = new char;
    return SUCCESS;
}
API Status cudnnDestroy(void* handle) {
    delete static_cast<char*>(handle);
    return SUCCESS;
}
API Status cudnnSetStream(void*, void*) { return SUCCESS; }

API Status cudnnBackendCreateDescriptor(int kind, void** descriptor) {
    auto object = std::make_shared<Object>();
    object->kind = kind;
    *descriptor = new std::shared_ptr<Object>(object);
    return SUCCESS;
}
API Status cudnnBackendDestroyDescriptor(void* descriptor) {
    // If a program frees an object that others still use, they find other values in it.
    auto* pointer = static_cast<Pointer>(descriptor);
    (*pointer)->attributes.clear();
    delete pointer;
    return SUCCESS;
}
API Status cudnnBackendSetAttribute(void* descriptor, int attribute, int type, int64_t count, const void* values) {
    Object& object = **static_cast<Pointer>(descriptor);
    auto known = ATTRIBUTES.find(object.kind);
    if (known == ATTRIBUTES.end() || object.finalized || count < 1) return BAD_PARAM;
    auto found = known->second.find(attribute);
    if (found == known->second.end() || found->second.first != type) return BAD_PARAM;
    if (found->second.second && found->second.second != count) return BAD_PARAM;
    if (type == BACKEND_DESCRIPTOR) {
        for (int64_t i = 0; i < count; i++) {
            if (!(*static_cast<const Pointer*>(values)[i])->finalized) return BAD_PARAM;
        }
    }
    auto* begin = static_cast<const unsigned char*>(values);
    object.attributes[attribute].assign(begin, begin + static_cast<size_t>(count) * size_of_value(type));
    return SUCCESS;
}
API Status cudnnBackendFinalize(void* descriptor) {
    Object& object = **static_cast<Pointer>(descriptor);
    auto known = ATTRIBUTES.find(object.kind);
    if (known == ATTRIBUTES.end() || object.attributes.size() != known->second.size()) return BAD_PARAM;
    object.finalized = true;
    if (object.kind == HEURISTICS) object.graph = *object.value<Pointer>(201);
    if (object.kind == PLAN) object.graph = (*object.value<Pointer>(401))->graph;
    return SUCCESS;
}
API Status cudnnBackendGetAttribute(void* descriptor, int attribute, int type, int64_t room, int64_t* count, void* values) {
    const Object& object = **static_cast<Pointer>(descriptor);
    *count = 1;
    if (type == BEHAVIOR_NOTE && object.kind == ENGINE && attribute == 1305) {
        *count = 0;
    } else if (type == NUMERICAL_NOTE && object.kind == ENGINE && attribute == 1303) {
        if (room) *static_cast<int*>(values) = 0;
    } else if (type == INT64 && object.kind == PLAN && attribute == 402) {
        if (room) *static_cast<int64_t*>(values) = WORKSPACE_BYTES;
    } else if (type == BACKEND_DESCRIPTOR && ((object.kind == HEURISTICS && attribute == 202) ||
                                              (object.kind == ENGINE_CONFIG && attribute == 300))) {
        if (!room) return SUCCESS;
        Object& target = ***static_cast<Pointer*>(values);
        if (target.kind != (object.kind == HEURISTICS ? ENGINE_CONFIG : ENGINE)) return BAD_PARAM;
        target.graph = object.graph;
        target.finalized = true;
    } else {
        return BAD_PARAM;
    }
    return SUCCESS;
}
API Status cudnnBackendExecute(void*, void* plan, void* pack) {
    const Object &planned = **static_cast<Pointer>(plan), &given = **static_cast<Pointer>(pack);
    if (!planned.finalized || planned.kind != PLAN || !given.finalized || given.kind != VARIANT_PACK) return BAD_PARAM;
    const auto ids = given.values<int64_t>(1000);
    const auto pointers = given.values<unsigned char*>(1001);
    if (ids.size() != pointers.size()) return BAD_PARAM;
    std::map<int64_t, unsigned char*> addresses;
    for (size_t i = 0; i < ids.size(); i++) addresses[ids[i]] = pointers[i];
    auto* workspace = given.value<void*>(1003);
    std::vector<Operation> graph;
    for (auto* operation : planned.graph->values<std::shared_ptr<const Object>*>(801)) graph.emplace_back(**operation);
    device::submit([graph, addresses, workspace] { run(graph, addresses, workspace); });
    return SUCCESS;
}
