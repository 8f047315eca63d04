"""Runs the command beside the server, and reports checks by line."""

import array
import json
import pathlib
import struct
import subprocess
import tempfile
import time
import urllib.request

TOLERANCE = 1e-6


class Report:
    """Counts checks."""

    def __init__(self):
        self.counts = {"ok": 0, "FAILED": 0, "SKIPPED": 0}

    def skipped(self, what, reason):
        self._add("SKIPPED", f"{what}: {reason}")

    def run(self, client, checks, *arguments):
        """Runs functions, whose first lines of documentation are the names of the checks."""
        for check in checks:
            name = f"{client}: {check.__doc__.splitlines()[0].rstrip('.')}"
            start = time.monotonic()
            try:
                check(*arguments)
            except Exception as error:  # what a client raises is what is tested
                self._add("FAILED", f"{name}: {type(error).__name__}: {error}")
            else:
                self._add("ok", f"{name} ({time.monotonic() - start:.1f} s)")

    def one(self, name, problem):
        """Adds a check that passed if there is no problem."""
        self._add("FAILED" if problem else "ok", f"{name}: {problem}" if problem else name)

    def end(self):
        print(", ".join(f"{count} {state}" for state, count in self.counts.items()))
        return int(self.counts["FAILED"] > 0)

    def _add(self, state, line):
        self.counts[state] += 1
        print(f"{state}: {line}", flush=True)


class Server:
    """A running server, and the command to compare it with."""

    def __init__(self, address, command, key=None):
        self.address = address
        self.command = str(pathlib.Path(command).resolve())
        self.key = key
        self._drawn = {}

    def get(self, path):
        request = urllib.request.Request(self.address + path)
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def generated(self, prompt, *options):
        """The PNG file that `altdiffusion generate` writes."""
        if (prompt, options) not in self._drawn:
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder, "out.png")
                self._run(["generate", prompt, "--device", "cpu", "--output", str(file), *map(str, options)])
                self._drawn[prompt, options] = file.read_bytes()
        return self._drawn[prompt, options]

    def text_vectors(self, *texts):
        """The vectors that `altdiffusion embed` writes."""
        options = [option for text in texts for option in ("--text", text)]
        return self._vectors("text_embeds", options)

    def image_vectors(self, *paths):
        options = [option for path in paths for option in ("--image", str(path))]
        return self._vectors("image_embeds", options)

    def _vectors(self, name, options):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "out.safetensors")
            self._run(["embed", "--device", "cpu", "--output", str(file), *options])
            return tensor(file.read_bytes(), name)

    def _run(self, arguments):
        done = subprocess.run([self.command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"altdiffusion {' '.join(arguments)}: {done.stderr.strip()}"


def tensor(file, name):
    """The rows of a two-dimensional tensor in a safetensors file."""
    (length,) = struct.unpack("<Q", file[:8])
    entry = json.loads(file[8 : 8 + length])[name]
    begin, end = entry["data_offsets"]
    kind = {"F32": "f", "U32": "I"}[entry["dtype"]]
    values = array.array(kind, file[8 + length + begin : 8 + length + end])
    rows, columns = entry["shape"]
    return [list(values[row * columns : (row + 1) * columns]) for row in range(rows)]


def same(found, expected):
    assert found == expected, f"expected {shown(expected)}, found {shown(found)}"


def near(found, expected):
    """Checks rows of numbers."""
    same([len(row) for row in found], [len(row) for row in expected])
    pairs = [pair for rows in zip(found, expected) for pair in zip(*rows)]
    most = max(abs(a - b) for a, b in pairs)
    assert most <= TOLERANCE, f"vectors differ by {most}, expected at most {TOLERANCE}"


def raises(kind, call):
    """The exception that `call` raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def shown(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
