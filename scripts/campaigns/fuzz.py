#!/usr/bin/env python3
"""Fuzzes every parser for some minutes in all, and prints the executions of each.

    scripts/campaigns/fuzz.py --minutes 60 [TARGET …]

Needs cargo-fuzz and a nightly compiler. What is learnt stays in `fuzz/corpus`, so that stretches add up; an input that
is a fault is kept in `fuzz/artifacts`, and belongs into `fuzz/seeds` and a test once it is mended.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, SECONDS, Table

FUZZ = ROOT / "fuzz"
# Small files of the tests that targets also begin with.
MORE_SEEDS = {
    "config": ["tests/golden/alt_diffusion/unet", "tests/golden/dual_encoders/clip"],
    "gguf": ["tests/golden/gguf"],
    "image": ["tests/golden/image_processor/pictures", "tests/golden/image_formats"],
    "image_metadata": ["tests/golden/image_processor/pictures"],
    "parquet": ["crates/embedding-index/tests/data"],
    "pickle": ["crates/model-files/tests/data", "crates/model-files/tests/data/odd"],
    "safetensors": ["crates/model-files/tests/data", "crates/model-files/tests/data/odd"],
}
MOST_MEMORY_MB = 2048
LONGEST_INPUT = 1 << 16


def targets():
    return sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))


def build(target_dir):
    command = ["cargo", "+nightly", "fuzz", "build", "--fuzz-dir", FUZZ, "--target-dir", target_dir]
    subprocess.run(command, check=True, cwd=ROOT)


def fuzz(target, binary, seconds, table):
    folders = [FUZZ / "corpus" / target, FUZZ / "seeds" / target, *(ROOT / more for more in MORE_SEEDS.get(target, []))]
    folders[0].mkdir(parents=True, exist_ok=True)
    artifacts = FUZZ / "artifacts" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    before = set(artifacts.iterdir())
    options = [
        f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MOST_MEMORY_MB}",
        f"-malloc_limit_mb={MOST_MEMORY_MB}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={artifacts}/",
        "-fork=1", "-ignore_crashes=1", "-ignore_ooms=1", "-ignore_timeouts=1", "-print_final_stats=1",
    ]
    dictionary = FUZZ / "dictionaries" / f"{target}.dict"
    if dictionary.is_file():
        options.append(f"-dict={dictionary}")
    # Files that parsers are given go to memory.
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as scratch:
        leaks = f"suppressions={FUZZ / 'leaks.txt'}:print_suppressions=0"
        variables = os.environ | {"TMPDIR": scratch, "RAYON_NUM_THREADS": "1", "LSAN_OPTIONS": leaks}
        command = ["nice", "-n", "15", binary, *options, *(folder for folder in folders if folder.is_dir())]
        output = subprocess.run(command, capture_output=True, env=variables, text=True, errors="replace").stderr
    executions = max((int(count) for count in re.findall(r"^#(\d+):", output, re.M)), default=0)
    found = sorted(set(artifacts.iterdir()) - before)
    for path in found:
        print(f"fault: {target}: {path}", file=sys.stderr, flush=True)
    table.add_many(target, executions, 0, 0, len(found))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=60, help="for all targets together")
    options.add_argument("--target-dir", default=str(FUZZ / "target"), help="where to build")
    options.add_argument("--skip-build", action="store_true")
    options.add_argument("targets", nargs="*", metavar="TARGET")
    asked = options.parse_args()
    if not asked.skip_build:
        build(asked.target_dir)
    chosen = asked.targets or targets()
    folder = Path(asked.target_dir) / "x86_64-unknown-linux-gnu/release"
    table = Table("Executions per fuzz target")
    for target in chosen:
        fuzz(target, folder / target, max(1, int(60 * asked.minutes / len(chosen))), table)
    table.finish()


main()
