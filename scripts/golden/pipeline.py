"""`pipeline.json` and `pipeline.safetensors`: `AltDiffusionPipeline` from given latents or a seed to the final image."""

import inspect
import json
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import AltDiffusionPipeline, AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import pipeline_alt_diffusion
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation
from transformers import XLMRobertaTokenizer

from common import draw_in_f32, normal, save_json, save_tensors

#: Sizes are in pixels. `scheduler` replaces the repository's, with the same configuration except for `scheduler_config`,
#: like `from_config`.
CASES = (
    dict(
        name="guided",
        prompt="一只戴帽子的小狗",
        negative_prompt="模糊, blurry",
        guidance_scale=3.0,
        num_inference_steps=5,
        num_images_per_prompt=2,
        height=64,
        width=96,
    ),
    dict(
        name="unguided",
        prompt="a red apple",
        negative_prompt=None,
        guidance_scale=1.0,
        num_inference_steps=4,
        num_images_per_prompt=1,
        height=64,
        width=64,
    ),
    dict(
        name="euler",
        prompt="Дві кішки п'ють чай",
        negative_prompt=None,
        guidance_scale=2.5,
        num_inference_steps=5,
        num_images_per_prompt=1,
        height=56,
        width=40,
        scheduler="EulerDiscreteScheduler",
    ),
    # From a seed alone: the noise of two images in one tensor, where no block of 16 values ends with the first image.
    dict(
        name="seed",
        prompt="一只猫",
        negative_prompt=None,
        guidance_scale=2.5,
        num_inference_steps=5,
        num_images_per_prompt=2,
        height=24,
        width=40,
        seed=1234,
    ),
    dict(
        name="seed-noise",
        prompt="eine rote Katze",
        negative_prompt="blau",
        guidance_scale=2.0,
        num_inference_steps=6,
        num_images_per_prompt=1,
        height=32,
        width=40,
        scheduler="EulerAncestralDiscreteScheduler",
        seed=2**32 + 5,
    ),
    dict(
        name="rescaled",
        prompt="ein rotes Haus",
        negative_prompt="blurry",
        guidance_scale=4.0,
        guidance_rescale=0.7,
        num_inference_steps=3,
        num_images_per_prompt=2,
        height=16,
        width=32,
        seed=21,
    ),
    dict(
        name="seed-eta",
        prompt="два коти",
        negative_prompt=None,
        guidance_scale=1.0,
        num_inference_steps=4,
        num_images_per_prompt=2,
        height=40,
        width=24,
        scheduler="DDIMScheduler",
        # PNDM's file does not set this, and DDIM's default is for pixels.
        scheduler_config=dict(clip_sample=False),
        eta=0.7,
        seed=99,
    ),
    dict(
        name="seed-sde",
        prompt="a green tree",
        negative_prompt=None,
        guidance_scale=2.0,
        num_inference_steps=5,
        num_images_per_prompt=1,
        height=32,
        width=32,
        scheduler="DPMSolverMultistepScheduler",
        scheduler_config=dict(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
        seed=3,
    ),
)


def load(folder: Path, case: dict) -> AltDiffusionPipeline:
    """Assemble the pipeline from its folders: diffusers cannot load it from its `model_index.json`."""
    index = json.loads((folder / "model_index.json").read_text())
    scheduler = getattr(diffusers, index["scheduler"][1])
    pipeline = AltDiffusionPipeline(
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=XLMRobertaTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False),
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False),
        scheduler=scheduler.from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if "scheduler" in case:
        cls = getattr(diffusers, case["scheduler"])
        pipeline.scheduler = cls.from_config(pipeline.scheduler.config, **case.get("scheduler_config", {}))
        draw_in_f32(sys.modules[cls.__module__])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(output: Path) -> None:
    tensors = {}
    draw_in_f32(pipeline_alt_diffusion)
    accepted = set(inspect.signature(AltDiffusionPipeline.__call__).parameters)
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        for case in CASES:
            prefix = f"{repository}.{case['name']}"
            options = {key: value for key, value in case.items() if key in accepted}
            pictures, height, width = case["num_images_per_prompt"], case["height"], case["width"]
            if "seed" not in case:
                initial = normal(f"{prefix}.initial", pictures, 4, height // 8, width // 8)
                tensors[f"{prefix}.initial_latents"] = initial

            def start(dtype: torch.dtype) -> dict:
                if "seed" in case:
                    return {"generator": torch.Generator().manual_seed(case["seed"])}
                return {"latents": initial.to(dtype)}

            pipeline = load(output / repository, case)
            latents = pipeline(output_type="latent", **start(torch.float32), **options).images
            picture = pipeline(output_type="pt", **start(torch.float32), **options).images

            exact = load(output / repository, case).to(torch.float64)
            reference = exact(output_type="latent", **start(torch.float64), **options).images
            reference_picture = exact(output_type="pt", **start(torch.float64), **options).images
            latents_error = ((latents - reference).norm() / reference.norm()).item()
            picture_error = ((picture - reference_picture).norm() / reference_picture.norm()).item()
            cut = ((picture == 0) | (picture == 1)).float().mean().item()
            print(
                f"  {prefix}: f32 latents are within {latents_error:.1e} of f64 (pictures {picture_error:.1e}), "
                f"latents ± {latents.std():.2f}, picture {picture.mean():.2f} ± {picture.std():.2f}, {cut:.0%} cut off"
            )
            tensors[f"{prefix}.latents"] = latents
            tensors[f"{prefix}.picture"] = picture
    save_json(output / "pipeline.json", list(CASES))
    save_tensors(output / "pipeline.safetensors", tensors)
