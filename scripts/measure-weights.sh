#!/usr/bin/env bash
# Compares weight types: file size, peak memory, the time of a guided step at 512 × 512, and the error of the UNet's output.
#
#     scripts/make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
#     cargo build --release
#     scripts/measure-weights.sh MODEL [PROGRAM] [TYPE ...]
#
# Needs GNU time, and free disk space of half of MODEL's size.
set -euo pipefail
model=$(realpath "$1")
program=$(realpath "${2:-target/release/altdiffusion}")
[ $# -gt 2 ] && types=("${@:3}") || types=(f16 q8_0 q4_0)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
draw() {
    /usr/bin/time --format %M --output peak "$program" generate 一只猫 --width 512 --height 512 --steps 3 --seed 1 --no-preview \
        --timings times.json "$@" >/dev/null
    local step
    step=$(python3 -c 'import json; print(min(json.load(open("times.json"))["steps_s"]))')
    awk -v step="$step" '{ printf "peak %.2f GB, %.1f s a step\n", $1 * 1024 / 1e9, step }' peak
}
echo "f32: $(draw --model "$model")"
for type in "${types[@]}"; do
    said=$("$program" convert "$model" one.gguf --dtype "$type")
    dtype=f32
    [ "$type" = f16 ] && dtype=f16
    drawn=$(draw --model one.gguf --config "$model" --dtype "$dtype")
    echo "$type: $(awk -v bytes="$(stat -c %s one.gguf)" 'BEGIN { printf "%.2f GB", bytes / 1e9 }'), $drawn"
    grep -i cosine <<<"$said" || true
    rm one.gguf
done
