#!/usr/bin/env python3
"""Compare the time of a UNet's training step with PyTorch: the same model, one run, taking turns.

    cargo build --release -p altclip-training --example training_step
    compare-training.py --program target/release/examples/training_step [--model models/emoji]

A step draws noise, runs the UNet forward and backward, clips the gradient, and updates AdamW and the moving average of the
weights; latents and hidden states are random. PyTorch uses diffusers' UNet, its fused AdamW, the faster of its two memory
formats for each batch, and every core. After a warm-up turn, turns alternate, and medians are printed.
See `scripts/golden/make.py` for the environment.
"""

import argparse
import datetime
import os
import statistics
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from turns import Program, timed

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (8, 32)
TOKENS = 16
STEPS_A_TURN = 10


class Training:
    """PyTorch's side, in one memory format."""

    def __init__(self, model: Path, batch: int, memory_format: torch.memory_format):
        unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32)
        self.unet = unet.train().to(memory_format=memory_format)
        self.weights = list(self.unet.parameters())
        self.averages = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-5, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        config = self.unet.config
        latents = torch.randn(batch, config.in_channels, config.sample_size, config.sample_size)
        self.latents = latents.contiguous(memory_format=memory_format)
        self.states = torch.randn(batch, TOKENS, config.cross_attention_dim)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.alphas = torch.cumprod(1 - betas, 0)

    def step(self) -> None:
        noise = torch.randn_like(self.latents)
        timesteps = torch.randint(0, 1000, (len(noise),))
        alphas = self.alphas[timesteps][:, None, None, None]
        signal, sigma = alphas.sqrt(), (1 - alphas).sqrt()
        prediction = self.unet(signal * self.latents + sigma * noise, timesteps, self.states).sample
        loss = torch.nn.functional.mse_loss(prediction, signal * noise - sigma * self.latents)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], 0.001)

    def steps(self) -> None:
        for _ in range(STEPS_A_TURN):
            self.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="the built example `training_step`")
    parser.add_argument("--model", type=Path, default=ROOT / "models/emoji")
    parser.add_argument("--rounds", type=int, default=3, help="counted turns of each (default: 3)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    # As the command sets it: candle's threads would spin on the cores that the kernels use.
    os.environ["CANDLE_NUM_THREADS"] = "1"

    rows = []
    for batch in BATCHES:
        program = Program(arguments.program, arguments.model, str(batch), str(TOKENS))
        plain = Training(arguments.model, batch, torch.contiguous_format)
        channels_last = Training(arguments.model, batch, torch.channels_last)
        sides = [
            lambda: program.run(str(STEPS_A_TURN)),
            lambda: timed(plain.steps),
            lambda: timed(channels_last.steps),
        ]
        times = [[side() / STEPS_A_TURN for side in sides] for _ in range(1 + arguments.rounds)][1:]
        ours, *theirs = (statistics.median(column) for column in zip(*times))
        print(f"  batch {batch}: {ours:.3f} s, PyTorch {theirs[0]:.3f} s, channels last {theirs[1]:.3f} s", flush=True)
        rows.append((batch, ours, min(theirs)))

    print(f"\n| {arguments.model.name}, f32, a step of training | here | PyTorch {torch.__version__.split('+')[0]} | ratio |")
    print("|---|---|---|---|")
    for batch, ours, theirs in rows:
        print(f"| batch {batch} | {ours:.3f} s | {theirs:.3f} s | {theirs / ours:.2f} × |")
    date = datetime.date.today().isoformat()
    print(f"\n({date}, {os.cpu_count()} cores; by `scripts/compare-training.py`, medians.)")


if __name__ == "__main__":
    main()
