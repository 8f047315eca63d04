#!/usr/bin/env python3
"""Trains in two processes while strangers connect: silent, talkative, repeating what ranks said, and many at a time.

    scripts/campaigns/peers.py --count 100

A fault is a run that fails, takes much longer than an undisturbed one, has another result, or lets a stranger in.
"""

import argparse
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from common import GOLDEN, PANICS, Table, environment, program

SETTINGS = """
seed = 5
save_every = 0
model = "{model}"
data = "pairs.jsonl"
image = "file"
captions = ["en"]

[lora]
rank = 2
layers = ["to_q", "to_v"]

[stage]
resolution = 32
batch_size = 2
caption_dropout = 0.1

[stage.optimizer]
steps = 3
learning_rate = 1e-2
warmup_steps = 1
weight_decay = 0.0
beta1 = 0.9
beta2 = 0.99
max_grad_norm = 1.0
ema_decay = 0.5
"""
SECRET = "0123456789abcdef0123456789abcdef"
# Strangers also take time of the processor.
MOST_DELAY = 20.0


class Strangers(threading.Thread):
    """Connects again and again until it is told to stop."""

    def __init__(self, port, kind, seed):
        super().__init__(daemon=True)
        self.port, self.kind, self.dice, self.ended, self.count, self.let_in = port, kind, random.Random(seed), False, 0, False

    def run(self):
        kept = []
        while not self.ended:
            try:
                one = socket.create_connection(("127.0.0.1", self.port), 1)
            except OSError:
                time.sleep(0.01)
                continue
            self.count += 1
            kept.append(one)
            try:
                self.talk(one)
            except OSError:
                pass
            if len(kept) > 400:
                kept.pop(0).close()
            time.sleep(0.001)

    def talk(self, one):
        one.settimeout(0.5)
        dice = self.dice
        if self.kind == "silent":
            return
        if self.kind == "noise":
            return one.sendall(dice.randbytes(dice.choice([1, 24, 87, 88, 89, 5000])))
        challenge = one.recv(40)
        rank, ranks = dice.choice([(1, 2), (0, 2), (1, 3), (2**64 - 1, 2)])
        said = b"altrank2" + rank.to_bytes(8, "little") + ranks.to_bytes(8, "little") + dice.randbytes(32)
        if self.kind == "slow":
            for byte in said[:dice.randrange(20)]:
                one.sendall(bytes([byte]))
                time.sleep(0.005)
            return
        if self.kind == "reflecting":
            return one.sendall((challenge + challenge + challenge)[:88])
        one.sendall(said + dice.randbytes(32))
        answer = one.recv(16)
        # Whoever is welcome is told so by the number two.
        self.let_in |= answer[:8] == (2).to_bytes(8, "little")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def train(folder, port, kind, seed):
    """Both ranks with strangers around them: their exit codes, their messages, seconds, and the strangers."""
    strangers = [Strangers(port, kind, seed + number) for number in range(0 if kind is None else 4)]
    start = time.monotonic()
    ranks = []
    for rank in (0, 1):
        arguments = ["train", "lora", "--config", "run.toml", "--device", "cpu", "--output", "run", "--ranks", "2", "--rank", str(rank), "--rendezvous", f"127.0.0.1:{port}", "--secret-file", "secret"]
        ranks.append(subprocess.Popen([program(), *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        if rank == 0:
            for one in strangers:
                one.start()
            # They are there first.
            time.sleep(0.5 if strangers else 0)
    try:
        said = [rank.communicate(timeout=120)[1].decode("utf-8", "replace") for rank in ranks]
    except subprocess.TimeoutExpired:
        said = ["hang", "hang"]
    for rank in ranks:
        rank.kill()
    for one in strangers:
        one.ended = True
    return [rank.wait() for rank in ranks], said, time.monotonic() - start, strangers


def prepare(folder, settings):
    (folder / "run.toml").write_text(settings)
    (folder / "secret").write_text(SECRET)
    (folder / "images").mkdir()
    for number in range(4):
        picture = GOLDEN / "image_processor/pictures/gradient.png"
        (folder / f"images/{number}.png").write_bytes(picture.read_bytes())
        with (folder / "pairs.jsonl").open("a") as pairs:
            pairs.write(f'{{"file": "images/{number}.png", "en": "picture {number}"}}\n')


def result(folder):
    """What was trained. Caches name the folder that they were made in."""
    return (folder / "run/pytorch_lora_weights.safetensors").read_bytes()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--settings", type=Path, help="a configuration of `train lora` for the images in `images`")
    asked = options.parse_args()
    settings = asked.settings.read_text() if asked.settings else SETTINGS
    settings = settings.replace("{model}", os.fspath(GOLDEN / "alt_diffusion"))
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        prepare(Path(place), settings)
        codes, said, alone, _ = train(Path(place), free_port(), None, 0)
        if codes != [0, 0]:
            raise SystemExit(f"an undisturbed run fails: {said}")
        expected = result(Path(place))
    table, kinds = Table("Hostile peers (tried: runs)"), ["silent", "noise", "slow", "reflecting", "forged"]
    for number in range(asked.count):
        kind = kinds[number % len(kinds)]
        with tempfile.TemporaryDirectory(prefix="campaign-") as place:
            prepare(Path(place), settings)
            codes, said, seconds, strangers = train(Path(place), free_port(), kind, number)
            faults = []
            if codes != [0, 0]:
                faults.append(f"ended with {codes}")
            elif result(Path(place)) != expected:
                faults.append("another result")
            if seconds > alone + MOST_DELAY:
                faults.append(f"{seconds:.1f} s, undisturbed {alone:.1f} s")
            if any(one.let_in for one in strangers):
                faults.append("a stranger was let in")
            if any(PANICS.search(text) for text in said):
                faults.append("panic")
            visits = sum(one.count for one in strangers)
            table.add(kind, codes == [0, 0], faults, f"{visits} visits: {said[0][-200:]!r}")
    table.finish()


main()
