"""Starts `altdiffusion serve`, and looks at it from outside: its metrics, its memory, its time."""

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from .http_client import ask_once, get


class RunningProcess:
    """A process with a server, which ends with the measurement."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def memory(self):
        """Bytes of memory in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) << 10

    def processor_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class RunningServer(RunningProcess):
    """A server of its own for a measurement, on a free port."""

    name = "ours"

    def __init__(self, program, *options, log=subprocess.DEVNULL):
        self.started = time.perf_counter()
        command = [str(program), "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ, LC_ALL="C.UTF-8"))
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(command)}: ended with {self.process.wait()}; see its messages")
        found = re.search(r"http://([\d.]+):(\d+)", line)
        self.address = found[1], int(found[2])

    async def metrics(self):
        """The metrics, by name with labels."""
        _, body = await ask_once(self.address, get("/metrics"))
        lines = (line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


def total(metrics, name):
    """A metric over all its labels."""
    return sum(value for key, value in metrics.items() if key == name or key.startswith(name + "{"))


def between(before, after, name):
    return total(after, name) - total(before, name)


async def idle(server, patience=60.0):
    """Waits until nothing waits in the queues. Returns the seconds."""
    start = time.perf_counter()
    while time.perf_counter() - start < patience:
        if not total(await server.metrics(), "altdiffusion_queue_length"):
            break
        await asyncio.sleep(0.05)
    return time.perf_counter() - start
