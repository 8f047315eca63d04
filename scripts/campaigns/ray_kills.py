#!/usr/bin/env python3
"""Kills Ray's workers and the driver while they embed captions, and compares the result with that of runs without kills.

    scripts/campaigns/ray_kills.py
    scripts/campaigns/ray_kills.py --rows 20000 --shards 20 --kills 3      # about a minute

Needs the package in the Python that runs this, and Ray: `pip install WHEEL 'ray[data]' pyarrow`. The driver is the example
`embed_shards.py`. The built-in model embeds the captions three times: in one process with as many threads as Ray gets
workers, on Ray, and on Ray while SIGKILL ends a worker again and again, and the driver once, which is then started again.
A fault is a file or a row that is missing, there twice or elsewhere, a vector that differs, or an unfinished file that is
left behind. Prints rows a second too.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import ROOT, Table, environment

sys.path.insert(0, str(ROOT / "scripts"))
from captions import mixed  # noqa: E402

DRIVER = ROOT / "bindings/python/examples/embed_shards.py"
ALONE = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from altdiffusion.ray import AltClipEmbedder

stage = AltClipEmbedder(text_column="text")
for source in sys.argv[2:]:
    pq.write_table(stage(pq.read_table(source)), Path(sys.argv[1]) / Path(source).name)
"""
# Ray gives its own processes 30 seconds to start, which a busy machine may not give them.
TOO_SLOW = "timed out during startup"
STARTS = 10
# What other batches and another number of threads may change in a vector of length 1.
TOLERANCE = 1e-5


def captions(folder, rows, shards):
    """Parquet files with about as many rows each."""
    folder.mkdir()
    dice, first = random.Random(0), 0
    for shard in range(shards):
        end = rows * (shard + 1) // shards
        table = pa.table({"id": pa.array(range(first, end), pa.int64()), "text": mixed(dice, end - first)})
        pq.write_table(table, folder / f"{shard:05}.parquet")
        first = end
    return sorted(map(str, folder.iterdir()))


class Driver:
    """A process that does the job on Ray."""

    def __init__(self, output, files, workers, place):
        self.log = place / f"{output.name}.log"
        command = [sys.executable, DRIVER, output, *files, "--workers", workers]
        for _ in range(STARTS):
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    list(map(str, command)), cwd=place, env=variables(place), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )
            wait_until(lambda: self.workers() or not self.is_running(), 600)
            if self.is_running() or TOO_SLOW not in self.said():
                break

    def said(self):
        return self.log.read_text(errors="replace")

    def workers(self):
        """The processes that embed, of Ray's below this one."""
        return [pid for pid in descendants(self.process.pid) if command_line(pid).startswith("ray::Worker")]

    def is_running(self):
        return self.process.poll() is None

    def kill(self):
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        # Ray's processes end by themselves when their driver has.
        wait_until(lambda: not any(command_line(pid) for pid in below), 60)


def variables(place, **more):
    return environment(HOME=str(place), RAY_TMPDIR=str(place), RAY_USAGE_STATS_ENABLED="0", **more)


def descendants(ancestor):
    """All processes below one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(path.parent.name), path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(rest[1]), []).append(pid)
    found, left = [], [ancestor]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found


def command_line(pid):
    """That of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def run_killed(output, files, asked, dice, place, table):
    """Does the job while its processes are killed, each time after a random number of files and a random time."""
    moments = sorted(dice.sample(range(last_kill(len(files))), asked.kills + 1))
    of_driver = dice.choice(moments)
    driver = Driver(output, files, asked.workers, place)
    for moment in moments:
        wait_until(lambda: len(finished(output)) >= moment or not driver.is_running(), asked.timeout)
        # A worker that was killed before is started again meanwhile.
        wait_until(lambda: driver.workers() or not driver.is_running(), 120)
        time.sleep(dice.uniform(0, asked.pause))
        victims = driver.workers()
        if not victims or not driver.is_running():
            table.add("killed", False, ["the job had ended, or had no worker for two minutes"], f"after {moment} files")
        elif moment == of_driver:
            driver.kill()
            table.add("killed driver", False, [], f"after {moment} files")
            driver = Driver(output, files, asked.workers, place)
        else:
            victim = dice.choice(victims)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not command_line(victim), 60)
            table.add("killed worker", False, [], f"after {moment} files")
    return driver


