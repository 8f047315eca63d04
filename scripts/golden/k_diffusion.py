"""`k_diffusion.safetensors`: the ancestral Euler sampler of k-diffusion at noise levels that diffusers' class does not have.

By the formulas of k-diffusion (https://github.com/crowsonkb/k-diffusion: `get_sigmas_karras`, which is formula 5 of Karras et al.
2022, `get_sigmas_exponential`, `get_ancestral_step`, `sample_euler_ancestral`, `DiscreteSchedule.sigma_to_t`), in f64, under the
same closed-form model as `schedulers.py`.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler

from common import normal, save_tensors
from schedulers import PUBLISHED, SEED, model

STEPS = (4, 20)
RHO = 7.0


def karras(largest: float, smallest: float, steps: int) -> np.ndarray:
    ramp = np.linspace(0, 1, steps)
    return (largest ** (1 / RHO) + ramp * (smallest ** (1 / RHO) - largest ** (1 / RHO))) ** RHO


def exponential(largest: float, smallest: float, steps: int) -> np.ndarray:
    return np.exp(np.linspace(np.log(largest), np.log(smallest), steps))


def timestep_of(sigma: float, training: np.ndarray) -> float:
    """Between the two training timesteps around σ, evenly in its logarithm."""
    logarithms = np.log(training)
    low = min(np.searchsorted(logarithms, np.log(sigma), side="right") - 1, len(training) - 2)
    share = (np.log(sigma) - logarithms[low]) / (logarithms[low + 1] - logarithms[low])
    return low + np.clip(share, 0, 1)


def ancestral_step(sigma: float, following: float) -> tuple[float, float]:
    """The σ to step down to, and that of the new noise."""
    up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
    return (following**2 - up**2) ** 0.5, up


def run(spread: np.ndarray, training: np.ndarray) -> dict[str, torch.Tensor]:
    sigmas = np.append(spread, 0.0)
    timesteps = np.array([timestep_of(sigma, training) for sigma in spread])
    generator = torch.Generator().manual_seed(SEED)
    x = normal("schedulers/latents", 1, 2, 3, 3).double() * sigmas[0]
    trajectory = [x]
    for sigma, following, timestep in zip(sigmas, sigmas[1:], timesteps):
        scaled = x / (sigma**2 + 1) ** 0.5
        denoised = x - sigma * model(EulerAncestralDiscreteScheduler, scaled, torch.tensor(timestep))
        down, up = ancestral_step(sigma, following)
        x = x + (x - denoised) / sigma * (down - sigma)
        x = x + torch.randn(x.shape, generator=generator).double() * up
        trajectory.append(x)
    return {"": torch.stack(trajectory), ".sigmas": torch.from_numpy(sigmas), ".timesteps": torch.from_numpy(timesteps)}


def make(output: Path) -> None:
    alphas = EulerAncestralDiscreteScheduler(**PUBLISHED).alphas_cumprod.double().numpy()
    training = ((1 - alphas) / alphas) ** 0.5
    tensors = {"latents": normal("schedulers/latents", 1, 2, 3, 3)}
    for name, spread in (("karras", karras), ("exponential", exponential)):
        for steps in STEPS:
            found = run(spread(training[-1], training[0], steps), training)
            tensors |= {f"{name}.{steps}{part}": values.float() for part, values in found.items()}
    save_tensors(output / "k_diffusion.safetensors", tensors)
