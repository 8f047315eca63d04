"""`pipeline.json` and `pipeline.safetensors`: `AltDiffusionPipeline` from given latents to the final picture."""

import inspect
import json
from pathlib import Path

import diffusers
import torch
from diffusers import AltDiffusionPipeline, AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation
from transformers import XLMRobertaTokenizer

from common import normal, save_json, save_tensors

#: Sizes are in pixels. `scheduler` replaces the repository's own, keeping its config, as `from_config` does.
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
)


def load(folder: Path, case: dict) -> AltDiffusionPipeline:
    """The pipeline put together from its folders: diffusers cannot load it by its `model_index.json`."""
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
        pipeline.scheduler = cls.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make(output: Path) -> None:
    tensors = {}
    accepted = set(inspect.signature(AltDiffusionPipeline.__call__).parameters)
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        for case in CASES:
            prefix = f"{repository}.{case['name']}"
            options = {key: value for key, value in case.items() if key in accepted}
            pictures, height, width = case["num_images_per_prompt"], case["height"], case["width"]
            initial = normal(f"{prefix}.initial", pictures, 4, height // 8, width // 8)

            pipeline = load(output / repository, case)
            latents = pipeline(latents=initial.clone(), output_type="latent", **options).images
            picture = pipeline(latents=initial.clone(), output_type="pt", **options).images

            exact = load(output / repository, case).to(torch.float64)
            reference = exact(latents=initial.double(), output_type="latent", **options).images
            reference_picture = exact(latents=initial.double(), output_type="pt", **options).images
            latents_error = ((latents - reference).norm() / reference.norm()).item()
            picture_error = ((picture - reference_picture).norm() / reference_picture.norm()).item()
            cut = ((picture == 0) | (picture == 1)).float().mean().item()
            print(
                f"  {prefix}: f32 latents are within {latents_error:.1e} of f64 (pictures {picture_error:.1e}), "
                f"latents ± {latents.std():.2f}, picture {picture.mean():.2f} ± {picture.std():.2f}, {cut:.0%} cut off"
            )
            tensors[f"{prefix}.initial_latents"] = initial
            tensors[f"{prefix}.latents"] = latents
            tensors[f"{prefix}.picture"] = picture
    save_json(output / "pipeline.json", list(CASES))
    save_tensors(output / "pipeline.safetensors", tensors)