def last_kill(files):
    """Kills come before so many files are done, while others are still to do."""
    return 3 * files // 4


def finished(output):
    return list((output / "_manifest").glob("*.parquet.json"))


def ended(driver, files, rows, timeout):
    """The faults of a driver that should have done everything."""
    try:
        code = driver.process.wait(timeout)
    except subprocess.TimeoutExpired:
        driver.kill()
        code = f"after {timeout} s"
    said = driver.said()
    if code != 0:
        return [f"ended with {code}: {said[-500:]}"]
    expected = f"{len(files)} files, {rows} rows; skipped: {{}}"
    return [] if expected in said else [f"said {said[-500:]!r}, expected {expected!r}"]


def vectors(table):
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), -1)


def compare(output, expected, files, table, exactly):
    """Each file against that of another run."""
    found = sorted(path.name for path in output.glob("*.parquet"))
    names = [Path(source).name for source in files]
    table.add("list of files", True, [] if found == names else [f"{len(found)} files, expected {len(names)}"])
    kind = "file, beside Ray without kills" if exactly else "file, beside one process"
    for name in sorted(set(found) & set(names)):
        ours, theirs = pq.read_table(output / name), pq.read_table(expected / name)
        faults = []
        if not ours.select(["id", "text"]).equals(theirs.select(["id", "text"])):
            faults.append("other rows")
        elif ours["embedding"].null_count or theirs["embedding"].null_count:
            faults.append("rows without a vector")
        elif exactly and not ours["embedding"].equals(theirs["embedding"]):
            faults.append("other vectors")
        elif (worst := np.abs(vectors(ours) - vectors(theirs)).max(initial=0)) > TOLERANCE:
            faults.append(f"a vector is {worst:.1e} away")
        table.add(kind, True, faults, name)
    left = [str(path) for path in output.rglob("*") if "_partial" in path.parts and path.is_file()]
    table.add("leftovers", True, [f"{len(left)} unfinished files, such as {left[0]}"] if left else [])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--shards", type=int, default=100)
    options.add_argument("--kills", type=int, default=10, help="of workers; the driver is killed once besides")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--pause", type=float, default=0.2, help="a kill comes at most this many seconds after a file")
    options.add_argument("--timeout", type=float, default=6 * 3600, help="for a run, in seconds")
    options.add_argument("--seed", type=int, default=None)
    asked = options.parse_args()
    if last_kill(asked.shards) <= asked.kills or asked.rows < asked.shards:
        options.error("--shards: expected more, of which three quarters exceed --kills, and at most as many as --rows")
    seed = asked.seed if asked.seed is not None else random.randrange(1 << 32)
    dice, table = random.Random(seed), Table("Killed jobs on Ray")
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        place = Path(place)
        files = captions(place / "captions", asked.rows, asked.shards)
        alone, calm, killed = (place / name for name in ("alone", "calm", "killed"))
        alone.mkdir()
        times = []

        start = time.monotonic()
        of_alone = variables(place, RAYON_NUM_THREADS=str(asked.workers))
        subprocess.run([sys.executable, "-c", ALONE, str(alone), *files], cwd=place, env=of_alone, check=True)
        times.append((f"one process, {asked.workers} threads", time.monotonic() - start))

        start = time.monotonic()
        table.add("run", True, ended(Driver(calm, files, asked.workers, place), files, asked.rows, asked.timeout))
        times.append((f"Ray, {asked.workers} workers", time.monotonic() - start))
        compare(calm, alone, files, table, exactly=False)

        start = time.monotonic()
        driver = run_killed(killed, files, asked, dice, place, table)
        table.add("run", True, ended(driver, files, asked.rows, asked.timeout))
        times.append((f"Ray, killed {asked.kills + 1} times", time.monotonic() - start))
        compare(killed, calm, files, table, exactly=True)
    print(f"\n{asked.rows} captions in {asked.shards} files; seconds include the start of Python, Ray and the model\n")
    print("| | seconds | rows a second |\n|---|--:|--:|")
    for name, seconds in times:
        print(f"| {name} | {seconds:.1f} | {asked.rows / seconds:.0f} |")
    table.finish()


if __name__ == "__main__":
    main()
