#!/usr/bin/env python3
"""Keeps one process at work for an hour, and watches its memory, threads and open files.

    scripts/campaigns/soak.py --minutes 60

Half of the time draws a file of prompts, half embeds texts and images, some of them damaged. A fault is a second half
that takes more memory, threads or files than the first, and a failure.
"""

import argparse
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from common import GOLDEN, Table, environment, program
from mutate import bytes_changed

PICTURES = sorted((GOLDEN / "image_processor/pictures").iterdir())
# More growth than this from the first half to the second is a leak.
MOST_GROWTH = {"memory": 64 << 20, "threads": 0, "files": 2}


def measure(pid):
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {"memory": int(status["VmRSS"].split()[0]) << 10, "threads": int(status["Threads"]), "files": len(os.listdir(f"/proc/{pid}/fd"))}


def watch(name, arguments, folder, minutes, table):
    log = open(folder / "log", "wb")
    process = subprocess.Popen([program(), *map(str, arguments)], cwd=folder, env=environment(), stdout=log, stderr=log)
    start, seen = time.monotonic(), []
    while process.poll() is None and time.monotonic() - start < 60 * minutes:
        time.sleep(min(5, minutes * 6))
        try:
            seen.append(measure(process.pid))
        except (OSError, KeyError):
            break
    faults = []
    if process.poll() is None:
        process.terminate()
        process.wait(60)
    elif process.returncode != 0:
        faults.append(f"ended with {process.returncode}: {(folder / 'log').read_bytes()[-200:]}")
    else:
        faults.append(f"had nothing left to do after {time.monotonic() - start:.0f} s")
    halves = seen[:len(seen) // 2], seen[len(seen) // 2:]
    most = [{what: max((one[what] for one in half), default=0) for what in MOST_GROWTH} for half in halves]
    shown = ", ".join(f"{what} {most[0][what]} and {most[1][what]}" for what in MOST_GROWTH)
    faults += [f"{what} grew" for what, growth in MOST_GROWTH.items() if most[1][what] > most[0][what] + growth]
    print(f"{name}: {len(seen)} measurements, {shown}")
    table.add(name, not faults, faults, shown)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=60)
    asked = options.parse_args()
    table, dice = Table("A soak"), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        folder = Path(place)
        (folder / "prompts.txt").write_text("".join(f"a cat, number {number}\n" for number in range(200_000)))
        (folder / "images").mkdir()
        for number in range(300):
            source = dice.choice(PICTURES)
            data = source.read_bytes()
            (folder / f"images/{number}{source.suffix}").write_bytes(bytes_changed(data, dice) if number % 3 == 0 else data)
        names = "".join(f"images/{path.name}\n" for path in sorted((folder / "images").iterdir()))
        (folder / "images.txt").write_text(names * 20_000)
        (folder / "out").mkdir()
        watch("embed", ["embed", "--images", "images.txt", "--texts", "prompts.txt", "--output", "o.safetensors"], folder, asked.minutes / 2, table)
        watch("generate", ["generate", "--prompts", "prompts.txt", "--steps", "2", "--no-preview", "--output", "out/o.png"], folder, asked.minutes / 2, table)
    table.finish()


main()
