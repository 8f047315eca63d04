#!/usr/bin/env python3
"""Measures what a bulk job is sized by: rows a second of one process, and memory. Prints a table in Markdown.

    scripts/measure-bulk.py > benches/results/bulk-CHIP.md
    scripts/compare-encoders.py --make /tmp/base altclip-base       # AltCLIP with an XLM-R base, random weights
    scripts/measure-bulk.py --model /tmp/base --texts 200 --images 32

Run it with a Python that has the package and pyarrow. Each measurement is a process of its own, as a worker of a job is: it loads the
model, embeds a part for warming up, and then all captions through `AltClipEmbedder` and all images. Captions have the lengths of
image captions (`captions.py`); images are JPEG files of 640 × 480 pixels, which are decoded. The median of several rounds, which take
turns, counts. Without `--model` the built-in model is measured. Nothing here runs on a GPU.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from captions import mixed
from PIL import Image

WORKER = """
import json, resource, sys, time
import pyarrow as pa
from altdiffusion.ray import AltClipEmbedder

request = json.load(sys.stdin)
kind, rows = request["kind"], request["rows"]
start = time.perf_counter()
stage = AltClipEmbedder(request["model"], **{kind + "_column": kind})
loading = time.perf_counter() - start
stage(pa.table({kind: rows[: max(1, len(rows) // 10)]}))
wall, used = time.perf_counter(), time.process_time()
for first in range(0, len(rows), 8192):
    stage(pa.table({kind: rows[first : first + 8192]}))
seconds, processor = time.perf_counter() - wall, time.process_time() - used
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
# macOS counts bytes, others kB.
peak *= 1 if sys.platform == "darwin" else 1024
print(json.dumps({"loading": loading, "seconds": seconds, "processor": processor, "peak": peak}))
"""
BILLION = 1_000_000_000


def worker(model, kind, rows, threads):
    """What a process with this many threads says about its work."""
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    request = json.dumps({"model": model, "kind": kind, "rows": rows})
    done = subprocess.run([sys.executable, "-c", WORKER], input=request, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: {model or 'the built-in model'}, {kind}, {threads} threads: the worker ended with {done.returncode}")
    return json.loads(done.stdout)


def photos(folder, count):
    """JPEG images as large and as expensive to decode as photos, but cheap to make."""
    dice, paths = random.Random(1), []
    for index in range(count):
        small = Image.frombytes("RGB", (16, 12), dice.randbytes(16 * 12 * 3))
        path = folder / f"{index}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def chip():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def shown(number):
    """Three digits of a small number, and a large one without fractions."""
    return f"{number:,.0f}".replace(",", " ") if number >= 100 else f"{number:.3g}"


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="a directory or a repository (default: the built-in model)")
    options.add_argument("--texts", type=int, default=50_000)
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    texts = mixed(random.Random(0), asked.texts)
    with tempfile.TemporaryDirectory() as folder:
        work = [("text", texts), ("image", photos(Path(folder), asked.images))]
        turns = [(kind, rows, threads) for kind, rows in work if rows for threads in asked.threads]
        rounds = [[worker(asked.model, *turn) for turn in turns] for _ in range(asked.rounds)]
    print(f"Bulk jobs with {asked.model or 'the built-in model'}, {time.strftime('%Y-%m-%d')}, {chip()}; "
          f"medians of {asked.rounds}, by `scripts/measure-bulk.py`.\n")
    row("one process", "threads", "rows a second", "rows a second of processor time", "memory at the peak", "loading")
    row("---", "--:", "--:", "--:", "--:", "--:")
    rates = {}
    for (kind, rows, threads), found in zip(turns, zip(*rounds)):
        middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
        rate, of_core = len(rows) / middle["seconds"], len(rows) / middle["processor"]
        # With the first number of threads, by default one, as a worker of a job has.
        rates.setdefault(kind, of_core)
        row(f"{kind}s", threads, shown(rate), shown(of_core), f"{middle['peak'] / 1e6:.0f} MB", f"{middle['loading']:.1f} s")
    row("on a GPU", "", "not measured", "", "", "")
    print("\nCore-hours of a billion rows are a billion, divided by the rows a second of processor time and by 3600:\n")
    for kind, of_core in rates.items():
        print(f"* {kind}s: 1 000 000 000 ÷ {shown(of_core)} ÷ 3600 = {shown(BILLION / of_core / 3600)} core-hours")


if __name__ == "__main__":
    main()
