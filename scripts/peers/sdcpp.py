#!/usr/bin/env python3
"""Times stable-diffusion.cpp, with the protocol of the example `stopwatch` of altdiffusion-pipeline: see there.

    pip install stable-diffusion-cpp-python==0.4.7 transformers pillow torch
    sdcpp.py MODEL INPUTS FOLDER [OPTION ...]

It has no XLM-R, so it reads the UNet and the VAE of MODEL, a directory in the shape of Stable Diffusion 1.x, and a CLIP text
encoder with random weights. It accepts no latents or hidden states, so it draws from a text and a seed. It measures the times
itself: of the second of two steps (the first prepares buffers), and of decoding. `unet_2x…` is a step with guidance, computed
as two passes, and `unet_1x…` one without; results are not comparable and not written. All weights are f32. OPTIONs are boolean
arguments of its class StableDiffusion to turn on, such as diffusion_flash_attn.
"""

import ctypes
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import stable_diffusion_cpp as sd
import torch
from transformers import CLIPTextConfig, CLIPTextModel


class Times:
    """The times that the library logs."""

    def __init__(self):
        self.step = self.decode = float("nan")
        # Kept here, since the library holds only the addresses.
        self.on_log = sd.sd_log_callback(self.log)
        self.on_progress = sd.sd_progress_callback(self.progress)

    def install(self):
        sd.sd_set_log_callback(self.on_log, ctypes.c_void_p(0))
        sd.sd_set_progress_callback(self.on_progress, ctypes.c_void_p(0))

    def log(self, _level: int, text: bytes, _data) -> None:
        found = re.search(rb"decode_first_stage completed, taking ([\d.]+)s", text)
        if found:
            self.decode = float(found[1])
        print(text.decode(errors="replace"), end="", file=sys.stderr)

    def progress(self, _step: int, _steps: int, seconds: float, _data) -> None:
        self.step = seconds


def with_clip(model: Path, folder: Path) -> Path:
    """The UNet and the VAE of `model` with a text encoder of CLIP ViT-L/14, in diffusers' folders."""
    for part in ["unet", "vae"]:
        (folder / part).symlink_to((model / part).resolve())
    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768
    )
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


def main() -> None:
    model, _inputs, _folder, *options = sys.argv[1:]
    # The library also writes to standard output, which must only contain answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        drawer = sd.StableDiffusion(
            model_path=str(with_clip(Path(model), Path(folder))),
            n_threads=torch.get_num_threads(),
            wtype="f32",
            **dict.fromkeys(options, True),
        )
    print(time.perf_counter() - start, file=answers, flush=True)
    times = Times()
    for line in sys.stdin:
        work = line.strip()
        drawn = re.fullmatch(r"(unet_[12]x|vae_)(\d+)", work)
        if not drawn:
            print("-", file=answers, flush=True)
            continue
        times.install()
        side = int(drawn[2])
        # Without guidance, and without a step that is not timed.
        scale, steps = (7.5 if drawn[1] == "unet_2x" else 1.0), (1 if drawn[1] == "vae_" else 2)
        drawer.generate_image(
            prompt="a cat", width=side, height=side, sample_steps=steps, cfg_scale=scale, seed=1
        )
        print(times.decode if drawn[1] == "vae_" else times.step, file=answers, flush=True)


if __name__ == "__main__":
    main()
