#!/usr/bin/env bash
# Builds the Python package for a release: one wheel for Python 3.11 and later, with the command. Prints its size, its
# tag, and how long an import takes.
#
#     scripts/build-wheel.sh [FOLDER]            # by default target/wheels
#
# maturin names the oldest manylinux that the library satisfies, and auditwheel has to agree. PYTHON is the interpreter.
# Files in the wheel have the time of the last commit, so that the same library gives the same wheel. Without compiling,
# `scripts/pack-wheel.py` packs the same files, for the tests: maturin takes no library that is compiled already.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/wheels}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.8,<2' auditwheel
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$work/tools/bin/maturin" build --release --locked --manifest-path bindings/python/Cargo.toml --out "$work/built"
wheel=$(echo "$work"/built/*.whl)

if [ "$(uname)" = Linux ]; then
    tag=${wheel%.whl}
    tag=${tag##*-abi3-}
    "$work/tools/bin/auditwheel" show "$wheel" >"$work/audit"
    grep -q "\"$tag\"" "$work/audit" || {
        echo "error: $wheel: tagged $tag, expected what auditwheel finds:" >&2
        cat "$work/audit" >&2
        exit 1
    }
fi

# In an environment of its own: the command runs, and the package is imported.
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "$wheel"
"$work/venv/bin/altdiffusion" --version >/dev/null
mkdir -p "$folder"
mv "$wheel" "$folder"
wheel=$folder/$(basename "$wheel")
"$work/venv/bin/python" - "$wheel" <<'PYTHON'
import os, subprocess, sys

PROGRAM = """
import os, time
wall, used = time.perf_counter(), time.process_time()
import altdiffusion
print(time.perf_counter() - wall, time.process_time() - used)
"""
runs = [subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True) for _ in range(10)]
wall, used = (min(times) for times in zip(*(map(float, run.stdout.split()) for run in runs)))
print(f"{sys.argv[1]}: {os.path.getsize(sys.argv[1]) / 1e6:.1f} MB")
print(f"import: {wall:.2f} s, {used:.2f} s of the processor, the best of {len(runs)}")
PYTHON
