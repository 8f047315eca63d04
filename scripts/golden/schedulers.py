"""`schedulers.json` and `schedulers.safetensors`: the whole trajectory of each scheduler under a closed-form model."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from common import draw_in_f32, normal, save_tensors

FORMULA = "model_output = 0.7 * sin(frequency * scale_model_input(x, t) + t / 100)"

#: The configuration of BAAI/AltDiffusion and Stable Diffusion.
PUBLISHED = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
DDPM = dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
COSINE = dict(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
STEPS = (4, 20, 50)
#: The seed of the generator that stochastic schedulers draw from.
SEED = 7
#: Cases without a run of 50 steps: they have too few training steps, or (clipping from pure noise with an epsilon model)
#: a trajectory that amplifies a difference of 1e-7 more than tenfold.
SHORT = ("ddim-trained-betas", "ddim-defaults", "ddim-clip-2")

#: Schedulers that step in terms of the signal-to-noise ratio.
SOLVERS = (
    (DPMSolverMultistepScheduler, "dpm-multi"),
    (DPMSolverSinglestepScheduler, "dpm-single"),
    (UniPCMultistepScheduler, "unipc"),
)
#: Schedulers that step in terms of sigma.
SIGMAS = (
    (LMSDiscreteScheduler, "lms"),
    (HeunDiscreteScheduler, "heun"),
    (EulerAncestralDiscreteScheduler, "euler-a"),
)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")


def model(cls, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 0.7 * torch.sin(frequency(cls) * x + t.to(torch.float32) / 100)


def frequency(cls) -> int:
    """The model's frequency. A slope above 1 would make LCM chaotic, which restarts from the output in every step."""
    return 1 if cls is LCMScheduler else 3


def cases():
    """(name, scheduler class, config) of every case, and `eta` or the steps if given."""
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
        # The last cosine sigma is near 20 000 with an epsilon model: v_prediction keeps the values in range.
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
        # Fewer training steps than the usual 1000, and an empty config: only the class's defaults.
        yield f"{name}-100-train", cls, dict(PUBLISHED, num_train_timesteps=100)
        yield f"{name}-defaults", cls, {}
    yield from ancestral_cases()
    yield from sigma_cases()
    yield from solver_cases()
    yield "ddim-trained-betas", DDIMScheduler, dict(num_train_timesteps=60, trained_betas=[0.001 + 0.0005 * i for i in range(60)], clip_sample=False)


