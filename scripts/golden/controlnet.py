"""`controlnet/`: tiny ControlNets, their residuals for a UNet, and images drawn with them.

Images come from diffusers' `StableDiffusionControlNetPipeline` and its image-to-image and inpainting variants, with encoded
prompts, since there are no AltDiffusion versions of these.
"""

import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
)
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from diffusers.pipelines.controlnet import (
    pipeline_controlnet,
    pipeline_controlnet_img2img,
    pipeline_controlnet_inpaint,
)
from PIL import Image
from safetensors.torch import load_file

from common import draw_in_f32, normal, randomise, save_json, save_tensors
from given_images import inpainting_unet, picture
from pipeline import load
from single_file import SD1, SD2, Named, unet_to_ldm

CROSS_ATTENTION, TOKENS = 20, 9
EMBEDDING = dict(conditioning_embedding_out_channels=(4, 4, 6, 8), norm_num_groups=4, cross_attention_dim=CROSS_ATTENTION)

#: For the UNets of `alt_diffusion` and `alt_diffusion_m18`.
NETS = {
    "sd1": dict(EMBEDDING, block_out_channels=(8, 12, 16, 16), attention_head_dim=(4, 4, 4, 4)),
    "sd2": dict(EMBEDDING, block_out_channels=(8, 12, 12, 16), attention_head_dim=(2, 4, 4, 8), use_linear_projection=True),
}

#: Its size can be inferred without a configuration: it has 8 heads and 32 groups.
SINGLE = dict(
    block_out_channels=(32,),
    down_block_types=("CrossAttnDownBlock2D",),
    layers_per_block=1,
    attention_head_dim=8,
    norm_num_groups=32,
    cross_attention_dim=4,
    conditioning_embedding_out_channels=(2, 2, 3, 3),
)

#: (name, batch, latent height, latent width, timesteps)
FORWARD_CASES = (("even", 2, 4, 6, (981, 261)), ("odd", 1, 5, 3, (1,)))

SIZE = dict(width=56, height=40)

COMMON = dict(
    repository="alt_diffusion", prompt="一只猫", negative_prompt="blurry", guidance_scale=3.0, num_inference_steps=5,
    num_images_per_prompt=1, controls=[dict(scale=1.0, start=0.0, end=1.0)],
)  # fmt: skip

#: The second of two ControlNets has the first's weights times SECOND.
SECOND = 0.75
TWO = [dict(scale=0.8, start=0.0, end=0.6), dict(scale=0.5, start=0.2, end=1.0)]

CASES = (
    dict(COMMON, name="one", seed=1),
    dict(COMMON, name="one", seed=2, repository="alt_diffusion_m18", controls=[dict(scale=0.7, start=0.0, end=1.0)]),
    dict(COMMON, name="two", seed=3, controls=TWO, num_images_per_prompt=2),
    dict(COMMON, name="two-heun", seed=4, controls=TWO, scheduler="HeunDiscreteScheduler", num_inference_steps=4),
    dict(COMMON, name="guess", seed=5, guess_mode=True, controls=[dict(scale=1.5, start=0.0, end=0.8)], num_images_per_prompt=2),
    dict(COMMON, name="guess-unguided", seed=6, guess_mode=True, guidance_scale=1.0),
    dict(COMMON, name="pooled", seed=7, global_pool_conditions=True, scheduler="EulerDiscreteScheduler"),
    dict(COMMON, name="unguided", seed=8, guidance_scale=1.0, scheduler="UniPCMultistepScheduler"),
    dict(COMMON, name="image", seed=9, strength=0.7, scheduler="DPMSolverMultistepScheduler"),
    dict(COMMON, name="image-two", seed=10, strength=0.8, controls=TWO, repository="alt_diffusion_m18"),
    dict(COMMON, name="part", seed=11, strength=0.9, mask=True, scheduler="EulerAncestralDiscreteScheduler"),
    dict(COMMON, name="channels", seed=12, strength=1.0, mask=True, channels=9),
)  # fmt: skip


