"""`upscaler/`: two small upscalers of a pixel shuffle, in PyTorch's own layers, each with an image and what it becomes."""

from pathlib import Path

import torch
from torch import nn

from common import normal, randomise, save_json, save_tensors

#: (name, hidden channels, hidden layers, factor)
CASES = (("four", 8, 2, 4), ("three", 5, 1, 3))


class Upscaler(nn.Module):
    """Convolutions, and a pixel shuffle of what differs from the nearest pixel."""

    def __init__(self, hidden: int, layers: int, factor: int):
        super().__init__()
        self.conv_in = nn.Conv2d(3, hidden, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(layers))
        self.conv_out = nn.Conv2d(hidden, 3 * factor**2, 3, padding=1)
        self.factor = factor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.silu(self.conv_in(pixels))
        for conv in self.convs:
            hidden = nn.functional.silu(conv(hidden))
        change = nn.functional.pixel_shuffle(self.conv_out(hidden), self.factor)
        return nn.functional.interpolate(pixels, scale_factor=self.factor, mode="nearest") + change


def make(output: Path) -> None:
    for name, hidden, layers, factor in CASES:
        folder = output / "upscaler" / name
        model = randomise(Upscaler(hidden, layers, factor), f"upscaler.{name}", f16_exact=True)
        pixels = normal(f"upscaler.{name}.pixels", 2, 3, 6, 5).clamp(-1, 1)
        enlarged = model(pixels)
        reference = model.double()(pixels.double())
        error = ((enlarged - reference).norm() / reference.norm()).item()
        print(f"  {name}: f32 is within {error:.1e} of f64, {enlarged.mean():.2f} ± {enlarged.std():.2f}")
        save_tensors(folder / "diffusion_pytorch_model.safetensors", {key: value.half() for key, value in model.state_dict().items()})
        save_tensors(folder / "golden.safetensors", {"pixels": pixels, "enlarged": enlarged})
        save_json(
            folder / "config.json",
            {
                "_class_name": "PixelShuffleUpscaler",
                "hidden_channels": hidden,
                "num_hidden_layers": layers,
                "scale_factor": factor,
            },
        )