def ancestral_cases():
    """DDPM, DDIM with noise and LCM, which step in terms of the timesteps."""
    for prediction in PREDICTIONS:
        common = dict(PUBLISHED, prediction_type=prediction, clip_sample=False)
        for spacing in SPACINGS:
            yield f"ddpm-{spacing}-{prediction}", DDPMScheduler, dict(common, timestep_spacing=spacing, steps_offset=1)
        yield f"lcm-{prediction}", LCMScheduler, common
        for eta in (0.3, 1.0):
            yield f"ddim-eta-{eta}-{prediction}", DDIMScheduler, dict(common, steps_offset=1), dict(eta=eta)
    for variance in ("fixed_small_log", "fixed_large"):
        config = dict(PUBLISHED, variance_type=variance, clip_sample=False)
        yield f"ddpm-{variance}", DDPMScheduler, config
    yield "ddpm-clip", DDPMScheduler, dict(DDPM, prediction_type="v_prediction")
    yield "ddpm-sigmoid", DDPMScheduler, dict(DDPM, beta_schedule="sigmoid", clip_sample=False)
    zero = dict(PUBLISHED, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction", clip_sample=False)
    yield "ddpm-zero-snr", DDPMScheduler, zero
    yield "ddim-eta-zero-snr", DDIMScheduler, zero, dict(eta=0.5)
    yield "lcm-zero-snr", LCMScheduler, zero
    threshold = dict(PUBLISHED, thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.5)
    for cls, name in ((DDIMScheduler, "ddim"), (DDPMScheduler, "ddpm"), (LCMScheduler, "lcm")):
        yield f"{name}-threshold", cls, dict(threshold, prediction_type="v_prediction")
    yield "ddpm-defaults", DDPMScheduler, {}
    yield "lcm-defaults", LCMScheduler, {}
    yield "lcm-clip", LCMScheduler, dict(clip_sample=True, clip_sample_range=1.5, prediction_type="v_prediction")
    yield "lcm-scaling", LCMScheduler, dict(PUBLISHED, timestep_scaling=0.01, original_inference_steps=100)
    timesteps = dict(timesteps=[999, 850, 736, 515, 310, 99, 19])
    yield "ddpm-timesteps", DDPMScheduler, dict(PUBLISHED, clip_sample=False), timesteps
    yield "lcm-timesteps", LCMScheduler, {}, timesteps


def sigma_cases():
    """LMS, Heun and Euler with noise, and newer options of Euler."""
    for cls, name in SIGMAS:
        predictions = PREDICTIONS[:2] if cls is EulerAncestralDiscreteScheduler else PREDICTIONS
        for prediction in predictions:
            for spacing in SPACINGS:
                config = dict(PUBLISHED, timestep_spacing=spacing, steps_offset=1, prediction_type=prediction)
                yield f"{name}-{spacing}-{prediction}", cls, config
        yield f"{name}-linear", cls, dict(DDPM, prediction_type="v_prediction")
        yield f"{name}-defaults", cls, {}
    config = dict(PUBLISHED, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    yield "euler-a-zero-snr", EulerAncestralDiscreteScheduler, config
    for cls, name in ((LMSDiscreteScheduler, "lms"), (HeunDiscreteScheduler, "heun"), (EulerDiscreteScheduler, "euler")):
        for spread in ("karras", "exponential", "beta"):
            if (name, spread) != ("euler", "karras"):
                yield f"{name}-{spread}", cls, dict(PUBLISHED, timestep_spacing="leading", steps_offset=1, **{f"use_{spread}_sigmas": True})
    yield "heun-clip", HeunDiscreteScheduler, dict(PUBLISHED, clip_sample=True, clip_sample_range=1.5, prediction_type="v_prediction")
    yield "heun-exp", HeunDiscreteScheduler, dict(beta_schedule="exp", prediction_type="v_prediction")
    yield "euler-continuous", EulerDiscreteScheduler, dict(PUBLISHED, timestep_type="continuous", prediction_type="v_prediction")
    timesteps = dict(timesteps=[999, 850, 736, 515, 310, 99, 19])
    yield "heun-timesteps", HeunDiscreteScheduler, dict(PUBLISHED), timesteps
    yield "euler-timesteps", EulerDiscreteScheduler, dict(PUBLISHED), timesteps
    yield "euler-sigmas", EulerDiscreteScheduler, dict(PUBLISHED), dict(sigmas=[14.5, 6.0, 3.25, 1.5, 0.75, 0.25, 0.0])


def solver_cases():
    """DPM-Solver and UniPC."""
    for cls, name in SOLVERS:
        spacings = ("",) if cls is DPMSolverSinglestepScheduler else SPACINGS
        for prediction in PREDICTIONS:
            for spacing in spacings:
                config = dict(PUBLISHED, prediction_type=prediction)
                if spacing:
                    config |= dict(timestep_spacing=spacing, steps_offset=1)
                yield f"{name}-{spacing}-{prediction}", cls, config
        for order in (1, 3):
            yield f"{name}-order-{order}", cls, dict(PUBLISHED, solver_order=order, **solvable(cls, order))
        yield f"{name}-sigma-min", cls, dict(PUBLISHED, final_sigmas_type="sigma_min")
        yield f"{name}-threshold", cls, dict(PUBLISHED, thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=1.5)
        yield f"{name}-karras", cls, dict(PUBLISHED, use_karras_sigmas=True)
        yield f"{name}-karras-sigma-min", cls, dict(PUBLISHED, use_karras_sigmas=True, final_sigmas_type="sigma_min")
        for spread in ("exponential", "beta"):
            yield f"{name}-{spread}", cls, dict(PUBLISHED, **{f"use_{spread}_sigmas": True})
        yield f"{name}-cosine", cls, dict(COSINE, prediction_type="v_prediction")
        yield f"{name}-defaults", cls, {}
    multi, single, unipc = (cls for cls, _ in SOLVERS)
    zero = dict(PUBLISHED, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    yield "dpm-multi-zero-snr", multi, zero
    yield "unipc-zero-snr", unipc, zero
    # Of 4 steps to zero noise, the last would be of order 2, where the reference divides by zero.
    timesteps = dict(timesteps=[999, 850, 736, 515, 310, 99, 19])
    for cls, name in SOLVERS[:2]:
        yield f"{name}-timesteps", cls, dict(PUBLISHED), timesteps
        yield f"{name}-clipped", cls, dict(COSINE, lambda_min_clipped=-5.1)
        for algorithm in ("dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
            if algorithm == "sde-dpmsolver" and cls is single:
                continue
            last = "zero" if algorithm.endswith("++") else "sigma_min"
            for kind in ("midpoint", "heun"):
                config = dict(PUBLISHED, algorithm_type=algorithm, solver_type=kind, final_sigmas_type=last)
                yield f"{name}-{algorithm}-{kind}", cls, config
        for algorithm in ("dpmsolver", "dpmsolver++"):
            config = dict(PUBLISHED, algorithm_type=algorithm, solver_order=3, solver_type="heun", final_sigmas_type="sigma_min")
            yield f"{name}-{algorithm}-heun-3", cls, config
        yield f"{name}-heun", cls, dict(PUBLISHED, solver_type="heun")
        config = dict(PUBLISHED, algorithm_type="dpmsolver", final_sigmas_type="sigma_min")
        for prediction in PREDICTIONS[1:]:
            yield f"{name}-dpmsolver-{prediction}", cls, dict(config, prediction_type=prediction)
        yield f"{name}-sde-karras", cls, dict(PUBLISHED, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    yield "dpm-multi-dpmsolver-threshold", multi, dict(config, thresholding=True, sample_max_value=1.5)
    yield "dpm-multi-lu", multi, dict(PUBLISHED, use_lu_lambdas=True)
    yield "dpm-multi-euler-final", multi, dict(PUBLISHED, euler_at_final=True, lower_order_final=False, final_sigmas_type="sigma_min")
    yield "dpm-multi-full-order-final", multi, dict(PUBLISHED, solver_order=3, lower_order_final=False, final_sigmas_type="sigma_min")
    yield "dpm-multi-leading-offset-0", multi, dict(PUBLISHED, timestep_spacing="leading")
    yield "dpm-single-lower-order-final", single, dict(PUBLISHED, lower_order_final=True, final_sigmas_type="sigma_min")
    for kind in ("bh1", "bh2"):
        for order in (2, 3):
            config = dict(PUBLISHED, solver_type=kind, solver_order=order, final_sigmas_type="sigma_min")
            yield f"unipc-{kind}-{order}", unipc, config
        config = dict(PUBLISHED, solver_type=kind, predict_x0=False, final_sigmas_type="sigma_min")
        for prediction in PREDICTIONS:
            yield f"unipc-{kind}-noise-{prediction}", unipc, dict(config, prediction_type=prediction)
    yield "unipc-no-corrector", unipc, dict(PUBLISHED, disable_corrector=[0, 2])
    config = dict(PUBLISHED, lower_order_final=False, solver_order=3, final_sigmas_type="sigma_min")
    yield "unipc-full-order-final", unipc, config


def solvable(cls, order: int) -> dict:
    """Options for a single-step method of order 3, whose last group may end in order 2, which cannot reach zero noise."""
    return dict(final_sigmas_type="sigma_min") if cls is DPMSolverSinglestepScheduler and order == 3 else {}


def spread_sigmas(scheduler, config: dict, steps: int) -> None:
    """The sigmas of `use_exponential_sigmas` and `use_beta_sigmas` as in later versions of diffusers.

    The solvers of 0.31 pass the training sigmas to the conversion in reverse order and without the number of steps.
    """
    sigmas = np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5)
    convert = scheduler._convert_to_beta if config.get("use_beta_sigmas") else scheduler._convert_to_exponential
    spread = convert(in_sigmas=np.flip(sigmas).copy(), num_inference_steps=steps).numpy()
    timesteps = np.array([scheduler._sigma_to_t(sigma, np.log(sigmas)) for sigma in spread])
    scheduler.sigmas = torch.from_numpy(np.concatenate([spread, [0.0]]).astype(np.float32))
    scheduler.timesteps = torch.from_numpy(timesteps).to(torch.int64)


def run(cls, config: dict, steps, dtype=torch.float32):
    """All latents of a run (steps + 1 rows, or more if a step calls the model twice), and the scheduler.

    `steps` is their number, or a dictionary of arguments that set them.
    """
    draw_in_f32(sys.modules[cls.__module__])
    eta = {"eta": config["eta"]} if "eta" in config else {}
    config = {key: value for key, value in config.items() if key != "eta"}
    is_spread = cls in [solver for solver, _ in SOLVERS] and (
        config.get("use_beta_sigmas") or config.get("use_exponential_sigmas")
    )
    if is_spread:
        plain = {key: value for key, value in config.items() if not key.startswith("use_")}
        scheduler = cls(**plain)
        scheduler.set_timesteps(steps)
        spread_sigmas(scheduler, config, steps)
    else:
        scheduler = cls(**config)
        scheduler.set_timesteps(**steps) if isinstance(steps, dict) else scheduler.set_timesteps(steps)
    arguments = inspect.signature(scheduler.step).parameters
    generator = {"generator": torch.Generator().manual_seed(SEED)} if "generator" in arguments else {}
    x = normal("schedulers/latents", 1, 2, 3, 3).to(dtype) * scheduler.init_noise_sigma
    trajectory = [x]
    for t in scheduler.timesteps:
        output = model(cls, scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False, **generator, **eta)[0]
        trajectory.append(x)
    return torch.stack(trajectory), scheduler


def distance(trajectory: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest relative error of a row."""
    return ((trajectory - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max().item()


def make(output: Path) -> None:
    tensors = {"latents": normal("schedulers/latents", 1, 2, 3, 3)}
    listed = []
    for name, cls, config, *more in cases():
        more = more[0] if more else {}
        given = {key: value for key, value in more.items() if key in ("timesteps", "sigmas")}
        case = {"name": name, "config": {"_class_name": cls.__name__, **config}, "frequency": frequency(cls), "runs": []}
        if "eta" in more:
            case["eta"] = more["eta"]
        for steps in [given] if given else STEPS:
            if steps == 50 and name in SHORT:
                continue
            with_eta = {**config, **{key: value for key, value in more.items() if key == "eta"}}
            trajectory, scheduler = run(cls, with_eta, steps)
            exact, _ = run(cls, with_eta, steps, torch.float64)
            label = "given" if given else steps
            if not torch.isfinite(trajectory).all():
                raise ValueError(f"{name}, {label} steps: the reference is not finite")
            tensors[f"{name}.{label}"] = trajectory
            if cls is EulerDiscreteScheduler:
                tensors[f"{name}.{label}.sigmas"] = scheduler.sigmas.to(torch.float32)
            case["runs"].append(
                {
                    **(given if given else {"steps": steps}),
                    "f32_error": float(f"{distance(trajectory, exact):.1e}"),
                    "init_noise_sigma": float(scheduler.init_noise_sigma),
                    "timesteps": [round(t.item(), 5) for t in scheduler.timesteps],
                }
            )
        listed.append(case)
    save_tensors(output / "schedulers.safetensors", tensors)
    # One case per line: the time steps would otherwise take a line each.
    lines = ",\n".join(json.dumps(case) for case in listed)
    text = f'{{"formula": {json.dumps(FORMULA)}, "seed": {SEED}, "cases": [\n{lines}\n]}}\n'
    (output / "schedulers.json").write_text(text)
