#!/usr/bin/env python3
"""Kills `index add` at random moments while its folder changes, and looks at what the index has.

    scripts/campaigns/index_kills.py --count 100

Before each run, files are added, changed, renamed, copied and deleted. Then SIGKILL comes after a random time. A fault is a
database that cannot be opened, an image lost that was in it and is still there, or at the end an index that differs from one
made anew: in paths, contents or vectors.
"""

import argparse
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from common import Table, environment, program, run

PLACE = "cell * (1 << 40) + contents.id"


def picture(path, dice):
    """An image that any reader reads: PPM."""
    width, height = dice.randrange(8, 40), dice.randrange(8, 40)
    path.write_bytes(b"P6 %d %d 255\n" % (width, height) + dice.randbytes(3 * width * height))


def change(folder, dice, names):
    files = sorted(folder.rglob("*.ppm"))
    for _ in range(dice.randrange(1, 30)):
        what = dice.choice(("new", "new", "new", "change", "rename", "copy", "delete", "damage"))
        one = dice.choice(files) if files else None
        other = folder / str(dice.randrange(3)) / f"{next(names)}.ppm"
        other.parent.mkdir(exist_ok=True)
        if what == "new" or one is None or not one.exists():
            picture(other, dice)
        elif what == "change":
            picture(one, dice)
        elif what == "rename":
            one.rename(other)
        elif what == "copy":
            shutil.copy(one, other)
        elif what == "delete":
            one.unlink()
        else:
            one.write_bytes(b"no image %d" % dice.randrange(1000))


def contents(database):
    """The hash and the vector of each file."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        bad = connection.execute("PRAGMA integrity_check").fetchone()[0]
        rows = connection.execute(
            f"SELECT path, hash, vector FROM files JOIN contents ON contents.id = content JOIN vectors ON place = {PLACE}"
        ).fetchall()
        spare = connection.execute("SELECT (SELECT count(*) FROM vectors) - (SELECT count(*) FROM contents)").fetchone()[0]
    finally:
        connection.close()
    return bad, {path: (hash, vector) for path, hash, vector in rows}, spare


def cosine(a, b):
    a, b = (struct.unpack(f"<{len(one) // 2}e", one) for one in (a, b))
    return sum(x * y for x, y in zip(a, b))


def kill_once(folder, database, seconds):
    process = subprocess.Popen(
        [program(), "index", "add", folder, "--database", database], env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=100, help="runs that are killed")
    options.add_argument("--images", type=int, default=400, help="at the beginning")
    options.add_argument("--seed", type=int, default=None)
    asked = options.parse_args()
    seed = asked.seed if asked.seed is not None else random.randrange(1 << 32)
    dice, names = random.Random(seed), iter(range(1 << 40))
    print(f"seed {seed}", flush=True)
    table = Table("Killed updates of an index")
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        place = Path(place)
        folder, database = place / "photos", place / "index.db"
        folder.mkdir()
        for _ in range(asked.images):
            (folder / "0").mkdir(exist_ok=True)
            picture(folder / "0" / f"{next(names)}.ppm", dice)
        start = time.monotonic()
        run(["index", "add", folder, "--database", place / "timed.db"], place)
        longest = 1.2 * (time.monotonic() - start)
        known, killed, tried = {}, 0, 0
        while killed < asked.count:
            tried += 1
            code = kill_once(folder, database, dice.uniform(0.02, longest))
            killed += code == -signal.SIGKILL
            # Later runs have less to do.
            longest = max(0.1, longest * (1.05 if code else 0.9))
            faults = []
            if database.exists() and database.stat().st_size:
                try:
                    bad, now, spare = contents(database)
                except sqlite3.Error as error:
                    # Killed before there were tables.
                    now, bad, spare = {}, "ok" if "no such table" in str(error) and not known else str(error), 0
                if bad != "ok":
                    faults.append(f"integrity: {bad}")
                if spare:
                    faults.append(f"{spare} more vectors than contents")
                lost = [path for path, (hash, _) in known.items() if Path(path).exists() and path not in now and hash]
                # What was changed to no image is rightly out of the index.
                lost = [path for path in lost if not Path(path).read_bytes().startswith(b"no image")]
                if lost:
                    faults.append(f"{len(lost)} images lost, such as {lost[0]}")
                known = now
            table.add("killed" if code else "ended before", code == 0, faults, f"run {tried}")
            change(folder, dice, names)
        longer = run(["index", "add", folder, "--database", database, "--json"], place, seconds=600)
        again = run(["index", "add", folder, "--database", database], place, seconds=600)
        anew = run(["index", "add", folder, "--database", place / "anew.db"], place, seconds=600)
        faults = [fault for ended in (longer, again, anew) for fault in ended.faults(may_fail=False)]
        followed, fresh = contents(database), contents(place / "anew.db")
        hashes = [{path: hash for path, (hash, _) in one[1].items()} for one in (followed, fresh)]
        if hashes[0] != hashes[1]:
            faults.append("other paths or contents than an index made anew")
        else:
            worst = min((cosine(followed[1][path][1], fresh[1][path][1]) for path in fresh[1]), default=1)
            if worst < 0.999:
                faults.append(f"a vector with cosine {worst} to that of an index made anew")
        if b" 0 new, 0 changed, 0 renamed, 0 gone" not in again.out:
            faults.append(f"a second run repeats work: {again.out.decode()}")
        table.add("beside one made anew", True, faults)
        print(f"{killed} of {tried} runs were killed; {len(fresh[1])} images at the end, {len(followed[1])} in the index")
    table.finish()


if __name__ == "__main__":
    main()
