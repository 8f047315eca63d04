#!/usr/bin/env python3
"""Compare the peak memory of a guided step and a decode with diffusers: the same full-size checkpoint, on the CPU.

    make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
    compare-memory.py MODEL --program target/release/altdiffusion [--size 512] [--dtype f32]

Each side runs in its own process, which loads the model, computes one guided step and decodes an image. The output is the
peak memory of each, as measured by the system. See `scripts/golden/make.py` for the environment.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROMPT = "一只戴着红色帽子的小狗坐在海边的沙滩上"


def reference(model: Path, size: int, dtype: str) -> None:
    """The work of the process with diffusers."""
    sys.path.insert(0, str(Path(__file__).parent / "golden"))
    import torch
    from pipeline import load

    torch.set_grad_enabled(False)
    pipeline = load(model, {}).to({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype])
    pipeline(PROMPT, num_inference_steps=1, height=size, width=size)


def peak(command: list) -> float:
    """The largest resident memory of a command in GB (10⁹ bytes)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {command[0]} ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint")
    parser.add_argument("--program", type=Path, help="the program altdiffusion")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", default="f32", choices=("f32", "f16", "bf16"))
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reference:
        return reference(arguments.model, arguments.size, arguments.dtype)
    if not arguments.program:
        parser.error("--program is needed")
    with tempfile.TemporaryDirectory() as folder:
        ours = peak([
            arguments.program, "generate", PROMPT, "--model", arguments.model, "--steps", "1", "--dtype", arguments.dtype,
            "--width", str(arguments.size), "--height", str(arguments.size), "--output", Path(folder) / "out.png",
        ])  # fmt: skip
    options = ["--size", str(arguments.size), "--dtype", arguments.dtype, "--reference"]
    theirs = peak([sys.executable, __file__, arguments.model, *options])
    print(f"{arguments.size} × {arguments.size}, {arguments.dtype}: {ours:.2f} GB here, {theirs:.2f} GB with diffusers, {ours / theirs:.2f} ×")


if __name__ == "__main__":
    main()
