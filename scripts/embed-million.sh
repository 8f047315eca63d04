#!/usr/bin/env bash
# Embeds a million short texts: measures peak memory compared with ten thousand, and kills and resumes a run.
#
# Usage: embed-million.sh PROGRAM [WORK_DIR]
set -euo pipefail
program=$(realpath "$1")
cd "${2:-$(mktemp -d)}"

awk 'BEGIN {
    srand(1)
    n = split("猫 狗 红色 苹果 消防车 house 花 blue small car 山 水 picture 熊猫 bird tree", words, " ")
    for (i = 0; i < 1000000; i++) {
        line = ""
        for (j = 0; j < 1 + int(5 * rand()); j++) line = line words[1 + int(n * rand())] " "
        print line i
    }
}' >million.txt
head -n 10000 million.txt >ten-thousand.txt

measure() { /usr/bin/time -f "$1: %e s, %M KB at the peak" "$program" embed --texts "$1.txt" --output "$1.safetensors"; }
measure ten-thousand
measure million

"$program" embed --texts million.txt --output resumed.safetensors &
sleep 50
kill -9 $!
wait $! || true
test -d resumed.safetensors.partial || { echo "error: the run was over before it was killed" >&2; exit 1; }
"$program" embed --texts million.txt --output resumed.safetensors
cmp million.safetensors resumed.safetensors && echo "killed and resumed: the same bytes"