def residuals(prefix: str, model: ControlNetModel, tensors: dict) -> None:
    """A model's residuals for every case of FORWARD_CASES."""
    exact = ControlNetModel.from_config(model.config)
    exact.load_state_dict(model.state_dict())
    exact = exact.double().eval()
    for name, batch, height, width, times in FORWARD_CASES:
        given = dict(
            sample=normal(f"{prefix}.{name}.sample", batch, 4, height, width),
            encoder_hidden_states=normal(f"{prefix}.{name}.states", batch, TOKENS, model.config.cross_attention_dim),
            controlnet_cond=normal(f"{prefix}.{name}.cond", batch, 3, 8 * height, 8 * width).sigmoid(),
        )
        timesteps = torch.tensor(times, dtype=torch.int64)
        down, mid = model(timestep=timesteps, return_dict=False, **given)
        exact_down, exact_mid = exact(timestep=timesteps, return_dict=False, **{key: value.double() for key, value in given.items()})
        worst = max(((a - b).norm() / b.norm()).item() for a, b in zip((*down, mid), (*exact_down, exact_mid)))
        print(f"  {prefix}.{name}: f32 is within {worst:.1e} of f64, standard deviation {mid.std():.2f}")
        for key, value in (*given.items(), ("timesteps", timesteps), ("mid", mid)):
            tensors[f"{prefix}.{name}.{key}"] = value
        for place, value in enumerate(down):
            tensors[f"{prefix}.{name}.down.{place}"] = value


def to_ldm(name: str, config) -> str:
    """The name in `cldm.py`, verified by converting it back with `convert_controlnet_checkpoint`."""
    head, *rest = name.split(".")
    blocks = 2 * (len(config.conditioning_embedding_out_channels) - 1)
    if head == "controlnet_cond_embedding":
        layer = {"conv_in": 0, "conv_out": 1 + blocks}.get(rest[0], None)
        layer = 1 + int(rest[1]) if layer is None else layer
        return f"input_hint_block.{2 * layer}.{rest[-1]}"
    if head == "controlnet_down_blocks":
        return f"zero_convs.{rest[0]}.0.{rest[1]}"
    if head == "controlnet_mid_block":
        return f"middle_block_out.0.{rest[0]}"
    return unet_to_ldm(name, config)


class WithWayUp:
    """A ControlNet's configuration with the additional field that a UNet's names depend on."""

    def __init__(self, config):
        self.config, self.up_block_types = config, ["UpBlock2D"] * len(config.block_out_channels)

    def __getattr__(self, name):
        return getattr(self.config, name)


def names_of(model: ControlNetModel) -> list:
    """(name in diffusers, name in latent diffusion, shape) of every weight, as converted by diffusers."""
    config = WithWayUp(model.config)
    rows = [(name, to_ldm(name, config), list(tensor.shape)) for name, tensor in sorted(model.state_dict().items())]
    converted = convert_controlnet_checkpoint(
        {ldm: Named(ldm, shape) for _, ldm, shape in rows}, dict(model.config)
    )
    assert {name: tensor.name for name, tensor in converted.items()} == {name: ldm for name, ldm, _ in rows}
    return rows


def nets(folder: Path, case: dict, dtype: torch.dtype):
    """The ControlNets of a case: a single one, or two combined."""
    folder = folder / ("sd2" if case["repository"].endswith("m18") else "sd1")
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "diffusion_pytorch_model.fp16.safetensors")
    models = []
    for factor in (1.0, SECOND)[: len(case["controls"])]:
        model = ControlNetModel.from_config(config)
        model.load_state_dict({name: weight.float() * factor for name, weight in weights.items()})
        if case.get("global_pool_conditions"):
            model.register_to_config(global_pool_conditions=True)
        models.append(model.eval().to(dtype))
    return models if len(models) > 1 else models[0]


