"""Starts servers of other projects, where they are installed."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .http_client import ask_once, get
from .running_server import RunningProcess
from .samples import NotMeasured

#: Seconds until a server must answer: some import for long.
PATIENCE = 600


class PeerServer(RunningProcess):
    """A server of another project, on a free port."""

    def __init__(self, name, command, alive, **environment):
        self.name = name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        self.alive = get(alive)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(part).replace("{port}", str(self.address[1])) for part in command],
            stdout=self.log, stderr=subprocess.STDOUT, env=dict(os.environ, **environment),
        )

    def last_words(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no messages")

    async def answers(self):
        """Waits until the server answers."""
        end = time.perf_counter() + PATIENCE
        while time.perf_counter() < end:
            if self.process.poll() is not None:
                raise NotMeasured(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
            try:
                status, _ = await ask_once(self.address, self.alive)
            except OSError:
                status = None
            if status == 200:
                return
            await asyncio.sleep(0.2)
        raise NotMeasured(f"{self.name} did not answer for {PATIENCE} s: {self.last_words()}")


def infinity(python, model, options=()):
    """infinity-emb, of an environment with this Python or on the PATH."""
    beside = python and python.parent / "infinity_emb"
    program = beside if beside and beside.exists() else shutil.which("infinity_emb")
    if not program:
        raise NotMeasured("infinity_emb is neither beside --peer-python nor on the PATH")
    command = [program, "v2", "--model-id", model, "--host", "127.0.0.1", "--port", "{port}", "--url-prefix", "/v1"]
    command += ["--served-model-name", "model", "--device", "cpu", "--log-level", "warning", "--no-model-warmup", *options]
    # It reports to its makers and looks for models on the hub otherwise.
    return PeerServer("infinity", command, "/health", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1")


def sd_server(model, threads):
    """The server of stable-diffusion.cpp."""
    program = shutil.which("sd-server")
    if not program:
        raise NotMeasured("sd-server is not on the PATH")
    command = [program, "--model", model, "--type", "f32", "--threads", threads]
    command += ["--listen-ip", "127.0.0.1", "--listen-port", "{port}"]
    return PeerServer("sd-server", command, "/v1/models")
