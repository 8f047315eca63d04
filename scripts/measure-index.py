#!/usr/bin/env python3
"""Measures an index of folders: updates, searches, and what an approximate search misses. Prints a table in Markdown.

    scripts/measure-index.py --images 100000 --folder /tmp/measured
    scripts/measure-index.py --latency target/release/examples/library_latency

The pictures are shapes, drawn with Pillow; those that are in the folder already are used again. The program is $ALTDIFFUSION, or
the release build. With --latency, also runs that example (`cargo build --release -p embedding-index --example library_latency`): it
searches vectors of 768 exactly and by cells, one query at a time. If usearch is installed (`pip install usearch`), its graph of the
same vectors (HNSW, with as many threads) answers the same queries in the same run. A million vectors take 3 GB on the disk, and as
much memory for usearch.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

try:
    import usearch
    from usearch.index import Index
except ImportError:
    usearch = None

ROOT = Path(__file__).resolve().parents[1]
QUERIES = (
    "a cat", "一只猫", "a red apple", "红色的圆", "a blue square", "蓝色的方块", "the sun", "太阳", "a green tree", "一棵树",
    "a yellow triangle", "黄色的三角形", "a flag", "国旗", "a flower", "一朵花", "a car", "汽车", "a heart", "一颗心",
)

# How many candidates usearch keeps during a search; the more, the fewer it misses.
BREADTHS = (64, 128, 256)


def picture(path, dice):
    """Shapes on a background, of any size."""
    side = dice.choice((48, 64, 96, 128))
    color = lambda: tuple(dice.randrange(256) for _ in range(3))
    image = Image.new("RGB", (side, side), color())
    draw = ImageDraw.Draw(image)
    for _ in range(dice.randrange(1, 6)):
        x, y = dice.randrange(side), dice.randrange(side)
        box = [x, y, x + dice.randrange(4, side), y + dice.randrange(4, side)]
        shape = dice.randrange(4)
        if shape == 0:
            draw.ellipse(box, fill=color())
        elif shape == 1:
            draw.rectangle(box, fill=color())
        elif shape == 2:
            draw.polygon([(dice.randrange(side), dice.randrange(side)) for _ in range(3)], fill=color())
        else:
            draw.line(box, fill=color(), width=dice.randrange(1, 8))
    image.save(path, compress_level=1)


def program():
    found = Path(os.environ.get("ALTDIFFUSION", ROOT / "target/release/altdiffusion"))
    if not found.is_file():
        sys.exit(f"{found}: not there; build it with `cargo build --release`, or set ALTDIFFUSION")
    return str(found)


def processor():
    """Seconds of processor time that commands took so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def index(database, *arguments):
    """Runs the command, and returns its JSON, the seconds it took, and those of the processor."""
    start, used = time.monotonic(), processor()
    command = [program(), "index", *map(str, arguments), "--database", str(database), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    return json.loads(done.stdout), time.monotonic() - start, processor() - used


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def update(what, database, folder):
    found, seconds, used = index(database, "add", folder)
    row(what, f"{seconds:.1f} s", f"{used:.1f} s", *(found[name] for name in ("new", "changed", "renamed", "gone", "unchanged", "unreadable", "embedded")))


def chip():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def updates(folder, count):
    dice = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    photos, database = folder / "photos", folder / "index.db"
    for number in range(count):
        path = photos / f"{number // 1000:03}" / f"{number:06}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(path, random.Random(number))
    for leftover in folder.glob("index.db*"):
        leftover.unlink()
    print(f"\n{count} pictures, {time.strftime('%Y-%m-%d')}, {chip()}\n")
    row("update", "time", "processor", "new", "changed", "renamed", "gone", "unchanged", "unreadable", "embedded")
    row(*["---"] + ["--:"] * 9)
    update("first", database, photos)
    time.sleep(2.5)
    update("again", database, photos)
    files = sorted(photos.rglob("*.png"))
    chosen = dice.sample(files, 300)
    for number in range(500):
        picture(photos / f"new-{number}.png", random.Random(10**9 + number))
    for number, path in enumerate(chosen[:200]):
        path.rename(photos / f"renamed-{number}.png")
    for path in chosen[200:]:
        path.unlink()
    update("500 new, 200 renamed, 100 gone", database, photos)
    update("and again", database, photos)
    status, _, _ = index(database, "status")
    print(f"\nThe database has {status['bytes'] / 1e6:.0f} MB, {status['vectors']} vectors of {status['width']} and {status['cells']} cells.\n")

    row("search by the command", "p50", "slowest", "processor, p50", "recall at 10")
    row("---", "--:", "--:", "--:", "--:")
    exact = [index(database, "search", query, "--exact") for query in QUERIES]
    near = [index(database, "search", query) for query in QUERIES]
    paths = lambda found: {hit["path"] for hit in found[0]}
    recall = sum(len(paths(a) & paths(b)) for a, b in zip(exact, near)) / sum(len(paths(a)) for a in exact)
    for name, found, share in (("exact", exact, 1.0), ("approximate", near, recall)):
        times, used = sorted(one[1] for one in found), sorted(one[2] for one in found)
        middle = len(found) // 2
        row(name, f"{times[middle]:.2f} s", f"{times[-1]:.2f} s", f"{used[middle]:.2f} s", f"{share:.3f}")
    page = folder / "found.html"
    _, seconds, _ = index(database, "search", "a cat", "--limit", 10000, "--html", page)
    print(f"\nA page of 10000 results: {seconds:.1f} s, {page.stat().st_size / 1e6:.1f} MB.")
    groups, seconds, _ = index(database, "duplicates", "--threshold", "0.995")
    print(f"Near duplicates at 0.995: {seconds:.1f} s, {len(groups)} groups.")
    # The folder is as before, for the next time.
    for path in photos.glob("*.png"):
        path.unlink()


def latency(example, count, width):
    """Rows about searches among this many vectors."""
    with tempfile.TemporaryDirectory(prefix="latency-") as folder:
        folder = Path(folder)
        subprocess.run([example, str(count), str(width), folder], check=True, stdout=sys.stderr)
        measured = json.loads((folder / "measured.json").read_text())
        for search in measured["searches"]:
            is_exact = search["search"] == "exact"
            name = "exact" if is_exact else f"by {measured['cells']} cells"
            recall, made = (1, 0) if is_exact else (measured["recall"], measured["sorting"])
            searched(count, name, search["p50"], search["p99"], recall, made, measured["bytes"])
        if usearch is None:
            row(count, "usearch: not installed, not measured", *[""] * 5)
        else:
            beside(folder, count, width, measured["exact"])


def searched(count, name, middle, slow, recall, made, size):
    row(count, name, f"{middle:.2f} ms", f"{slow:.2f} ms", f"{recall:.3f}", f"{made:.0f} s", f"{size / 1e6:.0f} MB")


def beside(folder, count, width, best):
    """The same searches by usearch, with several breadths."""
    vectors = np.fromfile(folder / "vectors.f16", np.float16).reshape(-1, width)
    queries = np.fromfile(folder / "queries.f32", np.float32).reshape(-1, width)
    # The names that the example gives are those of the rows, from 1.
    expected = [{int(Path(path).stem) for path in paths} for paths in best]
    index = Index(ndim=width, metric="cos", dtype="f16")
    start = time.monotonic()
    index.add(np.arange(1, count + 1), vectors, threads=os.cpu_count())
    made = time.monotonic() - start
    for breadth in BREADTHS:
        index.expansion_search = breadth
        index.search(queries[0], 10)
        times, both = [], 0
        for query, wanted in zip(queries, expected):
            start = time.perf_counter()
            found = index.search(query, 10)
            times.append(1000 * (time.perf_counter() - start))
            both += len(wanted & set(found.keys.tolist()))
        times.sort()
        recall = both / sum(map(len, expected))
        name = f"usearch {usearch.__version__}, expansion {breadth}"
        searched(count, name, times[len(times) // 2], times[len(times) * 99 // 100], recall, made, index.memory_usage)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=100_000)
    options.add_argument("--folder", type=Path, help="for the pictures and the index; without it, updates are not measured")
    options.add_argument("--latency", type=Path, help="the example library_latency")
    options.add_argument("--vectors", type=int, nargs="+", default=[100_000, 1_000_000])
    options.add_argument("--width", type=int, default=768)
    asked = options.parse_args()
    if asked.folder:
        updates(asked.folder, asked.images)
    if asked.latency:
        print(f"\nVectors of {asked.width}, {time.strftime('%Y-%m-%d')}, {chip()}; 200 queries, one at a time:\n")
        row("vectors", "search", "p50", "p99", "recall at 10", "sorted, or added, in", "database, or memory")
        row("--:", "---", *["--:"] * 5)
        for count in asked.vectors:
            latency(asked.latency, count, asked.width)


if __name__ == "__main__":
    main()
