#!/usr/bin/env python3
"""Compare the Python package with the Rust library: the same texts, the same model and the same threads, taking turns.

    cargo build --release -p altclip-encoder --example throughput
    scripts/compare-python.py --program target/release/examples/throughput

Run it with a Python that has the package, of the same build profile. Rust embeds the texts as a stream, as jobs do; Python in one call, as
a stream, and in two threads that share the model and take half each. After a warm-up round, rounds alternate, and medians are
printed: of the wall clock, which other programs disturb, and of processor time, which they hardly do. The exit code is 1 if
`embed_texts` is slower than the stream in Rust by more than the tolerance, or if the two threads do not fill two cores.
"""

import argparse
import datetime
import json
import os
import random
import statistics
import sys
import threading
import time
from pathlib import Path

from captions import mixed
from turns import Program

ROOT = Path(__file__).resolve().parent.parent
# candle's own threads would spin; the package sees to it by itself.
os.environ.setdefault("CANDLE_NUM_THREADS", "1")
TICKS = os.sysconf("SC_CLK_TCK")
# Of two cores, what two threads should use at least, on a machine with nothing else to do.
FILLED = 1.8


def processor_time(pid: int) -> float:
    """The seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Rust:
    def __init__(self, program: Path, model: str):
        self.program = Program(program, model)

    def stream(self, texts: list[str]) -> tuple[float, float]:
        pid = self.program.process.pid
        used = processor_time(pid)
        wall = self.program.run(json.dumps({"stream": texts}))
        return wall, processor_time(pid) - used


def timed(work) -> tuple[float, float]:
    """Seconds of a call in this process, and those of the processor."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used


def in_threads(embedder, texts: list[str], count: int) -> None:
    parts = [texts[first::count] for first in range(count)]
    threads = [threading.Thread(target=embedder.embed_texts, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def streamed(embedder, texts: list[str]) -> None:
    for _ in embedder.stream_texts(iter(texts)):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="the built example `throughput`")
    parser.add_argument("--model", default=str(ROOT / "models/emoji"), help="a directory (default: the built-in model)")
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tolerance", type=float, default=0.03, help="how much slower Python may be (default: 0.03)")
    arguments = parser.parse_args()

    import altdiffusion

    texts = mixed(random.Random(0), arguments.texts)
    embedder = altdiffusion.Embedder(arguments.model)
    rust = Rust(arguments.program, arguments.model)
    sides = {
        "Rust, a stream": lambda: rust.stream(texts),
        "Python, `embed_texts`": lambda: timed(lambda: embedder.embed_texts(texts)),
        "Python, `stream_texts`": lambda: timed(lambda: streamed(embedder, texts)),
        "Python, two threads": lambda: timed(lambda: in_threads(embedder, texts, 2)),
    }
    for side in sides.values():
        side()
    turns = [[side() for side in sides.values()] for _ in range(arguments.rounds)]
    print(f"\n| {arguments.texts} texts | a second | wall | processor | cores used | of Rust's wall | of Rust's processor |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    medians = [tuple(map(statistics.median, zip(*column))) for column in zip(*turns)]
    reference = medians[0]
    for name, (wall, used) in zip(sides, medians):
        ratios = f"{wall / reference[0]:.3f} | {used / reference[1]:.3f}"
        print(f"| {name} | {arguments.texts / wall:.0f} | {wall:.2f} s | {used:.2f} s | {used / wall:.2f} | {ratios} |")
    date, load = datetime.date.today().isoformat(), os.getloadavg()[0]
    print(f"\n({date}, {os.cpu_count()} cores, load {load:.1f}; medians of {arguments.rounds}, by `scripts/compare-python.py`.)")

    slower = medians[1][0] / reference[0] - 1
    filled = medians[3][1] / medians[3][0]
    if slower > arguments.tolerance:
        print(f"error: embed_texts takes {slower:.1%} more time, expected at most {arguments.tolerance:.1%}", file=sys.stderr)
    if filled < FILLED:
        print(f"error: two threads used {filled:.2f} cores, expected at least {FILLED}", file=sys.stderr)
    sys.exit(slower > arguments.tolerance or filled < FILLED)


if __name__ == "__main__":
    main()