def run(output: Path, case: dict, given: dict, dtype: torch.dtype) -> torch.Tensor:
    pipeline = load(output / case["repository"], case)
    if case.get("channels") == 9:
        inpainting_unet(pipeline.unet, "inpainting_unet")
    pipeline = pipeline.to(dtype)
    guided = case["guidance_scale"] > 1
    prompt, negative = pipeline.encode_prompt(case["prompt"], "cpu", 1, guided, case["negative_prompt"])
    parts = dict(
        vae=pipeline.vae, text_encoder=None, tokenizer=None, unet=pipeline.unet, scheduler=pipeline.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        controlnet=nets(output / "controlnet", case, dtype),
    )  # fmt: skip
    images = [Image.fromarray(given[f"control.{place}"].numpy()) for place in range(len(case["controls"]))]
    single = len(images) == 1
    listed = {key: [control[key] for control in case["controls"]] for key in ("scale", "start", "end")}
    listed = {key: values[0] if single else values for key, values in listed.items()}
    options = dict(
        prompt_embeds=prompt, negative_prompt_embeds=negative, output_type="latent",
        generator=torch.Generator().manual_seed(case["seed"]), guess_mode=case.get("guess_mode", False),
        controlnet_conditioning_scale=listed["scale"], control_guidance_start=listed["start"],
        control_guidance_end=listed["end"], **SIZE,
    )  # fmt: skip
    options |= {key: case[key] for key in ("guidance_scale", "num_inference_steps", "num_images_per_prompt")}
    control = images[0] if single else images
    if "strength" not in case:
        cls, options = StableDiffusionControlNetPipeline, dict(options, image=control)
    else:
        begin = dict(image=Image.fromarray(given["given"].numpy()), control_image=control, strength=case["strength"])
        cls, options = StableDiffusionControlNetImg2ImgPipeline, dict(options, **begin)
        if case.get("mask"):
            cls = StableDiffusionControlNetInpaintPipeline
            options["mask_image"] = Image.fromarray(given["mask"].numpy())
    pipeline = cls(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**options).images


def make(output: Path) -> None:
    for module in (pipeline_controlnet, pipeline_controlnet_img2img, pipeline_controlnet_inpaint):
        draw_in_f32(module)
    draw_in_f32(diffusers.models.autoencoders.vae)
    folder = output / "controlnet"
    if folder.exists():
        shutil.rmtree(folder)

    tensors = {}
    for name, config in NETS.items():
        model = randomise(ControlNetModel(**config), f"controlnet_{name}", f16_exact=True)
        model.save_config(folder / name)
        half = {key: value.half() for key, value in model.state_dict().items()}
        save_tensors(folder / name / "diffusion_pytorch_model.fp16.safetensors", half)
        residuals(name, model, tensors)

    model = randomise(ControlNetModel(**SINGLE), "controlnet_single", f16_exact=True)
    residuals("single", model, tensors)
    names = names_of(model)
    (folder / "single.json").write_text(json.dumps(names, separators=(",", ":")) + "\n")
    state = {f"control_model.{ldm}": model.state_dict()[name].half() for name, ldm, _ in names}
    torch.save({"state_dict": state | {"betas": torch.linspace(0, 1, 4)}}, folder / "single.pth")
    save_tensors(folder / "residuals.safetensors", tensors)

    with torch.device("meta"):
        for name, config in {"sd1": SD1, "sd2": SD2}.items():
            model = ControlNetModel(**config)
            case = dict(config=dict(model.config), names=names_of(model))
            (folder / f"names_{name}.json").write_text(json.dumps(case, separators=(",", ":")) + "\n")
            print(f"  {name}: {len(case['names'])} names")

    given = {f"control.{place}": picture(f"control_picture_{place}", **SIZE) for place in range(2)}
    given["given"] = picture("control_given", **SIZE)
    given["mask"] = (picture("control_mask", **SIZE)[..., 0] > 120).to(torch.uint8) * 255
    tensors = dict(given)
    for case in CASES:
        name = f"{case['repository']}.{case['name']}"
        latents = run(output, case, given, torch.float32)
        exact = run(output, case, given, torch.float64)
        error = ((latents - exact).norm() / exact.norm()).item()
        print(f"  {name}: f32 latents are within {error:.1e} of f64, ± {latents.std():.2f}")
        tensors[f"{name}.latents"] = latents
    save_json(folder / "pipeline.json", list(CASES))
    save_tensors(folder / "pipeline.safetensors", tensors)
