#!/usr/bin/env bash
# Tests the Python package: packs it around the library that the tests were compiled with, and installs it into a fresh
# virtual environment. Tests that need others, such as PyTorch, say that they are skipped. test-wheel.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
target=${CARGO_TARGET_DIR:-target}
skipped() {
    echo "SKIPPED: the Python package: $*" >&2
    exit 0
}

"$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' || skipped "Python 3.11 or later, with venv, is missing"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy pillow pytest mypy ||
    skipped "numpy, pillow, pytest or mypy cannot be installed"

# Together with a test, which decides the features, so that nothing is compiled again.
cargo build --workspace --lib --test documents
for library in "$target"/debug/lib_altdiffusion.{so,dylib} "$target"/debug/_altdiffusion.dll; do
    [ ! -f "$library" ] || break
done
wheel=$("$folder/venv/bin/python" scripts/pack-wheel.py "$library" "$folder")
ls -l "$wheel"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$wheel"

(cd bindings/python && "$folder/venv/bin/mypy")
# Not in the package's own folder, so that what is installed is tested.
cp -r bindings/python/tests "$folder/tests"
(cd "$folder" && ALTDIFFUSION_ROOT=$OLDPWD "$folder/venv/bin/python" -m pytest -q -rs tests)
