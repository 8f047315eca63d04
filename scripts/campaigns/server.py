#!/usr/bin/env python3
"""Sends wrong requests to `altdiffusion serve`: to its interfaces, and to HTTP itself.

    scripts/campaigns/server.py --count 5000 [--seed N] [KIND …]

A fault is an answer with status 5xx, a refusal of one of the sound requests in between, a refusal that is not in the
interface's form, a connection that hangs, a panic in the log, too much memory, and the end of the server. A fault names
the kind and the seed, and `--seed N --count 1 KIND` sends the same bytes again.
"""

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import server_protocol as protocol
import server_requests as requests
from common import PANICS, Table, environment, program

#: Small limits, so that what is refused is large beside what is not.
LIMITS = {
    "--max-body": 4 << 20, "--max-pixels": 4_000_000, "--max-side": 128, "--max-steps": 2, "--max-images": 2, "--max-connections": 256,
    "--max-inputs": 256, "--timeout": "60s",
}
MEMORY = 512 << 20
#: How long an answer may take on a loaded machine, and a connection that says nothing more.
SECONDS, SECONDS_OF_SLOW = 60, 150
#: After how long a request that gets no answer is taken for incomplete, where it may be.
SILENCE = 3
AT_ONCE = 24

KINDS = [
    requests.sound, requests.truncated_json, requests.damaged_json, requests.wrong_types, requests.numbers, requests.nesting, requests.invalid_utf8, requests.bad_base64,
    requests.damaged_pictures, requests.bombs, requests.multipart, requests.media_types, requests.paths, protocol.no_http, protocol.pipelining,
    protocol.headers, protocol.chunks, protocol.lengths, protocol.http2, protocol.websockets, protocol.too_large, protocol.abandoned,
]
#: Kinds that may break a connection off, and need no answer in the interface's form.
OF_HTTP = {protocol.no_http, protocol.headers, protocol.chunks, protocol.lengths, protocol.http2, protocol.websockets, protocol.slow, requests.paths}


class Answers:
    """What came back."""

    def __init__(self, data, state):
        self.data, self.state = data, state
        self.statuses = []
        rest = data
        while match := re.match(rb"HTTP/1\.[01] (\d{3})[^\r]*\r\n(.*?)\r\n\r\n", rest, re.S):
            status, head = int(match[1]), match[2].lower()
            length = re.search(rb"content-length: *(\d+)", head)
            end = match.end() + int(length[1]) if length else len(rest)
            self.statuses.append((status, head, rest[match.end() : end]))
            rest = rest[end:]


def exchange(address, parts, seconds, pause=0.0, silence=None):
    """Sends the parts; `None` is the end of the client. Reads until the answer, or the end.

    After `silence` seconds without an answer the client says that no more comes, which ends requests that are not
    complete.
    """
    begin, data = time.monotonic(), b""
    with socket.create_connection(address, timeout=seconds) as connection:
        try:
            for part in parts:
                if part is None:
                    return Answers(data, "left")
                if pause and wait_for(connection, pause):
                    break
                connection.settimeout(seconds)
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an answer may have come before
        while (left := seconds - (time.monotonic() - begin)) > 0:
            if silence and not wait_for(connection, silence):
                try:
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # it is closed
                silence = None
            connection.settimeout(left)
            try:
                more = connection.recv(1 << 16)
            except TimeoutError:
                break
            except ConnectionResetError:
                return Answers(data, "reset")
            if not more:
                return Answers(data, "closed")
            data += more
        return Answers(data, "hangs")


def wait_for(connection, seconds):
    """Whether something came."""
    connection.settimeout(seconds)
    try:
        connection.recv(1, socket.MSG_PEEK)
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def form_fault(path, status, head, body):
    """What is wrong with the form of a refusal."""
    if b"content-type: application/json" not in head:
        return f"status {status} without JSON"
    try:
        found = json.loads(body)
    except ValueError:
        return f"status {status} with broken JSON"
    if path.startswith("/sdapi/") or path == "/predict":
        text = found.get("detail")
    else:
        text = found.get("error", {}).get("message") if isinstance(found.get("error"), dict) else None
    if not isinstance(text, str) or not text or "\n" in text:
        return f"status {status} without a line that says why"
    return f"a line of {len(text)} characters" if len(text) > 4096 else None


