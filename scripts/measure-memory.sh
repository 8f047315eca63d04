#!/usr/bin/env bash
# Measures the peak memory of `altdiffusion generate` by image size and memory options: one guided step and decoding.
#
#     scripts/make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
#     cargo build --release
#     scripts/measure-memory.sh MODEL [PROGRAM]
#
# Needs GNU time. Prints gigabytes (10⁹ bytes).
set -euo pipefail
model=$(realpath "$1")
program=$(realpath "${2:-target/release/altdiffusion}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
for arguments in \
    "--width 512 --height 512" \
    "--width 512 --height 512 --low-memory" \
    "--width 1024 --height 1024" \
    "--width 1024 --height 1024 --low-memory --vae-tiling" \
    "--width 1024 --height 1024 --low-memory --vae-tiling --dtype f16"
do
    # shellcheck disable=SC2086 # they are several
    /usr/bin/time --format %M --output peak "$program" generate 一只猫 --model "$model" --steps 1 --seed 1 --no-preview \
        $arguments >/dev/null
    awk -v "arguments=$arguments" '{ printf "%s: %.2f GB\n", arguments, $1 * 1024 / 1e9 }' peak
done
