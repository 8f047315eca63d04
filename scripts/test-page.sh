#!/usr/bin/env bash
# Checks the server's page in a real Chromium: test-page.sh target/debug/altdiffusion
#
# Needs node and npm, and Chromium on the PATH or at $CHROMIUM.
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
server=
# A few images to search.
for prompt in 一只猫 "a red apple" 消防车; do
    "$program" generate "$prompt" --steps 6 --seed 1 --output "$folder/$prompt.png" --quiet >/dev/null
done
(cd "$folder" && "$program" embed --image . --output images.safetensors --quiet >/dev/null)
(cd "$folder" && exec "$program" serve --port 0 --json --index images.safetensors >address.json 2>server.log) &
server=$!
for _ in $(seq 100); do
    grep -q '}' "$folder/address.json" 2>/dev/null && break
    sleep 0.1
done
address=$(sed -n 's/.*"address": "\(.*\)".*/\1/p' "$folder/address.json")
cp -r crates/altdiffusion-server/tests/page "$folder/page"
(cd "$folder/page" && npm install --silent --no-audit --no-fund)
node "$folder/page/page.mjs" "$address/"
