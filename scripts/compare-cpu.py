#!/usr/bin/env python3
"""Compare the time of a full-size model's parts on the CPU with PyTorch: one checkpoint, one run, taking turns.

    make-random-checkpoint.py MODEL --model m9 --tokenizer tests/golden/tokenizer
    cargo build --release -p altdiffusion-pipeline --example stopwatch
    cargo build --release --manifest-path scripts/peers/candle/Cargo.toml
    compare-cpu.py MODEL --program target/release/examples/stopwatch \\
        --peer candle-transformers=scripts/peers/candle/target/release/stopwatch-candle \\
        --peer stable-diffusion.cpp=scripts/peers/sdcpp.py

Peers are optional, and answer like the example `stopwatch`, or with `-` for work that they do not support. All use every core;
this project and PyTorch hold the checkpoint in f32. PyTorch runs the UNet and the VAE with channels first and with channels
last, and the faster one counts. After a warm-up turn, turns alternate. The output has medians, the others' times relative to
ours, operations per second (counted without shortcuts), their share of the cores' throughput (PyTorch's product of 2048 × 2048
matrices in f32, measured in the same run), and the distance ‖a − b‖ / ‖b‖ from PyTorch's results. The exit code is 1 if that is
above 1e-4. See `scripts/golden/make.py` for the environment.
"""

import argparse
import datetime
import math
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesModelWithTransformation,
)
from safetensors.torch import load_file, save_file
from turns import Program, prompts, timed

TOLERANCE = 1e-4
#: 10⁹ floating-point operations per work item, without shortcuts.
TEXT_TOKEN, UNET_256, UNET_512, VAE_512 = 0.604, 360, 803, 2510
#: Of XLM-R.
VOCAB_SIZE = 250002


def make_inputs() -> dict[str, tuple[float, dict[str, torch.Tensor]]]:
    generator = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))  # noqa: E731

    def unet(batch: int, size: int) -> dict[str, torch.Tensor]:
        return {
            "sample": normal(batch, 4, size // 8, size // 8),
            "timesteps": torch.full((batch,), 500.0),
            "hidden_states": normal(batch, 77, 768),
        }

    return {
        "text_8x77": (8 * 77 * TEXT_TOKEN, prompts(np.full(8, 77), VOCAB_SIZE, generator)),
        "text_32_realistic": (32 * 77 * TEXT_TOKEN, prompts(generator.integers(4, 41, 32), VOCAB_SIZE, generator)),
        "unet_2x256": (UNET_256, unet(2, 256)),
        "unet_1x512": (UNET_512, unet(1, 512)),
        "vae_512": (VAE_512, {"latents": normal(1, 4, 64, 64)}),
    }


class Reference:
    """PyTorch's side."""

    def __init__(self, model: Path):
        self.text = RobertaSeriesModelWithTransformation.from_pretrained(model / "text_encoder").eval()
        self.unet = UNet2DConditionModel.from_pretrained(model / "unet").eval()
        self.vae = AutoencoderKL.from_pretrained(model / "vae").eval()

    def run(self, name: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if name.startswith("text"):
            return self.text(**inputs).projection_state
        if name.startswith("unet"):
            return self.unet(
                inputs["sample"], inputs["timesteps"], encoder_hidden_states=inputs["hidden_states"]
            ).sample
        return self.vae.decode(inputs["latents"]).sample

    def to(self, memory_format: torch.memory_format) -> None:
        self.unet.to(memory_format=memory_format)
        self.vae.to(memory_format=memory_format)


def peak() -> float:
    """10⁹ operations per second in a large matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    torch.mm(a, b)
    return 2 * 2048**3 / 1e9 / statistics.median(timed(torch.mm, a, b) for _ in range(9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the checkpoint")
    parser.add_argument("--program", type=Path, required=True, help="the built example `stopwatch`")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PROGRAM", help="another program to time")
    parser.add_argument("--rounds", type=int, default=3, help="counted turns of each work (default: 3)")
    parser.add_argument("--works", nargs="+", help="some of the works (default: all)")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(os.cpu_count())

    works = make_inputs()
    works = {name: works[name] for name in arguments.works or works}
    with tempfile.TemporaryDirectory() as folder:
        flat = {f"{work}.{part}": tensor for work, (_, parts) in works.items() for part, tensor in parts.items()}
        flat = {key: tensor.to(torch.uint32) if tensor.dtype == torch.int64 else tensor for key, tensor in flat.items()}
        save_file(flat, Path(folder) / "inputs.safetensors")
        inputs_file = Path(folder) / "inputs.safetensors"
        program = Program(arguments.program, arguments.model, inputs_file, folder)
        peers = {}
        for peer in arguments.peer:
            name, _, path = peer.partition("=")
            output = Path(folder) / name
            output.mkdir()
            peers[name] = Program(path, arguments.model, inputs_file, output)
        reference = Reference(arguments.model)
        rows, worst = [], 0.0
        for name, (operations, inputs) in works.items():
            formats = [torch.contiguous_format]
            if not name.startswith("text"):
                formats.append(torch.channels_last)
            ours, theirs, expected = [], [[] for _ in formats], None
            others = {name: [] for name in peers}
            for turn in range(arguments.rounds + 1):
                times = [program.run(name)]
                for memory_format in formats:
                    reference.to(memory_format)
                    if expected is None:
                        expected = reference.run(name, inputs)
                    times.append(timed(reference.run, name, inputs))
                for peer, seconds in others.items():
                    seconds.append(peers[peer].run(name))
                if turn:
                    ours.append(times[0])
                    for column, seconds in zip(theirs, times[1:]):
                        column.append(seconds)
            found = load_file(Path(folder) / f"{name}.safetensors")["result"]
            error = ((found - expected).norm() / expected.norm()).item()
            worst = max(worst, error)
            mine, best = statistics.median(ours), min(statistics.median(column) for column in theirs)
            # The first turn is a warm-up.
            medians = {peer: statistics.median(seconds[1:]) for peer, seconds in others.items()}
            rows.append((name, mine, best, medians, operations / mine, error))
            print(f"  {name}: {mine:.2f} s, PyTorch {best:.2f} s, {best / mine:.2f} ×", flush=True)
        cores = peak()

    columns = ["work, f32", "here", f"PyTorch {torch.__version__.split('+')[0]}", *peers]
    print(f"\n| {' | '.join(columns)} | GFLOP/s | of a product's | distance |")
    print("|---" * (len(columns) + 3) + "|")
    for name, mine, best, medians, rate, error in rows:
        others = [best, *medians.values()]
        times = " | ".join("–" if math.isnan(other) else f"{other:.2f} s, {other / mine:.2f} ×" for other in others)
        share = f"{100 * rate / cores:.0f} %"
        print(f"| {name} | {mine:.2f} s | {times} | {rate:.0f} | {share} | {error:.1e} |")
    print(f"\n({datetime.date.today().isoformat()}, {os.cpu_count()} cores; a 2048³ product: {cores:.0f} GFLOP/s.)")
    sys.exit(1 if worst > TOLERANCE else 0)


if __name__ == "__main__":
    main()
