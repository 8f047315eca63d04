"""`schedulers.json` and `schedulers.safetensors`: the whole trajectory of each scheduler under a closed-form model."""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

from common import normal, save_tensors

FORMULA = "model_output = 0.7 * sin(3 * scale_model_input(x, t) + t / 100)"

#: What BAAI/AltDiffusion and Stable Diffusion publish.
PUBLISHED = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
DDPM = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
COSINE = dict(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
STEPS = (4, 10, 50)
#: Cases without a run of 50 steps: too few training steps, or (clipping from pure noise under an epsilon model) a
#: trajectory that multiplies a difference of 1e-7 by more than ten.
SHORT = ("ddim-trained-betas", "ddim-defaults", "ddim-clip-2")


def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.7 * torch.sin(3 * x + t.to(torch.float32) / 100)


def cases():
    """(name, scheduler class, config) of every case."""
    spacings = ("leading", "trailing", "linspace")
    for spacing in spacings:
        for offset in (0, 1):
            if spacing != "leading" and offset == 1:
                continue  # only `leading` reads the offset
            where = f"{spacing}{offset}"
            for prediction in ("epsilon", "v_prediction", "sample"):
                common = dict(PUBLISHED, timestep_spacing=spacing, steps_offset=offset, prediction_type=prediction)
                for alpha_one in (False, True):
                    name = f"ddim-{where}-{prediction}-{'one' if alpha_one else 'first'}"
                    yield name, DDIMScheduler, dict(common, set_alpha_to_one=alpha_one, clip_sample=False)
                    if prediction != "sample":
                        name = f"pndm-{where}-{prediction}-{'one' if alpha_one else 'first'}"
                        yield name, PNDMScheduler, dict(common, set_alpha_to_one=alpha_one, skip_prk_steps=True)
                yield f"euler-{where}-{prediction}", EulerDiscreteScheduler, common

    for betas, name in ((DDPM, "linear"), (COSINE, "cosine")):
        yield f"ddim-{name}", DDIMScheduler, dict(betas, clip_sample=False)
        yield f"ddim-{name}-clip", DDIMScheduler, dict(betas, clip_sample=True, prediction_type="v_prediction")
        yield f"pndm-{name}", PNDMScheduler, dict(betas, skip_prk_steps=True)
        yield f"pndm-{name}-prk", PNDMScheduler, dict(betas, skip_prk_steps=False)
        # The last cosine sigma is near 20 000 under an epsilon model: v_prediction keeps the values in range.
        yield f"euler-{name}", EulerDiscreteScheduler, dict(betas, prediction_type="v_prediction")
    yield "ddim-clip-2", DDIMScheduler, dict(PUBLISHED, clip_sample=True, clip_sample_range=2.0, steps_offset=1)
    yield "ddim-clip-v", DDIMScheduler, dict(PUBLISHED, clip_sample=True, prediction_type="v_prediction")
    for prediction in ("epsilon", "v_prediction"):
        for offset in (0, 1):
            yield (
                f"pndm-prk-{prediction}-{offset}",
                PNDMScheduler,
                dict(PUBLISHED, skip_prk_steps=False, steps_offset=offset, prediction_type=prediction),
            )
    for cls, name in ((DDIMScheduler, "ddim"), (EulerDiscreteScheduler, "euler")):
        config = dict(PUBLISHED, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
        if cls is DDIMScheduler:
            config["clip_sample"] = False
        yield f"{name}-zero-snr", cls, config
    for spacing in spacings:
        config = dict(PUBLISHED, use_karras_sigmas=True, timestep_spacing=spacing)
        yield f"euler-karras-{spacing}", EulerDiscreteScheduler, config
    yield "euler-karras-v", EulerDiscreteScheduler, dict(PUBLISHED, use_karras_sigmas=True, prediction_type="v_prediction")
    yield "euler-karras-range", EulerDiscreteScheduler, dict(PUBLISHED, use_karras_sigmas=True, sigma_min=0.1, sigma_max=10.0)
    yield "euler-sigma-min", EulerDiscreteScheduler, dict(PUBLISHED, final_sigmas_type="sigma_min", timestep_spacing="leading")
    yield "euler-log-linear", EulerDiscreteScheduler, dict(PUBLISHED, interpolation_type="log_linear")
    for cls, name in ((DDIMScheduler, "ddim"), (PNDMScheduler, "pndm"), (EulerDiscreteScheduler, "euler")):
        # Fewer training steps than the usual 1000, and an empty config: only the class's own defaults.
        yield f"{name}-100-train", cls, dict(PUBLISHED, num_train_timesteps=100)
        yield f"{name}-defaults", cls, {}
    yield "ddim-trained-betas", DDIMScheduler, dict(num_train_timesteps=60, trained_betas=[0.001 + 0.0005 * i for i in range(60)], clip_sample=False)


def run(cls, config: dict, steps: int):
    """Every latent of one run in f32 (steps + 1 rows or more with Runge-Kutta steps), with the scheduler itself."""
    scheduler = cls(**config)
    scheduler.set_timesteps(steps)
    x = normal("schedulers/latents", 1, 2, 3, 3) * scheduler.init_noise_sigma
    trajectory = [x]
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False)[0]
        trajectory.append(x)
    return torch.stack(trajectory), scheduler


def make(output: Path) -> None:
    tensors = {"latents": normal("schedulers/latents", 1, 2, 3, 3)}
    listed = []
    for name, cls, config in cases():
        case = {"name": name, "config": {"_class_name": cls.__name__, **config}, "runs": []}
        for steps in STEPS:
            if steps == 50 and name in SHORT:
                continue
            trajectory, scheduler = run(cls, config, steps)
            tensors[f"{name}.{steps}"] = trajectory
            if cls is EulerDiscreteScheduler:
                tensors[f"{name}.{steps}.sigmas"] = scheduler.sigmas.to(torch.float32)
            case["runs"].append(
                {
                    "steps": steps,
                    "init_noise_sigma": float(scheduler.init_noise_sigma),
                    "timesteps": [t.item() for t in scheduler.timesteps],
                }
            )
        listed.append(case)
    save_tensors(output / "schedulers.safetensors", tensors)
    # One case per line: the time steps would otherwise take a line each.
    lines = ",\n".join(json.dumps(case) for case in listed)
    text = f'{{"formula": {json.dumps(FORMULA)}, "cases": [\n{lines}\n]}}\n'
    (output / "schedulers.json").write_text(text)
