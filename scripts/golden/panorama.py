"""`panorama.safetensors`: large images denoised in overlapping windows, by a wrapper around diffusers' UNet."""

from pathlib import Path

import torch

from common import normal, save_tensors
from pipeline import load

SIDE, OVERLAP = 4, 2


def spans(length: int) -> list[tuple[int, torch.Tensor]]:
    """The starts of windows along one dimension, and their weights: triangles with flat tops that sum to 1."""
    side = min(SIDE, length)
    steps = -(-(length - side) // (side - OVERLAP))
    starts = [(length - side) * index // max(steps, 1) for index in range(steps + 1)]
    place = torch.arange(side, dtype=torch.float64)
    ramp = torch.minimum(torch.minimum(place + 1, side - place), torch.tensor(OVERLAP + 1.0, dtype=torch.float64))
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + side] += ramp
    return [(start, ramp / total[start : start + side]) for start in starts]


def in_windows(unet):
    """The forward pass of a UNet, window by window."""
    whole = unet.forward

    def forward(sample, *arguments, **options):
        options["return_dict"] = False
        height, width = sample.shape[2:]
        result = torch.zeros_like(sample)
        for top, rows in spans(height):
            for left, columns in spans(width):
                window = slice(top, top + len(rows)), slice(left, left + len(columns))
                found = whole(sample[:, :, *window], *arguments, **options)[0]
                result[:, :, *window] += found * (rows[:, None] * columns[None, :]).to(found.dtype)
        return (result,)

    return forward


def make(output: Path) -> None:
    tensors = {}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        for name, height, width in (("wide", 4, 11), ("both", 9, 6)):
            prefix = f"{repository}.{name}"
            initial = normal(f"{prefix}.panorama", 1, 4, height, width)

            def draw(dtype: torch.dtype) -> torch.Tensor:
                pipeline = load(output / repository, {}).to(dtype)
                pipeline.unet.forward = in_windows(pipeline.unet)
                return pipeline(
                    "一幅山水长卷",
                    latents=initial.to(dtype),
                    guidance_scale=2.5,
                    num_inference_steps=4,
                    height=8 * height,
                    width=8 * width,
                    output_type="latent",
                ).images

            latents, exact = draw(torch.float32), draw(torch.float64)
            print(f"  {prefix}: f32 latents are within {((latents - exact).norm() / exact.norm()).item():.1e} of f64")
            tensors[f"{prefix}.initial_latents"], tensors[f"{prefix}.latents"] = initial, latents
    save_tensors(output / "panorama.safetensors", tensors)
