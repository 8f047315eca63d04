"""`ip_adapter/`: a tiny image encoder, tiny IP-Adapters of three kinds, and images drawn with them.

Images come from diffusers' `StableDiffusionPipeline` and `StableDiffusionControlNetPipeline` with `load_ip_adapter`. The
adapters have the tensor names and layers of published ones.
"""

import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline
from diffusers.pipelines.controlnet import pipeline_controlnet
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from common import draw_in_f32, normal, randomise, save_json, save_tensors
from controlnet import nets
from given_images import picture
from pipeline import load

CROSS_ATTENTION, IMAGE_SIZE = 20, 32
#: The widths of the image encoder, its projection, and the resampler with one head of 64.
HIDDEN, EMBEDDING, RESAMPLER, HEADS = 16, 24, 12, 64
#: diffusers always builds this many, whatever the file has.
RESAMPLER_LAYERS = 4

COMMON = dict(
    repository="alt_diffusion", prompt="一只猫", negative_prompt="blurry", guidance_scale=3.0, num_inference_steps=4,
    num_images_per_prompt=1, pictures=1, scale=0.6, control=False,
)  # fmt: skip

CASES = (
    dict(COMMON, name="plain", adapter="plain.bin", seed=1),
    dict(COMMON, name="plain-two", adapter="plain.bin", seed=2, pictures=2, num_images_per_prompt=2),
    dict(COMMON, name="plain-unguided", adapter="plain.bin", seed=3, guidance_scale=1.0, scale=1.0, repository="alt_diffusion_m18"),
    dict(COMMON, name="plus", adapter="plus.safetensors", seed=4, scheduler="EulerDiscreteScheduler"),
    dict(COMMON, name="plus-two", adapter="plus.safetensors", seed=5, pictures=2, num_images_per_prompt=2, scale=1.0),
    dict(COMMON, name="full", adapter="full.safetensors", seed=6),
    dict(COMMON, name="control", adapter="plus.safetensors", seed=7, control=True),
)  # fmt: skip

SIZE = dict(width=56, height=40)


def weight(name: str, *shape: int, gain: float = 1.0) -> torch.Tensor:
    """A matrix that keeps activations near 1, or a vector of biases."""
    scale = gain * shape[-1] ** -0.5 if len(shape) > 1 else 0.15
    return (scale * normal(f"ip_adapter/{name}", *shape)).half()


def linear(name: str, out: int, into: int, bias: bool = True, gain: float = 1.0) -> dict:
    tensors = {f"{name}.weight": weight(f"{name}.weight", out, into, gain=gain)}
    return tensors | ({f"{name}.bias": weight(f"{name}.bias", out)} if bias else {})


def layer_norm(name: str, size: int) -> dict:
    scale = (1 + 0.2 * normal(f"ip_adapter/{name}.weight", size)).half()
    return {f"{name}.weight": scale, f"{name}.bias": weight(f"{name}.bias", size)}


def plain() -> dict:
    return linear("proj", 4 * CROSS_ATTENTION, EMBEDDING) | layer_norm("norm", CROSS_ATTENTION)


def full() -> dict:
    inner = linear("proj.0", HIDDEN, HIDDEN) | linear("proj.2", CROSS_ATTENTION, HIDDEN)
    return inner | layer_norm("proj.3", CROSS_ATTENTION)


def plus() -> dict:
    tensors = {"latents": normal("ip_adapter/latents", 1, 6, RESAMPLER).half()}
    tensors |= linear("proj_in", RESAMPLER, HIDDEN) | linear("proj_out", CROSS_ATTENTION, RESAMPLER)
    tensors |= layer_norm("norm_out", CROSS_ATTENTION)
    for layer in range(RESAMPLER_LAYERS):
        attention, feed_forward = f"layers.{layer}.0", f"layers.{layer}.1"
        tensors |= layer_norm(f"{attention}.norm1", RESAMPLER) | layer_norm(f"{attention}.norm2", RESAMPLER)
        tensors |= linear(f"{attention}.to_q", HEADS, RESAMPLER, bias=False, gain=1.6)
        tensors |= linear(f"{attention}.to_kv", 2 * HEADS, RESAMPLER, bias=False, gain=1.3)
        tensors |= linear(f"{attention}.to_out", RESAMPLER, HEADS, bias=False)
        tensors |= layer_norm(f"{feed_forward}.0", RESAMPLER)
        tensors |= linear(f"{feed_forward}.1", 4 * RESAMPLER, RESAMPLER, bias=False)
        tensors |= linear(f"{feed_forward}.3", RESAMPLER, 4 * RESAMPLER, bias=False)
    return tensors


def attentions(unet) -> dict:
    """Keys and values for every cross-attention, in diffusers' numbering."""
    tensors, key_id = {}, 1
    for name in unet.attn_processors:
        if not name.endswith("attn1.processor"):
            module = unet.get_submodule(name.removesuffix(".processor"))
            for part, gain in (("k", 1.6), ("v", 1.0)):
                tensors |= linear(f"{key_id}.to_{part}_ip", module.to_k.out_features, CROSS_ATTENTION, False, gain)
            key_id += 2
    return tensors


