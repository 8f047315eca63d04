#!/usr/bin/env bash
# Compares the time to load a model with the time to read its files, from disk and from the page cache.
#
#     cargo build --release -p altdiffusion-pipeline --example stopwatch
#     measure-load.sh MODEL target/release/examples/stopwatch [ROUNDS]
#
# Before a cold turn, drops the files from the cache (Linux: `dd` with `nocache`).
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: ${0##*/} MODEL STOPWATCH [ROUNDS]" >&2; exit 2; }
model=$1 program=$2 rounds=${3:-3}
files=$(find "$model" -name '*.safetensors' -o -name '*.bin')
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
# An empty safetensors file: the length of its header, 2, and the header.
printf '\x02\0\0\0\0\0\0\0{}' >"$folder/inputs.safetensors"

forget() { for file in $files; do dd if="$file" iflag=nocache count=0 status=none; done; }
seconds() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.2f", to - from }'; }
read_all() {
    local start
    start=$(date +%s.%N)
    cat $files >/dev/null
    seconds "$start" "$(date +%s.%N)"
}
load() { "$program" "$model" "$folder/inputs.safetensors" "$folder" </dev/null | head -n 1 | cut -c 1-5; }

echo "$(du -chL $files | tail -n 1 | cut -f 1) in $(echo "$files" | wc -l) files"
for _ in $(seq "$rounds"); do
    forget
    echo "from the disk: read $(read_all) s, $(forget)load $(load) s"
    echo "from the cache: read $(read_all) s, load $(load) s"
done
