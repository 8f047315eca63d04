"""Shares code among the campaigns: running the program with limits, judging how it ended, and a table at the end."""

import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"

# Limits that SECURITY.md promises.
SECONDS = 60
MEMORY_BESIDE_FILES = 64 << 20
LONGEST_LINE = 4096 + 64
# What can change how a terminal shows the rest: control characters, and those of the direction of text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
PANICS = re.compile("panicked at|mistake in the program|stack overflow|RUST_BACKTRACE|Sanitizer")
LEFTOVER = re.compile(r"^\.altdiffusion-.{12}\.part$|^\.tmp")


def program():
    """The program under test: $ALTDIFFUSION, or the release build."""
    found = os.environ.get("ALTDIFFUSION") or shutil.which("altdiffusion") or ROOT / "target/release/altdiffusion"
    if not Path(found).is_file():
        sys.exit(f"{found}: not there; build it with `cargo build --release`, or set ALTDIFFUSION")
    return str(found)


def environment(**more):
    """An environment in which nothing of the user's counts."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1", "ALTDIFFUSION_CONFIG": "/dev/null", "HOME": "/nonexistent"} | more


class Ended:
    """How a process ended."""

    def __init__(self, code, out, err, seconds, memory):
        self.code, self.out, self.err, self.seconds, self.memory = code, out, err, seconds, memory

    def faults(self, memory_limit=None, may_fail=True):
        """What must never happen, whatever the input."""
        found = []
        text = self.err.decode("utf-8", "replace")
        if self.code is None:
            found.append(f"hang over {SECONDS} s")
        elif self.code < 0:
            found.append(f"signal {-self.code}")
        elif self.code not in (0, 1, 2, 130):
            found.append(f"exit code {self.code}")
        if PANICS.search(text):
            found.append("panic")
        if self.code == 1 and not any(line.startswith("error: ") for line in text.splitlines()):
            found.append("failed without a line that says why")
        if not may_fail and self.code != 0:
            found.append("failed")
        shown = text + self.out.decode("utf-8", "replace")
        if CONTROL.search(shown.replace("\t", "").replace("\n", "")):
            found.append("control characters")
        if any(len(line) > LONGEST_LINE for line in text.splitlines()):
            found.append("overlong line")
        if memory_limit and self.memory > memory_limit:
            found.append(f"{self.memory >> 20} MB of memory, expected at most {memory_limit >> 20}")
        return found


def run(arguments, folder, seconds=SECONDS, before=None, executable=None, **variables):
    """Runs the program, or another one, to its end, or until its time is up."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [executable or program(), *map(str, arguments)], cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env=environment(**variables), preexec_fn=before, start_new_session=True,
        )
        code, ended = None, os.pidfd_open(process.pid)
        try:
            if not select.select([ended], [], [], seconds)[0]:
                os.killpg(process.pid, signal.SIGKILL)
                usage = os.wait4(process.pid, 0)[2]
            else:
                _, status, usage = os.wait4(process.pid, 0)
                code = os.waitstatus_to_exitcode(status)
        finally:
            os.close(ended)
        process.returncode = code if code is not None else -9
        for stream in (out, err):
            stream.seek(0)
        return Ended(code, out.read(1 << 24), err.read(1 << 24), time.monotonic() - start, usage.ru_maxrss << 10)


def limit(kind, number):
    """For `before`: a limit of the process."""
    return lambda: resource.setrlimit(kind, (number, number))


def leftovers(folder):
    """Temporary files and folders of the program below a folder."""
    return [path for path in Path(folder).rglob("*") if LEFTOVER.match(path.name)]


class Table:
    """Counts by kind: tried, accepted, refused, faults."""

    def __init__(self, title):
        self.title, self.rows, self.examples, self.start = title, {}, [], time.monotonic()

    def add(self, kind, accepted, faults, what=""):
        row = self.rows.setdefault(kind, [0, 0, 0, 0])
        row[0] += 1
        row[3 if faults else 1 if accepted else 2] += 1
        if faults:
            self.examples.append((kind, what, "; ".join(faults)))
            print(f"fault: {kind}: {what}: {'; '.join(faults)}", file=sys.stderr, flush=True)

    def add_many(self, kind, tried, accepted, refused, faults):
        row = self.rows.setdefault(kind, [0, 0, 0, 0])
        for place, count in enumerate((tried, accepted, refused, faults)):
            row[place] += count

    def finish(self):
        """Prints the table. Ends with 1 if there was a fault."""
        width = max([len(kind) for kind in self.rows] + [4])
        minutes = (time.monotonic() - self.start) / 60
        print(f"\n{self.title}, {time.strftime('%Y-%m-%d')}, {minutes:.0f} min, {chip()}\n")
        print(f"| {'kind':{width}} |    tried | accepted |  refused | faults |")
        print(f"|{'-' * (width + 2)}|---------:|---------:|---------:|-------:|")
        total = [sum(row[place] for row in self.rows.values()) for place in range(4)]
        for kind, row in [*sorted(self.rows.items()), ("all", total)]:
            print(f"| {kind:{width}} | {row[0]:8} | {row[1]:8} | {row[2]:8} | {row[3]:6} |")
        sys.exit(1 if total[3] else 0)


def chip():
    """The processor's name and number of cores."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"
