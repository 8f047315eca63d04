#!/usr/bin/env bash
# Runs a program built with the feature `cuda` on a machine without a GPU, with a driver, cuBLAS, cuRAND and cuDNN that run on
# the host (crates/fused-ops/tests/emulated_libraries). It tests correctness, not speed: a step of a tiny model takes a minute.
#
# Usage: emulated-gpu.sh PROGRAM [ARGUMENT ...]
#
# The program must be built with the kernels of this checkout.
#
# Needs a C++ compiler, and CUDA's runtime library, libcudart.so.13, in CUDA_HOME/lib. With EMULATED_GPU_REPORT=1 it counts
# the launches of each kernel.
set -euo pipefail
crate=$(dirname "$(realpath "$0")")/../crates/fused-ops
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

compile() { "${CXX:-c++}" -std=c++17 -O2 -fPIC -U_FORTIFY_SOURCE -Wall -Wno-unknown-pragmas -I "$crate/kernels" "$@"; }
gpu=$crate/tests/emulated_libraries
compilers=()
for source in "$crate"/kernels/*.cu "$crate/kernels/emulation/runtime.cpp" "$gpu"/{driver,candle}.cpp; do
    compile -x c++ -c "$source" -o "$build/$(basename "$source").o" &
    compilers+=($!)
done
# Wait for each one: without process ids, wait does not report failures.
for compiler in "${compilers[@]}"; do wait "$compiler"; done
compile -shared -pthread "$build"/*.o -o "$build/libcuda.so.1" -Wl,-soname,libcuda.so.1
for library in libcublas.so.13:cublas libcublasLt.so.13:cublaslt libcurand.so.10:curand libcudnn_graph.so.9:cudnn; do
    # Programs request these symbols in this version.
    name=${library%:*}
    echo "$name { global: *; };" >"$build/version"
    compile -shared "$gpu/${library#*:}.cpp" "$build/libcuda.so.1" -o "$build/$name" -Wl,-soname,"$name" \
        -Wl,--version-script,"$build/version"
done
LD_LIBRARY_PATH=$build:${CUDA_HOME:-/usr/local/cuda}/lib:${LD_LIBRARY_PATH:-} "$@"
