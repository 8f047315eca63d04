#!/usr/bin/env bash
# Everything that only a GPU can show of the CUDA kernels, in one call of at most eight minutes: whether each of them is
# right, in f16 and bf16, against f64; compute-sanitizer's memcheck and racecheck over the small shapes; and how long they
# take beside PyTorch, in one table.
#
# Build the program elsewhere, where there are Rust and nvcc; this machine needs neither:
#
#     cargo build --release -p fused-ops --features cuda --example gpu_check
#     strip target/release/examples/gpu_check
#
# Usage: gpu-check.sh GPU_CHECK [RESULTS_DIR]
#
# It needs an NVIDIA driver, and the libraries that candle links (libcublas, libcurand). Python with PyTorch (PYTHON, or
# python3) and compute-sanitizer are used where they are found; what is left out is said. The table is also written to
# RESULTS_DIR (benches/results) under the name of the device and the date. The exit code is 1 if anything was wrong.
set -uo pipefail
program=$(realpath "$1") || exit 2
scripts=$(dirname "$(realpath "$0")")
results=$(realpath -m "${2:-$scripts/../benches/results}")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# part SECONDS WHAT COMMAND ...: the times of all parts together are the eight minutes.
part() {
    local seconds=$1 what=$2
    shift 2
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

part 120 "every kernel against f64" "$program" check

if sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
    for tool in memcheck racecheck; do
        part 90 "$tool over the small shapes" \
            "$sanitizer" --tool "$tool" --error-exitcode 1 --print-limit 5 "$program" check --small
    done
else
    echo "SKIPPED: there is no compute-sanitizer"
fi

if part 60 "timings" "$program" time >"$work/times.jsonl"; then
    if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        name=$(sed 's/[^A-Za-z0-9.]\+/-/g' <<<"${device%%,*}")
        mkdir -p "$results"
        table="$results/gpu-$name-$(date +%F).md"
        part 120 "PyTorch beside them" "$python" "$scripts/gpu-compare.py" "$work/times.jsonl" --device "$device" \
            --output "$table"
    else
        echo "SKIPPED: $python has no PyTorch with CUDA; the kernels alone took"
        cat "$work/times.jsonl"
    fi
fi
exit $failed
