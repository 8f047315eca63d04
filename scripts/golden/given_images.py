"""`given_images.json` and `given_images.safetensors`: image to image, and inpainting."""

import inspect
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.pipelines.deprecated.alt_diffusion import pipeline_alt_diffusion_img2img
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint
from PIL import Image

from common import draw_in_f32, normal, randomise, save_json, save_tensors
from pipeline import load

#: The sizes of the given image, its mask, and the output: none divides another.
GIVEN_SIZE, MASK_SIZE = (41, 53), (30, 20)

COMMON = dict(negative_prompt="blurry", guidance_scale=3.0, num_inference_steps=5, num_images_per_prompt=1)

CASES = (
    dict(COMMON, name="image", prompt="一只猫", strength=0.7, seed=1),
    dict(COMMON, name="image-all", prompt="a red apple", strength=1.0, seed=2, scheduler="DDIMScheduler", scheduler_config=dict(clip_sample=False)),
    dict(COMMON, name="image-two", prompt="a house", strength=0.5, seed=3, num_images_per_prompt=2, scheduler="DPMSolverMultistepScheduler"),
    dict(COMMON, name="image-ancestral", prompt="два коти", strength=0.8, seed=4, scheduler="EulerAncestralDiscreteScheduler"),
    dict(COMMON, name="image-heun", prompt="a dog", strength=0.6, seed=5, scheduler="HeunDiscreteScheduler"),
    dict(COMMON, name="image-single", prompt="a dog", strength=0.6, seed=6, scheduler="DPMSolverSinglestepScheduler"),
    dict(COMMON, name="image-unipc", prompt="a dog", strength=0.8, seed=7, scheduler="UniPCMultistepScheduler", guidance_scale=1.0),
    dict(COMMON, name="part", prompt="一只猫", strength=1.0, seed=8, mask=True, scheduler="DDIMScheduler", scheduler_config=dict(clip_sample=False)),
    dict(COMMON, name="part-some", prompt="a red apple", strength=0.6, seed=9, mask=True, num_images_per_prompt=2),
    dict(COMMON, name="part-ancestral", prompt="a tree", strength=0.9, seed=10, mask=True, scheduler="EulerAncestralDiscreteScheduler"),
    dict(COMMON, name="channels", prompt="一只猫", strength=1.0, seed=11, mask=True, channels=9),
    dict(COMMON, name="channels-some", prompt="a dog", strength=0.7, seed=12, mask=True, channels=9, scheduler="EulerDiscreteScheduler"),
)


def picture(name: str, width: int, height: int) -> torch.Tensor:
    """Smooth colours with noise: (height, width, 3), bytes."""
    rows, columns = torch.linspace(0, 3, height)[:, None, None], torch.linspace(0, 4, width)[None, :, None]
    waves = torch.sin(rows * torch.tensor([1.0, 2.0, 3.0])) * torch.cos(columns + torch.tensor([0.0, 1.0, 2.0]))
    return ((waves + 0.2 * normal(name, height, width, 3)) * 90 + 128).clamp(0, 255).to(torch.uint8)


def inpainting_unet(unet, name: str):
    """The UNet with nine input channels, the additional ones with random weights."""
    conv = torch.nn.Conv2d(9, unet.conv_in.out_channels, 3, padding=1)
    randomise(conv, name)
    with torch.no_grad():
        conv.weight[:, :4], conv.bias[:] = unet.conv_in.weight, unet.conv_in.bias
    unet.conv_in = conv
    unet.register_to_config(in_channels=9)
    return unet


def run(folder: Path, case: dict, given: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype):
    pipeline = load(folder, case)
    if case.get("channels") == 9:
        inpainting_unet(pipeline.unet, "inpainting_unet")
    weights = {name: pipeline.unet.state_dict()[name].clone() for name in ("conv_in.weight",)}
    pipeline = pipeline.to(dtype)
    options = {key: case[key] for key in ("strength", "num_inference_steps", "guidance_scale", "num_images_per_prompt")}
    options |= dict(image=Image.fromarray(given.numpy()), generator=torch.Generator().manual_seed(case["seed"]), output_type="latent")
    if not case.get("mask"):
        parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
        image = pipeline_alt_diffusion_img2img.AltDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
        image.set_progress_bar_config(disable=True)
        return image(prompt=case["prompt"], negative_prompt=case["negative_prompt"], **options).images, weights
    # There is no AltDiffusion pipeline for this; Stable Diffusion's accepts encoded prompts.
    prompt, negative = pipeline.encode_prompt(
        case["prompt"], "cpu", 1, case["guidance_scale"] > 1, case["negative_prompt"]
    )
    inpaint = StableDiffusionInpaintPipeline(
        vae=pipeline.vae, text_encoder=None, tokenizer=None, unet=pipeline.unet, scheduler=pipeline.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    inpaint.set_progress_bar_config(disable=True)
    width, height = (side // 8 * 8 for side in GIVEN_SIZE)
    sizes = dict(width=width, height=height, mask_image=Image.fromarray(mask.numpy()))
    return inpaint(prompt_embeds=prompt, negative_prompt_embeds=negative, **sizes, **options).images, weights


def make(output: Path) -> None:
    for module in (pipeline_alt_diffusion_img2img, pipeline_stable_diffusion_inpaint):
        draw_in_f32(module)
    draw_in_f32(sys.modules[diffusers.models.autoencoders.vae.__name__])
    given = picture("given_picture", *GIVEN_SIZE)
    mask = (picture("given_mask", *MASK_SIZE)[..., 0] > 120).to(torch.uint8) * 255
    tensors = {"given": given, "mask": mask}
    assert "strength" in inspect.signature(pipeline_alt_diffusion_img2img.AltDiffusionImg2ImgPipeline.__call__).parameters
    for repository in ("alt_diffusion", "alt_diffusion_m18"):
        for case in CASES:
            name = f"{repository}.{case['name']}"
            latents, weights = run(output / repository, case, given, mask, torch.float32)
            exact, _ = run(output / repository, case, given, mask, torch.float64)
            error = ((latents - exact).norm() / exact.norm()).item()
            print(f"  {name}: f32 latents are within {error:.1e} of f64, ± {latents.std():.2f}")
            tensors[f"{name}.latents"] = latents
            if case.get("channels") == 9:
                tensors[f"{repository}.conv_in.weight"] = weights["conv_in.weight"]
    save_json(output / "given_images.json", list(CASES))
    save_tensors(output / "given_images.safetensors", tensors)
