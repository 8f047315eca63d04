"""Reads a file with this program or another one, each time in a process of its own, and says in the same words how it ended."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from common import PANICS, ROOT, SECONDS, environment, program, run

CPU_SECONDS = 10
ADDRESS_SPACE = 4 << 30
SHORT = re.compile(r"not enough memory|MemoryError|bad_alloc|can(no|')t allocate|out of memory|(unable|failed) to allocate|memory allocation of", re.I)


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Reader:
    """A reader with a folder of its own, that is emptied before each file."""

    def __init__(self, name, place):
        self.name, self.folder = name, place / f"work-{name}"
        self.versions = ""

    def read(self, format, path, arguments):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        ended = self.end(format, path, arguments)
        ended["short_of_memory"] = bool(SHORT.search(ended["error"]))
        # Outputs are called `o`; a temporary one may be left by a process that was killed.
        ended["executed"] = ended["outcome"] != "hang" and any(
            not path.name.startswith(("o.", ".altdiffusion-")) for path in self.folder.iterdir()
        )
        return ended

    def close(self):
        pass


class OurProgram(Reader):
    def __init__(self, name, place):
        super().__init__(name, place)
        self.versions = subprocess.run([program(), "--version"], capture_output=True, text=True, env=environment()).stdout.splitlines()[0]

    def end(self, _format, _path, arguments):
        ended = run(arguments, self.folder, SECONDS, limits)
        text = ended.err.decode("utf-8", "replace")
        if ended.code is None or ended.code == -signal.SIGXCPU:
            outcome = "hang"
        elif ended.code < 0 or ended.code not in (0, 1, 2) or PANICS.search(text):
            outcome = "crash"
        else:
            outcome = "refused" if ended.code else "accepted"
        other = "" if outcome in ("crash", "hang") else "; ".join(ended.faults())
        return {"outcome": outcome, "error": text[-1000:], "other": other, "memory": ended.memory}


class Command(Reader):
    """Another program that is started for each file."""

    def __init__(self, name, place, executable, arguments):
        super().__init__(name, place)
        self.executable, self.arguments, self.versions = executable, arguments, Path(executable).name

    def end(self, format, path, _arguments):
        ended = run(self.arguments(format, path), self.folder, SECONDS, limits, self.executable)
        if ended.code is None or ended.code == -signal.SIGXCPU:
            outcome = "hang"
        else:
            outcome = {0: "accepted", 1: "refused"}.get(ended.code, "crash")
        return {"outcome": outcome, "error": ended.err.decode("utf-8", "replace")[-1000:], "other": "", "memory": ended.memory}


def candle(place, executable):
    return Command("candle", place, executable, lambda format, path: [format.removeprefix("hostile "), path])


def stable_diffusion_cpp(place, executable):
    return Command("stable-diffusion.cpp", place, executable, lambda _format, path: ["-M", "convert", "-m", path, "-o", "o.gguf"])


class PythonReader(Reader):
    """A process that has imported what it needs, and forks for every file."""

    @classmethod
    def start(cls, name, python, place):
        reader = cls(name, place)
        command = [python, ROOT / "scripts/peers/reader.py", name]
        # Threads of a process are not in its copies.
        variables = dict.fromkeys(["OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"], "1") | {"TOKENIZERS_PARALLELISM": "false"}
        reader.said = open(place / f"said-{name}", "w+")
        reader.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=reader.said, text=True, cwd=place, env=environment(**variables),
        )
        if first := reader.process.stdout.readline():
            reader.versions = ", ".join(f"{package} {version}" for package, version in json.loads(first).items())
            return reader
        reader.said.seek(0)
        last = reader.said.read().strip().splitlines()[-1:]
        print(f"{name}: left out: {last[0] if last else 'it ended'}", file=sys.stderr)
        return None

    def end(self, _format, path, _arguments):
        within = {"cpu_seconds": CPU_SECONDS, "seconds": SECONDS, "address_space": ADDRESS_SPACE}
        work = {"path": str(path), "folder": str(self.folder)} | within
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline()) | {"other": ""}

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.said.close()
