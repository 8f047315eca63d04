"""Shares code among comparison scripts: prompts, programs that answer with times, and the timing of functions."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


class Program:
    """An example of this project that loads a model and answers each line with the seconds that its work took.

    A program for another project, with the same protocol, may answer `-` for work that it does not support.
    """

    def __init__(self, *command: str | Path):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(f"program: loaded in {self.answer():.1f} s", flush=True)

    def answer(self) -> float:
        line = self.process.stdout.readline()
        if not line:
            sys.exit("error: the program ended")
        return math.nan if line.strip() == "-" else float(line)

    def run(self, request: str) -> float:
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self.answer()


def prompts(lengths: np.ndarray, vocab_size: int, generator: np.random.Generator) -> dict[str, torch.Tensor]:
    """Random token ids, `<s>` first, `</s>` last, then padding up to 77."""
    # Not every comparison is with PyTorch.
    import torch

    ids = torch.ones((len(lengths), 77), dtype=torch.int64)
    mask = torch.zeros((len(lengths), 77), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.from_numpy(generator.integers(4, vocab_size, length))
        ids[row, 0], ids[row, length - 1], mask[row, :length] = 0, 2, 1
    return {"input_ids": ids, "attention_mask": mask}


def timed(function, *arguments) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