def save(folder: Path, name: str, adapter: dict) -> None:
    """Write a file like published ones: nested dictionaries, or a flat one with joined names."""
    if name.endswith(".bin"):
        torch.save(adapter, folder / name)
    else:
        joined = {f"{part}.{key}": value for part, tensors in adapter.items() for key, value in tensors.items()}
        save_tensors(folder / name, joined)


def run(output: Path, case: dict, adapters: dict, given: dict, dtype: torch.dtype) -> tuple:
    pipeline = load(output / case["repository"], case)
    pipeline = pipeline.to(dtype)
    guided = case["guidance_scale"] > 1
    prompt, negative = pipeline.encode_prompt(case["prompt"], "cpu", 1, guided, case["negative_prompt"])
    encoder = CLIPVisionModelWithProjection.from_pretrained(output / "ip_adapter" / "image_encoder").eval()
    parts = dict(
        vae=pipeline.vae, text_encoder=None, tokenizer=None, unet=pipeline.unet, scheduler=pipeline.scheduler,
        safety_checker=None, requires_safety_checker=False, image_encoder=encoder,
        feature_extractor=CLIPImageProcessor(size=IMAGE_SIZE, crop_size=IMAGE_SIZE),
    )  # fmt: skip
    images = [Image.fromarray(given[f"prompt.{place}"].numpy()) for place in range(case["pictures"])]
    options = dict(
        prompt_embeds=prompt, negative_prompt_embeds=negative, output_type="latent",
        generator=torch.Generator().manual_seed(case["seed"]), ip_adapter_image=[images], **SIZE,
    )  # fmt: skip
    options |= {key: case[key] for key in ("guidance_scale", "num_inference_steps", "num_images_per_prompt")}
    if case["control"]:
        net = nets(output / "controlnet", dict(case, controls=[{}]), dtype)
        pipeline = StableDiffusionControlNetPipeline(controlnet=net, **parts)
        options["image"] = Image.fromarray(given["control"].numpy())
    else:
        pipeline = StableDiffusionPipeline(**parts)
    adapter = {part: {key: value.float() for key, value in tensors.items()} for part, tensors in adapters[case["adapter"]].items()}
    pipeline.load_ip_adapter(adapter, subfolder="", weight_name="")
    pipeline.set_ip_adapter_scale(case["scale"])
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to(dtype)
    latents = pipeline(**options).images
    projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
    features, _ = pipeline.encode_image(images, "cpu", 1, case["adapter"] != "plain.bin")
    return latents, features, projection(features)


def make(output: Path) -> None:
    for module in (pipeline_stable_diffusion, pipeline_controlnet):
        draw_in_f32(module)
    folder = output / "ip_adapter"
    if folder.exists():
        shutil.rmtree(folder)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=24, projection_dim=EMBEDDING, num_hidden_layers=3, num_attention_heads=2,
        image_size=IMAGE_SIZE, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    encoder = randomise(CLIPVisionModelWithProjection(config), "ip_adapter_encoder", f16_exact=True)
    encoder.save_pretrained(folder / "image_encoder", safe_serialization=True)
    (folder / "image_encoder" / "model.safetensors").chmod(0o644)
    # The tokens fit both repositories, but keys and values only a UNet with these channels.
    unets = {name: load(output / name, {}).unet for name in ("alt_diffusion", "alt_diffusion_m18")}
    projections = {"plain.bin": plain(), "plus.safetensors": plus(), "full.safetensors": full()}
    both = {
        repository: {name: dict(image_proj=tensors, ip_adapter=attentions(unet)) for name, tensors in projections.items()}
        for repository, unet in unets.items()
    }
    for name, adapter in both["alt_diffusion"].items():
        save(folder, name, adapter)
    save(folder, "m18.safetensors", both["alt_diffusion_m18"]["plain.bin"])

    given = {f"prompt.{place}": picture(f"ip_prompt_{place}", 50 - 9 * place, 41) for place in range(2)}
    given["control"] = picture("ip_control", **SIZE)
    tensors = dict(given)
    for case in CASES:
        name, adapters = f"{case['repository']}.{case['name']}", both[case["repository"]]
        latents, features, tokens = run(output, case, adapters, given, torch.float32)
        exact, _, exact_tokens = run(output, case, adapters, given, torch.float64)
        errors = [((a - b).norm() / b.norm()).item() for a, b in ((latents, exact), (tokens, exact_tokens))]
        print(f"  {name}: f32 latents are within {errors[0]:.1e} of f64 (tokens {errors[1]:.1e}), ± {latents.std():.2f}")
        tensors[f"{name}.latents"] = latents
        if case["name"] in ("plain", "plus", "full"):
            tensors[f"{name}.features"], tensors[f"{name}.tokens"] = features, tokens
    save_json(folder / "pipeline.json", list(CASES))
    save_tensors(folder / "pipeline.safetensors", tensors)
