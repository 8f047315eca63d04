"""`unet.safetensors`: the predictions of both tiny UNets, at sizes that are and are not multiples of 8."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from common import PROMPT_TOKENS, normal, save_tensors

#: (name, batch, latent height, latent width, timesteps)
CASES = (
    ("square", 1, 16, 16, (981,)),
    ("wide", 2, 8, 24, (500, 500)),
    ("batch", 3, 8, 8, (1, 500, 981)),
    ("ragged", 1, 12, 20, (261,)),
    ("odd", 2, 9, 7, (0, 999)),
    ("tiny", 1, 1, 5, (41,)),
)


def make(output: Path) -> None:
    tensors = {}
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        model = UNet2DConditionModel.from_pretrained(output / repository, subfolder="unet", low_cpu_mem_usage=False).eval()
        exact = UNet2DConditionModel.from_pretrained(output / repository, subfolder="unet", low_cpu_mem_usage=False).double().eval()
        worst = 0.0
        for name, batch, height, width, times in CASES:
            prefix = f"{repository}.{name}"
            sample = normal(f"{prefix}.sample", batch, 4, height, width)
            timesteps = torch.tensor(times, dtype=torch.int64)
            states = normal(f"{prefix}.states", batch, PROMPT_TOKENS, model.config.cross_attention_dim)
            prediction = model(sample, timesteps, encoder_hidden_states=states).sample
            reference = exact(sample.double(), timesteps, encoder_hidden_states=states.double()).sample
            worst = max(worst, ((prediction - reference).norm() / reference.norm()).item())
            tensors[f"{prefix}.sample"] = sample
            tensors[f"{prefix}.timesteps"] = timesteps
            tensors[f"{prefix}.encoder_hidden_states"] = states
            tensors[f"{prefix}.output"] = prediction
            print(f"  {prefix}: standard deviation {prediction.std():.2f}")
        print(f"  {repository}: f32 is within {worst:.1e} of f64")
    save_tensors(output / "unet.safetensors", tensors)
