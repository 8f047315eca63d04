"""`combined.json` and `combined.safetensors`: ten runs with random combinations of features.

Features without an AltDiffusion pipeline in diffusers use Stable Diffusion's, with encoded prompts.
"""

import random
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import (
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import load_file

import prompt_weights
from adapters import apply_loras, skipped
from common import draw_in_f32, save_json, save_tensors
from controlnet import SIZE, nets
from pipeline import load

PIPELINES = {
    ("text", False): StableDiffusionPipeline,
    ("image", False): StableDiffusionImg2ImgPipeline,
    ("part", False): StableDiffusionInpaintPipeline,
    ("text", True): StableDiffusionControlNetPipeline,
    ("image", True): StableDiffusionControlNetImg2ImgPipeline,
    ("part", True): StableDiffusionControlNetInpaintPipeline,
}

SCHEDULERS = (
    dict(),
    dict(scheduler="DDIMScheduler", scheduler_config=dict(clip_sample=False)),
    dict(scheduler="EulerDiscreteScheduler", scheduler_config=dict(use_karras_sigmas=True)),
    dict(scheduler="EulerAncestralDiscreteScheduler"),
    dict(scheduler="DPMSolverMultistepScheduler", scheduler_config=dict(use_karras_sigmas=True)),
    dict(scheduler="DPMSolverMultistepScheduler", scheduler_config=dict(timestep_spacing="trailing")),
    dict(scheduler="HeunDiscreteScheduler"),
    dict(scheduler="UniPCMultistepScheduler"),
)

#: The texts, and whether brackets in them are weights.
PROMPTS = (
    ("一只(红色:1.3)的猫", True),
    ("a [small] dog, (night:1.4) BREAK 星空", True),
    ("два коти п'ють чай", False),
    ("eine rote Katze", False),
    ("a photo of <cat-toy> 在海边", False),
)


def cases() -> list[dict]:
    lot = random.Random(5)
    made = []
    for number in range(10):
        kind = ("text", "image", "part")[number % 3]
        prompt, weighted = PROMPTS[number % len(PROMPTS)]
        case = dict(
            name=f"{number}",
            repository=lot.choice(["alt_diffusion", "alt_diffusion_m18"]),
            kind=kind,
            prompt=prompt,
            negative_prompt=lot.choice(["", "模糊, blurry"]),
            weighted=weighted,
            clip_skip=0 if weighted else lot.choice([0, 1]),
            words=["cat-toy"] if "<cat-toy>" in prompt else [],
            loras=lot.choice([{}, {"diffusers": 0.6}, {"kohya": 0.8}, {"diffusers": 0.5, "kohya": -0.3}]),
            controls=lot.choice([[], [dict(scale=0.8, start=0.0, end=0.8)]]),
            guidance_scale=lot.choice([1.0, 2.5, 4.0]),
            num_inference_steps=lot.choice([4, 5, 6]),
            num_images_per_prompt=lot.choice([1, 2]),
            seed=lot.randrange(2**32),
            **SCHEDULERS[number % len(SCHEDULERS)],
        )
        if kind != "text":
            case["strength"] = lot.choice([0.6, 0.8, 1.0])
        if kind == "text" and not case["controls"]:
            case["guidance_rescale"] = lot.choice([0.0, 0.7])
        made.append(case)
    return made


def encode(pipeline, case: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states of the prompt and the negative prompt, padded to the same number of rows."""
    texts = case["prompt"], case["negative_prompt"]
    if not case["weighted"]:
        texts = [pipeline.maybe_convert_prompt(text, pipeline.tokenizer) for text in texts]
        prompt, negative = (skipped(pipeline, text, case["clip_skip"]) for text in texts)
        return prompt, negative
    length = pipeline.tokenizer.model_max_length
    prompt, negative = (prompt_weights.encode(pipeline, text, length) for text in texts)
    return prompt, negative.repeat(1, prompt.shape[1] // negative.shape[1], 1)


def draw(output: Path, case: dict, given: dict, dtype: torch.dtype) -> torch.Tensor:
    pipeline = load(output / case["repository"], case).to(dtype)
    for word in case["words"]:
        pipeline.load_textual_inversion(str(output / f"adapters/{word}.safetensors"))
    if case["loras"]:
        apply_loras(pipeline, output / "adapters", case["repository"], case["loras"])
    prompt, negative = encode(pipeline, case)
    parts = dict(
        vae=pipeline.vae, text_encoder=None, tokenizer=None, unet=pipeline.unet, scheduler=pipeline.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    options = dict(
        prompt_embeds=prompt, output_type="latent", generator=torch.Generator().manual_seed(case["seed"]),
    )  # fmt: skip
    if case["guidance_scale"] > 1:
        options["negative_prompt_embeds"] = negative
    for key in ("guidance_scale", "guidance_rescale", "num_inference_steps", "num_images_per_prompt", "strength"):
        if key in case:
            options[key] = case[key]
    image = Image.fromarray(given["given"].numpy())
    if case["kind"] != "text":
        options["image"] = image
    if case["kind"] == "part":
        options["mask_image"] = Image.fromarray(given["mask"].numpy())
    if case["controls"]:
        parts["controlnet"] = nets(output / "controlnet", case, dtype)
        control, picture = case["controls"][0], Image.fromarray(given["control.0"].numpy())
        options["image" if case["kind"] == "text" else "control_image"] = picture
        options |= dict(
            controlnet_conditioning_scale=control["scale"], control_guidance_start=control["start"],
            control_guidance_end=control["end"],
        )  # fmt: skip
    cls = PIPELINES[case["kind"], bool(case["controls"])]
    if cls is not StableDiffusionImg2ImgPipeline:
        options |= SIZE
    drawer = cls(**parts)
    drawer.set_progress_bar_config(disable=True)
    return drawer(**options).images


def make(output: Path) -> None:
    for cls in PIPELINES.values():
        draw_in_f32(sys.modules[cls.__module__])
    draw_in_f32(diffusers.models.autoencoders.vae)
    given = load_file(output / "controlnet/pipeline.safetensors")
    tensors = {}
    for case in cases():
        latents, exact = (draw(output, case, given, dtype) for dtype in (torch.float32, torch.float64))
        error = ((latents - exact).norm() / exact.norm()).item()
        print(f"  {case['name']} {case['kind']}: f32 latents are within {error:.1e} of f64, ± {latents.std():.2f}")
        tensors[f"{case['name']}.latents"] = latents
    save_json(output / "combined.json", cases())
    save_tensors(output / "combined.safetensors", tensors)
