#!/usr/bin/env python3
"""Ends every command that writes at random moments, and looks at what the next run finds.

    scripts/campaigns/kills.py --count 1000

Half of the ends are SIGKILL, the others SIGTERM, SIGHUP, SIGINT and a limit on the size of files (SIGXFSZ). A loss is a former file that is neither
whole nor replaced, a result that differs from that of a run that nobody ended, or anything left behind: by a signal
that can be handled at once, by SIGKILL after the next run.
"""

import argparse
import hashlib
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from common import GOLDEN, Table, environment, leftovers, program, run

MODEL = GOLDEN / "alt_diffusion"
SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGXFSZ]

def texts(folder):
    (folder / "texts.txt").write_text("".join(f"text number {number}, 第 {number} 行\n" for number in range(600)))


# What is run, and the file or folder that it writes. All give the same bytes every time.
COMMANDS = {
    "generate": (["generate", "a cat", "--steps", "3", "--seed", "1", "--num-images", "2", "--output", "out.png"], "out-1.png"),
    "generate --save-steps": (["generate", "a cat", "--steps", "3", "--seed", "1", "--save-steps", "out.gif", "--output", "x.png"], "out.gif"),
    "encode": (["encode", "--texts", "texts.txt", "--model", MODEL, "--output", "out.safetensors"], "out.safetensors"),
    "embed": (["embed", "--texts", "texts.txt", "--output", "out.safetensors"], "out.safetensors"),
    "embed .npy": (["embed", "--texts", "texts.txt", "--output", "out.npy"], "out.npy"),
    "convert to a file": (["convert", MODEL, "out.safetensors"], "out.safetensors"),
    "convert to GGUF": (["convert", MODEL, "out.gguf", "--dtype", "q8_0", "--skip-loss"], "out.gguf"),
    "convert to folders": (["convert", MODEL, "out-model"], "out-model"),
}


def digest(path):
    """Of a file, or of all files of a folder with their names."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = sorted(one for one in path.rglob("*") if one.is_file())
    return hashlib.sha256(b"".join(str(one.relative_to(path)).encode() + one.read_bytes() for one in found)).hexdigest()


def before(how, size):
    """In the new process: the default of signals, and for SIGXFSZ a limit."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ):
        signal.signal(one, signal.SIG_DFL)
    if how == signal.SIGXFSZ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def attempt(name, expected, seconds, dice, table):
    arguments, output = COMMANDS[name]
    how = dice.choice(SIGNALS)
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        folder, faults = Path(place), []
        texts(folder)
        path = folder / output
        # Half of the runs would replace a file, which must not be lost.
        former = None
        if dice.random() < 0.5 and not output.endswith("model"):
            path.write_bytes(b"former")
            former = digest(path)
        size = int(2 ** dice.uniform(4, 21))
        process = subprocess.Popen(
            [program(), *map(str, arguments)], cwd=folder, env=environment(TMPDIR=place),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: before(how, size),
        )
        if how != signal.SIGXFSZ:
            time.sleep(dice.random() * 1.1 * seconds)
            process.send_signal(how)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            faults.append(f"not ended by {how.name} within 60 s")
        if path.exists() and digest(path) not in (former, expected):
            faults.append("a half-written result")
        if former and not path.exists():
            faults.append("the former file is lost")
        if how != signal.SIGKILL and leftovers(folder):
            faults.append(f"left by {how.name}: {[one.name for one in leftovers(folder)]}")
        if path.is_dir():
            shutil.rmtree(path)
        ended = run(arguments, folder, TMPDIR=place)
        faults += ended.faults(may_fail=False)
        if not path.exists() or digest(path) != expected:
            faults.append("the next run has another result")
        left = [*leftovers(folder), *folder.glob("*.partial")]
        if left:
            faults.append(f"left after the next run: {[one.name for one in left]}")
        table.add(f"{name}, {how.name}", process.returncode == 0, faults, str(ended.err[-200:]))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    known = {}
    for name, (arguments, output) in COMMANDS.items():
        with tempfile.TemporaryDirectory(prefix="campaign-") as place:
            folder = Path(place)
            texts(folder)
            ended = run(arguments, folder, TMPDIR=place)
            if ended.code != 0:
                raise SystemExit(f"{name}: {ended.err.decode()}")
            known[name] = (digest(folder / output), ended.seconds)
    table, dice = Table("Kills (accepted: came too late)"), random.Random(asked.seed)
    for number in range(asked.count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        attempt(name, *known[name], dice, table)
    table.finish()


main()
