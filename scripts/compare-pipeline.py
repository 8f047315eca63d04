#!/usr/bin/env python3
"""Compare whole generations with diffusers: the same model directory, prompts and starting noise.

Usage::

    compare-pipeline.py --program target/release/altdiffusion [--model models/emoji] [--scheduler NAME]
        [--size PIXELS] [--lora DIR] [--embedding DIR] [PROMPT ...]

Prints ‖a − b‖/‖b‖ of the final latents and of the images for each prompt, in f32, and fails if latents differ by more than
1e-4. The hidden states of the text encoder are compared first. The model may be an AltDiffusion, or anything that
`StableDiffusionPipeline` loads, such as those of `make-random-checkpoint.py`. `--lora` and `--embedding` take the results of `train lora` and `train textual-inversion`, which diffusers also reads.
The environment is that of `golden/make.py`, with peft 0.13.2 for a LoRA.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from pipeline import load  # noqa: E402

#: The largest relative error allowed in the latents: f32 rounding, amplified by the steps and by guidance.
TOLERANCE = 1e-4

#: The names of schedulers here, and their classes in diffusers.
SCHEDULERS = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler"}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def load_any(model: Path, case: dict):
    index = json.loads((model / "model_index.json").read_text())
    if index["_class_name"] != "StableDiffusionPipeline":
        return load(model, case)
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, low_cpu_mem_usage=False)
    if "scheduler" in case:
        cls = getattr(diffusers, case["scheduler"])
        pipeline.scheduler = cls.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def hidden_states(pipeline, arguments) -> float:
    """The distance of the text encoder's hidden states, for all prompts."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/states.safetensors"
        command = [arguments.program.resolve(), "encode", "--model", arguments.model, "--output", file]
        subprocess.run(list(map(str, [*command, "--device", "cpu", *arguments.prompts])), check=True, stdout=subprocess.DEVNULL)
        found = load_file(file)
    tokens = pipeline.tokenizer(
        arguments.prompts, padding="max_length", max_length=found["input_ids"].shape[1], truncation=True, return_tensors="pt"
    )
    if not torch.equal(tokens.input_ids, found["input_ids"].long()):
        sys.exit("the ids differ")
    expected = pipeline.encode_prompt(arguments.prompts, "cpu", 1, False)[0]
    return relative(found["hidden_states"], expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", default=["一只猫", "a red apple", "消防车的图片"], metavar="PROMPT")
    parser.add_argument("--program", type=Path, required=True, help="the program altdiffusion")
    parser.add_argument("--model", type=Path, default=Path("models/emoji"), help="a model directory")
    parser.add_argument("--scheduler", choices=SCHEDULERS, help="by default, the model's own")
    parser.add_argument("--size", type=int, help="the images' sides in pixels; by default, the model's own")
    parser.add_argument("--lora", type=Path, help="a folder with pytorch_lora_weights.safetensors")
    parser.add_argument("--embedding", type=Path, help="a folder with learned_embeds.safetensors")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.0)
    arguments = parser.parse_args()

    case = {"scheduler": SCHEDULERS[arguments.scheduler]} if arguments.scheduler else {}
    torch.set_grad_enabled(False)
    pipeline = load_any(arguments.model, case).to(torch.float32)
    if arguments.lora:
        pipeline.load_lora_weights(arguments.lora)
    if arguments.embedding:
        pipeline.load_textual_inversion(arguments.embedding / "learned_embeds.safetensors")
    unet = json.loads((arguments.model / "unet/config.json").read_text())
    channels, side = unet["in_channels"], unet["sample_size"]
    if arguments.size:
        side = arguments.size // pipeline.vae_scale_factor
    if not (arguments.lora or arguments.embedding):
        print(f"hidden states: {hidden_states(pipeline, arguments):.1e}")
    worst = 0.0
    for number, prompt in enumerate(arguments.prompts):
        initial = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(number))
        options = dict(
            prompt=prompt,
            latents=initial.clone(),
            num_inference_steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            height=side * pipeline.vae_scale_factor,
            width=side * pipeline.vae_scale_factor,
        )
        latents = pipeline(output_type="latent", **options).images
        image = pipeline(output_type="pil", **{**options, "latents": initial.clone()}).images[0]
        with tempfile.TemporaryDirectory() as folder:
            files = {name: f"{folder}/{name}" for name in ("start.safetensors", "end.safetensors", "out.png")}
            save_file({"latents": initial}, files["start.safetensors"])
            command = [arguments.program.resolve(), "generate", prompt, "--model", arguments.model]
            command += ["--initial-latents", files["start.safetensors"], "--save-latents", files["end.safetensors"]]
            command += ["--steps", arguments.steps, "--guidance-scale", arguments.guidance_scale]
            command += ["--scheduler", arguments.scheduler] if arguments.scheduler else []
            command += ["--lora", arguments.lora] if arguments.lora else []
            command += ["--embedding", arguments.embedding] if arguments.embedding else []
            command += ["--output", files["out.png"], "--no-preview", "--device", "cpu"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            found = load_file(files["end.safetensors"])["latents"]
            ours = np.asarray(Image.open(files["out.png"]).convert("RGB"), dtype=np.int16)
        error = relative(found, latents)
        levels = np.abs(ours - np.asarray(image, dtype=np.int16)).max()
        worst = max(worst, error)
        print(f"{prompt}: latents {error:.1e}, images differ by at most {levels} of 255 levels")
    if not worst <= TOLERANCE:
        sys.exit(f"the latents differ by {worst:.1e}, expected at most {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