def faults_of(kind, parts, answers):
    found = []
    if answers.state == "hangs":
        found.append("hangs")
    for status, head, body in answers.statuses:
        # There is no index to search.
        if status >= 500 or kind is requests.sound and status not in (200, 404):
            found.append(f"status {status}: {body[:160]!r}")
    if kind not in OF_HTTP and answers.state != "left":
        if not answers.statuses:
            found.append(f"no answer ({answers.state})")
        path = parts[0].split(b" ", 2)[1].decode("latin-1") if parts[0].count(b" ") >= 2 else ""
        for status, head, body in answers.statuses if kind is not protocol.pipelining else []:
            if 400 <= status < 500 and (fault := form_fault(path, status, head, body)):
                found.append(fault)
    return found


class Server:
    """The server under attack."""

    def __init__(self, folder):
        self.log = folder / "log"
        options = [str(part) for pair in LIMITS.items() for part in pair]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program(), "serve", "--port", "0", *options], stdout=subprocess.PIPE, stderr=log, env=environment(), cwd=folder, text=True
            )
        found = re.search(r"http://([\d.]+):(\d+)", self.process.stdout.readline())
        if not found:
            sys.exit(f"the server does not start: {self.log.read_text()}")
        self.address, self.read, self.most = (found[1], int(found[2])), 0, 0

    def faults(self):
        """Faults of the server itself since the last look."""
        found = []
        if self.process.poll() is not None:
            return [f"the server ended with {self.process.returncode}"]
        with self.log.open("rb") as log:
            log.seek(self.read)
            new = log.read()
        self.read += len(new)
        if match := PANICS.search(text := new.decode("utf-8", "replace")):
            found.append(f"panic: {text[max(0, match.start() - 100) : match.end() + 200]!r}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        memory = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) << 10
        if memory > max(MEMORY, self.most):
            found.append(f"{memory >> 20} MB of memory, expected at most {MEMORY >> 20}")
        self.most = max(self.most, memory)
        answers = exchange(self.address, [b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"], SECONDS)
        if not answers.statuses or answers.statuses[0][0] != 200:
            found.append(f"/health: {answers.state} {answers.data[:100]!r}")
        return found


def attempt(server, kind, seed):
    dice = random.Random(f"{kind.__name__} {seed}")
    parts = kind(dice)
    is_slow = kind is protocol.slow
    silence = SILENCE if kind in OF_HTTP and not is_slow else None
    try:
        answers = exchange(server.address, parts, SECONDS_OF_SLOW if is_slow else SECONDS, 1.0 if is_slow else 0.0, silence)
    except OSError as error:
        return kind, seed, parts, False, [f"{type(error).__name__}: {error}"]
    accepted = bool(answers.statuses) and all(status < 400 for status, *_ in answers.statuses)
    return kind, seed, parts, accepted, faults_of(kind, parts, answers)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=5000, help="requests of all kinds together")
    options.add_argument("--seed", type=int, default=0, help="of the first request of each kind")
    options.add_argument("--slow", type=int, default=48, help="connections that are slow, all at once")
    options.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kind.__name__ for kind in KINDS))
    asked = options.parse_args()
    chosen = [kind for kind in KINDS if not asked.kinds or kind.__name__ in asked.kinds]
    table = Table("Wrong requests to a server, by kind")

    def add(outcome):
        kind, seed, parts, accepted, faults = outcome
        shown = b"".join(part or b"" for part in parts)
        table.add(kind.__name__, accepted, faults, f"--seed {seed} --count 1 {kind.__name__}: {shown[:60]!r}…{shown[-60:]!r}")

    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        server = Server(Path(name))
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(max(asked.slow, 1)) as slow_pool:
                slow = [slow_pool.submit(attempt, server, protocol.slow, asked.seed + number) for number in range(0 if asked.kinds else asked.slow)]
                for first in range(0, asked.count, 256):
                    numbers = range(first, min(first + 256, asked.count))
                    jobs = [pool.submit(attempt, server, chosen[number % len(chosen)], asked.seed + number // len(chosen)) for number in numbers]
                    for job in jobs:
                        add(job.result())
                    if faults := server.faults():
                        table.add("the server itself", False, faults, f"after request {numbers[-1]}")
                        if server.process.poll() is not None:
                            break
                for job in slow:
                    add(job.result())
            table.add("the server itself", True, server.faults(), "at the end")
            print(f"most memory: {server.most >> 20} MB")
        finally:
            server.process.terminate()
            server.process.wait(60)
    table.finish()


main()
