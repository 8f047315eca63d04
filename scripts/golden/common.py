"""Shares code among all parts: seeded random weights, and writing files."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

#: The diffusion text encoder always sees prompts of this many tokens.
PROMPT_TOKENS = 77


def seed_of(name: str) -> int:
    """A seed that depends on the name alone, so that parts can be made one at a time and in any order."""
    return zlib.crc32(name.encode())


def normal(name: str, *shape: int) -> torch.Tensor:
    """Standard normal f32 values, the same for the same name on every machine (numpy's generator, not torch's)."""
    generator = np.random.Generator(np.random.PCG64(seed_of(name)))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def randomise(model: nn.Module, name: str, *, f16_exact: bool = False) -> nn.Module:
    """Give every parameter of `model` random values that keep activations near 1, and none of them zero or one.

    The default initialisation leaves biases at 0 and normalisation weights at 1, which would hide a missing bias or
    two swapped norms. With `f16_exact` the values are rounded to f16, so that an f16 copy of the weights is exact.
    """
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            noise = normal(f"{name}/{key}", *parameter.shape)
            norm = key.endswith("weight") and parameter.dim() == 1
            if norm:
                value = 1 + 0.2 * noise
            elif parameter.dim() <= 1:
                value = 0.15 * noise
            elif "embeddings" in key and parameter.dim() == 2:
                value = 0.6 * noise
            else:
                fan_in = parameter[0].numel()
                # Larger queries and keys: nearly uniform attention would hide a wrong scale or mask.
                gain = 1.6 if any(part in key for part in ("to_q", "to_k", "query", "key", "q_proj", "k_proj")) else 1.0
                value = gain * fan_in**-0.5 * noise
            parameter.copy_(value.half().float() if f16_exact else value)
    return model.eval()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{path.name}: {name} is not finite")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, str(path), metadata)
    path.chmod(0o644)  # safetensors creates files that only their owner can read


def save_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def draw_in_f32(module) -> None:
    """Make a diffusers module draw its noise in f32 and convert it, so that it is the same in every dtype."""

    def randn_tensor(shape, generator=None, device=None, dtype=None):
        return torch.randn(shape, generator=generator).to(dtype)

    module.randn_tensor = randn_tensor
