#!/usr/bin/env bash
# Runs all checks of the CUDA kernels that need a GPU, in at most eight minutes: compares each kernel in f16 and bf16 with f64;
# runs compute-sanitizer's memcheck and racecheck on small shapes; compares times with PyTorch; and compares a full-size model
# with random weights in f16 with f32 on the CPU and with PyTorch.
#
# Build the programs on a machine with Rust and nvcc; this one needs neither:
#
#     cargo build --release -p fused-ops --features cuda --example gpu_check
#     cargo build --release -p altdiffusion-pipeline --features cuda --example stopwatch
#     strip target/release/examples/{gpu_check,stopwatch}
#
# Usage: gpu-check.sh GPU_CHECK STOPWATCH [RESULTS_DIR]
#
# Needs an NVIDIA driver, and CUDA's libraries (libcublas, libcublasLt, libcurand), which may be PyTorch's. Python (PYTHON, or
# python3) with PyTorch, diffusers (for the model), cuDNN and compute-sanitizer are used if installed; skipped checks are
# reported. The tables are also written to RESULTS_DIR (benches/results), named by device and date. The exit code is 1 if
# a check failed.
set -uo pipefail
program=$(realpath "$1") || exit 2
stopwatch=$(realpath "$2") || exit 2
scripts=$(dirname "$(realpath "$0")")
results=$(realpath -m "${3:-$scripts/../benches/results}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# The kernels get the first five of eight minutes, the model the rest.
deadline=300

# part SECONDS WHAT COMMAND ...: runs a command, limited by the deadline.
part() {
    local seconds=$1 what=$2 left=$((deadline - SECONDS))
    shift 2
    if [ $left -lt 1 ]; then
        echo "SKIPPED: no time is left for $what" >&2
        return 1
    fi
    [ "$seconds" -gt $left ] && seconds=$left
    echo "== $what" >&2
    timeout "$seconds" "$@"
    local code=$?
    if [ $code -ne 0 ]; then
        [ $code -eq 124 ] && echo "took longer than $seconds s" >&2
        echo "FAILED: $what" >&2
        failed=1
    fi
    return $code
}

device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1) || {
    echo "error: there is no NVIDIA GPU here, or no driver" >&2
    exit 2
}
echo "$device"
name=$(sed 's/[^A-Za-z0-9.]\+/-/g' <<<"${device%%,*}")
mkdir -p "$results"

# Adds the libraries in PyTorch's packages, after those that are already on the path.
if packages=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null); then
    folders=$(printf ':%s' "$packages"/*/lib)
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-/usr/local/cuda/lib64}$folders"
fi
# Report which convolutions run, unless they are this crate's.
export FUSED_OPS_CONVOLUTION=own

part 80 "every kernel against f64" "$program" check
# cuDNN's convolutions, also in a recording; the program detects whether cuDNN is installed.
has_cudnn=
if FUSED_OPS_CONVOLUTION=cudnn timeout 60 "$program" check conv2d --small 2>&1 | grep -q "asks for cuDNN"; then
    echo "SKIPPED: there is no cuDNN 9"
else
    has_cudnn=1
    FUSED_OPS_CONVOLUTION=cudnn part 40 "everything small, with cuDNN's convolutions" "$program" check --small
    for whose in cudnn measured; do
        FUSED_OPS_CONVOLUTION=$whose part 30 "convolutions, $whose" "$program" check conv2d
    done
fi
is_hopper=
if [ "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)" = 9.0 ]; then
    is_hopper=1
    for which in hopper measured; do
        FUSED_OPS_ATTENTION=$which part 40 "attention, $which, against f64" "$program" check attention
    done
else
    echo "SKIPPED: attention for Hopper, which this GPU cannot run"
fi

if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
    for tool in memcheck racecheck; do
        sanitize=("$sanitizer" --tool "$tool" --error-exitcode 1 --print-limit 5 "$program")
        part 60 "$tool over the small shapes" "${sanitize[@]}" check --small
        [ -n "$is_hopper" ] &&
            FUSED_OPS_ATTENTION=hopper part 30 "$tool over attention for Hopper" "${sanitize[@]}" check attention --small
    done
else
    echo "SKIPPED: there is no compute-sanitizer"
fi

if part 40 "timings" "$program" time >"$work/times.jsonl"; then
    [ -n "$is_hopper" ] &&
        FUSED_OPS_ATTENTION=hopper part 20 "of attention for Hopper" "$program" time attention >>"$work/times.jsonl"
    [ -n "$has_cudnn" ] &&
        FUSED_OPS_CONVOLUTION=cudnn part 20 "of cuDNN" "$program" time conv2d >>"$work/times.jsonl"
    if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        table="$results/gpu-$name-$(date +%F).md"
        part 60 "PyTorch beside them" "$python" "$scripts/compare-kernels.py" "$work/times.jsonl" --device "$device" \
            --output "$table"
    else
        echo "SKIPPED: $python has no PyTorch with CUDA; the kernels alone took"
        cat "$work/times.jsonl"
    fi
fi

deadline=480
if "$python" -c 'import diffusers, torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    if part 60 "a model of random weights" "$python" "$scripts/make-random-checkpoint.py" "$work/model" --model m9 \
        --tokenizer "$scripts/../tests/golden/tokenizer" --dtype f16; then
        [ -n "$has_cudnn" ] && export FUSED_OPS_CONVOLUTION=measured
        export FUSED_OPS_ATTENTION=measured
        # It may use all the remaining time, and keeps its results so far: it writes its table before it compiles anything, and
        # after each work item.
        part 480 "the model beside the CPU and PyTorch" "$python" "$scripts/compare-gpu.py" \
            "$work/model" --program "$stopwatch" --rounds 5 --output "$results/gpu-model-$name-$(date +%F).md"
    fi
else
    echo "SKIPPED: $python has no diffusers, transformers and PyTorch with CUDA, so no model ran"
fi
exit $failed
